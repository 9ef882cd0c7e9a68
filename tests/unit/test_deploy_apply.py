"""Carrying out plans, on an engine in memory: the order, the way back, and who is at work."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from swarmkit.cluster.lock import locked
from swarmkit.compose.convert import DesiredStack, convert
from swarmkit.compose.load import parse
from swarmkit.deploy.apply import carry_out
from swarmkit.deploy.down import down
from swarmkit.deploy.history import Snapshot
from swarmkit.deploy.observe import observe
from swarmkit.deploy.options import Options
from swarmkit.deploy.plan import Change, LiveStack, Plan, contents, plan_stack, ports, snapshot
from swarmkit.deploy.prepare import Prepared, prepare, prepare_return
from swarmkit.deploy.send import is_met
from swarmkit.errors import (
    Exit,
    NotConverged,
    OperationFailed,
    Problems,
    SwarmkitError,
    Unreachable,
    UsageError,
)
from swarmkit.names import SECRET_LABEL
from swarmkit.remote import EngineError
from swarmkit.services.converge import ServiceProgress, Verdict
from swarmkit.swarm import Service
from swarmkit.target import Swarm
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


def test_what_cannot_be_placed_ends_the_wait_of_what_depends_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarmkit.services.converge.UNPLACED_SECONDS", 0.5)
    engine = MemoryEngine(lambda spec: "pending" if spec["Name"] == "st_db" else "running")
    desired = waiting(stack(THREE), web={"db": "service_healthy"})
    with pytest.raises(NotConverged) as caught:
        up(engine, desired, replace(OPTIONS, rollback=False))
    assert caught.value.where == "st_db"
    # Not only when the time is over, which is said.
    assert caught.value.message.startswith("0 of 1 tasks run: no node fits")


def test_what_fails_ends_the_wait_for_another() -> None:
    states = {"st_db": "starting", "st_cache": "failed"}
    engine = MemoryEngine(lambda spec: states.get(spec["Name"], "running"))
    desired = waiting(stack(THREE), web={"db": "service_healthy"})
    with pytest.raises(NotConverged) as caught:
        up(engine, desired, replace(OPTIONS, rollback=False))
    assert caught.value.where == "st_cache"


def test_the_end_of_what_does_not_end_is_waited_for_no_longer_than_allowed() -> None:
    engine = MemoryEngine()
    text = THREE.replace("db: {image: x", "db: {image: x, deploy: {restart_policy: {condition: none}}")
    desired = waiting(stack(text), web={"db": "service_completed_successfully"})
    with pytest.raises(NotConverged, match=r"after 1 s 0 of 1 tasks completed|after 1 s 1 of 1") as caught:
        up(engine, desired, replace(OPTIONS, timeout=0.6, rollback=False))
    assert caught.value.where == "st_db"


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


def test_a_stack_that_was_ill_is_what_it_was_all_the_same() -> None:
    engine = MemoryEngine()
    old = waiting(stack(THREE), web={"db": "service_healthy"})
    up(engine, old)
    before = specs(engine)
    # Neither what is new runs, nor what was there.
    engine.state = lambda spec: "failed" if spec["Name"] == "st_db" else "running"
    new = waiting(stack(THREE.replace("image: x", "image: y")), web={"cache": "service_started"})
    more = replace(new, services=(*new.services, *stack("services: {new: {image: x}}").services))
    with pytest.raises(Problems) as caught:
        up(engine, more)
    failed, ill = caught.value.errors
    assert isinstance(failed, NotConverged)
    assert failed.rolled_back
    assert "it is what it was, and that does not run either: st_db" in ill.message
    assert caught.value.exit is Exit.NOT_CONVERGED
    assert specs(engine) == before
    assert not observe(engine, "st").unfinished()


def test_a_config_of_others_that_has_gone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = MemoryEngine()
    text = f"services: {{web: {{image: %s, {HEALTH}, configs: [c]}}}}\nconfigs: {{c: {{external: true}}}}"
    engine.post("/configs/create", {"Name": "c", "Data": "", "Labels": {}})
    up(engine, stack(text % "x"))
    up(engine, stack(text.replace(", configs: [c]", "") % "y"))
    engine.held["configs"].pop("c")
    with pytest.raises(OperationFailed, match='there is no config "c" in the swarm') as caught:
        carry_out(engine, ui(), prepare_return(engine, "st", None), replace(OPTIONS, rollback=False))
    assert caught.value.where == "st_web"


def test_a_port_is_taken_once_it_has_been_given_up_and_also_on_the_way_back() -> None:
    text = "services: {a: {image: x, %s ports: [%s]}, b: {image: x, %s ports: [%s]}}"
    old = stack(text % (HEALTH + ",", "'80:80'", HEALTH + ",", "'81:80'"))
    engine = MemoryEngine()
    up(engine, old)
    before = specs(engine)
    up(engine, stack(text % (HEALTH + ",", "", HEALTH + ",", "'80:80'")))
    assert engine.writes == ["update services st_a", "update services st_b"]
    up(engine, old)
    assert engine.writes == ["update services st_b", "update services st_a"]
    # Swapped, and taken back.
    engine.state = lambda spec: "failed" if ports(spec) == {"82/tcp"} else "running"
    services = text[:-1] % (HEALTH + ",", "'81:80'", HEALTH + ",", "'80:80'")
    with pytest.raises(NotConverged):
        up(engine, stack(f"{services}, c: {{image: x, ports: ['82:82']}}}}"))
    now = specs(engine)
    assert {name: ports(now[name]) for name in ("st_a", "st_b")} == {"st_a": {"80/tcp"}, "st_b": {"81/tcp"}}
    assert now.keys() == before.keys()


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


def test_an_update_that_waits_between_its_tasks_is_not_taken_back_for_that() -> None:
    engine = MemoryEngine()
    text = f"services: {{web: {{image: x, {HEALTH}, deploy: {{update_config: {{delay: 20s}}}}}}}}"
    up(engine, stack(text))
    web = engine.held["services"]["st_web"]
    looked = 0

    def begun(_: str) -> None:
        web["UpdateStatus"] = {"State": "updating"}

    def state(_: dict[str, Any]) -> str:
        nonlocal looked
        looked += "UpdateStatus" in web
        if looked > 8:
            web["UpdateStatus"] = {"State": "completed"}
        return "running"

    engine.on_write, engine.state = begun, state
    up(engine, stack(text.replace("image: x", "image: y")), replace(OPTIONS, timeout=0.1))
    assert image(engine, "st_web") == "y:latest"


def test_what_comes_before_services_has_their_secrets_and_is_no_part_of_the_way_back() -> None:
    engine = MemoryEngine(lambda _: "failed")
    done: list[str] = []
    engine.on_write = done.append
    new = prepared(engine, stack(f"services: {{web: {{image: x, {HEALTH}}}}}", [("key", b"1")]))

    def before(changes: Sequence[Change]) -> None:
        done.append(f"before {[change.name for change in changes]}")

    with pytest.raises(NotConverged):
        carry_out(engine, ui(), new, OPTIONS, before_services=before)
    order = [
        done.index(one) for one in ("create secrets st_key", "before ['st_web']", "create services st_web")
    ]
    assert order == sorted(order)
    assert sum(one.startswith("before") for one in done) == 1


def test_a_new_stack_that_fails_is_gone() -> None:
    engine = MemoryEngine(lambda _: "failed")
    with pytest.raises(SwarmkitError):
        up(engine, stack(THREE, [("key", b"one")]))
    assert specs(engine) == {}
    assert not engine.held["configs"]


class Killed(BaseException):
    """The process ends, whatever is written to catch errors."""


class Mortal(MemoryEngine):
    """An engine whose client lives for so many writes more, its locks and revisions included."""

    left: int | None = None

    def received(self, path: str) -> None:
        if self.left is not None:
            if self.left == 0:
                raise Killed(path)
            self.left -= 1


def state(engine: MemoryEngine) -> Snapshot:
    return replace(snapshot(observe(engine, "st")), depends_on={})


OLD = stack(THREE, [("key", b"one")])
NEW = waiting(
    stack(
        THREE.replace("image: x", "image: y").replace("db: {", "db: {ports: ['80:80'], ")
        + "\nconfigs: {c: {content: one}}",
        [("key", b"two")],
    ),
    web={"db": "service_healthy"},
)


def same_salt() -> bytes:
    return b"0" * 16


def killed_at(moment: int, *, ill: bool) -> tuple[Mortal, bool]:
    """A deployment of NEW over OLD whose process ends before a write; whether it came so far."""
    engine = Mortal()
    up(engine, OLD, salt=same_salt)
    if ill:
        engine.state = lambda spec: (
            "failed" if spec["TaskTemplate"]["ContainerSpec"]["Image"] == "y:latest" else "running"
        )
    engine.left = moment
    try:
        up(engine, NEW, salt=same_salt)
    except Killed:
        was_killed = True
    except SwarmkitError:
        was_killed = False
    else:
        was_killed = False
    engine.left, engine.state = None, lambda _: "running"
    return engine, was_killed


@pytest.mark.parametrize("ill", [False, True])
@pytest.mark.parametrize("way", ["complete", "back"])
def test_what_was_killed_before_any_write_is_completed_or_taken_back_by_the_next(way: str, ill: bool) -> None:
    fresh = Mortal()
    up(fresh, OLD, salt=same_salt)
    old = state(fresh)
    up(fresh, NEW, salt=same_salt)
    new = state(fresh)
    free = replace(OPTIONS, break_lock=True)
    for moment in range(100):
        engine, was_killed = killed_at(moment, ill=ill)
        if not was_killed:
            break
        if way == "complete":
            up(engine, NEW, free, salt=same_salt)
            assert state(engine).services == new.services
            assert state(engine).networks == new.networks
            assert not up(engine, NEW).changes
        elif observe(engine, "st").unfinished():
            carry_out(engine, ui(), prepare_return(engine, "st", None), free)
            assert state(engine) == old
        else:
            # Before the first, or after the last.
            assert state(engine) in (old, new)
        assert not any(one.is_open for one in observe(engine, "st").revisions)
    assert moment > 8
    assert state(engine) == (old if ill else new)


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


def test_a_port_of_a_service_that_is_pruned_can_be_had_by_another() -> None:
    engine = MemoryEngine()
    swarm = cast(Swarm, SimpleNamespace(engine=engine, fleet=None))

    def published_by(name: str, *, prune: bool) -> Prepared:
        text = f"services: {{{name}: {{image: x, {HEALTH}, ports: ['80:80']}}}}"
        project = parse(text, "stack.yml", Path("/s"), {})
        return prepare(swarm, ui(), project, "st", prune=prune, resolve_image="never")

    carry_out(engine, ui(), published_by("old", prune=False), OPTIONS)
    with pytest.raises(UsageError, match="port 80/tcp is published by st_old already") as caught:
        published_by("new", prune=False)
    assert "--prune" in caught.value.hint
    engine.writes.clear()
    carry_out(engine, ui(), published_by("new", prune=True), OPTIONS)
    assert engine.writes == ["remove services st_old", "create services st_new"]


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


def test_what_services_of_other_stacks_use_keeps_a_stack_from_going_down() -> None:
    engine = MemoryEngine()
    up(
        engine,
        stack(f"services: {{web: {{image: x, {HEALTH}, networks: [n]}}}}\nnetworks: {{n: {{name: shared}}}}"),
    )
    text = (
        f"services: {{api: {{image: x, {HEALTH}, networks: [n]}}}}\n"
        "networks: {n: {name: shared, external: true}}"
    )
    other = convert(parse(text, "stack.yml", Path("/s"), {}), "other")
    live = observe(engine, "other")
    carry_out(
        engine,
        ui(),
        Prepared(other, lambda live: plan_stack(other, live), live, plan_stack(other, live)),
        OPTIONS,
    )
    engine.writes.clear()
    with pytest.raises(OperationFailed, match="other stacks use the network: other_api") as caught:
        down(engine, ui(), "st", OPTIONS)
    assert caught.value.where == "shared"
    assert engine.writes == []
    down(engine, ui(), "other", OPTIONS)
    assert "shared" in engine.held["networks"]
    down(engine, ui(), "st", OPTIONS)
    assert not any(engine.held.values())


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
