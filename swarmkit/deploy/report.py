"""What is told of a deployment: each change in a line for people, and all of it as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from swarmkit.deploy.plan import Change


@dataclass(frozen=True)
class Deployment:
    """What `stack up`, `down` or `rollback` did, or in a dry run would do: the contract's JSON."""

    stack: str
    changes: Sequence[Change]
    converged: bool
    seconds: float
    notes: Sequence[str] = ()

    def json(self) -> dict[str, Any]:
        return {
            "stack": self.stack,
            "changed": len(self.changes),
            "changes": [change_json(change) for change in self.changes],
            "notes": list(self.notes),
            "converged": self.converged,
            "rolled_back": False,
            "seconds": self.seconds,
        }


def change_json(change: Change) -> dict[str, Any]:
    """A change as the contract shows it."""
    return {
        "kind": change.kind,
        "name": change.name,
        "action": change.action,
        "fields": {key: dict(value) for key, value in change.fields.items()},
        "by_hand": sorted(change.by_hand),
        "recreates": change.recreates,
        "note": change.note,
    }


def describe(change: Change) -> str:
    """A change in one line: `update service web_web: replicas 3 → 7`."""
    fields = ", ".join(
        (
            f"{name} {_shown(value.get('from'))} → {_shown(value.get('to'))}"
            if value.get("from") is not None
            else f"{name} {_shown(value.get('to'))}"
        )
        + (" (was changed by hand)" if name in change.by_hand else "")
        for name, value in change.fields.items()
    )
    what = f"{change.action} {change.kind} {change.name}{f': {fields}' if fields else ''}"
    return f"{what} ({change.note})" if change.note else what


def _shown(value: object) -> str:
    text = "nothing" if value is None else str(value)
    if "@sha256:" in text:
        name, _, digest = text.partition("@sha256:")
        return f"{name.rpartition('/')[2].partition(':')[0]}@{digest[:8]}"
    return text if len(text) <= 80 else f"{text[:79]}…"
