"""Commands about stacks: ls, up, history, rollback, down, ps, logs, inputs, render."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swarmkit.cli.common import BreakLock, Detailed, DryRun, Globals, LockWait, confirm_target, globals_of
from swarmkit.cli.complete import running_stacks, stack_names
from swarmkit.errors import Exit, SwarmkitError, UsageError, raise_all

if TYPE_CHECKING:
    from swarmkit.deploy.apply import Deployment
    from swarmkit.deploy.plan import Plan
    from swarmkit.deploy.render import Rendered
    from swarmkit.swarm import Service
    from swarmkit.target import Swarm
    from swarmkit.ui import Ui

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
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds to wait for the tasks.")]
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
    dry_run: DryRun = False,
    detailed_exitcode: Detailed = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove what is no longer in the file, once all else runs.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="SERVICE", help="Deploy this service alone; may be repeated."),
    ] = None,
    replace_secrets: Annotated[
        bool,
        typer.Option(
            "--replace-secrets",
            help="Make new versions of secrets that swarmkit has not made and so cannot compare.",
        ),
    ] = False,
    no_rollback: Annotated[
        bool, typer.Option("--no-rollback", help="Leave a deployment that fails as it is.")
    ] = False,
    timeout: Timeout = 300,
    lock_wait: LockWait = 0,
    break_lock: BreakLock = False,
) -> None:
    """Deploy a stack; ends when it runs and is healthy, or is again what it was."""
    import os

    from swarmkit.balancer.deploy import follow_routes
    from swarmkit.deploy.apply import Deployment, Options, after, carry_out, prepare
    from swarmkit.deploy.catalogue import find
    from swarmkit.target import opened, resolve

    given = globals_of(context)
    ui = given.ui
    if only and prune:
        raise UsageError("--only and --prune cannot go together", hint="prune with the whole stack")
    instance = _own_name(name or find(stack).name)
    project = _rendered(stack, sets, values).project(os.environ)
    for warning in project.warnings:
        ui.warn(warning)
    with (
        ui.timed() as seconds,
        opened(resolve(given.inventory, given.engine), ui, mutates=not dry_run) as swarm,
    ):
        prepared = prepare(
            swarm,
            ui,
            project,
            instance,
            dry_run=dry_run,
            prune=prune,
            replace_secrets=replace_secrets,
            chosen=only or (),
        )
        urls: list[str] = []
        plan = prepared.plan
        if dry_run:
            known = after(swarm.engine, prepared.desired)
            balancing = follow_routes(swarm, ui, timeout=timeout, dry_run=True, known=known)
        else:
            _agree(given, instance, plan)
            options = Options(
                timeout,
                f"stack up {instance}",
                rollback=not no_rollback,
                recreate=plan.recreates,
                lock_wait=lock_wait,
                break_lock=break_lock,
            )
            plan = carry_out(swarm.engine, ui, prepared, options)
            balancing = follow_routes(swarm, ui, timeout=timeout)
            urls = _urls(swarm, instance)
        changes = [*plan.changes, *balancing]
        deployment = Deployment(instance, changes, not dry_run, seconds(), plan.notes)
    _show_deployment(ui, deployment, dry_run=dry_run, urls=urls)
    if dry_run and detailed_exitcode and changes:
        raise typer.Exit(Exit.CHANGES)


def _agree(given: Globals, stack: str, plan: Plan) -> None:
    """Make sure that the user wants a plan which makes again what cannot change, and so stops tasks.

    Raises UsageError, with the plan shown, where that is not said.
    """
    import sys

    from swarmkit.deploy.apply import describe

    if not plan.recreates or given.yes:
        return
    for change in plan.changes:
        given.ui.say(f"  {describe(change)}")
    names = ", ".join(change.name for change in plan.changes if change.recreates)
    what = f"{names} would be made again, and what is on it would stop"
    hint = "--yes agrees to that"
    if given.ui.is_json or not sys.stdin.isatty():
        raise UsageError(f"{what}; nothing was changed", where=stack, hint=hint)
    typer.echo(f"{what}.", err=True)
    if typer.prompt("Type the stack's name to go on", err=True) != stack:
        raise UsageError("not confirmed; nothing was changed", where=stack, hint=hint)


def _show_deployment(
    ui: Ui, deployment: Deployment, *, dry_run: bool = False, urls: Sequence[str] = ()
) -> None:
    from swarmkit.deploy.apply import describe

    changes = deployment.changes

    def text() -> None:
        if dry_run:
            for change in changes:
                ui.line(f"  {describe(change)}")
        for note in deployment.notes:
            ui.line(f"  note: {note}")
        if dry_run:
            ui.line(f"{len(changes)} changes planned; nothing was changed")
            return
        did = f"{len(changes)} changes" if changes else "nothing to do"
        ui.line(f"{deployment.stack}: running and healthy ({did}, {deployment.seconds:.1f} s)")
        for url in urls:
            ui.line(f"  {url}")

    ui.result(deployment.json() | {"urls": list(urls)}, text)


@app.command()
def history(context: typer.Context, stack: Instance) -> None:
    """List what was deployed as a stack, the newest last."""
    from swarmkit.deploy.apply import observe
    from swarmkit.target import opened, resolve

    given = globals_of(context)
    ui = given.ui
    with opened(resolve(given.inventory, given.engine), ui) as swarm:
        revisions = observe(swarm.engine, stack).revisions
        if not revisions:
            _known(swarm, stack)
    rows = [
        (
            revision.number,
            revision.time.strftime("%Y-%m-%d %H:%M:%S") if revision.time else "-",
            revision.who,
            f"{revision.doing}{' (unfinished)' if revision.is_open else ''}",
            ", ".join(sorted(set(revision.after.images().values()))),
            "; ".join(revision.changes),
        )
        for revision in revisions
    ]
    columns = ("REVISION", "TIME (UTC)", "WHO", "COMMAND", "IMAGES", "CHANGES")
    ui.result(
        [revision.json() for revision in revisions],
        lambda: ui.table(columns, rows, "no revisions: swarmkit has not deployed it"),
    )


@app.command()
def rollback(
    context: typer.Context,
    stack: Instance,
    revision: Annotated[
        int | None, typer.Argument(help="A number of `stack history`; else what was before the newest.")
    ] = None,
    dry_run: DryRun = False,
    timeout: Timeout = 300,
    lock_wait: LockWait = 0,
    break_lock: BreakLock = False,
) -> None:
    """Return a stack to what it was; ends when that runs and is healthy."""
    from swarmkit.balancer.deploy import follow_routes
    from swarmkit.deploy.apply import Deployment, Options, after, carry_out, prepare_return
    from swarmkit.target import opened, resolve

    given = globals_of(context)
    ui = given.ui
    _own_name(stack)
    with (
        ui.timed() as seconds,
        opened(resolve(given.inventory, given.engine), ui, mutates=not dry_run) as swarm,
    ):
        prepared = prepare_return(swarm.engine, stack, revision)
        plan = prepared.plan
        if dry_run:
            known = after(swarm.engine, prepared.desired)
            balancing = follow_routes(swarm, ui, timeout=timeout, dry_run=True, known=known)
        else:
            doing = f"stack rollback {stack}{f' {revision}' if revision is not None else ''}"
            # What it leaves is what it returns from: there is nothing better to go back to.
            options = Options(timeout, doing, rollback=False, lock_wait=lock_wait, break_lock=break_lock)
            plan = carry_out(swarm.engine, ui, prepared, options)
            balancing = follow_routes(swarm, ui, timeout=timeout)
        deployment = Deployment(stack, [*plan.changes, *balancing], not dry_run, seconds(), plan.notes)
    _show_deployment(ui, deployment, dry_run=dry_run)


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
    volumes: Annotated[
        bool, typer.Option("--volumes", help="Also remove its volumes, on every machine. Their data is lost.")
    ] = False,
    timeout: Timeout = 120,
    lock_wait: LockWait = 0,
    break_lock: BreakLock = False,
) -> None:
    """Remove a stack; ends when all of it is gone. Volumes stay, unless told otherwise."""
    from swarmkit.balancer.deploy import follow_routes
    from swarmkit.deploy.apply import Deployment, Options, remove_volumes
    from swarmkit.deploy.apply import down as remove
    from swarmkit.target import opened, resolve

    given = globals_of(context)
    ui = given.ui
    _own_name(stack)
    target = resolve(given.inventory, given.engine, hosts_needed=volumes)
    if volumes:
        confirm_target(given, target, f"the volumes of {stack} would be removed from every machine")
    with ui.timed() as seconds, opened(target, ui, mutates=True) as swarm:
        options = Options(timeout, f"stack down {stack}", lock_wait=lock_wait, break_lock=break_lock)
        changes = remove(swarm.engine, ui, stack, options)
        if volumes and swarm.fleet is not None:
            changes += remove_volumes(swarm.fleet, ui, stack)
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
    tail: Annotated[int, typer.Option("--tail", min=0, help="The last lines of each service.")] = 100,
) -> None:
    """Print the logs of a stack's services."""
    from swarmkit.services.logs import log_lines, show_logs
    from swarmkit.target import opened, resolve

    given = globals_of(context)
    with opened(resolve(given.inventory, given.engine), given.ui) as swarm:
        show_logs(given.ui, log_lines(swarm.engine, _known(swarm, stack), tail))
