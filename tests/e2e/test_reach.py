"""Ways to machines that are real: through one another, from Vagrant's words, and by plain docker."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.conftest import Swarmkit
from tests.e2e.conftest import Lab


@pytest.fixture
def lab(machines: Callable[[int], Lab]) -> Lab:
    return machines(3)


@pytest.fixture
def sk(lab: Lab, tmp_path: Path) -> Swarmkit:
    """The command for a user whose home is empty."""
    environment = {**lab.swarmkit.environment, "HOME": str(tmp_path)}
    return Swarmkit(environment, folder=tmp_path)


@pytest.fixture
def through_the_manager(lab: Lab, tmp_path: Path) -> Path:
    """An inventory whose workers are reached only through the manager, as in a lecture's network."""
    m1 = lab.nodes["m1"]
    path = tmp_path / "inventory.yml"
    path.write_text(
        f"""\
known_hosts: known_hosts
defaults: {{user: swarmkit, key: {lab.inventory.parent / "id_ed25519"}, gateway: m1}}
managers:
  - {{name: m1, address: 127.0.0.1, port: {m1["ssh_port"]}, private_address: {m1["address"]}}}
workers:
  - {{name: wn1, address: {lab.nodes["wn1"]["address"]}}}
  - {{name: wn2, address: {lab.nodes["wn2"]["address"]}, gateway: wn1}}
"""
    )
    return path


def test_a_swarm_is_formed_of_workers_that_only_the_manager_reaches(
    sk: Swarmkit, through_the_manager: Path
) -> None:
    try:
        sk("init", "--accept-host-keys", inventory=through_the_manager)
        nodes = sk.json("status", inventory=through_the_manager)["nodes"]
        assert {node["name"] for node in nodes} == {"m1", "wn1", "wn2"}
        # Two machines on the way.
        assert sk("ssh", "wn2", "--", "hostname", inventory=through_the_manager).stdout == "wn2\n"
    finally:
        sk("reset", inventory=through_the_manager)


def test_vagrant_s_words_become_an_inventory_with_private_addresses(lab: Lab, sk: Swarmkit) -> None:
    config = sk.folder / "config"
    key = lab.inventory.parent / "id_ed25519"
    config.write_text(
        "".join(
            f"Host {name}\n  HostName 127.0.0.1\n  User swarmkit\n  Port {node['ssh_port']}\n"
            f"  IdentityFile {key}\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n\n"
            for name, node in lab.nodes.items()
            if name in ("m1", "wn1")
        )
    )
    arguments = ("inventory", "init", "--vagrant-config", str(config))
    assert "unknown host key" in sk(*arguments, "--file", "-").stderr
    sk(*arguments, "--accept-host-keys")
    written = yaml.safe_load((sk.folder / "inventory.yml").read_text())
    assert [one["private_address"] for one in written["managers"] + written["workers"]] == [
        lab.nodes["m1"]["address"],
        lab.nodes["wn1"]["address"],
    ]
    assert len(sk.json("init", "--dry-run")["actions"]) > 0


@pytest.mark.skipif(shutil.which("docker") is None, reason="no docker command on this machine")
def test_plain_docker_works_through_an_exported_context(lab: Lab, sk: Swarmkit) -> None:
    def docker(*arguments: str) -> str:
        command = ["docker", "--context", "here", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    # OpenSSH takes the home of the user database; a test must not write there.
    tools = sk.folder / "bin"
    tools.mkdir()
    (tools / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F "$HOME/.ssh/config" "$@"\n')
    (tools / "ssh").chmod(0o700)
    environment = {**sk.environment, "PATH": f"{tools}:{os.environ['PATH']}"}
    sk.environment.update(environment)
    inventory = lab.inventory
    export = ("context", "export", "--name", "here")
    lab.swarmkit("init")
    try:
        refused = sk(*export, inventory=inventory, code=1).error
        assert "swarmkit may not use the Docker Engine there without sudo" in refused
        assert "sudo usermod -aG docker swarmkit" in refused
        lab.shell("m1", "usermod -aG docker swarmkit")
        assert "--write-ssh-config" in sk(*export, inventory=inventory, code=2).error
        assert not (sk.folder / ".ssh").exists()
        done = sk(*export, "--write-ssh-config", inventory=inventory)
        assert done.stdout == "context here leads to m1: docker --context here node ls\n"
        assert docker("node", "ls", "--format", "{{.Hostname}}").split()
        # Again, with the way in known by now.
        assert sk(*export, inventory=inventory).stdout == done.stdout
    finally:
        lab.shell("m1", "gpasswd -d swarmkit docker")
        lab.swarmkit("reset")
