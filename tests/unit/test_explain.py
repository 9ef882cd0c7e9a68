"""Why a task does not run, in words: from the engine's messages and what was looked up."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from swarmkit.services import explain as explain_module
from swarmkit.services.explain import Evidence, Explanation, View, explain, halted, troubled
from swarmkit.services.placement import rooms
from swarmkit.swarm import Node, Service, Task
from tests.unit.builders import job, node, service, task

NODES = [node("n1"), node("n2"), node("n3")]
LIMITED: dict[str, Any] = {"task": {"Resources": {"Limits": {"MemoryBytes": 256 << 20}}}}


def explained(
    one: Service,
    error: str = "",
    evidence: Evidence | None = None,
    *,
    state: str = "failed",
    nodes: list[Node] = NODES,
    others: tuple[Service, ...] = (),
    running: tuple[Task, ...] = (),
) -> Explanation:
    view = View(nodes, rooms(nodes, running, [one, *others]), [one, *others])
    return explain(one, task(1, state, error=error, on="n2", image="shop/web:1@sha256:ab"), view, evidence)


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        ("No such image: shop/web:1@sha256:ab", "no-image", "the image cannot be had on n2: shop/web:1"),
        (
            "pull access denied for shop/web, repository does not exist or may require 'docker login'",
            "image-denied",
            "the registry docker.io denies access to shop/web:1 on n2, or has no such image",
        ),
        (
            'invalid mount config for type "bind": bind source path does not exist: /srv/x',
            "no-bind-source",
            "bind source /srv/x missing on n2",
        ),
        (
            "starting container failed: OCI runtime create failed: unable to start container process: "
            'exec: "slep": executable file not found in $PATH: unknown',
            "no-command",
            'no program "slep" in the image shop/web:1',
        ),
        (
            "starting container failed: exec /start: exec format error",
            "wrong-platform",
            "the image shop/web:1 is for another processor than that of n2, or what it starts is no program",
        ),
        (
            "starting container failed: driver failed programming external connectivity on endpoint web.1: "
            "Bind for 0.0.0.0:8080 failed: port is already allocated",
            "port-taken",
            "port 8080 taken on n2 by a program that is no service",
        ),
        (
            "starting container failed: failed to bind port 0.0.0.0:8080/tcp: Error starting userland proxy: "
            "listen tcp4 0.0.0.0:8080: bind: address already in use",
            "port-taken",
            "port 8080 taken on n2 by a program that is no service",
        ),
        ("network shop_default not found", "no-network", "network shop_default not found on n2"),
        (
            "no available IPv4 addresses on this network's address pools: shop_default (x)",
            "no-addresses",
            "no free address on its network",
        ),
        ("secret reference db-password not found", "no-secret", "a secret of the service is missing on n2"),
        ("task: non-zero exit (3)", "exit", "exit 3 on n2"),
        ("task: non-zero exit (127)", "exit", "exit 127: the shell found no such program on n2"),
        (
            "task: non-zero exit (137): dockerexec: unhealthy container",
            "unhealthy",
            "health check failed on n2",
        ),
        ("something quite new", "failed", "something quite new on n2"),
    ],
)
def test_what_the_engine_says_becomes_a_reason(error: str, code: str, reason: str) -> None:
    found = explained(service(1), error)
    assert (found.code, found.reason) == (code, reason)
    assert (found.task, found.node) == ("web.1", "n2")


def test_an_image_that_the_registry_does_not_have_is_missing() -> None:
    found = explained(service(1), "No such image: shop/web:1", Evidence(registry="manifest unknown"))
    assert (found.code, found.reason) == ("no-image", "no such image on n2: shop/web:1")


def test_an_image_that_the_registry_refuses_is_no_missing_image() -> None:
    said = Evidence(registry="unauthorized: authentication required")
    found = explained(service(1), "No such image: shop/web:1", said)
    assert (found.code, found.details) == ("image-denied", ("unauthorized: authentication required",))
    assert "docker login docker.io" in found.hint
    said = Evidence(registry="denied", logged_in=True)
    found = explained(service(1), "No such image: shop/web:1", said)
    assert found.hint.startswith("the login that docker has here for docker.io is of no use for it")
    said = Evidence(registry="manifest unknown")
    found = explained(service(1), "No such image: shop/web:1", said)
    assert (found.code, found.details) == (
        "no-image",
        ("the registry, asked by a manager with no login: manifest unknown",),
    )


def test_an_image_that_the_registry_has_is_missing_for_want_of_a_login_or_a_way() -> None:
    found = explained(service(1), "No such image: shop/web:1", Evidence(registry="", logged_in=True))
    assert found.details == ("the registry gives it to a manager that asks with your login",)
    assert found.hint.startswith("deploy again, and the login goes with the service")
    found = explained(service(1), "No such image: shop/web:1", Evidence(registry=""))
    assert found.details == ("the registry gives it to a manager that asks with no login",)
    assert found.hint == "can the node reach the registry?"


@pytest.mark.parametrize(
    ("limited", "evidence", "reason"),
    [
        (True, Evidence(state={"OOMKilled": True}), "exit 137: out of memory, limit 256 MB on n2"),
        (True, Evidence(state={"OOMKilled": False}), "exit 137: killed (SIGKILL) on n2"),
        (True, Evidence(), "exit 137: most likely out of memory, limit 256 MB on n2"),
        (False, Evidence(state={"OOMKilled": True}), "exit 137: out of memory on n2"),
        (False, Evidence(), "exit 137: killed (SIGKILL) on n2"),
    ],
)
def test_out_of_memory_is_said_where_it_is_known_or_likely(
    limited: bool, evidence: Evidence, reason: str
) -> None:
    one = service(1, **(LIMITED if limited else {}))
    assert explained(one, "task: non-zero exit (137)", evidence).reason == reason


def test_the_last_lines_of_the_log_are_details() -> None:
    found = explained(
        service(1), "task: non-zero exit (1)", Evidence(state={}, log=[f"line {n}" for n in range(30)])
    )
    assert found.details[0] == "last lines of its log:"
    assert found.details[1:] == tuple(f"  line {n}" for n in range(20, 30))


def test_a_container_that_could_not_be_read_is_said_to_be_so() -> None:
    found = explained(service(1), "task: non-zero exit (1)", Evidence(unread="n2 cannot be reached"))
    assert found.details == ("the container's own state was not read: n2 cannot be reached",)


def test_a_failed_health_check_shows_what_it_printed_last() -> None:
    checks = [
        {"ExitCode": 0, "Output": "fine"},
        {"ExitCode": 1, "Output": "connection refused\nport 80\n"},
        {"ExitCode": 0, "Output": "fine again"},
    ]
    state = {"Health": {"FailingStreak": 3, "Log": checks}}
    found = explained(service(1), "task: non-zero exit (143): unhealthy container", Evidence(state=state))
    assert found.reason == "health check failed 3 times on n2: connection refused"
    assert found.details == ("port 80",)


def test_a_health_check_that_prints_nothing_shows_its_exit_code() -> None:
    state = {"Health": {"FailingStreak": 1, "Log": [{"ExitCode": 7, "Output": ""}]}}
    found = explained(service(1), "unhealthy container", Evidence(state=state))
    assert found.reason == "health check failed on n2: it printed nothing, exit 7"


def placed(*constraints: str, **more: Any) -> Service:
    return service(1, task={"Placement": {"Constraints": list(constraints)}, **more})


@pytest.mark.parametrize(
    ("one", "nodes", "reason"),
    [
        (
            placed("node.labels.gpu == yes"),
            NODES,
            "no node fits: 3 of 3 nodes lack the label gpu=yes (constraint node.labels.gpu == yes)",
        ),
        (
            placed("node.role==manager", "node.hostname!=n2"),
            NODES[:2],
            "no node fits: 2 of 2 nodes are not manager (constraint node.role==manager); "
            "1 of 2 nodes is called n2 (constraint node.hostname!=n2)",
        ),
        (
            placed("node.labels.disk==ssd"),
            [node("n1", labels={"disk": "ssd"}, Availability="drain"), node("n2")],
            "no node fits: 1 of 2 nodes lacks the label disk=ssd (constraint node.labels.disk==ssd); "
            "n1 is drained",
        ),
        (
            placed(),
            [node("n1", state="down"), node("n2", Availability="pause")],
            "no node fits: n1 is down; n2 is paused",
        ),
        (
            placed(Resources={"Reservations": {"NanoCPUs": 5_000_000_000, "MemoryBytes": 64 << 20}}),
            NODES[:2],
            "no node fits: a task needs 5 CPUs; free: n1 4 CPUs, n2 4 CPUs",
        ),
    ],
)
def test_a_task_without_a_node_says_what_each_node_lacks(
    one: Service, nodes: list[Node], reason: str
) -> None:
    assert explained(one, "no suitable node (…)", state="pending", nodes=nodes).reason == reason


def test_an_image_for_another_platform_names_both() -> None:
    one = service(1, task={"Placement": {"Platforms": [{"OS": "linux", "Architecture": "amd64"}]}})
    arm = [node("n1", arch="aarch64")]
    found = explained(one, "no suitable node (unsupported platform on 1 node)", state="pending", nodes=arm)
    assert found.reason == "no node fits: n1 is linux/aarch64, the image linux/amd64"
    # The kernel's name and Go's mean the same.
    assert explained(one, "no suitable node (…)", state="pending").reason == "no node fits: …"


def test_without_knowing_more_the_swarm_s_own_words_stay() -> None:
    found = explained(service(1), "no suitable node (missing plugin on 3 nodes)", state="pending")
    assert found.reason == "no node fits: missing plugin on 3 nodes"


HOST_PORT: dict[str, Any] = {
    "EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host"}]}
}


def test_a_host_port_is_told_with_the_service_that_has_it() -> None:
    other = service(3, name="x", **HOST_PORT)
    running = tuple(task(n, of="x", on=f"n{n}") for n in (1, 2, 3))
    one = service(1, **HOST_PORT)
    error = "no suitable node (host-mode port already in use on 3 nodes)"
    found = explained(one, error, state="pending", others=(other,), running=running)
    assert (found.code, found.reason) == ("port-taken", "port 8080 taken by x on n1, n2, n3")
    error = "Bind for 0.0.0.0:8080 failed: port is already allocated"
    found = explained(one, error, others=(other,), running=running)
    assert found.reason == "port 8080 taken by x on n2"


def test_a_published_port_is_taken_on_every_node_and_one_in_host_mode_where_the_task_is() -> None:
    error = "listen tcp4 0.0.0.0:8080: bind: address already in use"
    ingress = service(1, name="x", EndpointSpec={"Ports": [{"TargetPort": 80, "PublishedPort": 8080}]})
    assert explained(service(1), error, others=(ingress,)).reason == "port 8080 taken by x on n2"
    host = service(3, name="x", **HOST_PORT)
    elsewhere = (task(1, of="x", on="n1"),)
    # The task that comes next is on the node already.
    again = task(1, "ready", "ready", on="n2")
    found = explained(service(1, **HOST_PORT), error, others=(host,), running=(*elsewhere, again))
    assert found.reason == "port 8080 taken on n2 by a program that is no service"


def test_a_global_service_s_task_waits_for_one_node_and_is_not_in_its_own_way() -> None:
    nodes = [node("n1", Availability="drain"), node("n2")]
    pending = task(None, "pending", on="n2", error="no suitable node (insufficient resources on 1 node)")
    ask = {"Reservations": {"NanoCPUs": 5_000_000_000}}
    one = service(None, task={"Resources": ask}, **HOST_PORT)
    pending = Task.of({**pending.raw, "Spec": {**pending.raw["Spec"], "Resources": ask}})
    found = explain(one, pending, View(nodes, rooms(nodes, [pending], [one]), [one]))
    assert found.reason == "no node fits: a task needs 5 CPUs; free: n2 4 CPUs"


def test_an_update_that_was_stopped_says_so() -> None:
    found = halted(service(1, "paused", "update paused due to failure"))
    assert found is not None
    assert (found.code, found.reason) == ("update-paused", "update paused due to failure")
    found = halted(service(1, "rollback_paused"))
    assert found is not None
    assert found.reason == "the rollback was paused"
    assert halted(service(1, "updating")) is None


def test_what_is_on_its_way_says_how_far_it_is() -> None:
    checked = service(1, container={"Healthcheck": {"Test": ["CMD", "true"]}})
    state = {"Health": {"Log": [{"ExitCode": 1, "Output": "not yet"}]}}
    assert explained(checked, state="preparing").reason == "the image shop/web:1 is being pulled on n2"
    found = explained(checked, state="starting", evidence=Evidence(state=state))
    assert found.reason == "its health check has not passed yet on n2: not yet"
    lost = [node("n1"), node("n2", state="down")]
    found = explained(checked, state="starting", nodes=lost)
    assert found.reason == "n2 is down, and what runs there cannot be seen"


def test_a_slot_that_starts_again_is_explained_by_what_failed() -> None:
    failed = task(1, "failed", "shutdown", error="exit")
    again = task(1, "preparing", at="10:00:05")
    fine = task(2, at="10:00:03")
    assert troubled(service(2), [failed, again, fine]) == [failed]
    assert troubled(service(2), [again, fine]) == [again]
    assert troubled(service(2), [failed, task(1, at="10:00:09"), fine]) == []


def test_what_was_told_to_stop_is_no_trouble() -> None:
    assert troubled(service(1), [task(2, "shutdown", "shutdown"), task(1)]) == []


def test_work_that_has_ended_with_success_is_no_trouble_unless_it_was_to_go_on() -> None:
    ended = task(1, "complete", "shutdown")
    assert troubled(service(1), [ended]) == [ended]
    assert troubled(service(1, task={"RestartPolicy": {"Condition": "on-failure"}}), [ended]) == []
    assert troubled(job({"GlobalJob": {}}), [task(None, "complete", "complete", iteration=5)]) == []
    found = explain(service(1), ended, View(NODES), Evidence(log=["bye"]))
    assert (found.code, found.details) == ("ended", ("last lines of its log:", "  bye"))


def test_every_code_is_in_the_documentation() -> None:
    source = inspect.getsource(explain_module)
    codes = set(re.findall(r'explained\(\s*"([a-z-]+)"', source)) | {"no-secret", "no-config"}
    assert len(codes) > 15
    table = (Path(__file__).parents[2] / "docs/troubleshooting.md").read_text(encoding="utf-8")
    assert {code for code in codes if f"`{code}`" not in table} == set()
