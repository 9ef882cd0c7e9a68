"""Commands about stacks: ls, show, inputs, render, new, up, rollback, down, history, ps, logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swarmkit.cli import deploying
from swarmkit.cli.common import globals_of
from swarmkit.cli.logs import Follow, Since, Tail, Timestamps, Until, show_logs
from swarmkit.cli.stackargs import (
    EnvFiles,
    Files,
    Instance,
    Name,
    Profiles,
    SecretFiles,
    Sets,
    Stack,
    Values,
    drafted,
    facts,
    inputs_given,
    loading,
    services_of,
)
from swarmkit.errors import SwarmkitError
from swarmkit.names import is_own

if TYPE_CHECKING:
    from swarmkit.deploy.catalogue import StackSource
    from swarmkit.deploy.inputs import Input, Inputs
    from swarmkit.deploy.types import Schema
    from swarmkit.swarm import Service
    from swarmkit.ui import Ui

app = typer.Typer(
    help="Deploy stacks of the catalogue, or your own Compose files.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("ls")
def ls(context: typer.Context) -> None:
    """List the catalogue, and the stacks that run."""
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
    except SwarmkitError as error:
        # The catalogue is there without a cluster; a cluster that was asked for by name must answer.
        if given.inventory or given.engine:
            raise
        ui.say(f"what runs is not known: {error}")
    known = {source.name: source.description() for source in catalogue()}
    rows = [
        {
            "name": name,
            **_counts(running.get(name, ())),
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
                    _counts_text(row) or "-",
                    row["description"] or ("" if row["catalogue"] else _besides(str(row["name"]))),
                )
                for row in rows
            ],
        ),
    )


def _besides(stack: str) -> str:
    return "(swarmkit's own)" if is_own(stack) else "(not in the catalogue)"


def _counts(found: Sequence[Service]) -> dict[str, int]:
    """How many services, tasks that run and should, and jobs there are; the tasks of jobs are to end."""
    steady = [one for one in found if not one.is_job]
    return {
        "services": len(found),
        "running": sum(one.running for one in steady),
        "desired": sum(one.desired for one in steady),
        "jobs": len(found) - len(steady),
        "jobs_completed": sum(one.is_completed for one in found),
    }


def _counts_text(counts: Mapping[str, Any]) -> str:
    has_tasks = counts["services"] > counts["jobs"]
    tasks = f"{counts['running']}/{counts['desired']} tasks" if has_tasks else ""
    jobs = f"{counts['jobs_completed']}/{counts['jobs']} jobs completed" if counts["jobs"] else ""
    return ", ".join(filter(None, (tasks, jobs)))


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
    """Print the Compose file that a stack becomes. No secret is ever in it."""
    import os

    from swarmkit.compose.load import written
    from swarmkit.target import opened, resolve

    given = globals_of(context)
    draft = drafted(
        stack, inputs_given(sets, values, secret_files), files, loading(name, env_files, profiles)
    )
    if draft.needs_cluster:
        with opened(resolve(given.inventory, given.engine), given.ui) as swarm:
            cluster = facts(swarm)
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
    """List what a stack can be told. That is done with --set, --values and --secret-file."""
    from swarmkit.deploy.catalogue import find

    ui = globals_of(context).ui
    found = _declared(find(stack))
    document = [_input_json(name, one) for name, one in found.items()]
    ui.result(document, lambda: _show_inputs(ui, found))


@app.command()
def show(context: typer.Context, stack: Stack) -> None:
    """Tell what a stack is, what it requires, and what it can be told."""
    from swarmkit.deploy.catalogue import find
    from swarmkit.deploy.draft import requires_by_default

    ui = globals_of(context).ui
    source = find(stack)
    found = _declared(source)
    requires = requires_by_default(source)
    document = {
        "name": source.name,
        "description": source.description(),
        "file": str(source.file),
        "template": source.is_template,
        "readme": str(source.readme) if source.readme else None,
        "requires": requires,
        "inputs": [_input_json(name, one) for name, one in found.items()],
    }

    def text() -> None:
        ui.line(f"{source.name}: {document['description'] or 'it says nothing of itself'}")
        ui.line(f"file      {source.file}")
        if source.readme:
            ui.line(f"readme    {source.readme}")
        if requires is None:
            ui.line("requires  what its inputs make of it")
        elif requires:
            ui.line(f"requires  {', '.join(requires)}")
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
        "constraints": _constraints(declared),
        "entries": declared.entries.type_text if declared.has_entries else None,
        "entry_constraints": _constraints(declared.entries) if declared.has_entries else [],
        "secret": declared.is_secret,
        "variable": variable(name),
    }


def _constraints(declared: Schema) -> list[dict[str, Any]]:
    return [{each.word: each.operand} for each in declared.constraints]


def _show_inputs(ui: Ui, found: Inputs) -> None:
    rows = [
        (
            name,
            one.type_text,
            "required" if one.must_be_given else "-" if one.default is None else one.default_text,
            one.constraints_text or "-",
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


deploying.register(app)


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
            services_of(swarm, stack)

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
        found = services_of(swarm, stack)
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
    """Print what a stack's services write. It comes from all their nodes, in the order of time."""
    show_logs(
        globals_of(context),
        lambda swarm: services_of(swarm, stack),
        follow,
        since,
        until,
        tail,
        timestamps,
        joins=lambda service: service.stack == stack,
    )
