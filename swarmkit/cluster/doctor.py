"""Look at everything that a swarm lives by, and say what is wrong: machines, ports, managers, services.

The looking is here; all judgement is in `preflight`, `links` and `health`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from swarmkit.cluster.facts import HostFacts, look
from swarmkit.cluster.findings import Finding, Severity, in_order
from swarmkit.cluster.health import (
    CERTIFICATES,
    Certificate,
    SwarmView,
    certificate,
    certificates,
    judge_certificates,
    judge_swarm,
    quorum_lost,
    utc_now,
)
from swarmkit.cluster.links import LinkReport, check_links
from swarmkit.cluster.ports import GOSSIP_PORT, MANAGER_PORT
from swarmkit.cluster.preflight import PACKET_SIZE, preflight
from swarmkit.cluster.quorum import majority
from swarmkit.errors import Exit, Unreachable
from swarmkit.inventory import Host
from swarmkit.inventory.models import DATA_PATH_PORT
from swarmkit.remote import Engine, EngineError, Fleet
from swarmkit.swarm import Task, moment, nodes, services
from swarmkit.ui import Ui

# After a leader has gone the others elect a new one, in a few seconds: no leader meanwhile is no loss.
ELECTION_TRIES = 5
ELECTION_SECONDS = 1.0
# What is said of the swarm by whoever was asked, although there is nothing more to read.
_ANSWERS = frozenset({"quorum-lost", "no-swarm"})


@dataclass
class Diagnosis:
    """What was found, and what was looked at. `reached` is whether the swarm, or its absence, was seen."""

    cluster: str
    findings: list[Finding] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    seconds: float = 0.0
    reached: bool = True

    @property
    def is_healthy(self) -> bool:
        """No error; warnings and notes are no illness."""
        return not any(one.is_error for one in self.findings)

    @property
    def exit(self) -> Exit:
        if not self.reached:
            return Exit.UNREACHABLE
        return Exit.OK if self.is_healthy else Exit.FAILED

    def json(self) -> dict[str, Any]:
        return {
            "cluster": self.cluster,
            "healthy": self.is_healthy,
            "findings": [one.json() for one in self.findings],
            "checked": self.checked,
            "seconds": self.seconds,
        }


def examine(fleet: Fleet, ui: Ui) -> Diagnosis:
    """Look at an inventory's machines, at the ports between them, and at their swarm.

    What cannot be reached is a finding and stops nothing.
    """
    hosts = fleet.inventory.hosts
    found = Diagnosis(fleet.inventory.cluster)
    with ui.timed() as seconds, ui.progress() as shown:
        shown.detail(f"  looking at {len(hosts)} machines")
        looked = fleet.map(lambda host: _look(fleet, host))
        for name, error in looked.errors.items():
            found.findings.append(
                Finding("host-unreachable", Severity.ERROR, name, error.message, error.hint)
            )
        facts = {name: one for name, (one, _) in looked.values.items()}
        kept = [one for _, some in looked.values.values() for one in some]
        found.checked.append(
            f"{len(facts)} of {_count(len(hosts), 'machine')}: system, kernel, disk, memory, clock, identity"
        )
        shown.detail("  asking the swarm")
        view, problems = _ask(fleet, hosts, facts)
        found.findings += problems
        found.reached = view is not None or any(one.code in _ANSWERS for one in problems)
        shown.detail("  trying the ports between the machines")
        sizes = (
            {"data_path_port": view.data_path_port, "packet_size": view.packet_size}
            if view is not None
            else {}
        )
        judged = preflight(hosts, facts, **sizes)
        links = check_links(fleet, [host for host in hosts if host.name in facts], facts, **sizes)
        found.findings += links.findings
        if links.paths:
            found.checked.append(_ports(links, **sizes))
        if view is not None:
            of_swarm = judge_swarm(view, hosts, facts)
            if any(one.code == "no-ipvs" for one in of_swarm):
                judged = [one for one in judged if one.code != "no-ipvs"]
            found.findings += of_swarm
            kept += _authority(view)
            found.checked += _swarm_in_words(view)
        found.findings += judged
        found.findings += judge_certificates(kept, utc_now())
        if kept:
            found.checked.append(_certificates_in_words(kept))
        found.findings = in_order(found.findings)
        found.seconds = seconds()
    return found


def examine_engine(engine: Engine, ui: Ui) -> Diagnosis:
    """Look at a swarm through one manager's engine; its machines stay unseen."""
    found = Diagnosis(engine.name)
    with ui.timed() as seconds:
        try:
            view = read_swarm(engine)
        except EngineError as error:
            if not error.is_leaderless:
                raise
            found.findings.append(_leaderless())
        else:
            kept = _authority(view)
            found.findings = in_order([*judge_swarm(view), *judge_certificates(kept, utc_now())])
            found.checked = [*_swarm_in_words(view), _certificates_in_words(kept)]
        found.checked.append("not the machines, nor the ports between them: that takes an inventory (-i)")
        found.seconds = seconds()
    return found


def read_swarm(engine: Engine) -> SwarmView:
    """All that a manager tells of its swarm; raises EngineError where it has no leader to ask."""
    found = nodes(engine)
    return SwarmView(
        nodes=found,
        services=services(engine),
        tasks=[Task.of(raw) for raw in engine.get("/tasks")],
        networks=engine.get("/networks"),
        swarm=engine.get("/swarm"),
        now=moment(engine.get("/info")["SystemTime"]),
    )


def _look(fleet: Fleet, host: Host) -> tuple[HostFacts, list[Certificate]]:
    facts, printed = look(fleet.connection(host), CERTIFICATES)
    return facts, certificates(host.name, printed)


def _ask(
    fleet: Fleet, hosts: Sequence[Host], facts: Mapping[str, HostFacts]
) -> tuple[SwarmView | None, list[Finding]]:
    """The swarm as the first manager that can tell does, and what keeps engines from telling."""
    problems = [
        problem for host in hosts if host.name in facts for problem in _engine(host, facts[host.name])
    ]
    asked = [host for host in hosts if host.name in facts and facts[host.name].swarm.is_manager]
    for left in range(ELECTION_TRIES, 0, -1):
        silent: list[Finding] = []
        is_leaderless = False
        for host in asked:
            try:
                return read_swarm(fleet.engine(host)), [*problems, *silent]
            except (EngineError, Unreachable) as error:
                if isinstance(error, EngineError) and error.is_leaderless:
                    is_leaderless = True
                else:
                    down = Finding("engine-down", Severity.ERROR, host.name, error.message, _ENGINE_HINT)
                    silent.append(down)
        # With too few managers there is nothing to wait for.
        if not is_leaderless or left == 1 or len(asked) < majority(len(fleet.inventory.managers)):
            problems += silent
            break
        time.sleep(ELECTION_SECONDS)
    if is_leaderless:
        return None, [*problems, _leaderless()]
    if not any(one.swarm.is_member for one in facts.values()):
        if facts:
            text = "no machine that answers is in a swarm"
            problems.append(Finding("no-swarm", Severity.ERROR, "", text, "form it: swarmkit init"))
    elif not asked:
        text = "no manager of the swarm answers: only workers do"
        hint = "bring the managers back; see what is said of each"
        problems.append(Finding("no-manager", Severity.ERROR, "", text, hint))
    return None, problems


_ENGINE_HINT = "look there: systemctl status docker; journalctl -u docker -n 50"


def _engine(host: Host, found: HostFacts) -> list[Finding]:
    if found.has_engine and not found.engine_version:
        text = "the Docker Engine does not answer"
        return [Finding("engine-down", Severity.ERROR, host.name, text, _ENGINE_HINT)]
    if found.swarm.state == "locked":
        text = "the manager is locked: it waits for the swarm's unlock key"
        return [Finding("swarm-locked", Severity.ERROR, host.name, text, "on it: docker swarm unlock")]
    if found.swarm.state == "error":
        text = f"the engine cannot take part in its swarm: {found.swarm.error or 'no reason given'}"
        return [Finding("swarm-error", Severity.ERROR, host.name, text, _ENGINE_HINT)]
    return []


def _leaderless() -> Finding:
    return quorum_lost("the managers have no leader: no majority of them reach each other")


def _authority(view: SwarmView) -> list[Certificate]:
    pem = str((view.swarm.get("TLSInfo") or {}).get("TrustRoot") or "")
    return certificate("", "swarm", pem.encode())


def _ports(links: LinkReport, data_path_port: int = DATA_PATH_PORT, packet_size: int = PACKET_SIZE) -> str:
    which = "" if links.every_pair else " (each with every manager, and with its neighbours in the inventory)"
    return (
        f"{links.paths} ways between {_count(links.hosts, 'machine')}{which}: {MANAGER_PORT}/tcp to "
        f"managers, {GOSSIP_PORT}/tcp, {GOSSIP_PORT}/udp, {data_path_port}/udp, packets of "
        f"{packet_size} bytes"
    )


def _swarm_in_words(view: SwarmView) -> list[str]:
    quorum = view.quorum
    count, reachable = len(quorum.managers), len(quorum.reachable)
    may_fail = f"{quorum.spare} may fail" if quorum.spare > 0 else "none may fail"
    ready = [node for node in view.nodes if node.is_ready]
    engines = ", ".join(sorted({node.engine for node in ready if node.engine}))
    running = sum(service.running for service in view.services)
    desired = sum(service.desired for service in view.services)
    return [
        f"{_count(count, 'manager')}, {reachable} reachable: {may_fail}",
        f"{len(ready)} of {_count(len(view.nodes), 'node')} ready; Docker {engines or 'unknown'}",
        f"{_count(len(view.services), 'service')}: {running} of {_count(desired, 'task')} run",
    ]


def _certificates_in_words(some: Sequence[Certificate]) -> str:
    first = min((one.ends for one in some), default=None)
    ends = f"; the first ends {first:%Y-%m-%d}" if first else ""
    renewed = " (nodes renew theirs by themselves)" if any(one.is_renewed for one in some) else ""
    return f"{_count(len(some), 'certificate')}{ends}{renewed}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
