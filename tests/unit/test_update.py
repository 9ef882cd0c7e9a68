"""Changing one service: what options make of its spec, all mistakes at once, and what it returns to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmkit.deploy.history import Revision, Snapshot
from swarmkit.deploy.plan import LiveStack, plan_stack
from swarmkit.deploy.plan.differences import differences, readable
from swarmkit.errors import OperationFailed, Problems, SwarmkitError, UsageError
from swarmkit.images.resolve import Image
from swarmkit.services.edits import Asked, Edits, Known, check, edited
from swarmkit.services.update import NewImage, earlier, plan_return, plan_update, restarts, updated
from tests.unit.stackswarm import Swarm, deployed, stack

KNOWN: Known = {
    "secret": ["key", "st_key", "st_key-0123456789", "other"],
    "config": ["conf", "st_conf"],
}


def spec(**container: Any) -> dict[str, Any]:
    return {
        "Name": "st_web",
        "Labels": {"com.docker.stack.namespace": "st", "com.docker.stack.image": "x"},
        "TaskTemplate": {"ContainerSpec": {"Image": "x:latest", **container}},
        "Mode": {"Replicated": {"Replicas": 2}},
    }


def asked(**options: Any) -> Edits:
    return check(Asked(**options), {"HERE": "ours"})


def changed(before: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    return edited(dict(before), asked(**options), KNOWN)


def container(found: Mapping[str, Any]) -> Mapping[str, Any]:
    inside: Mapping[str, Any] = found["TaskTemplate"]["ContainerSpec"]
    return inside


def mistakes(**options: Any) -> Mapping[str, str]:
    with pytest.raises(SwarmkitError) as caught:
        asked(**options)
    errors = caught.value.errors if isinstance(caught.value, Problems) else [caught.value]
    return {error.where: error.message for error in errors}


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return not differences(readable(one, {}), readable(other, {}), extra=True)


def test_variables_are_set_where_they_were_and_taken_away() -> None:
    found = changed(spec(Env=["A=1", "B=2", "A=3"]), env=("A=4", "C=5=6", "HERE"), env_rm=("B",))
    assert container(found)["Env"] == ["A=4", "C=5=6", "HERE=ours"]
    assert "Env" not in container(changed(spec(Env=["A=1"]), env_rm=("A",)))


def test_several_options_make_one_spec() -> None:
    found = changed(
        spec(Mounts=[{"Type": "volume", "Source": "old", "Target": "/data"}]),
        label=("team=blue",),
        container_label=("a=b",),
        limit_cpu="1.5",
        reserve_memory="64M",
        constraint=("node.role == worker", "node.role==worker"),
        mount=("type=volume,source=new,target=/data,readonly", "type=tmpfs,target=/t,tmpfs-size=1M"),
        command="run 'two words'",
        order="start-first",
        parallelism=0,
        stop_grace_period="1m",
        stop_signal="quit",
    )
    assert found["Labels"]["team"] == "blue"
    assert found["UpdateConfig"] == {
        "Parallelism": 0,
        "FailureAction": "pause",
        "Monitor": 5 * 10**9,
        "MaxFailureRatio": 0,
        "Order": "start-first",
    }
    assert found["RollbackConfig"] == {**found["UpdateConfig"], "Parallelism": 1}
    assert found["TaskTemplate"]["Resources"] == {
        "Limits": {"NanoCPUs": 1_500_000_000},
        "Reservations": {"MemoryBytes": 64 * 1024 * 1024},
    }
    assert found["TaskTemplate"]["Placement"] == {"Constraints": ["node.role==worker"]}
    inside = container(found)
    assert inside["Mounts"] == [
        {"Type": "volume", "Source": "new", "Target": "/data", "ReadOnly": True},
        {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1024 * 1024}},
    ]
    assert (inside["Args"], inside["Labels"]) == (["run", "two words"], {"a": "b"})
    assert (inside["StopGracePeriod"], inside["StopSignal"]) == (60 * 10**9, "SIGQUIT")


def test_update_settings_are_added_to_those_that_there_are() -> None:
    there = {**spec(), "UpdateConfig": {"Parallelism": 3, "Order": "start-first"}}
    assert changed(there, delay="2s")["UpdateConfig"] == {
        "Parallelism": 3,
        "Order": "start-first",
        "Delay": 2 * 10**9,
    }


def test_a_secret_is_the_stacks_newest_version_and_takes_the_place_of_its_file() -> None:
    old = {"SecretName": "other", "File": {"Name": "key", "UID": "0", "GID": "0", "Mode": 0o444}}
    found = container(changed(spec(Secrets=[old]), secret=("key",)))["Secrets"]
    assert [(one["SecretName"], one["File"]["Name"]) for one in found] == [("st_key-0123456789", "key")]
    found = container(changed(spec(Secrets=[old]), secret=("source=other,target=b,mode=0400",)))["Secrets"]
    assert [(one["File"]["Name"], one["File"]["Mode"]) for one in found] == [("key", 0o444), ("b", 0o400)]


def test_a_secret_is_taken_away_by_the_name_that_its_stack_has_for_it() -> None:
    held = [{"SecretName": "st_key-0123456789", "File": {"Name": "k"}}]
    assert "Secrets" not in container(changed(spec(Secrets=held), secret_rm=("key",)))


def test_a_service_without_a_stack_names_secrets_as_they_are() -> None:
    alone = {**spec(), "Labels": {}}
    assert container(changed(alone, secret=("key",)))["Secrets"][0]["SecretName"] == "key"


def test_what_the_swarm_does_not_have_is_told_all_at_once() -> None:
    with pytest.raises(Problems) as caught:
        changed(spec(), secret=("none",), config=("nothing", "conf", "source=conf,target=conf"))
    assert [str(error) for error in caught.value.errors] == [
        '--config: there is no config "nothing" in the swarm',
        "--config: two are to be the file conf",
        '--secret: there is no secret "none" in the swarm',
    ]


def test_all_mistakes_of_the_options_are_told_at_once() -> None:
    found = mistakes(
        image="a b",
        env=("=1", "GONE"),
        label=("swarmkit.spec=1",),
        container_label=("x",),
        limit_cpu="many",
        limit_memory="1k",
        constraint=("node.role",),
        secret=("target=x",),
        config=("source=x,mode=rw",),
        mount=("type=bind,source=data,target=/x",),
        command="'",
        parallelism=-1,
        delay="5",
        order="both",
        max_failure_ratio=2.0,
        failure_action="retry",
        stop_signal="SIGNOTHING",
    )
    assert set(found) == {
        f"--{name}"
        for name in (
            *("image", "env", "label", "container-label", "limit-cpu", "limit-memory", "constraint"),
            *("secret", "config", "mount", "command", "parallelism", "delay", "order"),
            *("max-failure-ratio", "failure-action", "stop-signal"),
        )
    }
    assert found["--order"] == 'expected start-first or stop-first, got "both"'


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"env": ("A=1",), "env_rm": ("A",)}, "--env"),
        ({"constraint": ("node.role == worker",), "constraint_rm": ("node.role==worker",)}, "--constraint"),
        ({"mount": ("source=a,target=/a",), "mount_rm": ("/a",)}, "--mount"),
        ({"label": ("swarmkit.lb.canary=web",)}, "--label"),
        ({"label_rm": ("com.docker.stack.namespace",)}, "--label"),
        ({"mount": ("source=a,target=/a,tmpfs-size=1M",)}, "--mount"),
    ],
)
def test_what_contradicts_itself_is_refused(options: dict[str, Any], where: str) -> None:
    assert list(mistakes(**options)) == [where]


def test_the_value_of_a_variable_is_in_no_error() -> None:
    assert "hush" not in str(mistakes(env=("A=hush", "=hush"), env_rm=("A",)))


NAMES = st.sampled_from(["A", "B", "C", "D"])
PAIRS = st.dictionaries(NAMES, st.sampled_from(["", "1", "x=y"]), max_size=3)


def lines(pairs: Mapping[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in pairs.items()]


def inverse(before: Mapping[str, str], new: Mapping[str, str], gone: Sequence[str]) -> tuple[Any, Any]:
    """What sets back: the pairs to set, and the names to take away."""
    touched = {*new, *gone}
    back = {key: value for key, value in before.items() if key in touched}
    return lines(back), [key for key in new if key not in before]


@settings(deadline=None)
@given(PAIRS, PAIRS, st.sets(NAMES), st.sampled_from(["env", "label", "container_label"]))
def test_an_update_and_its_inverse_give_the_spec_back(
    before: dict[str, str], new: dict[str, str], removed: set[str], what: str
) -> None:
    gone = sorted(removed - set(new))
    start = spec(Env=lines(before), Labels=before)
    start["Labels"] = {**start["Labels"], **before}
    there = changed(start, **{what: tuple(lines(new)), f"{what}_rm": tuple(gone)})
    back, away = inverse(before, new, gone)
    assert same(changed(there, **{what: tuple(back), f"{what}_rm": tuple(away)}), start)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["node.role==worker", "node.labels.a!=b", "node.id==x"]), unique=True),
    st.lists(st.sampled_from(["node.role==worker", "node.labels.a!=b", "node.id==x"]), unique=True),
)
def test_constraints_and_mounts_that_are_added_can_be_taken_away(before: list[str], new: list[str]) -> None:
    start = spec(Mounts=[{"Type": "volume", "Source": "v", "Target": f"/{each}"} for each in before])
    start["TaskTemplate"]["Placement"] = {"Constraints": before}
    mounts = [f"source=v,target=/{each}" for each in new]
    there = changed(start, constraint=tuple(new), mount=tuple(mounts))
    added = tuple(each for each in new if each not in before)
    assert same(changed(there, constraint_rm=added, mount_rm=tuple(f"/{each}" for each in added)), start)


@settings(deadline=None)
@given(st.sampled_from(["limit_cpu", "limit_memory", "reserve_cpu", "reserve_memory"]))
def test_a_limit_of_0_takes_it_away(option: str) -> None:
    value = "1" if option.endswith("cpu") else "8M"
    assert changed(changed(spec(), **{option: value}), **{option: "0"}) == spec()


WEB = "services: {web: {image: 'x:1', environment: {A: '1'}, deploy: {replicas: 3}}}"


def fields(plan: Any) -> Mapping[str, Any]:
    (change,) = plan.changes
    found: Mapping[str, Any] = change.fields
    return found


def test_the_plan_shows_what_changes_and_nothing_else() -> None:
    live = deployed(WEB).live()
    plan = plan_update(live, "st_web", asked(env=("A=2",), limit_memory="64M"), None, KNOWN)
    assert fields(plan) == {
        "env.A": {"from": "1", "to": "2"},
        "resources.Limits.MemoryBytes": {"from": None, "to": 64 * 1024 * 1024},
    }


def test_what_is_so_already_is_no_change() -> None:
    live = deployed(WEB).live()
    options = asked(env=("A=1",), order="stop-first", env_rm=("B",))
    plan = plan_update(live, "st_web", options, NewImage("x:1", Image("x:1")), KNOWN)
    assert list(plan.changes) == []
    assert plan.notes == ["st_web: it has no variable B"]


def test_force_starts_the_tasks_again_where_nothing_changes() -> None:
    live = deployed(WEB).live()
    plan = plan_update(live, "st_web", asked(force=True), None, KNOWN)
    assert fields(plan) == {"tasks": {"from": None, "to": "started again"}}
    assert plan.changes[0].spec is not None
    assert plan.changes[0].spec["TaskTemplate"]["ForceUpdate"] == 1


def test_a_deployment_afterwards_sets_back_what_was_updated_and_calls_it_no_work_by_hand() -> None:
    swarm = deployed(WEB)
    live = swarm.live()
    options = asked(
        env=("B=2",), env_rm=("A",), constraint=("node.role==worker",), label=("team=blue",), limit_cpu="1"
    )
    plan = plan_update(live, "st_web", options, NewImage("x:2", Image("x:2@sha256:1")), KNOWN)
    swarm.deploy(stack(WEB), plan)
    (change,) = plan_stack(stack(WEB), swarm.live()).changes
    assert {"env.A", "env.B", "image", "placement.Constraints", "labels.team"} <= set(change.fields)
    assert change.by_hand == frozenset()
    assert list(plan_stack(stack(WEB), after(swarm, change)).changes) == []


def after(swarm: Swarm, *changes: Any) -> LiveStack:
    swarm.apply(changes)
    return swarm.live()


def test_the_label_of_the_image_is_what_was_said_so_that_a_deployment_asks_again() -> None:
    new = updated(spec(), Edits(), NewImage("x:2", Image("x:2@sha256:1")), KNOWN)
    assert new["Labels"]["com.docker.stack.image"] == "x:2"
    assert container(new)["Image"] == "x:2@sha256:1"
    assert "Placement" not in new["TaskTemplate"]


def revision(number: int, before: Any, after: Any, *, is_open: bool = False) -> Revision:
    def side(one: Any) -> Snapshot:
        return Snapshot({"st_web": one} if one else {})

    return Revision(number, "me@here", "stack up st", (), side(before), side(after), is_open)


def image(tag: str, replicas: int = 2) -> dict[str, Any]:
    return {**spec(Image=tag), "Mode": {"Replicated": {"Replicas": replicas}}}


def test_a_service_returns_to_what_it_was_before_its_last_change() -> None:
    history = [
        revision(1, None, image("x:1")),
        revision(2, image("x:1"), image("x:2")),
        # Another service's, while this one was scaled.
        revision(3, image("x:2"), image("x:2", replicas=7)),
    ]
    assert container(earlier(history, "st_web", None))["Image"] == "x:1"
    assert container(earlier(history, "st_web", 2))["Image"] == "x:2"
    half_done = [*history, revision(4, image("x:2"), image("x:4"), is_open=True)]
    assert container(earlier(half_done, "st_web", None))["Image"] == "x:2"


@pytest.mark.parametrize(
    ("history", "number", "said"),
    [
        ([], None, "there is no revision to return to"),
        ([revision(1, None, image("x:1"))], None, "has not changed since it was made (revision 1)"),
        ([revision(5, image("x:1"), image("x:1"))], None, "no revision that is kept has changed it"),
        ([revision(1, None, image("x:1"))], 7, "there is no revision 7"),
        ([revision(1, image("x:1"), None)], 1, "it was not there in revision 1"),
    ],
)
def test_what_cannot_be_returned_to_says_why(history: list[Revision], number: int | None, said: str) -> None:
    with pytest.raises(UsageError, match="st_web") as caught:
        earlier(history, "st_web", number)
    assert said in caught.value.message


def test_a_return_keeps_the_replicas_that_run() -> None:
    swarm = deployed(WEB)
    plan = plan_update(swarm.live(), "st_web", asked(env=("A=2",)), None, KNOWN)
    swarm.deploy(stack(WEB), plan)
    swarm.services["st_web"]["Spec"]["Mode"]["Replicated"]["Replicas"] = 7
    back = plan_return(swarm.live(), "st_web", None, KNOWN)
    assert back.changes[0].spec is not None
    assert back.changes[0].spec["Mode"] == {"Replicated": {"Replicas": 7}}
    assert fields(back)["env.A"] == {"from": "2", "to": "1"}
    # What the file says is what it is again.
    assert list(plan_stack(stack(WEB), after(swarm, *back.changes)).changes) == []


def test_a_return_to_what_is_gone_is_refused() -> None:
    old = image("x:1")
    container(old)["Secrets"] = [{"SecretName": "lost", "File": {"Name": "lost"}}]  # type: ignore[index]
    live = replace(deployed(WEB).live(), revisions=[revision(2, old, image("x:2"))])
    with pytest.raises(OperationFailed, match="the secret lost, which it had then, is gone"):
        plan_return(live, "st_web", None, KNOWN)


def test_only_what_changes_tasks_restarts_them() -> None:
    assert restarts(spec(), spec(Env=["A=1"]))
    assert restarts(spec(), {**spec(), "TaskTemplate": {**spec()["TaskTemplate"], "ForceUpdate": 1}})
    assert not restarts(spec(), changed(spec(), label=("a=b",), order="start-first"))
