"""Planning a cluster: from the inventory, facts and the swarm to what must be done."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from swarmkit.cluster.actions import (
    ConfigureEngine,
    CreateNetwork,
    Drain,
    ForgetNode,
    InitSwarm,
    InstallEngine,
    JoinSwarm,
    LeaveFirst,
    LeaveOther,
    LeaveSwarm,
    MarkSwarm,
    Phase,
    ReleaseGossip,
    RestartEngine,
    StrikeOff,
    UpdateNode,
)
from swarmkit.cluster.facts import HostFacts, Listener, SwarmMembership
from swarmkit.cluster.plan import (
    EDGE_SUBNETS,
    ClusterPlan,
    Consent,
    SwarmState,
    free_subnet,
    other_pools,
    plan_cluster,
)
from swarmkit.cluster.settings import DaemonFacts
from swarmkit.errors import Problems, UsageError
from swarmkit.images.trust import TrustFacts
from swarmkit.inventory import Host, Inventory, Role, SwarmSettings
from swarmkit.names import EDGE_NETWORK, HOST_LABEL, LABELS_LABEL, RESTART_LABEL
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
        address=one.private_address,
    )
    return replace(BARE, has_engine=True, has_cli=True, engine_version="26.1.5", swarm=swarm, trust=trust)


def node(one: Host, reachability: str = "reachable", **changed: str) -> Node:
    values = {
        "id": f"id-{one.name}",
        "hostname": one.name,
        "role": one.role.value,
        "state": "ready",
        "availability": "active",
        "address": one.private_address,
        "engine": "26.1.5",
    }
    labels = {**one.labels, HOST_LABEL: one.name}
    if one.labels:
        labels[LABELS_LABEL] = ",".join(one.labels)
    raw = {"ManagerStatus": {"Reachability": reachability}} if one.is_manager else {}
    return Node(**(values | changed), leader=False, labels=labels, raw=raw)


def formed(*hosts: Host, **changed: Any) -> SwarmState:
    state = SwarmState(CLUSTER, tuple(node(one) for one in hosts), frozenset({EDGE_NETWORK}), mark="test")
    return replace(state, **changed)


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


def test_an_engine_that_keeps_the_gossip_of_a_swarm_it_left_is_restarted_where_nothing_runs() -> None:
    idle = replace(member(W1), swarm=SwarmMembership(), listeners=(Listener("udp", 7946, "dockerd"),))
    plan = plan_cluster(INVENTORY, ALL | {"w1": idle}, formed(M1, M2, W2))
    assert ReleaseGossip("w1") in plan.actions
    plan = plan_cluster(INVENTORY, ALL | {"w1": replace(idle, containers=1)}, formed(M1, M2, W2))
    assert ReleaseGossip("w1") not in plan.actions


def test_only_what_is_missing_is_planned_for_a_host_that_joins() -> None:
    facts = ALL | {"w2": BARE}
    plan = plan_cluster(INVENTORY, facts, formed(M1, M2, W1), hosts=[W2])
    assert {action.host for action in plan.actions} == {"w2"}
    assert JoinSwarm("w2", "worker", "10.0.0.12") in plan.actions


def test_labels_that_are_wrong_or_missing_are_set() -> None:
    state = formed(M1, M2, W1, W2)
    labels = {HOST_LABEL: "w1", LABELS_LABEL: "disk", "disk": "hdd", "other": "kept"}
    wrong = replace(node(W1), labels=labels)
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
    # Not yet seen to be down, but with the address of a machine that says it is another node.
    unnoticed = node(W1, id="id-old")
    plan = plan_cluster(INVENTORY, ALL, replace(state, nodes=(*state.nodes, unnoticed)))
    assert plan.actions == (ForgetNode("w1", "id-old"),)
    alive = node(W1, id="id-other", address="10.0.0.99")
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
    plan = plan_cluster(INVENTORY, facts, formed(M1, M2, W2), consent=Consent(take_over=True))
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
        free_subnet([IPv4Network(one) for one in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")])
    assert "edge_subnet" in raised.value.hint
    assert str(free_subnet([IPv4Network("10.0.0.0/8")])).startswith("172.")
    # A VPN's "everything goes this way" is no network.
    assert free_subnet([IPv4Network("0.0.0.0/1"), IPv4Network("128.0.0.0/1")]) == EDGE_SUBNETS[0]


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


def test_machines_that_live_where_swarm_would_put_its_networks_make_it_take_others() -> None:
    assert other_pools([IPv4Network("192.168.56.0/24"), IPv4Network("10.231.0.0/16")]) == ()
    assert other_pools([IPv4Network("10.0.0.0/24")]) == (IPv4Network("10.200.0.0/16"),)
    assert other_pools([IPv4Network("10.0.1.0/24"), IPv4Network("10.200.3.0/24")]) == (
        IPv4Network("10.204.0.0/16"),
    )


def test_how_the_swarm_is_made_comes_from_the_inventory() -> None:
    wanted = SwarmSettings(data_path_port=4790, address_pools=(IPv4Network("10.50.0.0/16"),), subnet_size=26)
    facts = dict.fromkeys(("m1", "m2", "w1", "w2"), BARE)
    plan = plan_cluster(replace(INVENTORY, swarm=wanted), facts, SwarmState())
    (made,) = [action for action in plan.actions if isinstance(action, InitSwarm)]
    assert made.settings == {
        "DataPathPort": 4790,
        "DefaultAddrPool": ["10.50.0.0/16"],
        "SubnetSize": 26,
        "Spec": {"Labels": {"swarmkit.cluster": "test"}},
    }


# Whose swarm it is


def test_a_swarm_that_swarmkit_did_not_form_is_refused_unless_adopted_or_left() -> None:
    state = formed(M1, M2, W1, W2, mark="")
    with pytest.raises(UsageError, match="that swarmkit did not form") as raised:
        plan_cluster(INVENTORY, ALL, state)
    assert "--adopt" in raised.value.hint
    adopted = plan_cluster(INVENTORY, ALL, state, consent=Consent(adopt=True))
    assert adopted.actions == (MarkSwarm("m1", "test"),)
    anew = plan_cluster(INVENTORY, ALL, state, consent=Consent(take_over=True))
    kinds = [(type(action), action.host) for action in anew.actions]
    assert kinds[:2] == [(LeaveFirst, "m1"), (InitSwarm, "m1")]
    assert {host for kind, host in kinds if kind is LeaveOther} == {"m2", "w1", "w2"}
    assert {host for kind, host in kinds if kind is JoinSwarm} == {"m2", "w1", "w2"}


def test_a_swarm_whose_forming_was_cut_off_is_ours_and_gets_its_mark() -> None:
    facts = ALL | {"m1": replace(ALL["m1"], is_forming=True)}
    plan = plan_cluster(INVENTORY, facts, formed(M1, M2, W1, W2, mark=""))
    assert plan.actions == (MarkSwarm("m1", "test"),)
    with pytest.raises(UsageError, match="calls itself"):
        plan_cluster(INVENTORY, facts, formed(M1, M2, W1, W2, mark="physics"))


def test_the_swarm_of_another_inventory_is_refused() -> None:
    with pytest.raises(UsageError, match='calls itself "physics", and this inventory is of "test"'):
        plan_cluster(INVENTORY, ALL, formed(M1, M2, W1, W2, mark="physics"))


def test_a_worker_that_was_struck_off_comes_back_without_being_taken_over() -> None:
    def stray(state: str) -> HostFacts:
        return replace(ALL["w1"], swarm=replace(ALL["w1"].swarm, state=state, node_id="id-gone"))

    with pytest.raises(UsageError, match="already in another swarm"):
        plan_cluster(INVENTORY, ALL | {"w1": stray("error")}, formed(M1, M2, W2))
    own = replace(stray("error"), swarm=replace(stray("error").swarm, certificate=certificate(CLUSTER)))
    plan = plan_cluster(INVENTORY, ALL | {"w1": own}, formed(M1, M2, W2))
    assert [type(action) for action in plan.actions] == [LeaveOther, JoinSwarm, UpdateNode]
    assert titles(plan)[0] == "w1: leave the swarm, in which it is no longer let in"


def certificate(swarm: str) -> str:
    """A node's certificate, as moby makes it (ca/certificates.go): the organisation is the swarm."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, swarm)])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=90))
    pem = made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    return base64.b64encode(pem).decode()


@pytest.mark.parametrize("state", ["pending", "error"])
def test_a_join_that_never_ended_is_begun_again(state: str) -> None:
    found = replace(ALL["w1"], swarm=replace(ALL["w1"].swarm, state=state))
    plan = plan_cluster(INVENTORY, ALL | {"w1": found}, formed(M1, M2, W1, W2))
    assert [type(action) for action in plan.actions] == [ForgetNode, LeaveOther, JoinSwarm, UpdateNode]


def test_a_locked_manager_is_named_with_the_way_to_unlock_it() -> None:
    found = replace(ALL["m2"], swarm=SwarmMembership(state="locked"))
    with pytest.raises(UsageError, match="locked") as raised:
        plan_cluster(INVENTORY, ALL | {"m2": found}, formed(M1, M2, W1, W2))
    assert (raised.value.where, raised.value.hint) == ("m2", "unlock it there: docker swarm unlock")


# Addresses


def test_a_worker_whose_address_has_changed_leaves_and_joins_with_the_new_one() -> None:
    moved = replace(ALL["w1"], swarm=replace(ALL["w1"].swarm, address="10.9.9.9"))
    plan = plan_cluster(INVENTORY, ALL | {"w1": moved}, formed(M1, M2, W1, W2))
    kinds = [type(action) for action in plan.actions]
    assert kinds == [Drain, LeaveSwarm, StrikeOff, JoinSwarm, UpdateNode]
    assert {action.phase for action in plan.actions[:3]} == {Phase.REJOIN}


def test_the_only_manager_cannot_move() -> None:
    moved = replace(ALL["m1"], swarm=replace(ALL["m1"].swarm, address="10.9.9.9"))
    inventory = Inventory("test", (M1, W1))
    with pytest.raises(UsageError, match=r"the only manager is in the swarm as 10\.9\.9\.9"):
        plan_cluster(inventory, {"m1": moved, "w1": ALL["w1"]}, formed(M1, W1))


# Machines that are away

M3 = host("m3", Role.MANAGER, 3)
THREE = Inventory("test", (M1, M2, M3, W1))
THREE_FACTS = ALL | {"m3": member(M3)}


def test_a_machine_that_is_away_is_left_out_and_stops_no_other() -> None:
    facts = {name: found for name, found in ALL.items() if name != "w1"} | {"w2": BARE}
    plan = plan_cluster(INVENTORY, facts, formed(M1, M2, W1))
    assert {action.host for action in plan.actions} == {"w2"}


def test_a_dead_manager_is_not_the_one_to_speak_through() -> None:
    facts = {name: found for name, found in ALL.items() if name != "m1"}
    assert plan_cluster(INVENTORY, facts, formed(M1, M2, W1, W2)).founder == M2


def test_the_registry_stays_with_a_manager_that_is_away_and_moves_when_it_is_gone() -> None:
    facts = {name: found for name, found in THREE_FACTS.items() if name != "m1"}
    state = formed(M1, M2, M3, W1)
    assert plan_cluster(THREE, facts, state).actions == ()
    without = Inventory("test", (M2, M3, W1))
    plan = plan_cluster(without, facts, formed(M2, M3, W1))
    assert titles(plan)[0] == "m2: issue the registry's certificate"
    assert {f"{name}: name the registry in /etc/hosts" for name in ("m2", "m3", "w1")} <= set(titles(plan))


# Nodes' state


def test_a_label_that_the_inventory_gave_and_no_longer_has_is_removed() -> None:
    state = formed(M1, M2, W1, W2)
    labels = {HOST_LABEL: "w1", LABELS_LABEL: "disk,rack", "disk": "ssd", "rack": "7", "own": "kept"}
    nodes = (*state.nodes[:2], replace(node(W1), labels=labels), state.nodes[3])
    plan = plan_cluster(INVENTORY, ALL, replace(state, nodes=nodes))
    assert plan.actions == (UpdateNode("w1", {LABELS_LABEL: "disk"}, unwanted=("rack",)),)
    assert titles(plan) == ["w1: label swarmkit.labels=disk, remove the label rack"]


def test_availability_is_state_where_the_inventory_says_it_and_the_operators_where_not() -> None:
    drained = replace(formed(M1, M2, W1, W2).nodes[3], availability="drain")
    state = formed(M1, M2, W1, W2)
    state = replace(state, nodes=(*state.nodes[:3], drained))
    assert plan_cluster(INVENTORY, ALL, state).actions == ()
    said = replace(INVENTORY, hosts=(M1, M2, W1, replace(W2, availability="active")))
    assert plan_cluster(said, ALL, state).actions == (UpdateNode("w2", availability="active"),)


# Engines' settings

WANTED = {"log-driver": "local", "registry-mirrors": ["https://mirror.example"]}


def with_settings(**found: DaemonFacts) -> dict[str, HostFacts]:
    right = {name: replace(one, settings=DaemonFacts(WANTED)) for name, one in ALL.items()}
    return right | {name: replace(ALL[name], settings=settings) for name, settings in found.items()}


SET = replace(INVENTORY, engine=WANTED)


def test_engines_that_are_set_right_are_left_alone() -> None:
    assert plan_cluster(SET, with_settings(), formed(M1, M2, W1, W2)).actions == ()
    more = DaemonFacts({**WANTED, "debug": True})
    assert plan_cluster(SET, with_settings(w1=more), formed(M1, M2, W1, W2)).actions == ()


def test_what_an_engine_can_take_as_it_runs_needs_no_restart() -> None:
    facts = with_settings(w1=DaemonFacts({"log-driver": "local"}))
    (action,) = plan_cluster(SET, facts, formed(M1, M2, W1, W2)).actions
    assert isinstance(action, ConfigureEngine)
    assert (action.keys, action.then) == (("registry-mirrors",), "reload")


def test_nodes_are_restarted_in_their_turn_workers_first_and_the_leader_last() -> None:
    state = formed(M1, M2, W1, W2)
    state = replace(state, nodes=(replace(state.nodes[0], leader=True), *state.nodes[1:]))
    old = dict.fromkeys(("m1", "m2", "w1"), DaemonFacts())
    plan = plan_cluster(SET, with_settings(**old), state)
    assert not any(isinstance(action, ConfigureEngine) for action in plan.actions)
    restarts = [action for action in plan.actions if isinstance(action, RestartEngine)]
    assert [action.host for action in restarts] == ["w1", "m2", "m1"]
    assert all(action.drained for action in restarts)
    assert {action.keys for action in restarts} == {("log-driver", "registry-mirrors")}


def test_a_machine_in_no_swarm_is_set_at_once() -> None:
    facts = with_settings() | {"w1": replace(ALL["w1"], swarm=SwarmMembership())}
    plan = plan_cluster(SET, facts, formed(M1, M2, W2))
    assert [type(action) for action in plan.actions] == [ConfigureEngine, JoinSwarm, UpdateNode]
    assert plan.actions[0].title.endswith("and restart the engine")
    bare = plan_cluster(SET, with_settings() | {"w1": BARE}, formed(M1, M2, W2))
    assert [type(action) for action in bare.actions[:2]] == [ConfigureEngine, InstallEngine]


def test_a_restart_that_was_cut_off_is_made_up_for() -> None:
    state = formed(M1, M2, W1, W2)
    cut = replace(state.nodes[2], availability="drain")
    cut = replace(cut, labels={**cut.labels, RESTART_LABEL: "active"})
    state = replace(state, nodes=(*state.nodes[:2], cut, state.nodes[3]))
    assert plan_cluster(SET, with_settings(), state).actions == (
        UpdateNode("w1", availability="active", unwanted=(RESTART_LABEL,)),
    )
    pending = with_settings(w1=DaemonFacts(WANTED, pending=True))
    plan = plan_cluster(SET, pending, state)
    assert RestartEngine("w1", "active", drained=True) in plan.actions


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="live-restore"):
        plan_cluster(replace(INVENTORY, engine={"live-restore": True}), ALL, formed(*INVENTORY.hosts))
    with pytest.raises(UsageError, match=r"daemon.json is broken") as raised:
        plan_cluster(SET, with_settings(w1=DaemonFacts(broken="no JSON")), formed(*INVENTORY.hosts))
    assert raised.value.where == "w1"


# Managers


def test_a_manager_too_many_is_demoted() -> None:
    inventory = Inventory("test", (M1, M2, replace(M3, role=Role.WORKER), W1))
    plan = plan_cluster(inventory, THREE_FACTS, formed(M1, M2, M3, W1))
    assert UpdateNode("m3", {}, "worker") in plan.actions


def test_what_would_lose_the_majority_is_refused_with_the_arithmetic() -> None:
    inventory = Inventory("test", (M1, M2, replace(M3, role=Role.WORKER), W1))
    state = formed(M1, M3, W1)
    state = replace(state, nodes=(*state.nodes, node(M2, "unreachable", state="down")))
    with pytest.raises(UsageError) as raised:
        plan_cluster(inventory, THREE_FACTS, state)
    assert "now 2 of 3 reachable, and 2 needed; then 1 of 2 reachable, and 2 needed" in raised.value.message
    assert "--force does it all the same" in raised.value.hint
    forced = plan_cluster(inventory, THREE_FACTS, state, consent=Consent(force=True))
    assert UpdateNode("m3", {}, "worker") in forced.actions


def test_an_engine_of_a_manager_is_not_restarted_while_another_is_missing() -> None:
    state = formed(M1, M3, W1)
    state = replace(state, nodes=(*state.nodes, node(M2, "unreachable", state="down")))
    inventory = replace(THREE, engine=WANTED)
    facts = {name: replace(one, settings=DaemonFacts(WANTED)) for name, one in THREE_FACTS.items()}
    facts |= {"m3": replace(THREE_FACTS["m3"], settings=DaemonFacts())}
    del facts["m2"]
    with pytest.raises(UsageError, match="restarting the engine of m3 would lose"):
        plan_cluster(inventory, facts, state)


def test_nodes_that_the_inventory_has_no_more_are_named_and_pruned_when_asked() -> None:
    inventory = Inventory("test", (M1, M2, W1))
    state = formed(M1, M2, W1, W2)
    plan = plan_cluster(inventory, ALL, state)
    assert plan.actions == ()
    assert any("w2 (--prune" in note for note in plan.notes)
    pruned = plan_cluster(inventory, ALL, state, consent=Consent(prune=True))
    assert [type(action) for action in pruned.actions] == [Drain, StrikeOff]
    drained = replace(state.nodes[3], availability="drain")
    state = replace(state, nodes=(*state.nodes[:3], drained))
    pruned = plan_cluster(inventory, ALL, state, consent=Consent(prune=True))
    assert [type(action) for action in pruned.actions] == [Drain, StrikeOff], "it is to be empty first"
    joined = plan_cluster(inventory, ALL, state, hosts=[W1], consent=Consent(prune=True))
    assert joined.actions == ()


def test_an_even_number_of_managers_and_managers_that_fail_together_are_pointed_out() -> None:
    plan = plan_cluster(INVENTORY, ALL, formed(*INVENTORY.hosts))
    assert any(note.startswith("2 managers: no more of them may fail than of 1") for note in plan.notes)
    zoned = [replace(one, labels={"zone": zone}) for one, zone in ((M1, "a"), (M2, "a"), (M3, "b"))]
    spread = SwarmSettings(spread="zone")
    inventory = Inventory("test", (*zoned, W1), swarm=spread)
    plan = plan_cluster(inventory, THREE_FACTS, formed(M1, M2, M3, W1))
    assert plan.notes == ("2 of 3 managers have zone=a: without it there is no majority",)
