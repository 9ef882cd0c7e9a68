"""What all tests share: the command as a user runs it, and the engine that real tests need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Done:
    """What a run of the command left."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def error(self) -> str:
        """The error lines, as a person reads them."""
        return "\n".join(line for line in self.stderr.splitlines() if line.startswith(("error", "  ")))


@dataclass
class Swarmkit:
    """Runs `swarmkit` in a process of its own, as a user does."""

    environment: dict[str, str]
    inventory: Path | None = None
    seconds: float = 300
    folder: Path = field(default_factory=Path.cwd)

    def command(self, *arguments: str, inventory: Path | None = None) -> list[str]:
        chosen = inventory or self.inventory
        options = ["-i", str(chosen)] if chosen else []
        return [sys.executable, "-W", "ignore", "-m", "swarmkit", *options, *arguments]

    def __call__(
        self,
        *arguments: str,
        code: int = 0,
        inventory: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Done:
        """Run a command that must end with `code`."""
        done = subprocess.run(
            self.command(*arguments, inventory=inventory),
            capture_output=True,
            text=True,
            timeout=self.seconds,
            env=self.environment | dict(environment or {}),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == code, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        # Who says -v wants to see where an error came from.
        assert "-v" in arguments or "Traceback" not in done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def json(self, *arguments: str, inventory: Path | None = None) -> Any:
        """Run a command that must succeed; its JSON document."""
        return self(*arguments, "-o", "json", inventory=inventory).json


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """swarmkit's own files, apart from the user's."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def swarmkit(home: Path) -> Swarmkit:
    """The command, in an environment where it guesses no cluster of the user's."""
    unset = {"SWARMKIT_INVENTORY", "DOCKER_HOST", "SWARMKIT_SUDO_PASSWORD"}
    environment = {key: value for key, value in os.environ.items() if key not in unset}
    return Swarmkit(environment | {"SWARMKIT_HOME": str(home)}, folder=home)


@pytest.fixture(scope="session")
def docker_engine() -> None:
    """A Docker Engine on this machine; without one tests are left out, or fail where they must not be."""
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=10)
        client.ping()
        client.close()
    except (DockerException, OSError) as error:
        reason = f"no Docker Engine answers on this machine: {error}"
        if os.environ.get("SWARMKIT_REQUIRE_E2E") == "1":
            pytest.fail(reason)
        pytest.skip(reason)


def eventually(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for a condition, with a limit."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)
