"""What templates may know of the cluster that their stack is for: its nodes, and what they have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from swarmkit.names import RESERVED_PREFIX
from swarmkit.swarm import Node

_NANO = 1_000_000_000


@dataclass(frozen=True)
class NodeFacts:
    """A node: `cpus` in CPUs, `memory` in bytes, `labels` without swarmkit's own.

    `available` says whether it takes tasks now: it is ready, and neither drained nor paused.
    """

    name: str
    role: str
    address: str
    labels: Mapping[str, str]
    cpus: int | float
    memory: int
    available: bool


@dataclass(frozen=True)
class Cluster:
    """The swarm's nodes, managers first, then by name."""

    nodes: tuple[NodeFacts, ...]

    @property
    def managers(self) -> tuple[NodeFacts, ...]:
        return tuple(node for node in self.nodes if node.role == "manager")

    @property
    def workers(self) -> tuple[NodeFacts, ...]:
        return tuple(node for node in self.nodes if node.role == "worker")

    @property
    def available(self) -> tuple[NodeFacts, ...]:
        """The nodes that take tasks now."""
        return tuple(node for node in self.nodes if node.available)

    @property
    def cpus(self) -> int | float:
        """CPUs of the available nodes together."""
        return sum(node.cpus for node in self.available)

    @property
    def memory(self) -> int:
        """Bytes of memory of the available nodes together."""
        return sum(node.memory for node in self.available)

    @property
    def labels(self) -> dict[str, list[str]]:
        """The labels that nodes have: the values of each key, sorted."""
        keys = sorted({key for node in self.nodes for key in node.labels})
        return {key: sorted({node.labels[key] for node in self.nodes if key in node.labels}) for key in keys}

    @classmethod
    def of(cls, nodes: Iterable[Node]) -> Cluster:
        """The facts of the nodes that a swarm has (`swarm.nodes`)."""
        return cls(tuple(_facts(node) for node in nodes))


def _facts(node: Node) -> NodeFacts:
    resources = node.raw["Description"].get("Resources") or {}
    cpus = resources.get("NanoCPUs", 0) / _NANO
    return NodeFacts(
        name=node.name,
        role=node.role,
        address=node.address,
        labels={key: value for key, value in node.labels.items() if not key.startswith(RESERVED_PREFIX)},
        cpus=int(cpus) if cpus.is_integer() else cpus,
        memory=resources.get("MemoryBytes", 0),
        available=node.is_ready and node.availability == "active",
    )
