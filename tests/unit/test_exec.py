"""Which task a command enters, and with what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from swarmkit.errors import Exit, OperationFailed, SwarmkitError, UsageError
from swarmkit.services.exec import Command, choose, environment
from swarmkit.swarm import Node, Service, Task


def node(name: str) -> Node:
    return Node.of(
        {
            "ID": f"id-{name}",
            "Spec": {"Role": "worker", "Availability": "active"},
            "Description": {"Hostname": name},
            "Status": {"State": "ready", "Addr": "10.0.0.1"},
        }
    )


def service(name: str = "shop_web", mode: str = "Replicated") -> Service:
    labels = {"com.docker.stack.namespace": name.partition("_")[0]}
    return Service.of({"ID": f"id-{name}", "Spec": {"Name": name, "Labels": labels, "Mode": {mode: {}}}})


def task(slot: int | None, on: str, state: str = "running", **changed: Any) -> Task:
    status = {
        "State": state,
        "Err": changed.get("error", ""),
        "ContainerStatus": {"ContainerID": f"container-{slot}-{on}"},
    }
    raw = {
        "ID": f"{slot}-{on}-{state}",
        "ServiceID": "id-shop_web",
        "NodeID": f"id-{on}",
        "Status": status,
        "DesiredState": changed.get("desired", "running"),
        "Spec": {},
        "CreatedAt": changed.get("created", "2026-01-01T10:00:00Z"),
    }
    return Task.of(raw if slot is None else raw | {"Slot": slot})


NODES = [node("m1"), node("wn1.example.org"), node("wn2")]
REPLICAS = [task(2, "wn2"), task(1, "wn1.example.org"), task(3, "wn2")]


def entered(
    text: str, some: Sequence[Task] = REPLICAS, only: str = "", mode: str = "Replicated"
) -> tuple[str, str, str, bool]:
    found, is_ours = choose([service(mode=mode)], lambda _: some, NODES, text, only)
    return found.name, found.node.name, found.container, is_ours


def refused(text: str, some: Sequence[Task] = REPLICAS, only: str = "") -> SwarmkitError:
    with pytest.raises(SwarmkitError) as raised:
        entered(text, some, only)
    return raised.value


@pytest.mark.parametrize("text", ["web.2", "shop_web.2", "id-shop_web.2"])
def test_a_slot_is_entered_on_its_node(text: str) -> None:
    assert entered(text) == ("shop_web.2", "wn2", "container-2-wn2", False)


def test_a_task_of_a_global_service_is_named_by_its_node_also_one_with_dots() -> None:
    some = [task(None, "wn2"), task(None, "wn1.example.org")]
    assert entered("web.wn1.example.org", some, mode="Global")[:2] == (
        "shop_web.wn1.example.org",
        "wn1.example.org",
    )
    assert entered("web.wn1.example.org")[0] == "shop_web.1", "of replicas it means those that are there"


def test_without_a_slot_the_first_that_runs_is_chosen_and_that_is_told() -> None:
    assert entered("web") == ("shop_web.1", "wn1.example.org", "container-1-wn1.example.org", True)
    assert not entered("web", REPLICAS[:1])[3], "of one task there is nothing to choose"


def test_a_task_that_waits_for_its_health_check_can_be_entered_but_is_not_preferred() -> None:
    some = [task(1, "wn2", "starting"), task(2, "wn2")]
    assert entered("web", some)[0] == "shop_web.2"
    assert entered("web.1", some)[0] == "shop_web.1"


def test_a_task_that_is_told_to_stop_is_not_entered() -> None:
    old = task(1, "m1", desired="shutdown")
    assert entered("web.1", [old, task(1, "wn2")])[1] == "wn2"
    assert "no task of it runs: the newest is being stopped" in str(refused("web.1", [old]))


def test_an_unknown_slot_is_refused_with_those_that_run() -> None:
    error = refused("web.9")
    assert isinstance(error, UsageError)
    assert str(error) == 'shop_web: no running task is "9"'
    assert error.hint == "running: shop_web.1 on wn1.example.org, shop_web.2 on wn2, shop_web.3 on wn2"


def test_a_service_of_which_nothing_runs_says_why() -> None:
    failed = task(1, "wn2", "rejected", error="No such image: x", created="2026-01-01T11:00:00Z")
    older = task(1, "wn2", "failed", error="exit 1")
    error = refused("web", [failed, older])
    assert isinstance(error, OperationFailed)
    assert str(error) == "shop_web: no task of it runs: the newest is rejected (No such image: x)"
    assert str(refused("web", [])) == "shop_web: no task of it runs: it has none"


def test_one_engine_alone_gives_its_own_tasks_and_names_the_others_nodes() -> None:
    assert entered("web", only="id-wn2")[0] == "shop_web.2"
    error = refused("web", only="id-m1")
    assert "it runs on wn1.example.org, wn2, and --engine leads to another node alone" in str(error)
    assert error.exit == Exit.USAGE
    assert refused("web.1", only="id-wn2").where == "shop_web.1"


def test_a_variable_comes_by_name_from_our_environment_or_as_it_is_given() -> None:
    own = {"TOKEN": "a=b", "EMPTY": ""}
    assert environment(["TOKEN", "A=1", "B=", "EMPTY"], own) == ["TOKEN=a=b", "A=1", "B=", "EMPTY="]


@pytest.mark.parametrize("text", ["MISSING", "", "=1"])
def test_a_variable_that_is_not_set_or_has_no_name_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        environment([text], {"": "x"})


def test_the_values_of_variables_are_not_shown() -> None:
    command = Command(["env"], tty=True, environment=["TOKEN=a secret"])
    assert "a secret" not in repr(command)
    assert command.body["Env"] == ["TOKEN=a secret"]
