"""Planning changes of one service: updates, and the return to what it was. Pure.

The service's spec gets the mark of what swarmkit has sent (`swarmkit.spec`) anew, so that `stack up`
knows the change for swarmkit's own, and shows what it will set back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from swarmkit.compose.convert import Spec
from swarmkit.deploy.history import Revision
from swarmkit.deploy.plan import Change, LiveStack, Plan, fingerprint, is_job, name_of, portable, referred
from swarmkit.deploy.plan.differences import differences, readable
from swarmkit.deploy.plan.model import REFERENCES
from swarmkit.deploy.plan.services import MARKS, ServicePlanner
from swarmkit.errors import OperationFailed, SwarmkitError, UsageError, raise_all
from swarmkit.images.resolve import Image, placed
from swarmkit.names import IMAGE_LABEL, REPLICAS_LABEL, SPEC_LABEL
from swarmkit.services.edits import Edits, Known, edited, unknown


@dataclass(frozen=True)
class NewImage:
    """The image that a service is to run: as the user says it, and as it was found."""

    said: str
    found: Image


def held(live: LiveStack, name: str) -> Spec:
    """A service's spec, with names in place of ids. Raises OperationFailed where it has gone."""
    return portable(_found(live, name)["Spec"], live.network_names())


def updated(spec: Spec, edits: Edits, image: NewImage | None, known: Known) -> Spec:
    """A service's spec as the options want it, marked as swarmkit's; raises as `edited` does."""
    new = edited(spec, edits, known)
    if image is not None:
        new = placed(new, image.found)
        if not new["TaskTemplate"]["Placement"]:
            del new["TaskTemplate"]["Placement"]
        if IMAGE_LABEL in (new.get("Labels") or {}):
            # As the file says it: where that differs, `stack up` goes back to the file's.
            new = {**new, "Labels": {**new["Labels"], IMAGE_LABEL: image.said}}
    return marked(new)


def marked(spec: Spec) -> Spec:
    """The spec with the mark of what swarmkit sends."""
    spec = {**spec, "Labels": dict(spec.get("Labels") or {})}
    return {**spec, "Labels": {**spec["Labels"], SPEC_LABEL: fingerprint(spec)}}


def plan_update(live: LiveStack, name: str, edits: Edits, image: NewImage | None, known: Known) -> Plan:
    """What makes a service as the options want it; no change where it is that already.

    Raises UsageError (or Problems) for what the swarm does not have.
    """
    spec = held(live, name)
    plan = plan_spec(live, updated(spec, edits, image, known))
    if edits.force:
        plan = _forced(live, name, plan)
    return replace(plan, notes=[*plan.notes, *(f"{name}: {line}" for line in unknown(spec, edits))])


def plan_spec(live: LiveStack, spec: Spec) -> Plan:
    """What makes the service of this name have this spec, with as many replicas as run."""
    changes = [
        change
        for change in ServicePlanner(live).changes([spec])
        # Marks alone are nothing that the user has asked for.
        if not set(change.fields) <= set(MARKS)
    ]
    return Plan(changes)


def _forced(live: LiveStack, name: str, plan: Plan) -> Plan:
    """The plan that starts all tasks again, also where nothing else changes (Engine API, ForceUpdate)."""
    found = _found(live, name)
    if is_job(found["Spec"]):
        raise UsageError("it is a job, and runs once", where=name, hint="update it, and it runs again")
    count = int(found["Spec"]["TaskTemplate"].get("ForceUpdate") or 0)
    same = Change(
        "service",
        name,
        "update",
        spec=marked(held(live, name)),
        live_id=found["ID"],
        version=found["Version"]["Index"],
        replaces=found["Spec"],
    )
    change = plan.changes[0] if plan.changes else same
    assert change.spec is not None
    task = {**change.spec["TaskTemplate"], "ForceUpdate": count + 1}
    fields = {**change.fields, "tasks": {"from": None, "to": "started again"}}
    return Plan([replace(change, fields=fields, spec={**change.spec, "TaskTemplate": task})], plan.notes)


def restarts(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether the tasks of a service are replaced by this change of its spec (both portable)."""
    old, new = ({"TaskTemplate": spec["TaskTemplate"]} for spec in (before, after))
    count = [spec["TaskTemplate"].get("ForceUpdate") or 0 for spec in (old, new)]
    return count[0] != count[1] or bool(differences(readable(new, {}), readable(old, {}), extra=True))


def earlier(revisions: Sequence[Revision], name: str, number: int | None) -> Spec:
    """What a service returns to: what it was before its last change, or as revision `number` left it.

    Raises UsageError, with what to do, where that is not known.
    """
    if not revisions:
        raise UsageError(
            "there is no revision to return to",
            where=name,
            hint="only swarmkit's own changes make one; put it right with: swarmkit update",
        )
    if number is not None:
        return _left_by(revisions, name, number)
    for revision in reversed(revisions):
        before, after = revision.before.services.get(name), revision.after.services.get(name)
        if before is None and after is not None:
            raise UsageError(
                f"it has not changed since it was made (revision {revision.number})",
                where=name,
                hint="put it right with: swarmkit update",
            )
        if before is not None and (after is None or not _is_same(before, after)):
            return dict(before)
    raise UsageError(
        "no revision that is kept has changed it",
        where=name,
        hint=f"name one: swarmkit rollback {name} {revisions[-1].number}; see swarmkit stack history",
    )


def _left_by(revisions: Sequence[Revision], name: str, number: int) -> Spec:
    known = ", ".join(str(one.number) for one in revisions)
    for revision in revisions:
        if revision.number == number:
            if name in revision.after.services:
                return dict(revision.after.services[name])
            raise UsageError(f"it was not there in revision {number}", where=name)
    raise UsageError(f"there is no revision {number}", where=name, hint=f"revisions kept: {known}")


def _is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two portable specs differ in nothing but marks and scale."""
    found = differences(readable(one, {}), readable(other, {}), extra=True)
    return set(found) <= {*MARKS, "replicas"}


def plan_return(live: LiveStack, name: str, number: int | None, known: Known) -> Plan:
    """What makes a service what it was, with as many replicas as it has now.

    Raises UsageError where that is not known, OperationFailed (or Problems) where a secret or config that
    it had is gone.
    """
    spec, now = earlier(live.revisions, name, number), held(live, name)
    if set(spec["Mode"]) != set(now["Mode"]):
        raise UsageError(
            "it was of another mode then, and a service keeps its own", where=name, hint="return the stack"
        )
    labels = {key: value for key, value in (spec.get("Labels") or {}).items() if key != REPLICAS_LABEL}
    if REPLICAS_LABEL in (now.get("Labels") or {}):
        labels[REPLICAS_LABEL] = now["Labels"][REPLICAS_LABEL]
    raise_all(list(_gone(spec, name, known)))
    return plan_spec(live, {**spec, "Mode": now["Mode"], "Labels": labels})


def _gone(spec: Spec, name: str, known: Known) -> Iterator[SwarmkitError]:
    for kind in REFERENCES:
        for one in sorted(referred(spec, kind) - set(known[kind])):
            yield OperationFailed(f"the {kind} {one}, which it had then, is gone", where=name)


def _found(live: LiveStack, name: str) -> Mapping[str, Any]:
    for one in live.services:
        if name_of(one) == name:
            return one
    raise OperationFailed("it has been removed meanwhile", where=name, hint="see: swarmkit service ls")
