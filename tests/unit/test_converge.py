"""Judging services: there, on the way, or never."""

from __future__ import annotations

from typing import Any

import pytest

from swarmkit.services.converge import MONITOR_SECONDS, Baseline, Verdict, monitor_seconds, progress
from swarmkit.swarm import Node, Service, Task, is_placeable, moment

BEFORE = Baseline(moment("2026-01-01T10:00:00Z"))


def node(name: str, **changed: Any) -> Node:
    raw: dict[str, Any] = {
        "ID": name,
        "Spec": {"Role": "worker", "Availability": "active", "Labels": changed.pop("labels", {})},
        "Description": {
            "Hostname": name,
            "Engine": {"EngineVersion": "26.1"},
            "Platform": {"OS": "linux", "Architecture": "x86_64"},
        },
        "Status": {"State": changed.pop("state", "ready"), "Addr": "10.0.0.1"},
    }
    raw["Spec"].update(changed)
    return Node.of(raw)


def service(
    replicas: int | None = 2, update: str = "", message: str = "", at: str = "10:00:05", **spec: Any
) -> Service:
    mode: dict[str, Any] = {"Global": {}} if replicas is None else {"Replicated": {"Replicas": replicas}}
    task = {"ContainerSpec": {"Image": "i", **spec.pop("container", {})}, **spec.pop("task", {})}
    raw: dict[str, Any] = {"ID": "s", "Spec": {"Name": "web", "Mode": mode, "TaskTemplate": task, **spec}}
    if update:
        raw["UpdateStatus"] = {"State": update, "Message": message, "StartedAt": f"2026-01-01T{at}.5Z"}
    return Service.of(raw)


def task(
    number: int, state: str = "running", desired: str = "running", *, at: str = "10:00:01", **more: str
) -> Task:
    return Task.of(
        {
            "ID": f"{number}-{at}-{state}",
            "ServiceID": "s",
            "Slot": number,
            "NodeID": more.get("on", "n1"),
            "Status": {"State": state, "Err": more.get("error", ""), "Timestamp": f"2026-01-01T{at}Z"},
            "DesiredState": desired,
            "Spec": {"ContainerSpec": {"Image": "i"}},
            "CreatedAt": f"2026-01-01T{at}Z",
        }
    )


NODES = [node("n1"), node("n2")]


def judged(
    one: Service,
    current: list[Task],
    others: list[Task] | None = None,
    nodes: list[Node] = NODES,
    before: Baseline = BEFORE,
) -> Any:
    return progress(one, current, [*current, *(others or [])], nodes, before)


def test_enough_running_tasks_are_there() -> None:
    assert judged(service(), [task(1), task(2)]).verdict is Verdict.THERE


def test_a_task_on_a_node_that_is_down_does_not_count() -> None:
    nodes = [node("n1"), node("n2", state="down")]
    found = judged(service(), [task(1), task(2, on="n2")], nodes=nodes)
    assert (found.running, found.verdict) == (1, Verdict.WAITING)


def test_a_task_that_starts_is_not_there_yet() -> None:
    assert judged(service(), [task(1), task(2, "starting")]).verdict is Verdict.WAITING


def test_scaled_down_is_there_only_when_the_others_have_stopped() -> None:
    found = judged(service(1), [task(1)], [task(2, desired="shutdown")])
    assert (found.verdict, found.reason) == (Verdict.WAITING, "1 still stopping")


def test_tasks_of_the_old_spec_are_waited_for() -> None:
    assert judged(service(1), [task(1)], [task(1, at="09:00:00")]).verdict is Verdict.WAITING


def test_a_global_service_wants_one_task_on_each_node_that_may_have_one() -> None:
    nodes = [node("n1"), node("n2"), node("n3", Availability="drain"), node("n4", state="down")]
    found = judged(service(None), [task(1)], nodes=nodes)
    assert (found.running, found.desired, found.verdict) == (1, 2, Verdict.WAITING)


def test_a_slot_that_fails_again_and_again_has_failed_with_the_newest_reason() -> None:
    failed = [task(1, "failed", "shutdown", at=f"10:00:0{n}", error=f"exit {n}") for n in (1, 2, 3)]
    found = judged(service(1), [*failed, task(1, "preparing", at="10:00:09")])
    assert (found.verdict, found.reason) == (Verdict.FAILED, "exit 3")


def test_failures_of_before_do_not_count() -> None:
    failed = [task(1, "failed", "shutdown", at=f"09:00:0{n}", error="old") for n in (1, 2, 3)]
    assert judged(service(1), [*failed, task(1, "starting")]).verdict is Verdict.WAITING


def test_a_task_that_finds_no_node_says_why() -> None:
    found = judged(service(1), [task(1, "pending", error="no suitable node (1 node not available)")])
    assert (found.verdict, found.unplaced) == (Verdict.WAITING, True)
    assert str(found) == "web 0/1 (no suitable node (1 node not available))"


@pytest.mark.parametrize(
    ("state", "rolled_back"), [("paused", False), ("rollback_paused", False), ("rollback_completed", True)]
)
def test_an_update_that_the_swarm_gave_up_has_failed(state: str, rolled_back: bool) -> None:
    found = judged(service(1, state, "update paused due to failure"), [task(1)])
    assert (found.verdict, found.rolled_back) == (Verdict.FAILED, rolled_back)
    assert found.reason == "update paused due to failure"


@pytest.mark.parametrize("state", ["paused", "rollback_paused", "rollback_completed"])
def test_what_became_of_an_update_before_does_not_count(state: str) -> None:
    one = service(1, state, "old")
    before = Baseline(BEFORE.time, {"s": one.raw["UpdateStatus"]})
    assert judged(one, [task(1)], before=before).verdict is Verdict.THERE


def test_an_update_is_there_only_when_the_swarm_has_watched_it() -> None:
    assert judged(service(1, "updating"), [task(1)]).verdict is Verdict.WAITING
    assert judged(service(1, "completed"), [task(1)]).verdict is Verdict.THERE


def test_a_global_service_is_not_counted_on_a_paused_node() -> None:
    nodes = [node("n1"), node("n2", Availability="pause")]
    found = judged(service(None), [task(1), task(1, on="n2")], nodes=nodes)
    assert (found.running, found.desired, found.verdict) == (1, 1, Verdict.THERE)


def test_while_it_updates_the_swarm_itself_decides_when_failures_are_enough() -> None:
    failed = [task(1, "rejected", "shutdown", at=f"10:00:0{n}", error="No such image") for n in (1, 2, 3)]
    assert judged(service(1, "updating"), failed).verdict is Verdict.WAITING
    assert judged(service(1), failed).verdict is Verdict.FAILED


def test_a_health_check_makes_waiting_for_the_monitor_window_needless() -> None:
    assert monitor_seconds(service()) == MONITOR_SECONDS
    assert monitor_seconds(service(UpdateConfig={"Monitor": 2_000_000_000})) == 2.0
    assert monitor_seconds(service(container={"Healthcheck": {"Test": ["CMD", "true"]}})) == 0.0
    assert monitor_seconds(service(container={"Healthcheck": {"Test": ["NONE"]}})) == MONITOR_SECONDS


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        ("node.role==worker", True),
        ("node.role != worker", False),
        ("node.labels.disk==SSD", True),
        ("node.labels.disk!=hdd", True),
        ("node.labels.none==x", False),
        ("node.hostname==n1", True),
        ("node.id==other", False),
        ("node.platform.os==linux", True),
        ("node.new.thing==x", True),
    ],
)
def test_constraints_decide_where_tasks_may_run(constraint: str, expected: bool) -> None:
    assert is_placeable(node("n1", labels={"disk": "ssd"}), [constraint]) is expected
