"""Scaling services: parsing what is asked, planning it, doing it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from swarmkit.deploy.plan import Change
from swarmkit.errors import SwarmkitError, UsageError, raise_all
from swarmkit.remote import Engine, while_stale
from swarmkit.swarm import Service, find_service, inspect


def parse_scales(arguments: Iterable[str]) -> dict[str, int]:
    """`["web=7", "db=1"]` as numbers by name; raises for every argument that is not of that form."""
    scales: dict[str, int] = {}
    errors: list[SwarmkitError] = []
    for argument in arguments:
        name, sign, number = argument.partition("=")
        if not name or not sign or not number.isascii() or not number.isdigit():
            errors.append(
                UsageError(
                    f'expected SERVICE=N with N a whole number from 0 up, got "{argument}"',
                    hint="for example: swarmkit scale web=7",
                )
            )
        elif name in scales:
            errors.append(UsageError(f"{name} is named twice"))
        else:
            scales[name] = int(number)
    raise_all(errors)
    return scales


def plan_scale(known: Sequence[Service], scales: dict[str, int]) -> list[tuple[Service, int]]:
    """The services meant and their wanted numbers; raises for unknown ones and for those of no number."""
    found = find_replicated(known, list(scales))
    return list(zip(found, scales.values(), strict=True))


def find_replicated(known: Sequence[Service], names: Sequence[str]) -> list[Service]:
    """The services meant; raises for unknown ones, for those of no number, and for one named twice."""
    found: list[Service] = []
    errors: list[SwarmkitError] = []
    for name in names:
        try:
            service = find_service(known, name)
        except UsageError as error:
            errors.append(error)
            continue
        if service.replicas is None:
            why = "one task a node" if service.is_global else "a job"
            errors.append(
                UsageError(
                    f"{service.name} is {service.mode} ({why}) and cannot be scaled",
                    hint="only replicated services have a number of replicas",
                )
            )
        if service.id in (other.id for other in found):
            errors.append(UsageError(f"{service.name} is named twice"))
        found.append(service)
    raise_all(errors)
    return found


def scale(engine: Engine, wanted: Sequence[tuple[Service, int]]) -> list[Change]:
    """Give the services their numbers of replicas; returns what changed."""
    changes = []
    for service, number in wanted:
        if service.replicas != number:
            _set_replicas(engine, service.id, number)
            fields = {"replicas": {"from": service.replicas, "to": number}}
            changes.append(Change(kind="service", name=service.name, action="update", fields=fields))
    return changes


@while_stale
def _set_replicas(engine: Engine, service_id: str, number: int) -> None:
    service = inspect(engine, service_id)
    spec = {**service.spec, "Mode": {"Replicated": {"Replicas": number}}}
    engine.post(f"/services/{service_id}/update", spec, {"version": service.raw["Version"]["Index"]})
