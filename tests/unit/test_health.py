"""How a swarm is doing: judged from what its managers tell."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkit.cluster.facts import HostFacts, SwarmMembership
from swarmkit.cluster.findings import Finding
from swarmkit.cluster.health import (
    Certificate,
    SwarmView,
    certificate,
    certificates,
    judge_certificates,
    judge_swarm,
    span,
)
from swarmkit.images.ca import Authority
from swarmkit.names import HOST_LABEL, MOVE_LABEL
from swarmkit.swarm import Node, Service, Task
from tests.unit.test_preflight import HOSTS, sound

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


def at(seconds_ago: float) -> str:
    return (NOW - timedelta(seconds=seconds_ago)).isoformat()


def node(name: str, role: str = "worker", **changed: Any) -> Node:
    status = {"State": changed.get("state", "ready"), "Message": changed.get("message", "")}
    manager = {"Reachability": changed.get("reachability", "reachable")}
    return Node.of(
        {
            "ID": f"id-{name}",
            "UpdatedAt": at(changed.get("since", 0)),
            "Spec": {
                "Role": role,
                "Availability": changed.get("availability", "active"),
                "Labels": {HOST_LABEL: name, **changed.get("labels", {})},
            },
            "Description": {"Engine": {"EngineVersion": changed.get("engine", "26.1.5")}},
            "Status": status,
            **({"ManagerStatus": manager} if role == "manager" else {}),
        }
    )


def service(name: str = "web", running: int = 1, desired: int = 1, **spec: Any) -> Service:
    template = {"ContainerSpec": {"Image": "x"}, **spec.pop("TaskTemplate", {})}
    return Service.of(
        {
            "ID": f"id-{name}",
            "Spec": {
                "Name": name,
                "Mode": {"Replicated": {"Replicas": desired}},
                "TaskTemplate": template,
                **spec,
            },
            "ServiceStatus": {"RunningTasks": running, "DesiredTasks": desired},
        }
    )


def task(state: str = "running", ago: float = 0, **changed: Any) -> Task:
    """A task of `web`, in its state since `ago` seconds."""
    desired = "running" if state in ("running", "pending") else "shutdown"
    return Task.of(
        {
            "ID": f"task-{state}-{ago}",
            "ServiceID": "id-web",
            "Slot": changed.get("slot", 1),
            "NodeID": "id-w1",
            "Spec": {},
            "DesiredState": changed.get("desired", desired),
            "CreatedAt": at(ago + 1),
            "Status": {"State": state, "Timestamp": at(ago), "Err": changed.get("error", "")},
        }
    )


THREE = (node("m1", "manager"), node("w1"), node("w2"))


def view(
    nodes: Sequence[Node] = THREE,
    services: Sequence[Service] = (),
    tasks: Sequence[Task] = (),
    networks: Sequence[Mapping[str, Any]] = (),
    swarm: Mapping[str, Any] | None = None,
) -> SwarmView:
    return SwarmView(nodes, services, tasks, networks, swarm or {}, NOW)


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


def managers(count: int, away: int = 0) -> list[Node]:
    return [
        node(f"m{number}", "manager", reachability="unreachable" if number < away else "reachable")
        for number in range(count)
    ]


def test_a_swarm_that_is_well_has_no_findings() -> None:
    assert judge_swarm(view(services=[service()], tasks=[task(ago=500)])) == []


@pytest.mark.parametrize(
    ("count", "away", "code", "words"),
    [
        (1, 0, None, ""),
        (3, 0, None, ""),
        (3, 1, "quorum-at-edge", "2 of 3 managers reachable (not m0): quorum at its edge"),
        (5, 1, "manager-unreachable", "4 of 5 managers reachable (not m0): 1 more may fail"),
        (5, 2, "quorum-at-edge", "3 of 5 managers reachable (not m0, m1)"),
        (3, 2, "quorum-lost", "1 of 3 managers reachable (not m0, m1), and 2 must agree"),
        (2, 1, "quorum-lost", "1 of 2 managers reachable (not m0), and 2 must agree"),
        (2, 0, "even-managers", "none may fail"),
        (4, 0, "even-managers", "4 managers bear the loss of 1, as 3 do"),
    ],
)
def test_quorum_is_told_by_the_arithmetic(count: int, away: int, code: str | None, words: str) -> None:
    findings = judge_swarm(view(managers(count, away)))
    assert [one.code for one in findings] == ([code] if code else [])
    assert all(words in one.message for one in findings)


@given(st.integers(1, 15))
def test_as_many_managers_may_fail_as_leave_more_than_half(count: int) -> None:
    may_fail = view(managers(count)).quorum.spare
    assert (count - may_fail) * 2 > count
    assert (count - may_fail - 1) * 2 <= count


def test_a_node_that_is_down_is_named_with_the_time_since() -> None:
    down = node("w1", state="down", since=190, message="heartbeat failure")
    finding = only(judge_swarm(view((THREE[0], down))))
    assert (finding.code, finding.host) == ("node-down", "w1")
    assert finding.message == "the node is down, for 3 minutes (since 2026-05-04 11:56:50): heartbeat failure"


def test_a_drained_node_is_only_noted() -> None:
    finding = only(judge_swarm(view((THREE[0], node("w1", availability="drain")))))
    assert (finding.code, finding.severity.value) == ("node-not-active", "note")


def test_a_node_that_a_drain_has_left_paused_is_told_with_the_way_back() -> None:
    left = node("w1", availability="pause", labels={MOVE_LABEL: "drain/active"})
    finding = only(judge_swarm(view((THREE[0], left))))
    assert "cut off" in finding.message
    assert "swarmkit node activate w1" in finding.hint


def test_engines_that_differ_are_told_with_who_has_which() -> None:
    mixed = (THREE[0], node("w1", engine="20.10.24"), node("w2", engine="20.10.24"))
    finding = only(judge_swarm(view(mixed)))
    assert finding.code == "engine-versions"
    assert finding.message.endswith("20.10.24 on w1, w2; 26.1.5 on m1")
    gone = (THREE[0], node("w1", engine="20.10.24", state="down"))
    assert [one.code for one in judge_swarm(view(gone))] == ["node-down"]


def test_a_service_that_no_node_may_run_is_named_with_the_reason_and_its_rules() -> None:
    picky = service(running=0, TaskTemplate={"Placement": {"Constraints": ["node.labels.gpu==1"]}})
    waiting = task("pending", error="no suitable node (scheduling constraints not satisfied on 3 nodes)")
    finding = only(judge_swarm(view(services=[picky], tasks=[waiting])))
    assert (finding.code, finding.host) == ("unplaceable", "web")
    assert "no suitable node" in finding.message
    assert "node.labels.gpu==1" in finding.message


FAILED = [task("failed", ago, error="task: non-zero exit (3)") for ago in (300, 200, 100)]


def test_a_task_that_ends_again_and_again_is_named_with_its_last_error() -> None:
    finding = only(judge_swarm(view(services=[service(running=0)], tasks=FAILED)))
    assert finding.code == "crash-loop"
    assert finding.message == (
        "tasks ended 3 times within 10 minutes, last 1 minute ago: task: non-zero exit (3)"
    )


def test_a_service_whose_program_ends_well_again_and_again_loops_too() -> None:
    ended = [task("complete", ago) for ago in (300, 200, 100)]
    assert "exit code 0" in only(judge_swarm(view(services=[service(running=0)], tasks=ended))).message


@pytest.mark.parametrize(
    "tasks",
    [
        FAILED[:2],
        [task("failed", ago + 3600) for ago in (300, 200, 100)],
        [*FAILED, task("running", ago=70)],
        [task("failed", 100, slot=slot) for slot in (1, 2, 3)],
        [task("shutdown", ago) for ago in (300, 200, 100)],
    ],
    ids=["too few", "long ago", "holds again", "each only once", "told to stop"],
)
def test_what_is_no_loop_is_not_called_one(tasks: list[Task]) -> None:
    assert judge_swarm(view(services=[service()], tasks=tasks)) == []


def test_a_loop_is_not_over_because_a_task_has_just_begun() -> None:
    tasks = [*FAILED, task("running", ago=5)]
    assert only(judge_swarm(view(services=[service()], tasks=tasks))).code == "crash-loop"


def test_jobs_may_end() -> None:
    job = service(Mode={"ReplicatedJob": {}}, running=0)
    assert judge_swarm(view(services=[job], tasks=[task("complete", ago) for ago in (3, 2, 1)])) == []


def test_tasks_that_are_missing_are_told_of_where_nothing_explains_it() -> None:
    assert only(judge_swarm(view(services=[service(running=1, desired=3)]))).code == "tasks-missing"
    tasks = [task("pending", error="no suitable node")]
    assert only(judge_swarm(view(services=[service(running=0)], tasks=tasks))).code == "unplaceable"


def test_an_update_that_stands_still_is_told_of() -> None:
    paused = service()
    paused = replace(
        paused, raw={**paused.raw, "UpdateStatus": {"State": "paused", "Message": "task failed"}}
    )
    assert only(judge_swarm(view(services=[paused]))).message == "its update stands still: task failed"


def member(name: str, **changed: Any) -> HostFacts:
    host = next(one for one in HOSTS if one.name == name)
    return sound(host, swarm=SwarmMembership("active", f"id-{name}"), **changed)


FACTS = {host.name: member(host.name) for host in HOSTS}


def test_a_machine_that_is_no_node_and_a_node_that_is_no_machine_of_ours_are_told_of() -> None:
    nodes = (THREE[0], THREE[1], node("stranger"))
    findings = judge_swarm(view(nodes), HOSTS, FACTS)
    assert {(one.code, one.host, one.severity.value) for one in findings} == {
        ("not-a-node", "w2", "error"),
        ("foreign-node", "stranger", "note"),
    }


def test_a_machine_that_could_not_be_looked_at_is_a_node_by_its_name() -> None:
    assert judge_swarm(view(), HOSTS, {"m1": FACTS["m1"]}) == []


NO_IPVS = FACTS | {"w1": member("w1", has_ipvs=False)}
NETWORK = {"TaskTemplate": {"Networks": [{"Target": "n"}]}}


@pytest.mark.parametrize(
    ("spec", "severity"),
    [
        ({"EndpointSpec": {"Ports": [{"PublishedPort": 80}]}}, "error"),
        ({"EndpointSpec": {"Ports": [{"PublishedPort": 80, "PublishMode": "ingress"}]}}, "error"),
        (NETWORK, "warning"),
        ({"EndpointSpec": {"Mode": "dnsrr"}, **NETWORK}, None),
        ({"EndpointSpec": {"Mode": "dnsrr", "Ports": [{"PublishedPort": 80, "PublishMode": "host"}]}}, None),
        ({}, None),
    ],
)
def test_a_service_that_needs_ipvs_is_named_where_a_node_has_none(
    spec: dict[str, Any], severity: str | None
) -> None:
    findings = judge_swarm(view(services=[service(**spec)]), HOSTS, NO_IPVS)
    assert [(one.code, one.host, one.severity.value) for one in findings] == (
        [("no-ipvs", "web", severity)] if severity else []
    )
    assert judge_swarm(view(services=[service(**spec)]), HOSTS, FACTS) == []


def test_the_swarms_own_settings_are_read() -> None:
    option = "com.docker.network.driver.mtu"
    networks = [
        {"Driver": "overlay", "Options": {option: "1400"}},
        {"Driver": "overlay", "Options": {option: "large"}},
        {"Driver": "bridge", "Options": {option: "9000"}},
    ]
    assert view(networks=networks).packet_size == 1400
    assert view(networks=[{"Driver": "overlay", "Options": None}]).packet_size == 1500
    assert view().packet_size == 1500
    assert (view().data_path_port, view(swarm={"DataPathPort": 5000}).data_path_port) == (4789, 5000)


def life(kind: str, days: float, left: float) -> Certificate:
    ends = NOW + timedelta(days=left)
    return Certificate("w1", kind, ends - timedelta(days=days), ends)


@pytest.mark.parametrize(
    ("one", "code", "severity"),
    [
        (life("node", 90, 19), None, None),
        (life("node", 90, 17), "certificate-expiring", "error"),
        (life("node", 1 / 24, 1 / 48), None, None),
        (life("node", 90, -1), "certificate-expired", "error"),
        (life("swarm", 7300, 31), None, None),
        (life("swarm", 7300, 29), "certificate-expiring", "warning"),
        (life("client", 3650, 3), "certificate-expiring", "error"),
        (life("server", 3650, -400), "certificate-expired", "error"),
    ],
)
def test_certificates_are_judged_by_who_renews_them(
    one: Certificate, code: str | None, severity: str | None
) -> None:
    found = [(finding.code, finding.severity.value) for finding in judge_certificates([one], NOW)]
    assert found == ([(code, severity)] if code else [])


def test_certificates_are_read_from_what_the_host_prints() -> None:
    issued = Authority.make(NOW).issue_client("w1", NOW)
    text = base64.b64encode(issued.certificate.encode()).decode()
    printed = f"hostname=w1\ncertificate.client={text}\ncertificate.node=\ncertificate.server=%%\n"
    (found,) = certificates("w1", printed)
    assert (found.host, found.kind) == ("w1", "client")
    assert found.ends.year == NOW.year + 10
    assert certificate("", "swarm", b"") == []


@given(st.text(max_size=80))
def test_no_output_stops_the_reading_of_certificates(noise: str) -> None:
    assert certificates("w1", f"certificate.node={noise}") == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 seconds"),
        (1, "1 second"),
        (59.9, "59 seconds"),
        (60, "1 minute"),
        (7300, "2 hours"),
        (1e6, "11 days"),
    ],
)
def test_a_stretch_of_time_is_told_in_one_unit(seconds: float, text: str) -> None:
    assert span(timedelta(seconds=seconds)) == text
