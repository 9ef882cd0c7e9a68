"""What a lab is to become: sizes, names, addresses, subnets and ports."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from swarmkit.errors import OperationFailed, UsageError
from swarmkit.inventory import Role
from swarmkit.lab.models import Lab, Node, NodeState, Size, checked_name
from swarmkit.lab.plan import (
    Ports,
    free_subnet,
    missing_nodes,
    node_names,
    parse_routes,
    wanted_size,
    with_other_ports,
)

SUBNET = IPv4Network("172.16.5.0/24")


def lab_of(count: int, begun: Size | None = None) -> Lab:
    empty = Lab("lab", begun or Size(count, 1, bare=True))
    nodes = missing_nodes(empty, Size(count, 1, bare=True), SUBNET, Ports([], lambda _: True))
    return Lab(empty.name, empty.begun, tuple(NodeState(node, running=True) for node in nodes))


def test_a_new_lab_has_three_nodes_with_one_manager_and_an_engine() -> None:
    assert wanted_size(None, None, None, None) == Size(3, 1, bare=False)


def test_managers_count_among_the_nodes() -> None:
    assert wanted_size(None, 4, 3, bare=True) == Size(4, 3, bare=True)
    assert wanted_size(None, None, 5, None) == Size(5, 5, bare=False)


@pytest.mark.parametrize(("nodes", "managers"), [(2, 3), (3, 0), (0, None), (101, None)])
def test_sizes_that_cannot_be_are_refused(nodes: int, managers: int | None) -> None:
    with pytest.raises(UsageError):
        wanted_size(None, nodes, managers, None)


def test_without_wishes_a_lab_stays_as_it_is() -> None:
    lab = lab_of(4, begun=Size(3, 1, bare=True))
    assert wanted_size(lab, None, None, None) == Size(4, 1, bare=True)


def test_nodes_of_another_release_join_a_lab_and_an_unknown_one_is_refused() -> None:
    assert wanted_size(None, None, None, None).release == "13"
    begun = Size(3, 1, bare=True, release="12")
    assert wanted_size(lab_of(3, begun), 4, None, None).release == "12"
    assert wanted_size(lab_of(3, begun), 4, None, None, "sid").release == "sid"
    with pytest.raises(UsageError) as caught:
        wanted_size(None, None, None, None, "trixie")
    assert caught.value.hint == "there are: 12, 13, sid"


def test_a_lab_that_was_only_half_made_is_completed() -> None:
    lab = lab_of(2, begun=Size(5, 1, bare=True))
    assert wanted_size(lab, None, None, None).nodes == 5


def test_a_lab_grows_and_never_shrinks() -> None:
    assert wanted_size(lab_of(3), 4, None, None).nodes == 4
    with pytest.raises(UsageError) as caught:
        wanted_size(lab_of(3), 2, None, None)
    assert "has 3 nodes already" in caught.value.message
    assert "swarmkit leave" in caught.value.hint
    assert "lab down" in caught.value.hint


def test_what_a_lab_was_made_with_cannot_be_changed_by_up() -> None:
    assert wanted_size(lab_of(3), None, 1, bare=True).managers == 1
    with pytest.raises(UsageError):
        wanted_size(lab_of(3), None, 2, None)
    with pytest.raises(UsageError):
        wanted_size(lab_of(3), None, None, bare=False)


def test_nodes_are_named_by_what_they_are() -> None:
    names = node_names(Size(5, 2, bare=False))
    assert [name for name, _ in names] == ["m1", "m2", "wn1", "wn2", "wn3"]
    assert [role for _, role in names] == [Role.MANAGER] * 2 + [Role.WORKER] * 3


def test_every_node_has_an_address_and_ports_of_its_own() -> None:
    nodes = [state.node for state in lab_of(100).nodes]
    assert len({node.address for node in nodes}) == 100
    assert len({node.ssh_port for node in nodes}) == 100
    assert [node.balancer_port for node in nodes[:2]] == [8080, None]
    assert nodes[0] == Node("m1", Role.MANAGER, "172.16.5.11", 22001, 8080)


def test_a_node_that_is_gone_is_made_anew_in_its_place() -> None:
    lab = lab_of(4)
    without = Lab("lab", lab.begun, lab.nodes[:2] + lab.nodes[3:])
    ports = Ports([state.node.ssh_port for state in without.nodes], lambda _: True)
    assert missing_nodes(without, Size(4, 1, bare=True), SUBNET, ports) == [lab.nodes[2].node]


def test_nodes_and_sizes_survive_being_labels() -> None:
    node = Node("m1", Role.MANAGER, "172.16.5.11", 22001, 8080)
    assert Node.from_labels(node.labels("x")) == node
    worker = Node("wn1", Role.WORKER, "172.16.5.12", 22002)
    assert Node.from_labels(worker.labels("x")) == worker
    size = Size(3, 1, bare=True, release="sid")
    assert Size.from_labels(size.labels("x")) == size


def test_a_subnet_is_free_of_the_engines_and_the_machines_networks() -> None:
    assert str(free_subnet([])) == "172.16.0.0/24"
    taken = [IPv4Network("172.16.0.0/25"), IPv4Network("172.16.1.128/32"), IPv4Network("10.0.0.0/8")]
    assert str(free_subnet(taken)) == "172.16.2.0/24"
    assert free_subnet([IPv4Network("172.16.0.0/12")]).subnet_of(IPv4Network("198.18.0.0/15"))


def test_no_free_subnet_is_said() -> None:
    with pytest.raises(OperationFailed):
        free_subnet([IPv4Network("172.16.0.0/12"), IPv4Network("198.18.0.0/15")])


def test_routes_are_read_as_the_kernel_shows_them() -> None:
    table = (
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n"
        "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )
    assert parse_routes(table) == [IPv4Network("172.17.0.0/16"), IPv4Network("192.0.2.0/24")]


def test_ports_are_the_next_free_ones_and_given_once() -> None:
    ports = Ports([8080], lambda port: port != 8081)
    assert [ports.take(8080), ports.take(8080)] == [8082, 8083]


def test_no_free_port_is_said() -> None:
    with pytest.raises(OperationFailed):
        Ports([], lambda _: False).take(65000)


def test_a_node_whose_ports_were_taken_gets_others_and_keeps_its_address() -> None:
    node = Node("m1", Role.MANAGER, "172.16.5.11", 22001, 8080)
    ports = Ports([22001, 8080], lambda _: True)
    assert with_other_ports(node, ports) == Node("m1", Role.MANAGER, "172.16.5.11", 22002, 8081)
    worker = Node("wn1", Role.WORKER, "172.16.5.12", 22002)
    assert with_other_ports(worker, ports).balancer_port is None


@pytest.mark.parametrize("name", ["lab", "a", "test-1", "x" * 32])
def test_names_that_labs_can_have(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize("name", ["", "Lab", "../x", "-a", "a-", "a b", "x" * 33, "lab\n"])
def test_names_that_labs_cannot_have(name: str) -> None:
    with pytest.raises(UsageError):
        checked_name(name)
