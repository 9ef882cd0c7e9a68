"""An operation that goes on when the manager is lost through which it began."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from swarmkit.cluster.lasting import PATIENCE_SECONDS, LastingEngine
from swarmkit.errors import Unreachable
from swarmkit.remote import Engine, EngineError

LEADERLESS = (503, {"message": "rpc error: code = Unknown desc = The swarm does not have a leader."})
Answer = tuple[int, Any]


class Manager:
    """A manager as the Docker SDK's transport: it answers what `answer` gives, or is lost."""

    base_url, api_version = "http://engine", "1.45"

    def __init__(self, answer: Callable[[str, str], Answer | None]) -> None:
        self.answer = answer
        self.asked: list[str] = []

    def request(self, method: str, url: str, params: Mapping[str, Any] | None = None, **_: Any) -> Any:
        path = url.partition("/v1.45")[2] + (
            f"?{params['version']}" if params and "version" in params else ""
        )
        self.asked.append(f"{method} {path}")
        answer = self.answer(method, path)
        if answer is None:
            raise ConnectionResetError("reset by peer")
        status, body = answer
        text = json.dumps(body)
        return SimpleNamespace(status_code=status, text=text, content=text.encode(), json=lambda: body)

    def engine(self, name: str) -> Engine:
        return Engine(cast("Any", self), name)


class Operation:
    """Requests through managers m1, and m2 once m1 is lost; `now` are the seconds slept."""

    def __init__(self, *managers: Manager) -> None:
        self.now = 0.0
        self.warnings: list[str] = []
        self._engines = [manager.engine(f"m{number}") for number, manager in enumerate(managers, start=1)]
        self.engine = LastingEngine(
            self._engines[0], self._another, self.warnings.append, clock=lambda: self.now, sleep=self._sleep
        )

    def _another(self) -> Engine:
        for engine in self._engines:
            try:
                engine.get("/info")
            except Unreachable:
                continue
            return engine
        raise Unreachable("no manager answers")

    def _sleep(self, seconds: float) -> None:
        self.now += seconds


LOST = Manager(lambda _method, _path: None)


def test_a_request_goes_on_through_another_manager_which_is_said_once() -> None:
    other = Manager(lambda _method, path: (200, [path]))
    operation = Operation(LOST, other)
    assert operation.engine.get("/services") == ["/services"]
    assert operation.engine.get("/nodes") == ["/nodes"]
    assert operation.warnings == ["m1 is lost; going on through m2"]
    assert operation.engine.name == "m2"


def test_a_new_leader_is_waited_for_but_not_for_ever() -> None:
    elected = 20.0
    operation = Operation(
        Manager(lambda _method, _path: (200, []) if operation.now >= elected else LEADERLESS)
    )
    assert operation.engine.get("/services") == []
    assert operation.now == elected
    elected = 1000.0
    with pytest.raises(EngineError, match="does not have a leader"):
        operation.engine.get("/services")
    assert operation.now == pytest.approx(20 + PATIENCE_SECONDS, abs=1)
    # What is to be tidied up then does not take as long again.
    ended = operation.now
    with pytest.raises(EngineError):
        operation.engine.delete("/configs/lock")
    assert operation.now == ended
    assert operation.warnings == []


def test_where_no_manager_answers_any_more_that_is_the_error() -> None:
    operation = Operation(LOST, LOST)
    with pytest.raises(Unreachable, match="m1: the Docker Engine does not answer: reset by peer"):
        operation.engine.post("/services/create", {"Name": "web"})
    assert operation.now == pytest.approx(PATIENCE_SECONDS, abs=1)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (409, "rpc error: code = AlreadyExists desc = name conflicts with an existing object"),
        (500, "rpc error: code = Unknown desc = update out of sequence"),
        (500, 'Get "https://registry.example/v2/": context deadline exceeded'),
        (404, "service web not found"),
        (
            503,
            "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state.",
        ),
    ],
)
def test_what_a_manager_refuses_is_not_tried_again(status: int, message: str) -> None:
    manager = Manager(lambda _method, _path: (status, {"message": message}))
    with pytest.raises(EngineError):
        Operation(manager).engine.post("/services/create", {"Name": "web"})
    assert manager.asked == ["POST /services/create"]


def created(labels: Mapping[str, str]) -> Manager:
    """A manager that has a service `web` with these labels."""

    def answer(method: str, path: str) -> Answer:
        if (method, path) == ("POST", "/services/create"):
            return 409, {"message": "name conflicts with an existing object"}
        return 200, [{"ID": "s", "Spec": {"Name": "web", "Labels": labels}}]

    return Manager(answer)


def test_what_was_created_before_the_manager_was_lost_is_found() -> None:
    body = {"Name": "web", "Labels": {"swarmkit.spec": "new"}}
    assert (
        Operation(LOST, created({"swarmkit.spec": "new"})).engine.post("/services/create", body)["ID"] == "s"
    )
    with pytest.raises(EngineError, match="name conflicts"):
        Operation(LOST, created({"swarmkit.spec": "somebody else's"})).engine.post("/services/create", body)


def test_what_was_updated_before_the_manager_was_lost_is_stale() -> None:
    """Whoever reads, changes and writes does so again."""
    stale = {"message": "rpc error: code = Unknown desc = update out of sequence"}
    other = Manager(lambda method, _path: (500, stale) if method == "POST" else (200, {}))
    with pytest.raises(EngineError) as error:
        Operation(LOST, other).engine.post("/services/s/update", {}, {"version": 7})
    assert error.value.is_stale
    assert other.asked == ["GET /info", "POST /services/s/update?7"]
