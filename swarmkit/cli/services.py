"""Commands about services: scale, exec, service ls, ps, explain and logs."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from swarmkit.cli.common import globals_of
from swarmkit.cli.complete import scale_words, service_names
from swarmkit.cli.logs import Follow, Since, Tail, Timestamps, Until, show_logs
from swarmkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swarmkit.swarm import Service
    from swarmkit.target import Swarm

app = typer.Typer(help="Look at services and their tasks.", no_args_is_help=True, rich_markup_mode=None)


def register(root: typer.Typer) -> None:
    """Add the commands that stand at the top level."""
    root.command()(scale)
    root.command("exec")(exec_)


def scale(
    context: typer.Context,
    scales: Annotated[
        list[str],
        typer.Argument(metavar="SERVICE=N…", help="For example web=7.", autocompletion=scale_words),
    ],
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait for the tasks.")] = 300,
) -> None:
    """Give services their numbers of replicas; ends when so many run, and the load balancer uses them."""
    from swarmkit.balancer.deploy import await_served
    from swarmkit.deploy.report import change_json
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
        for line in _cautions(swarm, plan):
            ui.warn(line)
        before = baseline(swarm.engine)
        changes = apply_scale(swarm.engine, plan)
        ids = [service.id for service, _ in plan]
        names = [service.name for service, _ in plan]
        converge(swarm.engine, ids, ui, timeout=timeout, before=before, fleet=swarm.fleet)
        await_served(swarm, ui, names, timeout=timeout)
        document = {
            "services": names,
            "changed": len(changes),
            "changes": [change_json(change) for change in changes],
            "converged": True,
            "rolled_back": False,
            "seconds": seconds(),
        }
        shown = ", ".join(f"{service.name} {number}/{number}" for service, number in plan)
        ui.result(document, f"{shown} ({seconds():.1f} s)")


def _cautions(swarm: Swarm, plan: Sequence[tuple[Service, int]]) -> list[str]:
    """What may lose requests where services get fewer tasks."""
    from swarmkit.services.caution import forewarn_of_stops

    return forewarn_of_stops(swarm, [one for one, number in plan if number < (one.replicas or 0)])


def exec_(
    context: typer.Context,
    task: Annotated[
        str,
        typer.Argument(
            metavar="SERVICE[.SLOT]", help="Which task; SERVICE.NODE too.", autocompletion=service_names
        ),
    ],
    command: Annotated[
        list[str] | None, typer.Argument(metavar="-- COMMAND…", help="What to run in it.")
    ] = None,
    terminal: Annotated[
        bool | None,
        typer.Option("-t/-T", "--tty/--no-tty", help="With a terminal; by default where we have one."),
    ] = None,
    no_stdin: Annotated[
        bool, typer.Option("-n", "--no-stdin", help="Pass no standard input on, as ssh -n.")
    ] = False,
    _interactive: Annotated[
        bool, typer.Option("-i", hidden=True, help="Does nothing: lets docker's -it be typed.")
    ] = False,
    user: Annotated[str, typer.Option("-u", "--user", help="USER[:GROUP], by name or number.")] = "",
    workdir: Annotated[str, typer.Option("-w", "--workdir", help="The folder to run it in.")] = "",
    env: Annotated[
        list[str] | None,
        typer.Option("-e", "--env", help="NAME=VALUE; NAME alone passes on ours. May be repeated."),
    ] = None,
) -> None:
    """Run a command inside a running task, on whichever node that is; ends with the command's exit code."""
    from swarmkit.services.exec import Command, choose, engine_of, environment, execute
    from swarmkit.swarm import nodes, services, tasks
    from swarmkit.target import opened, resolve

    given = globals_of(context)
    if not command:
        raise UsageError("no command is given", hint=f"for a shell: swarmkit exec {task} -- sh")
    if given.ui.is_json:
        raise UsageError("exec passes on what the command prints, and has no JSON of its own")
    is_terminal = sys.stdin.isatty() and not no_stdin
    if terminal and not is_terminal:
        raise UsageError("standard input is no terminal", where="--tty", hint="use -T, or leave it out")
    what = Command(
        command,
        tty=is_terminal and sys.stdout.isatty() if terminal is None else terminal,
        stdin=not no_stdin,
        user=user,
        workdir=workdir,
        environment=environment(env or [], os.environ),
    )
    with opened(resolve(given.inventory, given.engine), given.ui) as swarm:
        manager, fleet = swarm.engine, swarm.fleet
        only = "" if fleet is not None else manager.get("/info")["Swarm"]["NodeID"]
        entered, is_ours = choose(
            services(manager), lambda one: tasks(manager, [one.id]), nodes(manager), task, only
        )
        if is_ours:
            given.ui.say(f"{entered.name} on {entered.node.name}")
        host = fleet.inventory.host(entered.node.name) if fleet is not None else None

        def kill(pid: int, number: int) -> None:
            assert fleet is not None
            assert host is not None
            name = signal.Signals(number).name.removeprefix("SIG")
            fleet.connection(host).run(f"kill -s {name} {pid}")

        code = execute(
            engine_of(swarm, entered.node),
            entered.container,
            what,
            kill=kill if host is not None else None,
            stdin=sys.stdin.fileno(),
            stdout=sys.stdout.buffer,
            stderr=sys.stderr.buffer,
        )
    # Not Typer's own exit: 130 is the command's here, and no interruption of ours.
    sys.exit(code)


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


@app.command("explain")
def explain(
    context: typer.Context,
    service: Annotated[
        str,
        typer.Argument(
            metavar="SERVICE[.SLOT]", help="The service, or one task of it.", autocompletion=service_names
        ),
    ],
) -> None:
    """Say why a service, or one task of it, does not run."""
    from swarmkit.services.evidence import explain_service
    from swarmkit.target import opened, resolve

    given = globals_of(context)
    with opened(resolve(given.inventory, given.engine), given.ui) as swarm:
        state = explain_service(swarm.engine, swarm.fleet, service)
    given.ui.result(state.json(), lambda: state.show(given.ui))


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
