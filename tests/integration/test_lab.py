"""A lab on a real engine, through the command: one lab of bare nodes that lives through it all."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from swarmkit.errors import Exit
from swarmkit.inventory import load
from swarmkit.lab.engine import find, names
from swarmkit.lab.find import running
from tests.conftest import Swarmkit

if TYPE_CHECKING:
    from docker import DockerClient

NAME = f"lab-test-{os.getpid()}"


@pytest.fixture(scope="module")
def client(docker_engine: None) -> Iterator[DockerClient]:
    from swarmkit.lab.engine import connect

    connected = connect()
    yield connected
    connected.close()


@pytest.fixture(scope="module")
def lab(swarmkit: Swarmkit, client: DockerClient) -> Iterator[dict[str, Any]]:
    """The lab as `lab up` tells of it; it is removed at the end whatever has become of it."""
    try:
        yield swarmkit.json("lab", "up", "--bare", "--nodes", "2", "--name", NAME)
    finally:
        swarmkit("lab", "down", "--name", NAME)


def ssh(lab: dict[str, Any], node: str, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command by OpenSSH with what the lab's folder holds, and nothing of the user's."""
    folder = Path(lab["inventory"]).parent
    port = next(each["ssh_port"] for each in lab["nodes"] if each["name"] == node)
    options = [
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "GlobalKnownHostsFile=none",
        f"UserKnownHostsFile={folder / 'known_hosts'}",
    ]
    return subprocess.run(
        [
            *("ssh", "-F", "none", "-i", str(folder / "id_ed25519"), "-p", str(port)),
            *(word for option in options for word in ("-o", option)),
            *("swarmkit@127.0.0.1", command),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def left(client: DockerClient) -> list[str]:
    """What there is on the engine of the lab."""
    label: dict[str, str | list[str] | bool] = {"label": f"swarmkit.lab={NAME}"}
    return [
        *(str(each.name) for each in client.containers.list(all=True, filters=label)),
        *(str(each.name) for each in client.networks.list(filters=label)),
        *(str(each.name) for each in client.volumes.list(filters=label)),
    ]


def fixed(document: dict[str, Any]) -> list[tuple[str, str, int]]:
    return [(each["name"], each["address"], each["ssh_port"]) for each in document["nodes"]]


def test_a_new_lab_has_nodes_that_the_inventory_describes(lab: dict[str, Any]) -> None:
    assert lab["name"] == NAME
    assert lab["changed"] == 2
    assert [(node["name"], node["role"], node["status"]) for node in lab["nodes"]] == [
        ("m1", "manager", "running"),
        ("wn1", "worker", "running"),
    ]
    inventory = load(Path(lab["inventory"]))
    assert [(host.name, host.private_address, host.port) for host in inventory.hosts] == fixed(lab)
    assert inventory.entry == lab["urls"]["balancer"]


def test_nodes_are_bare_systems_of_their_own_that_let_the_lab_s_key_in(lab: dict[str, Any]) -> None:
    script = "hostname; cat /etc/machine-id; sudo -n id -un; command -v docker || echo no engine"
    answers = [ssh(lab, node, script) for node in ("m1", "wn1")]
    assert [answer.returncode for answer in answers] == [0, 0], answers
    lines = [answer.stdout.splitlines() for answer in answers]
    assert [each[0] for each in lines] == ["m1", "wn1"]
    assert len({each[1] for each in lines}) == 2
    assert [each[2:] for each in lines] == [["root", "no engine"]] * 2
    keys = [
        line.split()[2] for line in Path(lab["inventory"]).with_name("known_hosts").read_text().splitlines()
    ]
    assert len(set(keys)) == 2


def test_nodes_reach_each_other_and_resolve_names(lab: dict[str, Any]) -> None:
    other = lab["nodes"][1]["address"]
    greeting = ssh(lab, "m1", f"timeout 5 bash -c 'head -c 4 </dev/tcp/{other}/22'")
    assert greeting.stdout == "SSH-", greeting
    # By the node's own address: containers inside a node cannot use its loopback.
    servers = ssh(lab, "m1", "grep ^nameserver /etc/resolv.conf; getent hosts wn1")
    assert servers.stdout.split() == ["nameserver", lab["nodes"][0]["address"], other, "wn1"], servers


def test_nothing_but_the_key_opens_a_node(lab: dict[str, Any]) -> None:
    effective = ssh(lab, "m1", "sudo sshd -T").stdout.splitlines()
    assert {"passwordauthentication no", "kbdinteractiveauthentication no", "permitrootlogin no"} <= set(
        effective
    )


def test_up_again_changes_nothing_and_is_quick(swarmkit: Swarmkit, lab: dict[str, Any]) -> None:
    start = time.monotonic()
    again = swarmkit.json("lab", "up", "--name", NAME)
    assert time.monotonic() - start < 2
    assert again["changed"] == 0
    assert fixed(again) == fixed(lab)
    assert "nothing to do" in swarmkit("lab", "up", "--bare", "--nodes", "2", "--name", NAME).stdout


def test_labs_are_listed(swarmkit: Swarmkit, lab: dict[str, Any]) -> None:
    shown = swarmkit.json("lab", "ls", NAME)
    assert shown["nodes"] == lab["nodes"]
    assert shown in swarmkit.json("lab", "ls")


def test_a_running_lab_is_found_for_guessing(
    swarmkit: Swarmkit, lab: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWARMKIT_HOME", swarmkit.environment["SWARMKIT_HOME"])
    assert (NAME, lab["inventory"]) in [(each.name, str(each.inventory)) for each in running()]
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    assert running() == []


def test_ssh_runs_a_command_with_its_words_and_status(swarmkit: Swarmkit, lab: dict[str, Any]) -> None:
    done = swarmkit("lab", "ssh", "wn1", "--name", NAME, "--", "sh", "-c", "echo 'a  b'; exit 7", code=7)
    assert done.stdout == "a  b\n"


def test_what_does_not_exist_is_said_with_what_does(swarmkit: Swarmkit, lab: dict[str, Any]) -> None:
    assert "it has: m1, wn1" in swarmkit("lab", "stop", "wn7", "--name", NAME, code=Exit.USAGE).error
    assert NAME in swarmkit("lab", "stop", "m1", "--name", "other", code=Exit.USAGE).error
    assert "2 nodes already" in swarmkit("lab", "up", "--nodes", "1", "--name", NAME, code=Exit.USAGE).error


def test_a_node_keeps_its_place_and_its_files_over_stop_and_start(
    swarmkit: Swarmkit, lab: dict[str, Any]
) -> None:
    before = ssh(
        lab, "wn1", "echo 192.0.2.9 kept | sudo tee -a /etc/hosts >/dev/null; cat /etc/machine-id"
    ).stdout
    swarmkit("lab", "stop", "wn1", "--name", NAME)
    stopped = swarmkit.json("lab", "ls", NAME)
    assert [node["status"] for node in stopped["nodes"]] == ["running", "stopped"]
    assert "nothing to do" in swarmkit("lab", "stop", "wn1", "--name", NAME).stdout
    assert "switched off" in swarmkit("lab", "ssh", "wn1", "--name", NAME, code=Exit.USAGE).error
    swarmkit("lab", "start", "wn1", "--name", NAME)
    assert fixed(swarmkit.json("lab", "ls", NAME)) == fixed(lab)
    after = ssh(lab, "wn1", "cat /etc/machine-id; getent hosts 192.0.2.9; tail -n 1 /etc/hosts")
    assert after.stdout.splitlines() == [before.strip(), "192.0.2.9       kept", "192.0.2.9 kept"], after


def test_up_starts_what_is_stopped(swarmkit: Swarmkit, lab: dict[str, Any]) -> None:
    swarmkit("lab", "stop", "m1", "--name", NAME)
    again = swarmkit.json("lab", "up", "--name", NAME)
    assert again["changed"] == 1
    assert fixed(again) == fixed(lab)
    assert ssh(lab, "m1", "true").returncode == 0


def test_a_node_that_reboots_comes_up_again(lab: dict[str, Any]) -> None:
    # When the first process was started (proc_pid_stat(5)).
    started = "cut -d ' ' -f 22 /proc/1/stat"
    before = ssh(lab, "wn1", started).stdout
    ssh(lab, "wn1", "sudo reboot")
    deadline = time.monotonic() + 60
    while (answer := ssh(lab, "wn1", started)).returncode != 0 or answer.stdout == before:
        assert time.monotonic() < deadline, answer
        time.sleep(0.2)


def test_a_lab_grows_and_the_user_s_inventory_stays(
    swarmkit: Swarmkit, client: DockerClient, lab: dict[str, Any]
) -> None:
    inventory = Path(lab["inventory"])
    inventory.write_text(inventory.read_text().replace("managers:", "# mine\nmanagers:"))
    grown = swarmkit.json("lab", "up", "--nodes", "3", "--name", NAME)
    assert grown["changed"] == 1
    assert fixed(grown)[:2] == fixed(lab)
    assert "# mine" in inventory.read_text()
    assert [host.name for host in load(inventory).hosts] == ["m1", "wn1", "wn2"]
    assert ssh(grown, "wn2", "hostname").stdout == "wn2\n"


def test_a_half_made_lab_is_completed(swarmkit: Swarmkit, client: DockerClient, lab: dict[str, Any]) -> None:
    # As an interrupted `up` leaves it: a node that was not made, one that was made and never started.
    container = client.containers.get(f"swarmkit-{NAME}-wn1")
    image = container.image
    assert image is not None
    assert image.id is not None
    container.remove(force=True, v=True)
    labels = container.labels
    client.containers.create(image.id, name=f"swarmkit-{NAME}-wn1", labels=labels)
    again = swarmkit.json("lab", "up", "--nodes", "3", "--name", NAME)
    assert again["changed"] == 1
    assert [node["name"] for node in again["nodes"]] == ["m1", "wn1", "wn2"]
    # It has new host keys, and they are known.
    assert ssh(again, "wn1", "hostname").stdout == "wn1\n"
    assert len(load(Path(lab["inventory"])).hosts) == 3


def test_a_container_that_others_make_of_the_image_is_no_lab(
    client: DockerClient, lab: dict[str, Any]
) -> None:
    image = client.containers.get(f"swarmkit-{NAME}-m1").image
    assert image is not None
    other = client.containers.create(image, name=f"{NAME}-other")
    try:
        assert "image" not in {*find(client), *names(client)}
    finally:
        other.remove(v=True)


def test_down_leaves_nothing(swarmkit: Swarmkit, client: DockerClient, lab: dict[str, Any]) -> None:
    containers = client.containers.list(filters={"label": f"swarmkit.lab={NAME}"})
    volumes = {mount["Name"] for each in containers for mount in each.attrs["Mounts"] if "Name" in mount}
    assert len(volumes) == 6
    assert volumes < set(left(client))
    assert json.loads(swarmkit("lab", "down", "--name", NAME, "-o", "json").stdout)["removed"] == [NAME]
    assert left(client) == []
    assert volumes.isdisjoint(str(each.name) for each in client.volumes.list())
    assert not Path(lab["inventory"]).parent.exists()
    assert "nothing to do" in swarmkit("lab", "down", "--name", NAME).stdout


def test_down_removes_a_lab_whose_folder_is_gone(swarmkit: Swarmkit, client: DockerClient) -> None:
    swarmkit("lab", "up", "--bare", "--nodes", "1", "--name", NAME)
    inventory = Path(swarmkit.json("lab", "ls", NAME)["inventory"])
    for path in inventory.parent.iterdir():
        path.unlink()
    inventory.parent.rmdir()
    lost = swarmkit("lab", "up", "--name", NAME, code=Exit.FAILED)
    assert "key of lab" in lost.error
    assert "lab down" in lost.error
    swarmkit("lab", "down", "--name", NAME)
    assert left(client) == []


def test_without_an_engine_the_error_says_how_to_get_one(swarmkit: Swarmkit) -> None:
    nowhere = {"DOCKER_HOST": "unix:///nowhere/docker.sock"}
    done = swarmkit("lab", "up", "--name", NAME, code=Exit.UNREACHABLE, environment=nowhere)
    assert "no Docker Engine answers" in done.error
    assert "install" in done.error
