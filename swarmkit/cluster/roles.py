"""Workers made managers, and managers made workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from swarmkit.cluster.bootstrap import Options, Report, converge_hosts
from swarmkit.cluster.lock import locked
from swarmkit.cluster.quorum import Quorum, none_left, refusal
from swarmkit.inventory import Host, Inventory, Role
from swarmkit.remote import Engine, Fleet
from swarmkit.services.nodes import update_node, wait_for_role
from swarmkit.swarm import Node, nodes
from swarmkit.ui import Ui


def with_roles(inventory: Inventory, hosts: Sequence[Host], role: Role) -> Inventory:
    """The inventory with these hosts in another role; managers stay first."""
    changed = [replace(host, role=role) if host in hosts else host for host in inventory.hosts]
    return replace(inventory, hosts=tuple(sorted(changed, key=lambda host: not host.is_manager)))


def give_roles(fleet: Fleet, ui: Ui, names: Sequence[str], role: Role, options: Options) -> Report:
    """Make machines managers or workers, as the fleet's inventory (`with_roles`) already says.

    Managers also get the registry's authority to keep, workers lose it. Raises as `init` does.
    """
    if not fleet.inventory.managers:
        raise none_left(names)
    hosts = [host for host in fleet.inventory.hosts if host.name in names]
    return converge_hosts(fleet, ui, _doing(names, role), hosts, options)


def change_roles(engine: Engine, ui: Ui, chosen: Sequence[Node], role: Role, options: Options) -> list[Node]:
    """The same in any swarm, by its manager's engine alone. Returns the nodes whose role was changed.

    Raises UsageError where the managers' majority would be lost, NotConverged where a new manager does
    not come to be reached by the others.
    """
    changing = _to_change(engine, chosen, role, options)
    if not changing or options.dry_run:
        return changing
    doing = _doing([node.name for node in changing], role)
    with locked(engine, ui, doing, wait=options.lock_wait, break_it=options.break_lock) as lock:
        # Whoever had the lock a moment ago may have changed what we saw.
        changing = _to_change(engine, chosen, role, options)
        for node in changing:
            lock.check()
            update_node(engine, node.id, role=role)
            wait_for_role(engine, node, role)
            ui.say(f"  {node.name}: {role}")
    return changing


def _to_change(engine: Engine, chosen: Sequence[Node], role: Role, options: Options) -> list[Node]:
    known = nodes(engine)
    wanted = {node.id for node in chosen}
    changing = [node for node in known if node.id in wanted and node.role != role]
    if changing and role is Role.WORKER:
        names = [node.name for node in changing]
        now = Quorum.of(known)
        doing = f"making {', '.join(names)} no manager"
        if error := refusal(now, now.without(names), doing, force=options.consent.force):
            raise error
    return changing


def _doing(names: Sequence[str], role: Role) -> str:
    return f"node {'promote' if role is Role.MANAGER else 'demote'} {' '.join(names)}"
