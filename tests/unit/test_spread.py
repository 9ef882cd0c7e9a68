"""How many tasks each node would have, were they spread evenly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkit.services.spread import Balance, plan_balance
from swarmkit.swarm import Node, Service, Task
from tests.unit.builders import node, service, task


def placed(counts: Mapping[str, int]) -> list[Task]:
    found: list[Task] = []
    for name, count in counts.items():
        found += [task(len(found) + number, on=name) for number in range(1, count + 1)]
    return found


def balance(
    counts: Mapping[str, int], nodes: Sequence[Node] | None = None, *, force: bool = False, **spec: Any
) -> Balance:
    one: Service = service(sum(counts.values()), **spec)
    known = nodes or [node(name) for name in counts]
    (found,) = plan_balance([one], known, [one], placed(counts), force=force)
    return found


count_maps = st.lists(st.integers(0, 12), min_size=1, max_size=6).map(
    lambda counts: {f"n{number}": count for number, count in enumerate(counts)}
)


@given(count_maps)
def test_tasks_are_spread_evenly_none_is_lost_and_no_more_move_than_must(counts: dict[str, int]) -> None:
    found = balance(counts)
    after = list(found.after.values())
    assert sum(after) == sum(counts.values())
    assert max(after) - min(after) <= 1
    total, size = sum(counts.values()), len(counts)
    best = sorted(counts.values(), reverse=True)
    ideal = [total // size + (number < total % size) for number in range(size)]
    assert found.moves == sum(max(0, have - want) for have, want in zip(best, ideal, strict=True))


@given(count_maps, st.integers(1, 4))
def test_no_node_gets_more_than_it_may_have(counts: dict[str, int], most: int) -> None:
    found = balance(counts, task={"Placement": {"MaxReplicas": most}})
    assert all(after <= max(most, counts[name]) for name, after in found.after.items())
    assert sum(found.after.values()) == sum(counts.values())


@given(count_maps)
def test_what_is_even_stays(counts: dict[str, int]) -> None:
    even = dict(balance(counts).after)
    assert not balance(even).moves


def test_a_node_that_came_back_gets_its_share() -> None:
    found = balance({"n1": 3, "n2": 3, "n3": 0})
    assert dict(found.after) == {"n1": 2, "n2": 2, "n3": 2}
    assert found.excess == {"n1": 1, "n2": 1}


def test_what_comes_first_takes_its_room_from_what_comes_after_it() -> None:
    reserved: Any = {"Resources": {"Reservations": {"MemoryBytes": 600 << 20}}}
    both = [service(2, name=name, task=reserved) for name in ("a", "b")]
    on = [task(slot, of=one.id, **reserved) for one in both for slot in (1, 2)]
    first, second = plan_balance(both, [node("n1", memory=4 << 30), node("n2")], both, on)
    assert dict(first.after) == {"n1": 1, "n2": 1}
    assert dict(second.after) == {"n1": 2, "n2": 0}


def test_nodes_that_may_not_have_tasks_get_none() -> None:
    nodes = [
        node("n1"),
        node("n2"),
        node("n3", Availability="drain"),
        node("n4", role="manager", Role="manager"),
    ]
    found = balance({"n1": 4, "n2": 0}, nodes, task={"Placement": {"Constraints": ["node.role==worker"]}})
    assert dict(found.after) == {"n1": 2, "n2": 2}


def test_tasks_are_spread_over_labels_first() -> None:
    nodes = [
        node("n1", labels={"rack": "a"}),
        node("n2", labels={"rack": "a"}),
        node("n3", labels={"rack": "b"}),
    ]
    preference = {"Placement": {"Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.rack"}}]}}
    assert balance({"n1": 1, "n2": 1, "n3": 2}, nodes, task=preference).moves == 0
    found = balance({"n1": 2, "n2": 2, "n3": 0}, nodes, task=preference)
    assert dict(found.after) == {"n1": 1, "n2": 1, "n3": 2}


def test_reservations_bound_what_a_node_takes() -> None:
    small = [node("n1", memory=8 << 30), node("n2", memory=1 << 30)]
    reserved: Any = {"Resources": {"Reservations": {"MemoryBytes": 1 << 30}}}
    one = service(4, task=reserved)
    tasks = [task(number, on="n1", **reserved) for number in range(1, 5)]
    (found,) = plan_balance([one], small, [one], tasks)
    assert dict(found.after) == {"n1": 3, "n2": 1}


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"UpdateConfig": {"Order": "stop-first"}}, "stop-first"),
        ({"container": {"Mounts": [{"Type": "volume", "Source": "d", "Target": "/d"}]}}, "storage (d)"),
    ],
)
def test_where_no_two_tasks_may_be_at_once_they_stay_unless_forced(spec: dict[str, Any], reason: str) -> None:
    found = balance({"n1": 2, "n2": 0}, **spec)
    assert reason in found.skipped
    assert not found.moves
    assert found.after == found.before
    assert balance({"n1": 2, "n2": 0}, force=True, **spec).moves == 1


@pytest.mark.parametrize(("state", "reason"), [("updating", "being updated"), ("paused", "stands still")])
def test_a_service_in_the_middle_of_something_stays(state: str, reason: str) -> None:
    found = balance({"n1": 2, "n2": 0}, update=state)
    assert reason in found.skipped


def test_a_service_that_is_not_whole_stays() -> None:
    one = service(3)
    tasks = [task(1, on="n1"), task(2, on="n1"), task(3, "pending", on="")]
    (found,) = plan_balance([one], [node("n1"), node("n2")], [one], tasks)
    assert found.skipped == "not all of its tasks run"
