"""Commands that change stacks: up, rollback, down."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from swarmkit.cli.common import BreakLock, Detailed, DryRun, Globals, LockWait, confirm_target, globals_of
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
    asking,
    drafted,
    facts,
    inputs_given,
    loading,
    services_of,
)
from swarmkit.errors import Exit, UsageError
from swarmkit.names import is_own

if TYPE_CHECKING:
    from swarmkit.compose.convert import DesiredStack
    from swarmkit.deploy.catalogue import StackSource
    from swarmkit.deploy.draft import Ready
    from swarmkit.deploy.plan import Change, Plan
    from swarmkit.deploy.prepare import Prepared
    from swarmkit.deploy.report import Deployment
    from swarmkit.deploy.values import Given
    from swarmkit.swarm import Service
    from swarmkit.target import Swarm
    from swarmkit.ui import Ui

Timeout = Annotated[float, typer.Option("--timeout", help="Seconds to wait for the tasks.")]


class ResolveImage(Enum):
    """docker's choices, for Typer; `swarmkit.images.resolve.Resolve` says what they mean."""

    ALWAYS = "always"
    CHANGED = "changed"
    NEVER = "never"


def register(group: typer.Typer) -> None:
    """Add the commands to those about stacks."""
    for command in (up, rollback, down):
        group.command()(command)


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
    """Deploy a stack; ends when it runs, or is again what it was."""
    import os
    from functools import partial

    from swarmkit.balancer.deploy import await_served, bring_secrets, follow_routes
    from swarmkit.balancer.urls import urls
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
    said = inputs_given(sets, values, secret_files)
    draft = drafted(stack, said, files, loading(name, env_files, profiles, only))
    # Mistakes are told before any machine is asked, where that can be.
    ready = None if draft.needs_cluster else draft.ready(os.environ)
    if ready:
        _own_name(ready.instance)
    with (
        ui.timed() as seconds,
        opened(resolve(given.inventory, given.engine), ui, mutates=not dry_run) as swarm,
    ):
        wanted = ready or draft.ready(os.environ, facts(swarm))
        instance = _own_name(wanted.instance)
        changes: list[Change] = []
        notes: list[str] = []
        planned: list[DesiredStack] = []
        for one in _with_required(given, swarm, wanted, said, dry_run=dry_run):
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
                # In a dry run what it requires does not come to be there.
                beside=planned if dry_run else (),
            )
            planned.append(prepared.desired)
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
                plan = carry_out(
                    swarm.engine,
                    ui,
                    prepared,
                    options,
                    swarm.fleet,
                    before_services=partial(bring_secrets, swarm, ui, timeout=timeout),
                )
            changes += plan.changes
            notes += plan.notes
        known = after(swarm.engine, *planned, gone=prepared.gone) if dry_run else None
        changes += follow_routes(swarm, ui, timeout=timeout, dry_run=dry_run, known=known)
        if changes and not dry_run:
            await_served(swarm, ui, prepared.services, timeout=timeout)
        deployment = Deployment(instance, changes, not dry_run, seconds(), notes)
        if dry_run:
            _show_plan(ui, deployment)
        else:
            _show_deployment(ui, deployment, _settled(swarm, prepared), urls(swarm, instance))
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


def _show_plan(ui: Ui, deployment: Deployment) -> None:
    from swarmkit.deploy.report import describe

    def text() -> None:
        for change in deployment.changes:
            ui.line(f"  {describe(change)}")
        _show_notes(ui, deployment)
        ui.line(f"{counted(deployment.changes)} planned; nothing was changed")

    _show(ui, deployment, text)


def _show_deployment(
    ui: Ui, deployment: Deployment, found: Sequence[Service], urls: Sequence[str] = ()
) -> None:
    """`found` are the services that the deployment has waited for."""

    def text() -> None:
        _show_notes(ui, deployment)
        did = counted(deployment.changes) if deployment.changes else "nothing to do"
        ui.line(f"{deployment.stack}: {standing(found)} ({did}, {deployment.seconds:.1f} s)")
        for url in urls:
            ui.line(f"  {url}")

    _show(ui, deployment, text, urls)


def _show(ui: Ui, deployment: Deployment, text: Callable[[], None], urls: Sequence[str] = ()) -> None:
    ui.result(deployment.json() | {"urls": list(urls)}, text)


def _show_notes(ui: Ui, deployment: Deployment) -> None:
    for note in deployment.notes:
        ui.line(f"  note: {note}")


def counted(changes: Sequence[Change]) -> str:
    return "1 change" if len(changes) == 1 else f"{len(changes)} changes"


def _settled(swarm: Swarm, prepared: Prepared) -> list[Service]:
    """The services that were waited for, as they are now."""
    from swarmkit.swarm import services

    return [one for one in services(swarm.engine, prepared.stack) if one.name in prepared.services]


_HEALTHY, _RUNNING, _COMPLETED, _EMPTY = "running and healthy", "running", "completed", "without tasks"


def standing(found: Sequence[Service]) -> str:
    """What became of services that were waited for: `2 of 4 services running and healthy, 2 completed`.

    Only of those with a health check in their spec is it known that they are healthy.
    """
    counts = Counter(map(_standing_of, found))
    told = [(word, counts[word]) for word in (_HEALTHY, _RUNNING, _COMPLETED, _EMPTY) if counts[word]]
    if not told:
        return "no service runs"
    (first, count), *rest = told
    if not rest:
        return first
    others = "".join(f", {number} {word}" for word, number in rest)
    return f"{count} of {len(found)} services {first}{others}"


def _standing_of(service: Service) -> str:
    if service.is_job:
        return _COMPLETED
    if not service.running:
        has_ended = service.replicas != 0 and not service.restarts_always
        return _COMPLETED if has_ended else _EMPTY
    return _HEALTHY if service.has_health_check else _RUNNING


def _with_required(
    given: Globals, swarm: Swarm, wanted: Ready, said: Given, *, dry_run: bool
) -> Sequence[Ready]:
    """What is to be deployed: `wanted`, after the stacks that it requires and that do not run.

    Those are brought up where the user says so; raises UsageError, with the command, where not.
    """
    import os

    from swarmkit.deploy.catalogue import catalogue
    from swarmkit.deploy.draft import draft, with_required, without_arguments
    from swarmkit.deploy.observe import stacks
    from swarmkit.swarm import services

    if not wanted.requires:
        return [wanted]

    places: dict[str, str] = {}

    def prepare(source: StackSource) -> Ready:
        made = draft(source, without_arguments(said), asking())
        ready = made.ready(os.environ, facts(swarm) if made.needs_cluster else None)
        places[ready.instance] = source.name if source in catalogue() else str(source.file)
        return ready

    queue = with_required(wanted, list(stacks(services(swarm.engine))), prepare)
    missing = [one.instance for one in queue if one is not wanted]
    if not missing:
        return queue
    names, is_one = ", ".join(missing), len(missing) == 1
    if not given.yes and not dry_run:
        message = f"{wanted.instance} requires {names}, which {'does' if is_one else 'do'} not run here"
        hint = (
            f"swarmkit stack up {places[missing[0]]}; or add --yes, and what is missing is brought up first"
        )
        if not sys.stdin.isatty():
            raise UsageError(message, hint=hint)
        if not typer.confirm(f"{message}. Bring {'it' if is_one else 'them'} up first?", err=True):
            raise UsageError(f"{message}; nothing was changed", hint=hint)
    given.ui.say(f"  {names} first, which {wanted.instance} requires")
    return queue


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
    """Return a stack to what it was; ends when that runs."""
    from functools import partial

    from swarmkit.balancer.deploy import await_served, bring_secrets, follow_routes
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
        if not dry_run:
            doing = f"stack rollback {stack}{f' {revision}' if revision is not None else ''}"
            # What it leaves is what it returns from: there is nothing better to go back to.
            options = Options(timeout, doing, rollback=False, lock_wait=lock_wait, break_lock=break_lock)
            plan = carry_out(
                swarm.engine,
                ui,
                prepared,
                options,
                swarm.fleet,
                before_services=partial(bring_secrets, swarm, ui, timeout=timeout),
            )
        known = after(swarm.engine, prepared.desired, gone=prepared.gone) if dry_run else None
        balancing = follow_routes(swarm, ui, timeout=timeout, dry_run=dry_run, known=known)
        if plan.changes and not dry_run:
            await_served(swarm, ui, prepared.services, timeout=timeout)
        deployment = Deployment(stack, [*plan.changes, *balancing], not dry_run, seconds(), plan.notes)
        if dry_run:
            _show_plan(ui, deployment)
        else:
            _show_deployment(ui, deployment, _settled(swarm, prepared))


def _own_name(instance: str) -> str:
    """The name, unless swarmkit's own services go by it; raises UsageError for those."""
    if is_own(instance):
        raise UsageError(f'"{instance}" is a name of swarmkit\'s own', hint="choose another with --name")
    return instance


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
        balancing: list[Change] = []
        changes = remove(
            swarm.engine,
            ui,
            stack,
            options,
            lambda: balancing.extend(follow_routes(swarm, ui, timeout=timeout)),
        )
        if volumes and swarm.fleet is not None:
            changes += remove_volumes(swarm.fleet, ui, stack)
        if not changes:
            services_of(swarm, stack)
        deployment = Deployment(stack, [*changes, *balancing], True, seconds())
        ui.result(deployment.json(), f"{stack}: gone ({deployment.seconds:.1f} s)")
