"""Commands that change one service: update, with its canary, and rollback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swarmkit.cli.common import BreakLock, Detailed, DryRun, LockWait, globals_of
from swarmkit.cli.complete import service_names
from swarmkit.cli.deploying import Timeout, counted, standing
from swarmkit.errors import Exit, UsageError

if TYPE_CHECKING:
    from swarmkit.deploy.options import Options
    from swarmkit.deploy.plan import Plan
    from swarmkit.services.edits import Edits
    from swarmkit.services.revise import Revision
    from swarmkit.swarm import Service
    from swarmkit.target import Swarm
    from swarmkit.ui import Ui

ServiceName = Annotated[str, typer.Argument(help="The service.", autocompletion=service_names)]
Many = list[str] | None


def register(root: typer.Typer) -> None:
    """Add the commands to the top level."""
    root.command()(update)
    root.command()(rollback)


def _many(name: str, text: str, metavar: str | None = None) -> Any:
    return typer.Option(name, help=f"{text} May be repeated.", metavar=metavar)


def _all(values: Many) -> tuple[str, ...]:
    return tuple(values or ())


def update(
    context: typer.Context,
    service: ServiceName,
    image: Annotated[str | None, typer.Option("--image", help="The image to run.")] = None,
    env: Annotated[Many, _many("--env", "Set a variable; K alone passes on ours.", "K=V")] = None,
    env_rm: Annotated[Many, _many("--env-rm", "Take a variable away.", "K")] = None,
    label: Annotated[Many, _many("--label", "Set a label of the service, such as a route's.", "K=V")] = None,
    label_rm: Annotated[Many, _many("--label-rm", "Take such a label away.", "K")] = None,
    container_label: Annotated[
        Many, _many("--container-label", "Set a label of its containers.", "K=V")
    ] = None,
    container_label_rm: Annotated[Many, _many("--container-label-rm", "Take such a label away.", "K")] = None,
    limit_cpu: Annotated[
        str | None, typer.Option("--limit-cpu", help="CPUs a task may use; 0 for all.")
    ] = None,
    limit_memory: Annotated[
        str | None, typer.Option("--limit-memory", help="Memory a task may use, such as 512M; 0 for all.")
    ] = None,
    reserve_cpu: Annotated[
        str | None, typer.Option("--reserve-cpu", help="CPUs kept for a task; 0 for none.")
    ] = None,
    reserve_memory: Annotated[
        str | None, typer.Option("--reserve-memory", help="Memory kept for a task; 0 for none.")
    ] = None,
    constraint: Annotated[
        Many, _many("--constraint", "Only nodes such as node.role==worker.", "KEY==VALUE")
    ] = None,
    constraint_rm: Annotated[Many, _many("--constraint-rm", "Take a constraint away.", "KEY==VALUE")] = None,
    secret: Annotated[
        Many, _many("--secret", "Give it a secret: NAME, or source=NAME,target=FILE.", "SECRET")
    ] = None,
    secret_rm: Annotated[Many, _many("--secret-rm", "Take a secret away.", "NAME")] = None,
    config: Annotated[
        Many, _many("--config", "Give it a config: NAME, or source=NAME,target=FILE.", "CONFIG")
    ] = None,
    config_rm: Annotated[Many, _many("--config-rm", "Take a config away.", "NAME")] = None,
    mount: Annotated[
        Many, _many("--mount", "Mount type=volume|bind|tmpfs,source=…,target=…[,readonly].", "MOUNT")
    ] = None,
    mount_rm: Annotated[Many, _many("--mount-rm", "Take the mount at a path away.", "TARGET")] = None,
    command: Annotated[
        str | None,
        typer.Option("--command", help="The arguments, quoted as for a shell; empty for the image's own."),
    ] = None,
    parallelism: Annotated[
        int | None, typer.Option("--parallelism", help="Tasks to replace at a time; 0 for all.")
    ] = None,
    delay: Annotated[str | None, typer.Option("--delay", help="The wait between them, such as 10s.")] = None,
    order: Annotated[
        str | None,
        typer.Option("--order", help="start-first (a new task, then an old one stops), stop-first."),
    ] = None,
    monitor: Annotated[
        str | None, typer.Option("--monitor", help="How long each new task is watched, such as 30s.")
    ] = None,
    max_failure_ratio: Annotated[
        float | None, typer.Option("--max-failure-ratio", help="The share of new tasks that may fail.")
    ] = None,
    failure_action: Annotated[
        str | None,
        typer.Option("--failure-action", help="rollback, pause (stay where it is) or continue, on failure."),
    ] = None,
    stop_grace_period: Annotated[
        str | None, typer.Option("--stop-grace-period", help="How long a task may take to stop.")
    ] = None,
    stop_signal: Annotated[
        str | None, typer.Option("--stop-signal", help="What tells it to, such as SIGQUIT.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Start all tasks again, also where nothing changes.")
    ] = False,
    canary: Annotated[
        str | None,
        typer.Option("--canary", metavar="PERCENT", help="Try it on so much of the requests first."),
    ] = None,
    go_on: Annotated[
        bool, typer.Option("--continue", help="Make the service what its canary is; the canary goes.")
    ] = False,
    abort: Annotated[bool, typer.Option("--abort", help="Let its canary go.")] = False,
    dry_run: DryRun = False,
    detailed_exitcode: Detailed = False,
    no_rollback: Annotated[
        bool, typer.Option("--no-rollback", help="Leave an update that fails as it is.")
    ] = False,
    timeout: Timeout = 300,
    lock_wait: LockWait = 0,
    break_lock: BreakLock = False,
    replicas: Annotated[str | None, typer.Option("--replicas", hidden=True)] = None,
) -> None:
    """Change a service; ends when it runs so, or is again what it was."""
    import os

    from swarmkit.deploy.options import Options
    from swarmkit.services import revise
    from swarmkit.services.canary import percentage
    from swarmkit.services.edits import Asked, check
    from swarmkit.target import opened, resolve

    given = globals_of(context)
    ui = given.ui
    if replicas is not None:
        raise UsageError(
            "update keeps the number of replicas", hint=f"use: swarmkit scale {service}={replicas}"
        )
    asked = Asked(
        image=image,
        env=_all(env),
        env_rm=_all(env_rm),
        label=_all(label),
        label_rm=_all(label_rm),
        container_label=_all(container_label),
        container_label_rm=_all(container_label_rm),
        limit_cpu=limit_cpu,
        limit_memory=limit_memory,
        reserve_cpu=reserve_cpu,
        reserve_memory=reserve_memory,
        constraint=_all(constraint),
        constraint_rm=_all(constraint_rm),
        secret=_all(secret),
        secret_rm=_all(secret_rm),
        config=_all(config),
        config_rm=_all(config_rm),
        mount=_all(mount),
        mount_rm=_all(mount_rm),
        command=command,
        parallelism=parallelism,
        delay=delay,
        order=order,
        monitor=monitor,
        max_failure_ratio=max_failure_ratio,
        failure_action=failure_action,
        stop_grace_period=stop_grace_period,
        stop_signal=stop_signal,
        force=force,
    )
    edits = check(asked, os.environ)
    percent = None if canary is None else percentage(canary)
    doing = _doing(service, edits, percent, go_on=go_on, abort=abort)
    with (
        ui.timed() as seconds,
        opened(resolve(given.inventory, given.engine), ui, mutates=not dry_run) as swarm,
    ):
        found = _find(swarm, service)
        if go_on:
            revision = revise.go_on(swarm, found)
        elif abort:
            revision = revise.abort(swarm, found)
        elif percent is not None:
            revision = revise.canary(swarm, found, edits, percent)
        else:
            revision = revise.update(swarm, found, edits)
        # Told to stop where a failure leaves it, it does; and a canary that is given up must not come back.
        options = Options(
            timeout,
            doing,
            rollback=not no_rollback and not abort and failure_action != "pause",
            lock_wait=lock_wait,
            break_lock=break_lock,
        )
        plan = _carry_out(swarm, ui, revision, options, dry_run=dry_run, follow=edits.changes_routes)
        then = _next(found.name, percent) if percent is not None else ()
        is_ill = abort and not dry_run and _is_ill(swarm, ui, found)
        _show(swarm, ui, found, plan, seconds(), dry_run=dry_run, is_ill=is_ill, then=then)
    if dry_run and detailed_exitcode and plan.changes:
        raise typer.Exit(Exit.CHANGES)


def _doing(service: str, edits: Edits, percent: int | None, *, go_on: bool, abort: bool) -> str:
    """The command, as a revision and the lock tell of it; raises UsageError for options at odds."""
    ends = [word for word, said in (("--continue", go_on), ("--abort", abort)) if said]
    if ends and (len(ends) > 1 or percent is not None or not edits.is_nothing):
        raise UsageError(
            f"{ends[0]} decides on a canary as it is, and goes with nothing else",
            where=service,
            hint=f"swarmkit update {service} {ends[0]}",
        )
    if not ends and edits.is_nothing:
        raise UsageError(
            "nothing is to be changed", where=service, hint="say what; --force starts its tasks again"
        )
    if percent is not None and edits.force:
        raise UsageError("--canary starts tasks of its own; leave --force out", where=service)
    more = ends or ([f"--canary {percent}%"] if percent is not None else [])
    return " ".join(["update", service, *([f"--image {edits.image}"] if edits.image else []), *more])


def _next(name: str, percent: int) -> Sequence[str]:
    return (
        f"{name}-canary gets {percent}% of the requests; watch it, then:",
        f"  swarmkit update {name} --continue    to update the rest",
        f"  swarmkit update {name} --abort       to go back",
    )


def rollback(
    context: typer.Context,
    service: ServiceName,
    revision: Annotated[
        int | None, typer.Argument(help="A number of `stack history`; else what was before its last change.")
    ] = None,
    dry_run: DryRun = False,
    detailed_exitcode: Detailed = False,
    timeout: Timeout = 300,
    lock_wait: LockWait = 0,
    break_lock: BreakLock = False,
) -> None:
    """Return a service to what it was before its last change; ends when that runs."""
    from swarmkit.deploy.options import Options
    from swarmkit.services import revise
    from swarmkit.target import opened, resolve

    given = globals_of(context)
    ui = given.ui
    with (
        ui.timed() as seconds,
        opened(resolve(given.inventory, given.engine), ui, mutates=not dry_run) as swarm,
    ):
        found = _find(swarm, service)
        doing = f"rollback {service}{f' {revision}' if revision is not None else ''}"
        # What it leaves is what it returns from: there is nothing better to go back to.
        options = Options(timeout, doing, rollback=False, lock_wait=lock_wait, break_lock=break_lock)
        back = revise.rollback(swarm, found, revision)
        plan = _carry_out(swarm, ui, back, options, dry_run=dry_run, follow=back.changes_routes, insist=False)
        _show(swarm, ui, found, plan, seconds(), dry_run=dry_run)
    if dry_run and detailed_exitcode and plan.changes:
        raise typer.Exit(Exit.CHANGES)


def _find(swarm: Swarm, name: str) -> Service:
    from swarmkit.swarm import find_service, services

    return find_service(services(swarm.engine), name)


def _is_ill(swarm: Swarm, ui: Ui, service: Service) -> bool:
    """Whether a service that was not waited for lacks tasks, which is warned of."""
    now = _find(swarm, service.id)
    if now.running >= now.desired:
        return False
    ui.warn(
        f"{now.name}: {now.running} of {now.desired} tasks run (see: swarmkit service explain {now.name};"
        f" swarmkit rollback {now.name})"
    )
    return True


def _carry_out(
    swarm: Swarm,
    ui: Ui,
    revision: Revision,
    options: Options,
    *,
    dry_run: bool,
    follow: bool,
    insist: bool = True,
) -> Plan:
    """Do it, with the image on the nodes first, and a word on what may be lost; the plan that was done.

    `follow` has the balancer brought what the service's routes need then.
    """
    from functools import partial

    from swarmkit.balancer.deploy import await_served, bring_secrets, follow_routes
    from swarmkit.deploy.apply import carry_out
    from swarmkit.services.caution import forewarn
    from swarmkit.services.revise import bring_image

    prepared = revision.prepared
    if prepared.plan.changes:
        if revision.new is not None and not dry_run:
            bring_image(swarm, ui, revision.new, revision.unresolved, insist=insist)
        if revision.unresolved is not None:
            ui.warn(revision.unresolved.warning())
        for line in forewarn(swarm, revision.service, revision.before, revision.after):
            ui.warn(line)
    if dry_run:
        return prepared.plan
    plan = carry_out(
        swarm.engine,
        ui,
        prepared,
        options,
        swarm.fleet,
        before_services=partial(bring_secrets, swarm, ui, timeout=options.timeout),
    )
    if follow:
        follow_routes(swarm, ui, timeout=options.timeout)
    if plan.changes:
        await_served(swarm, ui, [revision.service.name], timeout=options.timeout)
    return plan


def _show(
    swarm: Swarm,
    ui: Ui,
    service: Service,
    plan: Plan,
    seconds: float,
    *,
    dry_run: bool,
    is_ill: bool = False,
    then: Sequence[str] = (),
) -> None:
    from swarmkit.deploy.report import change_json, describe

    document = {
        "services": [service.name],
        "changed": len(plan.changes),
        "changes": [change_json(change) for change in plan.changes],
        "notes": list(plan.notes),
        "converged": not dry_run and not is_ill,
        "rolled_back": False,
        "seconds": seconds,
    }

    def text() -> None:
        for note in plan.notes:
            ui.line(f"  note: {note}")
        if dry_run:
            for change in plan.changes:
                ui.line(f"  {describe(change)}")
            ui.line(f"{counted(plan.changes)} planned; nothing was changed")
            return
        did = counted(plan.changes) if plan.changes else "nothing to do"
        ui.line(f"{service.name}: {standing([_find(swarm, service.id)])} ({did}, {seconds:.1f} s)")
        for line in then:
            ui.line(line)

    ui.result(document, text)
