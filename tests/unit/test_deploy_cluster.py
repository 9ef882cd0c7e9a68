"""The facts of a cluster, from what the engine tells of its nodes."""

from __future__ import annotations

from typing import Any

from swarmkit.deploy.cluster import Cluster, NodeFacts
from swarmkit.swarm import Node


def node(name: str, role: str = "worker", **more: Any) -> Node:
    return Node.of(
        {
            "ID": name,
            "Spec": {
                "Role": role,
                "Availability": more.get("availability", "active"),
                "Labels": more.get("labels"),
            },
            "Description": {"Hostname": name, "Resources": more.get("resources")},
            "Status": {"State": more.get("state", "ready"), "Addr": more.get("address", "")},
        }
    )


def test_a_node_has_its_name_address_labels_and_resources() -> None:
    raw = node(
        "host",
        "manager",
        labels={"swarmkit.host": "m1", "disk": "ssd"},
        resources={"NanoCPUs": 1_500_000_000, "MemoryBytes": 2**30},
        address="10.0.0.1",
    )
    expected = NodeFacts("m1", "manager", "10.0.0.1", {"disk": "ssd"}, 1.5, 2**30, True)
    assert Cluster.of([raw]).nodes == (expected,)


def test_totals_count_the_nodes_that_take_tasks() -> None:
    two = {"NanoCPUs": 2_000_000_000, "MemoryBytes": 2**30}
    cluster = Cluster.of(
        [
            node("m1", "manager", resources=two, labels={"zone": "a"}),
            node("w1", resources=two, labels={"zone": "b"}),
            node("w2", resources=two, state="down", labels={"zone": "b", "gpu": "1"}),
            node("w3", resources=two, availability="drain"),
            node("w4"),
        ]
    )
    assert (cluster.cpus, cluster.memory) == (4, 2 * 2**30)
    assert isinstance(cluster.cpus, int)
    assert [one.name for one in cluster.available] == ["m1", "w1", "w4"]
    assert [one.name for one in cluster.managers] == ["m1"]
    assert [one.name for one in cluster.workers] == ["w1", "w2", "w3", "w4"]
    assert cluster.labels == {"gpu": ["1"], "zone": ["a", "b"]}
