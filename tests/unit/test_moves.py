"""Moving tasks off nodes: what is sent and taken back, who may move, and when a service may be put back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkit.names import MOVE_LABEL, STACK_LABEL
from swarmkit.services.moves import Mark, may_settle, moving, plan_drain, risk, settled
from swarmkit.swarm import Node, Service, Task, meets
from tests.unit.builders import job, node, service, task

THREE = (node("n1"), node("n2"), node("n3"))
N1, N2, N3 = THREE


def planned(
    one: Service, tasks: Sequence[Task], *drained: Node, nodes: Sequence[Node] = THREE, force: bool = False
) -> tuple[list[str], list[tuple[str, bool]]]:
    """What moves, by name, and the code of each gap with whether its tasks have no place."""
    plan = plan_drain(drained or [N1], nodes, [one], tasks, force=force)
    return [each.service.name for each in plan.moves], [
        (each.gap.code, each.waits) for each in plan.gaps if each.gap
    ]


MOVES: tuple[list[str], list[tuple[str, bool]]] = (["web"], [])


def stops(code: str, *, waits: bool = False) -> tuple[list[str], list[tuple[str, bool]]]:
    return [], [(code, waits)]


# ---------------------------------------------------------------- specs on the way, and back

constraint_lists = st.none() | st.lists(
    st.sampled_from(["node.id!=n1", "node.id!=n9", "node.role==worker", "node.labels.a==b"]), unique=True
)
placements = st.none() | st.builds(
    lambda rules, most: {
        **({} if rules is None else {"Constraints": rules}),
        **({} if most is None else {"MaxReplicas": most}),
    },
    constraint_lists,
    st.none() | st.integers(1, 3),
)
update_configs = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "Order": st.sampled_from(["start-first", "stop-first"]),
        "Parallelism": st.integers(0, 4),
        "Delay": st.integers(0, 10**10),
    },
)


def with_parts(placement: Any, config: Any) -> Service:
    return service(
        labels={"a": "b"},
        task={} if placement is None else {"Placement": placement},
        **({} if config is None else {"UpdateConfig": config}),
    )


@given(
    placements,
    update_configs,
    st.lists(st.sampled_from(["n1", "n2"]), min_size=1, unique=True),
    st.integers(0, 3),
)
def test_what_is_put_into_a_spec_comes_out_of_it_again(
    placement: Any, config: Any, leaving: list[str], most: int
) -> None:
    one = with_parts(placement, config)
    spec = moving(one, "drain", leaving, most)
    for each in leaving:
        rules = spec["TaskTemplate"]["Placement"]["Constraints"]
        assert not all(meets(node(each), rule) for rule in rules), "no task fits the node any more"
    assert spec["UpdateConfig"]["Order"] == "start-first"
    assert settled(spec) == one.spec
    assert settled(one.spec) is one.spec


@given(placements, update_configs)
def test_only_the_placement_of_tasks_differs_or_the_swarm_would_replace_them_all(
    placement: Any, config: Any
) -> None:
    one = with_parts(placement, config)
    was, now = one.spec["TaskTemplate"], moving(one, "drain", ["n1"])["TaskTemplate"]
    assert {key: value for key, value in now.items() if key != "Placement"} == {
        key: value for key, value in was.items() if key != "Placement"
    }


def test_what_somebody_changes_meanwhile_stays() -> None:
    spec = moving(service(3, task={"Placement": {"Constraints": ["node.role==worker"]}}), "drain", ["n1"])
    spec["TaskTemplate"]["Placement"]["Constraints"].append("node.labels.a==b")
    spec["Mode"] = {"Replicated": {"Replicas": 9}}
    back = settled(spec)
    assert back["TaskTemplate"]["Placement"] == {"Constraints": ["node.role==worker", "node.labels.a==b"]}
    assert back["Mode"] == {"Replicated": {"Replicas": 9}}
    assert MOVE_LABEL not in back["Labels"]


def test_the_user_s_parallelism_holds_and_a_delay_does_not() -> None:
    careful = service(UpdateConfig={"Parallelism": 2, "Delay": 10**10, "Order": "start-first"})
    assert (
        moving(careful, "drain", ["n1"])["UpdateConfig"] | {"Delay": 0, "Parallelism": 2}
        == moving(careful, "drain", ["n1"])["UpdateConfig"]
    )
    assert moving(service(), "drain", ["n1"])["UpdateConfig"]["Parallelism"] == 0, "all at once"


def test_a_number_of_tasks_moves_and_then_no_more() -> None:
    config = moving(service(), "rebalance", ["n1"], 2)["UpdateConfig"]
    assert config["Parallelism"] == 2
    assert config["Delay"] > 10**18
    # Go's durations are 64 bits.
    assert config["Delay"] < 2**63


def test_a_mark_tells_the_operation_and_its_nodes() -> None:
    mark = Mark.of(moving(service(), "drain", ["n1", "n2"]))
    assert mark is not None
    assert (mark.operation, mark.nodes) == ("drain", ("n1", "n2"))
    assert Mark.of(service().spec) is None


# ---------------------------------------------------------------- when a service may be put back


def slot_task(identity: str, state: str = "running", desired: str = "running", on: str = "n1") -> Task:
    found = task(1, state, desired, on=on)
    return Task.of({**found.raw, "ID": identity})


def test_a_service_is_put_back_while_its_tasks_are_one_a_slot() -> None:
    assert may_settle([task(1), task(2, on="n2"), task(3, "starting", on="n3")])


def test_the_swarm_would_keep_the_first_of_two_by_id_so_that_must_be_the_one_that_runs() -> None:
    assert may_settle([slot_task("b", "starting", on="n2"), slot_task("a")])
    assert not may_settle([slot_task("b"), slot_task("a", "starting", on="n2")])


@pytest.mark.parametrize(
    "replacement",
    [
        slot_task("a", "pending", on=""),
        slot_task("a", "ready", "ready", on="n2"),
        slot_task("a", "rejected", "shutdown", on="n2"),
    ],
)
def test_a_replacement_that_does_not_count_yet_or_no_longer_does_no_harm(replacement: Task) -> None:
    assert may_settle([slot_task("b"), replacement])


# ---------------------------------------------------------------- who may move


def test_a_replicated_service_moves() -> None:
    assert planned(service(2), [task(1), task(2, on="n2")]) == MOVES


def test_what_is_not_on_the_node_is_not_concerned() -> None:
    assert planned(service(1), [task(1, on="n2")]) == ([], [])
    assert planned(service(1), [task(1, "shutdown", "shutdown")]) == ([], [])


def test_global_services_and_jobs_stop() -> None:
    assert planned(service(None), [task(None)]) == stops("global")
    assert planned(job({"ReplicatedJob": {}}), [task(1)]) == stops("job")


def test_stop_first_is_obeyed_unless_forced() -> None:
    one = service(1, UpdateConfig={"Order": "stop-first"})
    assert planned(one, [task(1)]) == stops("stop-first")
    assert planned(one, [task(1)], force=True) == MOVES
    assert planned(service(1, UpdateConfig={"Order": "start-first"}), [task(1)]) == MOVES


@pytest.mark.parametrize(
    ("mount", "shared"),
    [
        ({"Type": "volume", "Source": "data", "Target": "/d"}, True),
        ({"Type": "volume", "Source": "data", "Target": "/d", "ReadOnly": True}, False),
        ({"Type": "volume", "Target": "/d"}, False),
        ({"Type": "bind", "Source": "/srv/data", "Target": "/d"}, True),
        ({"Type": "bind", "Source": "/srv/data", "Target": "/d", "ReadOnly": True}, False),
        ({"Type": "bind", "Source": "/var/run/docker.sock", "Target": "/d"}, False),
        ({"Type": "bind", "Source": "/runs", "Target": "/d"}, True),
        ({"Type": "tmpfs", "Target": "/d"}, False),
        ({"Type": "cluster", "Source": "csi", "Target": "/d"}, True),
    ],
)
def test_no_two_tasks_write_to_the_same_storage_unless_forced(mount: dict[str, Any], shared: bool) -> None:
    one = service(1, container={"Mounts": [mount]})
    assert planned(one, [task(1)]) == (stops("storage") if shared else MOVES)
    assert planned(one, [task(1)], force=True) == MOVES
    gap = risk(one)
    assert gap is None or mount["Source"] in gap.reason


def test_a_service_that_only_the_node_may_have_waits() -> None:
    one = service(1, task={"Placement": {"Constraints": ["node.hostname==n1"]}})
    assert planned(one, [task(1)]) == stops("no-place", waits=True)
    assert planned(one, [task(1)], force=True) == stops("no-place", waits=True)


def test_nothing_moves_to_a_node_that_is_emptied_next() -> None:
    one = service(1, task={"Placement": {"Constraints": ["node.hostname!=n3"]}})
    assert planned(one, [task(1)], N1) == MOVES
    assert planned(one, [task(1)], N1, N2) == stops("no-place", waits=True)


def test_room_is_counted() -> None:
    limited = service(3, task={"Placement": {"MaxReplicas": 1}})
    each = [task(1), task(2, on="n2"), task(3, on="n3")]
    assert planned(limited, each) == stops("no-room", waits=True)
    assert planned(limited, each[:2]) == MOVES
    large = service(2, task={"Resources": {"Reservations": {"MemoryBytes": 1 << 30}}})
    reserved: Any = {"Resources": {"Reservations": {"MemoryBytes": 1 << 30}}}
    one_there = [task(1, **reserved), task(2, on="n2", **reserved)]
    assert planned(large, one_there) == MOVES
    assert planned(large, one_there, N1, N2) == stops("no-room")


def test_what_moves_takes_its_room_from_those_that_come_after_it() -> None:
    reserved: Any = {"Resources": {"Reservations": {"MemoryBytes": 600 << 20}}}
    three = [service(1, name=name, task=reserved) for name in ("a", "b", "c")]
    on = [task(1, of=one.id, **reserved) for one in three]
    plan = plan_drain([N1], THREE, three, on)
    assert [one.service.name for one in plan.moves] == ["a", "b"], "one to each of the others"
    (gap,) = plan.gaps
    assert gap.gap
    assert (gap.service.name, gap.gap.code, gap.waits) == ("c", "no-room", True)
    assert "a task needs 600 MB; free: n2 424 MB, n3 424 MB" in gap.gap.reason


def test_a_host_port_that_moves_is_taken_for_those_that_come_after_it() -> None:
    port = {"PublishedPort": 80, "TargetPort": 80, "PublishMode": "host"}
    one, other = (service(1, name=name, EndpointSpec={"Ports": [port]}) for name in ("a", "b"))
    plan = plan_drain([N1], THREE[:2], [one, other], [task(1, of="a"), task(1, of="b")])
    assert [each.service.name for each in plan.moves] == ["a"]
    (gap,) = plan.gaps
    assert gap.gap
    assert "port 80 taken by a on n2" in gap.gap.reason


def test_a_service_that_stops_first_takes_no_room_from_those_that_move() -> None:
    reserved: Any = {"Resources": {"Reservations": {"MemoryBytes": 600 << 20}}}
    first = service(1, name="a", task=reserved, UpdateConfig={"Order": "stop-first"})
    plan = plan_drain(
        [N1],
        THREE[:2],
        [first, service(1, name="b", task=reserved)],
        [task(1, of="a", **reserved), task(1, of="b", **reserved)],
    )
    assert [each.service.name for each in plan.moves] == ["b"]


def test_a_host_port_moves_where_it_is_free_elsewhere() -> None:
    port = {"PublishedPort": 80, "TargetPort": 80, "PublishMode": "host"}
    one = service(1, EndpointSpec={"Ports": [port]})
    assert planned(one, [task(1)]) == MOVES
    assert planned(one, [task(1), task(2, on="n2")], nodes=THREE[:2]) == stops("no-room", waits=True)


def test_an_update_that_stands_still_is_not_gone_on_with() -> None:
    assert planned(service(2, update="paused"), [task(1), task(2, on="n2")]) == stops("halted")


def test_a_service_on_the_way_is_judged_by_its_own_spec() -> None:
    one = service(1, UpdateConfig={"Order": "stop-first"})
    on_the_way = Service.of({**one.raw, "Spec": moving(one, "drain", ["n1"])})
    assert planned(on_the_way, [task(1)]) == stops("stop-first")


def test_from_a_dead_or_drained_node_nothing_is_moved() -> None:
    for gone in (node("n1", state="down"), node("n1", Availability="drain")):
        assert planned(service(1), [task(1)], gone, nodes=[gone, N2]) == ([], [])


def test_the_plan_says_how_many_of_how_many_and_why() -> None:
    plan = plan_drain(
        [N1],
        THREE,
        [service(3), service(1, name="db", UpdateConfig={"Order": "stop-first"})],
        [task(1), task(2), task(3, on="n2"), task(1, of="db")],
    )
    assert [str(one) for one in (*plan.moves, *plan.gaps)] == [
        "web: 2 of 3 tasks move, once a replacement runs",
        "db: its task stops before another runs: its update_config says stop-first"
        " (so it does where it names no order)",
    ]


def test_an_entry_node_is_warned_of() -> None:
    proxy = service(None, name="swarmkit-lb_proxy", labels={STACK_LABEL: "swarmkit-lb"})
    on = [task(None, on=name, of="swarmkit-lb_proxy") for name in ("n1", "n2")]
    (warning,) = plan_drain([N1], THREE, [proxy], on).warnings
    assert "n1 is an entry node" in warning
    assert "another entry" in warning
    warnings = plan_drain([N1, N2], THREE, [proxy], on).warnings
    assert len(warnings) == 2
    assert all("there is no other entry" in each for each in warnings)
    assert not plan_drain([N3], THREE, [proxy], on).warnings
