"""What a lab is to become: names, addresses and ports. Nothing here touches the machine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from itertools import islice

from swarmkit.errors import OperationFailed, UsageError
from swarmkit.inventory import Role
from swarmkit.lab.models import Lab, Node, Size, checked_release

DEFAULT_NODES = 3
MAX_NODES = 100

# Below the ports that systems give to outgoing connections, and off those that Vagrant forwards.
FIRST_SSH_PORT = 22001
FIRST_BALANCER_PORT = 8080
_LAST_PORT = 65535

# The first node's place in the subnet; those before are for the bridge and for what comes.
_FIRST_HOST = 11

# Where labs take their subnets, by preference: ranges that neither an engine's own address pools
# (172.17.0.0/12 upwards, 192.168.0.0/16) nor Swarm's (10.0.0.0/8) reach, since nodes run engines and
# swarms of their own. 172.16.0.0/16 is private (RFC 1918), 198.18.0.0/15 is for tests (RFC 2544).
_RANGES = (IPv4Network("172.16.0.0/16"), IPv4Network("198.18.0.0/15"))
_SUBNET_PREFIX = 24


def wanted_size(
    lab: Lab | None, nodes: int | None, managers: int | None, bare: bool | None, release: str | None = None
) -> Size:
    """What the lab is to have, from what exists and what the user asks for (None: no wish).

    Raises UsageError where the two cannot be had together: labs grow by workers and never shrink.
    """
    if lab is None:
        managers = 1 if managers is None else managers
        nodes = max(DEFAULT_NODES, managers) if nodes is None else nodes
        size = Size(nodes, managers, bool(bare), checked_release(release))
    else:
        size = _grown(lab, nodes, managers, bare, release)
    if size.managers < 1:
        raise UsageError("a lab needs at least one manager")
    if size.managers > size.nodes:
        raise UsageError(f"{size.managers} managers do not fit in {size.nodes} nodes")
    if size.nodes > MAX_NODES:
        raise UsageError(f"a lab has at most {MAX_NODES} nodes")
    return size


def _grown(lab: Lab, nodes: int | None, managers: int | None, bare: bool | None, release: str | None) -> Size:
    existing = max(lab.begun.nodes, len(lab.nodes))
    if nodes is not None and nodes < existing:
        raise UsageError(
            f"lab {lab.name} has {existing} nodes already",
            hint="make nodes leave with `swarmkit leave NODE`; "
            f"a smaller lab is a new one: swarmkit lab down --name {lab.name}",
        )
    if managers is not None and managers != lab.begun.managers:
        raise UsageError(
            f"lab {lab.name} was made with --managers {lab.begun.managers}",
            hint="change roles with `swarmkit node promote` and `swarmkit node demote`",
        )
    if bare is not None and bare != lab.begun.bare:
        made = "without an engine (--bare)" if lab.begun.bare else "with an engine on its nodes"
        raise UsageError(
            f"lab {lab.name} was made {made}",
            hint=f"make another with --name, or this one anew: swarmkit lab down --name {lab.name}",
        )
    release = checked_release(release or lab.begun.release)
    return Size(nodes or existing, lab.begun.managers, lab.begun.bare, release)


def node_names(size: Size) -> list[tuple[str, Role]]:
    """The names and roles of all nodes: m1, m2 … and wn1, wn2 …"""
    managers = [(f"m{i + 1}", Role.MANAGER) for i in range(size.managers)]
    workers = [(f"wn{i + 1}", Role.WORKER) for i in range(size.nodes - size.managers)]
    return managers + workers


def missing_nodes(lab: Lab, size: Size, subnet: IPv4Network, ports: Ports) -> list[Node]:
    """The nodes that the lab lacks, with the addresses and ports they shall have."""
    existing = {state.node.name for state in lab.nodes}
    addresses = _free_addresses(subnet, {state.node.address for state in lab.nodes})
    return [
        Node(
            name=name,
            role=role,
            address=next(addresses),
            ssh_port=ports.take(FIRST_SSH_PORT),
            balancer_port=ports.take(FIRST_BALANCER_PORT) if name == "m1" else None,
        )
        for name, role in node_names(size)
        if name not in existing
    ]


def with_other_ports(node: Node, ports: Ports) -> Node:
    """The node on ports that it has not been tried on."""
    balancer = None if node.balancer_port is None else ports.take(FIRST_BALANCER_PORT)
    return replace(node, ssh_port=ports.take(FIRST_SSH_PORT), balancer_port=balancer)


def _free_addresses(subnet: IPv4Network, taken: set[str]) -> Iterator[str]:
    for host in islice(subnet.hosts(), _FIRST_HOST - 1, None):
        if str(host) not in taken:
            yield str(host)


def free_subnet(taken: Iterable[IPv4Network]) -> IPv4Network:
    """The first subnet that overlaps nothing in `taken` (the machine's routes, the engine's networks)."""
    known = list(taken)
    for candidates in _RANGES:
        for subnet in candidates.subnets(new_prefix=_SUBNET_PREFIX):
            if not any(subnet.overlaps(other) for other in known):
                return subnet
    ranges = " and ".join(str(each) for each in _RANGES)
    raise OperationFailed(
        f"no subnet is free for the lab: the machine's routes and networks cover all of {ranges}",
        hint="remove networks that nothing uses: docker network prune",
    )


def parse_routes(table: str) -> list[IPv4Network]:
    """The destinations in Linux's /proc/net/route, less the default.

    Addresses and masks are hexadecimal there, the least byte first (proc_pid_net(5)).
    """
    routes = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        address, mask = (int.from_bytes(bytes.fromhex(fields[i]), "little") for i in (1, 7))
        if mask:
            routes.append(IPv4Network((IPv4Address(address), bin(mask).count("1"))))
    return routes


class Ports:
    """Hands out ports, each once, that are not reserved and that `is_free`. Safe to share by threads."""

    def __init__(self, reserved: Iterable[int], is_free: Callable[[int], bool]) -> None:
        self._taken = set(reserved)
        self._is_free = is_free
        self._taking = threading.Lock()

    def take(self, first: int) -> int:
        """The lowest free port from `first` on; raises OperationFailed where there is none."""
        with self._taking:
            for port in range(first, _LAST_PORT + 1):
                if port not in self._taken and self._is_free(port):
                    self._taken.add(port)
                    return port
        raise OperationFailed(f"no port from {first} on is free on 127.0.0.1")
