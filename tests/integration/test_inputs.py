"""Inputs as a person gives them, on a terminal."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Swarmkit
from tests.terminal import typed

SECRET = "correct horse"


def test_what_is_missing_is_asked_for_and_a_secret_without_echo(swarmkit: Swarmkit, tmp_path: Path) -> None:
    (tmp_path / "inputs.yml").write_text(
        "port: {type: port, description: where it listens}\n"
        "token: {type: secret, description: who may come in}\n"
    )
    (tmp_path / "stack.yml.j2").write_text("services: {a: {image: x, ports: [[[ port ]]]}}\n")
    shown = typed(
        swarmkit.command("stack", "render", str(tmp_path)),
        swarmkit.environment,
        {
            "port (where it listens):": "many",
            'expected a port from 1 to 65535, got "many"': "8080",
            "token (who may come in):": SECRET,
        },
    )
    assert "ports: [8080]" in shown
    assert shown.endswith("exit 0")
    assert SECRET not in shown
