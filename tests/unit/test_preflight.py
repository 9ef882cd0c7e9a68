"""Preflight: what facts of machines speak against making a swarm of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_interface
from typing import Any

import pytest

from swarmkit.cluster.facts import Clock, Disk, HostFacts, InterfaceAddress, Listener, Nic, SwarmMembership
from swarmkit.cluster.findings import Finding, Severity, errors_of, in_order, merged
from swarmkit.cluster.preflight import GIB, MIB, preflight
from swarmkit.images.trust import TrustFacts
from swarmkit.inventory import Host, Role

HOSTS = tuple(
    Host(
        name=name,
        address=address,
        user="u",
        role=Role.MANAGER if name == "m1" else Role.WORKER,
        private_address=address,
    )
    for name, address in (("m1", "10.0.0.1"), ("w1", "10.0.0.11"), ("w2", "10.0.0.12"))
)


def sound(host: Host, **changed: Any) -> HostFacts:
    """The facts of a machine that is fit for a swarm, but for what is changed."""
    facts = HostFacts(
        os_id="debian",
        os_like=(),
        os_name="Debian GNU/Linux 13",
        hostname=host.name,
        arch="x86_64",
        has_systemd=True,
        has_ipvs=True,
        has_engine=False,
        has_cli=False,
        engine_version="",
        addresses=(
            InterfaceAddress("lo", ip_interface("127.0.0.1/8")),
            InterfaceAddress("eth0", ip_interface(f"{host.private_address}/24")),
        ),
        routes=(),
        swarm=SwarmMembership(),
        trust=TrustFacts(),
        machine_id=f"id-{host.name}",
        kernel="6.12",
        memory=4 * GIB,
        memory_available=3 * GIB,
        clock=Clock(-0.1, 0.1),
        nics=(Nic("eth0", 1500, "virtio_net"),),
        disks=(Disk("/var/lib/docker", 100 * GIB, 80 * GIB, 1000, 900),),
        firewalls=("iptables",),
    )
    return replace(facts, **changed)


def found(**changed: Mapping[str, Any]) -> list[Finding]:
    """What preflight finds where the hosts named differ from sound ones."""
    return preflight(HOSTS, {host.name: sound(host, **changed.get(host.name, {})) for host in HOSTS})


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


def test_sound_machines_have_nothing_against_them() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("changed", "code", "severity", "words"),
    [
        ({"arch": "i686"}, "unsupported-arch", "error", "i686"),
        ({"memory": 300 * MIB}, "memory-low", "error", "300 MiB of memory; a node needs 400"),
        ({"memory": 700 * MIB}, "memory-low", "warning", "700 MiB"),
        ({"memory_available": 90 * MIB}, "memory-low", "warning", "90 of 4096 MiB of memory are left"),
        ({"modules": frozenset({"vxlan", "ip_vs", "br_netfilter"})}, "no-overlay", "warning", "6.12"),
        ({"modules": frozenset({"overlay", "ip_vs", "br_netfilter"})}, "no-vxlan", "error", "cannot work"),
        ({"modules": frozenset({"overlay", "vxlan", "br_netfilter"})}, "no-ipvs", "note", "`ingress`"),
        ({"modules": frozenset({"overlay", "vxlan", "ip_vs"})}, "no-br-netfilter", "note", "firewall"),
        ({"has_memory_cgroup": False}, "no-memory-cgroup", "warning", "memory limits"),
        ({"engine_version": "19.03.8"}, "old-engine", "error", "19.03.8"),
        ({"packages": frozenset({"snap"})}, "foreign-docker", "error", "is a snap"),
        ({"packages": frozenset({"podman-docker"})}, "foreign-docker", "error", "podman"),
        ({"is_rootless": True}, "foreign-docker", "error", "rootless"),
        ({"apt_lock": "apt-get (process 7)"}, "apt-locked", "warning", "apt-get (process 7) holds"),
        (
            {"listeners": (Listener("tcp", 7946, "consul"),)},
            "port-taken",
            "error",
            "consul is on port 7946/tcp",
        ),
        (
            {"listeners": (Listener("tcp", 7946, "dockerd"),), "containers": 2},
            "port-taken",
            "error",
            "the engine keeps port 7946 of a swarm that it has left",
        ),
        ({"listeners": (Listener("udp", 4789),)}, "port-taken", "error", "the kernel is on port 4789/udp"),
        ({"clock": Clock(-41, -40)}, "clock-skew", "error", "40 s behind the other hosts'"),
        ({"clock": Clock(8, 8.2)}, "clock-skew", "warning", "8 s ahead of"),
    ],
)
def test_what_is_wrong_with_a_machine_is_named(
    changed: dict[str, Any], code: str, severity: str, words: str
) -> None:
    finding = only(found(w1=changed))
    assert (finding.code, finding.severity.value, finding.host) == (code, severity, "w1")
    assert words in finding.message
    assert finding.hint


@pytest.mark.parametrize(
    "changed",
    [
        {"arch": "i686", "engine_version": "26.1.5"},
        {"engine_version": "20.10.24+dfsg1"},
        {"engine_version": "26.1.5", "apt_lock": "apt-get (process 7)"},
        {"engine_version": "unreleased"},
        {"listeners": (Listener("tcp", 2377, "a worker needs it not"), Listener("udp", 53))},
        {
            "listeners": (Listener("tcp", 7946, "dockerd"),),
            "swarm": SwarmMembership(state="active", node_id="n"),
        },
        {"listeners": (Listener("tcp", 7946, "dockerd"), Listener("udp", 7946, "dockerd"))},
        {"clock": None},
        {"clock": Clock(0, 40)},
        {"nics": (), "addresses": ()},
    ],
)
def test_what_is_no_fault_is_not_found(changed: dict[str, Any]) -> None:
    assert found(w1=changed) == []


def test_an_address_that_no_interface_has_is_named_with_those_there_are() -> None:
    own = (
        InterfaceAddress("lo", ip_interface("127.0.0.1/8")),
        InterfaceAddress("eth1", ip_interface("192.168.7.4/24")),
        InterfaceAddress("eth1", ip_interface("fe80::1/64")),
    )
    finding = only(found(w1={"addresses": own}))
    assert finding.code == "private-address-missing"
    assert finding.is_error
    assert finding.message.endswith("10.0.0.11; there are 192.168.7.4/24 on eth1")


@pytest.mark.parametrize(
    ("free", "size", "severity"),
    [
        (GIB // 2, 20 * GIB, "error"),
        (2 * GIB, 20 * GIB, "warning"),
        (9 * GIB, 100 * GIB, "warning"),
        (400 * GIB, 8000 * GIB, None),
        (4 * GIB, 10 * GIB, None),
    ],
)
def test_a_disk_is_full_by_what_is_left_and_by_its_size(free: int, size: int, severity: str | None) -> None:
    findings = found(w1={"disks": (Disk("/var/lib/docker", size, free),)})
    assert [finding.severity.value for finding in findings] == ([severity] if severity else [])


def test_one_file_system_is_told_of_once_and_two_twice() -> None:
    docker, ours = Disk("/var/lib/docker", 9 * GIB, 1), Disk("/var/lib/swarmkit", 9 * GIB, 1)
    assert "/var/lib/docker" in only(found(w1={"disks": (docker, ours)})).message
    assert len(found(w1={"disks": (docker, replace(ours, free=2))})) == 2


def test_a_disk_without_room_for_more_files_is_full_too() -> None:
    disk = Disk("/var/lib/docker", 100 * GIB, 80 * GIB, 1000, 10)
    assert "10 of 1000 files" in only(found(w1={"disks": (disk,)})).message


@pytest.mark.parametrize(
    ("changed", "code"),
    [({"machine_id": "id-w1"}, "duplicate-machine-id"), ({"hostname": "w1"}, "duplicate-hostname")],
)
def test_clones_are_named_each_with_the_other(changed: dict[str, str], code: str) -> None:
    findings = found(w2=changed)
    assert {(finding.code, finding.host) for finding in findings} == {(code, "w1"), (code, "w2")}
    assert "also that of w2" in findings[0].message


def test_two_hosts_with_one_private_address_are_named() -> None:
    twins = (HOSTS[0], HOSTS[1], replace(HOSTS[2], private_address="10.0.0.11"))
    findings = preflight(twins, {host.name: sound(host) for host in twins})
    assert {(finding.code, finding.host) for finding in findings} == {
        ("duplicate-address", "w1"),
        ("duplicate-address", "w2"),
    }


def test_one_wrong_clock_does_not_accuse_the_others_nor_does_ours() -> None:
    # Ours is an hour behind: all hosts are ahead of it, and agree.
    clocks = {name: {"clock": Clock(3600, 3600.4)} for name in ("m1", "w1")}
    assert only(found(**clocks, w2={"clock": Clock(3700, 3700.4)})).host == "w2"


def test_of_two_clocks_that_differ_one_is_named() -> None:
    pair = HOSTS[:2]
    facts = {"m1": sound(HOSTS[0]), "w1": sound(HOSTS[1], clock=Clock(39.9, 40.1))}
    assert only(preflight(pair, facts)).severity is Severity.ERROR


def test_an_mtu_unlike_the_others_is_named() -> None:
    finding = only(found(w2={"nics": (Nic("eth0", 1400),)}))
    assert (finding.code, finding.host, finding.severity.value) == ("mtu-mismatch", "w2", "error")
    assert "MTU 1400, those of the other hosts 1500" in finding.message
    assert finding.hint.startswith("ip link set eth0 mtu 1500")


@pytest.mark.parametrize(("odd", "usual"), [(9000, 1500), (1500, 9000)])
def test_an_mtu_unlike_the_others_that_holds_overlays_is_a_warning(odd: int, usual: int) -> None:
    mtus = {host.name: odd if host.name == "w2" else usual for host in HOSTS}
    facts = {host.name: sound(host, nics=(Nic("eth0", mtus[host.name]),)) for host in HOSTS}
    finding = only(preflight(HOSTS, facts))
    assert (finding.code, finding.host, finding.severity.value) == ("mtu-mismatch", "w2", "warning")


def test_an_address_is_the_same_however_it_is_written() -> None:
    six = replace(HOSTS[1], private_address="fd00:0::0011")
    own = (InterfaceAddress("eth0", ip_interface("fd00::11/64")),)
    assert preflight([six], {"w1": sound(six, addresses=own)}) == []


def test_a_network_too_small_for_overlays_is_told_what_they_may_have() -> None:
    small = {host.name: sound(host, nics=(Nic("eth0", 1460),)) for host in HOSTS}
    findings = preflight(HOSTS, small)
    assert {finding.code for finding in findings} == {"mtu-overlay"}
    assert "driver.mtu=1460" in findings[0].hint
    assert preflight(HOSTS, small, packet_size=1460) == []


@pytest.mark.parametrize(
    ("nic", "words"),
    [
        (Nic("ens192", 1500, "vmxnet3", True), "is on for ens192"),
        (Nic("ens192", 1500, "vmxnet3", None), "may be on (ethtool is not installed there)"),
        (Nic("ens192", 1500, "vmxnet3", False), None),
        (Nic("ens192", 1500, "virtio_net", True), None),
    ],
)
def test_checksum_offload_is_warned_of_where_it_is_known_to_break_overlays(
    nic: Nic, words: str | None
) -> None:
    addresses = (InterfaceAddress("ens192", ip_interface("10.0.0.11/24")),)
    findings = found(w1={"nics": (nic,), "addresses": addresses})
    assert [words in finding.message for finding in findings if words] == ([True] if words else [])
    assert bool(findings) is (words is not None)


def test_another_data_path_port_is_looked_at_instead() -> None:
    facts = {host.name: sound(host) for host in HOSTS}
    facts["w1"] = sound(HOSTS[1], listeners=(Listener("udp", 4789), Listener("udp", 5000)))
    assert "5000/udp" in only(preflight(HOSTS, facts, data_path_port=5000)).message


def test_a_host_that_was_not_looked_at_is_not_judged() -> None:
    assert preflight(HOSTS, {"m1": sound(HOSTS[0])}) == []


def test_errors_come_first_and_only_they_stop_a_command() -> None:
    note, error, warning = (
        Finding(f"code-{severity}", severity, "w1", "text", "do this")
        for severity in (Severity.NOTE, Severity.ERROR, Severity.WARNING)
    )
    assert in_order([note, error, warning]) == [error, warning, note]
    stop = errors_of([note, error, warning])
    assert [(str(one), one.hint) for one in stop] == [("w1: code-error: text", "do this")]


def test_one_finding_on_several_hosts_is_told_once() -> None:
    some = [Finding("no-ipvs", Severity.NOTE, name, "text") for name in ("m1", "w1")]
    assert [one.host for one in merged([*some, Finding("other", Severity.NOTE, "", "text")])] == [
        "m1, w1",
        "",
    ]
