"""The Vagrantfile under Vagrant's Docker provider, the one of its three that runs anywhere."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from swarmkit.inventory import load
from tests.conftest import Swarmkit

ROOT = Path(__file__).resolve().parents[2]
# Told apart by checkout, within what VirtualBox allows: two may be tested on one machine at the same time.
NETWORK = f"192.168.{56 + hashlib.sha256(str(ROOT).encode()).digest()[0] % 8}"
# As Vagrant names it.
DOCKER_NETWORK = f"vagrant_network_{NETWORK}.0/24"
ADDRESSES = {"m1": f"{NETWORK}.11", "wn1": f"{NETWORK}.21", "wn2": f"{NETWORK}.22"}


@dataclass(frozen=True)
class Vagrant:
    """Runs `vagrant` on the Vagrantfile, with all that it keeps in a folder of the test's."""

    environment: dict[str, str]

    def __call__(self, *arguments: str, code: int = 0, **environment: str) -> str:
        """Run a command that must end with `code`; what it printed."""
        done = subprocess.run(
            ["vagrant", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env=self.environment | environment,
            timeout=300,
            check=False,
        )
        assert done.returncode == code, f"vagrant {arguments}: exit {done.returncode}\n{done.stdout}"
        return done.stdout


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout


def containers() -> list[str]:
    """The IDs of Vagrant's containers, by the network that they are on."""
    return docker("ps", "-aq", "--filter", f"network={DOCKER_NETWORK}").split()


@pytest.fixture(scope="module")
def vagrant(
    docker_engine: None, swarmkit: Swarmkit, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Vagrant]:
    """Vagrant, and after the tests none of its machines."""
    if shutil.which("vagrant") is None:
        reason = "the vagrant command is not installed (scripts/ensure-vagrant.sh does that on Debian)"
        if os.environ.get("SWARMKIT_REQUIRE_E2E") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("vagrant")
    vagrant = Vagrant(
        swarmkit.environment
        | {
            "VAGRANT_CWD": str(ROOT),
            "VAGRANT_DEFAULT_PROVIDER": "docker",
            "VAGRANT_DOTFILE_PATH": str(folder / "machines"),
            "VAGRANT_HOME": str(folder / "home"),
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "LAB_NETWORK": NETWORK,
        }
    )
    try:
        yield vagrant
    finally:
        vagrant("destroy", "--force")


@pytest.fixture(scope="module")
def machines(vagrant: Vagrant, swarmkit: Swarmkit) -> str:
    """The three machines, up; what Vagrant said."""
    swarmkit("lab", "image", "--bare")
    return vagrant("up")


@pytest.fixture
def sk(vagrant: Vagrant, swarmkit: Swarmkit) -> Swarmkit:
    """swarmkit as one uses it with `inventories/vagrant.yml`."""
    return Swarmkit(vagrant.environment, ROOT / "inventories" / "vagrant.yml", folder=swarmkit.folder)


def test_the_vagrantfile_is_valid_and_names_machines_as_labs_do(vagrant: Vagrant) -> None:
    assert "validated successfully" in vagrant("validate")
    listed = vagrant("status", LAB_NODES="4", LAB_MANAGERS="2")
    assert re.findall(r"^(m\d|wn\d) ", listed, re.MULTILINE) == ["m1", "m2", "wn1", "wn2"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("LAB_NODES", "x", 'LAB_NODES: expected a whole number from 1 up, got "x"'),
        ("LAB_MANAGERS", "4", "LAB_MANAGERS: 4 managers do not fit in 3 nodes"),
    ],
)
def test_a_setting_that_cannot_be_is_named(vagrant: Vagrant, name: str, value: str, words: str) -> None:
    assert words in vagrant("status", code=1, **{name: value}).splitlines()


def test_without_the_image_vagrant_says_how_to_make_it(vagrant: Vagrant) -> None:
    said = vagrant("up", code=1, LAB_IMAGE="swarmkit/node:none")
    assert "run `swarmkit lab image --bare`" in said
    assert containers() == []


def test_vagrant_up_and_init_make_a_swarm(machines: str, sk: Swarmkit) -> None:
    report = sk.json("init", "--accept-host-keys")
    assert {action["status"] for action in report["actions"]} == {"done"}
    nodes = sk.json("node", "ls")
    assert {node["name"]: node["address"] for node in nodes} == ADDRESSES
    assert {node["status"] for node in nodes} == {"ready"}
    assert sk.json("init")["changed"] == 0


def test_an_inventory_from_vagrant_describes_the_same_machines(
    machines: str, sk: Swarmkit, tmp_path: Path
) -> None:
    file = tmp_path / "inventory.yml"
    own = Swarmkit(sk.environment, file, folder=tmp_path)
    own("inventory", "init", "--from-vagrant", "--cluster", "vagrant", "--accept-host-keys")
    assert {host.name: host.private_address for host in load(file).hosts} == ADDRESSES
    assert own.json("init")["changed"] == 0


@pytest.mark.soak
def test_machines_keep_their_addresses_and_their_swarm_over_halt_and_up(
    machines: str, vagrant: Vagrant, sk: Swarmkit
) -> None:
    sk("init", "--accept-host-keys")
    vagrant("halt", "wn1")
    vagrant("up", "wn1")
    assert sk.json("init")["changed"] == 0
    assert {node["status"] for node in sk.json("node", "ls")} == {"ready"}


def test_destroy_takes_all_machines_whatever_the_environment_says_and_leaves_nothing(
    machines: str, vagrant: Vagrant
) -> None:
    assert len(containers()) == 3
    known_hosts = Path(vagrant.environment["VAGRANT_DOTFILE_PATH"], "known_hosts")
    assert len(known_hosts.read_text().splitlines()) >= 3
    vagrant("destroy", "--force", LAB_NODES="1")
    assert containers() == []
    assert known_hosts.read_text() == ""
    assert DOCKER_NETWORK not in docker("network", "ls", "--format", "{{.Name}}").split()
