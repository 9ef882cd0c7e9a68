"""Commands about services: scale, service ls, ps and logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from swarmkit.cli.common import globals_of
from swarmkit.cli.complete import scale_words, service_names
from swarmkit.cli.logs import Follow, Since, Tail, Timestamps, Until, show_logs

if TYPE_CHECKING:
    from swarmkit.swarm import Service
    from swarmkit.target import Swarm

app = typer.Typer(help="Look at services and their tasks.", no_args_is_help=True, rich_markup_mode=None)


def register(root: typer.Typer) -> None:
    """Add the commands that stand at the top level."""
    root.command()(scale)


def scale(
    context: typer.Context,
    scales: Annotated[
        list[str],
        typer.Argument(metavar="SERVICE=N…", help="For example web=7.", autocompletion=scale_words),
    ],
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait for the tasks.")] = 300,
) -> None:
    """Give services their numbers of replicas; ends when so many run."""
    from swarmkit.deploy.apply import change_json
    from swarmkit.services.converge import baseline, converge
    from swarmkit.services.scale import parse_scales, plan_scale
    from swarmkit.services.scale import scale as apply_scale
    from swarmkit.swarm import services
    from swarmkit.target import opened, resolve

    given = globals_of(context)
    ui = given.ui
    wanted = parse_scales(scales)
    with ui.timed() as seconds, opened(resolve(given.inventory, given.engine), ui, mutates=True) as swarm:
        plan = plan_scale(services(swarm.engine), wanted)
        before = baseline(swarm.engine)
        changes = apply_scale(swarm.engine, plan)
        converge(swarm.engine, [service.id for service, _ in plan], ui, timeout=timeout, before=before)
        document = {
            "services": [service.name for service, _ in plan],
            "changed": len(changes),
            "changes": [change_json(change) for change in changes],
            "converged": True,
            "rolled_back": False,
            "seconds": seconds(),
        }
        shown = ", ".join(f"{service.name} {number}/{number}" for service, number in plan)
        ui.result(document, f"{shown} ({seconds():.1f} s)")


@app.command("ls")
def ls(context: typer.Context) -> None:
    """List the services."""
    from swarmkit import report
    from swarmkit.swarm import services
    from swarmkit.target import opened, resolve

    given = globals_of(context)
    with opened(resolve(given.inventory, given.engine), given.ui) as swarm:
        found = services(swarm.engine)
    given.ui.result(
        [report.service_json(one) for one in found], lambda: report.show_services(given.ui, found)
    )


@app.command("ps")
def ps(
    context: typer.Context,
    service: Annotated[str, typer.Argument(help="The service.", autocompletion=service_names)],
    everything: Annotated[bool, typer.Option("--all", help="Also tasks that have ended.")] = False,
) -> None:
    """List a service's tasks."""
    from swarmkit import report
    from swarmkit.swarm import find_service, nodes, services, tasks
    from swarmkit.target import opened, resolve

    given = globals_of(context)
    with opened(resolve(given.inventory, given.engine), given.ui) as swarm:
        found = find_service(services(swarm.engine), service)
        rows = report.task_rows(
            [found], tasks(swarm.engine, [found.id]), nodes(swarm.engine), everything=everything
        )
    given.ui.result(rows, lambda: report.show_tasks(given.ui, rows))


@app.command("logs")
def logs(
    context: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(metavar="SERVICE…", help="The services.", autocompletion=service_names),
    ],
    follow: Follow = False,
    since: Since = None,
    until: Until = None,
    tail: Tail = None,
    timestamps: Timestamps = False,
) -> None:
    """Print what services write, from all their nodes, in the order of time."""
    from swarmkit.swarm import find_service, services

    def find(swarm: Swarm) -> list[Service]:
        known = services(swarm.engine)
        # One that is named twice is shown once.
        return list({one.id: one for one in (find_service(known, name) for name in names)}.values())

    show_logs(globals_of(context), find, follow, since, until, tail, timestamps)
