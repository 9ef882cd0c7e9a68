"""Forming a cluster, and bringing machines into it: observe, plan, apply, verify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network
from typing import Any

from swarmkit.cluster.actions import Action, InitSwarm, InstallEngine, JoinSwarm
from swarmkit.cluster.facts import HostFacts, SwarmMembership, look
from swarmkit.cluster.findings import Finding, Severity, errors_of, merged
from swarmkit.cluster.links import check_links
from swarmkit.cluster.lock import Lock, break_stale, locked
from swarmkit.cluster.phases import CHANGING, FORMING, PREPARING, Work, apply, verify
from swarmkit.cluster.plan import (
    ClusterPlan,
    Consent,
    SwarmState,
    founding_manager,
    plan_cluster,
)
from swarmkit.cluster.preflight import PACKET_SIZE, preflight
from swarmkit.errors import OperationFailed, SwarmkitError, UsageError, raise_all
from swarmkit.inventory import Host, Inventory
from swarmkit.inventory.addresses import swarm_address
from swarmkit.names import CLUSTER_LABEL
from swarmkit.remote import Fleet
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
    """How a change is made: only planned, with what consent, and what of a lock that another holds.

    `skip_checks`: what speaks against the machines is said, and stops nothing.
    """

    dry_run: bool = False
    skip_checks: bool = False
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
    outcomes = fleet.map(lambda host: look(fleet.connection(host))[0], chosen)
    facts, away = outcomes.values, outcomes.errors
    if not any(facts[host.name].swarm.is_manager for host in inventory.managers if host.name in facts):
        outcomes.all()
    founder = founding_manager(inventory, facts)
    return Seen(facts, away, founder, _swarm_state(fleet, founder, facts[founder.name].swarm))


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


@dataclass(frozen=True)
class _Prepared:
    """A plan that may be carried out, what it was made from, and what the user should know first.

    `inventory` has the IP addresses of those private addresses that are names.
    """

    inventory: Inventory
    seen: Seen
    plan: ClusterPlan
    findings: Sequence[Finding]


def _prepare(fleet: Fleet, hosts: Sequence[Host] | None, options: Options) -> _Prepared:
    """Observe and plan; raises all that speaks against it, of all hosts at once."""
    seen = observe(fleet, fleet.inventory.hosts if hosts is None else hosts)
    inventory = _addressed(fleet.inventory, seen.facts)
    if hosts is not None:
        if not seen.state.cluster_id:
            raise OperationFailed(
                f"there is no swarm: none of {', '.join(one.name for one in inventory.managers)} "
                "is a manager of one",
                where=inventory.cluster,
                hint="form it first: swarmkit init",
            )
        names = {host.name for host in hosts}
        hosts = [host for host in inventory.hosts if host.name in names]
    refusals: list[SwarmkitError] = []
    plan: ClusterPlan | None = None
    try:
        plan = plan_cluster(inventory, seen.facts, seen.state, hosts=hosts, consent=options.consent)
        new = {one.host for one in plan.actions if isinstance(one, InstallEngine | InitSwarm | JoinSwarm)}
    except SwarmkitError as error:
        refusals.append(error)
        new = {name for name, found in seen.facts.items() if not found.swarm.is_member}
    known = [host for host in inventory.hosts if host.name in seen.facts]
    findings = preflight(
        known, seen.facts, packet_size=_packet_size(inventory), data_path_port=inventory.swarm.data_path_port
    )
    # Of machines that are nodes already, `doctor` tells.
    findings = [one for one in findings if one.host in new]
    if not options.skip_checks:
        refusals += errors_of(findings)
    raise_all(refusals)
    assert plan is not None, "else it was refused"
    return _Prepared(inventory, seen, plan, findings)


def _addressed(inventory: Inventory, facts: Mapping[str, HostFacts]) -> Inventory:
    """The inventory with IP addresses where private addresses were names; raises for what is not clear."""
    hosts: list[Host] = []
    errors: list[SwarmkitError] = []
    for host in inventory.hosts:
        hosts.append(host)
        if host.name in facts:
            own = [str(one.address.ip) for one in facts[host.name].addresses if not one.is_dockers]
            try:
                hosts[-1] = replace(host, private_address=swarm_address(host, own))
            except UsageError as error:
                errors.append(error)
    raise_all(errors)
    return replace(inventory, hosts=tuple(hosts))


def _packet_size(inventory: Inventory) -> int:
    """The largest packet that overlay networks will send, in bytes."""
    return int(inventory.engine.get("mtu", PACKET_SIZE))


def _say(ui: Ui, findings: Sequence[Finding]) -> None:
    for one in merged(findings):
        said = f"{one.host}: {one.message}" if one.host else one.message
        if one.severity is Severity.NOTE:
            ui.say(f"note: {said}")
        else:
            ui.warn(said)


def converge_hosts(
    fleet: Fleet, ui: Ui, doing: str, hosts: Sequence[Host] | None, options: Options
) -> Report:
    """Bring `hosts` (all, where None) into the inventory's swarm; all but all need one that exists."""
    inventory = fleet.inventory
    chosen = inventory.hosts if hosts is None else hosts
    with ui.timed() as seconds:
        fleet.open_engine_ahead(inventory.managers[0])
        prepared = _prepare(fleet, hosts, options)
        for note in prepared.plan.notes:
            ui.warn(note)
        _say(ui, prepared.findings)
        if options.dry_run:
            for name, error in prepared.seen.away.items():
                ui.warn(f"{name}: left out: {error.message}")
            return Report(inventory.cluster, prepared.plan.actions, "planned", seconds())
        work = Work(fleet, prepared.plan, ui)
        if not prepared.plan.actions:
            # A run that was killed may have done all, and not lived to give the lock back.
            break_stale(work.manager, ui)
        elif not prepared.seen.state.cluster_id:
            _engines_and_links(work, prepared, options)
            apply(work, FORMING)
            if not work.is_lost:
                with _locked(work, doing, options) as lock:
                    apply(work, CHANGING, lock.check)
        else:
            with _locked(work, doing, options) as lock:
                # Whoever had the lock a moment ago may have changed what we saw.
                prepared = _prepare(fleet, hosts, options)
                work.plan = prepared.plan
                _engines_and_links(work, prepared, options)
                apply(work, FORMING, lock.check)
                apply(work, CHANGING, lock.check)
        away = prepared.seen.away
        errors = [*work.failed.values(), *_relevant(away, chosen)]
        if not work.is_lost:
            gone = {*work.failed, *away}
            try:
                known = () if work.done else prepared.seen.state.nodes
                verify(work.manager, [host for host in chosen if host.name not in gone], known)
            except SwarmkitError as error:
                errors.append(error)
        raise_all(errors)
        return Report(inventory.cluster, work.done, "done", seconds())


def _locked(work: Work, doing: str, options: Options) -> AbstractContextManager[Lock]:
    return locked(work.manager, work.ui, doing, wait=options.lock_wait, break_it=options.break_lock)


def _engines_and_links(work: Work, prepared: _Prepared, options: Options) -> None:
    """Install and set engines; meanwhile, where machines are to join, try the ports between all of them.

    Raises for ports that are blocked: nothing has joined then.
    """
    if not any(isinstance(action, JoinSwarm) for action in prepared.plan.actions):
        apply(work, PREPARING)
        return
    inventory = prepared.inventory
    known = [host for host in inventory.hosts if host.name in prepared.seen.facts]
    with ThreadPoolExecutor(max_workers=1) as pool:
        checking = pool.submit(
            check_links,
            work.fleet,
            known,
            prepared.seen.facts,
            data_path_port=inventory.swarm.data_path_port,
            packet_size=_packet_size(inventory),
        )
        apply(work, PREPARING)
        report = checking.result()
    errors = [] if options.skip_checks else errors_of(report.findings)
    if errors:
        raise_all([*work.failed.values(), *errors])
    _say(work.ui, [one for one in report.findings if options.skip_checks or not one.is_error])


def _relevant(away: Mapping[str, SwarmkitError], chosen: Sequence[Host]) -> list[SwarmkitError]:
    names = {host.name for host in chosen}
    return [error for name, error in away.items() if name in names]
