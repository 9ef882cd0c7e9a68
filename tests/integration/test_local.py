"""The machine itself as a node: its engine and its shell, without SSH."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from swarmkit.inventory import load
from swarmkit.remote import Fleet
from tests.conftest import Swarmkit
from tests.terminal import typed
from tests.unit.test_shell import Machine


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    path = tmp_path / "inventory.yml"
    path.write_text("managers: [{name: here, address: 192.0.2.5, connection: local}]\n")
    return path


def test_its_engine_answers_without_ssh(docker_engine: None, inventory: Path) -> None:
    with Fleet(load(inventory)) as fleet:
        (host,) = fleet.inventory.hosts
        engine = fleet.engine(host)
        assert engine.name == "here"
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: engine.get("/info")["ID"], range(40)))
        assert len(set(answers)) == 1
        assert fleet.connection(host).run("id -u").stdout == "0\n"


def test_a_dry_run_plans_for_it(docker_engine: None, inventory: Path, swarmkit: Swarmkit) -> None:
    actions = swarmkit.json("init", "--dry-run", "--skip-checks", inventory=inventory)["actions"]
    assert {"host": "here", "phase": "swarm", "action": "initialise the swarm on 192.0.2.5"} in [
        {key: action[key] for key in ("host", "phase", "action")} for action in actions
    ]


def test_sudo_s_password_is_asked_for_once_on_the_terminal(
    docker_engine: None, inventory: Path, swarmkit: Swarmkit, tmp_path: Path
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    sudo = Machine(tools, "correct horse")
    environment = {**swarmkit.environment, "PATH": f"{tools}:{os.environ['PATH']}"}
    shown = typed(
        swarmkit.command("init", "--dry-run", "--skip-checks", inventory=inventory),
        environment,
        {"[sudo] password for": "correct horse"},
    )
    assert shown.count("[sudo] password for") == 1, shown
    assert "actions planned" in shown
    assert "correct horse" not in shown
    assert set(sudo.tried) == {"correct horse"}


def test_ssh_runs_a_command_here(inventory: Path, swarmkit: Swarmkit) -> None:
    assert swarmkit("ssh", "here", "--", "echo", "a  b", inventory=inventory).stdout == "a  b\n"
