"""Shell completion of names: quick, and silent where anything is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from swarmkit.errors import SwarmkitError

if TYPE_CHECKING:
    from swarmkit.target import Swarm, Target


def _target(context: typer.Context) -> Target:
    from swarmkit.target import resolve

    root = context.find_root().params
    inventory = root.get("inventory")
    return resolve(Path(inventory) if inventory else None, root.get("engine"))


def _starting(incomplete: str, find: Callable[[], list[str]]) -> list[str]:
    try:
        return [name for name in find() if name.startswith(incomplete)]
    except (SwarmkitError, OSError):
        return []


def host_names(context: typer.Context, incomplete: str) -> list[str]:
    """Machines of the inventory."""

    def find() -> list[str]:
        inventory = _target(context).inventory
        return [host.name for host in inventory.hosts] if inventory else []

    return _starting(incomplete, find)


def _from_swarm(context: typer.Context, incomplete: str, names: Callable[[Swarm], list[str]]) -> list[str]:
    from swarmkit.remote import Secrets
    from swarmkit.target import opened
    from swarmkit.ui import Ui

    def find() -> list[str]:
        # In the middle of a line that is being typed nobody is to be asked for a password.
        with opened(_target(context), Ui(), secrets=Secrets(ask=lambda _: None)) as swarm:
            return names(swarm)

    return _starting(incomplete, find)


def node_names(context: typer.Context, incomplete: str) -> list[str]:
    """Nodes of the swarm."""
    from swarmkit.swarm import nodes

    return _from_swarm(context, incomplete, lambda swarm: [node.name for node in nodes(swarm.engine)])


def service_names(context: typer.Context, incomplete: str) -> list[str]:
    """Services of the swarm, by their short names."""
    from swarmkit.swarm import services

    return _from_swarm(
        context,
        incomplete,
        lambda swarm: [one.name.removeprefix(f"{one.stack}_") for one in services(swarm.engine)],
    )


def stack_names(context: typer.Context, incomplete: str) -> list[str]:
    """Stacks of the catalogue."""

    def find() -> list[str]:
        from swarmkit.deploy.catalogue import catalogue

        return [stack.name for stack in catalogue()]

    return _starting(incomplete, find)


def running_stacks(context: typer.Context, incomplete: str) -> list[str]:
    """Stacks that the swarm runs."""
    from swarmkit.swarm import services

    return _from_swarm(
        context, incomplete, lambda swarm: sorted({one.stack for one in services(swarm.engine) if one.stack})
    )


def scale_words(context: typer.Context, incomplete: str) -> list[str]:
    """`SERVICE=`, for the number to be typed."""
    return [f"{name}=" for name in service_names(context, incomplete)]
