"""From the inventory, the facts and the swarm as it is: what has to be done. Pure, no network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any

from swarmkit.cluster.actions import (
    Action,
    ConfigureEngine,
    CreateNetwork,
    Demote,
    Departure,
    Drain,
    ForgetNode,
    InitSwarm,
    InstallEngine,
    JoinSwarm,
    LeaveFirst,
    LeaveOther,
    LeaveSwarm,
    MarkSwarm,
    Phase,
    ReleaseGossip,
    RestartEngine,
    StrikeOff,
    Trust,
    UpdateNode,
)
from swarmkit.cluster.facts import HostFacts
from swarmkit.cluster.quorum import Quorum, refusal
from swarmkit.cluster.settings import RELOADABLE, changed_keys, merged, refuse_impossible, rendered
from swarmkit.errors import SwarmkitError, UsageError, raise_all
from swarmkit.images.trust import TrustPlan, plan_trust
from swarmkit.inventory import Host, Inventory
from swarmkit.names import CLUSTER_LABEL, EDGE_NETWORK, HOST_LABEL, LABELS_LABEL, RESTART_LABEL
from swarmkit.swarm import Node

# Larger than /24 (4094 addresses): every task of every routed service has one. The first that
# overlaps nothing that the hosts route is taken.
EDGE_SUBNETS = tuple(
    IPv4Network(subnet)
    for subnet in (
        *(f"10.{second}.0.0/20" for second in (231, 233, 237, 239, 241, 251)),
        "172.30.16.0/20",
        "192.168.208.0/20",
    )
)

# Where Swarm takes the subnets of its own networks from unless told otherwise (dockerd,
# --default-addr-pool), and what it is told where the machines' own network lies in the way.
_POOL_IN_USE_FIRST = IPv4Network("10.0.0.0/12")
_OTHER_POOLS = tuple(IPv4Network(f"10.{second}.0.0/16") for second in (200, 204, 208, 212, 216))

# A route as wide as this is a way out, as a VPN makes them, and no network with machines in it.
_WIDE = 4


@dataclass(frozen=True)
class SwarmState:
    """The swarm as it is; nothing where there is none. `mark` is the cluster's name that it carries."""

    cluster_id: str = ""
    nodes: tuple[Node, ...] = ()
    networks: frozenset[str] = frozenset()
    subnets: tuple[IPv4Network, ...] = ()
    mark: str = ""


@dataclass(frozen=True)
class Consent:
    """What the user has agreed to.

    `take_over`: hosts leave another swarm. `adopt`: a swarm that swarmkit did not form becomes this
    cluster's. `prune`: nodes that the inventory does not have leave. `force`: the managers' majority may
    be lost.
    """

    take_over: bool = False
    adopt: bool = False
    prune: bool = False
    force: bool = False


@dataclass(frozen=True)
class ClusterPlan:
    """What to do, in the order of the phases, and what the phases lean on.

    `founder` is the manager that the swarm is spoken to through; `trust` the registry's own plan, of
    which `actions` holds what concerns the chosen hosts; `notes` is what the user should know.
    """

    actions: tuple[Action, ...]
    founder: Host
    trust: TrustPlan
    notes: tuple[str, ...] = ()


def founding_manager(inventory: Inventory, facts: Mapping[str, HostFacts]) -> Host:
    """The manager that the swarm is spoken to through: one that is in a swarm, else the first.

    `facts` may lack managers that are not to be reached. Raises UsageError where the inventory's managers
    are in different swarms.
    """
    known = [host for host in inventory.managers if host.name in facts]
    members = [host for host in known if facts[host.name].swarm.is_manager]
    clusters = {facts[host.name].swarm.cluster_id for host in members}
    if len(clusters) > 1:
        shown = ", ".join(f"{host.name} in {facts[host.name].swarm.cluster_id}" for host in members)
        raise UsageError(
            f"the managers are in different swarms: {shown}",
            where=str(inventory.source or inventory.cluster),
            hint="take the strangers out of the inventory, or run `docker swarm leave --force` on them",
        )
    return (members or known or list(inventory.managers))[0]


def plan_cluster(
    inventory: Inventory,
    facts: Mapping[str, HostFacts],
    state: SwarmState,
    *,
    hosts: Iterable[Host] | None = None,
    consent: Consent | None = None,
) -> ClusterPlan:
    """What must be done so that `hosts` (all by default) are nodes of the inventory's swarm.

    `facts` holds the hosts that were reached: of `hosts` those without facts are left alone. Raises
    UsageError, or Problems for several mistakes: what is refused, and how it would be allowed.
    """
    agreed = consent or Consent()
    chosen = [host for host in (inventory.hosts if hosts is None else hosts) if host.name in facts]
    founder = founding_manager(inventory, facts)
    # Cut off while it was being formed here: nobody else's, though it has no mark yet.
    is_unfinished = not state.mark and facts[founder.name].is_forming
    foreign = None if is_unfinished else _foreign(inventory, state)
    errors: list[SwarmkitError] = []
    if foreign and agreed.take_over:
        state = SwarmState()
    elif foreign and not agreed.adopt:
        errors.append(foreign)
    errors += _refusals(inventory, chosen, facts, state, agreed)
    raise_all(errors)
    known = [host for host in inventory.hosts if host.name in facts]
    registry = registry_host(inventory, facts)
    found = {host.name: facts[host.name].trust for host in known}
    trust = plan_trust(inventory.hosts, found, registry.name, registry.private_address)
    wanted = {host.name for host in chosen} | {founder.name}
    taken = [*state.subnets, *(route for one in facts.values() for route in one.routes)]
    actions: list[Action] = []
    for host in chosen:
        actions += _engine_actions(inventory, host, facts[host.name], state)
    actions += [Trust(step.host, step) for step in trust.actions if step.host in wanted]
    for host in chosen:
        if host.name == founder.name and not state.cluster_id:
            actions += _found(inventory, host, facts[host.name], taken)
        else:
            actions += _membership(host, facts[host.name], state)
        actions += _node_actions(host, facts[host.name], state)
    if state.cluster_id and state.mark != inventory.cluster:
        actions.append(MarkSwarm(founder.name, inventory.cluster))
    if EDGE_NETWORK not in state.networks:
        subnet = inventory.swarm.edge_subnet or free_subnet(taken)
        mtu = inventory.engine.get("mtu")
        actions.append(CreateNetwork(founder.name, EDGE_NETWORK, str(subnet), mtu))
    actions += _restarts(inventory, chosen, facts, state)
    strangers = [node for node in state.nodes if hosts is None and inventory.host(node.name) is None]
    if agreed.prune:
        actions += [step for node in strangers for step in departure(node, node.name, agreed.force, False)]
    raise_all(_majority(actions, state, agreed))
    in_order = sorted(actions, key=lambda action: list(Phase).index(action.phase))
    return ClusterPlan(tuple(in_order), founder, trust, tuple(_notes(inventory, strangers, agreed)))


def departure(
    node: Node, name: str, force: bool, has_login: bool, *, rejoins: bool = False
) -> Iterator[Departure]:
    """The steps by which a node leaves. Without a login on it, it is struck off and not told."""
    if node.is_ready:
        # Of one that is drained already too: it is waited for until it is empty.
        yield Drain(name, node.id, rejoins, force, node.availability)
    if node.is_manager:
        yield Demote(name, node.id, rejoins)
    if has_login:
        yield LeaveSwarm(name, node.id, rejoins)
    yield StrikeOff(name, node.id, rejoins)


def registry_host(inventory: Inventory, facts: Mapping[str, HostFacts]) -> Host:
    """The manager that runs the registry: the one that has its certificate, else the first.

    One that is away keeps it while the others go by its address: it is expected back. Whoever takes it
    out of the inventory gives it up.
    """
    seen = [host for host in inventory.managers if host.name in facts]
    holders = [host for host in seen if facts[host.name].trust.server]
    named = {found.trust.hosts_ip for found in facts.values()}
    away = [host for host in inventory.managers if host not in seen and host.private_address in named]
    return (holders or away or seen or list(inventory.managers))[0]


def _foreign(inventory: Inventory, state: SwarmState) -> UsageError | None:
    """Why the managers' swarm is not to be touched: it is not marked as this inventory's."""
    if not state.cluster_id or state.mark == inventory.cluster:
        return None
    said = (
        f'the swarm there calls itself "{state.mark}", and this inventory is of "{inventory.cluster}"'
        if state.mark
        else f"the managers are in a swarm ({state.cluster_id}) that swarmkit did not form"
    )
    return UsageError(
        said,
        where=str(inventory.source or inventory.cluster),
        hint="--adopt makes it this cluster's as it is; --take-over makes these machines leave it, with all "
        "that runs on it, and form a new one",
    )


def _refusals(
    inventory: Inventory,
    chosen: Sequence[Host],
    facts: Mapping[str, HostFacts],
    state: SwarmState,
    agreed: Consent,
) -> Iterator[SwarmkitError]:
    yield from refuse_impossible(inventory.engine, str(inventory.source or inventory.cluster))
    for host in chosen:
        found = facts[host.name]
        has_all = found.has_engine and found.has_cli
        if not found.engine_version and not has_all and not found.has_apt:
            yield UsageError(
                f"{found.os_name} is not a system that swarmkit can install Docker on",
                where=host.name,
                hint="it can on Debian and Ubuntu; install the Docker Engine and its docker command "
                "there yourself, then run this again",
            )
        if not found.has_systemd and not found.engine_version:
            yield UsageError(
                "no Docker Engine runs, and there is no systemd to start one with",
                where=host.name,
                hint="start dockerd there yourself, then run this again",
            )
        if found.settings.broken and inventory.engine:
            yield UsageError(
                f"/etc/docker/daemon.json is broken: {found.settings.broken}",
                where=host.name,
                hint="mend it, or remove it",
            )
        if found.swarm.state == "locked":
            yield UsageError(
                "the swarm's keys on this manager are locked (autolock)",
                where=host.name,
                hint="unlock it there: docker swarm unlock",
            )
        elif _is_elsewhere(found, state) and not agreed.take_over:
            swarm = found.swarm.swarm_id or f"the one it joined as node {found.swarm.node_id or 'unknown'}"
            yield UsageError(
                f"Docker there is already in another swarm ({swarm})",
                where=host.name,
                hint="--take-over makes it leave that swarm, with all that runs on it, and join this one",
            )
        elif (
            _moved(host, found, state)
            and len(Quorum.of(state.nodes).managers) == 1
            and found.swarm.is_manager
        ):
            yield UsageError(
                f"the only manager is in the swarm as {found.swarm.address}, and the inventory says "
                f"{host.private_address}",
                where=host.name,
                hint="a swarm is not moved to another address without a second manager; put the address "
                "back, or make the swarm anew on the machine itself: docker swarm init --force-new-cluster "
                f"--advertise-addr {host.private_address}",
            )


def _is_elsewhere(found: HostFacts, state: SwarmState) -> bool:
    """Whether the host is in a swarm that is not this one."""
    swarm = found.swarm
    if not swarm.is_member or (swarm.node_id and swarm.node_id in {node.id for node in state.nodes}):
        return False
    return not state.cluster_id or swarm.swarm_id != state.cluster_id


def _moved(host: Host, found: HostFacts, state: SwarmState) -> bool:
    """Whether the host is a node of this swarm under another address than the inventory's."""
    swarm = found.swarm
    return bool(
        state.cluster_id
        and swarm.state == "active"
        and not _is_elsewhere(found, state)
        and swarm.address
        and swarm.address != host.private_address
    )


def _node(found: HostFacts, state: SwarmState) -> Node | None:
    """The node that the host is in this swarm."""
    wanted = found.swarm.node_id
    return next((node for node in state.nodes if wanted and node.id == wanted), None)


def _engine_actions(
    inventory: Inventory, host: Host, found: HostFacts, state: SwarmState
) -> Iterator[Action]:
    keys = changed_keys(found.settings.content, inventory.engine)
    runs = bool(found.engine_version)
    if keys:
        content = rendered(merged(found.settings.content, inventory.engine))
        if not runs:
            yield ConfigureEngine(host.name, keys, content, "start")
        elif set(keys) <= RELOADABLE and not found.settings.pending:
            yield ConfigureEngine(host.name, keys, content, "reload")
        elif _node(found, state) is None:
            yield ConfigureEngine(host.name, keys, content, "restart")
    if found.keeps_gossip and not found.containers:
        yield ReleaseGossip(host.name)
    if not runs:
        packages = ("docker.io",) * (not found.has_engine) + ("docker-cli",) * (not found.has_cli)
        yield InstallEngine(host.name, packages)


def _found(
    inventory: Inventory, host: Host, found: HostFacts, taken: Sequence[IPv4Network]
) -> Iterator[Action]:
    if found.swarm.is_member:
        yield LeaveFirst(host.name)
    wanted = inventory.swarm
    pools = wanted.address_pools or other_pools(taken)
    settings: dict[str, Any] = {
        "DataPathPort": wanted.data_path_port,
        "DefaultAddrPool": [str(pool) for pool in pools],
        "SubnetSize": wanted.subnet_size,
        "Spec": {"Labels": {CLUSTER_LABEL: inventory.cluster}},
    }
    yield InitSwarm(host.name, host.private_address, settings)


def _membership(host: Host, found: HostFacts, state: SwarmState) -> Iterator[Action]:
    """How the host becomes a node of this swarm, where it is none that works."""
    node = _node(found, state)
    swarm = found.swarm
    if node is not None and swarm.state == "active" and not _moved(host, found, state):
        return
    if node is not None and swarm.state == "active":
        # It moves to another address, which an engine cannot do in place.
        yield from departure(node, host.name, True, True, rejoins=True)
    elif _is_elsewhere(found, state):
        yield LeaveOther(host.name)
    elif swarm.is_member:
        # It was struck off, or its join was never finished, or its certificate is of no use any more.
        yield LeaveOther(host.name, f"the swarm, in which it is {_standing(swarm.state)}")
        if node is not None:
            yield ForgetNode(host.name, node.id)
    yield JoinSwarm(host.name, host.role, host.private_address)


def _standing(state: str) -> str:
    return {"pending": "half-way in", "error": "no longer let in"}.get(state, "no node any more")


def _node_actions(host: Host, found: HostFacts, state: SwarmState) -> Iterator[Action]:
    own_id = found.swarm.node_id if found.swarm.is_member and not _is_elsewhere(found, state) else ""
    for other in state.nodes:
        # Where it has the host's own address it cannot be alive, though the swarm may not know yet.
        is_dead = other.state == "down" or other.address == host.private_address
        if other.name == host.name and other.id != own_id and is_dead:
            yield ForgetNode(host.name, other.id)
    keys = {LABELS_LABEL: ",".join(sorted(host.labels))} if host.labels else {}
    wanted = {**host.labels, HOST_LABEL: host.name, **keys}
    node = _node(found, state)
    if node is None or found.swarm.state != "active" or _moved(host, found, state):
        yield UpdateNode(host.name, wanted, None, host.availability or None)
        return
    missing = {key: value for key, value in wanted.items() if node.labels.get(key) != value}
    given_before = {*node.labels.get(LABELS_LABEL, "").split(","), LABELS_LABEL} & set(node.labels)
    availability = host.availability or node.labels.get(RESTART_LABEL) or node.availability
    if RESTART_LABEL in node.labels:
        # A restart was cut off before the node got back what it had.
        given_before |= {RESTART_LABEL}
    update = UpdateNode(
        host.name,
        missing,
        host.role.value if node.role != host.role else None,
        availability if availability != node.availability else None,
        tuple(sorted(given_before - set(wanted))),
    )
    if update != UpdateNode(host.name):
        yield update


def _restarts(
    inventory: Inventory, chosen: Sequence[Host], facts: Mapping[str, HostFacts], state: SwarmState
) -> Iterator[RestartEngine]:
    """Engines of nodes to be restarted, one after the other: workers first, the leader last."""
    due: list[tuple[Node, RestartEngine]] = []
    for host in chosen:
        found = facts[host.name]
        node = _node(found, state)
        keys = changed_keys(found.settings.content, inventory.engine)
        if node is None or not found.engine_version or not (found.settings.pending or {*keys} - RELOADABLE):
            continue
        content = rendered(merged(found.settings.content, inventory.engine)) if keys else ""
        had = host.availability or node.labels.get(RESTART_LABEL) or node.availability
        others = any(
            other.is_ready and other.availability == "active" for other in state.nodes if other.id != node.id
        )
        drained = others and had == "active"
        due.append((node, RestartEngine(host.name, had, drained, keys, content)))
    for _, action in sorted(due, key=lambda pair: (pair[0].is_manager, pair[0].leader)):
        yield action


def _majority(actions: Sequence[Action], state: SwarmState, agreed: Consent) -> list[SwarmkitError]:
    """Why the actions may not be done: too few managers would be left."""
    by_id = {node.id: node for node in state.nodes}
    own_ids = {node.name: node.id for node in state.nodes}
    going: set[str] = set()
    for action in actions:
        match action:
            case Demote(node_id=node_id) | ForgetNode(node_id=node_id) if by_id[node_id].is_manager:
                going.add(by_id[node_id].name)
            case UpdateNode(host=name, role="worker") if name in own_ids:
                going.add(name)
    now = Quorum.of(state.nodes)
    errors: list[SwarmkitError] = []
    if going:
        doing = f"taking {', '.join(sorted(going))} out of the managers"
        error = refusal(now, now.without(going), doing, force=agreed.force)
        errors += [error] if error else []
    restarted = {action.host for action in actions if isinstance(action, RestartEngine)} & now.managers
    # All there: a manager is away for a few seconds. One missing already: that could be for long.
    if now.managers != now.reachable and not agreed.force:
        for name in sorted(restarted & now.reachable):
            error = refusal(now, now.losing([name]), f"restarting the engine of {name}")
            errors += [error] if error else []
    return errors


def _notes(inventory: Inventory, strangers: Sequence[Node], agreed: Consent) -> Iterator[str]:
    names = ", ".join(node.name for node in strangers)
    if strangers and not agreed.prune:
        yield f"in the swarm, and not in the inventory: {names} (--prune takes them out of the swarm)"
    elif strangers:
        yield f"no login on {names}: struck off here; run `docker swarm leave` there"
    count = len(inventory.managers)
    if count % 2 == 0:
        yield (f"{count} managers: no more of them may fail than of {count - 1}; an odd number is better")
    label = inventory.swarm.spread
    if label and count > 2:
        together: dict[str, list[str]] = {}
        for host in inventory.managers:
            together.setdefault(host.labels.get(label, ""), []).append(host.name)
        for value, names_there in together.items():
            if len(names_there) > (count - 1) // 2:
                where = f"{label}={value}" if value else f"no {label}"
                yield f"{len(names_there)} of {count} managers have {where}: without it there is no majority"


def free_subnet(taken: Sequence[IPv4Network]) -> IPv4Network:
    """The first of EDGE_SUBNETS that overlaps none of `taken`; raises UsageError where none is free."""
    if found := next((subnet for subnet in EDGE_SUBNETS if _is_free(subnet, taken)), None):
        return found
    raise UsageError(
        f"no subnet is free for the network {EDGE_NETWORK}: tried {', '.join(map(str, EDGE_SUBNETS))}",
        hint="name one that is: `swarm: {edge_subnet: A.B.C.0/20}` in the inventory",
    )


def other_pools(taken: Sequence[IPv4Network]) -> tuple[IPv4Network, ...]:
    """Where Swarm is to take its networks' subnets from; nothing where its own choice lies free.

    Swarm begins with 10.0.0.0/24 and does not look whether the machines themselves live there.
    """
    if _is_free(_POOL_IN_USE_FIRST, taken):
        return ()
    return tuple(pool for pool in _OTHER_POOLS if _is_free(pool, taken))[:1]


def _is_free(subnet: IPv4Network, taken: Sequence[IPv4Network]) -> bool:
    return not any(subnet.overlaps(other) for other in taken if other.prefixlen > _WIDE)
