"""How often the swarm is read, and how soon proxies hear of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmkit.balancer.pacing import (
    CALM_SECONDS,
    HURRIED_SECONDS,
    ORDER_SECONDS,
    hold_back,
    is_hurried,
    is_settled,
    pause,
)
from swarmkit.swarm import Service, Task

TIME = "2026-01-01T00:00:00Z"
TASK = Task.of(
    {
        "ID": "t",
        "ServiceID": "s",
        "Slot": 1,
        "NodeID": "n",
        "Spec": {},
        "Status": {"State": "running", "Timestamp": TIME},
        "DesiredState": "running",
        "CreatedAt": TIME,
    }
)


def service(replicas: int | None, update: str = "") -> Service:
    mode = {"Global": {}} if replicas is None else {"Replicated": {"Replicas": replicas}}
    raw = {"ID": "s", "Spec": {"Name": "s", "Mode": mode}}
    return Service.of({**raw, "UpdateStatus": {"State": update}} if update else raw)


@settings(deadline=None)
@given(st.floats(0, 100), st.booleans())
def test_reading_takes_a_fifth_of_the_time_at_most(cost: float, hurried: bool) -> None:
    assert pause(cost, hurried=hurried) >= 5 * cost
    assert pause(cost, hurried=hurried) >= HURRIED_SECONDS


def test_what_changes_is_read_more_often_than_what_does_not() -> None:
    assert pause(0.001, hurried=True) == HURRIED_SECONDS
    assert pause(0.001, hurried=False) == CALM_SECONDS
    assert pause(0.5, hurried=False) > pause(0.5, hurried=True)


@pytest.mark.parametrize(
    ("wanted", "tasks", "settled"),
    [
        (service(1), [TASK], True),
        (service(0), [], True),
        (service(None), [TASK, TASK], True),
        (service(2), [TASK], False),
        (service(1), [TASK, TASK], False),
        (service(1), [replace(TASK, state="starting")], False),
        (service(1), [replace(TASK, desired="shutdown")], False),
        (service(1, "updating"), [TASK], False),
        (service(1, "rollback_started"), [TASK], False),
        (service(1, "completed"), [TASK], True),
    ],
)
def test_a_service_is_settled_when_it_has_the_tasks_that_it_should(
    wanted: Service, tasks: list[Task], settled: bool
) -> None:
    assert is_settled(wanted, tasks) is settled


def test_an_order_hurries_for_a_moment_and_what_is_stuck_not_for_ever() -> None:
    assert is_hurried(settled=True, unchanged=999, ordered=0)
    assert not is_hurried(settled=True, unchanged=0, ordered=ORDER_SECONDS)
    assert is_hurried(settled=False, unchanged=1, ordered=999)
    assert not is_hurried(settled=False, unchanged=3600, ordered=3600)


@settings(deadline=None)
@given(st.floats(0, 1000))
def test_what_leaves_waits_for_nothing_and_what_comes_for_more_of_it(since: float) -> None:
    assert hold_back(leaves=True, since_last=since) == 0
    assert 0 < hold_back(leaves=False, since_last=since) <= 0.2
    # Five configurations a second.
    assert since + hold_back(leaves=False, since_last=since) >= 0.2
