"""Which tasks of a service are sent requests, and what is said where there is none."""

from __future__ import annotations

from typing import Any

import pytest

from swarmkit.balancer.upstreams import Endpoint, upstreams
from swarmkit.swarm import Node, Service, Task
from tests.unit.builders import node, service, task

NODES = [node("n1", labels={"swarmkit.host": "wn1"}), node("n2")]


def at(address: str, number: int | None = 1, network: str = "edge", **changed: Any) -> Task:
    """A task of the service `web` with an address on a network, and one on another before that."""
    made = task(number, **changed)
    attachments = [
        {"Network": {"ID": "other"}, "Addresses": ["192.0.2.1/24"]},
        {"Network": {"ID": network}, "Addresses": [f"{address}/22"]},
    ]
    return Task.of({**made.raw, "NetworksAttachments": attachments})


def found(*tasks: Task, of: Service | None = None, nodes: list[Node] = NODES) -> list[Endpoint]:
    return list(upstreams([of or service()], tasks, nodes, "edge")["web"].endpoints)


def addresses(*tasks: Task, nodes: list[Node] = NODES) -> list[str]:
    return [endpoint.address for endpoint in found(*tasks, nodes=nodes)]


def why(*tasks: Task, of: Service | None = None) -> str:
    return upstreams([of or service()], tasks, NODES, "edge")["web"].unreachable


def test_an_endpoint_is_a_task_s_address_on_the_edge_network() -> None:
    second, first = at("10.0.1.6", 2, on="n2"), at("10.0.1.5", 1, on="n1")
    assert found(second, first) == [
        Endpoint("10.0.1.5", first.id, "web.1", "wn1"),
        Endpoint("10.0.1.6", second.id, "web.2", "n2"),
    ]


def test_a_global_service_s_endpoints_are_called_after_their_nodes() -> None:
    assert [one.slot for one in found(at("10.0.1.5", None), of=service(None))] == ["web.wn1"]


@pytest.mark.parametrize(
    ("state", "desired"),
    [("running", "shutdown"), ("running", "remove"), ("starting", "running"), ("failed", "running")],
)
def test_a_task_that_does_not_run_or_is_to_stop_is_none(state: str, desired: str) -> None:
    assert addresses(at("10.0.1.5", 1, state=state, desired=desired), at("10.0.1.6", 2)) == ["10.0.1.6"]


@pytest.mark.parametrize("state", ["unknown", "disconnected"])
def test_nodes_that_a_new_leader_does_not_know_yet_keep_their_tasks(state: str) -> None:
    nodes = [node("n1", state=state), node("n2", state="ready")]
    assert addresses(at("10.0.1.5", 1), at("10.0.1.6", 2, on="n2"), nodes=nodes) == ["10.0.1.5", "10.0.1.6"]


def test_a_drained_node_keeps_its_tasks_until_they_are_to_stop() -> None:
    assert addresses(at("10.0.1.5"), nodes=[node("n1", Availability="drain")]) == ["10.0.1.5"]


def test_tasks_of_a_node_that_is_down_count_only_where_there_are_no_others() -> None:
    nodes = [node("n1", state="down"), node("n2")]
    both = [at("10.0.1.5", 1), at("10.0.1.6", 2, on="n2")]
    assert addresses(*both, nodes=nodes) == ["10.0.1.6"]
    assert addresses(both[0], nodes=nodes) == ["10.0.1.5"]


def test_an_address_that_is_none_is_left_out() -> None:
    assert addresses(at("; } evil {"), at("10.0.1.6", 2), at("2001:db8::1", 3)) == ["10.0.1.6", "2001:db8::1"]


@pytest.mark.parametrize(
    ("tasks", "of", "reason"),
    [
        ([], service(), "no task runs"),
        ([], service(0), "scaled to 0"),
        ([at("10.0.1.5", network="own")], service(), "not attached to the network swarmkit-edge"),
        (
            [task(1, "preparing"), task(2, "starting"), task(3, "preparing")],
            service(3),
            "no task runs yet (2 preparing, 1 starting)",
        ),
        ([task(1, "failed", "shutdown")], service(), "no task runs"),
    ],
)
def test_it_is_said_why_there_is_no_endpoint(tasks: list[Task], of: Service, reason: str) -> None:
    assert why(*tasks, of=of) == reason


def test_a_service_with_an_endpoint_is_reachable() -> None:
    assert why(at("10.0.1.5"), task(2, "starting")) == ""
