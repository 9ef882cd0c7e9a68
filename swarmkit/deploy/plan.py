"""What has to change in a swarm so that it holds a stack: a pure function of the two.

The rules:

- A service is as it should be when it carries the fingerprint of our spec (the label `swarmkit.spec`)
  and every field that we set still has our value in the swarm. The first finds what was taken out of
  the file since, the second what somebody changed by hand.
- The engine adds defaults, leaves out what is empty, sorts, and writes ids for the names of networks:
  none of these is a difference.
- A config cannot change. Its first version is called STACK_key; other content becomes
  STACK_key-<10 digits of its SHA-256>, the services move to it, and versions that no service uses or
  would go back to (`PreviousSpec`) are removed at the end.
- A service cannot turn from replicated to global or back: it is removed and made again.
- A network cannot change either, and what is on it would have to go first: that is an error.
- What is in the swarm and not in the file stays, unless `prune` is set.
- Order: networks, configs, services, then what is removed: services, configs, networks.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from swarmkit.compose.convert import (
    BUILT_IN_NETWORKS,
    CONFIG_NAME_LIMIT,
    DesiredNetwork,
    DesiredService,
    DesiredStack,
    Spec,
)
from swarmkit.errors import OperationFailed, SwarmkitError, raise_all
from swarmkit.names import SPEC_LABEL

Kind = Literal["network", "config", "service"]
Action = Literal["create", "update", "remove"]
# What changes: a name for people → {"from": the present value, "to": ours}; None where there is none.
Fields = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class LiveStack:
    """What the swarm holds of a stack, as the Engine API gives it.

    `services`, `networks` and `configs` are those with the stack's namespace label, from GET /services,
    /networks and /configs (a config's data in base64). `network_ids` maps the names of networks outside
    the stack to their ids; those of `networks` need not be in it.
    """

    services: Sequence[Mapping[str, Any]] = ()
    networks: Sequence[Mapping[str, Any]] = ()
    configs: Sequence[Mapping[str, Any]] = ()
    network_ids: Mapping[str, str] = field(default_factory=dict)

    def network_names(self) -> dict[str, str]:
        """The name of each network by its id."""
        inside = {str(network["Id"]): str(network["Name"]) for network in self.networks}
        return {identity: name for name, identity in self.network_ids.items()} | inside


@dataclass(frozen=True)
class Change:
    """One thing to do.

    `fields` is for people: what changes from what to what. The rest is for the one who does it: `spec` is
    the body to send (None for a removal); `live_id` and `version` are the thing's own in the swarm. A
    service's spec names its configs; `with_config_ids` fills in their ids.
    """

    kind: Kind
    name: str
    action: Action
    fields: Fields = field(default_factory=dict)
    spec: Spec | None = field(default=None, repr=False)
    live_id: str | None = None
    version: int | None = None


def plan_stack(desired: DesiredStack, live: LiveStack, *, prune: bool = False) -> list[Change]:
    """The changes, in order, that make `live` what `desired` says; none where it is that already.

    Raises OperationFailed (or Problems) for a network that would have to change.
    """
    named = with_config_versions(desired, live)
    services = list(_service_changes(named, live))
    if prune:
        services += [_removal("service", service) for service in _orphaned(named, live)]
    in_file = {_base(config.name) for config in desired.configs}
    stale = [
        config
        for config in _unused_configs(named, live, services)
        if prune or _base(_first_name(_name(config))) in in_file
    ]
    return [
        *_network_changes(named, live),
        *_config_changes(named, live),
        *services,
        *(_removal("config", config) for config in stale),
        *(_network_removals(named, live) if prune else ()),
    ]


def orphans(desired: DesiredStack, live: LiveStack) -> list[str]:
    """The names of services that are in the swarm and no longer in the file."""
    return [_name(service) for service in _orphaned(desired, live)]


def with_config_ids(spec: Spec, ids: Mapping[str, str]) -> Spec:
    """A service's spec with the id of each config it names, as POST /services/create demands.

    `ids` maps the names of configs to their ids. Raises KeyError for one that is not there.
    """
    return _with_configs(spec, lambda config: {**config, "ConfigID": ids[config["ConfigName"]]})


def config_version(name: str, data: bytes, live: Mapping[str, bytes]) -> str:
    """The name under which `data` is, or will be, in a swarm that holds the configs `live` (name → data).

    `name` is that of the first version: it is used where it is free or holds the very data.
    """
    version = f"{_base(name)}-{hashlib.sha256(data).hexdigest()[:10]}"
    if live.get(name) == data:
        return name
    if name in live or version in live:
        return version
    return name


def with_config_versions(desired: DesiredStack, live: LiveStack) -> DesiredStack:
    """`desired` with the names that its configs get beside those in the swarm."""
    held = {_name(config): base64.b64decode(config["Spec"].get("Data") or "") for config in live.configs}
    names = {config.name: config_version(config.name, config.data, held) for config in desired.configs}
    return replace(
        desired,
        configs=tuple(replace(config, name=names[config.name]) for config in desired.configs),
        services=tuple(
            replace(service, spec=_with_config_names(service.spec, names)) for service in desired.services
        ),
    )


def fingerprint(spec: Spec) -> str:
    """SHA-256 of a spec's canonical JSON, not counting the label that holds it."""
    labels = {key: value for key, value in spec["Labels"].items() if key != SPEC_LABEL}
    text = json.dumps({**spec, "Labels": labels}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


# ---------------------------------------------------------------- services


def _service_changes(desired: DesiredStack, live: LiveStack) -> Iterator[Change]:
    by_name = {_name(service): service for service in live.services}
    names = live.network_names()
    for service in desired.services:
        spec = _stamped(service)
        found = by_name.get(service.name)
        if found is None:
            yield Change("service", service.name, "create", _first_fields(spec), spec)
        else:
            yield from _service_update(service.name, spec, found, names)


def _service_update(
    name: str, spec: Spec, found: Mapping[str, Any], network_names: Mapping[str, str]
) -> Iterator[Change]:
    live = found["Spec"]
    if _mode(live) != _mode(spec):
        mode: Fields = {"mode": {"from": _mode(live), "to": _mode(spec)}}
        yield replace(_removal("service", found), fields=mode)
        yield Change("service", name, "create", mode, spec)
        return
    same = live.get("Labels", {}).get(SPEC_LABEL) == spec["Labels"][SPEC_LABEL]
    names = {**network_names, **_predefined(spec, live, network_names)}
    fields = _differences(_readable(spec, {}), _readable(live, names), extra=not same)
    mark = fields.pop(f"labels.{SPEC_LABEL}", None)
    if not fields and not mark:
        return
    # Nothing but our mark differs on a service that docker, or an older swarmkit, deployed.
    fields = fields or {f"labels.{SPEC_LABEL}": mark or {}}
    forced = live["TaskTemplate"].get("ForceUpdate")
    if forced:
        # A count that somebody raised to restart the tasks; going back would restart them again.
        spec = {**spec, "TaskTemplate": {**spec["TaskTemplate"], "ForceUpdate": forced}}
    yield Change("service", name, "update", fields, spec, found["ID"], found["Version"]["Index"])


def _predefined(
    spec: Mapping[str, Any], live: Mapping[str, Any], network_names: Mapping[str, str]
) -> dict[str, str]:
    """The swarm's ids of networks such as `host`: the engine lists those networks with other ids."""
    unknown = [target for target in _targets(live) if target not in network_names]
    return dict(zip(unknown, [name for name in _targets(spec) if name in BUILT_IN_NETWORKS], strict=False))


def _targets(spec: Mapping[str, Any]) -> list[str]:
    return [network["Target"] for network in spec["TaskTemplate"].get("Networks") or ()]


def _stamped(service: DesiredService) -> Spec:
    return {**service.spec, "Labels": {**service.spec["Labels"], SPEC_LABEL: fingerprint(service.spec)}}


def _first_fields(spec: Spec) -> dict[str, Mapping[str, Any]]:
    """What is worth saying of a service that is new."""
    fields: dict[str, Mapping[str, Any]] = {
        "image": {"from": None, "to": spec["TaskTemplate"]["ContainerSpec"]["Image"]}
    }
    if _mode(spec) == "replicated":
        fields["replicas"] = {"from": None, "to": spec["Mode"]["Replicated"].get("Replicas", 1)}
    else:
        fields["mode"] = {"from": None, "to": _mode(spec)}
    return fields


def _mode(spec: Mapping[str, Any]) -> str:
    """`replicated` or `global` (or a kind of job, which docker may have made)."""
    return str(next(kind for kind, value in spec["Mode"].items() if value is not None)).lower()


def _orphaned(desired: DesiredStack, live: LiveStack) -> list[Mapping[str, Any]]:
    wanted = {service.name for service in desired.services}
    return sorted((service for service in live.services if _name(service) not in wanted), key=_name)


# ---------------------------------------------------------------- comparing specs

# A part of a spec, and what people call it; the rest goes by its path in the API.
_PEOPLE: tuple[tuple[str, str], ...] = (
    ("TaskTemplate.ContainerSpec.Image", "image"),
    ("TaskTemplate.ContainerSpec.Env", "env"),
    ("TaskTemplate.ContainerSpec.Labels", "container_labels"),
    ("TaskTemplate.ContainerSpec.Mounts", "mounts"),
    ("TaskTemplate.ContainerSpec.Configs", "configs"),
    ("TaskTemplate.ContainerSpec.Healthcheck", "healthcheck"),
    ("TaskTemplate.ContainerSpec.Args", "command"),
    ("TaskTemplate.ContainerSpec.Command", "entrypoint"),
    ("TaskTemplate.Networks", "networks"),
    ("TaskTemplate.Resources", "resources"),
    ("TaskTemplate.RestartPolicy", "restart_policy"),
    ("TaskTemplate.Placement", "placement"),
    ("Mode.Replicated.Replicas", "replicas"),
    ("EndpointSpec.Ports", "ports"),
    ("EndpointSpec.Mode", "endpoint_mode"),
    ("UpdateConfig", "update_config"),
    ("RollbackConfig", "rollback_config"),
    ("Labels", "labels"),
)

# What the engine fills in where a spec says nothing (moby/swarmkit, api/defaults).
_DEFAULTS: Mapping[str, Any] = {
    "Mode.Replicated.Replicas": 1,
    "EndpointSpec.Mode": "vip",
    "TaskTemplate.Runtime": "container",
    "TaskTemplate.ContainerSpec.Isolation": "default",
    "TaskTemplate.ContainerSpec.StopGracePeriod": 10_000_000_000,
    "TaskTemplate.RestartPolicy.Condition": "any",
    "TaskTemplate.RestartPolicy.Delay": 5_000_000_000,
    "UpdateConfig.Parallelism": 1,
    "UpdateConfig.FailureAction": "pause",
    "UpdateConfig.Monitor": 5_000_000_000,
    "UpdateConfig.Order": "stop-first",
    "RollbackConfig.Parallelism": 1,
    "RollbackConfig.FailureAction": "pause",
    "RollbackConfig.Monitor": 5_000_000_000,
    "RollbackConfig.Order": "stop-first",
}

# What the engine and docker's client keep there for themselves.
_NOT_OURS = frozenset({"TaskTemplate.ForceUpdate", "TaskTemplate.Placement.Platforms"})

# An engine older than API 1.44 drops this without a word: that it is not there is nobody's change.
_MAY_BE_DROPPED = frozenset({"TaskTemplate.ContainerSpec.Healthcheck.StartInterval"})

_ENV = ("TaskTemplate", "ContainerSpec", "Env")

# Lists in the API whose entries have names: an entry that only the swarm has was put there by hand.
_ENTRIES = frozenset(
    {
        _ENV,
        ("TaskTemplate", "ContainerSpec", "Mounts"),
        ("TaskTemplate", "ContainerSpec", "Configs"),
        ("TaskTemplate", "Networks"),
        ("EndpointSpec", "Ports"),
    }
)

# Lists whose order means nothing.
_UNORDERED = frozenset({"Aliases", "Constraints", "CapabilityAdd", "CapabilityDrop"})

FieldPath = tuple[str, ...]


def _readable(spec: Mapping[str, Any], network_names: Mapping[str, str]) -> dict[str, Any]:
    """A spec whose lists of named things are mappings by that name, so that two of them can be compared."""
    task = spec["TaskTemplate"]
    container = task["ContainerSpec"]
    endpoint = spec.get("EndpointSpec") or {}
    networks = [
        {**network, "Target": network_names.get(network["Target"], network["Target"])}
        for network in task.get("Networks") or ()
    ]
    variables = (line.partition("=") for line in container.get("Env") or ())
    return {
        **spec,
        "TaskTemplate": {
            **task,
            "ContainerSpec": {
                **container,
                "Env": {key: value if equals else None for key, equals, value in variables},
                "Mounts": {mount["Target"]: mount for mount in container.get("Mounts") or ()},
                "Configs": {
                    # The id says no more than the name.
                    config["File"]["Name"]: {key: value for key, value in config.items() if key != "ConfigID"}
                    for config in container.get("Configs") or ()
                },
            },
            "Networks": {network["Target"]: network for network in networks},
        },
        "EndpointSpec": {**endpoint, "Ports": {_port(port): port for port in endpoint.get("Ports") or ()}},
    }


def _port(port: Mapping[str, Any]) -> str:
    """`8080:80/tcp host`, with what the engine takes for granted where something is not there."""
    published = f"{port['PublishedPort']}:" if port.get("PublishedPort") else ""
    protocol, mode = port.get("Protocol") or "tcp", port.get("PublishMode") or "ingress"
    return f"{published}{port['TargetPort']}/{protocol} {mode}"


def _differences(desired: Any, live: Any, *, extra: bool) -> dict[str, Mapping[str, Any]]:
    """Each field that differs, by the name people use. With `extra`, also what only the swarm has."""
    return {
        _people(path): {"from": old, "to": _DEFAULTS.get(".".join(path)) if new is None else new}
        for path, old, new in _compared((), desired, live, extra)
    }


def _compared(path: FieldPath, desired: Any, live: Any, extra: bool) -> Iterator[tuple[FieldPath, Any, Any]]:
    """The path of each field that differs, with its value in the swarm and ours (None for none)."""
    if not (isinstance(desired, Mapping | None) and isinstance(live, Mapping | None)):
        if not _equal(path, desired, live):
            yield path, live, desired
        return
    desired, live = desired or {}, live or {}
    entries = path in _ENTRIES
    for key in [*desired, *(key for key in live if key not in desired)]:
        here = (*path, str(key))
        if entries and (key not in desired or key not in live):
            yield here, live.get(key), desired.get(key)
        elif key in desired or extra:
            yield from _compared(here, desired.get(key), live.get(key), extra)


def _equal(path: FieldPath, desired: Any, live: Any) -> bool:
    if path[:-1] == _ENV:
        # A variable that is set to nothing is not one that is taken away.
        return bool(desired == live)
    dotted = ".".join(path)
    if dotted in _NOT_OURS or (not desired and not live):
        return True
    if dotted in _MAY_BE_DROPPED and live is None:
        return True
    if path[-1] in _UNORDERED:
        return sorted(desired or ()) == sorted(live or ())
    default = _DEFAULTS.get(dotted)
    return bool((default if desired is None else desired) == (default if live is None else live))


def _people(path: FieldPath) -> str:
    dotted = ".".join(path)
    for part, name in _PEOPLE:
        if dotted == part or dotted.startswith(f"{part}."):
            return name + dotted[len(part) :]
    return dotted


# ---------------------------------------------------------------- configs


def _config_changes(desired: DesiredStack, live: LiveStack) -> Iterator[Change]:
    by_name = {_name(config): config for config in live.configs}
    for config in desired.configs:
        found = by_name.get(config.name)
        if found is None:
            fields = {"content": {"from": None, "to": f"{len(config.data)} bytes"}}
            yield Change("config", config.name, "create", fields, config.body())
            continue
        held = found["Spec"].get("Labels") or {}
        fields = {
            f"labels.{key}": {"from": held.get(key), "to": value}
            for key, value in config.labels.items()
            if held.get(key) != value
        }
        if fields:
            yield Change(
                "config", config.name, "update", fields, config.body(), found["ID"], found["Version"]["Index"]
            )


_VERSIONED = re.compile(r"(.+)-[0-9a-f]{10}", re.ASCII)


def _base(name: str) -> str:
    """As much of a config's name as leaves room for the mark of a version."""
    return name[: CONFIG_NAME_LIMIT - 11]


def _first_name(name: str) -> str:
    match = _VERSIONED.fullmatch(name)
    return match[1] if match else name


def _unused_configs(
    desired: DesiredStack, live: LiveStack, changes: Iterable[Change]
) -> list[Mapping[str, Any]]:
    """The stack's configs that no service will use, or would go back to, once `changes` are made."""
    actions: dict[str, set[Action]] = {}
    for change in changes:
        actions.setdefault(change.name, set()).add(change.action)
    kept = {config.name for config in desired.configs}
    for service in desired.services:
        kept |= _configs_of(service.spec)
    for found in live.services:
        done = actions.get(_name(found), set())
        if "remove" in done:
            continue
        kept |= _configs_of(found["Spec"])
        # An update makes the present spec the previous one.
        if "update" not in done and found.get("PreviousSpec"):
            kept |= _configs_of(found["PreviousSpec"])
    return sorted((config for config in live.configs if _name(config) not in kept), key=_name)


def _configs_of(spec: Mapping[str, Any]) -> set[str]:
    references = spec["TaskTemplate"].get("ContainerSpec", {}).get("Configs") or ()
    return {reference["ConfigName"] for reference in references}


def _with_config_names(spec: Spec, names: Mapping[str, str]) -> Spec:
    def renamed(reference: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**reference, "ConfigName": names.get(reference["ConfigName"], reference["ConfigName"])}

    return _with_configs(spec, renamed)


def _with_configs(spec: Spec, changed: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Spec:
    task = spec["TaskTemplate"]
    container = task["ContainerSpec"]
    if "Configs" not in container:
        return spec
    references = [changed(reference) for reference in container["Configs"]]
    return {**spec, "TaskTemplate": {**task, "ContainerSpec": {**container, "Configs": references}}}


# ---------------------------------------------------------------- networks


def _network_changes(desired: DesiredStack, live: LiveStack) -> Iterator[Change]:
    by_name = {_name(network): network for network in live.networks}
    errors: list[SwarmkitError] = []
    for network in desired.networks:
        found = by_name.get(network.name)
        if found is not None:
            errors += _network_mistakes(network, found)
        # As docker does, a network that somebody made under this very name is used as it is.
        elif network.name not in live.network_ids:
            fields = {"driver": {"from": None, "to": network.spec["Driver"]}}
            yield Change("network", network.name, "create", fields, network.spec)
    raise_all(errors)


def _network_mistakes(network: DesiredNetwork, found: Mapping[str, Any]) -> Iterator[SwarmkitError]:
    options = network.spec.get("Options", {})
    subnets = _subnets(network.spec)
    sides = [
        ("driver", found.get("Driver"), network.spec["Driver"]),
        ("internal", bool(found.get("Internal")), network.spec["Internal"]),
        ("attachable", bool(found.get("Attachable")), network.spec["Attachable"]),
        ("subnets", _subnets(found) if subnets else [], subnets),
        # The engine adds options of its own.
        ("driver_opts", {key: (found.get("Options") or {}).get(key) for key in options}, options),
    ]
    for what, old, new in sides:
        if old != new:
            yield OperationFailed(
                f"the network has {what} {json.dumps(old)} and the file says {json.dumps(new)};"
                " Swarm cannot change a network",
                where=network.name,
                hint="give the network another name, or take the stack down and up again",
            )


def _subnets(spec: Mapping[str, Any]) -> list[str]:
    config = (spec.get("IPAM") or {}).get("Config") or ()
    return sorted(entry["Subnet"] for entry in config if "Subnet" in entry)


def _network_removals(desired: DesiredStack, live: LiveStack) -> list[Change]:
    kept = {network.name for network in desired.networks}
    for service in desired.services:
        kept |= set(_targets(service.spec))
    return [
        _removal("network", network)
        for network in sorted(live.networks, key=_name)
        if _name(network) not in kept
    ]


def _name(thing: Mapping[str, Any]) -> str:
    """The name of a service, config or network as the API gives them."""
    return str(thing["Name"] if "Name" in thing else thing["Spec"]["Name"])


def _removal(kind: Kind, thing: Mapping[str, Any]) -> Change:
    identity = thing["Id"] if kind == "network" else thing["ID"]
    version = thing["Version"]["Index"] if "Version" in thing else None
    return Change(kind, _name(thing), "remove", live_id=identity, version=version)
