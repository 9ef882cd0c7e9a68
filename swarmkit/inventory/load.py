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

import ipaddress
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from swarmkit.errors import SwarmkitError, UsageError, raise_all
from swarmkit.interpolate import interpolate
from swarmkit.inventory.logins import Logins, Said
from swarmkit.inventory.models import Gateway, Host, Inventory, Login, Role
from swarmkit.inventory.settings import EngineFile, SwarmFile
from swarmkit.inventory.sshconfig import SshConfig
from swarmkit.yamlfile import Loc, Model, YamlFile, read, validated


def _path_text(value: str) -> str:
    if re.search(r"[\x00-\x1f]", value):
        raise ValueError("a path has no control characters")
    try:
        Path(value).expanduser()
    except RuntimeError:
        raise ValueError(f'there is no user whose home "{value}" could be in') from None
    return value


def _ip(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError(f'expected an IP address, got "{value}"') from None


def _label(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


# A machine's name is its hostname's form (RFC 1123): it is used as one in logs and node names.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9_.-]{0,62})$")]
Address = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9:][A-Za-z0-9:._-]*$", max_length=253)]
IpAddress = Annotated[
    str,
    AfterValidator(_ip),
    WithJsonSchema({"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}),
]
User = Annotated[str, StringConstraints(pattern=r"^[^\s\x00-\x1f\x7f-][^\s\x00-\x1f\x7f]*$")]
Port = Annotated[int, Field(ge=1, le=65535)]
FilePath = Annotated[str, AfterValidator(_path_text)]
Label = Annotated[
    str,
    BeforeValidator(_label, json_schema_input_type=str | int | float | bool),
]


class LoginFile(Model):
    """What a machine may say about how to reach it; what it leaves out comes from `defaults`."""

    user: User | None = Field(default=None, description="Who logs in: root, or a user who may use sudo.")
    port: Port | None = Field(default=None, description="The port of the SSH server; 22 by default.")
    key: FilePath | None = Field(
        default=None,
        description="The private SSH key, relative to this file. Without it: ssh_config, agent, ~/.ssh.",
    )
    gateway: str | None = Field(
        default=None,
        description="The machine to jump through: an entry of `gateways:` or another node. "
        "Null for none, whatever the defaults and ssh_config say.",
    )


class GatewayFile(LoginFile):
    """A machine that others are reached through and that is no node itself."""

    name: Name = Field(description="What it is called here.")
    address: Address = Field(
        description="Where SSH connects: a name, an IP address, or a Host of ssh_config."
    )


class HostFile(GatewayFile):
    """A machine that is to be a node of the swarm."""

    connection: Literal["ssh", "local"] = Field(
        default="ssh",
        description="`local` for the machine that swarmkit itself runs on: it is worked on without SSH.",
    )
    private_address: IpAddress | None = Field(
        default=None,
        description="Its IP address on the network that all nodes share; else `address` is taken.",
    )
    labels: dict[str, Label] = Field(
        default={}, description="Labels of the node, for the placement of services."
    )
    availability: Literal["active", "pause", "drain"] | None = Field(
        default=None, description="The node's availability; left to `swarmkit node` if not said."
    )


class DefaultsFile(LoginFile):
    """What holds for every machine that does not say otherwise."""

    labels: dict[str, Label] = Field(default={}, description="Labels that every node has.")


class InventoryFile(Model):
    """The machines of a cluster, and how to reach them."""

    @model_validator(mode="before")
    @classmethod
    def _empty_is_absent(cls, data: object) -> object:
        # `workers:` with all its entries commented out is no mistake.
        if isinstance(data, dict):
            return {key: value for key, value in data.items() if value is not None}
        return data

    cluster: Name = Field(default="swarm", description="The cluster's name, in every message.")
    known_hosts: FilePath | None = Field(
        default=None, description="A file of host keys beside ~/.ssh/known_hosts, relative to this file."
    )
    entry: Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+$")] | None = Field(
        default=None,
        description="The URL by which users reach the load balancer, if not port 8080 of the first manager.",
    )
    defaults: DefaultsFile = Field(
        default_factory=DefaultsFile, description="What machines have that say nothing else."
    )
    engine: EngineFile = Field(default_factory=EngineFile, description="How every Docker Engine is set.")
    swarm: SwarmFile = Field(default_factory=SwarmFile, description="How the swarm is made.")
    gateways: list[GatewayFile] = Field(
        default=[], description="Machines to jump through, which are no nodes."
    )
    managers: list[HostFile] = Field(
        default=[], description="The managers, at least one; the first forms the swarm."
    )
    workers: list[HostFile] = Field(default=[], description="The workers.")


def load(
    path: Path, *, ssh_config: SshConfig | None = None, environment: Mapping[str, str] = os.environ
) -> Inventory:
    """Read and check an inventory.

    `ssh_config` is the user's own by default; variables are filled in from `environment`. Raises
    UsageError (or Problems, with every mistake found) where the file cannot be used.
    """
    return build(read(path), path, ssh_config=ssh_config, environment=environment)


def build(
    file: YamlFile,
    path: Path,
    *,
    ssh_config: SshConfig | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Inventory:
    """As `load`, for what was read from the file at `path`, or is to be written to it."""
    if file.data is None:
        raise UsageError("the inventory is empty", where=file.name, hint=_EXAMPLE_HINT)
    file = filled(file, environment)
    raw = validated(file, InventoryFile)
    base = path.resolve().parent
    logins = Logins(SshConfig() if ssh_config is None else ssh_config)
    errors: list[SwarmkitError] = []
    gateways: list[tuple[Loc, Gateway]] = []
    for index, gateway in enumerate(raw.gateways):
        gateways.append((("gateways", index), _gateway(gateway, raw, base, logins)))
    hosts: list[tuple[Loc, Host]] = []
    for section, role, entries in (
        ("managers", Role.MANAGER, raw.managers),
        ("workers", Role.WORKER, raw.workers),
    ):
        for index, entry in enumerate(entries):
            hosts.append(((section, index), _host(entry, role, raw, base, logins)))
    same = logins.merged([machine for _, machine in [*gateways, *hosts]])
    gateways = [
        (loc, replace(one, gateway=same.get(one.gateway or "", one.gateway))) for loc, one in gateways
    ]
    hosts = [(loc, replace(one, gateway=same.get(one.gateway or "", one.gateway))) for loc, one in hosts]
    if not raw.managers:
        errors.append(file.error(("managers",), "at least one manager is needed", _EXAMPLE_HINT))
    errors += _repeated(file, [*gateways, *hosts], hosts)
    errors += _bad_gateways(file, [*gateways, *hosts], logins.jumps.values())
    errors += _bad_keys(file, [*gateways, *hosts])
    errors += _bad_locals(file, raw)
    raise_all(errors)
    return Inventory(
        cluster=raw.cluster,
        hosts=tuple(host for _, host in hosts),
        gateways=(*(gateway for _, gateway in gateways), *logins.jumps.values()),
        known_hosts=_path(raw.known_hosts, base),
        entry=raw.entry,
        source=path,
        engine=raw.engine.daemon(),
        swarm=raw.swarm.settings(),
    )


def filled(file: YamlFile, environment: Mapping[str, str]) -> YamlFile:
    """The file with its variables filled in; raises for every one that has no value."""
    done = interpolate(file, environment, required=True)
    raise_all(list(done.errors.values()))
    return done.file


_EXAMPLE_HINT = "see inventories/three-vms.yml for one to start from"


def _path(value: str | None, base: Path) -> Path | None:
    return base / Path(value).expanduser() if value else None


def _said(entry: LoginFile, raw: InventoryFile, base: Path, *, gateway: str | None) -> Said:
    return Said(
        user=entry.user or raw.defaults.user,
        port=entry.port or raw.defaults.port,
        key=_path(entry.key or raw.defaults.key, base),
        gateway=gateway,
        direct="gateway" in entry.model_fields_set and not entry.gateway,
    )


def _gateway(entry: GatewayFile, raw: InventoryFile, base: Path, logins: Logins) -> Gateway:
    # A gateway is reached directly unless it says otherwise itself: the default gateway is for nodes.
    login = logins.login(entry.name, entry.address, _said(entry, raw, base, gateway=entry.gateway or None))
    return Gateway(**vars(login))


def _host(entry: HostFile, role: Role, raw: InventoryFile, base: Path, logins: Logins) -> Host:
    is_local = entry.connection == "local"
    explicit = "gateway" in entry.model_fields_set
    gateway = entry.gateway if explicit else raw.defaults.gateway
    said = _said(entry, raw, base, gateway=None if is_local or gateway == entry.name else gateway or None)
    login: dict[str, Any] = vars(
        logins.login(entry.name, entry.address, replace(said, direct=said.direct or is_local))
    )
    return Host(
        **{**login, "is_local": is_local},
        role=role,
        private_address=entry.private_address or login["address"],
        labels={**raw.defaults.labels, **entry.labels},
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


def _bad_gateways(
    file: YamlFile, machines: list[tuple[Loc, Login]], jumps: Iterable[Login]
) -> Iterator[SwarmkitError]:
    by_name = {machine.name: machine for machine in [*(machine for _, machine in machines), *jumps]}
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
        if not stat.S_ISREG(mode):
            yield file.error(at, f"the SSH key {machine.key} is not a file")
        # As OpenSSH does: a private key that others can read is no longer private.
        elif mode & 0o077 and machine.key.suffix != ".pub":
            yield file.error(
                at, f"the SSH key {machine.key} can be read by others", f"chmod 600 {machine.key}"
            )


def _bad_locals(file: YamlFile, raw: InventoryFile) -> Iterator[SwarmkitError]:
    """`connection: local` is one machine, reached by nothing."""
    entries = [(("managers", index), entry) for index, entry in enumerate(raw.managers)]
    entries += [(("workers", index), entry) for index, entry in enumerate(raw.workers)]
    local = [(loc, entry) for loc, entry in entries if entry.connection == "local"]
    for loc, entry in local:
        for key in ("user", "port", "key", "gateway"):
            if getattr(entry, key) is not None:
                yield file.error((*loc, key), "has no meaning with `connection: local`, which needs no SSH")
    for loc, _ in local[1:]:
        yield file.error((*loc, "connection"), f"{_dotted(local[0][0])} is this machine already")
