"""Services: what is new, what changes, and what somebody changed by hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from swarmkit.compose.convert import BUILT_IN_NETWORKS, DesiredService, DesiredStack, Spec
from swarmkit.deploy.plan.differences import differences, readable, unordered
from swarmkit.deploy.plan.model import Change, Fields, LiveStack, name_of, removal, targets
from swarmkit.names import IMAGE_LABEL, REPLICAS_LABEL, SPEC_LABEL
from swarmkit.swarm import Service

# Labels that say what was sent; of no interest to people where something else changes as well.
MARKS = tuple(f"labels.{label}" for label in (SPEC_LABEL, REPLICAS_LABEL, IMAGE_LABEL))
_MODES = {"replicatedjob": "replicated-job", "globaljob": "global-job"}
_JOB_NOTE = "a job: what it does cannot be undone"


def fingerprint(spec: Spec) -> str:
    """SHA-256 of what a spec means, in canonical JSON, not counting the labels that swarmkit adds to it.

    So the order of what has none, such as mounts, is of no account: Swarm would replace all tasks for it.
    """
    labels = {key: value for key, value in spec["Labels"].items() if key not in (SPEC_LABEL, REPLICAS_LABEL)}
    meant = unordered({**spec, "Labels": labels})
    text = json.dumps(meant, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def stamped(service: DesiredService) -> Spec:
    """A service's spec with the labels by which the next plan knows what was sent."""
    marks = {SPEC_LABEL: fingerprint(service.spec)}
    if mode(service.spec) == "replicated":
        marks[REPLICAS_LABEL] = str(_replicas(service.spec))
    return {**service.spec, "Labels": {**service.spec["Labels"], **marks}}


def mode(spec: Mapping[str, Any]) -> str:
    """`replicated`, `global`, `replicated-job` or `global-job`."""
    found = str(next(kind for kind, value in spec["Mode"].items() if value is not None)).lower()
    return _MODES.get(found, found)


def is_job(spec: Mapping[str, Any]) -> bool:
    """Whether the tasks are to end, each once."""
    return mode(spec).endswith("-job")


@dataclass(frozen=True)
class ServicePlanner:
    """Plans services one by one; those in `restarted` have to go first for the sake of their networks."""

    live: LiveStack
    restarted: frozenset[str] = frozenset()

    def changes(self, specs: Sequence[Spec]) -> Iterator[Change]:
        """What makes the swarm hold these services, each as its spec says."""
        by_name = {name_of(service): service for service in self.live.services}
        for spec in specs:
            found = by_name.get(spec["Name"])
            if found is None:
                note = _JOB_NOTE if is_job(spec) else ""
                yield Change("service", spec["Name"], "create", _first_fields(spec), spec, note=note)
            else:
                yield from self._update(spec, found)

    def _update(self, spec: Spec, found: Mapping[str, Any]) -> Iterator[Change]:
        name, held = spec["Name"], found["Spec"]
        spec = _with_live_scale(spec, held)
        if mode(held) != mode(spec):
            yield from _made_again(spec, found, {"mode": {"from": mode(held), "to": mode(spec)}})
            return
        same = _mark(held) is not None and _mark(held) == _mark(spec)
        names = self._network_names(spec, held)
        now = readable(held, names)
        fields = differences(readable(spec, {}), now, extra=not same)
        marks = {key: fields.pop(key) for key in MARKS if key in fields}
        if name in self.restarted:
            yield from _made_again(spec, found, fields)
            return
        by_hand = frozenset(self._by_hand(name, held, now, fields, same=same))
        if not fields and Service.of(found).is_halted:
            # To be sent its spec again starts it anew (moby/swarmkit, UpdateService).
            fields = {"update": {"from": "stopped", "to": "resumed"}}
        if name in self.live.moved:
            # To be sent its own spec undoes that; Swarm restarts nothing for it.
            fields = {**fields, "move": {"from": "cut off", "to": "undone"}}
        if not fields and (not marks or is_job(spec)):
            # Whatever a job is sent runs it again (moby/swarmkit, UpdateService): a mark is not worth that.
            return
        forced = held["TaskTemplate"].get("ForceUpdate")
        if forced:
            # A count that somebody raised to restart the tasks; going back would restart them again.
            spec = {**spec, "TaskTemplate": {**spec["TaskTemplate"], "ForceUpdate": forced}}
        yield Change(
            "service",
            name,
            "update",
            # Nothing but marks differ on a service that docker, or an older swarmkit, deployed.
            fields or marks,
            spec,
            found["ID"],
            found["Version"]["Index"],
            replaces=held,
            by_hand=by_hand,
            note=f"{_JOB_NOTE}; it runs again" if is_job(spec) else "",
        )

    def _by_hand(
        self, name: str, held: Mapping[str, Any], now: Mapping[str, Any], fields: Fields, *, same: bool
    ) -> set[str]:
        """Which of the fields that differ are not as swarmkit sent them."""
        sent = self.live.revisions[-1].after.services.get(name) if self.live.revisions else None
        if sent is not None and _mark(held) is not None and _mark(sent) == _mark(held):
            return set(fields) & set(differences(readable(sent, {}), now, extra=False))
        return set(fields) if same else set()

    def _network_names(self, spec: Spec, held: Mapping[str, Any]) -> dict[str, str]:
        """The names of networks by the swarm's ids; the engine lists such as `host` with other ids."""
        names = self.live.network_names()
        unknown = [target for target in targets(held) if target not in names]
        built_in = [name for name in targets(spec) if name in BUILT_IN_NETWORKS]
        return {**names, **dict(zip(unknown, built_in, strict=False))}


def _made_again(spec: Spec, found: Mapping[str, Any], fields: Fields) -> Iterator[Change]:
    note = _JOB_NOTE if is_job(spec) else ""
    yield replace(removal("service", found), fields=fields, early=True, note="it is made again")
    yield Change("service", spec["Name"], "create", fields or _first_fields(spec), spec, note=note)


def at_live_scale(desired: DesiredStack, live: LiveStack) -> DesiredStack:
    """The stack with the numbers of replicas that its plan sends."""
    by_name = {name_of(service): service["Spec"] for service in live.services}
    services = tuple(
        replace(one, spec=_with_live_scale(stamped(one), by_name[one.name])) if one.name in by_name else one
        for one in desired.services
    )
    return replace(desired, services=services)


def _with_live_scale(spec: Spec, held: Mapping[str, Any]) -> Spec:
    """The spec with the number of replicas that runs, unless the file's own has changed since."""
    wanted = spec["Labels"].get(REPLICAS_LABEL)
    if wanted is None or (held.get("Labels") or {}).get(REPLICAS_LABEL) != wanted:
        return spec
    if mode(held) != "replicated" or mode(spec) != "replicated":
        return spec
    return {**spec, "Mode": {"Replicated": {"Replicas": _replicas(held)}}}


def _replicas(spec: Mapping[str, Any]) -> int:
    return int(spec["Mode"]["Replicated"].get("Replicas", 1))


def _mark(spec: Mapping[str, Any]) -> str | None:
    return (spec.get("Labels") or {}).get(SPEC_LABEL)


def _first_fields(spec: Spec) -> dict[str, Mapping[str, Any]]:
    """What is worth saying of a service that is new."""
    fields: dict[str, Mapping[str, Any]] = {
        "image": {"from": None, "to": spec["TaskTemplate"]["ContainerSpec"]["Image"]}
    }
    if mode(spec) == "replicated":
        fields["replicas"] = {"from": None, "to": _replicas(spec)}
    else:
        fields["mode"] = {"from": None, "to": mode(spec)}
    return fields
