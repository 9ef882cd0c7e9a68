"""In which order services start: what a service depends on comes before it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from swarmkit.compose.convert import DesiredStack, Spec
from swarmkit.deploy.plan.services import is_job
from swarmkit.errors import SwarmkitError, UsageError, raise_all

COMPLETED = "service_completed_successfully"

# For each service, by name, the condition that each other has to meet before it is sent.
Dependencies = Mapping[str, Mapping[str, str]]


def dependencies(desired: DesiredStack) -> dict[str, dict[str, str]]:
    """The dependencies of the services of a stack, by their full names; also on those it is without."""
    return {
        service.name: {f"{desired.name}_{key}": value for key, value in service.depends_on.items()}
        for service in desired.services
        if service.depends_on
    }


def check(specs: Iterable[Spec], wanted: Dependencies) -> None:
    """Refuse what could never be met: circles, and waiting for the end of what starts for ever again.

    Raises UsageError (or Problems).
    """
    by_name = {spec["Name"]: spec for spec in specs}
    errors: list[SwarmkitError] = []
    for name, conditions in wanted.items():
        for other, condition in conditions.items():
            spec = by_name.get(other)
            if condition == COMPLETED and spec is not None and not _may_end(spec):
                errors.append(
                    UsageError(
                        f"waits until {other} has completed, which is started again whenever it ends",
                        where=name,
                        hint=f"give {other} deploy.mode replicated-job, or restart_policy.condition none or "
                        "on-failure",
                    )
                )
    try:
        TopologicalSorter(wanted).prepare()
    except CycleError as error:
        circle = " → ".join(reversed(error.args[1]))
        errors.append(UsageError(f"services depend on one another in a circle: {circle}", where="depends_on"))
    raise_all(errors)


def in_order(names: Sequence[str], wanted: Mapping[str, Iterable[str]]) -> list[str]:
    """The names, each after those it depends on; otherwise as they were."""
    place = {name: index for index, name in enumerate(names)}
    sorter = TopologicalSorter(
        {name: [one for one in wanted.get(name, ()) if one in place] for name in names}
    )
    sorter.prepare()
    found: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=place.__getitem__)
        found += ready
        sorter.done(*ready)
    return found


def waves(names: Sequence[str], wanted: Dependencies) -> list[list[str]]:
    """The names in groups, to be taken down one group after the other: dependents first."""
    held = set(names)
    sorter = TopologicalSorter({name: [one for one in wanted.get(name, ()) if one in held] for name in names})
    sorter.prepare()
    found: list[list[str]] = []
    while sorter.is_active():
        ready = sorter.get_ready()
        found.insert(0, sorted(ready))
        sorter.done(*ready)
    return found


def _may_end(spec: Spec) -> bool:
    policy = spec["TaskTemplate"].get("RestartPolicy") or {}
    # The engine's own default (moby/swarmkit, api/defaults).
    return is_job(spec) or policy.get("Condition", "any") != "any"
