"""Forming a cluster, and bringing machines into it: observe, plan, apply, verify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Any

from swarmkit.cluster.actions import Action
from swarmkit.cluster.facts import SCRIPT, HostFacts, SwarmMembership
from swarmkit.cluster.lock import break_stale, locked
from swarmkit.cluster.phases import CHANGING, FORMING, Work, apply, verify
from swarmkit.cluster.plan import (
    ClusterPlan,
    Consent,
    SwarmState,
    founding_manager,
    plan_cluster,
)
from swarmkit.errors import OperationFailed, SwarmkitError, UsageError, raise_all
from swarmkit.inventory import Host
from swarmkit.names import CLUSTER_LABEL
from swarmkit.remote import Engine, Fleet
from swarmkit.remote.engine import load_in_background
from swarmkit.swarm import nodes
from swarmkit.ui import Ui


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


@dataclass(frozen=True)
class Options:
    """How a change is made: only planned, with what consent, and what of a lock that another holds."""

    dry_run: bool = False
    consent: Consent = field(default_factory=Consent)
    lock_wait: float = 0
    break_lock: bool = False


@dataclass(frozen=True)
class Seen:
    """What was found: facts of the hosts that were reached, why the others were not, and the swarm."""

    facts: Mapping[str, HostFacts]
    away: Mapping[str, SwarmkitError]
    founder: Host
    state: SwarmState


def observe(fleet: Fleet, hosts: Sequence[Host]) -> Seen:
    """Look at the managers and at `hosts`, one round trip each, and at the swarm as a manager sees it.

    A host that is away stops nothing in a swarm that lives. Where there is none yet, it does: raises for
    every such host, and what `founding_manager` raises.
    """
    inventory = fleet.inventory
    # Only managers and the hosts in question are looked at: the rest are not ours to change now.
    chosen = [host for host in inventory.hosts if host.is_manager or host in hosts]
    outcomes = fleet.map(lambda host: _facts(fleet, host), chosen)
    facts, away = outcomes.values, outcomes.errors
    if not any(facts[host.name].swarm.is_manager for host in inventory.managers if host.name in facts):
        outcomes.all()
    founder = founding_manager(inventory, facts)
    return Seen(facts, away, founder, _swarm_state(fleet, founder, facts[founder.name].swarm))


def _facts(fleet: Fleet, host: Host) -> HostFacts:
    return HostFacts.parse(fleet.connection(host).run(SCRIPT, timeout=60).checked("looking at the machine"))


def _swarm_state(fleet: Fleet, founder: Host, swarm: SwarmMembership) -> SwarmState:
    """The swarm as its manager sees it; an empty state where the founder is no manager yet."""
    if not swarm.is_manager:
        return SwarmState()
    engine = fleet.engine(founder)
    networks = engine.get("/networks")
    labels = engine.get("/swarm")["Spec"].get("Labels") or {}
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
        mark=labels.get(CLUSTER_LABEL, ""),
    )


def init(fleet: Fleet, ui: Ui, options: Options) -> Report:
    """Make the inventory's hosts one swarm; what is right already stays untouched.

    Raises what planning and the phases raise; the errors of several hosts together, after everything
    that could be done has been done.
    """
    return converge_hosts(fleet, ui, "init", None, options)


def join(fleet: Fleet, ui: Ui, host: Host, options: Options) -> Report:
    """Make one host of the inventory a node of its swarm, which must exist; raises as `init` does."""
    return converge_hosts(fleet, ui, f"join {host.name}", [host], options)


def converge_hosts(
    fleet: Fleet, ui: Ui, doing: str, hosts: Sequence[Host] | None, options: Options
) -> Report:
    """Bring `hosts` (all, where None) into the inventory's swarm; all but all need one that exists."""
    inventory = fleet.inventory
    chosen = inventory.hosts if hosts is None else hosts

    def plan() -> tuple[Seen, ClusterPlan]:
        seen = observe(fleet, chosen)
        if hosts is not None and not seen.state.cluster_id:
            raise OperationFailed(
                f"there is no swarm: none of {', '.join(one.name for one in inventory.managers)} "
                "is a manager of one",
                where=inventory.cluster,
                hint="form it first: swarmkit init",
            )
        return seen, plan_cluster(inventory, seen.facts, seen.state, hosts=hosts, consent=options.consent)

    with ui.timed() as seconds:
        load_in_background()
        seen, planned = plan()
        for note in planned.notes:
            ui.warn(note)
        if planned.actions and not all(one.has_ipvs for one in seen.facts.values()):
            ui.warn(
                "a kernel here has no IPVS: ports published in `ingress` mode and virtual IPs will not "
                "answer; swarmkit's own stacks do without them"
            )
        if options.dry_run:
            for name, error in seen.away.items():
                ui.warn(f"{name}: left out: {error.message}")
            return Report(inventory.cluster, planned.actions, "planned", seconds())
        work = Work(fleet, planned, ui)
        if planned.actions:
            if not seen.state.cluster_id:
                apply(work, FORMING)
            if not work.is_lost:
                waited = options.lock_wait, options.break_lock
                with locked(work.manager, ui, doing, wait=waited[0], break_it=waited[1]) as lock:
                    if seen.state.cluster_id:
                        # Whoever had the lock a moment ago may have changed what we saw.
                        seen, work.plan = plan()
                        apply(work, FORMING, lock.check)
                    apply(work, CHANGING, lock.check)
        else:
            # A run that was killed may have done all, and not lived to give the lock back.
            break_stale(work.manager, ui)
        errors = [*work.failed.values(), *_relevant(seen.away, chosen)]
        if not work.is_lost:
            gone = {*work.failed, *seen.away}
            try:
                verify(work, [host for host in chosen if host.name not in gone])
            except SwarmkitError as error:
                errors.append(error)
        raise_all(errors)
        return Report(inventory.cluster, work.done, "done", seconds())


def _relevant(away: Mapping[str, SwarmkitError], chosen: Sequence[Host]) -> list[SwarmkitError]:
    names = {host.name for host in chosen}
    return [error for name, error in away.items() if name in names]


def manager_engine(fleet: Fleet, without: str = "") -> Engine:
    """The engine of whichever of the inventory's managers (`without` one) answers first as one.

    Raises Unreachable (or Problems) where none answers, OperationFailed where they are in no swarm.
    """

    def ask(host: Host) -> Engine:
        engine = fleet.engine(host)
        if not SwarmMembership.of(engine.get("/info")).is_manager:
            raise OperationFailed(
                "no manager of a swarm", where=host.name, hint="form the swarm: swarmkit init"
            )
        return engine

    others = [host for host in fleet.inventory.managers if host.name != without]
    if not others:
        raise UsageError(
            f"{without} is the inventory's only manager", hint="the swarm is spoken to through another one"
        )
    return fleet.first(ask, others)
