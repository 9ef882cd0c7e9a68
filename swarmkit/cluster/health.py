"""How a swarm that lives is doing: pure judgement of what its managers tell, and of certificates."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509

from swarmkit.cluster.facts import HostFacts
from swarmkit.cluster.findings import Finding, Severity
from swarmkit.cluster.ports import MANAGER_PORT
from swarmkit.cluster.preflight import PACKET_SIZE
from swarmkit.cluster.quorum import Quorum
from swarmkit.images import CERTS_DIR, REGISTRY_DIR
from swarmkit.inventory import Host
from swarmkit.inventory.models import DATA_PATH_PORT
from swarmkit.names import MOVE_LABEL
from swarmkit.swarm import FAILED_STATES, Node, Service, Task, moment

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE

# So many ends of one task's successors within this time are no accident; a task that has held so long
# has ended the row.
LOOP_FAILURES = 3
LOOP_WINDOW = timedelta(minutes=10)
LOOP_OVER = timedelta(minutes=1)
# Nodes renew their certificates when between half and four fifths of their life is over (moby/swarmkit,
# ca/renewer.go): in the last fifth something is wrong with that.
RENEWED_UNTIL = 0.8
# What nobody renews must be told of early enough to plan for it.
EXPIRY_WARNING = timedelta(days=30)
EXPIRY_ERROR = timedelta(days=7)

MTU_OPTION = "com.docker.network.driver.mtu"

# Prints the host's certificates (no keys) as facts; SCRIPT has set `data`, the engine's folder.
CERTIFICATES = f"""
certificate() {{ if [ -r "$2" ]; then fact "certificate.$1" "$(base64 -w 0 "$2")"; fi; }}
certificate node "$data/swarm/certificates/swarm-node.crt"
certificate client '{CERTS_DIR}/client.cert'
certificate authority '{CERTS_DIR}/ca.crt'
certificate server {REGISTRY_DIR}/server.crt
"""


@dataclass(frozen=True)
class Certificate:
    """A certificate's life, and whether the swarm renews it by itself. `host` is empty for the swarm's CA."""

    host: str
    kind: str
    begins: datetime
    ends: datetime

    @property
    def is_renewed(self) -> bool:
        return self.kind == "node"


@dataclass(frozen=True)
class SwarmView:
    """A swarm as a manager tells it, at one time by that manager's clock."""

    nodes: Sequence[Node]
    services: Sequence[Service]
    tasks: Sequence[Task]
    networks: Sequence[Mapping[str, Any]]
    swarm: Mapping[str, Any]
    now: datetime

    @property
    def quorum(self) -> Quorum:
        return Quorum.of(self.nodes)

    @property
    def data_path_port(self) -> int:
        return int(self.swarm.get("DataPathPort") or DATA_PATH_PORT)

    @property
    def packet_size(self) -> int:
        """The largest packet that an overlay network sends, in bytes."""
        sizes = [
            str((network.get("Options") or {}).get(MTU_OPTION, PACKET_SIZE))
            for network in self.networks
            if network.get("Driver") == "overlay"
        ]
        return max((int(size) for size in sizes if size.isdecimal()), default=PACKET_SIZE)


def judge_swarm(
    view: SwarmView, hosts: Sequence[Host] | None = None, facts: Mapping[str, HostFacts] | None = None
) -> list[Finding]:
    """What is wrong with the swarm itself, and between it and the inventory's `hosts` where there is one."""
    found = [
        *_quorum(view),
        *_nodes(view),
        *_versions(view),
        *_placing(view),
        *_loops(view),
        *_updates(view),
    ]
    if hosts is not None and facts is not None:
        found += _membership(view, hosts, facts)
        found += _without_ipvs(view, facts)
    explained = {finding.host for finding in found}
    found += (one for one in _incomplete(view) if one.host not in explained)
    return found


def _quorum(view: SwarmView) -> Iterator[Finding]:
    quorum = view.quorum
    count, reachable = len(quorum.managers), len(quorum.reachable)
    away = ", ".join(sorted(quorum.managers - quorum.reachable))
    if quorum.spare < 0:
        yield quorum_lost(
            f"{reachable} of {count} managers reachable (not {away}), and {quorum.needed} must agree"
        )
    elif reachable < count:
        hint = (
            f"bring {away} back; what will not come back is taken out with `swarmkit leave`, and another "
            "node made a manager with `swarmkit node promote`"
        )
        text = f"{reachable} of {count} managers reachable (not {away})"
        if quorum.spare == 0:
            text += ": quorum at its edge; if one more fails, nothing can be changed or moved any more"
            yield Finding("quorum-at-edge", ERROR, "", text, hint)
        else:
            text += f": {quorum.spare} more may fail"
            yield Finding("manager-unreachable", WARNING, "", text, hint)
    elif count == 2:
        yield Finding(
            "even-managers",
            WARNING,
            "",
            "2 managers: none may fail, for more than half must agree; that is worse than one",
            "make a third node a manager with `swarmkit node promote`, or one of these a worker with "
            "`swarmkit node demote`",
        )
    elif count % 2 == 0 and count:
        text = f"{count} managers bear the loss of {quorum.spare}, as {count - 1} do"
        yield Finding("even-managers", NOTE, "", text, "an odd number of managers is best")


def quorum_lost(why: str) -> Finding:
    """The finding for managers that are no majority any more, and so have no leader."""
    return Finding(
        "quorum-lost",
        ERROR,
        "",
        f"{why}. What runs goes on running; nothing can be changed, and what fails is not started again",
        "bring managers back until more than half of all are up. If they are lost for good, on one that is "
        "left: docker swarm init --force-new-cluster --advertise-addr ADDRESS",
    )


def _nodes(view: SwarmView) -> Iterator[Finding]:
    for node in view.nodes:
        if not node.is_ready:
            since = moment(node.raw["UpdatedAt"])
            message = node.raw["Status"].get("Message", "")
            text = f"the node is {node.state}, for {span(view.now - since)} (since {since:%Y-%m-%d %H:%M:%S})"
            yield Finding(
                "node-down",
                ERROR,
                node.name,
                f"{text}{f': {message}' if message else ''}",
                "is the machine up, and its engine (systemctl status docker)? Can it reach the managers on "
                f"{MANAGER_PORT}/tcp? If it is gone for good: swarmkit leave NODE",
            )
        elif node.availability != "active":
            what = "takes no tasks" if node.availability == "drain" else "takes no new tasks"
            hint = f"when it should again: swarmkit node activate {node.name}"
            if MOVE_LABEL in node.labels:
                what += ", for a drain or a rebalance is at work or was cut off"
                hint = f"to undo what was cut off: swarmkit node activate {node.name}"
            yield Finding(
                "node-not-active",
                NOTE,
                node.name,
                f"the node {what} (its availability is {node.availability})",
                hint,
            )


def _versions(view: SwarmView) -> Iterator[Finding]:
    by_version: dict[str, list[str]] = {}
    for node in view.nodes:
        if node.engine and node.is_ready:
            by_version.setdefault(node.engine, []).append(node.name)
    if len(by_version) > 1:
        shown = "; ".join(f"{version} on {', '.join(names)}" for version, names in sorted(by_version.items()))
        yield Finding(
            "engine-versions",
            WARNING,
            "",
            f"the Docker Engines differ: {shown}",
            "upgrade the older ones, managers first, one node at a time, each drained before",
        )


def _tasks_of(view: SwarmView, service: Service) -> list[Task]:
    return [task for task in view.tasks if task.service_id == service.id]


def _placing(view: SwarmView) -> Iterator[Finding]:
    for service in view.services:
        waiting = [
            task
            for task in _tasks_of(view, service)
            if task.state == "pending" and task.desired == "running" and task.error
        ]
        if waiting:
            wanted = service.constraints
            rules = f"; it asks for {', '.join(wanted)}" if wanted else ""
            yield Finding(
                "unplaceable",
                ERROR,
                service.name,
                f"{_count(len(waiting), 'task')} cannot be placed: {waiting[0].error}{rules}",
                "see what nodes have: swarmkit node ls; give one the label, or let the service ask for less",
            )


def _loops(view: SwarmView) -> Iterator[Finding]:
    for service in view.services:
        if service.mode.endswith("job"):
            continue
        by_place: dict[int | str, list[Task]] = {}
        for task in _tasks_of(view, service):
            by_place.setdefault(task.place, []).append(task)
        ended: list[Task] = []
        for some in by_place.values():
            newest = max(some, key=lambda task: task.created)
            if newest.is_up and view.now - newest.changed > LOOP_OVER:
                continue
            recent = [
                task
                for task in some
                if task.state in (*FAILED_STATES, "complete") and view.now - task.changed < LOOP_WINDOW
            ]
            if len(recent) >= LOOP_FAILURES:
                ended += recent
        if ended:
            last = max(ended, key=lambda task: task.changed)
            why = last.error or "it ended by itself, with exit code 0"
            yield Finding(
                "crash-loop",
                ERROR,
                service.name,
                f"tasks ended {len(ended)} times within {span(LOOP_WINDOW)}, "
                f"last {span(view.now - last.changed)} ago: {why}",
                f"see why: swarmkit service logs {service.name}; swarmkit service ps {service.name}",
            )


def _updates(view: SwarmView) -> Iterator[Finding]:
    for service in view.services:
        if service.is_halted:
            yield Finding(
                "update-paused",
                WARNING,
                service.name,
                f"its update stands still: {service.update_message or service.update_state}",
                f"correct it and update again, or: docker service rollback {service.name}",
            )


def _incomplete(view: SwarmView) -> Iterator[Finding]:
    for service in view.services:
        if not service.mode.endswith("job") and service.running < service.desired:
            yield Finding(
                "tasks-missing",
                WARNING,
                service.name,
                f"{service.running} of {service.desired} tasks run",
                f"they may be starting; see: swarmkit service ps {service.name}",
            )


def _membership(view: SwarmView, hosts: Sequence[Host], facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    ids, names = {node.id for node in view.nodes}, {node.name for node in view.nodes}
    for host in hosts:
        one = facts.get(host.name)
        if one.swarm.node_id not in ids if one is not None else host.name not in names:
            text = "the machine is in the inventory, and no node of the swarm"
            yield Finding("not-a-node", ERROR, host.name, text, "make it one: swarmkit init")
    own = {host.name for host in hosts}
    own_ids = {facts[name].swarm.node_id for name in own if name in facts}
    for node in view.nodes:
        if node.name not in own and node.id not in own_ids:
            text = "the node is not in the inventory: its machine was not looked at"
            yield Finding("foreign-node", NOTE, node.name, text, "write it into the inventory")


def _without_ipvs(view: SwarmView, facts: Mapping[str, HostFacts]) -> Iterator[Finding]:
    ids = {node.id for node in view.nodes}
    lacking = [name for name, one in facts.items() if not one.has_ipvs and one.swarm.node_id in ids]
    if not lacking:
        return
    where = ", ".join(lacking)
    for service in view.services:
        endpoint = service.spec.get("EndpointSpec") or {}
        ports = [
            str(port.get("PublishedPort") or "a port")
            for port in endpoint.get("Ports") or []
            if port.get("PublishMode", "ingress") == "ingress"
        ]
        if ports:
            yield Finding(
                "no-ipvs",
                ERROR,
                service.name,
                f"it publishes {', '.join(ports)} in `ingress` mode, and {where} cannot serve that: "
                "the kernel has no IPVS, nothing answers there",
                "publish it in `mode: host`, or behind swarmkit's balancer (label swarmkit.lb.port); "
                "or install a kernel with ip_vs",
            )
        elif endpoint.get("Mode", "vip") == "vip" and service.spec["TaskTemplate"].get("Networks"):
            yield Finding(
                "no-ipvs",
                WARNING,
                service.name,
                f"its name stands for a virtual IP, which does not answer on {where}: the kernel has no IPVS",
                "give it `endpoint_mode: dnsrr`, or call it as tasks.NAME",
            )


def certificates(host: str, printed: str) -> list[Certificate]:
    """The host's certificates, from what CERTIFICATES printed; what cannot be read is left out."""
    found: list[Certificate] = []
    for line in printed.split("\n"):
        key, _, value = line.partition("=")
        if key.startswith("certificate."):
            try:
                text = base64.b64decode(value, validate=True)
            except ValueError:
                continue
            found += certificate(host, key.removeprefix("certificate."), text)
    return found


def certificate(host: str, kind: str, pem: bytes) -> list[Certificate]:
    """The first certificate of a PEM file (the others are those of its issuers), as a list of one or none."""
    try:
        first = x509.load_pem_x509_certificate(pem)
    except ValueError:
        return []
    return [Certificate(host, kind, first.not_valid_before_utc, first.not_valid_after_utc)]


_CERTIFICATES: Mapping[str, tuple[str, str]] = {
    "node": (
        "the node's certificate in the swarm",
        "can it reach the managers, and is its clock right? To make it anew, on the machine: "
        "systemctl restart docker; for all nodes: docker swarm ca --rotate",
    ),
    "swarm": ("the swarm's certificate authority", "make a new one: docker swarm ca --rotate"),
    "client": (
        "the node's certificate for the registry",
        f"remove it there (rm '{CERTS_DIR}/client.issuer'), then: swarmkit init",
    ),
    "server": (
        "the registry's certificate",
        f"remove it there (rm {REGISTRY_DIR}/server.issuer), then: swarmkit init",
    ),
    "authority": (
        "the registry's certificate authority",
        "remove it on all managers (rm -r /var/lib/swarmkit/ca), then: swarmkit init",
    ),
}


def judge_certificates(some: Iterable[Certificate], now: datetime) -> Iterator[Finding]:
    """Certificates that have ended or will, unless the swarm renews them in time as it should."""
    for one in some:
        what, hint = _CERTIFICATES.get(one.kind, (one.kind, ""))
        left, life = one.ends - now, one.ends - one.begins
        if left <= timedelta():
            text = f"{what} ended {span(-left)} ago ({one.ends:%Y-%m-%d})"
            yield Finding("certificate-expired", ERROR, one.host, text, hint)
        elif one.is_renewed:
            if left < life * (1 - RENEWED_UNTIL):
                text = (
                    f"{what} ends in {span(left)} ({one.ends:%Y-%m-%d %H:%M} UTC): "
                    "it should have been renewed by itself before"
                )
                yield Finding("certificate-expiring", ERROR, one.host, text, hint)
        elif left < EXPIRY_WARNING:
            text = f"{what} ends in {span(left)} ({one.ends:%Y-%m-%d})"
            severity = ERROR if left < EXPIRY_ERROR else WARNING
            yield Finding("certificate-expiring", severity, one.host, text, hint)


_UNITS: Sequence[tuple[str, Callable[[float], float]]] = (
    ("day", lambda seconds: seconds / 86400),
    ("hour", lambda seconds: seconds / 3600),
    ("minute", lambda seconds: seconds / 60),
)


def span(time: timedelta) -> str:
    """A stretch of time in one unit, cut to whole numbers: `3 days`, `1 minute`, `12 seconds`."""
    seconds = max(time.total_seconds(), 0.0)
    for name, of in _UNITS:
        if of(seconds) >= 1:
            return _count(int(of(seconds)), name)
    return _count(int(seconds), "second")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def utc_now() -> datetime:
    """The time by our own clock."""
    return datetime.now(UTC)
