"""The check of ports between nodes: which ways are tried, and what the answers mean."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkit.cluster.findings import Finding
from swarmkit.cluster.links import ALL_PAIRS, Probe, judge_probes, opening, pairs, read_probes
from swarmkit.inventory import Host, Role
from tests.unit.test_preflight import HOSTS, sound

M1, W1, W2 = HOSTS
FACTS = {host.name: sound(host) for host in HOSTS}
NUMBERS = {"m1": 0, "w1": 1, "w2": 2}
SIZES = dict.fromkeys(NUMBERS, 1500)
PORTS = (("tcp", 7946), ("udp", 7946), ("udp", 4789), ("mtu", 4789))


def probes(source: str, target: str, **wrong: str) -> list[Probe]:
    """All the ways from one host to a worker; `wrong` says why some fail, as `udp_7946="…"`."""
    return [
        Probe(source, target, protocol, port, wrong.get(f"{protocol}_{port}", "")) for protocol, port in PORTS
    ]


def judged(some: list[Probe]) -> list[Finding]:
    return judge_probes(some, HOSTS, FACTS, 4789)


def many(count: int, managers: int = 3) -> list[Host]:
    return [
        replace(W1, name=f"h{number}", role=Role.MANAGER if number < managers else Role.WORKER)
        for number in range(count)
    ]


def test_between_few_hosts_every_pair_is_tried_both_ways() -> None:
    assert len(pairs(many(20))) == 20 * 19


def test_between_many_the_number_grows_only_as_the_hosts_do() -> None:
    hosts = many(500)
    chosen = pairs(hosts)
    assert len(chosen) < 500 * 20
    ways = {(one.name, other.name) for one, other in chosen}
    assert len(ways) == len(chosen)
    assert all((other, one) in ways for one, other in ways)
    for host in hosts[3:]:
        assert {("h0", host.name), ("h1", host.name), ("h2", host.name)} <= ways
    assert not any(one is other for one, other in chosen)


@pytest.mark.parametrize("count", [ALL_PAIRS, ALL_PAIRS + 1])
def test_every_host_is_in_some_pair(count: int) -> None:
    hosts = many(count)
    assert {one.name for one, _ in pairs(hosts)} == {host.name for host in hosts}


def test_what_the_hosts_print_is_brought_together() -> None:
    found = list(
        read_probes(
            [(W1, M1), (M1, W1)],
            NUMBERS,
            {
                "w1": "tcp 0 2377 open\ntcp 0 7946 Connection refused\n",
                "m1": "udp 1 4789 Operation not permitted\n",
            },
            {
                "m1": "pid 7\nudp 1 7946 10.0.0.11 42\nudp 1 4789 10.9.9.9 42\n",
                "w1": "udp 0 7946 10.0.0.1 42\n",
            },
            SIZES | {"m1": 0},
            4789,
        )
    )
    assert found == [
        Probe("w1", "m1", "tcp", 2377),
        Probe("w1", "m1", "tcp", 7946, "Connection refused"),
        Probe("w1", "m1", "udp", 7946, "", "10.0.0.11"),
        Probe("w1", "m1", "udp", 4789, "", "10.9.9.9"),
        Probe("w1", "m1", "mtu", 4789, "does not arrive"),
        Probe("m1", "w1", "tcp", 7946, "no answer"),
        Probe("m1", "w1", "udp", 7946, "", "10.0.0.1"),
        Probe("m1", "w1", "udp", 4789, "Operation not permitted"),
    ]


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_output_stops_the_reading(sent: str, arrived: str) -> None:
    some = list(read_probes([(M1, W1)], NUMBERS, {"m1": sent}, {"w1": arrived}, SIZES, 4789))
    assert len(some) == 4


def test_where_all_arrives_nothing_is_found() -> None:
    assert judged([*probes("m1", "w1"), *probes("w2", "w1")]) == []


@pytest.mark.parametrize(
    ("wrong", "code", "message"),
    [
        ({"udp_7946": "does not arrive"}, "gossip-blocked", "7946/udp: blocked"),
        ({"tcp_7946": "no answer"}, "gossip-blocked", "7946/tcp: blocked"),
        ({"tcp_7946": "Connection refused"}, "gossip-blocked", "7946/tcp: blocked (refused)"),
        ({"tcp_7946": "No route to host"}, "gossip-blocked", "7946/tcp: blocked (No route to host)"),
    ],
)
def test_a_blocked_port_is_named_with_the_rule_that_opens_it(
    wrong: dict[str, str], code: str, message: str
) -> None:
    (finding,) = judged(probes("w2", "w1", **wrong))
    assert (finding.code, finding.host, finding.message) == (code, "w2 → w1", message)
    protocol = message.split(":")[0].split("/")[1]
    assert f"on w1: iptables -I INPUT -p {protocol} -s 10.0.0.0/24 --dport 7946 -j ACCEPT" in finding.hint


def test_a_blocked_data_path_is_not_taken_for_a_small_mtu() -> None:
    (finding,) = judged(probes("w2", "w1", udp_4789="does not arrive", mtu_4789="does not arrive"))
    assert (finding.code, finding.message) == ("vxlan-blocked", "4789/udp: blocked")


def test_a_managers_port_has_a_name_of_its_own() -> None:
    (finding,) = judged([*probes("w1", "m1"), Probe("w1", "m1", "tcp", 2377, "no answer")])
    assert finding.code == "manager-port-blocked"


def test_what_is_not_let_out_is_looked_for_on_the_sender() -> None:
    (finding,) = judged(probes("w2", "w1", udp_7946="Operation not permitted"))
    assert finding.message == "7946/udp: blocked on its way out of w2"
    assert finding.hint.startswith("on w2")


def test_large_packets_that_vanish_are_told_from_blocked_ones() -> None:
    (finding,) = judged(probes("w2", "w1", mtu_4789="does not arrive"))
    assert finding.code == "mtu-path"
    assert "(MTU of w2 1500, MTU of w1 1500)" in finding.message


def test_where_nothing_arrives_that_is_one_finding() -> None:
    everything = {f"{protocol}_{port}": "no answer" for protocol, port in PORTS}
    (finding,) = judged(probes("w2", "w1", **everything))
    assert (finding.code, finding.message) == ("no-path", "nothing arrives at 10.0.0.11")


def test_an_address_that_is_translated_on_the_way_is_named() -> None:
    (finding,) = judged([Probe("w2", "w1", "udp", 7946, "", "192.0.2.1"), Probe("w2", "w1", "udp", 4789)])
    assert finding.code == "address-translated"
    assert "192.0.2.1" in finding.message


@pytest.mark.parametrize(
    ("firewalls", "command"),
    [
        (("ufw", "iptables"), "ufw allow proto udp from 10.0.0.0/24 to any port 7946"),
        (("firewalld", "nft"), "firewall-cmd --permanent --add-port=7946/udp && firewall-cmd --reload"),
        (("iptables", "nft"), "iptables -I INPUT -p udp -s 10.0.0.0/24 --dport 7946 -j ACCEPT"),
        (("nft",), "nft insert rule inet filter input ip saddr 10.0.0.0/24 udp dport 7946 accept"),
        ((), "it has no firewall that we know; let 7946/udp in from 10.0.0.0/24"),
    ],
)
def test_the_rule_is_in_the_words_of_the_firewall_there(firewalls: tuple[str, ...], command: str) -> None:
    facts = replace(FACTS["w1"], firewalls=firewalls)
    assert opening(W1, W2, facts, Probe("w2", "w1", "udp", 7946)).startswith(command)


def test_from_another_network_only_the_sender_is_let_in() -> None:
    stranger = replace(W2, private_address="172.20.0.5")
    assert "-s 172.20.0.5 " in opening(W1, stranger, FACTS["w1"], Probe("w2", "w1", "udp", 7946))
