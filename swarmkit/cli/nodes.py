"""Commands about nodes: ls, drain, activate, rebalance, promote, demote, label."""

from __future__ import annotations

from typing import Annotated

import typer

from swarmkit.cli.common import (
    BreakLock,
    Detailed,
    DryRun,
    LockWait,
    LoseMajority,
    globals_of,
    show_report,
)
from swarmkit.cli.complete import node_names, service_names
from swarmkit.errors import Exit, UsageError
from swarmkit.names import BALANCER_LABEL, RESERVED_PREFIX

app = typer.Typer(
    help="Look at nodes, drain, activate, rebalance, promote, demote and label them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Names = Annotated[list[str], typer.Argument(help="Nodes.", autocompletion=node_names)]
TwoAtOnce = Annotated[
    bool,
    typer.Option("--force", help="Two tasks at once also where stop-first or shared storage forbids it."),
]


@app.command("ls")
def ls(context: typer.Context) -> None:
    """List the swarm's nodes."""
    from swarmkit import report
    from swarmkit.swarm import nodes
    from swarmkit.target import opened, resolve

    given = globals_of(context)
    with opened(resolve(given.inventory, given.engine), given.ui) as swarm:
        found = nodes(swarm.engine)
    given.ui.result([report.node_json(node) for node in found], lambda: report.show_nodes(given.ui, found))


@app.command()
def drain(
    context: typer.Context,
    names: Names,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait until they are empty.")] = 300,
    dry_run: DryRun = False,
    detailed_exitcode: Detailed = False,
    force: TwoAtOnce = False,
    lock_wait: LockWait = 0,
    break_lock: BreakLock = False,
) -> None:
    """Move all tasks off nodes, each once its replacement runs; ends when they run elsewhere."""
    from dataclasses import replace

    from swarmkit.cluster.lock import locked
    from swarmkit.services.caution import forewarn_of_stops
    from swarmkit.services.drain import announce, drain_nodes, look_at_drain
    from swarmkit.swarm import find_node, nodes
    from swarmkit.target import opened, resolve

    given = globals_of(context)
    ui = given.ui
    with (
        ui.timed() as seconds,
        opened(resolve(given.inventory, given.engine), ui, mutates=not dry_run) as swarm,
    ):
        engine = swarm.engine
        found = [find_node(nodes(engine), name) for name in dict.fromkeys(names)]
        shown = ", ".join(node.name for node in found)
        plan = look_at_drain(engine, found, force=force)
        cautions = forewarn_of_stops(swarm, plan.services)
        if dry_run:
            plan = replace(plan, warnings=[*plan.warnings, *cautions])
            changes = any(node.availability != "drain" for node in found)
            if not ui.is_json:
                announce(plan, ui)
            ui.result(
                plan.json() | {"changed": 0, "seconds": seconds()},
                f"{shown}: {len(plan.moves)} to move, {len(plan.gaps)} with a gap; nothing was changed",
            )
            if detailed_exitcode and changes:
                raise typer.Exit(Exit.CHANGES)
            return
        for line in cautions:
            ui.warn(line)
        doing = f"node drain {' '.join(node.name for node in found)}"
        with locked(engine, ui, doing, wait=lock_wait, break_it=break_lock):
            found = [find_node(nodes(engine), node.id) for node in found]
            done = drain_nodes(engine, found, ui, timeout=timeout, force=force)
        plan = replace(done.plan, warnings=[*done.plan.warnings, *cautions])
        ui.result(
            plan.json() | {"changed": len(done.changed), "seconds": seconds()},
            f"{shown}: drained, no task left ({seconds():.1f} s)",
        )


@app.command()
def activate(
    context: typer.Context, names: Names, lock_wait: LockWait = 0, break_lock: BreakLock = False
) -> None:
    """Let nodes take tasks again, or undo a drain that was cut off (tasks are not moved back: rebalance)."""
    from swarmkit.cluster.lock import locked
    from swarmkit.services.drain import activate_nodes
    from swarmkit.swarm import find_node, nodes
    from swarmkit.target import opened, resolve

    given = globals_of(context)
    ui = given.ui
    with ui.timed() as seconds, opened(resolve(given.inventory, given.engine), ui, mutates=True) as swarm:
        engine = swarm.engine
        found = [find_node(nodes(engine), name) for name in dict.fromkeys(names)]
        doing = f"node activate {' '.join(node.name for node in found)}"
        with locked(engine, ui, doing, wait=lock_wait, break_it=break_lock):
            found = [find_node(nodes(engine), node.id) for node in found]
            changed = activate_nodes(engine, found, ui)
        ui.result(
            {"nodes": [node.name for node in found], "changed": len(changed), "seconds": seconds()},
            f"{', '.join(node.name for node in found)}: active ({seconds():.1f} s)",
        )


@app.command()
def rebalance(
    context: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SERVICE…]",
            help="Services; all without.",
            autocompletion=service_names,
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait for the tasks.")] = 300,
    dry_run: DryRun = False,
    detailed_exitcode: Detailed = False,
    force: TwoAtOnce = False,
    lock_wait: LockWait = 0,
    break_lock: BreakLock = False,
) -> None:
    """Spread tasks evenly again, such as after a node has come back; each moves once its replacement runs."""
    from swarmkit.cluster.lock import locked
    from swarmkit.services.caution import forewarn_of_stops
    from swarmkit.services.drain import marked
    from swarmkit.services.rebalance import look_at_balance
    from swarmkit.services.rebalance import rebalance as spread
    from swarmkit.services.scale import find_replicated
    from swarmkit.swarm import services
    from swarmkit.target import opened, resolve

    given = globals_of(context)
    ui = given.ui
    with (
        ui.timed() as seconds,
        opened(resolve(given.inventory, given.engine), ui, mutates=not dry_run) as swarm,
    ):
        engine = swarm.engine
        chosen = [one.id for one in find_replicated(services(engine), names or [])]
        found = look_at_balance(engine, chosen, force=force)
        for line in forewarn_of_stops(swarm, [one.service for one in found.balances if one.moves]):
            ui.warn(line)
        if not dry_run and (found.moved or marked(engine)):
            with locked(engine, ui, "node rebalance", wait=lock_wait, break_it=break_lock):
                found = spread(engine, chosen, ui, timeout=timeout, force=force)
        said = (
            "spread as evenly as can be already"
            if not found.moved
            else f"services spread anew: {found.moved}"
        )
        if dry_run and found.moved:
            said = f"services to be spread anew: {found.moved}; nothing was changed"

        def text() -> None:
            for line in found.lines():
                ui.line(line)
            ui.line(f"{said} ({seconds():.1f} s)")

        ui.result(found.json() | {"changed": 0 if dry_run else found.moved, "seconds": seconds()}, text)
        if dry_run and detailed_exitcode and found.moved:
            raise typer.Exit(Exit.CHANGES)


@app.command()
def promote(
    context: typer.Context,
    names: Names,
    dry_run: DryRun = False,
    lock_wait: LockWait = 0,
    break_lock: BreakLock = False,
) -> None:
    """Make workers managers; ends when the other managers reach them."""
    _give_roles(context, names, "manager", dry_run, False, lock_wait, break_lock)


@app.command()
def demote(
    context: typer.Context,
    names: Names,
    dry_run: DryRun = False,
    force: LoseMajority = False,
    lock_wait: LockWait = 0,
    break_lock: BreakLock = False,
) -> None:
    """Make managers workers; refused where too few managers would be left."""
    _give_roles(context, names, "worker", dry_run, force, lock_wait, break_lock)


def _give_roles(
    context: typer.Context,
    names: list[str],
    wanted: str,
    dry_run: bool,
    force: bool,
    lock_wait: float,
    break_lock: bool,
) -> None:
    from swarmkit.cluster import roles
    from swarmkit.cluster.bootstrap import Options
    from swarmkit.cluster.plan import Consent
    from swarmkit.inventory import Role
    from swarmkit.inventory.edit import give_role
    from swarmkit.remote import Fleet
    from swarmkit.swarm import find_node, nodes
    from swarmkit.target import announce, opened, resolve

    given = globals_of(context)
    ui = given.ui
    target = resolve(given.inventory, given.engine)
    role = Role(wanted)
    options = Options(
        dry_run=dry_run, consent=Consent(force=force), lock_wait=lock_wait, break_lock=break_lock
    )
    done = f"{', '.join(names)}: {role}"
    nothing = f"nothing to do: {done} already"
    hosts = [host for name in names if (host := target.inventory and target.inventory.host(name))]
    if target.inventory is not None and len(hosts) == len(names):
        # What the inventory says is changed too, or the next `init` would undo it.
        inventory = roles.with_roles(target.inventory, hosts, role)
        announce(target, ui)
        with Fleet(inventory) as fleet:
            report = roles.give_roles(fleet, ui, names, role, options)
        if inventory.source is not None and not dry_run:
            for name in names:
                if give_role(inventory.source, name, role):
                    ui.say(f"  {name}: a {role} in {inventory.source}")
        show_report(given, report, nothing, done)
        return
    with ui.timed() as seconds, opened(target, ui, mutates=True) as swarm:
        known = nodes(swarm.engine)
        found = [find_node(known, name) for name in names]
        changed = roles.change_roles(swarm.engine, ui, found, role, options)
        said = f"{done} ({seconds():.1f} s)" if changed else nothing
        ui.result(
            {"nodes": [node.name for node in found], "changed": len(changed), "seconds": seconds()},
            f"{len(changed)} changes planned; nothing was changed" if dry_run else said,
        )


@app.command()
def label(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The node.", autocompletion=node_names)],
    labels: Annotated[list[str], typer.Argument(help="K=V to set, K- to remove.")],
) -> None:
    """Set labels of a node, or remove them; constraints of services can ask for them."""
    from swarmkit.services.nodes import update_node
    from swarmkit.swarm import find_node, nodes
    from swarmkit.target import opened, resolve

    wanted, unwanted = _labels(labels)
    given = globals_of(context)
    ui = given.ui
    with ui.timed() as seconds, opened(resolve(given.inventory, given.engine), ui, mutates=True) as swarm:
        node = find_node(nodes(swarm.engine), name)
        news = {key: value for key, value in wanted.items() if node.labels.get(key) != value}
        gone = [key for key in unwanted if key in node.labels]
        if news or gone:
            update_node(swarm.engine, node.id, labels=news, unwanted=gone)
        inventory = swarm.target.inventory
        host = inventory.host(node.name) if inventory else None
        if host is not None and {*news, *gone} & set(host.labels):
            ui.warn(f"{node.name} has another label in {swarm.target.origin}, which the next init gives it")
        ui.result(
            {"nodes": [node.name], "changed": len(news) + len(gone), "seconds": seconds()},
            f"{node.name}: {len(news) + len(gone)} labels changed",
        )


def _labels(given: list[str]) -> tuple[dict[str, str], list[str]]:
    """Labels to set, and keys to remove; raises UsageError for another form."""
    wanted: dict[str, str] = {}
    unwanted: list[str] = []
    for text in given:
        key, sign, value = text.partition("=")
        if not sign and text.endswith("-"):
            unwanted.append(text[:-1])
        elif sign and key:
            wanted[key] = value
        else:
            raise UsageError(f'expected K=V to set a label or K- to remove it, got "{text}"')
    for key in (*wanted, *unwanted):
        if key == BALANCER_LABEL:
            if wanted.get(key, "true") not in ("true", "false"):
                raise UsageError(f"{key}: expected true or false")
        elif key.startswith(RESERVED_PREFIX):
            raise UsageError(f"{key}: labels that begin with {RESERVED_PREFIX} are swarmkit's own")
    return wanted, unwanted
