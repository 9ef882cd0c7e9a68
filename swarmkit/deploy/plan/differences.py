"""Comparing two specs of a service, field by field, in the words that people use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from swarmkit.deploy.plan.model import REFERENCES, with_named_credential_spec

# A part of a spec, and what people call it; the rest goes by its path in the API.
_PEOPLE: tuple[tuple[str, str], ...] = (
    ("TaskTemplate.ContainerSpec.Image", "image"),
    ("TaskTemplate.ContainerSpec.Env", "env"),
    ("TaskTemplate.ContainerSpec.Labels", "container_labels"),
    ("TaskTemplate.ContainerSpec.Mounts", "mounts"),
    ("TaskTemplate.ContainerSpec.Configs", "configs"),
    ("TaskTemplate.ContainerSpec.Secrets", "secrets"),
    ("TaskTemplate.ContainerSpec.Healthcheck", "healthcheck"),
    ("TaskTemplate.ContainerSpec.Args", "command"),
    ("TaskTemplate.ContainerSpec.Command", "entrypoint"),
    ("TaskTemplate.ContainerSpec.Privileges.CredentialSpec", "credential_spec"),
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

_ENV = ("TaskTemplate", "ContainerSpec", "Env")

# Lists in the API whose entries have names: an entry that only the swarm has was put there by hand.
_ENTRIES = frozenset(
    {
        _ENV,
        ("TaskTemplate", "ContainerSpec", "Mounts"),
        ("TaskTemplate", "ContainerSpec", "Configs"),
        ("TaskTemplate", "ContainerSpec", "Secrets"),
        ("TaskTemplate", "Networks"),
        ("EndpointSpec", "Ports"),
    }
)

# Lists whose order means nothing.
_UNORDERED = frozenset({"Aliases", "Constraints", "CapabilityAdd", "CapabilityDrop"})

FieldPath = tuple[str, ...]


def readable(spec: Mapping[str, Any], network_names: Mapping[str, str]) -> dict[str, Any]:
    """A spec whose lists of named things are mappings by that name, so that two of them can be compared."""
    task = spec["TaskTemplate"]
    container = with_named_credential_spec(task.get("ContainerSpec") or {})
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
                **{
                    entries: {
                        # One that is no file, such as a credential spec, goes by its name alone.
                        (one.get("File") or {}).get("Name", one[name]): {
                            # The id says no more than the name.
                            key: value
                            for key, value in one.items()
                            if key != identity
                        }
                        for one in container.get(entries) or ()
                    }
                    for entries, name, identity in REFERENCES.values()
                },
            },
            "Networks": {network["Target"]: network for network in networks},
        },
        "EndpointSpec": {**endpoint, "Ports": {_port(port): port for port in endpoint.get("Ports") or ()}},
    }


def unordered(spec: Mapping[str, Any]) -> Any:
    """A spec in a form that is the same for two between which `differences` sees none but in their order."""

    def sort(key: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {inner: sort(inner, one) for inner, one in value.items()}
        return sorted(value) if key in _UNORDERED and isinstance(value, list) else value

    return sort("", readable(spec, {}))


def _port(port: Mapping[str, Any]) -> str:
    """`8080:80/tcp host`, with what the engine takes for granted where something is not there."""
    published = f"{port['PublishedPort']}:" if port.get("PublishedPort") else ""
    protocol, mode = port.get("Protocol") or "tcp", port.get("PublishMode") or "ingress"
    return f"{published}{port['TargetPort']}/{protocol} {mode}"


def differences(desired: Any, live: Any, *, extra: bool) -> dict[str, Mapping[str, Any]]:
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
