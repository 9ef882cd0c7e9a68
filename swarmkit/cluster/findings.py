"""What preflight and doctor find: each finding has a name that stays, and says what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from swarmkit.errors import OperationFailed, SwarmkitError


class Severity(StrEnum):
    """How bad it is: an error keeps something from working, a warning may, a note is good to know."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """Something found. `code` names its kind and never changes; `host` is empty for the swarm itself.

    A path between two hosts is written `wn1 → wn2` in `host`.
    """

    code: str
    severity: Severity
    host: str
    message: str
    hint: str = ""

    @property
    def is_error(self) -> bool:
        return self.severity is Severity.ERROR

    def json(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "severity": self.severity.value,
            "host": self.host,
            "message": self.message,
            "hint": self.hint,
        }

    def error(self) -> SwarmkitError:
        """As the error that stops a command."""
        return OperationFailed(f"{self.code}: {self.message}", where=self.host, hint=self.hint)


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first, then warnings and notes; of one kind together, in the order they came."""
    found = list(findings)
    first: dict[str, int] = {}
    for index, one in enumerate(found):
        first.setdefault(one.code, index)
    gravity = list(Severity)
    return sorted(found, key=lambda one: (gravity.index(one.severity), first[one.code]))


def errors_of(findings: Iterable[Finding]) -> list[SwarmkitError]:
    """The findings that must stop a command, as errors."""
    return [one.error() for one in findings if one.is_error]


def merged(findings: Sequence[Finding]) -> list[Finding]:
    """The same finding on several hosts as one that names them all, for people to read."""
    hosts: dict[Finding, list[str]] = {}
    for one in findings:
        hosts.setdefault(replace(one, host=""), []).append(one.host)
    return [replace(one, host=", ".join(name for name in names if name)) for one, names in hosts.items()]
