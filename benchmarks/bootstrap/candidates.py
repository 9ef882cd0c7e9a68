"""The candidates: what each is called, and the command with which it turns bare machines into a swarm."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.bootstrap.labs import Lab

HERE = Path(__file__).parent
RIVALS = HERE.parent / ".venv"
INSTALL_SECONDS = 1200


@dataclass(frozen=True)
class Candidate:
    """A way to form a swarm; the same command the second time finds nothing to do."""

    name: str
    command: Callable[[Lab], list[str]]
    environment: Mapping[str, str] = field(default_factory=dict)


def _swarmkit(lab: Lab) -> list[str]:
    # The no-op is measured on a swarm that all have been through, whoever formed it.
    return [sys.executable, "-m", "swarmkit", "-i", str(lab.inventory), "init", "--adopt"]


def _floor(lab: Lab) -> list[str]:
    return [str(HERE / "floor.sh"), str(lab.ssh_config), *(host.name for host in lab.hosts)]


def _ansible(lab: Lab) -> list[str]:
    program = str(RIVALS / "bin/ansible-playbook")
    return [program, "-i", str(lab.folder / "ansible.json"), str(HERE / "ansible/playbook.yml")]


def _pyinfra(lab: Lab) -> list[str]:
    program = str(RIVALS / "bin/pyinfra")
    return [program, "-y", str(lab.folder / "pyinfra_inventory.py"), str(HERE / "pyinfra/deploy.py")]


CANDIDATES = (
    Candidate("floor", _floor),
    Candidate("swarmkit", _swarmkit),
    Candidate("pyinfra", _pyinfra),
    Candidate(
        "Ansible",
        _ansible,
        # It refuses to start where the terminal's encoding is another.
        {"ANSIBLE_CONFIG": str(HERE / "ansible/ansible.cfg"), "LC_ALL": "C.UTF-8"},
    ),
)


def install_rivals() -> None:
    """Make the virtual environment that Ansible and pyinfra live in, once."""
    wanted = (HERE / "requirements.txt").read_text()
    mark = RIVALS / "requirements.txt"
    if mark.is_file() and mark.read_text() == wanted:
        return
    print("installing Ansible and pyinfra into benchmarks/.venv (some minutes, once)", file=sys.stderr)
    venv.create(RIVALS, with_pip=True)
    subprocess.run(
        [str(RIVALS / "bin/pip"), "install", "--quiet", "-r", str(HERE / "requirements.txt")],
        timeout=INSTALL_SECONDS,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        check=True,
    )
    mark.write_text(wanted)
