"""What every command shares: the global options, as one value in Typer's context."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from swarmkit.errors import UsageError
from swarmkit.ui import Ui

if TYPE_CHECKING:
    from swarmkit.target import Target


@dataclass(frozen=True)
class Globals:
    """The options that stand before (or after) any command."""

    ui: Ui
    inventory: Path | None
    engine: str | None
    yes: bool


def globals_of(context: typer.Context) -> Globals:
    """The global options of the running command."""
    found = context.find_object(Globals)
    assert found is not None, "the application's callback sets it"
    return found


def confirm_target(given: Globals, target: Target, what: str) -> None:
    """Make sure that the user means this cluster: it was named, or its name is typed now.

    `--yes` alone does not do for a cluster that was guessed. Raises UsageError where it is not confirmed.
    """
    if target.named:
        return
    hint = f"name the cluster: -i {target.origin}"
    if not sys.stdin.isatty():
        raise UsageError(f"{what}; the cluster was guessed and nobody can be asked", hint=hint)
    typer.echo(f"{what}.", err=True)
    if typer.prompt("Type the cluster's name to go on", err=True) != target.name:
        raise UsageError("not confirmed; nothing was changed", hint=hint)
