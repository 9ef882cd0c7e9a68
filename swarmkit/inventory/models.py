"""The inventory as typed values, after defaults have been filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

DATA_PATH_PORT = 4789


class Role(StrEnum):
    """What a node is in the swarm."""

    MANAGER = "manager"
    WORKER = "worker"


@dataclass(frozen=True)
class Login:
    """How to log in on a machine over SSH.

    `address` is where SSH connects; `gateway` names the machine to jump through, if any. `key` is the one
    that the inventory names, and then the only one; else there are the `identities` of the user's
    ssh_config, and with `only_identities` no others. `proxy_command` is the shell command that
    ssh_config connects with, its `%h`, `%p` and `%r` filled in. A machine that `is_local` is this one.
    """

    name: str
    address: str
    user: str
    port: int = 22
    key: Path | None = None
    gateway: str | None = None
    identities: tuple[Path, ...] = field(default=(), kw_only=True)
    only_identities: bool = field(default=False, kw_only=True)
    proxy_command: str | None = field(default=None, kw_only=True)
    is_local: bool = field(default=False, kw_only=True)

    @property
    def keys(self) -> tuple[Path, ...]:
        """The keys that were named, in the order to be tried."""
        return (self.key,) if self.key else self.identities

    @property
    def destination(self) -> str:
        """For messages: `USER@ADDRESS:PORT`."""
        if self.is_local:
            return "this machine"
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.user}@{address}:{self.port}"


@dataclass(frozen=True)
class Gateway(Login):
    """A machine that others are reached through and that is no node itself."""


@dataclass(frozen=True)
class Host(Login):
    """A machine that is to be a node of the swarm.

    `private_address` is the one that the swarm's own traffic uses, on a network all nodes share.
    `availability` is active, pause or drain, and empty where the inventory leaves it to the operator.
    """

    role: Role = Role.WORKER
    private_address: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    availability: str = ""

    @property
    def is_manager(self) -> bool:
        return self.role is Role.MANAGER


@dataclass(frozen=True)
class SwarmSettings:
    """How the swarm is made. All but `spread` is settled when it is formed.

    `data_path_port` is the UDP port of overlay traffic, `address_pools` the pools of its overlay networks
    (cut into subnets of /`subnet_size`), `edge_subnet` that of the balancer's network (chosen where
    None). `spread` is the label that tells machines which fail together (a zone, a rack).
    """

    data_path_port: int = DATA_PATH_PORT
    address_pools: tuple[IPv4Network, ...] = ()
    subnet_size: int = 24
    edge_subnet: IPv4Network | None = None
    spread: str = ""


@dataclass(frozen=True)
class Inventory:
    """A cluster's machines, managers first, each in the file's order.

    `entry` is the URL by which users reach the load balancer, where that is not port 8080 of a manager.
    `engine` are the keys that every engine's daemon.json must have.
    """

    cluster: str
    hosts: tuple[Host, ...]
    gateways: tuple[Gateway, ...] = ()
    known_hosts: Path | None = None
    entry: str | None = None
    source: Path | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)
    swarm: SwarmSettings = SwarmSettings()

    @property
    def managers(self) -> tuple[Host, ...]:
        return tuple(host for host in self.hosts if host.is_manager)

    def login(self, name: str) -> Login:
        """The machine called `name`, a node or a gateway; KeyError where there is none."""
        for machine in (*self.hosts, *self.gateways):
            if machine.name == name:
                return machine
        raise KeyError(name)

    def host(self, name: str) -> Host | None:
        """The node called `name`, or None."""
        return next((host for host in self.hosts if host.name == name), None)
