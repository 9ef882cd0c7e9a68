"""What the controller costs: its CPU and memory on simulated swarms of many services."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, UnixConnector

from benchmarks.bootstrap.labs import Failed
from benchmarks.traffic.drive import milliseconds, table
from swarmkit.balancer.identity import AUTHORITY_FILE, CONTROLLER_NAME, IDENTITY_FILE
from swarmkit.balancer.nginx import DEFAULT_CERTIFICATE
from swarmkit.images.ca import Authority, self_signed
from tests.unit.simulatedswarm import EDGE, TIME, SimulatedSwarm

TASKS = 3
NODES = 5
# Of a swarm with some life: a service is scaled every so many seconds; its new tasks take as long to start.
CHURN_SECONDS = 10.0
START_SECONDS = 3.0
READY_SECONDS = 60.0
_ROOT = Path(__file__).parents[2]
# For both processes: the filter before the engine, and the controller behind it.
_RUN = """
import asyncio, sys
from pathlib import Path
from swarmkit.balancer import controller, filter
folder = Path(sys.argv[2])
async def filtering():
    await filter.serve(folder / "swarm.sock", folder / "engine.sock")
    await asyncio.Event().wait()
async def controlling():
    await controller.run(folder / "engine.sock", folder / "secrets", folder / "status.sock", 0, {})
asyncio.run({"filter": filtering, "controller": controlling}[sys.argv[1]]())
"""


@dataclass(frozen=True)
class Cost:
    """What the processes took: shares of one core, and MB of memory at most."""

    controller: float
    filter: float
    memory: float
    filter_memory: float


@dataclass(frozen=True)
class Measured:
    """One size of a swarm: costs at rest and with some life, and the seconds of one whole reading."""

    services: int
    calm: Cost
    busy: Cost
    reading: float


class LargeSwarm(SimulatedSwarm):
    """A simulated swarm whose documents are as large as a real one's (engine 26.1, services of stacks)."""

    def __init__(self, folder: Path, services: int) -> None:
        super().__init__(folder)
        self._numbers = iter(range(2, 1_000_000))
        self.names = [f"stack{number // 4}_service{number}" for number in range(services)]
        for number in range(len(self.nodes), NODES):
            self.nodes[f"n{number + 1}"] = {**self.nodes["n1"], "ID": f"n{number + 1}"}
        for name in self.names:
            identity = self.service(name, TASKS, host=f"{name.replace('_', '.')}.example")
            service = self.services[identity]
            service["Spec"]["TaskTemplate"] |= _template(name)
            service["Spec"]["Labels"]["com.docker.stack.namespace"] = name.partition("_")[0]
            service["PreviousSpec"] = service["Spec"]
            for slot in range(1, TASKS + 1):
                self.start(identity, slot)

    def start(self, service: str, slot: int, state: str = "running") -> str:
        """A task with all that the engine says of one; its id."""
        identity = self.task(service, slot, state, f"n{slot % NODES + 1}")
        task = self.tasks[identity]
        number = int(identity.rpartition("-")[2])
        network: dict[str, Any] = {
            "ID": EDGE,
            "Version": {"Index": 20},
            "CreatedAt": TIME,
            "UpdatedAt": TIME,
            "Spec": {"Name": "swarmkit-edge", "Labels": {}, "DriverConfiguration": {"Name": "overlay"}},
            "DriverState": {
                "Name": "overlay",
                "Options": {"com.docker.network.driver.overlay.vxlanid_list": "4097"},
            },
            "IPAMOptions": {
                "Driver": {"Name": "default"},
                "Configs": [{"Subnet": "10.0.0.0/16", "Gateway": "10.0.0.1"}],
            },
        }
        address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        own = {**network, "ID": "id-own", "Spec": {**network["Spec"], "Name": "own"}}
        task |= {
            "Version": {"Index": number},
            "UpdatedAt": TIME,
            "Labels": {},
            "Spec": {**_template(service), "Networks": [{"Target": EDGE}], "ForceUpdate": 0},
            "NetworksAttachments": [
                {"Network": own, "Addresses": [f"10.200.{number >> 8 & 255}.{number & 255}/24"]},
                {"Network": network, "Addresses": [f"{address}/16"]},
            ],
            "Status": {
                **task["Status"],
                "Message": "started",
                "ContainerStatus": {"ContainerID": f"{number:064x}", "PID": number, "ExitCode": 0},
                "PortStatus": {},
            },
        }
        return identity

    async def live(self) -> None:
        """Scale one service after the other, up and down again, until it is cancelled."""
        chance = random.Random(1)
        while True:
            identity = f"id-{chance.choice(self.names)}"
            replicated = self.services[identity]["Spec"]["Mode"]["Replicated"]
            replicated["Replicas"] = TASKS + 1
            self.tell("service", identity)
            new = self.start(identity, TASKS + 1, "starting")
            await asyncio.sleep(START_SECONDS)
            self.tasks[new]["Status"]["State"] = "running"
            await asyncio.sleep(CHURN_SECONDS - START_SECONDS)
            replicated["Replicas"] = TASKS
            self.tasks[new]["DesiredState"] = "shutdown"
            self.tell("service", identity)


def _template(name: str) -> dict[str, Any]:
    """The part of a spec that a task has, too."""
    return {
        "ContainerSpec": {
            "Image": f"registry.example:5000/{name}:latest@sha256:{'0' * 64}",
            "Labels": {"com.docker.stack.namespace": name},
            "Env": [f"SETTING_{number}=of some length, as they are" for number in range(10)],
            "Privileges": {"CredentialSpec": None, "SELinuxContext": None},
            "StopGracePeriod": 20_000_000_000,
            "Healthcheck": {"Test": ["CMD", "healthy"], "Interval": 2_000_000_000, "Retries": 3},
            "Isolation": "default",
            "Mounts": [{"Type": "volume", "Source": f"{name}_data", "Target": "/data"}],
        },
        "Resources": {"Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 67_108_864}},
        "RestartPolicy": {"Condition": "any", "Delay": 1_000_000_000, "MaxAttempts": 0},
        "Placement": {"Platforms": [{"Architecture": "amd64", "OS": "linux"}]},
        "Networks": [{"Target": EDGE, "Aliases": []}, {"Target": "id-own", "Aliases": [name]}],
    }


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--services", default="10,100,500", help="sizes of the swarm (10,100,500)")
    parser.add_argument("--seconds", type=float, default=60, help="length of a measurement (60)")


def run(options: argparse.Namespace, work: Path) -> tuple[str, Mapping[str, Any], bool]:
    """CPU and memory of the controller by the number of services, at rest and with some life."""
    found = []
    for services in map(int, options.services.split(",")):
        folder = work / str(services)
        folder.mkdir()
        found.append(asyncio.run(measure(services, folder, options.seconds)))
        print(found[-1], file=sys.stderr, flush=True)
    return text(found), {str(one.services): asdict(one) for one in found}, True


async def measure(services: int, folder: Path, seconds: float) -> Measured:
    """One size, for so many seconds at rest and with some life each."""
    _identities(folder / "secrets")
    swarm = LargeSwarm(folder, services)
    parts: dict[str, asyncio.subprocess.Process] = {}
    async with swarm.running():
        try:
            for part in ("filter", "controller"):
                command = [sys.executable, "-c", _RUN, part, str(folder)]
                parts[part] = await asyncio.create_subprocess_exec(
                    *command, cwd=_ROOT, stderr=asyncio.subprocess.DEVNULL
                )
                if part == "filter":
                    await _eventually((folder / "engine.sock").exists)
            pids = {part: process.pid for part, process in parts.items()}
            await _eventually((folder / "status.sock").exists)
            await asyncio.sleep(5)
            calm = await _costs(pids, seconds)
            living = asyncio.create_task(swarm.live())
            busy = await _costs(pids, seconds)
            reading = (await _status(folder))["reading"]["cost"]["all"]
            living.cancel()
        finally:
            for process in parts.values():
                if process.returncode is None:
                    process.kill()
                await process.wait()
    return Measured(services, calm, busy, reading)


def _identities(secrets: Path) -> None:
    """What the controller proves itself with, as its task would have it."""
    secrets.mkdir()
    authority = Authority.make()
    issued = authority.issue_server([CONTROLLER_NAME])
    default = self_signed("localhost")
    for name, text in (
        (AUTHORITY_FILE, authority.certificate),
        (IDENTITY_FILE, issued.certificate + issued.key),
        (DEFAULT_CERTIFICATE, default.certificate + default.key),
    ):
        path = secrets / name
        path.touch(0o600)
        path.write_text(text)


async def _eventually(condition: Callable[[], bool]) -> None:
    try:
        async with asyncio.timeout(READY_SECONDS):
            while not condition():
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        raise Failed(f"the controller does not begin within {READY_SECONDS:.0f} s") from error


async def _status(folder: Path) -> dict[str, Any]:
    connector = UnixConnector(str(folder / "status.sock"))
    async with (
        ClientSession(connector=connector) as session,
        session.get("http://controller/status") as answer,
    ):
        found: dict[str, Any] = await answer.json()
        return found


async def _costs(pids: Mapping[str, int], seconds: float) -> Cost:
    """What the processes take in the next seconds."""
    before, begun = {part: _used(pid) for part, pid in pids.items()}, time.monotonic()
    await asyncio.sleep(seconds)
    took = time.monotonic() - begun
    shares = {part: (_used(pid) - before[part]) / took for part, pid in pids.items()}
    memory = {part: _memory(pid) for part, pid in pids.items()}
    return Cost(shares["controller"], shares["filter"], memory["controller"], memory["filter"])


def _used(pid: int) -> float:
    """Seconds of CPU (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> float:
    """The most memory that it ever had, in MB (proc_pid_status(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def text(found: Sequence[Measured]) -> str:
    """A row a size, as Markdown."""
    rows = [
        [
            f"{one.services} ({one.services * TASKS:,} tasks)",
            *(f"{100 * cost.controller:.1f} % + {100 * cost.filter:.1f} %" for cost in (one.calm, one.busy)),
            f"{one.busy.memory:.0f} + {one.busy.filter_memory:.0f} MB",
            milliseconds(one.reading),
        ]
        for one in found
    ]
    heads = ["services", "CPU at rest", "CPU with some life", "memory", "one whole reading"]
    return f"{table(heads, rows)}\n\nController + filter; CPU as a share of one core."
