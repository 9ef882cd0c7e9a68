"""Revisions of a stack: what was deployed, when, by whom, and what it was before; kept in the swarm.

A revision is a config object. Its content, compressed JSON, has the specs of the stack before and after
the deployment; secrets and configs stand in it by name and label, without their data. Swarm's own
PreviousSpec is overwritten by every scaling, and knows single services only.

While a deployment is on its way its revision is *open*: whoever comes next knows from it what was to
be, and what was there before.
"""

from __future__ import annotations

import base64
import hashlib
import json
import lzma
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from swarmkit.errors import OperationFailed, UsageError
from swarmkit.names import REVISION_LABEL, STACK_LABEL, STATE_LABEL
from swarmkit.remote import Engine, EngineError, while_stale
from swarmkit.swarm import moment

Spec = dict[str, Any]
# What a swarm keeps the content of, and services refer to.
Stored = Literal["config", "secret"]

REVISIONS_KEPT = 10
# The most that a config may hold: 500 KB before Docker Engine 20.10, 1000 KB since (moby/swarmkit,
# manager/controlapi).
SIZE_LIMIT = 500 * 1024
NAME_LIMIT = 64

_OPEN, _DONE = "open", "done"


@dataclass(frozen=True)
class Snapshot:
    """A stack at one moment.

    `services` are specs by name, with names for the ids of networks, configs and secrets; `depends_on`
    gives for each service the conditions by the name of another. `networks` are the bodies that make them.
    `stored` has for configs and secrets their labels by name.
    """

    services: Mapping[str, Spec] = field(default_factory=dict)
    depends_on: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    networks: Mapping[str, Spec] = field(default_factory=dict)
    stored: Mapping[Stored, Mapping[str, Mapping[str, str]]] = field(
        default_factory=lambda: {"config": {}, "secret": {}}
    )

    def images(self) -> dict[str, str]:
        """The image of each service."""
        return {
            name: str(spec["TaskTemplate"]["ContainerSpec"]["Image"]) for name, spec in self.services.items()
        }


@dataclass(frozen=True)
class Revision:
    """One deployment: `who` is user@host, `doing` the command, `changes` a line each for people."""

    number: int
    who: str
    doing: str
    changes: Sequence[str]
    before: Snapshot
    after: Snapshot
    is_open: bool = False
    time: datetime | None = None
    id: str = ""

    def json(self) -> dict[str, Any]:
        """As `stack history` gives it."""
        return {
            "number": self.number,
            "time": self.time.isoformat() if self.time else None,
            "who": self.who,
            "doing": self.doing,
            "state": "unfinished" if self.is_open else "done",
            "changes": list(self.changes),
            "images": self.after.images(),
        }


def encode(revision: Revision) -> bytes:
    """A revision's content. Raises OperationFailed where it is larger than a config may be."""
    document = {
        "who": revision.who,
        "doing": revision.doing,
        "changes": list(revision.changes),
        "before": asdict(revision.before),
        "after": asdict(revision.after),
    }
    # What is the same before and after lies far apart; lzma finds it at any distance.
    data = lzma.compress(json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode())
    if len(data) > SIZE_LIMIT:
        raise OperationFailed(
            f"the stack's specs take {len(data) // 1024} KB compressed, and a swarm keeps at most"
            f" {SIZE_LIMIT // 1024} KB of them to return to",
            hint="move what is large in them, such as long variables, to configs",
        )
    return data


def decode(raw: Mapping[str, Any]) -> Revision:
    """A revision from its config object as GET /configs gives it.

    Raises OperationFailed where it is none that this version of swarmkit knows.
    """
    labels = raw["Spec"]["Labels"]
    try:
        document = json.loads(lzma.decompress(base64.b64decode(raw["Spec"]["Data"])))
        return Revision(
            number=int(labels[REVISION_LABEL]),
            who=document["who"],
            doing=document["doing"],
            changes=document["changes"],
            before=Snapshot(**document["before"]),
            after=Snapshot(**document["after"]),
            is_open=labels.get(STATE_LABEL) == _OPEN,
            time=moment(raw["CreatedAt"]),
            id=raw["ID"],
        )
    except (lzma.LZMAError, ValueError, TypeError, KeyError) as error:
        name = raw["Spec"]["Name"]
        raise OperationFailed(
            "this version of swarmkit cannot read the revision",
            where=name,
            hint=f"use the version that made it; or give it up: docker config rm {name}",
        ) from error


def is_revision(config: Mapping[str, Any]) -> bool:
    """Whether a config object is a revision."""
    return REVISION_LABEL in (config["Spec"].get("Labels") or {})


def decode_all(configs: Iterable[Mapping[str, Any]]) -> list[Revision]:
    """The revisions among config objects, the newest last."""
    return sorted((decode(raw) for raw in configs if is_revision(raw)), key=lambda one: one.number)


def choose(revisions: Sequence[Revision], number: int | None) -> Snapshot:
    """What a rollback leads to: the stack as revision `number` left it, or as it was before the newest.

    Raises UsageError where there is no such revision.
    """
    if not revisions:
        raise UsageError("there is no revision to return to", hint="only swarmkit's own deployments make one")
    if number is None:
        return revisions[-1].before
    for revision in revisions:
        if revision.number == number:
            return revision.after
    known = ", ".join(str(revision.number) for revision in revisions)
    raise UsageError(f"there is no revision {number}", hint=f"revisions kept: {known}")


def short(prefix: str, stack: str, suffix: str = "") -> str:
    """The name of an object of a stack's own, cut to what a swarm allows and still the stack's alone."""
    name = f"{prefix}{stack}{suffix}"
    if len(name) <= NAME_LIMIT:
        return name
    mark = f"-{hashlib.sha256(stack.encode()).hexdigest()[:8]}"
    return f"{prefix}{stack[: NAME_LIMIT - len(prefix) - len(mark) - len(suffix)]}{mark}{suffix}"


def begin(engine: Engine, stack: str, revision: Revision) -> Revision:
    """Put an open revision into the swarm; the same with its id."""
    body = {
        "Name": short("swarmkit-rev-", stack, f"-{revision.number}"),
        "Labels": _labels(stack, revision.number, _OPEN),
        "Data": base64.b64encode(encode(revision)).decode("ascii"),
    }
    return replace(revision, id=engine.post("/configs/create", body)["ID"])


@while_stale
def close(engine: Engine, stack: str, revision: Revision) -> None:
    """Say that the stack has become what the revision says."""
    raw = engine.get(f"/configs/{revision.id}")
    spec = {**raw["Spec"], "Labels": _labels(stack, revision.number, _DONE)}
    engine.post(f"/configs/{revision.id}/update", spec, {"version": raw["Version"]["Index"]})


def forget(engine: Engine, revisions: Iterable[Revision]) -> None:
    """Remove revisions; one that has gone is fine."""
    for revision in revisions:
        try:
            engine.delete(f"/configs/{revision.id}")
        except EngineError as error:
            if error.status != 404:
                raise


def _labels(stack: str, number: int, state: str) -> dict[str, str]:
    return {STACK_LABEL: stack, REVISION_LABEL: str(number), STATE_LABEL: state}
