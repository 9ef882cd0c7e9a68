"""Judging services: there, on the way, or never."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest

from swarmkit.errors import NotConverged, Problems, Unreachable
from swarmkit.remote import Engine
from swarmkit.services.converge import (
    ENDED_SECONDS,
    MONITOR_SECONDS,
    UNMATCHED_SECONDS,
    UNPLACED_SECONDS,
    Baseline,
    Board,
    Goal,
    Verdict,
    Watch,
    converge,
    monitor_seconds,
    pace_seconds,
    progress,
    read,
)
from swarmkit.swarm import SECOND, Node, Service, Task, is_placeable, moment
from swarmkit.ui import Output, Progress, Ui
from tests.unit.builders import job, node, service, task

BEFORE = Baseline(moment("2026-01-01T10:00:00Z"))


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


def test_what_is_not_heard_of_counts_neither_as_running_nor_as_gone() -> None:
    """After a change of leaders all nodes are unknown, until they have reported to the new one."""
    unknown = [node("n1", state="unknown"), node("n2", state="disconnected")]
    for one in (service(2), service(None)):
        found = judged(one, [task(1), task(2, on="n2")], nodes=unknown)
        assert (found.running, found.desired, found.verdict) == (0, 2, Verdict.WAITING)
    done = [task(None, "complete", "complete", iteration=5)]
    found = judged(job({"GlobalJob": {}}), done, nodes=unknown)
    assert (found.count, found.verdict) == ("1 of 2 tasks completed", Verdict.WAITING)
    one = service(1, task={"Placement": {"Constraints": ["node.hostname==n1"]}})
    found = judged(one, [task(1, "pending", error="no suitable node (…)")], nodes=unknown)
    assert found.patience == UNPLACED_SECONDS


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
    assert (found.verdict, found.reason) == (Verdict.FAILED, "exit 3 on n1")


def test_failures_of_before_do_not_count() -> None:
    failed = [task(1, "failed", "shutdown", at=f"09:00:0{n}", error="old") for n in (1, 2, 3)]
    assert judged(service(1), [*failed, task(1, "starting")]).verdict is Verdict.WAITING


def test_a_task_that_finds_no_node_says_why() -> None:
    found = judged(service(1), [task(1, "pending", error="no suitable node (1 node not available)")])
    assert (found.verdict, found.patience) == (Verdict.WAITING, UNPLACED_SECONDS)
    assert (found.code, found.reason) == ("no-node", "no node fits: 1 node not available")


@pytest.mark.parametrize(
    ("state", "rolled_back"), [("paused", False), ("rollback_paused", False), ("rollback_completed", True)]
)
def test_an_update_that_the_swarm_gave_up_has_failed(state: str, rolled_back: bool) -> None:
    found = judged(service(1, state, "update paused due to failure"), [task(1)])
    assert (found.verdict, found.rolled_back) == (Verdict.FAILED, rolled_back)
    assert found.reason == "update paused due to failure"


@pytest.mark.parametrize("state", ["paused", "rollback_paused"])
def test_an_update_that_stands_still_half_way_does_so_until_it_is_sent_anew(state: str) -> None:
    one = service(2, state, "update paused due to failure")
    before = Baseline(BEFORE.time, {"s": one.raw["UpdateStatus"]})
    old = task(2, at="09:00:00", on="n2")
    found = judged(one, [task(1)], [old], before=before)
    assert (found.verdict, found.code) == (Verdict.FAILED, "update-paused")


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


def test_what_another_try_cannot_help_has_failed_sooner() -> None:
    failed = [task(1, "rejected", "shutdown", at=f"10:00:0{n}", error="No such image: x") for n in (1, 2)]
    assert judged(service(1), failed).verdict is Verdict.FAILED
    failed = [task(1, "failed", "shutdown", at=f"10:00:0{n}", error="exit") for n in (1, 2)]
    assert judged(service(1), [*failed, task(1, "ready", at="10:00:05")]).verdict is Verdict.WAITING


def test_a_service_that_ends_at_once_again_and_again_has_failed() -> None:
    ended = [task(1, "complete", "shutdown", at=f"10:00:0{n}") for n in (1, 2, 3)]
    found = judged(service(1), ended)
    assert (found.verdict, found.code) == (Verdict.FAILED, "ended")


def test_a_service_that_ends_and_is_tried_no_more_has_failed_after_a_moment() -> None:
    one = service(1, task={"RestartPolicy": {"Condition": "any", "MaxAttempts": 2}})
    found = judged(one, [task(1, "complete", "shutdown", at=f"10:00:0{n}") for n in (1, 2)])
    assert (found.patience, found.code) == (ENDED_SECONDS, "ended")


def test_where_the_spec_says_how_often_to_try_the_slot_without_a_successor_is_the_end() -> None:
    one = service(1, task={"RestartPolicy": {"MaxAttempts": 5}})
    failed = [task(1, "failed", "shutdown", at=f"10:00:0{n}", error="exit") for n in (1, 2, 3, 4)]
    trying = judged(one, [*failed, task(1, "ready", at="10:00:05")])
    assert (trying.verdict, trying.stuck) == (Verdict.WAITING, "")
    assert judged(one, failed).patience == ENDED_SECONDS


def test_a_service_that_is_not_started_again_is_there_once_it_has_ended_with_success() -> None:
    one = service(1, task={"RestartPolicy": {"Condition": "on-failure"}})
    found = judged(one, [task(1, "complete", "shutdown", at="09:00:00")])
    assert (found.verdict, found.count) == (Verdict.THERE, "1 of 1 tasks completed")


def test_what_has_ended_with_success_is_done_whatever_becomes_of_its_node() -> None:
    once: dict[str, Any] = {"task": {"RestartPolicy": {"Condition": "on-failure"}}}
    nodes = [node("n1"), node("n2", state="down")]
    ended = task(1, "complete", "shutdown", on="n2")
    assert judged(service(1, **once), [ended], nodes=nodes).verdict is Verdict.THERE
    # That of a global service stands for no other node.
    assert judged(service(None, **once), [ended], nodes=nodes).verdict is Verdict.WAITING


def test_a_task_that_waits_for_those_before_it_to_stop_is_waited_for() -> None:
    pending = task(1, "pending", error="no suitable node (host-mode port already in use on 2 nodes)")
    stopping = task(1, desired="shutdown", at="09:00:00")
    assert judged(service(1), [pending], [stopping]).stuck == ""
    assert judged(service(1), [pending]).stuck == "unplaced"


def test_none_is_as_many_as_may_be_asked_for() -> None:
    assert judged(service(0), []).verdict is Verdict.THERE
    assert judged(service(0), [task(1)]).verdict is Verdict.WAITING
    assert judged(job({"ReplicatedJob": {"MaxConcurrent": 0, "TotalCompletions": 0}}), []).desired == 0


TWICE = {"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 2}}


def test_a_job_is_there_when_all_its_completions_are_reached() -> None:
    # The slots of a job count from 0, and the engine leaves a 0 out.
    first = task(None, "complete", "complete", iteration=5)
    second = task(1, "complete", "complete", iteration=5, on="n2")
    found = judged(job(TWICE), [first])
    assert (found.verdict, found.count) == (Verdict.WAITING, "1 of 2 tasks completed")
    assert judged(job(TWICE), [first, second]).verdict is Verdict.THERE


def test_a_job_of_no_tasks_is_there_at_once() -> None:
    none = {"ReplicatedJob": {"MaxConcurrent": 0, "TotalCompletions": 0}}
    assert judged(job(none), []).verdict is Verdict.THERE
    assert judged(job({"ReplicatedJob": {}}), []).verdict is Verdict.WAITING


def test_what_an_earlier_run_of_a_job_completed_does_not_count() -> None:
    old = [task(None, "complete", "complete", iteration=4), task(1, "complete", "complete", iteration=4)]
    assert judged(job(TWICE), old).running == 0
    assert judged(job(TWICE, iteration=4), old).verdict is Verdict.THERE


def test_a_job_whose_task_is_not_tried_again_has_failed_after_a_moment() -> None:
    failed = task(None, "failed", "shutdown", iteration=5, error="task: non-zero exit (4)")
    found = judged(job(TWICE, Condition="none"), [failed])
    assert (found.verdict, found.patience, found.reason) == (Verdict.WAITING, ENDED_SECONDS, "exit 4 on n1")
    # The next try of a job's slot may be on another node.
    again = task(None, "preparing", "complete", iteration=5, at="10:00:02", on="n2")
    assert judged(job(TWICE), [failed, again]).stuck == ""


def test_a_job_may_fail_often_before_it_succeeds() -> None:
    failed = [task(None, "failed", "shutdown", iteration=5, at=f"10:00:0{n}", error="exit") for n in range(5)]
    trying = judged(job(TWICE), [*failed, task(None, "running", "complete", iteration=5, at="10:00:08")])
    assert (trying.verdict, trying.stuck) == (Verdict.WAITING, "")


def test_a_global_job_ends_on_each_node_that_may_have_it() -> None:
    done = [task(None, "complete", "complete", iteration=5, on=name) for name in ("n1", "n2")]
    one = job({"GlobalJob": {}})
    assert judged(one, done[:1]).verdict is Verdict.WAITING
    assert judged(one, done).verdict is Verdict.THERE
    drained = [node("n1"), node("n2", Availability="drain")]
    assert judged(one, done, nodes=drained).count == "2 of 2 tasks completed"


def test_a_task_that_no_constraint_lets_run_is_given_up_sooner_than_one_without_room() -> None:
    one = service(1, task={"Placement": {"Constraints": ["node.labels.gpu==yes"]}})
    found = judged(one, [task(1, "pending", error="no suitable node (…)")])
    assert found.patience == UNMATCHED_SECONDS
    assert (
        found.reason == "no node fits: 2 of 2 nodes lack the label gpu=yes (constraint node.labels.gpu==yes)"
    )


def test_the_reason_of_a_rollback_is_the_failure_that_led_to_it() -> None:
    failed = task(1, "rejected", "shutdown", error="No such image: x:2", image="x:2")
    before = task(1, "failed", "shutdown", at="09:00:00", error="of last week")
    found = judged(service(1, "rollback_completed", "rolled"), [task(1)], [failed, before])
    assert (found.rolled_back, found.reason) == (True, "the image cannot be had on n1: x:2")


# ---------------------------------------------------------------- over time


class Swarm:
    """An engine whose services and tasks are what the test says at each second."""

    def __init__(self, services: list[Service], tasks: Callable[[float], list[Task]]) -> None:
        self.services, self.tasks, self.now, self.reads = services, tasks, 0.0, 0
        self.silent_after: int | None = None

    def get(self, path: str, _params: Mapping[str, Any] | None = None, **_: object) -> Any:
        self.reads += 1
        if self.silent_after is not None and self.reads > self.silent_after:
            raise Unreachable("the engine does not answer")
        match path:
            case "/nodes":
                return [one.raw for one in NODES]
            case "/services":
                return [one.raw for one in self.services]
            case "/tasks":
                return [one.raw for one in self.tasks(self.now)]
        # The registry, asked for an image.
        return {}

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def converge(self, timeout: float = 100, **options: Any) -> float:
        """Wait for all the services; the seconds that it took. The engine's clock began at 10:00."""
        before = Baseline(BEFORE.time, taken=0.0)
        ids = [one.id for one in self.services]
        ui = Ui(Output.TEXT, stderr=io.StringIO())
        engine = cast("Engine", self)
        converge(
            engine,
            ids,
            ui,
            timeout=timeout,
            before=before,
            clock=lambda: self.now,
            sleep=self.sleep,
            **options,
        )
        return self.now


def test_the_monitor_window_counts_from_each_task_s_own_start() -> None:
    # It ran one second before the first reading.
    swarm = Swarm([service(1)], lambda _: [task(1, at="10:00:01")])
    swarm.now = 2.0
    assert swarm.converge() == pytest.approx(6.0)


def test_a_task_that_starts_anew_is_watched_anew() -> None:
    def tasks(now: float) -> list[Task]:
        if now < 3:
            return [task(1, at="10:00:00")]
        return [task(1, "failed", "shutdown", at="10:00:00", error="e"), task(1, at="10:00:03")]

    assert Swarm([service(1)], tasks).converge() == pytest.approx(8.0)


def test_tasks_that_have_long_run_are_not_watched_again() -> None:
    assert Swarm([service(1)], lambda _: [task(1, at="09:00:00")]).converge() == 0.0


def test_cli_373_services_are_waited_for_together() -> None:
    many = [service(1), *(service(1, name=name) for name in "bcdefgh")]
    swarm = Swarm(many, lambda _: [task(1, of=one.id, at="10:00:00") for one in many])
    assert swarm.converge() == pytest.approx(5.0)
    # A reading costs the same however many there are.
    assert swarm.reads == 4 * 21


def test_cli_373_one_timeout_holds_for_all_services() -> None:
    many = [service(1), service(1, name="b")]
    swarm = Swarm(many, lambda _: [task(1, "starting", of=one.id) for one in many])
    with pytest.raises(Problems, match=r"web: after 3 s 0 of 1 tasks run") as error:
        swarm.converge(timeout=3)
    assert [each.where for each in error.value.errors] == ["web", "b"]
    assert swarm.now < 4


def test_an_update_that_is_slow_by_its_own_spec_has_the_time_that_this_takes() -> None:
    config = {"Parallelism": 1, "Delay": 60 * SECOND, "Monitor": 10 * SECOND}
    updating = service(3, "updating", UpdateConfig=config)
    done = service(3, "completed", UpdateConfig=config)

    def swarm() -> Swarm:
        def tasks(now: float) -> list[Task]:
            made.services[:] = [done if now >= 190 else updating]
            return [task(number, at="10:00:00") for number in (1, 2, 3)]

        made = Swarm([updating], tasks)
        return made

    with pytest.raises(NotConverged, match="after 20 s"):
        swarm().converge(timeout=20)
    assert swarm().converge(timeout=20, is_paced=True) >= 190


def test_an_update_that_does_not_end_has_no_more_time_than_its_spec_asks_for() -> None:
    config = {"Parallelism": 2, "Delay": 60 * SECOND}
    slow = Swarm([service(3, "updating", UpdateConfig=config)], lambda _: [task(1)])
    with pytest.raises(NotConverged, match="after 140 s"):
        slow.converge(timeout=20, is_paced=True)
    # What has not begun since takes no time of its own.
    idle = Swarm([service(3, UpdateConfig=config)], lambda _: [task(1)])
    with pytest.raises(NotConverged, match="after 20 s"):
        idle.converge(timeout=20, is_paced=True)


@pytest.mark.parametrize(
    ("count", "at_once", "state", "seconds"),
    [
        (10, 1, "updating", 610),
        (10, 3, "updating", 250),
        (10, 0, "updating", 70),
        (0, 0, "updating", 10),
        (10, 1, "rollback_started", 630),
    ],
)
def test_an_update_takes_a_delay_a_batch_and_the_monitor_window(
    count: int, at_once: int, state: str, seconds: float
) -> None:
    config = {"Parallelism": at_once, "Delay": 60 * SECOND, "Monitor": 10 * SECOND}
    back = {"Parallelism": 5, "Delay": 10 * SECOND}
    assert pace_seconds(service(count, state, UpdateConfig=config, RollbackConfig=back), count) == seconds


def test_with_one_that_has_failed_all_that_are_in_trouble_are_told() -> None:
    many = [service(1), service(1, name="b"), service(1, name="c")]

    def tasks(_now: float) -> list[Task]:
        gone = [task(1, "rejected", at=f"10:00:0{n}", error="No such image: i") for n in (1, 2)]
        return [*gone, task(1, "failed", of="b", error="crash"), task(1, "starting", of="c")]

    swarm = Swarm(many, tasks)
    with pytest.raises(Problems) as error:
        swarm.converge()
    assert [each.where for each in error.value.errors] == ["web", "b"]
    assert swarm.now == 0.0


def test_running_is_enough_where_that_is_asked_for_and_completed_is_more() -> None:
    once = service(1, task={"RestartPolicy": {"Condition": "none"}})

    def tasks(now: float) -> list[Task]:
        return [task(1, "running" if now < 8 else "complete", at="10:00:00")]

    assert Swarm([once], tasks).converge(goals={"s": Goal.RUNNING}) == 0.0
    assert Swarm([once], tasks).converge() == pytest.approx(5.0)
    assert Swarm([once], tasks).converge(goals={"s": Goal.COMPLETED}) == pytest.approx(8.0)


def test_a_slot_without_a_successor_is_given_a_moment() -> None:
    def tasks(now: float) -> list[Task]:
        failed = task(1, "failed", "shutdown", at="10:00:01", error="task: non-zero exit (2)")
        return [failed] if now < 0.6 else [failed, task(1, at="10:00:02")]

    assert Swarm([service(1)], tasks).converge() > 5
    with pytest.raises(NotConverged, match="exit 2 on n1") as error:
        Swarm([service(1)], lambda _: tasks(0)).converge()
    assert "service logs web" in error.value.hint


def test_an_update_that_stands_still_is_told_with_what_has_stopped_it() -> None:
    failed = task(2, "failed", "shutdown", error="task: non-zero exit (2)")
    swarm = Swarm([service(2, "paused", "update paused")], lambda _: [task(1), failed])
    with pytest.raises(NotConverged, match=r"1 of 2 tasks run: exit 2 on n1; its update stands still$"):
        swarm.converge()
    # Where all runs after all, what the swarm says of it is all there is.
    swarm = Swarm([service(1, "paused", "update paused due to failure")], lambda _: [task(1)])
    with pytest.raises(NotConverged, match=r"1 of 1 tasks run: update paused due to failure$") as error:
        swarm.converge()
    assert "docker service rollback web" in error.value.hint


def test_each_thing_that_keeps_a_service_waiting_has_its_own_patience() -> None:
    def tasks(now: float) -> list[Task]:
        if now < 5:
            return [task(1, "pending", error="no suitable node (insufficient resources on 2 nodes)")]
        # Each try fails, and is followed by the next a moment later: none of them is the last.
        if now < 8:
            return [task(1, "failed", at=f"10:00:0{int(now * 2) % 10}", error=f"e{now}")]
        return [task(1, at="10:00:08")]

    patient = service(1, task={"RestartPolicy": {"MaxAttempts": 50}})
    assert Swarm([patient], tasks).converge() == pytest.approx(13.0)


def test_the_time_in_which_the_managers_had_no_leader_counts_for_nothing() -> None:
    gone = task(1, "failed", "shutdown", at="10:00:01", error="task: non-zero exit (2)")
    one, watch = service(1), Watch(Baseline(BEFORE.time, taken=0.0))
    stuck = judged(one, [gone])
    assert watch.judge(one, stuck, 1.0) is Verdict.WAITING
    # No reading came of it for a while, and then one by a leader that has only begun.
    assert watch.judge(one, stuck, 21.0) is Verdict.WAITING
    begun = judged(one, [gone], nodes=[node("n1", state="unknown"), node("n2")])
    assert watch.judge(one, begun, 22.5) is Verdict.WAITING
    assert [watch.judge(one, stuck, now) for now in (23.0, 24.5)] == [Verdict.WAITING, Verdict.FAILED]


def test_who_reads_for_himself_is_told_what_a_state_becomes_when_it_lasts() -> None:
    swarm = Swarm([service(1)], lambda _: [task(1, "failed", error="task: non-zero exit (2)")])
    watch = Watch(Baseline(BEFORE.time, taken=0.0))
    [(one, state)] = read(cast("Engine", swarm), ["s", "gone"], watch.before)
    assert (state.verdict, state.reason) == (Verdict.WAITING, "exit 2 on n1")
    assert [watch.judge(one, state, now) for now in (0.0, 1.0, 1.5)] == [
        Verdict.WAITING,
        Verdict.WAITING,
        Verdict.FAILED,
    ]


def test_a_failure_is_told_also_when_no_more_can_be_looked_up() -> None:
    swarm = Swarm([service(1)], lambda _: [task(1, "failed", error="task: non-zero exit (2)")])
    swarm.silent_after = 4 * 6
    with pytest.raises(NotConverged, match="0 of 1 tasks run: exit 2 on n1"):
        swarm.converge()


def test_a_service_that_is_removed_meanwhile_is_an_error_unless_it_may_go() -> None:
    swarm = Swarm([], lambda _: [])
    engine, ui = cast("Engine", swarm), Ui(Output.TEXT, stderr=io.StringIO())
    converge(engine, ["gone"], ui, timeout=1, before=BEFORE, may_go=True)
    with pytest.raises(NotConverged, match="removed while it was waited for"):
        converge(engine, ["gone"], ui, timeout=1, before=BEFORE)


def test_without_a_terminal_a_state_is_said_once() -> None:
    shown: list[str] = []
    board = Board(Progress(shown.append, shown.append))
    failed = [task(1, "failed", "shutdown", at=f"10:00:0{n}", on=f"n{n}", error="e") for n in (1, 2)]
    for known in (failed[:1], failed, [task(1)]):
        state = judged(service(1), known)
        board.show([(state, state.verdict)])
    assert shown == ["  web: 0 of 1 tasks run: e on n1", "  web: 1 of 1 tasks run"]


def test_on_a_terminal_each_service_has_a_line_and_no_more_than_fit() -> None:
    shown: list[str] = []
    rows = 24
    board = Board(Progress(shown.append, shown.append, rows=lambda: rows))
    states = [judged(service(2, name=f"s{n}"), [task(1), task(2, "preparing", on="n2")]) for n in range(20)]
    board.show([(state, state.verdict) for state in states])
    lines = shown[0].splitlines()
    assert lines[0] == "  s0   1/2  preparing on n2"
    assert (lines[-1], len(lines)) == ("  … and 5 more", 16)
    # A terminal's size may change.
    rows = 10
    board.show([(state, state.verdict) for state in states])
    assert (shown[1].splitlines()[-1], len(shown[1].splitlines())) == ("  … and 12 more", 9)


def test_on_a_terminal_what_is_wrong_stands_first_and_what_is_there_last() -> None:
    shown: list[str] = []
    states = [
        judged(service(1, name="a"), [task(1)]),
        judged(service(1, name="b"), [task(1, "starting")]),
        judged(service(1, name="c"), [task(1, "failed", "shutdown", error="task: non-zero exit (2)")]),
        judged(job(TWICE), [task(None, "complete", "complete", iteration=5)]),
    ]
    board = Board(Progress(shown.append, shown.append, rows=lambda: 24))
    board.show([(state, state.verdict) for state in states])
    assert shown[0].splitlines() == [
        "  c    0/1  exit 2 on n1",
        "  b    0/1  starting on n1",
        "  web  1/2",
        "  a    1/1  there",
    ]


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
