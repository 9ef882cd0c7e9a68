"""Shell completion, as a shell asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("swarmkit sta", {"stack", "status"}),
        ("swarmkit stack up ", {"web"}),
        ("swarmkit ssh w", {"wn1"}),
        ("swarmkit node drain ", set()),
    ],
)
def test_commands_stacks_and_machines_are_completed(tmp_path: Path, line: str, expected: set[str]) -> None:
    # Port 1 refuses at once: a cluster that does not answer completes nothing, and says nothing.
    (tmp_path / "inventory.yml").write_text(
        "managers: [{name: m1, address: 127.0.0.1, port: 1}]\nworkers: [{name: wn1, address: 10.9.9.8}]\n"
    )
    environment = {
        **os.environ,
        "_SWARMKIT_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-c", "from swarmkit.cli.main import app; app(prog_name='swarmkit')"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert set(done.stdout.split()) == expected
    assert done.stderr == ""
