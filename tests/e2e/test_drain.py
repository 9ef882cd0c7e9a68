"""Draining, activating and rebalancing nodes: no task stops before its replacement runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Swarmkit, eventually
from tests.e2e.conftest import BOX, Lab, bring_box
from tests.e2e.cut import DEAD

ROOT = Path(__file__).resolve().parents[2]
HEALTHY = '{test: ["CMD", "sh", "-c", "exit 0"], interval: 1m, start_period: 10s, start_interval: 300ms}'
STACK = f"""
x-box: &box
  image: {BOX}
  command: [sleep, "100000"]
  stop_signal: SIGKILL
  healthcheck: {HEALTHY}
services:
  web:
    <<: *box
    deploy: {{replicas: 6}}
  slow:
    <<: *box
    deploy:
      replicas: 3
      update_config: {{order: start-first, parallelism: 1, delay: 1h}}
  careful:
    <<: *box
    deploy:
      replicas: 2
      update_config: {{order: stop-first}}
  stored:
    <<: *box
    volumes: ["data:/data"]
    deploy: {{placement: {{constraints: ["node.role==worker"]}}}}
  each:
    <<: *box
    deploy: {{mode: global}}
volumes: {{data: {{}}}}
"""
MOVES = ("s_web", "s_slow")
CREATE = "docker service create -q --detach --no-resolve-image --stop-signal KILL"


@pytest.fixture(scope="module")
def lab(machines: Callable[[int], Lab]) -> Iterator[Lab]:
    """A swarm with a stack of services that may, and may not, move one task after another."""
    found = machines(3)
    found.swarmkit("init")
    bring_box(found, "m1", "wn1", "wn2", programs="sh sleep")
    (found.swarmkit.folder / "s.yml").write_text(STACK)
    found.swarmkit("stack", "up", "s.yml", "--name", "s")
    found.shell("m1", f"{CREATE} --name pinned --constraint node.hostname==wn2 {BOX} sleep 100000")
    eventually(lambda: len(Tasks(found).up("pinned")) == 1, 30, "it runs")
    yield found
    found.swarmkit("reset")


@pytest.fixture
def sk(lab: Lab) -> Swarmkit:
    """The command, on nodes that are all active, with tasks spread evenly."""
    lab.swarmkit("node", "activate", "m1", "wn1", "wn2")
    lab.swarmkit("node", "rebalance")
    lab.swarmkit("stack", "up", "s.yml", "--name", "s")
    return lab.swarmkit


def docker(lab: Lab, *words: str) -> Any:
    text = lab.shell("m1", f"curl -s --unix-socket /run/docker.sock 'http://docker/v1.41/{''.join(words)}'")
    return json.loads(text)


def specs(lab: Lab) -> dict[str, Any]:
    """All the services' specs, as the swarm has them."""
    return {one["Spec"]["Name"]: one["Spec"] for one in docker(lab, "services")}


def node_specs(lab: Lab) -> dict[str, Any]:
    return {one["Description"]["Hostname"]: one["Spec"] for one in docker(lab, "nodes")}


class Tasks:
    """All tasks, as the swarm tells of them at one moment."""

    def __init__(self, lab: Lab) -> None:
        self.names = {one["ID"]: one["Spec"]["Name"] for one in docker(lab, "services")}
        self.nodes = {one["ID"]: one["Description"]["Hostname"] for one in docker(lab, "nodes")}
        self.all = {one["ID"]: one for one in docker(lab, "tasks") if one["ServiceID"] in self.names}

    def service(self, task: str) -> str:
        return str(self.names[self.all[task]["ServiceID"]])

    def node(self, task: str) -> str:
        return str(self.nodes.get(self.all[task].get("NodeID", ""), ""))

    def up(self, *services: str) -> set[str]:
        return {
            key
            for key, one in self.all.items()
            if one["DesiredState"] == one["Status"]["State"] == "running" and self.service(key) in services
        }

    def spread(self, service: str) -> dict[str, int]:
        return dict(Counter(self.node(key) for key in self.up(service)))

    def slot(self, task: str) -> tuple[str, int]:
        return self.service(task), self.all[task].get("Slot", 0)

    def since(self, task: str) -> str:
        """When it came into its present state, by its node's clock (here all nodes have one clock)."""
        return str(self.all[task]["Status"]["Timestamp"])


def moved_without_a_gap(before: Tasks, after: Tasks, *services: str) -> set[str]:
    """The tasks that went; each stopped only after another had come to run in its slot."""
    gone = before.up(*services) - after.up(*services)
    now = {after.slot(key): key for key in after.up(*services)}
    for key in gone:
        if key in after.all:
            assert after.since(now[before.slot(key)]) < after.since(key), f"{before.slot(key)} had a gap"
    assert len(after.up(*services)) == len(before.up(*services))
    return gone


def no_trace(lab: Lab, was: dict[str, Any]) -> None:
    assert specs(lab) == was
    assert all("swarmkit.move" not in one["Labels"] for one in node_specs(lab).values())


def cut(sk: Swarmkit, writes: int, *arguments: str) -> None:
    """Run a command that dies after so many writes, or comes to its end before."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.cut", str(writes), "-i", str(sk.inventory), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=sk.environment,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode in (0, DEAD), done.stderr


def test_the_plan_says_who_moves_and_who_has_a_gap_and_why(lab: Lab, sk: Swarmkit) -> None:
    was, nodes = specs(lab), node_specs(lab)
    plan = sk.json("node", "drain", "wn2", "--dry-run")
    assert {one["service"] for one in plan["moves"]} == {"s_slow", "s_web"}
    assert {one["service"]: one["tasks"] for one in plan["moves"]}["s_web"] == 2
    gaps = {one["service"]: one["code"] for one in plan["gaps"]}
    assert gaps["s_each"] == "global"
    assert gaps["pinned"] == "no-place"
    assert gaps.get("s_careful", "stop-first") == "stop-first"
    assert gaps.get("s_stored", "storage") == "storage"
    sk("node", "drain", "wn2", "--dry-run", "--detailed-exitcode", code=5)
    assert (specs(lab), node_specs(lab)) == (was, nodes)


def test_moby_34139_a_drain_moves_the_node_s_tasks_alone_each_after_its_replacement_runs(
    lab: Lab, sk: Swarmkit
) -> None:
    was, before = specs(lab), Tasks(lab)
    done = sk.json("node", "drain", "wn2")
    assert (done["nodes"], done["changed"]) == (["wn2"], 1)
    after = Tasks(lab)
    gone = moved_without_a_gap(before, after, *MOVES)
    assert gone == {key for key in before.up(*MOVES) if before.node(key) == "wn2"}, "no other was touched"
    assert lab.shell("wn2", "docker ps -q").strip() == ""
    no_trace(lab, was)
    assert sk.json("stack", "up", "s.yml", "--name", "s")["changed"] == 0
    assert sk.json("node", "drain", "wn2")["changed"] == 0
    assert Tasks(lab).up(*MOVES) == after.up(*MOVES)


def test_moby_24103_a_rebalance_spreads_evenly_without_a_gap_and_keeps_slots(lab: Lab, sk: Swarmkit) -> None:
    sk("node", "drain", "wn2")
    sk("node", "activate", "wn2")
    was, before = specs(lab), Tasks(lab)
    planned = sk.json("node", "rebalance", "web", "--dry-run")["services"][0]
    assert planned["after"] == {"m1": 2, "wn1": 2, "wn2": 2}
    assert specs(lab) == was
    done = sk.json("node", "rebalance", "web")
    after = Tasks(lab)
    assert after.spread("s_web") == {"m1": 2, "wn1": 2, "wn2": 2} == done["services"][0]["after"]
    assert len(moved_without_a_gap(before, after, *MOVES)) == 2 == planned["moved"]
    assert {after.slot(key) for key in after.up("s_web")} == {("s_web", slot) for slot in range(1, 7)}
    no_trace(lab, was)
    index = docker(lab, "services/s_web")["Version"]
    assert sk.json("node", "rebalance", "web")["changed"] == 0
    assert docker(lab, "services/s_web")["Version"] == index, "nothing to do, nothing written"
    assert sk.json("stack", "up", "s.yml", "--name", "s")["changed"] == 0


def test_what_cannot_run_elsewhere_stays_and_all_is_as_before(lab: Lab, sk: Swarmkit) -> None:
    lab.shell("wn2", f"docker tag {BOX} 127.0.0.1:1/here:1")
    lab.shell(
        "m1",
        f"{CREATE} --name here --constraint node.hostname==wn2 --restart-delay 1s "
        "127.0.0.1:1/here:1 sleep 100000",
    )
    eventually(lambda: len(Tasks(lab).up("here")) == 1, 30, "it runs")
    lab.shell("m1", "docker service update -q --detach --constraint-rm node.hostname==wn2 here")
    was, before = specs(lab), Tasks(lab)
    try:
        failed = sk("node", "drain", "wn2", "-o", "json", code=4)
        assert failed.json["errors"][0]["where"] == "here"
        assert failed.json["errors"][0]["rolled_back"]
        assert "as before" in failed.stderr
        no_trace(lab, was)
        assert node_specs(lab)["wn2"]["Availability"] == "active"
        assert Tasks(lab).up("here") == before.up("here")
        moved_without_a_gap(before, Tasks(lab), *MOVES)
    finally:
        lab.shell("m1", "docker service rm here")


FAST_POINTS = [(4, ("node", "drain", "wn2")), (5, ("node", "activate", "wn2"))]
ENDINGS = [
    ("node", "drain", "wn2"),
    ("node", "drain", "wn1"),
    ("node", "activate", "wn2"),
    ("node", "rebalance"),
    ("stack", "up", "s.yml", "--name", "s"),
]
ALL_POINTS = [(writes, ending) for writes in range(1, 10) for ending in ENDINGS]


@pytest.mark.parametrize(
    ("writes", "then"),
    [
        *FAST_POINTS,
        *(pytest.param(*one, marks=pytest.mark.soak) for one in ALL_POINTS if one not in FAST_POINTS),
    ],
)
def test_a_drain_that_was_killed_is_gone_on_with_or_undone(
    lab: Lab, sk: Swarmkit, writes: int, then: tuple[str, ...]
) -> None:
    was, before = specs(lab), Tasks(lab)
    cut(sk, writes, "node", "drain", "wn2")
    sk(*then)
    assert specs(lab) == was
    moved_without_a_gap(before, Tasks(lab), *MOVES)
    held = {name: spec for name, spec in node_specs(lab).items() if "swarmkit.move" in spec["Labels"]}
    # A node that was paused stays so until somebody says what is to become of it; it is said.
    assert held.keys() <= ({"wn2"} if then[-1] != "wn2" else set())
    if then == ("node", "drain", "wn2"):
        assert lab.shell("wn2", "docker ps -q").strip() == ""
    sk("node", "activate", "wn2")
    no_trace(lab, was)
    assert node_specs(lab)["wn2"]["Availability"] == "active"


@pytest.mark.soak
@pytest.mark.parametrize(
    "then", [("node", "rebalance"), ("node", "activate", "m1"), ("node", "drain", "wn1")]
)
@pytest.mark.parametrize("writes", range(1, 12))
def test_a_rebalance_that_was_killed_is_gone_on_with_or_undone(
    lab: Lab, sk: Swarmkit, writes: int, then: tuple[str, ...]
) -> None:
    sk("node", "drain", "wn2")
    sk("node", "activate", "wn2")
    was, before = specs(lab), Tasks(lab)
    cut(sk, writes, "node", "rebalance")
    sk(*then)
    no_trace(lab, was)
    moved_without_a_gap(before, Tasks(lab), *MOVES)
    assert {node_specs(lab)[name]["Availability"] for name in ("m1", "wn2")} == {"active"}
    if then == ("node", "rebalance"):
        assert Tasks(lab).spread("s_web") == {"m1": 2, "wn1": 2, "wn2": 2}
