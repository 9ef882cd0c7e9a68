"""One SSH connection to one machine, and what runs over it as root."""

from __future__ import annotations

import logging
import shlex
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

import fabric
import paramiko

from swarmkit.errors import OperationFailed, Unreachable
from swarmkit.inventory import Login
from swarmkit.remote.hostkeys import HostKeys

# The environment variable that holds the password for sudo, where sudo wants one.
SUDO_PASSWORD = "SWARMKIT_SUDO_PASSWORD"

# What goes wrong is in the errors that we raise; paramiko would also print it on standard error.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

CONNECT_SECONDS = 15
KEEPALIVE_SECONDS = 15
IDLE_SECONDS = 5
SHELL_SECONDS = 60

_READY = b"swarmkit:ready\n"
_PROMPT = "swarmkit:password:"
_NO_SUDO = "swarmkit:no-sudo"


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


@dataclass
class Connection:
    """A login on a machine, opened when first used, safe to use from several threads.

    Everything runs as root: directly where the login is root, else through sudo. `sudo_password` is
    given to sudo when it asks, before the command's own input begins, so that it is never part of it.
    """

    login: Login
    host_keys: HostKeys
    gateway: Connection | None = None
    sudo_password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._opening = threading.Lock()
        self._fabric: fabric.Connection | None = None

    @property
    def name(self) -> str:
        return self.login.name

    def open(self) -> fabric.Connection:
        """The open Fabric connection; raises Unreachable, saying why, where there can be none."""
        with self._opening:
            if self._fabric is None or not self._fabric.is_connected:
                self._fabric = self._connected()
            return self._fabric

    def _connected(self) -> fabric.Connection:
        login = self.login
        # Fabric fails on a key that is None.
        keys = {"key_filename": str(login.key)} if login.key else {}
        made = fabric.Connection(
            host=login.address,
            user=login.user,
            port=login.port,
            gateway=self.gateway.open() if self.gateway else None,
            connect_timeout=CONNECT_SECONDS,
            connect_kwargs={
                **keys,
                "look_for_keys": login.key is None,
                "banner_timeout": CONNECT_SECONDS,
                "auth_timeout": CONNECT_SECONDS,
            },
        )
        self.host_keys.apply(made.client, _known_as(login))
        at = f"{login.user}@{login.address}:{login.port}"
        try:
            made.open()
        except Unreachable as error:
            raise Unreachable(f"{at}: {error.message}", where=self.name, hint=error.hint) from None
        except paramiko.BadHostKeyException as error:
            raise Unreachable(
                f"{at}: the host key has changed: it is {error.key.get_name()} {error.key.fingerprint}, "
                f"known is {error.expected_key.fingerprint}",
                where=self.name,
                hint="another machine may be answering; if this one was made anew, remove the old key with "
                f"ssh-keygen -R '{_known_as(login)}'",
            ) from None
        except paramiko.PasswordRequiredException:
            raise Unreachable(
                f"{at}: the SSH key {login.key} is encrypted",
                where=self.name,
                hint=f"add it to your agent: ssh-add {login.key}",
            ) from None
        except paramiko.AuthenticationException:
            raise self._denied(at) from None
        except TimeoutError:
            raise Unreachable(
                f"{at}: no answer within {CONNECT_SECONDS} s", where=self.name, hint=_REACH_HINT
            ) from None
        except (OSError, EOFError, paramiko.SSHException) as error:
            # How paramiko says that there is no key at all to try.
            if "No authentication methods available" in str(error):
                raise self._denied(at) from None
            raise Unreachable(f"{at}: {_reason(error)}", where=self.name, hint=_REACH_HINT) from None
        finally:
            # paramiko keeps a connection on which nobody was let in, and its thread.
            if made.transport is None:
                _end(made.client)
        made.transport.set_keepalive(KEEPALIVE_SECONDS)
        # How often the connection's own thread looks up while nothing comes. paramiko's tenth of a
        # second keeps a core busy with a few hundred idle connections.
        made.transport.sock.settimeout(IDLE_SECONDS)
        if isinstance(made.transport.sock, socket.socket):
            # As OpenSSH does: the end of a request is not kept back until its beginning has arrived.
            made.transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def _denied(self, at: str) -> Unreachable:
        key = self.login.key
        which = f"the key {key}" if key else "the keys of your agent and ~/.ssh"
        return Unreachable(
            f"{at}: permission denied with {which}",
            where=self.name,
            hint="check `user:` and `key:` in the inventory; the public key must be in the user's "
            "~/.ssh/authorized_keys there",
        )

    def root_channel(self, command: str) -> paramiko.Channel:
        """Start `command` as root; returns the channel at the first byte of its input and output.

        Raises Unreachable where the login is refused, or may not become root.
        """
        inner = f"printf 'swarmkit:ready\\n'; exec {command}"
        sudo = "sudo -n" if self.sudo_password is None else f"sudo -S -p {shlex.quote(_PROMPT)}"
        outer = (
            f'if [ "$(id -u)" = 0 ]; then exec sh -c {shlex.quote(inner)}; fi; '
            f"command -v sudo >/dev/null || {{ echo {_NO_SUDO} >&2; exit 1; }}; "
            f"exec {sudo} -- sh -c {shlex.quote(inner)}"
        )
        try:
            channel: paramiko.Channel = self.open().transport.open_session(timeout=CONNECT_SECONDS)
            channel.exec_command(f"sh -c {shlex.quote(outer)}")
            self._hand_over(channel)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise Unreachable(f"the SSH connection broke: {_reason(error)}", where=self.name) from None
        return channel

    def _hand_over(self, channel: paramiko.Channel) -> None:
        """Read up to the ready mark, giving sudo the password if it asks for it."""
        said, errors, given = b"", b"", False
        deadline = time.monotonic() + SHELL_SECONDS
        # sudo asks on standard error; without a password to give there is no need to look there.
        channel.settimeout(SHELL_SECONDS if self.sudo_password is None else 0.05)
        while not said.endswith(_READY):
            try:
                byte = channel.recv(1)
            except TimeoutError:
                while channel.recv_stderr_ready():
                    errors += channel.recv_stderr(4096)
                if _PROMPT.encode() in errors:
                    if given:
                        channel.close()
                        raise Unreachable("sudo does not accept the password", where=self.name) from None
                    channel.sendall(f"{self.sudo_password}\n".encode())
                    given, errors = True, b""
                if time.monotonic() > deadline:
                    channel.close()
                    raise Unreachable(f"no shell within {SHELL_SECONDS} s", where=self.name) from None
                continue
            if not byte:
                raise self._no_root(errors + channel.makefile_stderr("rb").read())
            said += byte
        channel.settimeout(None)

    def _no_root(self, said: bytes) -> Unreachable:
        text = said.decode(errors="replace").replace(_PROMPT, "").strip()
        user = self.login.user
        if _NO_SUDO in text:
            return Unreachable(
                f"{user} is not root, and there is no sudo",
                where=self.name,
                hint="log in as root, or install sudo",
            )
        reason = text.splitlines()[-1] if text else "the shell ended at once"
        return Unreachable(
            f"{user} may not become root: {reason}",
            where=self.name,
            hint=f"allow it with a line in /etc/sudoers.d/swarmkit: {user} ALL=(ALL) NOPASSWD:ALL, "
            f"or put the password into {SUDO_PASSWORD}",
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
                out = channel.makefile("rb").read()
                err = channel.makefile_stderr("rb").read()
                status = channel.recv_exit_status()
            except TimeoutError:
                raise OperationFailed(f"no output for {timeout:.0f} s; gave up", where=self.name) from None
            except (OSError, EOFError, paramiko.SSHException) as error:
                raise Unreachable(f"the SSH connection broke: {_reason(error)}", where=self.name) from None
        if status < 0:
            raise Unreachable("the SSH connection broke in the middle of a script", where=self.name)
        return Finished(self.name, out.decode(errors="replace"), err.decode(errors="replace"), status)

    def close(self) -> None:
        """End the connection; what still runs over it fails."""
        if self._fabric is not None:
            _end(self._fabric.client)
            self._fabric.close()


def _end(client: paramiko.SSHClient) -> None:
    """Close a connection, and wake its thread: else that would end only when it next looks up."""
    transport = client.get_transport()
    if transport is not None:
        with suppress(OSError, EOFError, paramiko.SSHException):
            transport.sock.shutdown(socket.SHUT_RDWR)
    client.close()


_REACH_HINT = "check that the machine is up, and `address:`, `port:` and `gateway:` in the inventory"


def _known_as(login: Login) -> str:
    return login.address if login.port == 22 else f"[{login.address}]:{login.port}"


def _reason(error: BaseException) -> str:
    if isinstance(error, paramiko.ssh_exception.NoValidConnectionsError):
        return _reason(next(iter(error.errors.values())))
    if isinstance(error, socket.gaierror):
        return "the address is not known (DNS)"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    # How paramiko says that nothing came, or not all of it, of what an SSH server says first.
    if any(words in str(error) for words in ("protocol banner", "No existing session")):
        return f"no SSH server answers there (tried for up to {CONNECT_SECONDS} s)"
    return str(error) or type(error).__name__
