"""The bodies that swarmkit would send, and both sides brought into one form to be compared."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swarmkit.compose.convert import Context, DesiredStack, convert
from swarmkit.compose.load import Options, Project, load
from tests.conformance.oracle import Bodies, Body, identity


def ours(file: Path, stack: str, environment: Mapping[str, str], *over: Path) -> tuple[Bodies, Project]:
    """What swarmkit would send for `file` as `stack`, with the files `over` laid over it, and the project.

    Raises SwarmkitError.
    """
    project = load(file, environment, Options(files=over, name=stack))
    return bodies(convert(project, stack, Context(edge=None))), project


def bodies(desired: DesiredStack) -> Bodies:
    return {
        "networks": {network.name: network.spec for network in desired.networks},
        "secrets": {secret.name: secret.body() for secret in desired.secrets},
        "configs": {config.name: config.body() for config in desired.configs},
        "services": {service.name: service.spec for service in desired.services},
    }


# Where nothing and zero differ: pointers in the engine's own types (moby, api/types/swarm), and the
# parallelism, whose 0 is all at once.
_ZERO_COUNTS = frozenset(
    {
        "Replicas",
        "MaxConcurrent",
        "TotalCompletions",
        "MaxAttempts",
        "Delay",
        "Window",
        "StopGracePeriod",
        "Init",
        "Parallelism",
    }
)
# What is there though it is empty says something: which mode, that there are privileges.
_EMPTY_COUNTS = frozenset({"Global", "Replicated", "GlobalJob", "ReplicatedJob", "Privileges", "Runtime"})
# The engine's own meaning of a port that says nothing (moby/swarmkit, api/specs.proto).
_PORT_DEFAULTS = {"Protocol": "tcp", "PublishMode": "ingress"}


def normal(sent: Bodies) -> Bodies:
    """Bodies without what is empty, and without the order and the ids that mean nothing."""
    done = copy.deepcopy(sent)
    for spec in done.get("services", {}).values():
        _normalise_service(spec)
    return {
        kind: {name: _without_empty(body) for name, body in done.get(kind, {}).items()} for kind in _KINDS
    }


_KINDS = ("networks", "secrets", "configs", "services")


def _normalise_service(spec: Body) -> None:
    container = spec["TaskTemplate"]["ContainerSpec"]
    for kind in ("Config", "Secret"):
        uses = container.get(f"{kind}s") or []
        for use in uses:
            # The client has asked for the id, swarmkit asks when it sends.
            assert use.pop(f"{kind}ID", identity(use[f"{kind}Name"])) == identity(use[f"{kind}Name"])
        # Within one name the client's order is that of a Go map.
        uses.sort(key=_use)
    credentials = (container.get("Privileges") or {}).get("CredentialSpec") or {}
    if config := credentials.get("Config"):
        credentials["Config"] = config.removeprefix(identity(""))
    endpoint = spec.get("EndpointSpec") or {}
    ports = endpoint.get("Ports") or []
    for port in ports:
        for key, default in _PORT_DEFAULTS.items():
            port[key] = port.get(key) or default
    # Go's sort leaves those with one published port as it likes.
    ports.sort(key=lambda port: (port.get("PublishedPort", 0), port["TargetPort"], port["Protocol"]))


def _use(use: Body) -> tuple[str, str]:
    return str(use.get("ConfigName") or use["SecretName"]), str(use.get("File"))


def _without_empty(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        kept = {name: _without_empty(item, name) for name, item in value.items()}
        return {name: item for name, item in kept.items() if not _says_nothing(name, item)}
    return [_without_empty(item) for item in value] if isinstance(value, list) else value


def _says_nothing(key: str, value: object) -> bool:
    if value is None:
        return True
    if key in _ZERO_COUNTS and isinstance(value, int):
        return False
    return not value and key not in _EMPTY_COUNTS


def unlike(left: Any, right: Any, path: str = "") -> list[str]:
    """Each place where two bodies differ, with docker's value and ours."""
    if isinstance(left, dict) and isinstance(right, dict):
        keys = sorted(left.keys() | right.keys())
        return [line for key in keys for line in unlike(left.get(key), right.get(key), f"{path}/{key}")]
    return [] if left == right else [f"{path}: docker {left!r}, swarmkit {right!r}"]
