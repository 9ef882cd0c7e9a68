"""The secrets that a command may need: sudo's password and the passphrases of SSH keys.

Each is taken from an environment variable, from a file that another variable names, or from the person
at the terminal, who is asked once a command. None is ever an argument.
"""

from __future__ import annotations

import os
import select
import stat
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from swarmkit.errors import Unreachable, UsageError

# Each may also be given as a file's path, in the variable of this name and `_FILE`.
SUDO_PASSWORD = "SWARMKIT_SUDO_PASSWORD"
KEY_PASSPHRASE = "SWARMKIT_KEY_PASSPHRASE"

_TERMINAL = Path("/dev/tty")
_WAKE_SECONDS = 0.2


class Refused(Unreachable):
    """sudo does not accept the password."""


def given(name: str, environment: Mapping[str, str]) -> str | None:
    """The secret in the variable `name`, or on the first line of the file that `name`_FILE names.

    Raises UsageError for a file that cannot be read, or that others can read.
    """
    if (value := environment.get(name)) is not None:
        return value
    path = environment.get(f"{name}_FILE")
    if not path:
        return None
    file, where = Path(path).expanduser(), f"{name}_FILE"
    try:
        mode = file.stat().st_mode
        # A pipe, as of `<(pass show sudo)`, is nobody else's.
        if stat.S_ISREG(mode) and mode & 0o077:
            raise UsageError(f"{file} can be read by others", where=where, hint=f"chmod 600 {file}")
        return file.read_text(encoding="utf-8").split("\n", 1)[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"{file} cannot be read: {reason}", where=where) from None


class Secrets:
    """What one command has been told; safe to use from several threads. One question is asked at a time.

    `ask` gets a question and gives the answer, or None where nobody gives one.
    """

    def __init__(
        self, environment: Mapping[str, str] | None = None, ask: Callable[[str], str | None] | None = None
    ) -> None:
        self._environment = os.environ if environment is None else environment
        self._cancelled = threading.Event()
        self._ask = ask or self._ask_terminal
        self._asking = threading.Lock()
        self._trying = threading.Lock()
        self._sudo: str | None = None
        self._sudo_accepted = False
        self._sudo_refused_by = ""

    def cancel(self) -> None:
        """End a question that is being asked, without an answer."""
        self._cancelled.set()

    def ask(self, question: str) -> str | None:
        """The answer of the person at the terminal; None where there is none."""
        with self._asking:
            return None if self._cancelled.is_set() else self._ask(question)

    @property
    def passphrase(self) -> str | None:
        """The passphrase for SSH keys that was given beforehand, if any."""
        return given(KEY_PASSPHRASE, self._environment)

    @contextmanager
    def sudo_password(self, host: str, user: str) -> Iterator[str]:
        """The password for sudo, to be tried once on `host` in the `with` block, which raises Refused.

        Until it has been accepted somewhere it is tried on one host at a time, and once it has been
        refused on none: a wrong password on every machine at once would lock the account. Raises
        Unreachable where there is no password.
        """
        with self._trying:
            if not self._sudo_accepted:
                if self._sudo_refused_by == host:
                    raise Refused("sudo does not accept the password", where=host)
                if self._sudo_refused_by:
                    raise Refused(
                        f"sudo needs a password; the one that {self._sudo_refused_by} refused was not tried",
                        where=host,
                    )
                try:
                    yield self._known_sudo(host, user)
                except Refused:
                    self._sudo_refused_by = host
                    raise
                self._sudo_accepted = True
                return
        assert self._sudo is not None, "it was accepted"
        yield self._sudo

    def _known_sudo(self, host: str, user: str) -> str:
        if self._sudo is None:
            self._sudo = given(SUDO_PASSWORD, self._environment)
        if self._sudo is None:
            self._sudo = self.ask(f"[sudo] password for {user} on {host} (and the other machines): ")
        if self._sudo is None:
            raise Unreachable(
                f"{user} may not become root: a password is required, and there is no terminal to ask for it",
                where=host,
                hint=f"put it into {SUDO_PASSWORD}, or into a file that {SUDO_PASSWORD}_FILE names; or let "
                f"{user} do without, with a line in /etc/sudoers.d/swarmkit: {user} ALL=(ALL) NOPASSWD:ALL",
            )
        return self._sudo

    def _ask_terminal(self, question: str) -> str | None:
        """Ask without echo; unlike `getpass`, it can be cancelled from another thread."""
        if not sys.stdin.isatty():
            return None
        try:
            with _TERMINAL.open("rb+", buffering=0) as terminal:
                return self._answer(terminal.fileno(), question)
        except OSError:
            return None

    def _answer(self, terminal: int, question: str) -> str | None:
        before = termios.tcgetattr(terminal)
        quiet = termios.tcgetattr(terminal)
        quiet[3] &= ~termios.ECHO
        termios.tcsetattr(terminal, termios.TCSAFLUSH, quiet)
        try:
            os.write(terminal, question.encode())
            while not self._cancelled.is_set():
                if select.select([terminal], [], [], _WAKE_SECONDS)[0]:
                    line = os.read(terminal, 4096)
                    # Nothing at all is the end of input (Ctrl-D).
                    return line.decode(errors="replace").rstrip("\r\n") if line else None
            return None
        finally:
            termios.tcsetattr(terminal, termios.TCSAFLUSH, before)
            os.write(terminal, b"\n")
