"""Which tasks are listed: those that live, and of a slot that has none its newest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from swarmkit.report import task_rows
from swarmkit.swarm import Service, Task
from tests.unit.builders import job, node, service, task


def rows(one: Service, some: Sequence[Task], **options: Any) -> list[tuple[Any, str, str]]:
    found = task_rows([one], some, [node("n1"), node("n2")], **options)
    return [(row["slot"], row["node"], row["state"]) for row in found]


def test_a_slot_without_a_live_task_shows_its_newest() -> None:
    some = [
        task(1),
        task(1, "failed", "shutdown", at="10:00:00"),
        task(2, "failed", "shutdown", at="10:00:00"),
        task(2, "rejected", "shutdown", at="10:00:02"),
        # Scaled down since.
        task(3, "shutdown", "shutdown"),
    ]
    assert rows(service(2), some) == [(1, "n1", "running"), (2, "n1", "rejected")]
    assert len(rows(service(2), some, everything=True)) == 5


def test_a_global_service_shows_a_task_on_each_node() -> None:
    some = [task(None), task(None, "failed", "shutdown", on="n2")]
    assert rows(service(None), some) == [(None, "n1", "running"), (None, "n2", "failed")]


def test_all_slots_of_a_jobs_present_run_are_shown() -> None:
    some = [
        # The engine leaves out the number of slot 0.
        task(None, "complete", "complete", iteration=5),
        task(1, "failed", "shutdown", at="10:00:00", iteration=5),
        task(1, "running", "complete", iteration=5, on="n2"),
        task(2, "complete", "complete", iteration=5),
        task(3, "complete", "complete", iteration=4),
    ]
    one = job({"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 3}})
    assert rows(one, some) == [(None, "n1", "complete"), (1, "n2", "running"), (2, "n1", "complete")]
