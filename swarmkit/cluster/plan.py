"""From the inventory, the facts and the swarm as it is: what has to be done. Pure, no network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network
from typing import ClassVar

from swarmkit.cluster.facts import HostFacts
from swarmkit.errors import SwarmkitError, UsageError, raise_all
from swarmkit.images.trust import TrustAction, TrustPlan, plan_trust
from swarmkit.inventory import Host, Inventory
from swarmkit.names import EDGE_NETWORK, HOST_LABEL
from swarmkit.swarm import Node

# Larger than /24 (4094 addresses): every task of every routed service has one. The first that
# overlaps nothing that the hosts route is taken.
EDGE_SUBNETS = tuple(IPv4Network(f"10.{second}.0.0/20") for second in (231, 233, 237, 239, 241, 251))


class Phase(StrEnum):
    """The stages of building a cluster, in their order."""

    ENGINE = "engine"
    TRUST = "registry trust"
    SWARM = "swarm"
    NODES = "nodes"
    NETWORK = "network"


@dataclass(frozen=True)
class Action:
    """One thing to do, on one host (or, on a manager, to the swarm)."""

    host: str
    phase: ClassVar[Phase]

    @property
    def title(self) -> str:
        """What is done, in the imperative."""
        raise NotImplementedError


@dataclass(frozen=True)
class InstallEngine(Action):
    """Install and start what is missing of the engine and its command."""

    packages: tuple[str, ...]
    phase = Phase.ENGINE

    @property
    def title(self) -> str:
        return f"install {' and '.join(self.packages)}" if self.packages else "start the Docker Engine"


@dataclass(frozen=True)
class Trust(Action):
    """Let the host use the cluster's registry."""

    step: TrustAction
    phase = Phase.TRUST

    @property
    def title(self) -> str:
        return self.step.text


@dataclass(frozen=True)
class LeaveOther(Action):
    """Take the host out of a swarm that is not this one."""

    phase = Phase.SWARM
    title = "leave the other swarm"


@dataclass(frozen=True)
class InitSwarm(Action):
    """Make the swarm, with this host as its first manager."""

    address: str
    phase = Phase.SWARM

    @property
    def title(self) -> str:
        return f"initialise the swarm on {self.address}"


@dataclass(frozen=True)
class JoinSwarm(Action):
    """Make the host a node of the swarm."""

    role: str
    address: str
    phase = Phase.SWARM

    @property
    def title(self) -> str:
        return f"join the swarm as {self.role}"


@dataclass(frozen=True)
class UpdateNode(Action):
    """Give the host's node its role and labels."""

    labels: Mapping[str, str] = field(default_factory=dict)
    role: str | None = None
    phase = Phase.NODES

    @property
    def title(self) -> str:
        parts = [f"make it a {self.role}"] if self.role else []
        shown = " ".join(f"{key}={value}" for key, value in sorted(self.labels.items()))
        return ", ".join(parts + ([f"label {shown}"] if shown else []))


@dataclass(frozen=True)
class ForgetNode(Action):
    """Strike a dead node off the swarm's list whose machine has come back as another node."""

    node_id: str
    phase = Phase.NODES

    @property
    def title(self) -> str:
        return f"forget the dead node {self.node_id} that it was before"


@dataclass(frozen=True)
class CreateNetwork(Action):
    """Make the overlay network that joins the balancer and the services behind it."""

    name: str
    subnet: str
    phase = Phase.NETWORK

    @property
    def title(self) -> str:
        return f"create the overlay network {self.name} ({self.subnet})"


@dataclass(frozen=True)
class SwarmState:
    """The swarm as it is: its id, nodes and the names of its networks; nothing where there is none."""

    cluster_id: str = ""
    nodes: tuple[Node, ...] = ()
    networks: frozenset[str] = frozenset()
    subnets: tuple[IPv4Network, ...] = ()


@dataclass(frozen=True)
class ClusterPlan:
    """What to do, by phase, and what the phases lean on.

    `founder` is the manager that the swarm is spoken to through; `trust` the registry's own plan, of
    which `actions` holds what concerns the chosen hosts.
    """

    actions: tuple[Action, ...]
    founder: Host
    trust: TrustPlan


def founding_manager(inventory: Inventory, facts: Mapping[str, HostFacts]) -> Host:
    """The manager that the swarm is spoken to through: one that is in a swarm, else the first.

    Raises UsageError where the inventory's managers are in different swarms.
    """
    members = [host for host in inventory.managers if facts[host.name].swarm.is_manager]
    clusters = {facts[host.name].swarm.cluster_id for host in members}
    if len(clusters) > 1:
        shown = ", ".join(f"{host.name} in {facts[host.name].swarm.cluster_id}" for host in members)
        raise UsageError(
            f"the managers are in different swarms: {shown}",
            where=str(inventory.source or inventory.cluster),
            hint="take the strangers out of the inventory, or run `docker swarm leave --force` on them",
        )
    return members[0] if members else inventory.managers[0]


def plan_cluster(
    inventory: Inventory,
    facts: Mapping[str, HostFacts],
    state: SwarmState,
    *,
    hosts: Iterable[Host] | None = None,
    take_over: bool = False,
) -> ClusterPlan:
    """What must be done so that `hosts` (all by default) are nodes of the inventory's swarm.

    `facts` holds every reachable host of the inventory, and those of `hosts` in any case. A host in
    another swarm is refused unless `take_over`. Raises UsageError, or Problems for several hosts.
    """
    chosen = list(inventory.hosts if hosts is None else hosts)
    founder = founding_manager(inventory, facts)
    raise_all(list(_refusals(chosen, facts, state, take_over)))
    known = [host for host in inventory.hosts if host.name in facts]
    registry = registry_host(inventory, facts)
    found = {host.name: facts[host.name].trust for host in known}
    trust = plan_trust(inventory.hosts, found, registry.name, registry.private_address)
    wanted = {host.name for host in chosen} | {founder.name}
    actions: list[Action] = []
    for host in chosen:
        actions += _engine_actions(host, facts[host.name])
    actions += [Trust(step.host, step) for step in trust.actions if step.host in wanted]
    for host in chosen:
        actions += _swarm_actions(host, facts[host.name], state, host.name == founder.name)
    for host in chosen:
        actions += _node_actions(host, facts[host.name], state)
    if EDGE_NETWORK not in state.networks:
        subnet = free_subnet([*state.subnets, *(route for one in facts.values() for route in one.routes)])
        actions.append(CreateNetwork(founder.name, EDGE_NETWORK, str(subnet)))
    in_order = sorted(actions, key=lambda action: list(Phase).index(action.phase))
    return ClusterPlan(tuple(in_order), founder, trust)


def registry_host(inventory: Inventory, facts: Mapping[str, HostFacts]) -> Host:
    """The manager that runs the registry: the one that has its certificate, else the first."""
    holders = [host for host in inventory.managers if host.name in facts and facts[host.name].trust.server]
    return (holders or list(inventory.managers))[0]


def _refusals(
    chosen: Sequence[Host], facts: Mapping[str, HostFacts], state: SwarmState, take_over: bool
) -> Iterable[SwarmkitError]:
    for host in chosen:
        found = facts[host.name]
        if not found.engine_version and not found.has_engine and not found.has_apt:
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
        if _is_elsewhere(found, state) and not take_over:
            swarm = found.swarm.cluster_id or f"the one it joined as node {found.swarm.node_id or 'unknown'}"
            yield UsageError(
                f"Docker there is already in another swarm ({swarm})",
                where=host.name,
                hint="--take-over makes it leave that swarm, with all that runs on it, and join this one",
            )


def _is_elsewhere(found: HostFacts, state: SwarmState) -> bool:
    """Whether the host is in a swarm that is not this one."""
    swarm = found.swarm
    if not swarm.is_member:
        return False
    if swarm.cluster_id:
        return swarm.cluster_id != state.cluster_id
    return swarm.node_id not in {node.id for node in state.nodes}


def _engine_actions(host: Host, found: HostFacts) -> list[Action]:
    if found.engine_version:
        return []
    packages = []
    if not found.has_engine:
        packages.append("docker.io")
    if not found.has_cli:
        packages.append("docker-cli")
    return [InstallEngine(host.name, tuple(packages))]


def _swarm_actions(host: Host, found: HostFacts, state: SwarmState, is_founder: bool) -> list[Action]:
    elsewhere = _is_elsewhere(found, state)
    if found.swarm.is_member and not elsewhere:
        return []
    leave: list[Action] = [LeaveOther(host.name)] if elsewhere else []
    if is_founder:
        return [*leave, InitSwarm(host.name, host.private_address)]
    return [*leave, JoinSwarm(host.name, host.role, host.private_address)]


def _node_actions(host: Host, found: HostFacts, state: SwarmState) -> list[Action]:
    wanted = {**host.labels, HOST_LABEL: host.name}
    dead: list[Action] = [
        ForgetNode(host.name, node.id)
        for node in state.nodes
        if node.name == host.name and node.id != found.swarm.node_id and node.state == "down"
    ]
    node = next((node for node in state.nodes if node.id and node.id == found.swarm.node_id), None)
    if node is None:
        return [*dead, UpdateNode(host.name, wanted)]
    missing = {key: value for key, value in wanted.items() if node.labels.get(key) != value}
    role = host.role.value if node.role != host.role else None
    return [*dead, UpdateNode(host.name, missing, role)] if missing or role else dead


def free_subnet(taken: Sequence[IPv4Network]) -> IPv4Network:
    """The first of EDGE_SUBNETS that overlaps none of `taken`; raises UsageError where none is free."""
    for subnet in EDGE_SUBNETS:
        if not any(subnet.overlaps(other) for other in taken):
            return subnet
    raise UsageError(
        f"no subnet is free for the network {EDGE_NETWORK}: tried {', '.join(map(str, EDGE_SUBNETS))}",
        hint=f"make it yourself: docker network create -d overlay --subnet A.B.C.0/20 {EDGE_NETWORK}",
    )
