"""A lab as typed values, and the labels that they are kept in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from swarmkit.errors import UsageError
from swarmkit.inventory import Role

# What a node can be: a Debian release, or `sid`, Debian 13 with the Docker Engine of Debian unstable.
RELEASES = ("12", "13", "sid")
DEFAULT_RELEASE = "13"

# On everything that belongs to a lab; the value is the lab's name.
LABEL = "swarmkit.lab"

# On a node's container.
_NODE = "swarmkit.lab.node"
_ROLE = "swarmkit.lab.role"
_ADDRESS = "swarmkit.lab.address"
_SSH_PORT = "swarmkit.lab.ssh-port"
_BALANCER_PORT = "swarmkit.lab.balancer-port"

# On the lab's network: what the lab was begun with.
_NODES = "swarmkit.lab.nodes"
_MANAGERS = "swarmkit.lab.managers"
_BARE = "swarmkit.lab.bare"
_RELEASE = "swarmkit.lab.debian"


@dataclass(frozen=True)
class Node:
    """A node: its fixed address on the lab's network, and its fixed ports on the loopback."""

    name: str
    role: Role
    address: str
    ssh_port: int
    balancer_port: int | None = None

    def labels(self, lab: str) -> dict[str, str]:
        """The labels of the node's container."""
        labels = {
            LABEL: lab,
            _NODE: self.name,
            _ROLE: self.role.value,
            _ADDRESS: self.address,
            _SSH_PORT: str(self.ssh_port),
        }
        if self.balancer_port is not None:
            labels[_BALANCER_PORT] = str(self.balancer_port)
        return labels

    @staticmethod
    def from_labels(labels: Mapping[str, str]) -> Node:
        """The node that a container's labels tell of."""
        balancer = labels.get(_BALANCER_PORT)
        return Node(
            name=labels[_NODE],
            role=Role(labels[_ROLE]),
            address=labels[_ADDRESS],
            ssh_port=int(labels[_SSH_PORT]),
            balancer_port=int(balancer) if balancer else None,
        )


@dataclass(frozen=True)
class Size:
    """What a lab is to have: so many nodes, so many of them managers, with an engine or without.

    `release`: of RELEASES, the one of nodes that are yet to be made.
    """

    nodes: int
    managers: int
    bare: bool
    release: str = DEFAULT_RELEASE

    def labels(self, lab: str) -> dict[str, str]:
        """The labels of the lab's network."""
        return {
            LABEL: lab,
            _NODES: str(self.nodes),
            _MANAGERS: str(self.managers),
            _BARE: str(int(self.bare)),
            _RELEASE: self.release,
        }

    @staticmethod
    def from_labels(labels: Mapping[str, str]) -> Size:
        """The size that a network's labels tell of."""
        release = labels.get(_RELEASE, DEFAULT_RELEASE)
        return Size(int(labels[_NODES]), int(labels[_MANAGERS]), labels[_BARE] == "1", release)


@dataclass(frozen=True)
class NodeState:
    """A node that exists, and whether it runs."""

    node: Node
    running: bool

    @property
    def status(self) -> str:
        return "running" if self.running else "stopped"


@dataclass(frozen=True)
class Lab:
    """A lab as it is. `begun` is what it was first asked to have; it may have fewer nodes, or more."""

    name: str
    begun: Size
    nodes: tuple[NodeState, ...] = ()

    def state(self, node: str) -> NodeState:
        """The node called `node`; raises UsageError, naming those there are."""
        for state in self.nodes:
            if state.node.name == node:
                return state
        names = ", ".join(state.node.name for state in self.nodes) or "none"
        raise UsageError(f'lab {self.name} has no node "{node}"', hint=f"it has: {names}")


_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


def checked_name(name: str) -> str:
    """`name` if a lab can be called that (it becomes part of container, network and folder names)."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f'"{name}" cannot be the name of a lab',
            hint="use small letters, digits and hyphens, 32 characters at most, such as: test-1",
        )
    return name


def checked_release(release: str | None) -> str:
    """`release` if nodes can be made of it, the default for None."""
    if release is None:
        return DEFAULT_RELEASE
    if release not in RELEASES:
        raise UsageError(
            f'there are no nodes of Debian "{release}"', hint=f"there are: {', '.join(RELEASES)}"
        )
    return release


def container_name(lab: str, node: str) -> str:
    return f"swarmkit-{lab}-{node}"


def network_name(lab: str) -> str:
    return f"swarmkit-{lab}"
