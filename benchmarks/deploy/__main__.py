"""Time to a truthful answer: `swarmkit stack up` beside `docker stack deploy --detach=false`.

    python -m benchmarks.deploy --sizes 1,10,50:1 --rounds 5

One lab; the candidates take turns, each round in the other order, each time on a swarm from which the
stack has gone again. All services have an image that every node has, and a health check. docker's client
runs on the manager itself, swarmkit comes over SSH from outside; the time of that SSH is counted for both.
docker's client waits for one service after the other, so that fifty take it minutes.
"running" is when the swarm itself first counts every task as running after a `docker stack deploy` that
does not wait: nobody can truthfully answer sooner. Needs a Docker Engine and `ssh`.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bootstrap.labs import Failed, Lab, lab, settle
from benchmarks.sizes import sizes

LAB_NAME = "bench-deploy"
STACK = "bench"
RUN_SECONDS = 600
PLANNED = 200
FILE = "/run/bench.yml"
_SERVICES = f"docker service ls --filter label=com.docker.stack.namespace={STACK}"
# Ends when all tasks run; prints nothing.
_WAIT = (
    f"until {_SERVICES} --format '{{{{.Replicas}}}}' | awk -F/ '$1 != $2 {{ exit 1 }}'; do sleep 0.05; done"
)
# Of a node: ends when nothing of the stack is left there.
_GONE = (
    f"while docker network inspect {STACK}_default >/dev/null 2>&1 "
    f'|| [ -n "$(docker ps -qa --filter label=com.docker.stack.namespace={STACK})" ]; do sleep 0.2; done'
)


@dataclass(frozen=True)
class Run:
    """One run of a command: seconds of the clock and of the CPU here, and peak memory here in MB."""

    seconds: float
    cpu: float
    memory: float


class Bench:
    """A swarm on a lab, and the commands that are measured on it."""

    def __init__(self, on: Lab) -> None:
        self.lab = on
        self.manager = next(host.name for host in on.hosts if host.is_manager)
        self.file = on.folder / "bench.yml"

    def swarmkit(self, *arguments: str) -> list[str]:
        return [sys.executable, "-W", "ignore", "-m", "swarmkit", "-i", str(self.lab.inventory), *arguments]

    def on(self, host: str, script: str) -> list[str]:
        return ["ssh", "-F", str(self.lab.ssh_config), host, f"sudo sh -c {shlex.quote(script)}"]

    def run(self, command: Sequence[str], given: bytes = b"") -> Run:
        """Run a command that must succeed; raises Failed with the end of what it says."""
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as stdin:
            stdin.write(given)
            stdin.seek(0)
            start = time.perf_counter()
            process = subprocess.Popen(
                command, stdin=stdin, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
            )
            too_long = threading.Timer(RUN_SECONDS, os.killpg, (process.pid, signal.SIGKILL))
            too_long.start()
            try:
                _, status, usage = os.wait4(process.pid, 0)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise
            finally:
                too_long.cancel()
            took = time.perf_counter() - start
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                said.seek(0)
                words = said.read()[-3000:].decode(errors="replace")
                raise Failed(f"{shlex.join(command)} ended with status {process.returncode}:\n{words}")
        return Run(took, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)

    def output(self, command: Sequence[str]) -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
        if done.returncode:
            raise Failed(f"{shlex.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def image(self) -> str:
        """Form the swarm, and put a small image into its registry and on every node; its name."""
        self.run(self.swarmkit("init"))
        folder = self.lab.folder / "prepare"
        (folder / "image").mkdir(parents=True)
        (folder / "image/Dockerfile").write_text("ARG BASE=debian:13-slim\nFROM ${BASE}\n")
        (folder / "stack.yml").write_text(
            "services: {box: {build: ./image, command: sleep infinity, stop_grace_period: 0s}}\n"
        )
        self.run(self.swarmkit("stack", "up", str(folder), "--name", "prepare"))
        found = json.loads(self.output(self.swarmkit("service", "ls", "-o", "json")))
        name = next(str(one["image"]) for one in found if one["stack"] == "prepare").partition("@")[0]
        with ThreadPoolExecutor() as pool:
            list(
                pool.map(lambda host: self.run(self.on(host.name, f"docker pull -q {name}")), self.lab.hosts)
            )
        self.run(self.swarmkit("stack", "down", "prepare"))
        return name

    def write(self, image: str, services: int) -> None:
        """The Compose file, here and on the manager."""
        service = {
            "image": image,
            "command": ["sleep", "infinity"],
            "stop_grace_period": "0s",
            # Soon healthy, and then asked so seldom that it costs the others nothing.
            "healthcheck": {
                "test": ["CMD", "true"],
                "interval": "60s",
                "start_period": "60s",
                "start_interval": "500ms",
            },
        }
        document = {"services": {f"s{number:03}": service for number in range(services)}}
        # JSON is YAML.
        self.file.write_text(json.dumps({"version": "3.12", **document}))
        self.run(self.on(self.manager, f"cat >{FILE}"), self.file.read_bytes())

    def is_up(self, services: int) -> None:
        """Raises Failed where not all of the services run: an answer that was not the truth."""
        said = self.output(self.on(self.manager, f"{_SERVICES} --format '{{{{.Replicas}}}}'")).split()
        if said != ["1/1"] * services:
            raise Failed(f"{said.count('1/1')} of {services} services run")

    def clear(self) -> None:
        """Remove the stack, and wait until no node has anything of it: what is left hinders the next run."""
        self.run(self.on(self.manager, f"docker stack rm {STACK}"))
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda host: self.run(self.on(host.name, _GONE)), self.lab.hosts))

    def detach(self) -> str:
        """docker's option to wait, if its version has one."""
        known = "--detach" in self.output(self.on(self.manager, "docker stack deploy --help"))
        return "--detach=false" if known else ""

    def candidates(self, detach: str) -> dict[str, list[str]]:
        deploy = f"docker stack deploy --with-registry-auth=false -c {FILE}"
        return {
            "swarmkit": self.swarmkit("stack", "up", str(self.file), "--name", STACK),
            "docker": self.on(self.manager, f"{deploy} {detach} {STACK}"),
            "running": self.on(self.manager, f"{deploy} {STACK} && {_WAIT}"),
        }


Runs = Mapping[str, Sequence[Run]]


def measure(bench: Bench, image: str, services: int, rounds: int) -> Runs:
    """All runs for one number of services: from nothing, and then with nothing to do."""
    runs: dict[str, list[Run]] = {}
    bench.write(image, services)
    every = bench.candidates(bench.detach())

    def note(name: str, run: Run) -> None:
        runs.setdefault(name, []).append(run)
        print(
            f"{services} services, {name}: {run.seconds:.2f} s, CPU {run.cpu:.2f} s, {run.memory:.0f} MB",
            file=sys.stderr,
            flush=True,
        )

    for turn in range(rounds):
        for name in list(every)[:: -1 if turn % 2 else 1]:
            settle()
            note(name, bench.run(every[name]))
            if name != "docker" or bench.detach():
                bench.is_up(services)
            if name != "running":
                note(f"{name} again", bench.run(every[name]))
            bench.clear()
    return runs


def plan(bench: Bench, image: str, rounds: int) -> list[Run]:
    """`stack up --dry-run` of many services: reading, converting and planning, without the waiting."""
    bench.write(image, PLANNED)
    command = bench.swarmkit("stack", "up", str(bench.file), "--name", STACK, "--dry-run")
    return [bench.run(command) for _ in range(rounds)]


def ask(bench: Bench, rounds: int) -> list[Run]:
    """A command that only asks the swarm, to tell what of the dry run is not planning."""
    return [bench.run(bench.swarmkit("service", "ls")) for _ in range(rounds)]


def _median(runs: Sequence[Run], of: Callable[[Run], float]) -> float:
    return statistics.median(of(run) for run in runs)


def table(measured: Mapping[int, Runs], waits: str) -> str:
    """The medians, as Markdown; `waits` is how docker's client was called."""
    heads = ["services", "", "running", "swarmkit", f"docker stack deploy {waits}".strip()]
    lines = [f"| {' | '.join([*heads, 'ratio', 'peak memory'])} |", "|---" * (len(heads) + 2) + "|"]
    for services, runs in measured.items():
        seconds = {name: _median(some, lambda run: run.seconds) for name, some in runs.items()}
        for kind, suffix in (("from nothing", ""), ("nothing to do", " again")):
            ours, theirs = seconds[f"swarmkit{suffix}"], seconds[f"docker{suffix}"]
            memory = max(run.memory for run in runs[f"swarmkit{suffix}"])
            floor = f"{seconds['running']:.1f} s" if not suffix else ""
            count = len(runs[f"swarmkit{suffix}"])
            label = f"{kind} ({count} run{'s' if count > 1 else ''})"
            cells = [str(services), label, floor, f"{ours:.1f} s", f"{theirs:.1f} s"]
            lines.append(f"| {' | '.join([*cells, f'{ours / theirs:.2f}', f'{memory:.0f} MB'])} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.deploy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sizes", type=sizes, default="1,10,50:1", help="N[:ROUNDS],… (1,10,50:1)")
    parser.add_argument("--rounds", type=int, default=5, help="runs, of which the median counts (5)")
    parser.add_argument("--nodes", type=int, default=3, help="nodes of the lab (3)")
    parser.add_argument("--lab", default=LAB_NAME, help=f"the lab's name ({LAB_NAME})")
    options = parser.parse_args()
    # Ended from outside, it clears away as on Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with (
            tempfile.TemporaryDirectory(prefix="swarmkit-bench-") as home,
            lab(options.lab, options.nodes, Path(home)) as machines,
        ):
            bench = Bench(machines)
            image = bench.image()
            version = bench.output(bench.on(bench.manager, "docker --version")).strip()
            waits = bench.detach()
            measured = {
                services: measure(bench, image, services, rounds or options.rounds)
                for services, rounds in options.sizes
            }
            planned, asked = plan(bench, image, options.rounds), ask(bench, options.rounds)
    except (Failed, subprocess.SubprocessError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    print(table(measured, waits))
    print(f"\n{version} on {options.nodes} nodes; medians.")
    if not waits:
        print("This docker has no --detach: it did not wait for any task.")
    cpu, floor = _median(planned, lambda run: run.cpu), _median(asked, lambda run: run.cpu)
    print(
        f"`stack up --dry-run` of {PLANNED} services: {cpu:.2f} s of CPU in all, {cpu - floor:.2f} s more "
        f"than `service ls`; peak memory {max(run.memory for run in planned):.0f} MB."
    )


main()
