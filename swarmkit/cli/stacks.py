"""Commands about stacks: ls, up, down, ps, logs, inputs, render."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swarmkit.cli.common import globals_of
from swarmkit.cli.complete import running_stacks, stack_names
from swarmkit.cli.logs import Follow, Since, Tail, Timestamps, Until, show_logs
from swarmkit.errors import Exit, SwarmkitError, UsageError, raise_all

if TYPE_CHECKING:
    from swarmkit.deploy.render import Rendered
    from swarmkit.swarm import Service
    from swarmkit.target import Swarm

app = typer.Typer(
    help="Deploy stacks of the catalogue, or your own Compose files.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Stack = Annotated[
    str,
    typer.Argument(help="A name of the catalogue, a folder, or a Compose file.", autocompletion=stack_names),
]
Instance = Annotated[
    str, typer.Argument(help="The stack's name on the cluster.", autocompletion=running_stacks)
]
Sets = Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE of an input; may be repeated.")]
Values = Annotated[Path | None, typer.Option("--values", help="A YAML file of inputs.")]


@app.command("ls")
def ls(context: typer.Context) -> None:
    """List the catalogue, and what of it runs on the cluster (if there is one)."""
    from swarmkit.deploy.apply import stacks
    from swarmkit.deploy.catalogue import catalogue
    from swarmkit.swarm import services
    from swarmkit.target import opened, resolve

    given = globals_of(context)
    ui = given.ui
    running: dict[str, list[Service]] = {}
    cluster = ""
    try:
        with opened(resolve(given.inventory, given.engine), ui) as swarm:
            running = stacks(services(swarm.engine))
            cluster = swarm.target.name
    except SwarmkitError:
        # The catalogue is there without a cluster; a cluster that was asked for by name must answer.
        if given.inventory or given.engine:
            raise
    known = {source.name: source.description() for source in catalogue()}
    rows = [
        {
            "name": name,
            "services": len(running.get(name, [])),
            "running": sum(one.running for one in running.get(name, [])),
            "desired": sum(one.desired for one in running.get(name, [])),
            "catalogue": name in known,
            "description": known.get(name, ""),
        }
        for name in sorted({*known, *running})
    ]
    ui.result(
        rows,
        lambda: ui.table(
            ("STACK", f"ON {cluster}" if cluster else "RUNNING", "DESCRIPTION"),
            [
                (
                    row["name"],
                    f"{row['running']}/{row['desired']} tasks" if row["services"] else "-",
                    row["description"] or ("" if row["catalogue"] else "(not in the catalogue)"),
                )
                for row in rows
            ],
        ),
    )


@app.command()
def up(
    context: typer.Context,
    stack: Stack,
    name: Annotated[str | None, typer.Option("--name", help="The instance's name on the cluster.")] = None,
    sets: Sets = None,
    values: Values = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and touch nothing.")] = False,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="With --dry-run: exit 5 where there are changes.")
    ] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Remove services no longer in the file.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait for the tasks.")] = 300,
) -> None:
    """Deploy a stack; ends when it runs and is healthy."""
    import os

    from swarmkit.balancer.deploy import follow_routes
    from swarmkit.deploy.apply import Deployment, after, carry_out, describe, prepare
    from swarmkit.deploy.catalogue import find
    from swarmkit.target import opened, resolve

    given = globals_of(context)
    ui = given.ui
    instance = _own_name(name or find(stack).name)
    project = _rendered(stack, sets, values).project(os.environ)
    for warning in project.warnings:
        ui.warn(warning)
    with (
        ui.timed() as seconds,
        opened(resolve(given.inventory, given.engine), ui, mutates=not dry_run) as swarm,
    ):
        prepared = prepare(swarm, ui, project, instance, dry_run=dry_run, prune=prune)
        urls: list[str] = []
        if dry_run:
            known = after(swarm.engine, prepared.desired)
            balancing = follow_routes(swarm, ui, timeout=timeout, dry_run=True, known=known)
        else:
            carry_out(swarm.engine, ui, prepared, timeout=timeout)
            balancing = follow_routes(swarm, ui, timeout=timeout)
            urls = _urls(swarm, instance)
        changes = [*prepared.changes, *balancing]
        deployment = Deployment(instance, changes, not dry_run, seconds())

    def text() -> None:
        if dry_run:
            for change in changes:
                ui.line(f"  {describe(change)}")
            ui.line(f"{len(changes)} changes planned; nothing was changed")
            return
        did = f"{len(changes)} changes" if changes else "nothing to do"
        ui.line(f"{instance}: running and healthy ({did}, {deployment.seconds:.1f} s)")
        for url in urls:
            ui.line(f"  {url}")

    ui.result(deployment.json() | {"urls": urls}, text)
    if dry_run and detailed_exitcode and changes:
        raise typer.Exit(Exit.CHANGES)


def _own_name(instance: str) -> str:
    """The name, unless swarmkit's own services go by it; raises UsageError for those."""
    if instance == "swarmkit" or instance.startswith("swarmkit-"):
        raise UsageError(f'"{instance}" is a name of swarmkit\'s own', hint="choose another with --name")
    return instance


def _urls(swarm: Swarm, instance: str) -> list[str]:
    from swarmkit.balancer.urls import urls

    return urls(swarm, instance)


def _rendered(stack: str, sets: list[str] | None, values: Path | None) -> Rendered:
    from swarmkit.deploy.catalogue import find
    from swarmkit.deploy.inputs import load, resolve
    from swarmkit.deploy.render import render

    source = find(stack)
    pairs = [text.partition("=") for text in sets or []]
    errors: list[SwarmkitError] = [
        UsageError(f'--set takes KEY=VALUE, got "{pair[0]}"') for pair in pairs if not pair[1]
    ]
    raise_all(errors)
    declared = load(source.inputs) if source.inputs else {}
    return render(source, resolve(declared, {key: value for key, _, value in pairs}, values))


@app.command()
def render(context: typer.Context, stack: Stack, sets: Sets = None, values: Values = None) -> None:
    """Print the Compose file that a stack becomes with its inputs."""
    given = globals_of(context)
    rendered = _rendered(stack, sets, values)
    given.ui.result({"stack": stack, "text": rendered.text}, lambda: given.ui.raw(rendered.text))


@app.command()
def inputs(context: typer.Context, stack: Stack) -> None:
    """List what a stack can be told with --set and --values."""
    from swarmkit.deploy.catalogue import find
    from swarmkit.deploy.inputs import load

    given = globals_of(context)
    ui = given.ui
    source = find(stack)
    declared = load(source.inputs) if source.inputs else {}
    document = [{"name": name, **one.model_dump(mode="json")} for name, one in declared.items()]
    rows = [
        (name, one.type, "-" if one.default is None else one.default, one.description)
        for name, one in declared.items()
    ]
    ui.result(document, lambda: ui.table(("INPUT", "TYPE", "DEFAULT", "DESCRIPTION"), rows, "no inputs"))


@app.command()
def down(
    context: typer.Context,
    stack: Instance,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait for the tasks.")] = 120,
) -> None:
    """Remove a stack; ends when its tasks are gone. Volumes stay."""
    from swarmkit.balancer.deploy import follow_routes
    from swarmkit.deploy.apply import Deployment
    from swarmkit.deploy.apply import down as remove
    from swarmkit.target import opened, resolve

    given = globals_of(context)
    ui = given.ui
    _own_name(stack)
    with ui.timed() as seconds, opened(resolve(given.inventory, given.engine), ui, mutates=True) as swarm:
        changes = remove(swarm.engine, ui, stack, timeout=timeout)
        if not changes:
            _known(swarm, stack)
        balancing = follow_routes(swarm, ui, timeout=timeout)
        deployment = Deployment(stack, [*changes, *balancing], True, seconds())
        ui.result(deployment.json(), f"{stack}: gone ({deployment.seconds:.1f} s)")


def _known(swarm: Swarm, stack: str) -> list[Service]:
    from swarmkit.deploy.apply import stacks
    from swarmkit.swarm import services

    found = stacks(services(swarm.engine))
    if stack not in found:
        hint = f"running here: {', '.join(sorted(found)) or 'no stack'}"
        raise UsageError(f'no stack is called "{stack}"', where=swarm.target.name, hint=hint)
    return found[stack]


@app.command("ps")
def ps(
    context: typer.Context,
    stack: Instance,
    everything: Annotated[bool, typer.Option("--all", help="Also tasks that have ended.")] = False,
) -> None:
    """List a stack's tasks."""
    from swarmkit import report
    from swarmkit.swarm import nodes, tasks
    from swarmkit.target import opened, resolve

    given = globals_of(context)
    with opened(resolve(given.inventory, given.engine), given.ui) as swarm:
        found = _known(swarm, stack)
        every = tasks(swarm.engine, [one.id for one in found])
        rows = report.task_rows(found, every, nodes(swarm.engine), everything=everything)
    given.ui.result(rows, lambda: report.show_tasks(given.ui, rows))


@app.command("logs")
def logs(
    context: typer.Context,
    stack: Instance,
    follow: Follow = False,
    since: Since = None,
    until: Until = None,
    tail: Tail = None,
    timestamps: Timestamps = False,
) -> None:
    """Print what a stack's services write, from all their nodes, in the order of time."""
    show_logs(globals_of(context), lambda swarm: _known(swarm, stack), follow, since, until, tail, timestamps)
