"""Commands about the cluster as a whole: init, join, leave, reset, status, ssh."""

from __future__ import annotations

from typing import Annotated

import typer

from swarmkit.cli.common import (
    BreakLock,
    Detailed,
    DryRun,
    LockWait,
    LoseMajority,
    confirm_target,
    globals_of,
    hosts_target,
    show_report,
)
from swarmkit.cli.complete import host_names, node_names
from swarmkit.errors import Exit, UsageError

AcceptKeys = Annotated[
    bool, typer.Option("--accept-host-keys", help="Record unknown host keys (never changed ones).")
]
TakeOver = Annotated[
    bool, typer.Option("--take-over", help="Make hosts leave another swarm that they are in.")
]
Adopt = Annotated[
    bool, typer.Option("--adopt", help="Make a swarm that swarmkit did not form this cluster's.")
]
Prune = Annotated[
    bool, typer.Option("--prune", help="Take nodes out of the swarm that the inventory does not have.")
]
SkipChecks = Annotated[
    bool, typer.Option("--skip-checks", help="Go on in spite of what the checks of the machines find.")
]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds to wait for what is promised.")]


def register(app: typer.Typer) -> None:
    """Add these commands at the top level."""
    app.command()(init)
    app.command()(join)
    app.command()(leave)
    app.command()(reset)
    app.command()(status)
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(ssh)


def init(
    context: typer.Context,
    dry_run: DryRun = False,
    detailed_exitcode: Detailed = False,
    accept_host_keys: AcceptKeys = False,
    prune: Prune = False,
    take_over: TakeOver = False,
    adopt: Adopt = False,
    force: LoseMajority = False,
    skip_checks: SkipChecks = False,
    lock_wait: LockWait = 0,
    break_lock: BreakLock = False,
) -> None:
    """Turn the inventory's machines into a swarm; again: nothing is changed that is right."""
    from swarmkit.cluster import bootstrap
    from swarmkit.cluster.plan import Consent
    from swarmkit.target import announce, fleet_of

    given = globals_of(context)
    target = hosts_target(given)
    announce(target, given.ui)
    if prune:
        confirm_target(given, target, f"nodes that {target.origin} does not have will leave {target.name}")
    options = bootstrap.Options(
        dry_run=dry_run,
        skip_checks=skip_checks,
        consent=Consent(take_over=take_over, adopt=adopt, prune=prune, force=force),
        lock_wait=lock_wait,
        break_lock=break_lock,
    )
    with fleet_of(target, accept_host_keys=accept_host_keys) as fleet:
        report = bootstrap.init(fleet, given.ui, options)
        count = len(fleet.inventory.hosts)
    ready = f"{count} nodes are ready" if count != 1 else "1 node is ready"
    show_report(given, report, f"nothing to do: {ready}", f"the swarm is formed: {ready}")
    if dry_run and detailed_exitcode and report.actions:
        raise typer.Exit(Exit.CHANGES)


def join(
    context: typer.Context,
    host: Annotated[str, typer.Argument(help="A name in the inventory, or USER@ADDRESS[:PORT].")],
    role: Annotated[
        str | None, typer.Option("--role", help="manager or worker (the default for a new machine).")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="The new node's name.")] = None,
    private_address: Annotated[
        str | None, typer.Option("--private-address", help="Its address on the nodes' own network.")
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="Its SSH key.")] = None,
    label: Annotated[list[str] | None, typer.Option("--label", help="K=V; may be repeated.")] = None,
    dry_run: DryRun = False,
    accept_host_keys: AcceptKeys = False,
    take_over: TakeOver = False,
    skip_checks: SkipChecks = False,
    lock_wait: LockWait = 0,
    break_lock: BreakLock = False,
) -> None:
    """Make a machine a node of the swarm, and write it into the inventory."""
    from swarmkit.cluster import bootstrap
    from swarmkit.cluster.plan import Consent
    from swarmkit.inventory.edit import NewHost, add_host, with_host
    from swarmkit.remote import Fleet
    from swarmkit.target import announce

    given = globals_of(context)
    target = hosts_target(given)
    announce(target, given.ui)
    inventory = target.inventory
    assert inventory is not None
    known = inventory.host(host)
    new = None
    if known is None:
        new = NewHost.parse(
            host,
            role=role or "worker",
            name=name,
            private_address=private_address,
            key=key,
            labels=label or [],
        )
        inventory, known = with_host(inventory, new)
    elif role not in (None, known.role):
        raise UsageError(
            f"{host} is a {known.role} in {inventory.source}",
            where="--role",
            hint=f"change the file, or afterwards: swarmkit node {'pro' if role == 'manager' else 'de'}mote "
            f"{host}",
        )
    options = bootstrap.Options(
        dry_run=dry_run,
        skip_checks=skip_checks,
        consent=Consent(take_over=take_over),
        lock_wait=lock_wait,
        break_lock=break_lock,
    )
    with Fleet(inventory, accept_host_keys=accept_host_keys) as fleet:
        report = bootstrap.join(fleet, given.ui, known, options)
    if new is not None and inventory.source is not None and not dry_run:
        add_host(inventory.source, new)
        given.ui.say(f"  {known.name}: written into {inventory.source}")
    show_report(given, report, f"nothing to do: {known.name} is a node", f"{known.name} is a {known.role}")


def leave(
    context: typer.Context,
    node: Annotated[str, typer.Argument(help="The node.", autocompletion=node_names)],
    dry_run: DryRun = False,
    timeout: Timeout = 300,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Go on where the drain does not end, or the managers' majority would be lost."
        ),
    ] = False,
    lock_wait: LockWait = 0,
    break_lock: BreakLock = False,
) -> None:
    """Drain a node, take it out of the swarm and out of the inventory."""
    from swarmkit.cluster import bootstrap, departure
    from swarmkit.cluster.plan import Consent
    from swarmkit.inventory.edit import remove_host
    from swarmkit.target import announce, fleet_of

    given = globals_of(context)
    target = hosts_target(given)
    announce(target, given.ui)
    confirm_target(given, target, f"{node} will leave the cluster {target.name}")
    options = bootstrap.Options(
        dry_run=dry_run, consent=Consent(force=force), lock_wait=lock_wait, break_lock=break_lock
    )
    with fleet_of(target) as fleet:
        name, report = departure.leave(fleet, given.ui, node, options, timeout=timeout)
    inventory = target.inventory
    assert inventory is not None
    if inventory.source is not None and not dry_run and remove_host(inventory.source, name):
        given.ui.say(f"  {name}: taken out of {inventory.source}")
    show_report(given, report, f"{name} was no node", f"{name} has left the swarm")


def reset(context: typer.Context, break_lock: BreakLock = False) -> None:
    """Take the whole swarm apart: no machine of the inventory is in one afterwards."""
    from swarmkit.cluster import departure
    from swarmkit.target import announce, fleet_of

    given = globals_of(context)
    target = hosts_target(given)
    announce(target, given.ui)
    confirm_target(given, target, f"everything that runs on the cluster {target.name} will be gone")
    with fleet_of(target) as fleet:
        report = departure.reset(fleet, given.ui, break_lock=break_lock)
    show_report(given, report, "nothing to do: no machine is in a swarm", "no machine is in a swarm any more")


def status(context: typer.Context) -> None:
    """Show the cluster's nodes and services."""
    from swarmkit import report
    from swarmkit.swarm import nodes, services
    from swarmkit.target import opened, resolve

    given = globals_of(context)
    ui = given.ui
    with opened(resolve(given.inventory, given.engine), ui) as swarm:
        found_nodes, found_services = nodes(swarm.engine), services(swarm.engine)
    document = {
        "cluster": swarm.target.name,
        "nodes": [report.node_json(node) for node in found_nodes],
        "services": [report.service_json(service) for service in found_services],
    }

    def text() -> None:
        ui.line(f"cluster {swarm.target.name}")
        ui.line()
        report.show_nodes(ui, found_nodes)
        ui.line()
        report.show_services(ui, found_services)

    ui.result(document, text)


def ssh(
    context: typer.Context,
    node: Annotated[str, typer.Argument(help="The machine.", autocompletion=host_names)],
) -> None:
    """Log in on a machine of the inventory, or run a command there: `swarmkit ssh NODE -- CMD`."""
    from swarmkit.remote.openssh import login

    given = globals_of(context)
    target = hosts_target(given)
    inventory = target.inventory
    assert inventory is not None
    try:
        machine = inventory.login(node)
    except KeyError:
        names = ", ".join(host.name for host in inventory.hosts)
        raise UsageError(f'no machine is called "{node}"', hint=f"machines here: {names}") from None
    raise typer.Exit(login(inventory, machine, list(context.args)))
