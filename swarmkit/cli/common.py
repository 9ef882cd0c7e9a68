"""What every command shares: the global options, as one value in Typer's context."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swarmkit.errors import UsageError
from swarmkit.ui import Ui

if TYPE_CHECKING:
    from swarmkit.cluster.bootstrap import Report
    from swarmkit.target import Target

DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and touch nothing.")]
Detailed = Annotated[
    bool, typer.Option("--detailed-exitcode", help="With --dry-run: exit 5 where there are changes.")
]
LoseMajority = Annotated[
    bool, typer.Option("--force", help="Go on where the managers' majority would be lost.")
]
LockWait = Annotated[
    float, typer.Option("--lock-wait", help="Seconds to wait for another command that is at work.")
]
BreakLock = Annotated[
    bool, typer.Option("--break-lock", help="Take the lock away from a command that is at work no more.")
]


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


def hosts_target(given: Globals) -> Target:
    """The cluster that a command works on which needs its machines, and not an engine alone."""
    from swarmkit.target import resolve

    return resolve(given.inventory, given.engine, hosts_needed=True)


def show_report(given: Globals, report: Report, nothing: str, done: str) -> None:
    """Show what was done to a cluster, or what would be; `nothing` and `done` say it in words."""
    ui = given.ui

    def text() -> None:
        if report.status == "planned":
            for action in report.actions:
                ui.line(f"  {action.host}: {action.title}")
            ui.line(f"{len(report.actions)} actions planned; nothing was changed")
        elif report.changed:
            ui.line(f"{done} ({report.changed} changes, {report.seconds:.1f} s)")
        else:
            ui.line(f"{nothing} ({report.seconds:.1f} s)")

    if report.status == "planned" and not report.actions:
        ui.result(report.json(), f"{nothing}; nothing would be changed")
    else:
        ui.result(report.json(), text)
