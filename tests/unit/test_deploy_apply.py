"""Carrying out plans, on an engine in memory: the order, the way back, and who is at work."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest

from swarmkit.cluster.lock import locked
from swarmkit.compose.convert import DesiredStack
from swarmkit.deploy.apply import Options, Prepared, carry_out, down, is_met, observe, prepare_return
from swarmkit.deploy.plan import LiveStack, Plan, contents, plan_stack
from swarmkit.errors import NotConverged, OperationFailed, SwarmkitError, Unreachable
from swarmkit.names import SECRET_LABEL
from swarmkit.remote import EngineError
from swarmkit.services.converge import ServiceProgress, Verdict
from swarmkit.swarm import Service
from swarmkit.ui import Ui
from tests.unit.memoryengine import MemoryEngine
from tests.unit.stackswarm import stack

HEALTH = "healthcheck: {test: a}"
THREE = (
    f"services: {{web: {{image: x, {HEALTH}}}, db: {{image: x, {HEALTH}}}, cache: {{image: x, {HEALTH}}}}}"
)
OPTIONS = Options(timeout=20, doing="stack up st")


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow hashes are slow."""
    monkeypatch.setattr(contents, "_COST", 16)


def ui() -> Ui:
    return Ui(stdout=io.StringIO(), stderr=io.StringIO())


def prepared(engine: MemoryEngine, desired: DesiredStack, **options: Any) -> Prepared:
    def planner(live: LiveStack) -> Plan:
        return plan_stack(desired, live, **options)

    live = observe(engine, "st")
    return Prepared(desired, planner, live, planner(live))


def up(engine: MemoryEngine, desired: DesiredStack, options: Options = OPTIONS, **planning: Any) -> Plan:
    engine.writes.clear()
    return carry_out(engine, ui(), prepared(engine, desired, **planning), options)


def waiting(desired: DesiredStack, **wanted: dict[str, str]) -> DesiredStack:
    services = tuple(replace(one, depends_on=wanted.get(one.short_name, {})) for one in desired.services)
    return replace(desired, services=services)


def specs(engine: MemoryEngine) -> dict[str, Any]:
    """All that the stack has, but for its revisions."""
    live = observe(engine, "st")
    things = [*live.services, *live.configs, *live.secrets]
    return {one["Spec"]["Name"]: one["Spec"] for one in things} | {
        one["Name"]: {**one, "Id": None} for one in live.networks
    }


def image(engine: MemoryEngine, name: str) -> str:
    return str(engine.held["services"][name]["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"])


def test_services_are_sent_once_what_they_depend_on_is_there() -> None:
    engine = MemoryEngine()
    looked = 0
    sent: dict[str, int] = {}

    def state(spec: dict[str, Any]) -> str:
        nonlocal looked
        looked += spec["Name"] == "st_db"
        return "starting" if spec["Name"] == "st_db" and looked <= 6 else "running"

    engine.state = state
    engine.on_write = lambda what: sent.update({what: looked})
    desired = waiting(stack(THREE), web={"db": "service_healthy"}, db={"cache": "service_started"})
    up(engine, desired)
    assert [one.split()[-1] for one in sent if "services" in one] == ["st_cache", "st_db", "st_web"]
    assert sent["create services st_db"] == 0
    assert sent["create services st_web"] > 6


def test_what_never_becomes_healthy_holds_back_what_waits_for_it_and_fails() -> None:
    engine = MemoryEngine(lambda spec: "starting" if spec["Name"] == "st_db" else "running")
    desired = waiting(stack(THREE), web={"db": "service_healthy"})
    with pytest.raises(NotConverged) as caught:
        up(engine, desired, replace(OPTIONS, timeout=0.5, rollback=False))
    assert caught.value.where == "st_db"
    assert "create services st_web" not in engine.writes


@pytest.mark.parametrize(
    ("condition", "mode", "verdict", "running", "met"),
    [
        ("service_started", "Replicated", Verdict.WAITING, 0, False),
        ("service_started", "Replicated", Verdict.WAITING, 1, True),
        ("service_started", "Replicated", Verdict.THERE, 0, True),
        ("service_healthy", "Replicated", Verdict.WAITING, 1, False),
        ("service_healthy", "Replicated", Verdict.THERE, 2, True),
        ("service_completed_successfully", "Replicated", Verdict.THERE, 1, False),
        ("service_completed_successfully", "Replicated", Verdict.THERE, 0, True),
        ("service_completed_successfully", "ReplicatedJob", Verdict.THERE, 1, True),
        ("service_completed_successfully", "ReplicatedJob", Verdict.WAITING, 0, False),
    ],
)
def test_a_condition_is_met_by_what_it_says(
    condition: str, mode: str, verdict: Verdict, running: int, met: bool
) -> None:
    service = Service.of({"ID": "1", "Spec": {"Name": "st_db", "Mode": {mode: {}}}})
    assert is_met(condition, service, ServiceProgress("st_db", running, 2, verdict)) is met


def test_nothing_to_do_is_no_write_and_takes_no_lock() -> None:
    engine = MemoryEngine()
    desired = stack(THREE, [("key", b"x")])
    up(engine, desired)
    with locked(engine, ui(), "something else", name="swarmkit-lock-st"):
        index = engine.index
        assert not up(engine, desired).changes
        assert engine.index == index


def test_a_stack_that_fails_returns_to_exactly_what_it_was() -> None:
    engine = MemoryEngine(
        lambda spec: "failed" if spec["TaskTemplate"]["ContainerSpec"]["Image"] == "bad:1" else "running"
    )
    up(engine, stack(THREE, [("key", b"one")]))
    before = specs(engine)
    worse = stack(
        THREE.replace("web: {image: x", "web: {image: 'bad:1'") + "\nnetworks: {n: }", [("key", b"two")]
    )
    with pytest.raises(NotConverged) as caught:
        up(engine, worse)
    assert caught.value.rolled_back
    assert caught.value.where == "st_web"
    assert specs(engine) == before
    assert [one.is_open for one in observe(engine, "st").revisions] == [False]
    # And told not to, it stays.
    with pytest.raises(NotConverged) as caught:
        up(engine, worse, replace(OPTIONS, rollback=False))
    assert not caught.value.rolled_back
    assert image(engine, "st_web") == "bad:1"


def test_a_step_that_the_swarm_refuses_is_a_failure_of_the_whole() -> None:
    engine = MemoryEngine()
    up(engine, stack(THREE))
    before = specs(engine)

    def refuse(what: str) -> None:
        if what == "update services st_db":
            engine.on_write = lambda _: None
            raise OperationFailed("the engine does not want it")

    engine.on_write = refuse
    with pytest.raises(NotConverged, match="does not want it") as caught:
        up(engine, stack(THREE.replace("image: x", "image: y")))
    assert caught.value.rolled_back
    assert specs(engine) == before


def test_a_new_stack_that_fails_is_gone() -> None:
    engine = MemoryEngine(lambda _: "failed")
    with pytest.raises(SwarmkitError):
        up(engine, stack(THREE, [("key", b"one")]))
    assert specs(engine) == {}
    assert not engine.held["configs"]


class Killed(BaseException):
    """The process ends, whatever is written to catch errors."""


@pytest.mark.parametrize("at", range(4))
def test_what_was_killed_at_any_step_is_completed_or_taken_back_by_the_next(at: int) -> None:
    for way in ("complete", "back"):
        engine = MemoryEngine()
        up(engine, stack(THREE, [("key", b"one")]))
        before = specs(engine)
        new = stack(THREE.replace("image: x", "image: y"), [("key", b"two")])
        left = at

        def kill(what: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed

        engine.on_write = kill
        with pytest.raises(Killed):
            up(engine, new)
        assert observe(engine, "st").unfinished()
        engine.on_write = lambda _: None
        if way == "back":
            carry_out(engine, ui(), prepare_return(engine, "st", None), OPTIONS)
            assert specs(engine) == before
        else:
            up(engine, new)
            assert {image(engine, name) for name in engine.held["services"]} == {"y:latest"}
            assert not up(engine, new).changes
        assert not observe(engine, "st").unfinished()


def test_a_second_deployment_of_the_stack_at_the_same_time_is_refused() -> None:
    engine = MemoryEngine()
    with (
        locked(engine, ui(), "stack up st", name="swarmkit-lock-st"),
        pytest.raises(OperationFailed, match=r"the stack st is locked: .* \(swarmkit stack up st\)"),
    ):
        up(engine, stack(THREE))
    assert engine.writes == []


def test_what_is_pruned_goes_once_the_rest_runs() -> None:
    engine = MemoryEngine()
    up(engine, stack(THREE))
    up(engine, stack(f"services: {{web: {{image: y, {HEALTH}}}}}"), prune=True)
    assert engine.writes == ["update services st_web", "remove services st_cache", "remove services st_db"]


def test_a_service_that_the_swarm_itself_has_touched_is_updated_all_the_same() -> None:
    engine = MemoryEngine()
    up(engine, stack(THREE))
    made = prepared(engine, stack(THREE.replace("web: {image: x", "web: {image: y")))
    now = observe(engine, "st")
    engine.held["services"]["st_web"]["Version"] = {"Index": 99}
    # Seen under the lock before the swarm's own write.
    carry_out(engine, ui(), replace(made, planner=lambda _: made.plan, live=now), OPTIONS)
    assert image(engine, "st_web") == "y:latest"


class Twice(MemoryEngine):
    """Does each first update, and is asked for it again because the answer was lost with a manager."""

    def __init__(self) -> None:
        super().__init__()
        self.updated: set[str] = set()

    def post(self, path: str, body: Any = None, params: Any = None, *, headers: Any = None) -> Any:
        answer = super().post(path, body, params, headers=headers)
        if not path.endswith("/update") or path in self.updated:
            return answer
        self.updated.add(path)
        return super().post(path, body, params, headers=headers)


def test_what_was_done_before_its_answer_was_lost_is_recognised() -> None:
    engine = Twice()
    up(engine, stack(THREE))
    up(engine, stack(THREE.replace("image: x", "image: y")))
    assert {image(engine, name) for name in engine.held["services"]} == {"y:latest"}
    assert [one.is_open for one in observe(engine, "st").revisions] == [False, False]


@pytest.mark.parametrize(
    "lost", [Unreachable("nobody answers"), EngineError("The swarm does not have a leader.", 503)]
)
def test_without_managers_a_stack_is_left_as_it_is_which_is_said(lost: SwarmkitError) -> None:
    engine = MemoryEngine()
    up(engine, stack(THREE))
    new = stack(THREE.replace("image: x", "image: y"))

    def lose(what: str) -> None:
        if what == "update services st_db":
            raise lost

    engine.on_write = lose
    said = io.StringIO()
    with pytest.raises(type(lost)):
        carry_out(engine, Ui(stderr=said), prepared(engine, new), OPTIONS)
    assert "warning: left half-done: run it again to complete it" in said.getvalue()
    assert "returning" not in said.getvalue()
    engine.on_write = lambda _: None
    up(engine, new)
    assert {image(engine, name) for name in engine.held["services"]} == {"y:latest"}


def test_down_takes_dependents_first_and_leaves_nothing() -> None:
    engine = MemoryEngine()
    chain = waiting(
        stack(THREE, [("key", b"one")]), web={"db": "service_started"}, db={"cache": "service_started"}
    )
    up(engine, chain)
    engine.writes.clear()
    down(engine, ui(), "st", OPTIONS)
    assert engine.writes == [
        "remove services st_web",
        "remove services st_db",
        "remove services st_cache",
        "remove secrets st_key",
        "remove networks st_default",
    ]
    assert not any(engine.held.values())
    assert down(engine, ui(), "st", OPTIONS) == []


def test_no_secret_is_in_what_is_said_or_kept_in_the_open(capfd: pytest.CaptureFixture[str]) -> None:
    engine = MemoryEngine()
    said = io.StringIO()
    desired = stack(THREE, [("key", b"hunter2-hunter2")])
    plan = carry_out(engine, Ui(verbose=True, stdout=said, stderr=said), prepared(engine, desired), OPTIONS)
    assert "create secret st_key" in said.getvalue()
    labels = engine.held["secrets"]["st_key"]["Spec"]["Labels"]
    assert SECRET_LABEL in labels
    # The secret's own body is where it belongs.
    del engine.held["secrets"]
    for text in (said.getvalue(), repr(plan), repr(labels), repr(engine.held), str(capfd.readouterr())):
        assert "hunter2" not in text
