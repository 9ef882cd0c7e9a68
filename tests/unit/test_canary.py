"""Canaries: what they are, what they are not given, and what becomes of the service they are of."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmkit.deploy.plan import LiveStack, Plan, plan_stack
from swarmkit.deploy.plan.stack import canaries, orphans
from swarmkit.deploy.scope import belongs, scope_of
from swarmkit.errors import NotConverged, OperationFailed, UsageError
from swarmkit.images.resolve import Image
from swarmkit.services.canary import (
    differs,
    has_route,
    percentage,
    plan_abort,
    plan_canary,
    plan_continue,
    retire,
)
from swarmkit.services.edits import Asked, check
from swarmkit.services.update import NewImage, held, updated
from swarmkit.swarm import Service
from tests.unit.memoryengine import MemoryEngine
from tests.unit.stackswarm import Swarm, deployed, stack

LABELS = "labels: {swarmkit.lb.port: '80', swarmkit.lb.path: /web, team: blue}"
WEB = (
    "services: {web: {image: 'x:1', ports: ['80:80'], environment: {A: '1'}, deploy: {replicas: 30, "
    f"{LABELS}}}}}}}"
)
NEW = NewImage("x:2", Image("x:2"))


def canary(live: LiveStack, percent: int = 10, **options: Any) -> Plan:
    known: Any = {"secret": [], "config": []}
    new = updated(held(live, "st_web"), check(Asked(**options), {}), NEW, known)
    return plan_canary(live, "st_web", new, percent)


def tried(**options: Any) -> Swarm:
    """A swarm where a canary runs."""
    swarm = deployed(WEB)
    swarm.deploy(stack(WEB), canary(swarm.live(), **options))
    return swarm


def test_a_canary_has_a_share_of_the_requests_and_no_route_name_or_port_of_the_service() -> None:
    (change,) = canary(deployed(WEB).live(), env=("A=2",)).changes
    assert (change.name, change.action, change.spec is not None) == ("st_web-canary", "create", True)
    spec: dict[str, Any] = change.spec or {}
    routes = {key: value for key, value in spec["Labels"].items() if key.startswith("swarmkit.lb.")}
    assert routes == {"swarmkit.lb.canary": "st_web", "swarmkit.lb.weight": "10"}
    assert (spec["Labels"]["com.docker.stack.namespace"], spec["Labels"]["team"]) == ("st", "blue")
    assert spec["Mode"] == {"Replicated": {"Replicas": 3}}
    assert not any("Aliases" in network for network in spec["TaskTemplate"]["Networks"])
    assert "Ports" not in spec.get("EndpointSpec", {})
    assert spec["TaskTemplate"]["ContainerSpec"]["Image"] == "x:2"
    assert spec["TaskTemplate"]["ContainerSpec"]["Env"] == ["A=2"]


@pytest.mark.parametrize(("replicas", "percent", "count"), [(1, 1, 1), (2, 10, 1), (10, 25, 2), (4, 99, 4)])
def test_a_canary_has_about_that_share_of_the_tasks_and_at_least_one(
    replicas: int, percent: int, count: int
) -> None:
    swarm = deployed(WEB)
    swarm.services["st_web"]["Spec"]["Mode"]["Replicated"]["Replicas"] = replicas
    (change,) = canary(swarm.live(), percent).changes
    assert change.spec is not None
    assert change.spec["Mode"]["Replicated"]["Replicas"] == count


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("services: {web: {image: x}}", "no route"),
        (f"services: {{web: {{image: x, deploy: {{mode: global, {LABELS}}}}}}}", "only a replicated service"),
        (f"services: {{web: {{image: 'x:2', deploy: {{{LABELS}}}}}}}", "nothing to try"),
        (
            f"services: {{web: {{image: x, volumes: ['data:/d'], deploy: {{{LABELS}}}}}}}\n"
            "volumes: {data: }",
            "would write to st_data",
        ),
    ],
)
def test_where_there_is_nothing_to_try_safely_it_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        canary(deployed(text).live())


def test_a_second_canary_is_refused_and_so_are_routes_of_its_own() -> None:
    with pytest.raises(UsageError, match="it has a canary, st_web-canary") as caught:
        canary(tried().live())
    assert "swarmkit update st_web --continue" in caught.value.hint
    with pytest.raises(UsageError, match="cannot change them"):
        canary(deployed(WEB).live(), label=("swarmkit.lb.path=/new",))


@pytest.mark.parametrize("text", ["0%", "100%", "a", "10%%", "", "١٠%"])
def test_a_share_is_from_1_to_99_percent(text: str) -> None:
    assert (percentage("10%"), percentage("99")) == (10, 99)
    with pytest.raises(UsageError, match="from 1% to 99%"):
        percentage(text)


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "env": st.just(("A=2", "B=3")),
        "env_rm": st.just(("C",)),
        "label": st.just(("team=red", "new=1")),
        "label_rm": st.just(("gone",)),
        "limit_memory": st.just("64M"),
        "order": st.just("start-first"),
        "constraint": st.just(("node.role==worker",)),
        "command": st.just("run"),
    },
)


# How long one takes says nothing: it is the first that loads what the others use.
@settings(deadline=None, max_examples=30)
@given(OPTIONS)
def test_to_go_on_gives_the_service_what_was_tried_and_takes_the_canary_away(options: dict[str, Any]) -> None:
    swarm = tried(**options)
    update, removal = plan_continue(swarm.live(), "st_web").changes
    assert (removal.name, removal.action, removal.early) == ("st_web-canary", "remove", False)
    known: Any = {"secret": [], "config": []}
    direct = updated(held(swarm.live(), "st_web"), check(Asked(**options), {}), NEW, known)
    assert update.spec is not None
    assert not differs(update.spec, direct)
    swarm.apply([update])
    # Interrupted there, it is completed.
    assert [one.name for one in plan_continue(swarm.live(), "st_web").changes] == ["st_web-canary"]


def test_the_scale_of_the_meantime_is_kept_and_another_change_is_not_written_over() -> None:
    swarm = tried()
    swarm.services["st_web"]["Spec"]["Mode"]["Replicated"]["Replicas"] = 7
    update, _ = plan_continue(swarm.live(), "st_web").changes
    assert update.spec is not None
    assert update.spec["Mode"]["Replicated"]["Replicas"] == 7
    swarm.services["st_web"]["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"] = ["A=other"]
    with pytest.raises(OperationFailed, match="has changed since its canary was made"):
        plan_continue(swarm.live(), "st_web")


def test_what_has_no_canary_cannot_go_on() -> None:
    live = deployed(WEB).live()
    for plan in (plan_continue, plan_abort):
        with pytest.raises(UsageError, match="it has no canary"):
            plan(live, "st_web")


def test_a_deployment_leaves_a_canary_alone_even_where_it_prunes() -> None:
    live = tried().live()
    assert (orphans(stack(WEB), live), canaries(stack(WEB), live)) == ([], ["st_web-canary"])
    assert list(plan_stack(stack(WEB), live, prune=True).changes) == []


def test_a_canary_goes_with_the_service_that_it_is_of() -> None:
    other = stack("services: {other: {image: x}}")
    assert orphans(other, tried().live()) == ["st_web", "st_web-canary"]


@pytest.mark.parametrize(
    ("label", "has"),
    [
        ("swarmkit.lb.port", True),
        ("swarmkit.lb.api.port", True),
        ("swarmkit.lb.canary", True),
        ("a.port", False),
    ],
)
def test_a_route_is_asked_for_with_a_port(label: str, has: bool) -> None:
    assert has_route({label: "1"}) is has


def test_a_canary_goes_share_first_then_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = MemoryEngine()
    labels = {"swarmkit.lb.canary": "web", "swarmkit.lb.weight": "10"}
    spec = {"Name": "web-canary", "Labels": labels, "Mode": {"Replicated": {"Replicas": 2}}}
    made = engine.post(
        "/services/create", {**spec, "TaskTemplate": {"ContainerSpec": {"Image": "x"}}, "EndpointSpec": {}}
    )
    seen: list[Any] = []

    def sleep(_: float) -> None:
        held = engine.held["services"]["web-canary"]["Spec"]
        seen.append((held["Labels"]["swarmkit.lb.weight"], held["Mode"]["Replicated"]["Replicas"]))

    retire(engine, made["ID"], 5, sleep)
    assert seen == [("0", 2)]
    assert engine.held["services"]["web-canary"]["Spec"]["Mode"]["Replicated"]["Replicas"] == 0
    retire(engine, "no such", 5, sleep)
    monkeypatch.setattr("swarmkit.services.canary._left", lambda *_: True)
    with pytest.raises(NotConverged, match="its tasks still run after 0 s"):
        retire(engine, made["ID"], 0.1, sleep)


def test_a_service_without_a_stack_has_its_canary_with_it_and_nothing_of_a_stack() -> None:
    own = {"Name": "web-canary", "Labels": {"swarmkit.lb.canary": "web"}}
    other = {"Name": "st_x", "Labels": {"swarmkit.lb.canary": "web", "com.docker.stack.namespace": "st"}}
    assert scope_of(Service.of({"ID": "c", "Spec": own})) == "service.web"
    assert [belongs(one, "service.web") for one in ({"Name": "web"}, own, other)] == [True, True, False]
    assert [belongs(one, "st") for one in (own, other)] == [False, True]
