"""Planning a cluster: from the inventory, facts and the swarm to what must be done."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from swarmkit.cluster.facts import HostFacts, SwarmMembership
from swarmkit.cluster.plan import (
    EDGE_SUBNETS,
    ClusterPlan,
    CreateNetwork,
    ForgetNode,
    InitSwarm,
    InstallEngine,
    JoinSwarm,
    LeaveOther,
    Phase,
    SwarmState,
    UpdateNode,
    free_subnet,
    plan_cluster,
)
from swarmkit.errors import Problems, UsageError
from swarmkit.images.trust import TrustFacts
from swarmkit.inventory import Host, Inventory, Role
from swarmkit.names import EDGE_NETWORK, HOST_LABEL
from swarmkit.swarm import Node


def host(name: str, role: Role, number: int, **labels: str) -> Host:
    address = f"10.0.0.{number}"
    return Host(name=name, address=address, user="u", role=role, private_address=address, labels=labels)


M1 = host("m1", Role.MANAGER, 1)
M2 = host("m2", Role.MANAGER, 2)
W1 = host("w1", Role.WORKER, 11, disk="ssd")
W2 = host("w2", Role.WORKER, 12)
INVENTORY = Inventory("test", (M1, M2, W1, W2))

BARE = HostFacts(
    os_id="debian",
    os_like=(),
    os_name="Debian GNU/Linux 13",
    hostname="x",
    arch="x86_64",
    has_systemd=True,
    has_ipvs=True,
    has_engine=False,
    has_cli=False,
    engine_version="",
    addresses=(),
    routes=(),
    swarm=SwarmMembership(),
    trust=TrustFacts(),
)
CLUSTER = "cluster-1"


def member(one: Host, cluster: str = CLUSTER) -> HostFacts:
    """The facts of a host that is all right."""
    trust = TrustFacts(
        hosts_ip=M1.private_address,
        node_ca="ca",
        client="ca",
        ca="ca" if one.is_manager else "",
        ca_key=one.is_manager,
        server="ca" if one is M1 else "",
    )
    swarm = SwarmMembership(
        state="active",
        node_id=f"id-{one.name}",
        cluster_id=cluster if one.is_manager else "",
        is_manager=one.is_manager,
    )
    return replace(BARE, has_engine=True, has_cli=True, engine_version="26.1.5", swarm=swarm, trust=trust)


def node(one: Host, **changed: str) -> Node:
    values = {
        "id": f"id-{one.name}",
        "hostname": one.name,
        "role": one.role.value,
        "state": "ready",
        "availability": "active",
        "address": one.private_address,
        "engine": "26.1.5",
    }
    return Node(**(values | changed), leader=False, labels={**one.labels, HOST_LABEL: one.name}, raw={})


def formed(*hosts: Host) -> SwarmState:
    return SwarmState(CLUSTER, tuple(node(one) for one in hosts), frozenset({EDGE_NETWORK}))


ALL = {one.name: member(one) for one in INVENTORY.hosts}


def titles(plan: ClusterPlan) -> list[str]:
    return [f"{action.host}: {action.title}" for action in plan.actions]


def test_a_cluster_that_is_right_needs_nothing() -> None:
    assert plan_cluster(INVENTORY, ALL, formed(*INVENTORY.hosts)).actions == ()


def test_bare_machines_need_everything_in_the_order_of_the_phases() -> None:
    plan = plan_cluster(INVENTORY, dict.fromkeys(("m1", "m2", "w1", "w2"), BARE), SwarmState())
    phases = [action.phase for action in plan.actions]
    assert phases == sorted(phases, key=lambda phase: list(Phase).index(phase))
    kinds = {(type(action), action.host) for action in plan.actions}
    assert {(InstallEngine, one.name) for one in INVENTORY.hosts} <= kinds
    assert (InitSwarm, "m1") in kinds
    assert {(JoinSwarm, "m2"), (JoinSwarm, "w1"), (JoinSwarm, "w2")} <= kinds
    assert plan.founder == M1
    assert titles(plan)[-1].startswith("m1: create the overlay network swarmkit-edge")


def test_an_engine_without_its_command_gets_the_command_alone() -> None:
    facts = ALL | {"w1": replace(BARE, has_engine=True, has_cli=False)}
    plan = plan_cluster(INVENTORY, facts, formed(M1, M2, W2), hosts=[W1])
    assert InstallEngine("w1", ("docker-cli",)) in plan.actions


def test_a_stopped_engine_is_started() -> None:
    facts = ALL | {"w1": replace(BARE, has_engine=True, has_cli=True)}
    plan = plan_cluster(INVENTORY, facts, formed(M1, M2, W2))
    assert InstallEngine("w1", ()) in plan.actions


def test_only_what_is_missing_is_planned_for_a_host_that_joins() -> None:
    facts = ALL | {"w2": BARE}
    plan = plan_cluster(INVENTORY, facts, formed(M1, M2, W1), hosts=[W2])
    assert {action.host for action in plan.actions} == {"w2"}
    assert JoinSwarm("w2", "worker", "10.0.0.12") in plan.actions


def test_labels_that_are_wrong_or_missing_are_set() -> None:
    state = formed(M1, M2, W1, W2)
    wrong = replace(node(W1), labels={HOST_LABEL: "w1", "disk": "hdd", "other": "kept"})
    plan = plan_cluster(INVENTORY, ALL, replace(state, nodes=(*state.nodes[:2], wrong, state.nodes[3])))
    assert plan.actions == (UpdateNode("w1", {"disk": "ssd"}),)


def test_a_role_that_differs_is_changed() -> None:
    state = formed(M1, M2, W1, W2)
    nodes = (state.nodes[0], node(M2, role="worker"), *state.nodes[2:])
    plan = plan_cluster(INVENTORY, ALL, replace(state, nodes=nodes))
    assert plan.actions == (UpdateNode("m2", {}, "manager"),)


def test_a_machine_that_comes_back_as_a_new_node_makes_the_old_one_forgotten() -> None:
    state = formed(M1, M2, W1, W2)
    old = node(W1, id="id-old", state="down")
    plan = plan_cluster(INVENTORY, ALL, replace(state, nodes=(*state.nodes, old)))
    assert plan.actions == (ForgetNode("w1", "id-old"),)
    alive = node(W1, id="id-other")
    assert plan_cluster(INVENTORY, ALL, replace(state, nodes=(*state.nodes, alive))).actions == ()


def test_the_swarm_is_found_at_whichever_manager_has_it() -> None:
    plan = plan_cluster(INVENTORY, ALL | {"m1": BARE}, formed(M2, W1, W2))
    assert plan.founder == M2
    assert JoinSwarm("m1", "manager", "10.0.0.1") in plan.actions


def test_a_host_in_another_swarm_is_refused_unless_told_otherwise() -> None:
    stranger = replace(ALL["w1"].swarm, node_id="unknown")
    facts = ALL | {"w1": replace(ALL["w1"], swarm=stranger), "m2": member(M2)}
    with pytest.raises(UsageError, match="already in another swarm") as raised:
        plan_cluster(INVENTORY, facts, formed(M1, M2, W2))
    assert raised.value.where == "w1"
    assert "--take-over" in raised.value.hint
    plan = plan_cluster(INVENTORY, facts, formed(M1, M2, W2), take_over=True)
    assert [type(action) for action in plan.actions] == [LeaveOther, JoinSwarm, UpdateNode]


def test_managers_of_different_swarms_are_refused() -> None:
    with pytest.raises(UsageError, match="in different swarms"):
        plan_cluster(INVENTORY, ALL | {"m2": member(M2, "cluster-2")}, formed(M1, W1, W2))


def test_every_unsupported_host_is_named() -> None:
    facts = ALL | {
        "w1": replace(BARE, os_id="alpine", os_name="Alpine Linux"),
        "w2": replace(BARE, os_id="fedora", os_name="Fedora Linux 42"),
    }
    with pytest.raises(Problems) as raised:
        plan_cluster(INVENTORY, facts, formed(M1, M2))
    assert [(error.where, error.message.split(" is not")[0]) for error in raised.value.errors] == [
        ("w1", "Alpine Linux"),
        ("w2", "Fedora Linux 42"),
    ]


def test_another_system_will_do_where_docker_is_there_already() -> None:
    facts = ALL | {"w1": replace(ALL["w1"], os_id="alpine", os_name="Alpine Linux")}
    assert plan_cluster(INVENTORY, facts, formed(*INVENTORY.hosts)).actions == ()


def test_the_edge_network_avoids_what_the_hosts_route() -> None:
    routed = replace(ALL["w1"], routes=(IPv4Network("10.231.0.0/16"),))
    state = replace(formed(*INVENTORY.hosts), networks=frozenset())
    plan = plan_cluster(INVENTORY, ALL | {"w1": routed}, state)
    assert plan.actions == (CreateNetwork("m1", EDGE_NETWORK, str(EDGE_SUBNETS[1])),)


def test_no_free_subnet_is_said_with_a_way_out() -> None:
    with pytest.raises(UsageError, match="no subnet is free") as raised:
        free_subnet([IPv4Network("10.0.0.0/8")])
    assert "docker network create" in raised.value.hint


def test_facts_are_read_from_what_the_script_prints() -> None:
    facts = HostFacts.parse(
        "os.id=ubuntu\nos.like=debian\nos.name=Ubuntu 24.04\nhostname=w1\narch=x86_64\n"
        "route=default\nroute=10.1.0.0/16\nroute=192.168.1.5\naddress=eth0 10.1.2.3/16\n"
        'systemd=yes\nengine=/usr/bin/dockerd\ncli=/usr/bin/docker\ninfo={"ServerVersion": "26.1.5", '
        '"Swarm": {"NodeID": "n", "LocalNodeState": "active", "ControlAvailable": true, '
        '"Cluster": {"ID": "c"}}}\n'
        "trust.hosts_ip=10.1.2.3\n"
    )
    assert facts.has_apt
    assert not facts.has_ipvs
    assert facts.routes == (IPv4Network("10.1.0.0/16"), IPv4Network("192.168.1.5/32"))
    assert facts.swarm == SwarmMembership("active", "n", "c", True)
    assert facts.trust.hosts_ip == "10.1.2.3"


def test_facts_of_a_machine_without_docker_are_facts_too() -> None:
    facts = HostFacts.parse("os.id=debian\nhostname=w1\n")
    assert (facts.engine_version, facts.has_cli, facts.swarm.is_member) == ("", False, False)
