"""The live check of the ports that Swarm's nodes need of each other, from the nodes themselves.

In three round trips, all hosts in parallel: every host begins to listen, every host sends to its peers,
every host tells what has arrived. `links.pl` does the work there; it takes no port from an engine, so
that the check is the same on bare machines and in a swarm that lives. What it leaves on a host ends by
itself also where we are cut off.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, ip_address
from pathlib import Path

from swarmkit.cluster.facts import HostFacts
from swarmkit.cluster.findings import Finding, Severity, in_order
from swarmkit.cluster.ports import GOSSIP_PORT, MANAGER_PORT
from swarmkit.cluster.preflight import PACKET_SIZE
from swarmkit.inventory import Host
from swarmkit.inventory.models import DATA_PATH_PORT
from swarmkit.remote import Fleet, Outcomes

# Between so many hosts every pair is tried, both ways. Among more, every host is tried with every manager
# and with NEIGHBOURS others on each side of it in the inventory: what a firewall rule for a group of
# machines forgets shows as well.
ALL_PAIRS = 40
NEIGHBOURS = 4
# A connection that is dropped is tried again by the kernel after one second.
ANSWER_SECONDS = 2
_LISTEN_SECONDS = 30
# Hosts are worked on in batches (Fleet): the first must still listen when the last one sends.
_LISTEN_SECONDS_A_HOST = 0.5


@dataclass(frozen=True)
class Probe:
    """One way from a host to another that was tried, and why it failed; `reason` is empty where it works.

    `protocol` is tcp, udp, or mtu for a datagram of full size to the data path's port.
    """

    source: str
    target: str
    protocol: str
    port: int
    reason: str = ""
    seen_from: str = ""


@dataclass
class LinkReport:
    """What the check has found, and how many ways were tried between how many hosts."""

    findings: list[Finding] = field(default_factory=list)
    hosts: int = 0
    paths: int = 0
    every_pair: bool = True


def pairs(hosts: Sequence[Host]) -> list[tuple[Host, Host]]:
    """The pairs (from, to) to try: all, or among more than ALL_PAIRS hosts a part that grows as they do."""
    if len(hosts) <= ALL_PAIRS:
        return [(one, other) for one in hosts for other in hosts if one is not other]
    near: dict[tuple[str, str], tuple[Host, Host]] = {}
    for index, one in enumerate(hosts):
        others = [hosts[(index + step) % len(hosts)] for step in range(1, NEIGHBOURS + 1)]
        for other in (*others, *(host for host in hosts if host.is_manager and host is not one)):
            near[one.name, other.name] = (one, other)
            near[other.name, one.name] = (other, one)
    return list(near.values())


def check_links(
    fleet: Fleet,
    hosts: Sequence[Host],
    facts: Mapping[str, HostFacts],
    *,
    data_path_port: int = DATA_PATH_PORT,
    packet_size: int = PACKET_SIZE,
) -> LinkReport:
    """Try the ports between `hosts`, which `facts` holds; nothing is raised for a host that fails.

    `packet_size` is that of the largest packet that the swarm's overlay networks send, in bytes: one of
    that size must arrive whole.
    """
    report = LinkReport()
    chosen = [host for host in hosts if _ipv4(host.private_address)]
    for host in hosts:
        if host not in chosen:
            why = f"the private address {host.private_address} is not one of IPv4"
            report.findings.append(_unchecked(host.name, why))
    if len(chosen) < 2:
        return report
    nonce = secrets.token_hex(8)
    program = (Path(__file__).parent / "links.pl").read_text(encoding="utf-8")
    seconds = int(_LISTEN_SECONDS + _LISTEN_SECONDS_A_HOST * len(chosen))

    def run(host: Host, script: str) -> str:
        return fleet.connection(host).run(script).checked("trying the ports between nodes")

    started = fleet.map(lambda host: run(host, _listen(program, nonce, seconds, host)), chosen)
    _leave_out(report, started)
    ready = [host for host in chosen if "ready" in started.values.get(host.name, "").split()]
    wanted = pairs(ready)
    numbers = {host.name: number for number, host in enumerate(ready)}
    sizes = {host.name: _full_size(host, facts[host.name], packet_size) for host in ready}

    def send(host: Host) -> str:
        targets = [target for source, target in wanted if source is host]
        return run(host, _send(program, nonce, host, targets, numbers, sizes[host.name], data_path_port))

    sent = fleet.map(send, ready)
    arrived = fleet.map(lambda host: run(host, _collect(nonce)), ready)
    _leave_out(report, sent)
    _leave_out(report, arrived)
    tried = [
        (source, target)
        for source, target in wanted
        if source.name in sent.values and target.name in arrived.values
    ]
    probes = list(read_probes(tried, numbers, sent.values, arrived.values, sizes, data_path_port))
    report.hosts, report.paths = len(ready), len(tried)
    report.every_pair = len(wanted) == len(ready) * (len(ready) - 1)
    report.findings += judge_probes(probes, hosts, facts, data_path_port)
    return report


def _ipv4(address: str) -> bool:
    try:
        return isinstance(ip_address(address), IPv4Address)
    except ValueError:
        return False


def _full_size(host: Host, found: HostFacts, packet_size: int) -> int:
    """The size of the large packet to send; 0 where the interface is too small for one.

    Preflight has said so then: nothing of that size leaves the host.
    """
    nic = found.nic_of(host.private_address)
    return 0 if nic is not None and nic.mtu < packet_size else packet_size


def _leave_out(report: LinkReport, outcomes: Outcomes[str]) -> None:
    for name, error in outcomes.errors.items():
        said = error.hint.splitlines()[-1].strip() if error.hint else error.message
        report.findings.append(_unchecked(name, said))
    for name, said in outcomes.values.items():
        if said.strip() == "no-perl":
            report.findings.append(_unchecked(name, "there is no perl to try them with"))


def _unchecked(name: str, why: str) -> Finding:
    return Finding("ports-unchecked", Severity.NOTE, name, f"the ports from and to it were not tried: {why}")


def _perl(program: str, *arguments: str) -> str:
    return f"perl - {shlex.join(arguments)} <<'END-OF-PERL'\n{program}\nEND-OF-PERL\n"


def _file(nonce: str) -> str:
    return f"/run/swarmkit-links.{nonce}"


def _listen(program: str, nonce: str, seconds: int, host: Host) -> str:
    ports = ",".join(str(port) for port in _tcp_ports(host))
    start = _perl(program, "listen", _file(nonce), str(seconds), nonce, ports)
    return f"command -v perl >/dev/null || {{ echo no-perl; return 0; }}\n{start}"


def _tcp_ports(host: Host) -> list[int]:
    return [MANAGER_PORT, GOSSIP_PORT] if host.is_manager else [GOSSIP_PORT]


def _send(
    program: str,
    nonce: str,
    host: Host,
    targets: Iterable[Host],
    numbers: Mapping[str, int],
    size: int,
    data_path_port: int,
) -> str:
    peers = []
    for target in targets:
        tcp = ",".join(str(port) for port in _tcp_ports(target))
        udp = f"{GOSSIP_PORT},{data_path_port}"
        peers.append(f"{numbers[target.name]}/{target.private_address}/{tcp}/{udp}")
    own = str(numbers[host.name])
    return _perl(program, "send", nonce, own, str(ANSWER_SECONDS), str(size), *peers)


def _collect(nonce: str) -> str:
    file = _file(nonce)
    return f'while read -r key pid; do kill "$pid"; break; done <{file}\ncat {file}; rm -f {file}'


def read_probes(
    tried: Iterable[tuple[Host, Host]],
    numbers: Mapping[str, int],
    sent: Mapping[str, str],
    arrived: Mapping[str, str],
    sizes: Mapping[str, int],
    data_path_port: int,
) -> Iterator[Probe]:
    """What became of every way between the hosts, from what `links.pl` has printed on them.

    A sender tells of each connection, and of a datagram only where it could not be sent; the one that
    listens of each datagram that came, with its size.
    """
    told: dict[tuple[str, str, str, int], str] = {}
    came: dict[tuple[str, str, int, bool], str] = {}
    by_number = {str(number): name for name, number in numbers.items()}
    for name, text in sent.items():
        for line in text.splitlines():
            match line.split(" ", 3):
                case [protocol, number, port, outcome] if number in by_number and port.isdecimal():
                    told[name, by_number[number], protocol, int(port)] = outcome
    for name, text in arrived.items():
        for line in text.splitlines():
            match line.split():
                case ["udp", number, port, address, size] if number in by_number and port.isdecimal():
                    sender = by_number[number]
                    is_full = size == str(sizes[sender])
                    came[sender, name, int(port), is_full] = address
    for source, target in tried:
        way = (source.name, target.name)
        for open_port in _tcp_ports(target):
            outcome = told.get((*way, "tcp", open_port), "no answer")
            yield Probe(*way, "tcp", open_port, "" if outcome == "open" else outcome)
        udp = [("udp", GOSSIP_PORT), ("udp", data_path_port)]
        if sizes[source.name]:
            udp.append(("mtu", data_path_port))
        for kind, udp_port in udp:
            seen_from = came.get((*way, udp_port, kind == "mtu"), "")
            reason = "" if seen_from else told.get((*way, kind, udp_port), "does not arrive")
            yield Probe(*way, kind, udp_port, reason, seen_from)


# The words of the kernel where a rule of the sending host's own firewall keeps a packet.
_NOT_LET_OUT = "Operation not permitted"


def judge_probes(
    probes: Sequence[Probe], hosts: Sequence[Host], facts: Mapping[str, HostFacts], data_path_port: int
) -> list[Finding]:
    """The findings of the ways that were tried: what is blocked, and the rule that would open it."""
    by_name = {host.name: host for host in hosts}
    by_way: dict[tuple[str, str], list[Probe]] = {}
    for probe in probes:
        by_way.setdefault((probe.source, probe.target), []).append(probe)
    found: list[Finding] = []
    for (source, target), some in by_way.items():
        way = f"{source} → {target}"
        if all(probe.reason for probe in some):
            found.append(
                Finding(
                    "no-path",
                    Severity.ERROR,
                    way,
                    f"nothing arrives at {by_name[target].private_address}",
                    "are both private addresses on one network, and does a firewall let nodes reach "
                    f"each other? swarmkit ssh {source} -- ip route get {by_name[target].private_address}",
                )
            )
            continue
        small_arrives = any(
            probe.protocol == "udp" and probe.port == data_path_port and not probe.reason for probe in some
        )
        for probe in some:
            if probe.protocol == "mtu":
                if probe.reason and small_arrives:
                    found.append(_cut(probe, way, by_name, facts))
            elif probe.reason:
                found.append(_blocked(probe, way, by_name, facts, data_path_port))
        translated = {probe.seen_from for probe in some} - {"", by_name[source].private_address}
        if translated:
            found.append(
                Finding(
                    "address-translated",
                    Severity.WARNING,
                    way,
                    f"packets arrive from {', '.join(sorted(translated))} and not from the private "
                    f"address {by_name[source].private_address}: overlay networks may drop them",
                    "let the nodes talk without NAT, and give each the address that it sends from "
                    "as `private_address:`",
                )
            )
    return in_order(found)


def _cut(probe: Probe, way: str, by_name: Mapping[str, Host], facts: Mapping[str, HostFacts]) -> Finding:
    nics = [
        (name, facts[name].nic_of(by_name[name].private_address)) for name in (probe.source, probe.target)
    ]
    mtus = ", ".join(f"MTU of {name} {nic.mtu}" for name, nic in nics if nic)
    return Finding(
        "mtu-path",
        Severity.ERROR,
        way,
        f"small packets arrive, those of the size that overlay networks send do not ({mtus})",
        "give all interfaces and switches between the nodes the same MTU, or overlay networks a smaller "
        "one (com.docker.network.driver.mtu)",
    )


def _blocked(
    probe: Probe,
    way: str,
    by_name: Mapping[str, Host],
    facts: Mapping[str, HostFacts],
    data_path_port: int,
) -> Finding:
    code = {
        ("tcp", MANAGER_PORT): "manager-port-blocked",
        ("udp", data_path_port): "vxlan-blocked",
    }.get((probe.protocol, probe.port), "gossip-blocked")
    where = f"{probe.port}/{probe.protocol}"
    if probe.reason == _NOT_LET_OUT:
        text = f"{where}: blocked on its way out of {probe.source}"
        hint = f"on {probe.source}, look for the rule: iptables -S OUTPUT; nft list ruleset"
        return Finding(code, Severity.ERROR, way, text, hint)
    how = {"Connection refused": " (refused)", "no answer": "", "does not arrive": ""}
    text = f"{where}: blocked{how.get(probe.reason, f' ({probe.reason})')}"
    target = by_name[probe.target]
    hint = f"on {target.name}: {opening(target, by_name[probe.source], facts[target.name], probe)}"
    return Finding(code, Severity.ERROR, way, text, hint)


def opening(target: Host, source: Host, found: HostFacts, probe: Probe) -> str:
    """The command that lets the nodes' own network in, in the words of the firewall that is in charge."""
    own = found.own_address(target.private_address)
    network = source.private_address
    if own is not None and isinstance(own.address, IPv4Interface):
        whole = own.address.network
        network = str(whole) if IPv4Address(network) in whole else network
    port, protocol = probe.port, probe.protocol
    match found.firewalls[:1]:
        case ("ufw",):
            return f"ufw allow proto {protocol} from {network} to any port {port}"
        case ("firewalld",):
            return f"firewall-cmd --permanent --add-port={port}/{protocol} && firewall-cmd --reload"
        case ("iptables",):
            rule = f"iptables -I INPUT -p {protocol} -s {network} --dport {port} -j ACCEPT"
        case ("nft",):
            rule = f"nft insert rule inet filter input ip saddr {network} {protocol} dport {port} accept"
        case _:
            return f"it has no firewall that we know; let {port}/{protocol} in from {network} on the way"
    return f"{rule} (if that is not it: the security group or firewall between the machines)"
