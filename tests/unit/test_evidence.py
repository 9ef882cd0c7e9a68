"""Looking up why tasks do not run: what is asked of whom, and that nobody is waited for."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from swarmkit.errors import UsageError
from swarmkit.images.credentials import Credentials
from swarmkit.remote import Engine, EngineError
from swarmkit.services import evidence
from swarmkit.services.evidence import Examiner, explain_service
from swarmkit.services.explain import View
from swarmkit.swarm import Service, Task
from tests.unit.builders import node, service, task


class Manager:
    """The managers' engine: it is the node n1, and answers what the test gives it."""

    def __init__(self, answers: Mapping[str, Any], log: bytes = b"") -> None:
        self.answers = {
            "/info": {"Swarm": {"NodeID": "n1"}},
            "/nodes": [node("n1").raw, node("n2").raw],
            **answers,
        }
        self.log = log
        self.asked: list[str] = []

    def get(
        self, path: str, _params: Mapping[str, Any] | None = None, *, headers: Mapping[str, str] | None = None
    ) -> Any:
        self.asked.append(path)
        self.headers = headers
        answer = self.answers[path]
        if isinstance(answer, threading.Event):
            answer.wait()
            return {"State": {}}
        if isinstance(answer, Exception):
            raise answer
        return answer

    def frames(self, path: str, _params: Mapping[str, Any] | None = None) -> Iterator[tuple[int, bytes]]:
        self.asked.append(path)
        yield 1, self.log


VIEW = View([node("n1"), node("n2")])


def explained(manager: Manager, *tasks: Task, one: Service | None = None) -> Any:
    return Examiner(cast("Engine", manager)).explain(one or service(1), tasks, VIEW)


def test_the_container_s_state_and_log_are_looked_up() -> None:
    failed = task(1, "failed", error="task: non-zero exit (137)", container="c")
    manager = Manager({"/containers/c/json": {"State": {"OOMKilled": True}}}, b"one\ntwo\n\n")
    [found] = explained(manager, failed)
    assert found.reason == "exit 137: out of memory on n1"
    assert found.details == ("last lines of its log:", "  one", "  two")


def test_a_node_that_cannot_be_reached_from_here_is_named() -> None:
    failed = task(1, "failed", error="task: non-zero exit (1)", container="c", on="n2")
    [found] = explained(Manager({}), failed)
    assert found.details == (
        "the container's own state was not read: n2 cannot be reached from here (an inventory names the way)",
    )


def test_a_container_that_is_gone_is_said_to_be_so() -> None:
    failed = task(1, "failed", error="task: non-zero exit (1)", container="c")
    manager = Manager({"/containers/c/json": EngineError("No such container: c", 404)})
    [found] = explained(manager, failed)
    assert found.details == ("the container's own state was not read: its container is gone",)


def test_the_registry_is_asked_only_for_an_image_that_is_missing() -> None:
    denied = EngineError("unauthorized: authentication required", 401)
    manager = Manager({"/distribution/x:1/json": denied})
    [found] = explained(manager, task(1, "rejected", error="No such image: x:1", image="x:1"))
    assert found.code == "image-denied"
    assert manager.asked == ["/distribution/x:1/json"]
    manager = Manager({})
    explained(manager, task(1, "rejected", error="bind source path does not exist: /x"))
    assert manager.asked == []


def test_the_registry_is_asked_with_the_credentials_that_a_deployment_would_send(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"auths": {"registry.example": {"username": "me", "password": "a secret"}}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    image = "registry.example/x:1"
    missing = task(1, "rejected", error=f"No such image: {image}", image=image)
    manager = Manager({f"/distribution/{image}/json": {}})
    [found] = explained(manager, missing)
    assert found.details == ("the registry gives it to a manager that asks with your login",)
    assert manager.headers == Credentials.read(os.environ).headers(image) != {}
    assert "a secret" not in str(found)
    # A registry that they are not for gets none of them.
    manager = Manager({"/distribution/x:1/json": {}})
    explained(manager, task(1, "rejected", error="No such image: x:1", image="x:1"))
    assert manager.headers == {}


def test_a_log_without_frames_is_left_alone() -> None:
    failed = task(1, "failed", error="task: non-zero exit (1)", container="c")
    manager = Manager({"/containers/c/json": {"State": {}}})
    [found] = explained(manager, failed, one=service(1, container={"TTY": True}))
    assert found.details == ()
    assert not any("logs" in path for path in manager.asked)


def test_what_does_not_answer_in_time_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "PATIENCE_SECONDS", 0.05)
    never = threading.Event()
    failed = task(1, "failed", error="task: non-zero exit (1)", container="c")
    [found] = explained(Manager({"/containers/c/json": never}, b"bye\n"), failed)
    never.set()
    assert "the container's own state was not read: its node did not answer in time" in found.details
    assert found.reason == "exit 1 on n1"


def test_each_reason_is_told_once_the_newest_first() -> None:
    tasks = [
        task(1, "rejected", at="10:00:01", error="No such image: i"),
        task(2, "rejected", at="10:00:02", error="bind source path does not exist: /x"),
        task(3, "rejected", at="10:00:03", error="bind source path does not exist: /x"),
    ]
    manager = Manager({"/distribution/i/json": {}})
    assert [one.code for one in explained(manager, *tasks)] == ["no-bind-source", "no-image"]


def standing(name: str, tasks: list[Task], one: Service | None = None) -> Any:
    raw = (one or service(2)).raw
    counted = {**raw, "ServiceStatus": {"RunningTasks": 2, "DesiredTasks": 2}}
    manager = Manager({"/services": [counted], "/tasks": [each.raw for each in tasks]})
    return explain_service(cast("Engine", manager), None, name).json()


def test_a_service_that_runs_has_nothing_wrong() -> None:
    found = standing("web", [task(1), task(2)])
    assert found == {"service": "web", "running": 2, "completed": 0, "desired": 2, "problems": []}


def test_one_task_of_a_service_can_be_asked_about() -> None:
    failed = task(2, "failed", error="quite new")
    assert standing("web.1", [task(1), failed])["problems"] == []
    found = standing("web.2", [task(1), failed])
    assert (found["service"], found["running"], found["desired"]) == ("web.2", 0, 1)
    assert found["problems"] == [
        {
            "code": "failed",
            "reason": "quite new on n1",
            "details": (),
            "hint": "",
            "task": "web.2",
            "node": "n1",
        }
    ]
    assert standing("web", [task(1), task(2)], service(2, "paused"))["problems"] == []
    found = standing("web", [task(1)], service(2, "paused", "update paused"))
    assert [one["code"] for one in found["problems"]] == ["update-paused"]
    with pytest.raises(UsageError, match='no service is called "db"'):
        standing("db.1", [])
