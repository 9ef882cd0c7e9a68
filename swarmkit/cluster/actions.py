"""The actions that a plan for a cluster is made of: what is done, to which host, in which phase."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from swarmkit.cluster.ports import GOSSIP_PORT
from swarmkit.images.trust import TrustAction
from swarmkit.names import CLUSTER_LABEL


class Phase(StrEnum):
    """The stages of changing a cluster, in their order."""

    ENGINE = "engine"
    SWARM = "swarm"
    TRUST = "registry trust"
    FORGET = "dead nodes"
    REJOIN = "leave to join again"
    JOIN = "join"
    NODES = "nodes"
    NETWORK = "network"
    RESTART = "engine restart"
    LEAVE = "leave"


@dataclass(frozen=True)
class Action(ABC):
    """One thing to do, on one host (or, on a manager, to the swarm)."""

    host: str

    @property
    @abstractmethod
    def phase(self) -> Phase:
        """The stage that it belongs to."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What is done, in the imperative."""


@dataclass(frozen=True)
class InstallEngine(Action):
    """Install and start what is missing of the engine and its command."""

    packages: tuple[str, ...]
    phase = Phase.ENGINE

    @property
    def title(self) -> str:
        return f"install {' and '.join(self.packages)}" if self.packages else "start the Docker Engine"


@dataclass(frozen=True)
class ConfigureEngine(Action):
    """Write daemon.json, whose `keys` change; `then` is how the engine comes to know.

    `start`: it reads the file when it starts, which is yet to come. `reload`: it can take them as it
    runs. `restart`: now, for it is in no swarm; a node's engine is left to RestartEngine.
    """

    keys: tuple[str, ...]
    content: str = field(repr=False)
    then: Literal["start", "reload", "restart"]
    phase = Phase.ENGINE

    @property
    def title(self) -> str:
        how = {"reload": ", and reload the engine", "restart": ", and restart the engine"}
        return f"set {', '.join(self.keys)} in daemon.json{how.get(self.then, '')}"


@dataclass(frozen=True)
class ReleaseGossip(Action):
    """Restart an engine that runs nothing, for it keeps the gossip port of a swarm that it has left."""

    phase = Phase.ENGINE
    title = f"restart the engine, which keeps port {GOSSIP_PORT} of a swarm that it has left"


@dataclass(frozen=True)
class LeaveOther(Action):
    """Take the host out of a swarm that is not this one, or that it can no longer be a node of."""

    reason: str = "the other swarm"
    phase = Phase.JOIN

    @property
    def title(self) -> str:
        return f"leave {self.reason}"


@dataclass(frozen=True)
class LeaveFirst(LeaveOther):
    """The same, for the machine on which the swarm is to be made."""

    phase = Phase.SWARM


@dataclass(frozen=True)
class InitSwarm(Action):
    """Make the swarm, with this host as its first manager; `settings` as the Engine API takes them."""

    address: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    phase = Phase.SWARM

    @property
    def title(self) -> str:
        return f"initialise the swarm on {self.address}"


@dataclass(frozen=True)
class MarkSwarm(Action):
    """Write into the swarm which inventory's it is."""

    cluster: str
    phase = Phase.SWARM

    @property
    def title(self) -> str:
        return f"mark the swarm as {CLUSTER_LABEL}={self.cluster}"


@dataclass(frozen=True)
class Trust(Action):
    """Let the host use the cluster's registry."""

    step: TrustAction
    phase = Phase.TRUST

    @property
    def title(self) -> str:
        return self.step.text


@dataclass(frozen=True)
class ForgetNode(Action):
    """Strike a dead node off the swarm's list whose machine has come back as another node."""

    node_id: str
    phase = Phase.FORGET

    @property
    def title(self) -> str:
        return f"forget the dead node {self.node_id} that it was before"


@dataclass(frozen=True)
class JoinSwarm(Action):
    """Make the host a node of the swarm."""

    role: str
    address: str
    phase = Phase.JOIN

    @property
    def title(self) -> str:
        return f"join the swarm as {self.role}"


@dataclass(frozen=True)
class UpdateNode(Action):
    """Give the host's node its role, labels (`unwanted` are the keys taken away) and availability."""

    labels: Mapping[str, str] = field(default_factory=dict)
    role: str | None = None
    availability: str | None = None
    unwanted: tuple[str, ...] = ()
    phase = Phase.NODES

    @property
    def title(self) -> str:
        shown = " ".join(f"{key}={value}" for key, value in sorted(self.labels.items()))
        parts = (
            f"make it a {self.role}" if self.role else "",
            f"label {shown}" if shown else "",
            f"remove the label {' '.join(self.unwanted)}" if self.unwanted else "",
            f"set its availability to {self.availability}" if self.availability else "",
        )
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True)
class CreateNetwork(Action):
    """Make the overlay network that joins the balancer and the services behind it.

    `mtu` is that of the machines' own network: the driver takes off what VXLAN needs (moby, overlay).
    """

    name: str
    subnet: str
    mtu: int | None = None
    phase = Phase.NETWORK

    @property
    def title(self) -> str:
        mtu = f", MTU {self.mtu}" if self.mtu else ""
        return f"create the overlay network {self.name} ({self.subnet}{mtu})"


@dataclass(frozen=True)
class RestartEngine(Action):
    """Restart the engine of a node of the swarm; where it can be, it is drained meanwhile.

    `keys` of its daemon.json change before that, to `content`: with no file that keeps the engine of the
    first from starting are the others left. `availability` is what the node has then: also after a
    restart that was cut off.
    """

    availability: str
    drained: bool
    keys: tuple[str, ...] = ()
    content: str = field(default="", repr=False)
    phase = Phase.RESTART

    @property
    def title(self) -> str:
        changed = f"set {', '.join(self.keys)} in daemon.json, and " if self.keys else ""
        return f"{changed}restart the engine{', drained meanwhile' if self.drained else ''}"


@dataclass(frozen=True)
class Departure(Action):
    """A step by which a node leaves; `node_id` is the node, and `host` the name it is known by.

    A node that `rejoins` does so before others join, one that goes for good at the end.
    """

    node_id: str
    rejoins: bool = False

    @property
    def phase(self) -> Phase:
        return Phase.REJOIN if self.rejoins else Phase.LEAVE


@dataclass(frozen=True)
class Drain(Departure):
    """Move its tasks to other nodes. With `force` what cannot be moved in time goes down with it.

    `had` is the availability that it gets back where that fails.
    """

    force: bool = False
    had: str = "active"
    title = "drain"


@dataclass(frozen=True)
class Demote(Departure):
    """Make it a worker: a manager may not leave."""

    title = "make it a worker"


@dataclass(frozen=True)
class LeaveSwarm(Departure):
    """Let the machine leave, and take the registry's certificates off it."""

    title = "leave the swarm"


@dataclass(frozen=True)
class StrikeOff(Departure):
    """Remove the node from the swarm's list."""

    title = "strike it off the swarm's list"
