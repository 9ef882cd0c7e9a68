"""The plan for a whole stack: a pure function of what should be and what is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from swarmkit.compose.convert import DesiredNetwork, DesiredService, DesiredStack, Spec
from swarmkit.deploy.history import Revision, Snapshot, Stored
from swarmkit.deploy.plan.contents import (
    SALT_BYTES,
    config_changes,
    config_names,
    is_version_of,
    label_changes,
    needed,
    secret_changes,
    unused,
)
from swarmkit.deploy.plan.model import (
    REFERENCES,
    Change,
    LiveStack,
    Plan,
    name_of,
    portable,
    referred,
    removal,
    snapshot,
    targets,
    with_references,
)
from swarmkit.deploy.plan.networks import network_changes, network_removals
from swarmkit.deploy.plan.order import Dependencies, check, dependencies
from swarmkit.deploy.plan.ports import handed_over, ports
from swarmkit.deploy.plan.services import ServicePlanner, is_job, stamped
from swarmkit.errors import OperationFailed, SwarmkitError, UsageError, raise_all
from swarmkit.names import CANARY_LABEL


def plan_stack(
    desired: DesiredStack,
    live: LiveStack,
    *,
    prune: bool = False,
    replace_secrets: bool = False,
    salt: Callable[[], bytes] = lambda: os.urandom(SALT_BYTES),
) -> Plan:
    """What makes `live` what `desired` says; no change where it is that already.

    With `prune`, what is no longer in the file goes as well; with `replace_secrets`, secrets whose
    content cannot be compared get a new version. `salt` is for the hashes of new secrets.

    Raises UsageError for dependencies that cannot be met, OperationFailed for a network that cannot be
    made again (Problems for several).
    """
    wanted = dependencies(desired)
    check([service.spec for service in desired.services], wanted)
    secrets, of_secrets, notes = secret_changes(desired, live, replace_unknown=replace_secrets, salt=salt)
    named = with_versions(desired, {"config": config_names(desired, live), "secret": secrets})
    networks = network_changes(named, live)
    orphaned = _orphaned(named, live)
    gone = [one for one in orphaned if not _is_canary(one, named)] if prune else []
    stay = [one for one in orphaned if one not in gone and name_of(one) in networks.restarted]
    specs = [stamped(service) for service in named.services]
    names = live.network_names()
    specs += [portable(service["Spec"], names) for service in stay]
    services = handed_over(ServicePlanner(live, networks.restarted).changes(specs), wanted)
    removals = [_orphan_removal(service, services, networks.restarted) for service in gone]
    changes = [
        *(change for change in [*services, *removals] if change.early),
        *networks.removals,
        *networks.creations,
        *of_secrets,
        *config_changes(named, live),
        *(change for change in services if not change.early),
        *(change for change in removals if not change.early),
    ]
    sides = [live.before(), *_sides(live.kept_revisions(more=1 if changes else 0))]
    for kind in REFERENCES:
        firsts = [thing.name for thing in (desired.configs if kind == "config" else desired.secrets)]
        in_use = needed(kind, named, live, [*services, *removals])
        stale = unused(kind, live, {*in_use, *_held(sides, kind)})
        changes += [removal(kind, thing) for thing in stale if prune or is_version_of(name_of(thing), firsts)]
    if prune:
        changes += network_removals(named, live)
    if changes:
        notes += _volume_notes(desired, live)
    return Plan(changes, notes)


def plan_return(stack: str, to: Snapshot, live: LiveStack) -> Plan:
    """What makes a stack again what it was; networks that have been made again stay as they are.

    What the stack did not have goes, except what revisions need. Raises OperationFailed (or Problems) where
    a config or secret that it needs is gone.
    """
    desired = as_desired(stack, to)
    raise_all(list(_gone(to, live)))
    networks = network_changes(desired, live, recreate=False)
    services = handed_over(ServicePlanner(live).changes([*to.services.values()]), to.depends_on)
    labels = [
        change
        for kind in REFERENCES
        for found in live.stored(kind)
        if name_of(found) in to.stored[kind]
        for change in label_changes(kind, found, to.stored[kind][name_of(found)], exact=True)
    ]
    removals = [
        replace(_orphan_removal(one, services, frozenset()), note="it was not there before")
        for one in _orphaned(desired, live)
    ]
    changes = [
        *(change for change in [*services, *removals] if change.early),
        *networks.creations,
        *labels,
        *(change for change in services if not change.early),
        *(change for change in removals if not change.early),
    ]
    sides = [to, live.before(), *_sides(live.kept_revisions(more=1))]
    for kind in REFERENCES:
        # What the swarm itself would go back to is what failed.
        stale = unused(kind, live, {*to.stored[kind], *_held(sides, kind)})
        changes += [removal(kind, thing) for thing in stale]
    changes += network_removals(desired, live)
    notes = [
        f"service {spec['Name']}: it is a job; what it did is not undone"
        for spec in (one["Spec"] for one in live.services)
        if is_job(spec)
    ]
    return Plan(changes, notes if changes else [])


def before_it(revision: Revision, live: LiveStack) -> Snapshot:
    """What a stack was before a deployment that is to be taken back, with what is not that one's to undo.

    Services that it did not change stay as they are by now, and so do numbers of replicas that are not those
    that it sent: somebody else has changed them meanwhile.
    """
    now, after = snapshot(live).services, revision.after.services

    def returned(name: str, spec: Spec) -> Spec:
        if name not in now or name not in after:
            return spec
        if spec == after[name]:
            return now[name]
        modes = [one["Mode"].get("Replicated") for one in (spec, after[name], now[name])]
        if None in modes or modes[1] == modes[2]:
            return spec
        return {**spec, "Mode": now[name]["Mode"]}

    services = {name: returned(name, spec) for name, spec in revision.before.services.items()}
    return replace(revision.before, services=services)


def orphans(desired: DesiredStack, live: LiveStack) -> list[str]:
    """The names of services that are in the swarm and no longer in the file."""
    return [name_of(one) for one in _orphaned(desired, live) if not _is_canary(one, desired)]


def canaries(desired: DesiredStack, live: LiveStack) -> list[str]:
    """The names of services that are no more than canaries of those in the file."""
    return [name_of(one) for one in _orphaned(desired, live) if _is_canary(one, desired)]


def with_versions(desired: DesiredStack, names: Mapping[Stored, Mapping[str, str]]) -> DesiredStack:
    """`desired` with the names of the versions that its configs and secrets get beside those in the swarm."""
    services = desired.services
    for kind, new in names.items():
        key = REFERENCES[kind][1]
        added = {first: {key: version} for first, version in new.items()}
        services = tuple(
            replace(service, spec=with_references(service.spec, kind, added)) for service in services
        )
    return replace(
        desired,
        configs=tuple(replace(one, name=names["config"][one.name]) for one in desired.configs),
        secrets=tuple(replace(one, name=names["secret"][one.name]) for one in desired.secrets),
        services=services,
    )


def result(live: LiveStack, plan: Plan, wanted: Dependencies) -> Snapshot:
    """The stack as it is once the plan is carried out; `wanted` are the dependencies of what it deploys."""
    now = snapshot(live)
    services, networks = dict(now.services), dict(now.networks)
    stored = {kind: dict(labels) for kind, labels in now.stored.items()}
    for change in plan.changes:
        if change.kind == "service":
            _put(services, change)
        elif change.kind == "network":
            _put(networks, change)
        elif change.kind != "volume" and change.spec is None:
            stored[change.kind].pop(change.name, None)
        elif change.kind != "volume" and change.spec is not None:
            stored[change.kind][change.name] = dict(change.spec["Labels"])
    return Snapshot(
        services=services,
        depends_on={
            name: conditions for name, conditions in {**now.depends_on, **wanted}.items() if name in services
        },
        networks=networks,
        stored=stored,
    )


def _put(into: dict[str, Spec], change: Change) -> None:
    if change.spec is None:
        into.pop(change.name, None)
    else:
        into[change.name] = change.spec


def as_desired(stack: str, to: Snapshot) -> DesiredStack:
    """A stack as a revision has it; its configs and secrets are in the swarm."""

    def short(name: str) -> str:
        return name.removeprefix(f"{stack}_")

    return DesiredStack(
        stack,
        services=tuple(
            DesiredService(
                name,
                short(name),
                spec,
                None,
                False,
                {short(other): condition for other, condition in to.depends_on.get(name, {}).items()},
            )
            for name, spec in to.services.items()
        ),
        networks=tuple(DesiredNetwork(name, spec) for name, spec in to.networks.items()),
    )


def _gone(to: Snapshot, live: LiveStack) -> Iterator[SwarmkitError]:
    for kind in REFERENCES:
        # What the stack never had is another's: an external one.
        needed = {name for spec in to.services.values() for name in referred(spec, kind)}
        held = {name_of(one) for one in live.stored(kind)}
        for name in sorted((needed & set(to.stored[kind])) - held):
            yield OperationFailed(f"the {kind} {name}, which that revision needs, is gone", where="rollback")


def _orphaned(desired: DesiredStack, live: LiveStack) -> list[Mapping[str, Any]]:
    wanted = {service.name for service in desired.services}
    return sorted((service for service in live.services if name_of(service) not in wanted), key=name_of)


def _is_canary(service: Mapping[str, Any], desired: DesiredStack) -> bool:
    """Whether a service is there for another one of the stack: what tries it decides what becomes of it."""
    of = (service["Spec"].get("Labels") or {}).get(CANARY_LABEL)
    return any(one.name == of for one in desired.services)


def _orphan_removal(
    service: Mapping[str, Any], services: Sequence[Change], restarted: frozenset[str]
) -> Change:
    """The removal of a service: at the end, but early where it is in the way of what comes."""
    wanted = {port for change in services if change.spec is not None for port in ports(change.spec)}
    taken = wanted & ports(service["Spec"])
    note = f"first, for another service gets its port {min(taken).partition('/')[0]}" if taken else ""
    return replace(removal("service", service), early=bool(taken) or name_of(service) in restarted, note=note)


def _sides(revisions: Iterable[Revision]) -> list[Snapshot]:
    return [side for revision in revisions for side in (revision.before, revision.after)]


def _held(sides: Iterable[Snapshot], kind: Stored) -> set[str]:
    """The configs, or secrets, that a return to one of these would need."""
    return {name for side in sides for spec in side.services.values() for name in referred(spec, kind)}


def _volume_notes(desired: DesiredStack, live: LiveStack) -> list[str]:
    mounted = {
        mount.get("Source")
        for service in live.services
        for mount in service["Spec"]["TaskTemplate"].get("ContainerSpec", {}).get("Mounts") or ()
    }
    return [
        f"volume {name}: made on each node when a task that mounts it first starts there"
        for name in desired.volumes
        if name not in mounted
    ]


def only(desired: DesiredStack, chosen: Sequence[str]) -> DesiredStack:
    """The part of a stack that some of its services, by their names in the file, make up.

    Raises UsageError (or Problems) for names that the file does not have.
    """
    known = [service.short_name for service in desired.services]
    hint = f"its services: {', '.join(sorted(known))}"
    raise_all(
        [
            UsageError(f'there is no service "{name}" in the file', hint=hint)
            for name in chosen
            if name not in known
        ]
    )
    services = tuple(service for service in desired.services if service.short_name in chosen)
    used = {target for service in services for target in targets(service.spec)}
    configs = {name for service in services for name in referred(service.spec, "config")}
    secrets = {name for service in services for name in referred(service.spec, "secret")}
    return replace(
        desired,
        services=services,
        networks=tuple(one for one in desired.networks if one.name in used),
        configs=tuple(one for one in desired.configs if one.name in configs),
        secrets=tuple(one for one in desired.secrets if one.name in secrets),
    )
