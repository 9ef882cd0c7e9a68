"""Who goes: a node that leaves its swarm, and a whole cluster taken apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from swarmkit.cluster.actions import Action, LeaveOther, LeaveSwarm
from swarmkit.cluster.bootstrap import Options, Report
from swarmkit.cluster.lock import find, locked
from swarmkit.cluster.managers import manager_engine
from swarmkit.cluster.phases import CHANGING, DRAIN_SECONDS, Work, apply
from swarmkit.cluster.plan import ClusterPlan, departure
from swarmkit.cluster.ports import release
from swarmkit.cluster.quorum import Quorum, refusal
from swarmkit.errors import OperationFailed, SwarmkitError, Unreachable, UsageError, raise_all
from swarmkit.images.registry import SERVICE as REGISTRY
from swarmkit.images.registry import VOLUME as REGISTRY_VOLUME
from swarmkit.images.trust import REMOVE as REMOVE_TRUST
from swarmkit.images.trust import TrustPlan
from swarmkit.inventory import Host, Inventory
from swarmkit.remote import Engine, Fleet
from swarmkit.services.caution import forewarn_of_stops
from swarmkit.services.drain import look_at_drain
from swarmkit.swarm import Node, find_node, nodes, services
from swarmkit.target import Swarm, Target
from swarmkit.ui import Ui

# Docker names volumes that nobody named by 64 hexadecimal digits.
_UNNAMED = re.compile(r"^[0-9a-f]{64}$")


@dataclass(frozen=True)
class _Leaving:
    """Who leaves, by what steps, through which manager, and what the user should know first.

    `node` is None where the swarm has struck it off already.
    """

    known: str
    manager: Engine
    founder: Host
    node: Node | None
    actions: Sequence[Action]
    warnings: Sequence[str]


def leave(
    fleet: Fleet, ui: Ui, name: str, options: Options, *, timeout: float = DRAIN_SECONDS
) -> tuple[str, Report]:
    """Take a node out of the swarm: drained first, then gone from the swarm's list.

    `name` is the machine's name, the node's hostname or its ID; returned is the machine's name. A node
    that is down is only struck off. With the consent to `force`, what cannot be drained in `timeout`
    seconds is taken along. Raises UsageError for the last manager, for a majority that would be lost and
    for a gateway that others need; NotConverged where the drain does not end.
    """
    cluster = fleet.inventory.cluster
    force = options.consent.force
    with ui.timed() as seconds:
        leaving = _plan(fleet, name, force)
        known = leaving.known
        for warning in [*leaving.warnings, *_of_the_drain(fleet, leaving, options.dry_run)]:
            ui.warn(warning)
        if options.dry_run or not leaving.actions:
            return known, Report(
                cluster, leaving.actions, "planned" if options.dry_run else "done", seconds()
            )
        wait, break_it = options.lock_wait, options.break_lock
        with locked(leaving.manager, ui, f"leave {known}", wait=wait, break_it=break_it) as lock:
            # Whoever had the lock a moment ago may have changed what we saw.
            leaving = _plan(fleet, name, force)
            plan = ClusterPlan(tuple(leaving.actions), leaving.founder, TrustPlan())
            work = Work(fleet, plan, ui, drain_seconds=timeout)
            apply(work, CHANGING, lock.check)
        raise_all(list(work.failed.values()))
        return known, Report(cluster, work.done, "done", seconds())


def _plan(fleet: Fleet, name: str, force: bool) -> _Leaving:
    """Observe and plan; raises what speaks against it."""
    manager, founder, members, node, host = _found(fleet, name)
    known = host.name if host else node.name if node else name
    if node is not None:
        now = Quorum.of(members)
        gone = now.without([node.name] if node.is_manager else [])
        if error := refusal(now, gone, f"taking {known} out of the swarm", force=force):
            raise error
    behind = [one.name for one in fleet.inventory.hosts if host and one.gateway == host.name]
    if behind and not force:
        raise UsageError(
            f"{', '.join(behind)}: reached through {known}",
            where=known,
            hint="give them another gateway first; --force lets it leave all the same",
        )
    warnings: list[str] = []
    actions = _steps(fleet, node, host, known, force, warnings.append)
    pinned = f"node.id=={node.id}" if node else ""
    if any(one.name == REGISTRY and pinned in one.constraints for one in services(manager)):
        warnings.append(
            f"the cluster's registry is on {known}: afterwards run `swarmkit init`, which gives it to "
            "another manager, and `swarmkit stack up` of what has images of its own"
        )
    return _Leaving(known, manager, founder, node, actions, warnings)


def _of_the_drain(fleet: Fleet, leaving: _Leaving, dry_run: bool) -> list[str]:
    """What the user should know of the tasks that stop."""
    if leaving.node is None:
        return []
    plan = look_at_drain(leaving.manager, [leaving.node])
    inventory = fleet.inventory
    target = Target(inventory.cluster, str(inventory.source), named=True, inventory=inventory)
    found = forewarn_of_stops(Swarm(target, leaving.manager, fleet), plan.services)
    # Of what is carried out, the drain itself tells the rest.
    return [*plan.warnings, *map(str, plan.gaps), *found] if dry_run else found


def _found(fleet: Fleet, name: str) -> tuple[Engine, Host, list[Node], Node | None, Host | None]:
    """A manager to work through (not the one that leaves), its machine, all nodes, the node, its machine."""
    inventory = fleet.inventory
    others = [host.name for host in inventory.managers if host.name != name]
    manager = manager_engine(fleet, without=name if others else "")
    members = nodes(manager)
    host = inventory.host(name)
    try:
        node: Node | None = find_node(members, name)
    except UsageError:
        # Struck off by a run that was cut short: its machine may still take itself for a node.
        if host is None:
            raise
        return manager, _machine(inventory, manager), members, None, host
    assert node is not None
    host = inventory.host(node.name) or host
    if host is not None and host.name == manager.name and others:
        manager = manager_engine(fleet, without=host.name)
    return manager, _machine(inventory, manager), members, node, host


def _machine(inventory: Inventory, engine: Engine) -> Host:
    found = inventory.host(engine.name)
    assert found is not None, "an engine over SSH is called as its machine"
    return found


def _steps(
    fleet: Fleet, node: Node | None, host: Host | None, known: str, force: bool, warn: Callable[[str], None]
) -> Sequence[Action]:
    if node is None:
        assert host is not None
        swarm = fleet.engine(host).get("/info")["Swarm"]
        is_member = swarm.get("LocalNodeState") not in ("", "inactive")
        return [LeaveOther(host.name, "the swarm, in which it is no node any more")] if is_member else []
    has_login = False
    if host is not None and node.is_ready:
        try:
            volumes = fleet.engine(host).get("/volumes")["Volumes"] or []
            has_login = True
        except Unreachable as error:
            if not force:
                raise
            volumes = []
            warn(f"{error}; it is struck off and not told")
        names = [
            volume["Name"]
            for volume in volumes
            if volume["Driver"] == "local"
            and not _UNNAMED.match(volume["Name"])
            and volume["Name"] != REGISTRY_VOLUME
        ]
        if names:
            warn(f"{known}: these volumes stay on the machine, and no other has them: {', '.join(names)}")
    return list(departure(node, known, force, has_login))


def _reset(data_path_port: int) -> str:
    """Shell that leaves the swarm, and clears what swarmkit put on the machine. The engine's own data stays.

    `data_path_port` is the port of overlay traffic, which is free then.
    """
    return f"""
if command -v docker >/dev/null; then
  if state=$(docker info --format '{{{{.Swarm.LocalNodeState}}}}' 2>/dev/null) && [ "$state" ]; then
    case "$state" in
      inactive) ;;
      *)
        docker swarm leave --force >/dev/null || exit 1
        echo left
        ( {release(data_path_port)} ) || exit 1 ;;
    esac
    for i in $(seq 50); do docker volume rm -f {REGISTRY_VOLUME} >/dev/null 2>&1 && break; sleep 0.2; done
  elif [ -e /var/lib/docker/swarm/docker-state.json ]; then
    echo 'the Docker Engine does not run, and the machine was in a swarm: systemctl start docker' >&2
    exit 1
  fi
fi
{REMOVE_TRUST}
"""


def reset(fleet: Fleet, ui: Ui, *, break_lock: bool = False) -> Report:
    """Take every host of the inventory out of its swarm, workers first; engines stay installed.

    Raises OperationFailed where another command is at work on the cluster, and, after all reachable hosts
    are done, for those that could not be reset.
    """
    inventory = fleet.inventory
    with ui.timed() as seconds:
        if not break_lock:
            _refuse_locked(fleet)
        steps: list[Action] = []
        errors: list[SwarmkitError] = []
        workers = [host for host in inventory.hosts if not host.is_manager]
        script = _reset(inventory.swarm.data_path_port)
        for group in (workers, inventory.managers):
            outcomes = fleet.map(
                lambda host: fleet.connection(host).run(script).checked("leaving the swarm"), group
            )
            errors += outcomes.errors.values()
            for name, output in outcomes.values.items():
                if "left" in output.split():
                    steps.append(LeaveSwarm(name, ""))
                    ui.say(f"  {name}: left the swarm")
        raise_all(errors)
        return Report(inventory.cluster, steps, "done", seconds())


def _refuse_locked(fleet: Fleet) -> None:
    try:
        held = find(manager_engine(fleet))
    except SwarmkitError:
        # No manager that could tell: whoever takes a cluster apart need not have a whole one.
        return
    if held is not None and not held.stale:
        raise OperationFailed(
            f"the cluster is locked: {held}",
            hint="wait until that has ended; --break-lock goes on all the same, if nobody is at work",
        )
