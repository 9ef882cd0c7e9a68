"""A machine's root shell: scripts as root, and channels for what speaks to a command.

How a command is started there (over SSH, or here) is all that differs between machines.
"""

from __future__ import annotations

import re
import shlex
import socket
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol, Self

import paramiko

from swarmkit.errors import OperationFailed, Unreachable
from swarmkit.remote.secrets import Refused, Secrets

SHELL_SECONDS = 60

_READY = b"swarmkit:ready\n"
_PROMPT = "swarmkit:password:"
_NO_SUDO = "swarmkit:no-sudo"
# In the C locale: sudo, and the sudo of Rust.
_WANTS_PASSWORD = re.compile(r"(password|authentication) is required")
_BROKEN = (OSError, EOFError, paramiko.SSHException)
_CHUNK = 65536


@dataclass(frozen=True)
class Finished:
    """What a script left: its output, and its exit status (never 0 for a script that failed)."""

    host: str
    stdout: str
    stderr: str
    status: int

    def checked(self, doing: str) -> str:
        """The output of a script that succeeded; raises OperationFailed with the end of what it printed."""
        if self.status == 0:
            return self.stdout
        said = (self.stderr.strip() or self.stdout.strip()).splitlines()[-8:]
        raise OperationFailed(
            f"{doing} failed with status {self.status}", where=self.host, hint="\n  ".join(said)
        )


class Channel(Protocol):
    """The input and output of a running command: paramiko's channel, or one with the same methods."""

    @property
    def closed(self) -> bool: ...
    @property
    def eof_received(self) -> int: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *args: Any) -> None: ...
    def recv(self, size: int, /) -> bytes: ...
    def recv_stderr(self, size: int, /) -> bytes: ...
    def recv_stderr_ready(self) -> bool: ...
    def sendall(self, data: bytes, /) -> None: ...
    def settimeout(self, seconds: float | None, /) -> None: ...
    def shutdown_write(self) -> None: ...
    def recv_exit_status(self) -> int: ...
    def close(self) -> None: ...


class _PasswordWanted(Exception):
    """sudo wants a password, and was started so that it does not ask for it."""


class RootShell(ABC):
    """Commands on one machine, as root: directly where the user is root, else through sudo.

    A password is given to sudo when it asks, before the command's own input begins, so that it is never
    part of it.
    """

    def __init__(self, secrets: Secrets | None = None) -> None:
        self.secrets = secrets or Secrets()
        self._wants_password = False
        self._refused = False

    @property
    @abstractmethod
    def name(self) -> str:
        """What errors call the machine."""

    @property
    @abstractmethod
    def user(self) -> str:
        """Who logs in there."""

    def open(self) -> object:
        """Log in, where that is needed and has not been done; raises Unreachable where it cannot be."""
        return self

    @abstractmethod
    def start(self, command: str) -> Channel:
        """Start a shell command as the user; raises Unreachable where that cannot be."""

    @abstractmethod
    def close(self) -> None:
        """End it; what still runs over it fails."""

    def root_channel(self, command: str) -> Channel:
        """Start `command` as root; returns the channel at the first byte of its input and output.

        Raises Unreachable where the login is refused, or may not become root.
        """
        if not self._wants_password:
            try:
                return self._as_root(command, None)
            except _PasswordWanted:
                self._wants_password = True
        if self._refused:
            raise Refused("sudo does not accept the password", where=self.name)
        with self.secrets.sudo_password(self.name, self.user) as password:
            try:
                return self._as_root(command, password)
            except Refused:
                self._refused = True
                raise

    def _as_root(self, command: str, password: str | None) -> Channel:
        inner = f"unset LC_ALL; printf 'swarmkit:ready\\n'; exec {command}"
        sudo = "sudo -n" if password is None else f"sudo -k -S -p {shlex.quote(_PROMPT)}"
        outer = (
            f'if [ "$(id -u)" = 0 ]; then exec sh -c {shlex.quote(inner)}; fi; '
            f"command -v sudo >/dev/null || {{ echo {_NO_SUDO} >&2; exit 1; }}; "
            # What sudo says is read here.
            f"LC_ALL=C exec {sudo} -- sh -c {shlex.quote(inner)}"
        )
        try:
            channel = self.start(f"sh -c {shlex.quote(outer)}")
            try:
                self._hand_over(channel, password)
            except BaseException:
                channel.close()
                raise
        except _BROKEN as error:
            raise Unreachable(f"the connection broke: {reason(error)}", where=self.name) from None
        return channel

    def _hand_over(self, channel: Channel, password: str | None) -> None:
        """Read up to the ready mark, giving sudo the password if it asks for it."""
        said, errors, given = b"", b"", False
        deadline = time.monotonic() + SHELL_SECONDS
        # sudo asks on standard error; without a password to give there is no need to look there.
        channel.settimeout(SHELL_SECONDS if password is None else 0.05)
        while not said.endswith(_READY):
            try:
                byte = channel.recv(1)
            except TimeoutError:
                while channel.recv_stderr_ready() and (more := channel.recv_stderr(4096)):
                    errors += more
                if _PROMPT.encode() in errors:
                    if given:
                        raise Refused("sudo does not accept the password", where=self.name) from None
                    channel.sendall(f"{password}\n".encode())
                    given, errors = True, b""
                if time.monotonic() > deadline:
                    raise Unreachable(f"no shell within {SHELL_SECONDS} s", where=self.name) from None
                continue
            if not byte:
                channel.settimeout(SHELL_SECONDS)
                while more := channel.recv_stderr(4096):
                    errors += more
                raise self._no_root(errors, given)
            said += byte
        channel.settimeout(None)

    def _no_root(self, said: bytes, password_given: bool) -> Exception:
        text = said.decode(errors="replace").replace(_PROMPT, "").strip()
        if _NO_SUDO in text:
            return Unreachable(
                f"{self.user} is not root, and there is no sudo",
                where=self.name,
                hint="log in as root, or install sudo",
            )
        if password_given and "incorrect" in text:
            return Refused("sudo does not accept the password", where=self.name)
        if not password_given and _WANTS_PASSWORD.search(text):
            return _PasswordWanted()
        why = text.splitlines()[-1] if text else "the shell ended at once"
        return Unreachable(
            f"{self.user} may not become root: {why}",
            where=self.name,
            hint=f"allow it with a line in /etc/sudoers.d/swarmkit: {self.user} ALL=(ALL) NOPASSWD:ALL",
        )

    def run(self, script: str, timeout: float = 600) -> Finished:
        """Run a POSIX shell script as root; `timeout` is the longest silence, in seconds.

        The script goes over standard input, so nothing in it shows in an argument list, and it starts
        only when all of it has arrived.
        """
        channel = self.root_channel("sh -s")
        with channel:
            channel.settimeout(timeout)
            try:
                channel.sendall(f"main() {{\n{script}\n}}\nmain </dev/null\nexit $?\n".encode())
                channel.shutdown_write()
                out, err = _read_both(channel, timeout)
                status = channel.recv_exit_status()
            except TimeoutError:
                raise OperationFailed(f"no output for {timeout:.0f} s; gave up", where=self.name) from None
            except _BROKEN as error:
                raise Unreachable(f"the connection broke: {reason(error)}", where=self.name) from None
        if status < 0:
            raise Unreachable("the connection broke in the middle of a script", where=self.name)
        return Finished(self.name, out.decode(errors="replace"), err.decode(errors="replace"), status)


def _read_both(channel: Channel, timeout: float) -> tuple[bytes, bytes]:
    """All of standard output and error, read at once: a full window of either would stop the other.

    Raises TimeoutError where both are silent for `timeout` seconds.
    """
    errors = bytearray()
    heard = time.monotonic()

    def read_errors() -> None:
        nonlocal heard
        while True:
            try:
                more = channel.recv_stderr(_CHUNK)
            except TimeoutError:
                continue
            except _BROKEN:
                return
            if not more:
                return
            errors.extend(more)
            heard = time.monotonic()

    reader = threading.Thread(target=read_errors, daemon=True)
    reader.start()
    output = bytearray()
    while True:
        try:
            more = channel.recv(_CHUNK)
        except TimeoutError:
            if time.monotonic() - heard >= timeout:
                raise
            continue
        if not more:
            break
        output.extend(more)
        heard = time.monotonic()
    reader.join()
    return bytes(output), bytes(errors)


def reason(error: BaseException) -> str:
    """Why a connection could not be made, or ended."""
    if isinstance(error, paramiko.ssh_exception.NoValidConnectionsError):
        return reason(next(iter(error.errors.values())))
    # How paramiko says that nothing came, or something else, of what an SSH server says first.
    if isinstance(error, paramiko.SSHException) and any(
        words in str(error) for words in ("protocol banner", "No existing session")
    ):
        return "what answers there is no SSH server"
    if isinstance(error, paramiko.ChannelException):
        return (error.text or "refused by the gateway").lower()
    if isinstance(error, socket.gaierror):
        return "the address is not known (DNS)"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
