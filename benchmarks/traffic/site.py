"""The swarm that a run works on: a lab, and the ways into it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.bootstrap.labs import Failed
from swarmkit.images.ca import self_signed
from swarmkit.names import EDGE_NETWORK

STACK = "traffic"
WEB = f"{STACK}_web"
COMMAND_SECONDS = 420
CERTIFICATE = "certificate.pem"
_STACK_FOLDER = Path(__file__).parent / "stack"
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Site:
    """A swarm of lab nodes. `addresses` are the nodes' own, `url` is the balancer's on the loopback;
    `folder` is a copy of the stack in which its files may be changed."""

    inventory: Path
    lab: str
    url: str
    addresses: Mapping[str, str]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)

    @property
    def manager(self) -> str:
        return "m1"

    def swarmkit(self, *arguments: str, code: int = 0) -> str:
        """Run a command that must end with `code`; its standard output. Raises Failed."""
        command = [sys.executable, "-W", "ignore", "-m", "swarmkit", "-i", str(self.inventory), *arguments]
        done = self._run(command)
        if done.returncode != code:
            said = f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
            raise Failed(f"swarmkit {shlex.join(arguments)}: exit {done.returncode}, not {code}\n{said}")
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.swarmkit(*arguments, "-o", "json"))

    def shell(self, node: str, script: str, check: bool = True) -> str:
        """Run a script as root on a node; its output. Raises Failed where it fails, if `check`."""
        command = [sys.executable, "-W", "ignore", "-m", "swarmkit", "-i", str(self.inventory), "ssh", node]
        done = self._run([*command, "--", f"sudo sh -c {shlex.quote(script)}"])
        if check and done.returncode:
            raise Failed(f"{node}: {script}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def _run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            env={**self.environment, "PYTHONPATH": str(_ROOT)},
            timeout=COMMAND_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def power(self, state: str, node: str) -> None:
        """Switch a node `off`, as pulling its plug would, or `on`."""
        self.swarmkit("lab", "stop" if state == "off" else "start", node, "--name", self.lab)

    def tasks(self, service: str = WEB) -> list[dict[str, str]]:
        """The service's tasks that should run."""
        found: list[dict[str, str]] = self.json("service", "ps", service)
        return [task for task in found if task["desired"] == "running"]

    def edge_addresses(self, service: str = WEB) -> set[str]:
        """The addresses at which balancers reach the tasks that should run."""
        tasks = f"docker service ps -q --no-trunc --filter desired-state=running {service}"
        raw = self.shell(self.manager, f"{tasks} | xargs docker inspect")
        return {
            address.split("/")[0]
            for task in json.loads(raw)
            for attachment in task.get("NetworksAttachments") or []
            if attachment["Network"]["Spec"]["Name"] == EDGE_NETWORK
            for address in attachment["Addresses"]
        }

    def containers(self, node: str, service: str) -> list[str]:
        """The ids of the service's running containers on a node."""
        label = f"label=com.docker.swarm.service.name={service}"
        return self.shell(node, f"docker ps -q --no-trunc --filter {label}").split()

    def image_of(self, service: str) -> str:
        """The image that a service of the stack runs."""
        name = f"{STACK}_{service}"
        return next(str(one["image"]) for one in self.json("status")["services"] if one["name"] == name)

    def up(self, *layers: str) -> None:
        """Deploy the stack as its files in `folder` say, with others laid over it: that for TLS from the
        first certificate on."""
        tls = ["tls.yml"] if (self.folder / CERTIFICATE).exists() else []
        extra = [word for layer in (*tls, *layers) for word in ("-f", str(self.folder / layer))]
        self.swarmkit("stack", "up", str(self.folder), "--name", STACK, *extra)

    def certificate(self) -> None:
        """Write a new self-signed certificate, with its key, into the stack's folder."""
        issued = self_signed("traffic.example")
        path = self.folder / CERTIFICATE
        path.touch(0o600)
        path.write_text(issued.certificate + issued.key)

    def entries(self) -> Mapping[str, Any]:
        """The ledger: `posts`, how often each was processed, and `ended`, what ended tasks said."""
        found: Mapping[str, Any] = json.loads(
            self.swarmkit("exec", f"{STACK}_ledger", "-n", "--", "backend.py", "entries")
        )
        return found


def make_site(
    inventory: Path,
    lab: str,
    url: str,
    addresses: Mapping[str, str],
    work: Path,
    environment: Mapping[str, str] | None = None,
) -> Site:
    """The site of a lab whose swarm is formed. `work` is an empty folder for the stack's files."""
    folder = work / STACK
    shutil.copytree(_STACK_FOLDER, folder)
    return Site(inventory, lab, url, addresses, folder, environment or dict(os.environ))


@contextmanager
def lab_site(lab: str, nodes: int, work: Path) -> Iterator[Site]:
    """A fresh lab with a swarm, removed at the end whatever happens. Raises Failed."""
    environment = {**os.environ, "SWARMKIT_HOME": str(work / "home")}
    swarmkit = [sys.executable, "-W", "ignore", "-m", "swarmkit", "-o", "json"]

    def run(*arguments: str) -> str:
        # A session of its own: Ctrl-C must not cut off the clearing away.
        done = subprocess.run(
            [*swarmkit, *arguments],
            capture_output=True,
            text=True,
            env={**environment, "PYTHONPATH": str(_ROOT)},
            timeout=COMMAND_SECONDS,
            start_new_session=True,
            check=False,
        )
        if done.returncode:
            raise Failed(f"swarmkit {shlex.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    try:
        made = json.loads(run("lab", "up", "--nodes", str(nodes), "--name", lab))
        addresses = {node["name"]: node["address"] for node in made["nodes"]}
        run("-i", made["inventory"], "init")
        yield make_site(Path(made["inventory"]), lab, made["urls"]["balancer"], addresses, work, environment)
    finally:
        run("lab", "down", "--name", lab)


def eventually(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for a condition; raises Failed where it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.2)
