"""The command that looks for what is wrong: doctor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from swarmkit.cli.common import globals_of

if TYPE_CHECKING:
    from swarmkit.cluster.doctor import Diagnosis
    from swarmkit.ui import Ui


def register(app: typer.Typer) -> None:
    """Add the command at the top level."""
    app.command()(doctor)


def doctor(context: typer.Context) -> None:
    """Look for what is wrong with the machines, the ports between them, the swarm and its services.

    Changes nothing. Exits with 0 where nothing is broken (warnings and notes included), with 1 where
    something is, with 3 where no manager of the swarm can be reached.
    """
    from swarmkit.cluster.doctor import examine, examine_engine
    from swarmkit.target import fleet_of, opened, resolve

    given = globals_of(context)
    target = resolve(given.inventory, given.engine)
    if target.inventory is not None:
        with fleet_of(target) as fleet:
            found = examine(fleet, given.ui)
    else:
        with opened(target, given.ui) as swarm:
            found = examine_engine(swarm.engine, given.ui)
    given.ui.result(found.json(), lambda: _show(given.ui, found))
    if found.exit:
        raise typer.Exit(found.exit)


def _show(ui: Ui, found: Diagnosis) -> None:
    from swarmkit.cluster.findings import Severity, merged

    ui.line(f"cluster {found.cluster}")
    last_hint = ""
    shown = merged(found.findings)
    for one in shown:
        where = f"{one.host}: " if one.host else ""
        ui.line(f"{one.severity.value}: {one.code}: {where}{one.message}")
        if one.hint and one.hint != last_hint:
            ui.line(f"  {one.hint}")
        last_hint = one.hint
    for text in found.checked:
        ui.line(f"looked at {text}")
    counts = {kind: sum(one.severity is kind for one in shown) for kind in Severity}
    errors, warnings = counts[Severity.ERROR], counts[Severity.WARNING]
    parts = [
        f"{number} {name}{'' if number == 1 else 's'}"
        for number, name in ((errors, "problem"), (warnings, "warning"))
        if number
    ]
    ui.line(f"{', '.join(parts) or 'healthy'} ({found.seconds:.1f} s)")
