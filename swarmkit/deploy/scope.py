"""What revisions and a lock belong to: a stack; or a service without one, which is a stack of its own.

A scope is the name of a stack, or `service.NAME` for a service without one. A stack of that name would
not be mixed up with it: Compose allows no dot in the name of a project.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from swarmkit.names import CANARY_LABEL, STACK_LABEL
from swarmkit.remote import Engine
from swarmkit.swarm import Service, services

_LONE = "service."


def scope_of(service: Service) -> str:
    """The scope that a service belongs to; a canary belongs to that of its service."""
    return service.stack or f"{_LONE}{service.labels.get(CANARY_LABEL) or service.name}"


def belongs(spec: Mapping[str, Any], scope: str) -> bool:
    """Whether the service of this spec belongs to the scope."""
    labels = spec.get("Labels") or {}
    stack = labels.get(STACK_LABEL)
    if not scope.startswith(_LONE):
        return bool(stack == scope)
    return not stack and (labels.get(CANARY_LABEL) or spec["Name"]) == title(scope)


def services_in(engine: Engine, scope: str) -> Sequence[Service]:
    """The services of a scope, by name, with the counts of their tasks."""
    if not scope.startswith(_LONE):
        return services(engine, scope)
    return [one for one in services(engine) if belongs(one.spec, scope)]


def title(scope: str) -> str:
    """The name of the stack, or of the service."""
    return scope.removeprefix(_LONE)


def told(scope: str) -> str:
    """`the stack web`, or `the service web`."""
    return f"the {'service' if scope.startswith(_LONE) else 'stack'} {title(scope)}"


def way_back(scope: str) -> str:
    """The command that returns it to what it was."""
    return f"swarmkit {'' if scope.startswith(_LONE) else 'stack '}rollback {title(scope)}"
