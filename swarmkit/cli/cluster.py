"""Commands about the cluster as a whole: init, join, leave, reset, status, ssh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from swarmkit.cli.common import Globals, confirm_target, globals_of
from swarmkit.cli.complete import host_names, node_names
from swarmkit.errors import Exit, UsageError

if TYPE_CHECKING:
    from swarmkit.cluster.bootstrap import Report
    from swarmkit.target import Target

DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and touch nothing.")]
Detailed = Annotated[
    bool, typer.Option("--detailed-exitcode", help="With --dry-run: exit 5 where there are changes.")
]
AcceptKeys = Annotated[
    bool, typer.Option("--accept-host-keys", help="Record unknown host keys (never changed ones).")
]
TakeOver = Annotated[
    bool, typer.Option("--take-over", help="Make hosts leave another swarm that they are in.")
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


def _hosts_target(given: Globals) -> Target:
    from swarmkit.target import resolve

    return resolve(given.inventory, given.engine, hosts_needed=True)


def _show(given: Globals, report: Report, nothing: str, done: str) -> None:
    ui = given.ui

    def text() -> None:
        if report.status == "planned":
            for action in report.actions:
                ui.line(f"  {action.host}: {action.title}")
            ui.line(f"{len(report.actions)} actions planned; nothing was changed")
        elif report.changed:
            ui.line(f"{done} ({report.changed} changes, {report.seconds:.1f} s)")
        else:
            ui.line(f"{nothing} ({report.seconds:.1f} s)")

    if report.status == "planned" and not report.actions:
        ui.result(report.json(), f"{nothing}; nothing would be changed")
    else:
        ui.result(report.json(), text)


def init(
    context: typer.Context,
    dry_run: DryRun = False,
    detailed_exitcode: Detailed = False,
    accept_host_keys: AcceptKeys = False,
    take_over: TakeOver = False,
) -> None:
    """Turn the inventory's machines into a swarm; again: nothing is changed that is right."""
    from swarmkit.cluster import bootstrap
    from swarmkit.target import announce, fleet_of

    given = globals_of(context)
    target = _hosts_target(given)
    announce(target, given.ui)
    with fleet_of(target, accept_host_keys=accept_host_keys) as fleet:
        report = bootstrap.init(fleet, given.ui, dry_run=dry_run, take_over=take_over)
        count = len(fleet.inventory.hosts)
    ready = f"{count} nodes are ready" if count != 1 else "1 node is ready"
    _show(given, report, f"nothing to do: {ready}", f"the swarm is formed: {ready}")
    if dry_run and detailed_exitcode and report.actions:
        raise typer.Exit(Exit.CHANGES)


def join(
    context: typer.Context,
    host: Annotated[str, typer.Argument(help="A name in the inventory, or USER@ADDRESS[:PORT].")],
    role: Annotated[str, typer.Option("--role", help="manager or worker.")] = "worker",
    name: Annotated[str | None, typer.Option("--name", help="The new node's name.")] = None,
    private_address: Annotated[
        str | None, typer.Option("--private-address", help="Its address on the nodes' own network.")
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="Its SSH key.")] = None,
    label: Annotated[list[str] | None, typer.Option("--label", help="K=V; may be repeated.")] = None,
    accept_host_keys: AcceptKeys = False,
    take_over: TakeOver = False,
) -> None:
    """Make a machine a node of the swarm, and write it into the inventory."""
    from swarmkit.cluster import bootstrap
    from swarmkit.inventory.edit import NewHost, add_host, with_host
    from swarmkit.remote import Fleet
    from swarmkit.target import announce

    given = globals_of(context)
    target = _hosts_target(given)
    announce(target, given.ui)
    inventory = target.inventory
    assert inventory is not None
    known = inventory.host(host)
    new = None
    if known is None:
        new = NewHost.parse(
            host, role=role, name=name, private_address=private_address, key=key, labels=label or []
        )
        inventory, known = with_host(inventory, new)
    with Fleet(inventory, accept_host_keys=accept_host_keys) as fleet:
        report = bootstrap.join(fleet, given.ui, known, take_over=take_over)
    if new is not None and inventory.source is not None:
        add_host(inventory.source, new)
        given.ui.say(f"  {known.name}: written into {inventory.source}")
    _show(given, report, f"nothing to do: {known.name} is a node", f"{known.name} is a {known.role}")


def leave(
    context: typer.Context,
    node: Annotated[str, typer.Argument(help="The node.", autocompletion=node_names)],
    timeout: Timeout = 300,
    force: Annotated[bool, typer.Option("--force", help="Go on where the drain does not end.")] = False,
) -> None:
    """Drain a node, take it out of the swarm and out of the inventory."""
    from swarmkit.cluster import bootstrap
    from swarmkit.inventory.edit import remove_host
    from swarmkit.target import announce, fleet_of

    given = globals_of(context)
    target = _hosts_target(given)
    announce(target, given.ui)
    confirm_target(given, target, f"{node} will leave the cluster {target.name}")
    with fleet_of(target) as fleet:
        report = bootstrap.leave(fleet, given.ui, node, timeout=timeout, force=force)
    inventory = target.inventory
    assert inventory is not None
    if inventory.source is not None and inventory.host(node) and remove_host(inventory.source, node):
        given.ui.say(f"  {node}: taken out of {inventory.source}")
    _show(given, report, f"{node} was no node", f"{node} has left the swarm")


def reset(context: typer.Context) -> None:
    """Take the whole swarm apart: no machine of the inventory is in one afterwards."""
    from swarmkit.cluster import bootstrap
    from swarmkit.target import announce, fleet_of

    given = globals_of(context)
    target = _hosts_target(given)
    announce(target, given.ui)
    confirm_target(given, target, f"everything that runs on the cluster {target.name} will be gone")
    with fleet_of(target) as fleet:
        report = bootstrap.reset(fleet, given.ui)
    _show(given, report, "nothing to do: no machine is in a swarm", "no machine is in a swarm any more")


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
    target = _hosts_target(given)
    inventory = target.inventory
    assert inventory is not None
    try:
        machine = inventory.login(node)
    except KeyError:
        names = ", ".join(host.name for host in inventory.hosts)
        raise UsageError(f'no machine is called "{node}"', hint=f"machines here: {names}") from None
    raise typer.Exit(login(inventory, machine, list(context.args)))
