"""Inventory files: read, checked whole, and turned into typed values.

cluster: physics
defaults: {user: debian, key: ~/.ssh/id_ed25519}
gateways:
  - {name: bastion, address: gate.example.org}
managers:
  - {name: m1, address: 203.0.113.5, private_address: 10.0.0.5}
workers:
  - {name: w1, address: 10.0.0.6, gateway: bastion, labels: {disk: ssd}}
"""

from __future__ import annotations

import getpass
import os
import stat
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from swarmkit.errors import SwarmkitError, UsageError, raise_all
from swarmkit.inventory.models import (
    DATA_PATH_PORT,
    Gateway,
    Host,
    Inventory,
    Login,
    Role,
    SwarmSettings,
)
from swarmkit.yamlfile import Loc, Model, YamlFile, read, validated

# A machine's name is its hostname's form (RFC 1123): it is used as one in logs and node names.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9_.-]{0,62})$")]
Address = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9:][A-Za-z0-9:._-]*$", max_length=253)]
Port = Annotated[int, Field(ge=1, le=65535)]
Label = Annotated[str, Field(coerce_numbers_to_str=True)]


class LoginFile(Model):
    """What a machine may say about how to reach it; what it leaves out comes from `defaults`."""

    user: str | None = None
    port: Port | None = None
    key: str | None = None
    gateway: str | None = None


class GatewayFile(LoginFile):
    """An entry under `gateways:`."""

    name: Name
    address: Address


class HostFile(GatewayFile):
    """An entry under `managers:` or `workers:`."""

    private_address: Address | None = None
    labels: dict[str, Label | bool] = {}
    availability: Literal["active", "pause", "drain"] | None = None


class PoolFile(Model):
    """An entry of `engine.address_pools`: networks of bridges, each of /`size`."""

    base: IPv4Network
    size: Annotated[int, Field(ge=8, le=30)] = 24


class LogFile(Model):
    """`engine.log`: where containers' output goes, and how much of it stays (docs.docker.com, local)."""

    driver: str = "local"
    max_size: Annotated[str, StringConstraints(pattern=r"^\d+[kmg]$")] | None = None
    max_file: Annotated[int, Field(ge=1)] | None = None


class EngineFile(Model):
    """`engine:`, what every machine's Docker Engine is to be set to."""

    log: LogFile | None = None
    registry_mirrors: list[Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$")]] | None = None
    address_pools: list[PoolFile] | None = None
    mtu: Annotated[int, Field(ge=576, le=9216)] | None = None
    settings: dict[str, Any] = {}

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
    """`swarm:`, how the swarm is made."""

    data_path_port: Annotated[int, Field(ge=1024, le=49151)] = DATA_PATH_PORT
    address_pools: list[IPv4Network] = []
    subnet_size: Annotated[int, Field(ge=8, le=29)] = 24
    edge_subnet: IPv4Network | None = None
    spread: str = ""

    def settings(self) -> SwarmSettings:
        return SwarmSettings(
            self.data_path_port, tuple(self.address_pools), self.subnet_size, self.edge_subnet, self.spread
        )


class DefaultsFile(LoginFile):
    """What holds for every machine that does not say otherwise."""

    labels: dict[str, Label | bool] = {}


class InventoryFile(Model):
    """A whole inventory file."""

    @model_validator(mode="before")
    @classmethod
    def _empty_is_absent(cls, data: object) -> object:
        # `workers:` with all its entries commented out is no mistake.
        if isinstance(data, dict):
            return {key: value for key, value in data.items() if value is not None}
        return data

    cluster: Name = "swarm"
    known_hosts: str | None = None
    entry: Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+$")] | None = None
    defaults: DefaultsFile = DefaultsFile()
    engine: EngineFile = EngineFile()
    swarm: SwarmFile = SwarmFile()
    gateways: list[GatewayFile] = []
    managers: list[HostFile] = []
    workers: list[HostFile] = []


def load(path: Path) -> Inventory:
    """Read and check an inventory.

    Raises UsageError (or Problems, with every mistake found) where the file cannot be used.
    """
    file = read(path)
    if file.data is None:
        raise UsageError("the inventory is empty", where=file.name, hint=_EXAMPLE_HINT)
    raw = validated(file, InventoryFile)
    base = path.resolve().parent
    errors: list[SwarmkitError] = []
    gateways: list[tuple[Loc, Gateway]] = []
    for index, gateway in enumerate(raw.gateways):
        gateways.append((("gateways", index), _gateway(gateway, raw, base)))
    hosts: list[tuple[Loc, Host]] = []
    for section, role, entries in (
        ("managers", Role.MANAGER, raw.managers),
        ("workers", Role.WORKER, raw.workers),
    ):
        for index, entry in enumerate(entries):
            hosts.append(((section, index), _host(entry, role, raw, base)))
    if not raw.managers:
        errors.append(file.error(("managers",), "at least one manager is needed", _EXAMPLE_HINT))
    errors += _repeated(file, [*gateways, *hosts], hosts)
    errors += _bad_gateways(file, [*gateways, *hosts])
    errors += _bad_keys(file, [*gateways, *hosts])
    raise_all(errors)
    return Inventory(
        cluster=raw.cluster,
        hosts=tuple(host for _, host in hosts),
        gateways=tuple(gateway for _, gateway in gateways),
        known_hosts=_path(raw.known_hosts, base),
        entry=raw.entry,
        source=path,
        engine=raw.engine.daemon(),
        swarm=raw.swarm.settings(),
    )


_EXAMPLE_HINT = "see inventories/three-vms.yml for one to start from"


def _path(value: str | None, base: Path) -> Path | None:
    return base / Path(value).expanduser() if value else None


def _gateway(entry: GatewayFile, raw: InventoryFile, base: Path) -> Gateway:
    # A gateway is reached directly unless it says otherwise itself: the default gateway is for nodes.
    defaults = raw.defaults
    return Gateway(
        name=entry.name,
        address=entry.address,
        user=entry.user or defaults.user or getpass.getuser(),
        port=entry.port or defaults.port or 22,
        key=_path(entry.key or defaults.key, base),
        gateway=entry.gateway,
    )


def _host(entry: HostFile, role: Role, raw: InventoryFile, base: Path) -> Host:
    defaults = raw.defaults
    gateway = entry.gateway or defaults.gateway
    labels = {**defaults.labels, **entry.labels}
    return Host(
        name=entry.name,
        address=entry.address,
        user=entry.user or defaults.user or getpass.getuser(),
        port=entry.port or defaults.port or 22,
        key=_path(entry.key or defaults.key, base),
        gateway=None if gateway == entry.name else gateway,
        role=role,
        private_address=entry.private_address or entry.address,
        labels={
            key: str(value).lower() if isinstance(value, bool) else value for key, value in labels.items()
        },
        availability=entry.availability or "",
    )


def _repeated(
    file: YamlFile, machines: list[tuple[Loc, Login]], hosts: list[tuple[Loc, Host]]
) -> Iterator[SwarmkitError]:
    keys: list[tuple[Loc, str, str, object]] = []
    for loc, machine in machines:
        keys.append((loc, "name", machine.name, machine.name))
        # The same address behind another gateway, or on another port, is another machine.
        keys.append((loc, "address", machine.address, (machine.address, machine.port, machine.gateway)))
    keys += [(loc, "private_address", host.private_address, host.private_address) for loc, host in hosts]
    first: dict[tuple[str, object], Loc] = {}
    for loc, what, shown, key in keys:
        other = first.setdefault((what, key), loc)
        if other != loc:
            yield file.error((*loc, what), f"{shown} is also that of {_dotted(other)}")


def _dotted(loc: Loc) -> str:
    return f"{loc[0]}[{loc[1]}]"


def _bad_gateways(file: YamlFile, machines: list[tuple[Loc, Login]]) -> Iterator[SwarmkitError]:
    by_name = {machine.name: machine for _, machine in machines}
    for loc, machine in machines:
        path = [machine.name]
        step = machine
        while step.gateway is not None:
            if step.gateway not in by_name:
                if step is machine:
                    known = ", ".join(sorted(set(by_name) - {machine.name})) or "none"
                    yield file.error(
                        (*loc, "gateway"),
                        f'no machine is called "{step.gateway}"',
                        f"name an entry of `gateways:` or another node ({known})",
                    )
                break
            path.append(step.gateway)
            if step.gateway in path[:-1]:
                yield file.error((*loc, "gateway"), f"goes in a circle: {' → '.join(path)}")
                break
            step = by_name[step.gateway]


def _bad_keys(file: YamlFile, machines: list[tuple[Loc, Login]]) -> Iterator[SwarmkitError]:
    seen: set[Path] = set()
    for loc, machine in machines:
        if machine.key is None or machine.key in seen:
            continue
        seen.add(machine.key)
        at: Loc = (*loc, "key") if (*loc, "key") in file.positions else ("defaults", "key")
        try:
            mode = machine.key.stat().st_mode
        except OSError as error:
            yield file.error(at, f"the SSH key {machine.key} cannot be read: {os.strerror(error.errno or 0)}")
            continue
        # As OpenSSH does: a private key that others can read is no longer private.
        if stat.S_ISREG(mode) and mode & 0o077:
            yield file.error(
                at, f"the SSH key {machine.key} can be read by others", f"chmod 600 {machine.key}"
            )
