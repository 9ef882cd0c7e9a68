"""What can be seen to go wrong before the first write: `preflight`, a pure function, and its reading.

It never refuses what fits. Whether tasks of several sizes fit on several nodes is a packing problem; what
is refused here fails a condition that every packing meets: each service must fit when it is alone, and no
group of services may need more of a resource than there is on the nodes that they may be on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from swarmkit.compose.convert import DesiredService, DesiredStack
from swarmkit.errors import SwarmkitError, UsageError
from swarmkit.names import EDGE_NETWORK, STACK_LABEL
from swarmkit.remote import Engine
from swarmkit.services.placement import Ask, Room, amount_text, free_text, published, rooms, unmet
from swarmkit.swarm import Node, Service, Task, filters, nodes, services
from swarmkit.ui import Ui

_ROOM_HINT = "reserve less (deploy.resources.reservations), run fewer tasks, or add nodes"


class Severity(StrEnum):
    """An error keeps a stack from being deployed, a warning is said."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Finding:
    """Something that will go wrong: where (a service, or the stack), what, and what to do."""

    severity: Severity
    where: str
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Surroundings:
    """The swarm that a stack is to come into.

    `tasks` are all that should run; `networks` the names of those that there are; `configs` and `secrets`
    give for the names of those that there are the stacks that they belong to (empty for none). `pruned`
    are the names of services that go in this deployment.
    """

    nodes: Sequence[Node] = ()
    services: Sequence[Service] = ()
    tasks: Sequence[Task] = ()
    networks: frozenset[str] = frozenset()
    configs: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    pruned: Collection[str] = ()


@dataclass(frozen=True)
class _Wanted:
    """A service of the stack, with what it asks for and the nodes that it may be on."""

    name: str
    service: Service
    ask: Ask
    allowed: tuple[Node, ...]
    # What the swarm has already been asked for is no reason to refuse something else.
    severity: Severity

    @property
    def each(self) -> bool:
        """Whether it has a task on each node."""
        return self.service.mode.startswith("global")

    @property
    def count(self) -> int:
        """How many tasks must have room at the same time; tasks of a job wait for one another."""
        if self.each:
            return len(self.allowed)
        return 1 if self.service.is_job else self.service.replicas or 0

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(node.id for node in self.allowed)


def preflight(desired: DesiredStack, around: Surroundings) -> list[Finding]:
    """All that will go wrong with `desired` in the swarm as it is `around` it."""
    live = {service.name: service for service in around.services}
    own = {live[one.name].id for one in desired.services if one.name in live}
    # What the stack's own tasks hold now is theirs again.
    others = [task for task in around.tasks if task.service_id not in own]
    # What is pruned gives up its ports before another gets them, and its room only at the end.
    stay = [service for service in around.services if service.name not in around.pruned]
    left = rooms(around.nodes, others, stay)
    wanted = [_wanted(one, live.get(one.name), around.nodes) for one in desired.services]
    return [
        *_externals(desired, around),
        *_foreign(desired, around),
        *_placement(wanted, around.nodes),
        *_room(desired.name, [one for one in wanted if one.allowed], left),
        *_ports(desired, stay),
    ]


def _wanted(desired: DesiredService, live: Service | None, known: Sequence[Node]) -> _Wanted:
    service = Service.of({"ID": desired.name, "Spec": desired.spec})
    ask = Ask.of(desired.spec)
    is_old = live is not None and Ask.of(live.spec) == ask and live.spec["Mode"] == service.spec["Mode"]
    return _Wanted(
        desired.name,
        service,
        ask,
        tuple(node for node in known if ask.allows(node)),
        Severity.WARNING if is_old else Severity.ERROR,
    )


def _externals(desired: DesiredStack, around: Surroundings) -> Iterator[Finding]:
    for name in desired.external_networks:
        if name not in around.networks:
            hint = (
                "swarmkit init makes it"
                if name == EDGE_NETWORK
                else f"make it first: docker network create -d overlay {name}"
            )
            yield Finding(Severity.ERROR, desired.name, f'there is no network "{name}" in the swarm', hint)
    for kind, names, there in (
        ("config", desired.external_configs, around.configs),
        ("secret", desired.external_secrets, around.secrets),
    ):
        for name in names:
            if name not in there:
                hint = f"make it first: docker {kind} create {name} FILE"
                yield Finding(Severity.ERROR, desired.name, f'there is no {kind} "{name}" in the swarm', hint)


def _foreign(desired: DesiredStack, around: Surroundings) -> Iterator[Finding]:
    """What has the very name of something of the stack's, and is another's: not to be taken over."""
    owners = {service.name: service.stack for service in around.services}
    for kind, names, there in (
        ("service", [one.name for one in desired.services], owners),
        ("config", [one.name for one in desired.configs], around.configs),
        ("secret", [one.name for one in desired.secrets], around.secrets),
    ):
        for name in names:
            if (owner := there.get(name, desired.name)) == desired.name:
                continue
            whose = f"is of the stack {owner}" if owner else "no stack made"
            hint = "give it another name"
            if kind != "service":
                hint += ", or use the one that is there: external: true"
            yield Finding(
                Severity.ERROR, desired.name, f"there is a {kind} {name} already, which {whose}", hint
            )


def _placement(wanted: Sequence[_Wanted], known: Sequence[Node]) -> Iterator[Finding]:
    for one in wanted:
        if one.allowed or (not one.each and not one.count):
            continue
        # Without a node, a service with a task on each has none, and that is all of them.
        severity = Severity.WARNING if one.each else one.severity
        yield Finding(
            severity,
            one.name,
            f"no node fits: {'; '.join(unmet(one.ask, known))}",
            "see what nodes have: swarmkit node ls; give one what is asked for:"
            " swarmkit node label NODE KEY=VALUE, swarmkit node activate NODE",
        )


# ---------------------------------------------------------------- room


def _room(stack: str, wanted: Sequence[_Wanted], left: Mapping[str, Room]) -> Iterator[Finding]:
    crowded = set()
    for one in wanted:
        message = _lacks_on_each(one, left) if one.each else _lacks_in_all(one, left)
        if message:
            crowded.add(one.name)
            yield Finding(one.severity, one.name, message, _ROOM_HINT)
    yield from _together(stack, [one for one in wanted if one.name not in crowded], left)


def _lacks_on_each(one: _Wanted, left: Mapping[str, Room]) -> str:
    without = [node for node in one.allowed if not left[node.id].takes(one.ask)]
    if not without:
        return ""
    reasons = [
        f"needs {amount_text(what, amount)} on each node; free: {free_text(what, short, left)}"
        for what, amount in one.ask.amounts.items()
        if (short := [node for node in without if left[node.id].amounts.get(what, 0) < amount])
    ]
    return "; ".join([*reasons, *_taken_ports(one, left)])


def _lacks_in_all(one: _Wanted, left: Mapping[str, Room]) -> str:
    """Why not all the tasks of a replicated service have room, were it alone; empty where they have."""
    room = sum(left[node.id].takes(one.ask) for node in one.allowed)
    if room >= one.count:
        return ""
    tasks = f"{one.count} × " if one.count > 1 else ""
    reasons = [
        f"needs {tasks}{amount_text(what, amount)}; free: {free_text(what, one.allowed, left)}"
        for what, amount in one.ask.amounts.items()
        if sum(max(0, left[node.id].amounts.get(what, 0)) // amount for node in one.allowed) < one.count
    ]
    reasons += _taken_ports(one, left)
    if one.ask.most * len(one.allowed) < one.count:
        reasons.append(
            f"{one.count} tasks, at most {one.ask.most} a node (max_replicas_per_node),"
            f" and {_nodes(len(one.allowed))} may run them"
        )
    if one.ask.ports and len(one.allowed) < one.count:
        ports = ", ".join(sorted(one.ask.ports))
        reasons.append(
            f"{one.count} tasks publish {ports} in host mode, one a node, and {_nodes(len(one.allowed))}"
            " may run them"
        )
    if not reasons:
        free = "; ".join(free_text(what, one.allowed, left) for what in one.ask.amounts)
        reasons = [f"there is room for {room} of {one.count} tasks; free: {free}"]
    return "; ".join(reasons)


def _taken_ports(one: _Wanted, left: Mapping[str, Room]) -> list[str]:
    found = []
    for port in sorted(one.ask.ports):
        holders = {
            node.name: left[node.id].ports[port] for node in one.allowed if port in left[node.id].ports
        }
        if holders:
            places = ", ".join(f"{name} ({service})" for name, service in holders.items())
            found.append(f"port {port} in host mode is taken on {places}")
    return found


def _together(stack: str, wanted: Sequence[_Wanted], left: Mapping[str, Room]) -> Iterator[Finding]:
    """Groups of services that need more than there is on all the nodes that they may be on."""
    known = {node.id: node for one in wanted for node in one.allowed}
    kinds = sorted({what for one in wanted for what in one.ask.amounts})
    ports = sorted({port for one in wanted for port in one.ask.ports})
    for ids in sorted({one.ids for one in wanted}, key=sorted):
        group = [one for one in wanted if one.ids <= ids and one.count and not one.service.is_job]
        if len(group) < 2:
            continue
        severity = (
            Severity.ERROR if any(one.severity is Severity.ERROR for one in group) else Severity.WARNING
        )
        there = [known[identity] for identity in sorted(ids)]
        for what in kinds:
            needs = [(one, one.ask.amounts[what]) for one in group if what in one.ask.amounts]
            total = sum(one.count * amount for one, amount in needs)
            if len(needs) > 1 and total > sum(max(0, left[i].amounts.get(what, 0)) for i in ids):
                each = ", ".join(f"{one.name} {one.count} × {amount_text(what, a)}" for one, a in needs)
                yield Finding(
                    severity,
                    stack,
                    f"needs {amount_text(what, total)} in all ({each}); free: {free_text(what, there, left)}",
                    _ROOM_HINT,
                )
        for port in ports:
            users = [one for one in group if port in one.ask.ports]
            free = sum(port not in left[identity].ports for identity in ids)
            if len(users) > 1 and sum(one.count for one in users) > free:
                each = ", ".join(f"{one.name} {one.count} ×" for one in users)
                text = f"port {port} in host mode is needed by {each}, and free on {_nodes(free)}"
                yield Finding(severity, stack, text, "publish different ports, or run fewer tasks")


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


# ---------------------------------------------------------------- ports


def _ports(desired: DesiredStack, live: Sequence[Service]) -> Iterator[Finding]:
    """Ports that the swarm refuses: one in `ingress` mode is a service's alone, on every node.

    Of two in `host` mode the nodes decide (moby/swarmkit, manager/controlapi, checkPortConflicts).
    """
    names = {service.name for service in desired.services}
    holders = [(one.name, one.spec, one.stack == desired.name) for one in live if one.name not in names]
    for service in desired.services:
        ingress, host = published(service.spec, "ingress"), published(service.spec, "host")
        for name, spec, is_own in holders:
            theirs = {mode: set(published(spec, mode)) for mode in ("ingress", "host")}
            taken = [port for port in ingress if port in theirs["ingress"] | theirs["host"]]
            taken += [port for port in host if port in theirs["ingress"]]
            for port in taken:
                yield Finding(
                    Severity.ERROR,
                    service.name,
                    f"port {port} is published by {name} already",
                    f"deploy {name} too, or, where it has left the file, with --prune"
                    if is_own
                    else f"publish another port, or take {name} away",
                )
        holders.append((service.name, service.spec, False))


# ---------------------------------------------------------------- reading


def refusals(
    engine: Engine,
    ui: Ui,
    desired: DesiredStack,
    pruned: Collection[str] = (),
    beside: Sequence[DesiredStack] = (),
) -> list[SwarmkitError]:
    """What keeps the stack from being deployed, all of it at once; warnings are said.

    `pruned` are the services that go in the same deployment; `beside` are other stacks, not there yet, that
    will be by then.
    """
    errors: list[SwarmkitError] = []
    around = _surroundings(engine, desired, pruned)
    for other in beside:
        around = with_stack(around, other)
    for finding in preflight(desired, around):
        if finding.severity is Severity.ERROR:
            errors.append(UsageError(finding.message, where=finding.where, hint=finding.hint))
        else:
            ui.warn(f"{finding.where}: {finding.message}")
    return errors


def with_stack(around: Surroundings, other: DesiredStack) -> Surroundings:
    """The swarm once a stack that it does not have is in it; where its tasks will be nobody knows."""
    return replace(
        around,
        services=[
            *around.services,
            *(Service.of({"ID": one.name, "Spec": one.spec}) for one in other.services),
        ],
        networks=around.networks | {one.name for one in other.networks},
        configs={**around.configs, **{one.name: other.name for one in other.configs}},
        secrets={**around.secrets, **{one.name: other.name for one in other.secrets}},
    )


def _surroundings(engine: Engine, desired: DesiredStack, pruned: Collection[str]) -> Surroundings:
    def owners(kind: str, names: Sequence[str]) -> dict[str, str]:
        # The engine takes the beginning of a name for a name.
        found = engine.get(kind, filters(name=names)) if names else ()
        return {one["Spec"]["Name"]: (one["Spec"].get("Labels") or {}).get(STACK_LABEL, "") for one in found}

    running = engine.get("/tasks", filters(**{"desired-state": "running"}))
    return Surroundings(
        nodes(engine),
        services(engine),
        [Task.of(raw) for raw in running],
        frozenset(network["Name"] for network in engine.get("/networks", filters(scope="swarm"))),
        owners("/configs", [*desired.external_configs, *(one.name for one in desired.configs)]),
        owners("/secrets", [*desired.external_secrets, *(one.name for one in desired.secrets)]),
        pruned,
    )
