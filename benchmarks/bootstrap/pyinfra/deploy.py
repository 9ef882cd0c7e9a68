"""A swarm of bare Debian machines: pyinfra's facts say what there is, its operations do what lacks."""

from __future__ import annotations

import json
import shlex
from typing import Any

from pyinfra import host, inventory
from pyinfra.api import FactBase
from pyinfra.operations import apt, python, server, systemd


class Swarm(FactBase[dict[str, Any]]):
    """What the engine says of its place in a swarm; empty where there is no engine."""

    default = dict

    def command(self) -> str:
        return "! command -v docker >/dev/null || docker info --format '{{json .Swarm}}'"

    def process(self, output: list[str]) -> dict[str, Any]:
        found: dict[str, Any] = json.loads("".join(output) or "{}")
        return found


class NodeLabels(FactBase[dict[str, dict[str, str]]]):
    """The labels of all nodes, by their names."""

    default = dict

    def command(self) -> str:
        form = "'{{.Description.Hostname}} {{json .Spec.Labels}}'"
        return f"docker node ls -q | xargs docker node inspect --format {form}"

    def process(self, output: list[str]) -> dict[str, dict[str, str]]:
        return {name: json.loads(labels) for name, _, labels in (line.partition(" ") for line in output)}


def join() -> None:
    """Join the swarm, with the token of the manager."""
    worked, said = manager.run_shell_command(
        "docker swarm join-token worker | grep 'docker swarm join'", _sudo=True
    )
    command = said.stdout.strip() if worked else "exit 1"
    worked, said = host.run_shell_command(command, _sudo=True)
    if not worked:
        raise RuntimeError(said.stderr)


manager = inventory.get_group("managers")[0]
is_manager = host.name == manager.name
is_member = host.get_fact(Swarm, _sudo=True).get("LocalNodeState") == "active"

apt.packages(
    name="Install the engine",
    packages=["docker.io", "docker-cli", "iptables", "ca-certificates"],
    update=True,
    cache_time=3600,
    no_recommends=True,
    _sudo=True,
)
systemd.service(name="Start the engine", service="docker.service", running=True, enabled=True, _sudo=True)

if is_manager and not is_member:
    server.shell(
        name="Form the swarm",
        commands=[f"docker swarm init --advertise-addr {host.data.private_address}"],
        _sudo=True,
    )
if not is_manager and not is_member:
    python.call(name="Join the swarm", function=join)
if is_manager:
    known = host.get_fact(NodeLabels, _sudo=True) if is_member else {}
    for name in [each.name for each in inventory]:
        if known.get(name, {}).get("host") != name:
            server.shell(
                name=f"Label {name}",
                commands=[f"docker node update --label-add {shlex.quote(f'host={name}')} {name}"],
                _sudo=True,
            )
