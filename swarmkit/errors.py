"""The errors that a user sees, and the exit codes they end with.

Every error says what is wrong (`message`), where (`where`, such as `inventory.yml:4:7` or a host's
name) and what to do next (`hint`). Nothing but these classes reaches the command line on bad input.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of the `swarmkit` command; part of its contract."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_CONVERGED = 4
    CHANGES = 5
    INTERRUPTED = 130


class SwarmkitError(Exception):
    """An error to show to the user: what is wrong, where, and what to do."""

    exit: Exit = Exit.FAILED

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class OperationFailed(SwarmkitError):
    """Something was tried and did not work."""


class Interrupted(SwarmkitError):
    """The user ended the command before its end."""

    exit = Exit.INTERRUPTED


class UsageError(SwarmkitError):
    """Bad arguments, or a bad input file."""

    exit = Exit.USAGE


class Unreachable(SwarmkitError):
    """A host or an engine cannot be reached, or does not let us in."""

    exit = Exit.UNREACHABLE


class NotConverged(SwarmkitError):
    """What was asked for was sent to the swarm and did not come true in time.

    `rolled_back` says whether the swarm is back at what it was before. `details` are lines that show
    why, such as the last ones of a log.
    """

    exit = Exit.NOT_CONVERGED

    def __init__(
        self,
        message: str,
        *,
        where: str = "",
        hint: str = "",
        rolled_back: bool = False,
        details: Sequence[str] = (),
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.rolled_back = rolled_back
        self.details = tuple(details)


class Problems(SwarmkitError):
    """Several errors at once: all the mistakes of a file, or those of several hosts.

    The exit code is that of the gravest by the order reachable < usage < failed < not converged:
    a host that cannot be reached explains what follows from it.
    """

    _GRAVITY: Sequence[Exit] = (Exit.UNREACHABLE, Exit.USAGE, Exit.FAILED, Exit.NOT_CONVERGED)

    def __init__(self, errors: Iterable[SwarmkitError]) -> None:
        self.errors: list[SwarmkitError] = []
        for error in errors:
            self.errors.extend(error.errors if isinstance(error, Problems) else [error])
        first = self.errors[0]
        super().__init__(first.message, where=first.where, hint=first.hint)
        self.exit = min((error.exit for error in self.errors), key=self._GRAVITY.index)

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)


def raise_all(errors: Sequence[SwarmkitError]) -> None:
    """Raise nothing for no error, the error for one, `Problems` for several."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise Problems(errors)


def reason(error: OSError | ValueError) -> str:
    """Why a file cannot be read or a program not be run, without its name: for the end of a line.

    A ValueError is one of text that is none, or of a path that no file can have.
    """
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    said = error.strerror if isinstance(error, OSError) else str(error)
    return (said or type(error).__name__).lower()


def shown(value: object) -> str:
    """A value of a YAML file as an error message shows it."""
    match value:
        case None:
            return "nothing"
        case str():
            return f'"{value}"'
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return str(value)
