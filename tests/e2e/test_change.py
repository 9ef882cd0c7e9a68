"""A cluster that changes: settings, roles, who belongs to it, and who may change it at a time.

The tests run in the order of the file, on one lab; each leaves the cluster as the next expects it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import Swarmkit, eventually
from tests.e2e.conftest import Lab

NAMES = ("m1", "wn1", "wn2")
LOG = {"log": {"driver": "local", "max_size": "5m", "max_file": 2}}


@pytest.fixture(scope="module")
def lab(machines: Callable[[int], Lab]) -> Lab:
    return machines(3)


@pytest.fixture(scope="module")
def path(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("change") / "inventory.yml"


@pytest.fixture
def sk(lab: Lab, path: Path) -> Swarmkit:
    return Swarmkit(lab.swarmkit.environment, path, folder=lab.swarmkit.folder)


@pytest.fixture
def write(path: Path, inventory: Callable[..., Path]) -> Callable[..., None]:
    """Puts another inventory in the place of the module's own."""

    def put(managers: int = 1, top: dict[str, Any] | None = None, **hosts: dict[str, Any]) -> None:
        path.write_text(inventory(managers=managers, top=top, **hosts).read_text())

    return put


@pytest.fixture(scope="module", autouse=True)
def taken_apart(lab: Lab, path: Path) -> Iterator[None]:
    yield
    for name in NAMES:
        lab.power("on", name)
    # Whatever a test has left, and whoever is in the inventory now.
    script = (
        "docker swarm leave --force >/dev/null 2>&1; "
        "rm -f /etc/docker/daemon.json*; systemctl reset-failed docker; systemctl restart docker"
    )
    for name in NAMES:
        lab.shell(name, script)


def nodes(sk: Swarmkit) -> dict[str, dict[str, Any]]:
    return {node["name"]: node for node in sk.json("node", "ls")}


def since(lab: Lab, name: str) -> str:
    return lab.shell(name, "systemctl show -p ActiveEnterTimestampMonotonic docker.service").strip()


def daemon(lab: Lab, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lab.shell(name, "cat /etc/docker/daemon.json"))
    return found


def test_settings_labels_and_availability_are_what_the_inventory_says(
    lab: Lab, sk: Swarmkit, write: Callable[..., None]
) -> None:
    lab.shell("wn1", "mkdir -p /etc/docker; echo '{\"shutdown-timeout\": 14}' >/etc/docker/daemon.json")
    top = {"engine": LOG, "swarm": {"data_path_port": 4790, "edge_subnet": "10.99.0.0/20"}}
    write(top=top, m1={}, wn1={"labels": {"disk": "ssd", "rack": 7}}, wn2={"availability": "pause"})
    assert sk.json("init")["changed"] > 0
    found = nodes(sk)
    assert {name: node["availability"] for name, node in found.items()} == {
        "m1": "active",
        "wn1": "active",
        "wn2": "pause",
    }
    assert {key: found["wn1"]["labels"][key] for key in ("disk", "rack")} == {"disk": "ssd", "rack": "7"}
    wanted = {"log-driver": "local", "log-opts": {"max-size": "5m", "max-file": "2"}}
    assert daemon(lab, "m1") == wanted
    assert daemon(lab, "wn1") == {"shutdown-timeout": 14, **wanted}
    assert lab.shell("wn2", "docker info --format '{{.LoggingDriver}}'").strip() == "local"
    info = json.loads(lab.shell("m1", "docker info --format '{{json .Swarm.Cluster}}'"))
    assert (info["DataPathPort"], info["Spec"]["Labels"]) == (4790, {"swarmkit.cluster": "trouble"})
    assert "10.99.0.0/20" in lab.shell("m1", "docker network inspect swarmkit-edge")
    assert sk.json("init")["changed"] == 0


def test_what_the_inventory_says_no_more_is_taken_back(sk: Swarmkit, write: Callable[..., None]) -> None:
    write(top={"engine": LOG}, m1={}, wn1={"labels": {"disk": "hdd"}}, wn2={"availability": "active"})
    report = sk.json("init")
    assert {action["host"] for action in report["actions"]} == {"wn1", "wn2"}
    found = nodes(sk)
    assert found["wn1"]["labels"]["disk"] == "hdd"
    assert "rack" not in found["wn1"]["labels"]
    assert found["wn2"]["availability"] == "active"
    assert sk.json("init")["changed"] == 0


def test_a_setting_that_engines_take_as_they_run_restarts_none(
    lab: Lab, sk: Swarmkit, write: Callable[..., None]
) -> None:
    before = {name: since(lab, name) for name in NAMES}
    mirrors = {"registry_mirrors": ["https://mirror.invalid"]}
    write(top={"engine": {**LOG, **mirrors}}, m1={}, wn1={"labels": {"disk": "hdd"}}, wn2={})
    assert sk.json("init")["changed"] == len(NAMES)
    assert {name: since(lab, name) for name in NAMES} == before
    assert "mirror.invalid" in lab.shell("wn2", "docker info --format '{{.RegistryConfig.Mirrors}}'")


def test_a_setting_that_needs_a_restart_is_made_node_by_node_and_drained(
    lab: Lab, sk: Swarmkit, write: Callable[..., None]
) -> None:
    before = {name: since(lab, name) for name in NAMES}
    more = {**LOG, "settings": {"max-concurrent-downloads": 4, "default-shm-size": "128M"}}
    write(top={"engine": more}, m1={}, wn1={"labels": {"disk": "hdd"}}, wn2={})
    report = sk.json("init")
    restarts = [action["host"] for action in report["actions"] if action["phase"] == "engine restart"]
    assert (restarts[-1], sorted(restarts)) == ("m1", sorted(NAMES))
    assert all(since(lab, name) != before[name] for name in NAMES)
    # What the inventory no longer asks for is not ours to remove.
    assert daemon(lab, "wn1")["registry-mirrors"] == ["https://mirror.invalid"]
    found = nodes(sk)
    assert {(node["status"], node["availability"]) for node in found.values()} == {("ready", "active")}
    assert not any("swarmkit.restart" in node["labels"] for node in found.values())
    assert sk.json("init")["changed"] == 0


def test_a_setting_that_the_engine_does_not_take_is_undone_and_spares_the_others(
    lab: Lab, sk: Swarmkit, write: Callable[..., None]
) -> None:
    before = {name: daemon(lab, name) for name in NAMES}
    m1_since = since(lab, "m1")
    write(top={"engine": {**LOG, "settings": {"no-such-key": 1}}}, m1={}, wn1={}, wn2={})
    error = sk("init", code=1).error
    assert "restarting the engine failed" in error
    assert "no-such-key" in error
    assert "the daemon.json of before is back" in error
    assert since(lab, "m1") == m1_since
    write(top={"engine": LOG}, m1={}, wn1={"labels": {"disk": "hdd"}}, wn2={})
    sk("init")
    found = nodes(sk)
    assert {(node["status"], node["availability"]) for node in found.values()} == {("ready", "active")}
    failed = next(name for name in NAMES if f"error: {name}: restarting" in error)
    assert daemon(lab, failed) == before[failed]


def test_workers_become_managers_in_the_swarm_and_in_the_file(lab: Lab, sk: Swarmkit, path: Path) -> None:
    sk("node", "promote", "wn1", "wn2")
    assert {name: node["role"] for name, node in nodes(sk).items()} == dict.fromkeys(NAMES, "manager")
    document = yaml.safe_load(path.read_text())
    assert ([host["name"] for host in document["managers"]], document["workers"]) == (list(NAMES), [])
    for name in ("wn1", "wn2"):
        assert "ca.key" in lab.shell(name, "ls /var/lib/swarmkit/ca")
    assert sk.json("init")["changed"] == 0
    assert "nothing to do" in sk("node", "promote", "wn1").stdout


def test_what_would_lose_the_majority_is_refused_with_the_arithmetic(lab: Lab, sk: Swarmkit) -> None:
    lab.power("off", "wn2")
    eventually(lambda: nodes(sk)["wn2"]["status"] == "down", 60, "the swarm sees that wn2 is down")
    for command in (("node", "demote", "wn1"), ("leave", "wn1")):
        error = sk(*command, code=2).error
        assert "now 2 of 3 reachable, and 2 needed; then 1 of 2 reachable, and 2 needed" in error
        assert "bring wn2 back first" in error
    assert {node["role"] for node in nodes(sk).values()} == {"manager"}


def test_init_does_what_it_can_while_a_machine_is_away(
    lab: Lab, sk: Swarmkit, path: Path, write: Callable[..., None]
) -> None:
    write(managers=3, top={"engine": LOG}, m1={}, wn1={"labels": {"disk": "nvme"}}, wn2={})
    done = sk("init", code=3)
    assert "wn2: swarmkit@127.0.0.1" in done.error
    assert nodes(sk)["wn1"]["labels"]["disk"] == "nvme"


def test_a_dead_manager_can_be_struck_off(lab: Lab, sk: Swarmkit, path: Path) -> None:
    sk("leave", "wn2")
    assert set(nodes(sk)) == {"m1", "wn1"}
    assert "wn2" not in path.read_text()
    lab.power("on", "wn2")


def test_a_machine_that_was_struck_off_while_it_was_away_comes_back(
    lab: Lab, sk: Swarmkit, write: Callable[..., None]
) -> None:
    write(managers=2, top={"engine": LOG}, m1={}, wn1={"labels": {"disk": "nvme"}}, wn2={})
    sk("init")
    found = nodes(sk)
    assert {name: node["role"] for name, node in found.items()} == {
        "m1": "manager",
        "wn1": "manager",
        "wn2": "worker",
    }
    assert "ca.key" not in lab.shell("wn2", "ls /var/lib/swarmkit/ca 2>/dev/null || true")


def test_a_manager_is_made_a_worker_again(lab: Lab, sk: Swarmkit, path: Path) -> None:
    sk("node", "demote", "wn1")
    assert nodes(sk)["wn1"]["role"] == "worker"
    assert [host["name"] for host in yaml.safe_load(path.read_text())["managers"]] == ["m1"]
    assert "m1 is the only manager" in sk("node", "demote", "m1", code=2).error
    assert sk.json("init")["changed"] == 0


def test_a_machine_that_was_made_anew_takes_the_place_of_its_old_self(lab: Lab, sk: Swarmkit) -> None:
    before = lab.shell("m1", "docker node ls -q").split()
    lab.shell(
        "wn1", "systemctl stop docker docker.socket; rm -rf /var/lib/docker/swarm; systemctl start docker"
    )
    report = sk.json("init")
    assert {action["phase"] for action in report["actions"]} >= {"dead nodes", "join"}
    assert set(nodes(sk)) == set(NAMES)
    assert len(lab.shell("m1", "docker node ls -q").split()) == len(before)
    assert sk.json("init")["changed"] == 0


def advertised(lab: Lab) -> str:
    # The managers list a worker under the address that its connection comes from, which may be another.
    return lab.shell("wn1", "docker info --format '{{.Swarm.NodeAddr}}'").strip()


def test_a_machine_with_a_new_address_joins_again_with_it(
    lab: Lab, sk: Swarmkit, write: Callable[..., None]
) -> None:
    old = lab.nodes["wn1"]["address"]
    new = old.rpartition(".")[0] + ".200"
    device = lab.shell("wn1", f"ip -o addr | awk '/{old}/ {{print $2}}'").strip()
    lab.shell("wn1", f"ip addr add {new}/24 dev {device}")
    try:
        labels = {"labels": {"disk": "nvme"}}
        write(top={"engine": LOG}, m1={}, wn1={**labels, "private_address": new}, wn2={})
        sk("init")
        assert advertised(lab) == new
        assert sk.json("init")["changed"] == 0
    finally:
        lab.shell("wn1", f"ip addr del {new}/24 dev {device}")
    write(top={"engine": LOG}, m1={}, wn1=labels, wn2={})
    sk("init")
    assert advertised(lab) == old
    assert set(nodes(sk)) == set(NAMES)


def test_nodes_that_the_file_has_no_more_are_named_and_pruned_when_asked(
    lab: Lab, sk: Swarmkit, write: Callable[..., None]
) -> None:
    write(top={"engine": LOG}, m1={}, wn1={"labels": {"disk": "nvme"}})
    done = sk("init")
    assert "in the swarm, and not in the inventory: wn2 (--prune" in done.stderr
    assert "wn2" in nodes(sk)
    sk("init", "--prune")
    assert set(nodes(sk)) == {"m1", "wn1"}
    # It has not been told: nobody could log in. It can be made a node again all the same.
    write(top={"engine": LOG}, m1={}, wn1={"labels": {"disk": "nvme"}}, wn2={})
    sk("init")
    assert set(nodes(sk)) == set(NAMES)


def test_two_operators_do_not_work_at_once(lab: Lab, sk: Swarmkit, write: Callable[..., None]) -> None:
    # As a command on another machine leaves it: held, and its process not to be seen from here.
    labels = ("who=ada@elsewhere", "machine=another", "process=1:1", "doing=join wn9")
    options = " ".join(f"--label 'swarmkit.lock.{label}'" for label in labels)
    lab.shell("m1", f"echo held | docker config create {options} swarmkit-lock -")
    write(top={"engine": LOG}, m1={}, wn1={"labels": {"disk": "tape"}}, wn2={})
    error = sk("init", code=1).error
    assert "the cluster is locked: ada@elsewhere has been at it since" in error
    assert "(swarmkit join wn9)" in error
    assert "waiting: ada@elsewhere" in sk("init", "--lock-wait", "1", code=1).stderr
    assert "the cluster is locked" in sk("reset", code=1).error
    assert nodes(sk)["wn1"]["labels"]["disk"] == "nvme"
    assert "breaking the lock of ada@elsewhere" in sk("init", "--break-lock").stderr
    assert nodes(sk)["wn1"]["labels"]["disk"] == "tape"
    assert lab.shell("m1", "docker config ls -q").strip() == ""


def test_a_node_that_leaves_says_which_volumes_stay_on_it(lab: Lab, sk: Swarmkit) -> None:
    lab.shell("wn2", "docker volume create precious")
    assert "wn2: drain" in sk("leave", "wn2", "--dry-run").stdout
    assert nodes(sk)["wn2"]["availability"] == "active"
    done = sk("leave", "wn2")
    assert "wn2: these volumes stay on the machine, and no other has them: precious" in done.stderr
    lab.shell("wn2", "docker volume rm precious")


def test_a_swarm_made_by_hand_is_adopted_when_asked(
    lab: Lab, sk: Swarmkit, write: Callable[..., None]
) -> None:
    sk("reset")
    lab.shell("m1", f"docker swarm init --advertise-addr {lab.nodes['m1']['address']}")
    write(m1={})
    assert "that swarmkit did not form" in sk("init", code=2).error
    sk("init", "--adopt")
    assert sk.json("init")["changed"] == 0
