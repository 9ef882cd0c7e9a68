"""What an inventory says of engines and of the swarm itself, as it stands in the file."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from swarmkit.inventory.models import DATA_PATH_PORT, SwarmSettings
from swarmkit.yamlfile import Model


class PoolFile(Model):
    """A pool of addresses for the local bridges of each engine."""

    base: IPv4Network = Field(description="The pool, such as 172.30.0.0/16.")
    size: Annotated[int, Field(ge=8, le=30)] = Field(
        default=24, description="The prefix length of each network that is cut from it."
    )


class LogFile(Model):
    """Where containers' output goes, and how much of it stays."""

    driver: str = Field(default="local", description="Docker's log driver.")
    max_size: Annotated[str, StringConstraints(pattern=r"^\d+[kmg]$")] | None = Field(
        default=None, description="The size at which a log file is rotated, such as 10m."
    )
    max_file: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="How many rotated files are kept."
    )


class EngineFile(Model):
    """What every machine's Docker Engine is to be set to; merged into its daemon.json."""

    log: LogFile | None = Field(default=None, description="Rotation of containers' logs.")
    registry_mirrors: list[Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$")]] | None = Field(
        default=None, description="Mirrors of Docker Hub."
    )
    address_pools: list[PoolFile] | None = Field(
        default=None, description="Where local bridges get their addresses."
    )
    mtu: Annotated[int, Field(ge=576, le=9216)] | None = Field(
        default=None,
        description="The MTU of the machines' network, for local bridges and for swarmkit's own overlay "
        "network (which takes off what VXLAN needs).",
    )
    settings: dict[str, Any] = Field(default={}, description="Any other key of daemon.json.")

    def daemon(self) -> dict[str, Any]:
        """As keys of the engine's daemon.json (docs.docker.com, dockerd)."""
        keys = dict(self.settings)
        if self.log is not None:
            keys["log-driver"] = self.log.driver
            options = {"max-size": self.log.max_size, "max-file": self.log.max_file}
            keys["log-opts"] = {key: str(value) for key, value in options.items() if value is not None}
        if self.registry_mirrors is not None:
            keys["registry-mirrors"] = self.registry_mirrors
        if self.address_pools is not None:
            keys["default-address-pools"] = [
                {"base": str(pool.base), "size": pool.size} for pool in self.address_pools
            ]
        if self.mtu is not None:
            keys["mtu"] = self.mtu
        return keys


class SwarmFile(Model):
    """How the swarm is made; all but `spread` is settled when it is formed."""

    data_path_port: Annotated[int, Field(ge=1024, le=49151)] = Field(
        default=DATA_PATH_PORT, description="The UDP port of overlay traffic."
    )
    address_pools: list[IPv4Network] = Field(
        default=[], description="Where overlay networks get their addresses, if not from Swarm's 10.0.0.0/8."
    )
    subnet_size: Annotated[int, Field(ge=8, le=29)] = Field(
        default=24, description="The prefix length of each overlay network."
    )
    edge_subnet: IPv4Network | None = Field(
        default=None, description="The subnet of the load balancer's network; one that is free by default."
    )
    spread: str = Field(
        default="", description="The label that tells which machines fail together, such as zone."
    )

    def settings(self) -> SwarmSettings:
        """As the rest of swarmkit takes them."""
        return SwarmSettings(
            self.data_path_port, tuple(self.address_pools), self.subnet_size, self.edge_subnet, self.spread
        )
