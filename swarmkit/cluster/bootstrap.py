"""Forming a cluster and changing who is in it: init, join, leave, reset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any

from swarmkit.cluster.facts import SCRIPT, HostFacts, SwarmMembership
from swarmkit.cluster.phases import Work, apply, verify
from swarmkit.cluster.plan import (
    Action,
    SwarmState,
    founding_manager,
    plan_cluster,
)
from swarmkit.errors import (
    NotConverged,
    OperationFailed,
    SwarmkitError,
    Unreachable,
    UsageError,
    raise_all,
)
from swarmkit.images.trust import REMOVE as REMOVE_TRUST
from swarmkit.inventory import Host
from swarmkit.remote import Engine, EngineError, Fleet
from swarmkit.services.nodes import drain_nodes, forget_node, update_node
from swarmkit.swarm import Node, find_node, nodes
from swarmkit.ui import Ui
from swarmkit.waiting import wait_for

LEAVE_SECONDS = 60


@dataclass(frozen=True)
class Report:
    """What was done to a cluster (or, in a dry run, would be): the contract's JSON."""

    cluster: str
    actions: Sequence[Action]
    status: str
    seconds: float

    @property
    def changed(self) -> int:
        return len(self.actions)

    def json(self) -> dict[str, Any]:
        return {
            "cluster": self.cluster,
            "changed": self.changed if self.status == "done" else 0,
            "actions": [
                {"host": one.host, "phase": one.phase, "action": one.title, "status": self.status}
                for one in self.actions
            ],
            "seconds": self.seconds,
        }


def gather(fleet: Fleet, hosts: Sequence[Host] | None = None) -> dict[str, HostFacts]:
    """Facts of all the hosts, one round trip each; raises for every host that has none."""
    return fleet.map(lambda host: _facts(fleet, host), hosts).all()


def _facts(fleet: Fleet, host: Host) -> HostFacts:
    return HostFacts.parse(fleet.connection(host).run(SCRIPT).checked("looking at the machine"))


def observe(fleet: Fleet, founder: Host, facts: Mapping[str, HostFacts]) -> SwarmState:
    """The swarm as its manager sees it; an empty state where the founder is no manager yet."""
    swarm = facts[founder.name].swarm
    if not swarm.is_manager:
        return SwarmState()
    engine = fleet.engine(founder)
    networks = engine.get("/networks")
    return SwarmState(
        cluster_id=swarm.cluster_id,
        nodes=tuple(nodes(engine)),
        networks=frozenset(network["Name"] for network in networks),
        subnets=tuple(
            IPv4Network(config["Subnet"])
            for network in networks
            for config in (network.get("IPAM") or {}).get("Config") or []
            if config.get("Subnet") and ":" not in config["Subnet"]
        ),
    )


def init(fleet: Fleet, ui: Ui, *, dry_run: bool = False, take_over: bool = False) -> Report:
    """Make the inventory's hosts one swarm; what is right already stays untouched.

    Raises what planning and the phases raise; the errors of several hosts together, after everything
    that could be done has been done.
    """
    return _converge(fleet, ui, fleet.inventory.hosts, dry_run=dry_run, take_over=take_over)


def join(fleet: Fleet, ui: Ui, host: Host, *, dry_run: bool = False, take_over: bool = False) -> Report:
    """Make one host of the inventory a node of its swarm, which must exist; raises as `init` does."""
    return _converge(fleet, ui, [host], dry_run=dry_run, take_over=take_over, must_exist=True)


def _converge(
    fleet: Fleet,
    ui: Ui,
    hosts: Sequence[Host],
    *,
    dry_run: bool,
    take_over: bool,
    must_exist: bool = False,
) -> Report:
    inventory = fleet.inventory
    with ui.timed() as seconds:
        fleet.open_engine_ahead(inventory.managers[0])
        # Only managers and the hosts in question are looked at: the rest are not ours to change now.
        facts = gather(fleet, [host for host in inventory.hosts if host.is_manager or host in hosts])
        founder = founding_manager(inventory, facts)
        state = observe(fleet, founder, facts)
        if must_exist and not state.cluster_id:
            raise OperationFailed(
                f"there is no swarm to join: none of {', '.join(one.name for one in inventory.managers)} "
                "is a manager of one",
                where=inventory.cluster,
                hint="form it first: swarmkit init",
            )
        plan = plan_cluster(inventory, facts, state, hosts=hosts, take_over=take_over)
        if plan.actions and not all(one.has_ipvs for one in facts.values()):
            ui.warn(
                "a kernel here has no IPVS: ports published in `ingress` mode and virtual IPs will not "
                "answer; swarmkit's own stacks do without them"
            )
        if dry_run:
            return Report(inventory.cluster, plan.actions, "planned", seconds())
        work = Work(fleet, plan, ui)
        done = apply(work)
        errors = list(work.failed.values())
        if not work.is_lost:
            try:
                verify(work, [host for host in hosts if host.name not in work.failed])
            except SwarmkitError as error:
                errors.append(error)
        raise_all(errors)
        return Report(inventory.cluster, done, "done", seconds())


@dataclass(frozen=True)
class Step(Action):
    """Something done to a node that is leaving; `phase` and `title` for the report."""

    text: str
    phase = "leave"  # type: ignore[assignment]

    @property
    def title(self) -> str:
        return self.text


def manager_engine(fleet: Fleet, without: str = "") -> Engine:
    """The engine of the first of the inventory's managers (`without` one) that is a swarm's manager.

    Raises Unreachable (or Problems) where none answers, OperationFailed where they are in no swarm.
    """
    errors: list[SwarmkitError] = []
    strangers: list[str] = []
    for host in fleet.inventory.managers:
        if host.name == without:
            continue
        try:
            engine = fleet.engine(host)
            if SwarmMembership.of(engine.get("/info")).is_manager:
                return engine
            strangers.append(host.name)
        except Unreachable as error:
            errors.append(error)
    if strangers or not errors:
        where = ", ".join(strangers) or fleet.inventory.cluster
        hint = "form the swarm: swarmkit init"
        errors.append(OperationFailed("no manager of a swarm here", where=where, hint=hint))
    raise_all(errors)
    raise AssertionError("there is an error to raise")


def leave(fleet: Fleet, ui: Ui, name: str, *, timeout: float, force: bool = False) -> Report:
    """Take a node out of the swarm: drained first, then gone from the swarm's list.

    A node that is down is only struck off the list. With `force` what cannot be drained in `timeout`
    seconds is taken along. Raises UsageError for the last manager, NotConverged where the drain does
    not end.
    """
    with ui.timed() as seconds:
        inventory = fleet.inventory
        if [host.name for host in inventory.managers] == [name]:
            raise UsageError(
                f"{name} is the only manager: without it there is no swarm",
                hint="to take the whole cluster apart: swarmkit reset",
            )
        manager = manager_engine(fleet, without=name)
        node = find_node(nodes(manager), name)
        host = inventory.host(node.name) or inventory.host(name)
        steps: list[Action] = []

        def did(text: str) -> None:
            steps.append(Step(node.name, text))
            ui.say(f"  {node.name}: {text}")

        if node.is_ready:
            try:
                drain_nodes(manager, [node], ui, timeout=timeout)
                did("drained")
            except NotConverged:
                if not force:
                    raise
        if node.is_manager:
            update_node(manager, node.id, role="worker")
            did("made a worker")
        if host is not None and node.is_ready:
            engine = fleet.engine(host)
            _leave_swarm(engine, node, manager)
            fleet.connection(host).run(REMOVE_TRUST).checked("removing the registry's certificates")
            did("left the swarm")
        forget_node(manager, node.id)
        did("struck off the swarm's list")
        return Report(inventory.cluster, steps, "done", seconds())


def _leave_swarm(engine: Engine, node: Node, manager: Engine) -> None:
    """Leave, once the node knows that it is a worker: a manager is not let go."""

    def left() -> bool:
        try:
            engine.post("/swarm/leave")
        except EngineError as error:
            if "not part of a swarm" in error.message:
                return True
            if "manager" in error.message:
                return False
            raise
        return True

    wait_for(
        left,
        LEAVE_SECONDS,
        lambda: NotConverged("the node still takes itself for a manager", where=node.name),
    )
    wait_for(
        lambda: not Node.of(manager.get(f"/nodes/{node.id}")).is_ready,
        LEAVE_SECONDS,
        lambda: NotConverged("the swarm does not notice that the node has left", where=node.name),
    )


# Leaves the swarm, and clears what swarmkit itself put on the machine. The engine's own data stays.
_RESET = f"""
if command -v docker >/dev/null; then
  state=$(docker info --format '{{{{.Swarm.LocalNodeState}}}}' 2>/dev/null)
  case "$state" in
    ''|inactive) ;;
    *) docker swarm leave --force >/dev/null || exit 1; echo left ;;
  esac
  for i in $(seq 50); do docker volume rm -f swarmkit-registry >/dev/null 2>&1 && break; sleep 0.2; done
fi
{REMOVE_TRUST}
"""


def reset(fleet: Fleet, ui: Ui) -> Report:
    """Take every host of the inventory out of its swarm, workers first; engines stay installed.

    Raises, after all reachable hosts are done, for those that could not be reset.
    """
    inventory = fleet.inventory
    with ui.timed() as seconds:
        steps: list[Action] = []
        errors: list[SwarmkitError] = []
        workers = [host for host in inventory.hosts if not host.is_manager]
        for group in (workers, inventory.managers):
            outcomes = fleet.map(
                lambda host: fleet.connection(host).run(_RESET).checked("leaving the swarm"), group
            )
            errors += outcomes.errors.values()
            for name, output in outcomes.values.items():
                if "left" in output.split():
                    steps.append(Step(name, "left the swarm"))
                    ui.say(f"  {name}: left the swarm")
        raise_all(errors)
        return Report(inventory.cluster, steps, "done", seconds())
