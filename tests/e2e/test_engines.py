"""The story on other engines than Debian 13's: on each release, and on a swarm of two of them.

The tests of a release run in the order of the file, on one lab; each begins where the one before ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Swarmkit, eventually
from tests.e2e.conftest import Lab, deploy_everything
from tests.e2e.test_story import answers, web, web_tasks

pytestmark = pytest.mark.soak

# The releases and the engines that they have. Unstable's moves on.
ENGINES = {"12": "20.10.", "sid": "2"}
OLDEST_OF_SID = 28
THREE = {"m1", "wn1", "wn2"}


@contextmanager
def bare_lab(swarmkit: Swarmkit, name: str, *releases: str) -> Iterator[Lab]:
    """A lab of bare machines, one a release, the first of them the manager; removed at the end."""
    try:
        for count, release in enumerate(releases, start=1):
            options = ("--name", name, "--bare", "--nodes", str(count), "--debian", release)
            found = swarmkit.json("lab", "up", *options)
        inventory = Path(found["inventory"])
        yield Lab(
            Swarmkit(swarmkit.environment, inventory, folder=swarmkit.folder),
            inventory,
            found["urls"]["balancer"],
            {node["name"]: node for node in found["nodes"]},
        )
    finally:
        swarmkit("lab", "down", "--name", name)


@pytest.fixture(scope="module", params=list(ENGINES))
def release(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def lab(docker_engine: None, swarmkit: Swarmkit, release: str) -> Iterator[Lab]:
    with bare_lab(swarmkit, f"swarmkit-engines-{release}", release, release, release) as made:
        yield made


@pytest.fixture
def sk(lab: Lab) -> Swarmkit:
    return lab.swarmkit


def running(sk: Swarmkit) -> int:
    return sum(task["state"] == "running" for task in web_tasks(sk))


def test_bare_machines_become_a_swarm_of_the_release_s_engine(release: str, sk: Swarmkit) -> None:
    report = sk.json("init")
    assert {action["status"] for action in report["actions"]} == {"done"}
    nodes = sk.json("status")["nodes"]
    assert {node["name"] for node in nodes} == THREE
    assert {(node["status"], node["availability"]) for node in nodes} == {("ready", "active")}
    engines = {node["engine"] for node in nodes}
    assert len(engines) == 1
    engine = engines.pop()
    assert engine.startswith(ENGINES[release])
    if release == "sid":
        assert int(engine.split(".")[0]) >= OLDEST_OF_SID
    assert sk.json("init")["changed"] == 0


def test_a_stack_comes_up_and_answers_from_several_nodes(lab: Lab, sk: Swarmkit) -> None:
    assert sk.json("stack", "up", "web")["converged"]
    seen = answers(lab)
    assert len(seen) == 3
    assert len({node for _, node in seen}) >= 2
    before = {task["address"] for task in web_tasks(sk)}
    assert sk.json("stack", "up", "web")["changed"] == 0
    assert {task["address"] for task in web_tasks(sk)} == before


def test_an_engine_keeps_all_that_it_is_sent(release: str, sk: Swarmkit) -> None:
    said = deploy_everything(sk)
    for newer in ("oom_score_adj", "healthcheck.start_interval", "volumes[].volume.subpath"):
        assert (f"service web: {newer}: ignored" in said) == (release == "12")


def test_it_scales(lab: Lab, sk: Swarmkit) -> None:
    assert sk.json("scale", "web=5")["converged"]
    assert running(sk) == 5
    eventually(lambda: len(answers(lab, 60)) == 5, 20, "all five tasks answer")


def test_an_update_that_fails_is_rolled_back(lab: Lab, sk: Swarmkit) -> None:
    before = {task["address"] for task in web_tasks(sk)}
    image = "image=registry.swarmkit.internal:5000/none/such:1"
    failed = sk("stack", "up", "web", "--set", "replicas=5", "--set", image, "-o", "json", code=4)
    assert failed.json["error"]["rolled_back"]
    assert {task["address"] for task in web_tasks(sk)} == before
    assert len(answers(lab)) > 1


def test_a_node_is_drained_and_activated(lab: Lab, sk: Swarmkit) -> None:
    sk("node", "drain", "wn2")
    assert {task["node"] for task in web_tasks(sk)} == {"m1", "wn1"}
    assert running(sk) == 5
    assert lab.shell("wn2", "docker ps -q").strip() == ""
    sk("node", "activate", "wn2")
    assert {node["availability"] for node in sk.json("node", "ls")} == {"active"}


def test_a_node_leaves_and_joins_again(lab: Lab, sk: Swarmkit) -> None:
    entry = lab.nodes["wn2"]
    sk("leave", "wn2")
    assert {node["name"] for node in sk.json("node", "ls")} == THREE - {"wn2"}
    assert web(sk)["running"] == 5
    sk(
        *("join", f"swarmkit@127.0.0.1:{entry['ssh_port']}", "--name", "wn2"),
        *("--private-address", entry["address"]),
    )
    assert {node["name"] for node in sk.json("node", "ls")} == THREE
    assert {node["status"] for node in sk.json("node", "ls")} == {"ready"}


def test_everything_comes_up_again_after_a_power_cut(
    swarmkit: Swarmkit, lab: Lab, sk: Swarmkit, release: str
) -> None:
    for switch in ("stop", "start"):
        for name in sorted(THREE):
            swarmkit("lab", switch, name, "--name", f"swarmkit-engines-{release}")

    def served() -> bool:
        try:
            return len(answers(lab, 10)) > 1
        except OSError:
            return False

    eventually(served, 120, "the site answers")
    eventually(lambda: web(sk)["running"] == 5, 60, "all replicas run")
    assert sk.json("init")["changed"] == 0


def test_down_and_reset_leave_nothing_of_the_stack_and_the_swarm(lab: Lab, sk: Swarmkit) -> None:
    sk("stack", "down", "web")
    for name in THREE:
        assert lab.shell(name, "docker ps -q --filter label=com.docker.stack.namespace=web").strip() == ""
    assert {action["host"] for action in sk.json("reset")["actions"]} == THREE
    for name in THREE:
        assert lab.shell(name, "docker info --format '{{.Swarm.LocalNodeState}}'").strip() == "inactive"


def test_a_swarm_of_two_engines_runs_a_stack_on_both(docker_engine: None, swarmkit: Swarmkit) -> None:
    with bare_lab(swarmkit, "swarmkit-engines-mixed", "13", "12") as lab:
        sk = lab.swarmkit
        sk("init")
        engines = {node["name"]: node["engine"] for node in sk.json("status")["nodes"]}
        assert engines["wn1"].startswith(ENGINES["12"])
        assert engines["m1"] != engines["wn1"]
        assert "engine-versions" in {finding["code"] for finding in sk.json("doctor")["findings"]}
        assert sk.json("stack", "up", "web")["converged"]
        assert {node for _, node in answers(lab)} == {"m1", "wn1"}
