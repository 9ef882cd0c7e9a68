"""Which nodes can take a service's tasks, and what keeps the others from it.

The rules are those of Swarm's scheduler (moby/swarmkit, manager/scheduler/filter.go and nodeinfo.go):
ready and active nodes that meet the constraints and have the platform; on each, what tasks reserve
(CPU, memory, generic resources) out of what the node has, one task a published port in `host` mode, and
at most so many tasks of the service as `max_replicas_per_node` says.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from swarmkit.swarm import SECOND, Node, Service, Task, is_placeable, meets, split_constraint

CPU = "NanoCPUs"
MEMORY = "MemoryBytes"
UNLIMITED = sys.maxsize

# Go's names for architectures, beside those of the kernel (moby/swarmkit, normalizeArch).
_ARCHITECTURES: Mapping[str, str] = {"x86_64": "amd64", "aarch64": "arm64"}
_LEAVING = frozenset({"shutdown", "remove"})
# A global service's task has its node before it has room there.
_WAITING = frozenset({"new", "allocated", "pending"})
_ENDED = frozenset({"complete", "shutdown", "failed", "rejected", "remove", "orphaned"})


@dataclass(frozen=True)
class Ask:
    """What one task of a service needs: amounts (in the API's units, by resource), and where it may be.

    `ports` are those published in `host` mode, as `8080/tcp`; `most` is how many of the service's tasks
    one node may have.
    """

    amounts: Mapping[str, int] = field(default_factory=dict)
    constraints: Sequence[str] = ()
    platforms: Sequence[tuple[str, str]] = ()
    ports: frozenset[str] = frozenset()
    most: int = UNLIMITED

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Ask:
        """The ask of a service's spec."""
        task = spec["TaskTemplate"]
        placement = task.get("Placement") or {}
        platforms = [
            (str(one.get("OS") or ""), _architecture(one.get("Architecture") or ""))
            for one in placement.get("Platforms") or ()
        ]
        return cls(
            _amounts((task.get("Resources") or {}).get("Reservations") or {}),
            tuple(placement.get("Constraints") or ()),
            tuple(platforms),
            frozenset(published(spec, "host")),
            int(placement.get("MaxReplicas") or 0) or UNLIMITED,
        )

    def allows(self, node: Node) -> bool:
        """Whether its tasks may be on the node, were there room."""
        return is_placeable(node, self.constraints) and self.suits(node)

    def suits(self, node: Node) -> bool:
        """Whether the image is for the node's platform; one that names none is taken to be."""
        platform = node.raw["Description"].get("Platform") or {}
        system, architecture = platform.get("OS", ""), _architecture(platform.get("Architecture", ""))
        return not self.platforms or any(
            one in ("", system) and other in ("", architecture) for one, other in self.platforms
        )


@dataclass(frozen=True)
class Room:
    """What is left on a node: amounts by resource, and by which service each host port is taken."""

    amounts: Mapping[str, int]
    ports: Mapping[str, str] = field(default_factory=dict)

    def takes(self, ask: Ask) -> int:
        """How many tasks with this ask would fit, were they alone; the placement does not matter here."""
        if ask.ports & self.ports.keys():
            return 0
        counts = [max(0, self.amounts.get(what, 0)) // amount for what, amount in ask.amounts.items()]
        return min([ask.most, *counts, *([1] if ask.ports else [])])

    def without(self, ask: Ask, count: int, service: str) -> Room:
        """What is left once it has taken so many tasks with this ask, of the service of that name."""
        if not count:
            return self
        amounts = {what: amount - count * ask.amounts.get(what, 0) for what, amount in self.amounts.items()}
        return Room(amounts, {**self.ports, **dict.fromkeys(ask.ports, service)})


def rooms(nodes: Iterable[Node], tasks: Iterable[Task], services: Iterable[Service]) -> dict[str, Room]:
    """What is left on each node (by id) beside `tasks`; `services` tells whose they are.

    Tasks that are stopping are not counted: they leave their room in a moment. Nor are those that still
    wait for room.
    """
    by_id = {service.id: service for service in services}
    used: dict[str, Counter[str]] = {}
    ports: dict[str, dict[str, str]] = {}
    for task in tasks:
        if task.desired in _LEAVING or task.state in _ENDED | _WAITING or not task.node_id:
            continue
        reserved = (task.raw["Spec"].get("Resources") or {}).get("Reservations") or {}
        used.setdefault(task.node_id, Counter()).update(_amounts(reserved))
        if (service := by_id.get(task.service_id)) is not None:
            ports.setdefault(task.node_id, {}).update(
                dict.fromkeys(published(service.spec, "host"), service.name)
            )
    found = {}
    for node in nodes:
        has = Counter(_amounts(node.raw["Description"].get("Resources") or {}))
        has.subtract(used.get(node.id, Counter()))
        found[node.id] = Room(dict(has), ports.get(node.id, {}))
    return found


def published(spec: Mapping[str, Any], mode: str) -> list[str]:
    """The ports that a service publishes in this mode (`ingress` or `host`), as `8080/tcp`."""
    return [
        f"{port['PublishedPort']}/{port.get('Protocol') or 'tcp'}"
        for port in (spec.get("EndpointSpec") or {}).get("Ports") or ()
        if port.get("PublishedPort") and (port.get("PublishMode") or "ingress") == mode
    ]


def _amounts(resources: Mapping[str, Any]) -> dict[str, int]:
    """Amounts by resource; named generic resources (such as GPUs by their ids) count one each."""
    amounts: Counter[str] = Counter()
    for what in (CPU, MEMORY):
        amounts[what] += resources.get(what) or 0
    for generic in resources.get("GenericResources") or ():
        if discrete := generic.get("DiscreteResourceSpec"):
            amounts[discrete["Kind"]] += discrete.get("Value") or 0
        elif named := generic.get("NamedResourceSpec"):
            amounts[named["Kind"]] += 1
    return {what: amount for what, amount in amounts.items() if amount}


def _architecture(name: str) -> str:
    return _ARCHITECTURES.get(name, name)


# ---------------------------------------------------------------- in words


def megabytes(amount: int) -> str:
    """Bytes as Compose files write them, in powers of 1024: `256 MB`, `1.5 GB`."""
    for unit, name in ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB")):
        if amount >= unit:
            return f"{round(amount / unit, 1):g} {name}"
    return f"{amount} bytes"


def amount_text(what: str, amount: int) -> str:
    """An amount of a resource: `1.5 CPUs`, `256 MB`, `2 gpu`."""
    if what == CPU:
        number = f"{round(amount / SECOND, 2):g}"
        return f"{number} CPU" if number == "1" else f"{number} CPUs"
    return megabytes(amount) if what == MEMORY else f"{amount} {what}"


def obstacles(ask: Ask, nodes: Sequence[Node], left: Mapping[str, Room]) -> list[str]:
    """Why no node takes a task with this ask, each reason with the nodes it holds for.

    Empty where some node should take one, as far as it can be seen here; of a node that is not in `left`
    nothing is said but what rules it out.
    """
    roomy = [node for node in nodes if node.id in left and ask.allows(node)]
    return unmet(ask, nodes) + _crowded(ask, roomy, left)


def unmet(ask: Ask, nodes: Sequence[Node]) -> list[str]:
    """What rules nodes out whatever room they have: constraints, availability, platform."""
    found = []
    for constraint in ask.constraints:
        lacking = sum(not meets(node, constraint) for node in nodes)
        if lacking:
            phrase = _lacks(constraint, lacking > 1)
            found.append(f"{lacking} of {_nodes(len(nodes))} {phrase} (constraint {constraint})")
    matching = [node for node in nodes if all(meets(node, constraint) for constraint in ask.constraints)]
    for node in matching:
        if not node.is_ready:
            found.append(f"{node.name} is {node.state}")
        elif node.availability != "active":
            found.append(f"{node.name} is {'drained' if node.availability == 'drain' else 'paused'}")
        elif not ask.suits(node):
            platform = node.raw["Description"]["Platform"]
            wanted = ", ".join(f"{system}/{architecture}" for system, architecture in ask.platforms)
            found.append(f"{node.name} is {platform['OS']}/{platform['Architecture']}, the image {wanted}")
    return found


def _crowded(ask: Ask, allowed: Sequence[Node], left: Mapping[str, Room]) -> list[str]:
    if any(left[node.id].takes(ask) for node in allowed):
        return []
    found = []
    for port in sorted(ask.ports):
        holders: dict[str, list[str]] = {}
        for node in allowed:
            if port in left[node.id].ports:
                holders.setdefault(left[node.id].ports[port], []).append(node.name)
        for holder, where in holders.items():
            found.append(f"port {port.partition('/')[0]} taken by {holder} on {', '.join(where)}")
    for what, amount in ask.amounts.items():
        short = [node for node in allowed if left[node.id].amounts.get(what, 0) < amount]
        if short:
            found.append(f"a task needs {amount_text(what, amount)}; free: {free_text(what, short, left)}")
    return found


def free_text(what: str, nodes: Iterable[Node], left: Mapping[str, Room]) -> str:
    """What is free of a resource on each node: `wn1 1.5 CPUs, wn2 3 CPUs`."""
    return ", ".join(
        f"{node.name} {amount_text(what, max(0, left[node.id].amounts.get(what, 0)))}" for node in nodes
    )


def _lacks(constraint: str, several: bool) -> str:
    """What a node does that fails a constraint: `lack the label gpu=yes`, `are not manager`."""
    key, wanted, value = split_constraint(constraint)
    have, be = ("have", "are") if several else ("has", "is")
    match key.split(".", 2):
        case ["node" | "engine" as whose, "labels", label]:
            what = f"{'engine ' if whose == 'engine' else ''}label {label}={value}"
            return f"{'lack' if several else 'lacks'} the {what}" if wanted else f"{have} the {what}"
        case ["node", "role"]:
            return f"{be} not {value}" if wanted else f"{be} {value}"
        case ["node", "hostname"]:
            return f"{be} not called {value}" if wanted else f"{be} called {value}"
    return f"{have} another {key}" if wanted else f"{have} this {key}"


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"
