"""Commands about stacks: ls, show, inputs, render, new, up, history, rollback, down, ps, logs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swarmkit.cli.common import BreakLock, Detailed, DryRun, Globals, LockWait, confirm_target, globals_of
from swarmkit.cli.complete import running_stacks, stack_names
from swarmkit.cli.logs import Follow, Since, Tail, Timestamps, Until, show_logs
from swarmkit.errors import Exit, SwarmkitError, UsageError

if TYPE_CHECKING:
    from swarmkit.compose.load import Options as Loading
    from swarmkit.deploy.catalogue import StackSource
    from swarmkit.deploy.cluster import Cluster
    from swarmkit.deploy.draft import Draft, Ready
    from swarmkit.deploy.inputs import Input, Inputs
    from swarmkit.deploy.plan import Change, Plan
    from swarmkit.deploy.report import Deployment
    from swarmkit.deploy.values import Ask, Given
    from swarmkit.swarm import Service
    from swarmkit.target import Swarm
    from swarmkit.ui import Ui


class ResolveImage(Enum):
    """docker's choices, for Typer; `swarmkit.images.resolve.Resolve` says what they mean."""

    ALWAYS = "always"
    CHANGED = "changed"
    NEVER = "never"


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
Values = Annotated[
    list[Path] | None, typer.Option("--values", help="A YAML file of inputs; may be repeated, the last wins.")
]
SecretFiles = Annotated[
    list[str] | None,
    typer.Option("--secret-file", help="NAME=PATH of a secret input's file; - is standard input."),
]
Name = Annotated[str | None, typer.Option("--name", help="The instance's name on the cluster.")]
Files = Annotated[
    list[Path] | None,
    typer.Option(
        "-f",
        "--file",
        help="A Compose file to lay over STACK; may be repeated. Where there is no such stack, STACK is the"
        " instance's name and the first file the stack, as with docker stack deploy.",
    ),
]
EnvFiles = Annotated[
    list[Path] | None,
    typer.Option("--env-file", help="Variables, instead of the .env beside the file; may be repeated."),
]
Profiles = Annotated[
    list[str] | None, typer.Option("--profile", help="Also the services of this profile; may be repeated.")
]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds to wait for the tasks.")]


@app.command("ls")
def ls(context: typer.Context) -> None:
    """List the catalogue, and what of it runs on the cluster (if there is one)."""
    from swarmkit.deploy.catalogue import catalogue
    from swarmkit.deploy.observe import stacks
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
    name: Name = None,
    sets: Sets = None,
    values: Values = None,
    secret_files: SecretFiles = None,
    files: Files = None,
    env_files: EnvFiles = None,
    profiles: Profiles = None,
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
    resolve_image: Annotated[
        ResolveImage,
        typer.Option("--resolve-image", help="When to ask registries for digests and platforms of images."),
    ] = ResolveImage.ALWAYS,
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
    from swarmkit.deploy.apply import carry_out
    from swarmkit.deploy.observe import after
    from swarmkit.deploy.options import Options
    from swarmkit.deploy.prepare import prepare
    from swarmkit.deploy.report import Deployment
    from swarmkit.target import opened, resolve

    given = globals_of(context)
    ui = given.ui
    if only and prune:
        raise UsageError("--only and --prune cannot go together", hint="prune with the whole stack")
    inputs_given = _given(sets, values, secret_files)
    draft = _draft(stack, inputs_given, files, _loading(name, env_files, profiles, only))
    # Mistakes are told before any machine is asked, where that can be.
    ready = None if draft.needs_cluster else draft.ready(os.environ)
    if ready:
        _own_name(ready.instance)
    with (
        ui.timed() as seconds,
        opened(resolve(given.inventory, given.engine), ui, mutates=not dry_run) as swarm,
    ):
        wanted = ready or draft.ready(os.environ, _cluster(swarm))
        instance = _own_name(wanted.instance)
        changes: list[Change] = []
        notes: list[str] = []
        urls: list[str] = []
        for one in _with_required(given, swarm, wanted, inputs_given, dry_run=dry_run):
            for warning in one.project.warnings:
                ui.warn(warning)
            is_wanted = one is wanted
            prepared = prepare(
                swarm,
                ui,
                one.project,
                one.instance,
                dry_run=dry_run,
                prune=prune and is_wanted,
                replace_secrets=replace_secrets and is_wanted,
                chosen=only or () if is_wanted else (),
                resolve_image=resolve_image.value,
            )
            plan = prepared.plan
            if not dry_run:
                _agree(given, one.instance, plan)
                options = Options(
                    timeout,
                    f"stack up {one.instance}",
                    rollback=not no_rollback,
                    recreate=plan.recreates,
                    lock_wait=lock_wait,
                    break_lock=break_lock,
                )
                plan = carry_out(swarm.engine, ui, prepared, options, swarm.fleet)
            changes += plan.changes
            notes += plan.notes
        if dry_run:
            known = after(swarm.engine, prepared.desired)
            changes += follow_routes(swarm, ui, timeout=timeout, dry_run=True, known=known)
        else:
            changes += follow_routes(swarm, ui, timeout=timeout)
            urls = _urls(swarm, instance)
        deployment = Deployment(instance, changes, not dry_run, seconds(), notes)
    _show_deployment(ui, deployment, dry_run=dry_run, urls=urls)
    if dry_run and detailed_exitcode and changes:
        raise typer.Exit(Exit.CHANGES)


def _agree(given: Globals, stack: str, plan: Plan) -> None:
    """Make sure that the user wants a plan which makes again what cannot change, and so stops tasks.

    Raises UsageError, with the plan shown, where that is not said.
    """
    from swarmkit.deploy.report import describe

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
    from swarmkit.deploy.report import describe

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
    from swarmkit.deploy.observe import observe
    from swarmkit.target import opened, resolve

    given = globals_of(context)
    ui = given.ui
    with opened(resolve(given.inventory, given.engine), ui) as swarm:
        revisions = observe(swarm.engine, stack).revisions
        if not revisions:
            _known(swarm, stack)

    def text() -> None:
        if not revisions:
            ui.line("no revisions: swarmkit has not deployed it")
        for revision in revisions:
            when = f"{revision.time:%Y-%m-%d %H:%M:%S} UTC" if revision.time else "-"
            left = " (unfinished)" if revision.is_open else ""
            ui.line(f"{revision.number}  {when}  {revision.who}  {revision.doing}{left}")
            for change in revision.changes:
                ui.line(f"    {change}")

    ui.result([revision.json() for revision in revisions], text)


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
    from swarmkit.deploy.apply import carry_out
    from swarmkit.deploy.observe import after
    from swarmkit.deploy.options import Options
    from swarmkit.deploy.prepare import prepare_return
    from swarmkit.deploy.report import Deployment
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
            plan = carry_out(swarm.engine, ui, prepared, options, swarm.fleet)
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


def _given(sets: list[str] | None, values: list[Path] | None, secret_files: list[str] | None) -> Given:
    import os

    from swarmkit.deploy.values import Given

    return Given(
        sets or (), values or (), secret_files or (), os.environ, stdin=lambda: sys.stdin.buffer.read()
    )


def _loading(
    name: str | None,
    env_files: list[Path] | None,
    profiles: list[str] | None,
    services: list[str] | None = None,
) -> Loading:
    from swarmkit.compose.load import Options

    return Options(
        env_files=env_files or (), profiles=profiles or (), services=services or (), name=name or ""
    )


def _draft(stack: str, given: Given, files: list[Path] | None, options: Loading) -> Draft:
    from swarmkit.deploy.draft import draft
    from swarmkit.deploy.sources import chosen

    source, options = chosen(stack, files or (), options)
    return draft(source, given, _asking(), options)


def _asking() -> Ask | None:
    """Who is asked for inputs that are missing: the person at the terminal, if there is one."""
    if not sys.stdin.isatty():
        return None
    from swarmkit.remote import Secrets

    def ask(name: str, declared: Input, wrong: str) -> str | None:
        if wrong:
            typer.echo(f"  {wrong}", err=True)
        question = f"{name} ({declared.description})" if declared.description else name
        if declared.is_secret:
            # Unlike Typer's, it ends the echo before it asks.
            return Secrets().ask(f"{question}: ")
        return str(typer.prompt(question, err=True))

    return ask


def _cluster(swarm: Swarm) -> Cluster:
    from swarmkit.deploy.cluster import Cluster
    from swarmkit.swarm import nodes

    return Cluster.of(nodes(swarm.engine))


def _with_required(
    given: Globals, swarm: Swarm, wanted: Ready, inputs_given: Given, *, dry_run: bool
) -> Sequence[Ready]:
    """What is to be deployed: `wanted`, after the stacks that it requires and that do not run.

    Those are brought up where the user says so; raises UsageError, with the command, where not.
    """
    import os

    from swarmkit.deploy.draft import draft, with_required, without_arguments
    from swarmkit.deploy.observe import stacks
    from swarmkit.swarm import services

    if not wanted.requires:
        return [wanted]

    def prepare(source: StackSource) -> Ready:
        made = draft(source, without_arguments(inputs_given), _asking())
        return made.ready(os.environ, _cluster(swarm) if made.needs_cluster else None)

    queue = with_required(wanted, list(stacks(services(swarm.engine))), prepare)
    missing = [one.instance for one in queue if one is not wanted]
    if not missing:
        return queue
    names = ", ".join(missing)
    message = (
        f"{wanted.instance} requires {names}, which {'does' if len(missing) == 1 else 'do'} not run here"
    )
    if dry_run:
        given.ui.warn(f"{message}; what {wanted.instance} itself changes can be told once that runs")
        return queue[:-1]
    if not given.yes:
        hint = f"swarmkit stack up {missing[0]}; or add --yes, and it is brought up first"
        if not sys.stdin.isatty():
            raise UsageError(message, hint=hint)
        if not typer.confirm(f"{message}. Bring it up first?", err=True):
            raise UsageError(f"{message}; nothing was changed", hint=hint)
    given.ui.say(f"  {names} first, which {wanted.instance} requires")
    return queue


@app.command()
def render(
    context: typer.Context,
    stack: Stack,
    name: Name = None,
    sets: Sets = None,
    values: Values = None,
    secret_files: SecretFiles = None,
    files: Files = None,
    env_files: EnvFiles = None,
    profiles: Profiles = None,
    resolved: Annotated[
        bool,
        typer.Option(
            "--resolved", help="What is deployed of it: files merged, variables filled in; so with -f, too."
        ),
    ] = False,
) -> None:
    """Print the Compose file that a stack becomes with its inputs; it has no secret in it."""
    import os

    from swarmkit.compose.load import written
    from swarmkit.target import opened, resolve

    given = globals_of(context)
    draft = _draft(stack, _given(sets, values, secret_files), files, _loading(name, env_files, profiles))
    if draft.needs_cluster:
        with opened(resolve(given.inventory, given.engine), given.ui) as swarm:
            cluster = _cluster(swarm)
        rendered = draft.render(cluster)
    else:
        rendered = draft.render()
    text = rendered.text
    if resolved or files or env_files or profiles:
        project = rendered.project(os.environ, draft.options)
        for warning in project.warnings:
            given.ui.warn(warning)
        text = written(project)
    given.ui.result({"stack": stack, "text": text}, lambda: given.ui.raw(text))


@app.command()
def inputs(context: typer.Context, stack: Stack) -> None:
    """List what a stack can be told with --set, --values and --secret-file."""
    from swarmkit.deploy.catalogue import find

    ui = globals_of(context).ui
    found = _declared(find(stack))
    document = [_input_json(name, one) for name, one in found.items()]
    ui.result(document, lambda: _show_inputs(ui, found))


@app.command()
def show(context: typer.Context, stack: Stack) -> None:
    """Tell what a stack is, where it comes from, and what it can be told."""
    from swarmkit.deploy.catalogue import find

    ui = globals_of(context).ui
    source = find(stack)
    found = _declared(source)
    document = {
        "name": source.name,
        "description": source.description(),
        "file": str(source.file),
        "template": source.is_template,
        "readme": str(source.readme) if source.readme else None,
        "inputs": [_input_json(name, one) for name, one in found.items()],
    }

    def text() -> None:
        ui.line(f"{source.name}: {document['description'] or 'it says nothing of itself'}")
        ui.line(f"file    {source.file}")
        if source.readme:
            ui.line(f"readme  {source.readme}")
        ui.line()
        _show_inputs(ui, found)

    ui.result(document, text)


def _declared(source: StackSource) -> Inputs:
    from swarmkit.deploy.inputs import load

    return load(source.inputs) if source.inputs else {}


def _input_json(name: str, declared: Input) -> dict[str, Any]:
    from swarmkit.deploy.inputs import variable

    return {
        "name": name,
        **declared.model_dump(mode="json", exclude={"constraints", "entry_schema"}),
        "constraints": [{each.word: each.operand} for each in declared.constraints],
        "entries": declared.entries.type_text if declared.type in ("list", "map") else None,
        "secret": declared.is_secret,
        "variable": variable(name),
    }


def _show_inputs(ui: Ui, found: Inputs) -> None:
    rows = [
        (
            name,
            one.type_text,
            "required" if one.must_be_given else "-" if one.default is None else one.default,
            ", ".join(each.text() for each in one.constraints) or "-",
            one.description,
        )
        for name, one in found.items()
    ]
    ui.table(("INPUT", "TYPE", "DEFAULT", "CONSTRAINTS", "DESCRIPTION"), rows, "no inputs")


@app.command()
def new(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The stack's name, and that of the folder to make.")],
    folder: Annotated[Path, typer.Option("--in", help="Where to make the folder.")] = Path(),
) -> None:
    """Write a first stack of your own, which deploys as it is."""
    from swarmkit.deploy.new import create

    ui = globals_of(context).ui
    written = create(name, folder)
    # With ./ it is a folder, whatever the catalogue has.
    place = folder / name if folder.is_absolute() else f"./{folder / name}"

    def text() -> None:
        for path in written:
            ui.line(f"  {path}")
        ui.line(f"{name}: written; next: swarmkit stack up {place}")

    ui.result({"stack": name, "folder": str(place), "files": [str(path) for path in written]}, text)


@app.command()
def down(
    context: typer.Context,
    stack: Instance,
    volumes: Annotated[
        bool, typer.Option("--volumes", help="Also remove its volumes, on every machine. Their data is lost.")
    ] = False,
    timeout: Timeout = 120,
    force: Annotated[bool, typer.Option("--force", help="Also where a stack that runs requires it.")] = False,
    lock_wait: LockWait = 0,
    break_lock: BreakLock = False,
) -> None:
    """Remove a stack; ends when all of it is gone. Volumes stay, unless told otherwise."""
    from swarmkit.balancer.deploy import follow_routes
    from swarmkit.deploy.down import down as remove
    from swarmkit.deploy.down import remove_volumes
    from swarmkit.deploy.options import Options
    from swarmkit.deploy.report import Deployment
    from swarmkit.deploy.requires import refuse_if_required
    from swarmkit.swarm import services
    from swarmkit.target import opened, resolve

    given = globals_of(context)
    ui = given.ui
    _own_name(stack)
    target = resolve(given.inventory, given.engine, hosts_needed=volumes)
    if volumes:
        confirm_target(given, target, f"the volumes of {stack} would be removed from every machine")
    with ui.timed() as seconds, opened(target, ui, mutates=True) as swarm:
        if not force:
            refuse_if_required(services(swarm.engine), stack)
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
    from swarmkit.deploy.observe import stacks
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
    show_logs(
        globals_of(context),
        lambda swarm: _known(swarm, stack),
        follow,
        since,
        until,
        tail,
        timestamps,
        joins=lambda service: service.stack == stack,
    )
