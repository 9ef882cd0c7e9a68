"""`swarmkit init` on many machines that are played (tests.simulation): time, memory, threads, descriptors.

    python -m benchmarks.bootstrap.simulated --hosts 1,10,50,200,500 --latency 0.02

The SSH servers are real, but all in one process of this machine, which so does the work of all hosts; what
they would do behind SSH (installing an engine …) takes no time. What is left is swarmkit's own share.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.simulation import simulated

SAMPLE_SECONDS = 0.02
# Runs the command within a process that then says what it has left open.
_CHILD = """
import json, os, sys, threading, time
from swarmkit.cli.main import main
status = 0
try:
    main(sys.argv[1:])
except SystemExit as ended:
    status = ended.code
deadline = time.monotonic() + 10
while threading.active_count() > 1 and time.monotonic() < deadline:
    time.sleep(0.01)
descriptors = "/proc/self/fd"
sockets = sum("socket:" in os.path.realpath(f"{descriptors}/{each}") for each in os.listdir(descriptors))
print(json.dumps({"threads": threading.active_count(), "sockets": sockets}), file=sys.stderr)
sys.exit(status)
"""


@dataclass(frozen=True)
class Run:
    """One run of the command: seconds (wall and of the CPU), peak memory in MB, and peaks and leftovers."""

    seconds: float
    cpu: float
    memory: float
    threads: int
    descriptors: int
    threads_left: int
    sockets_left: int


def run(inventory: Path) -> Run:
    """`swarmkit init`, watched from outside (proc_pid_status(5)); it must succeed."""
    command = [sys.executable, "-W", "ignore", "-c", _CHILD, "-i", str(inventory), "init"]
    threads = descriptors = 0
    with tempfile.TemporaryFile("w+") as said:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said)
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            proc = Path("/proc") / str(process.pid)
            threads = max(threads, sum(1 for _ in (proc / "task").iterdir()))
            descriptors = max(descriptors, sum(1 for _ in (proc / "fd").iterdir()))
            time.sleep(SAMPLE_SECONDS)
        took = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        lines = said.read().splitlines()
    if process.returncode:
        sys.exit("\n".join(lines[-20:]))
    left = json.loads(lines[-1])
    return Run(
        took,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss / 1024,
        threads,
        descriptors,
        left["threads"] - 1,
        left["sockets"],
    )


def median(runs: Sequence[Run], field: str) -> float:
    return float(statistics.median(getattr(one, field) for one in runs))


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bootstrap.simulated",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--hosts", default="1,10,50,200,500", help="numbers of hosts (1,10,50,200,500)")
    parser.add_argument("--latency", type=float, default=0.02, help="of a round trip, in seconds (0.02)")
    parser.add_argument("--rounds", type=int, default=3, help="runs, of which the median counts (3)")
    options = parser.parse_args()
    print("| hosts | full | no-op | CPU, no-op | peak memory | threads | descriptors | left open |")
    print("|---|---|---|---|---|---|---|---|")
    for hosts in map(int, options.hosts.split(",")):
        full: list[Run] = []
        again: list[Run] = []
        for _ in range(options.rounds):
            with (
                tempfile.TemporaryDirectory(prefix="swarmkit-bench-") as folder,
                simulated(Path(folder), hosts, options.latency) as inventory,
            ):
                full.append(run(inventory))
                again.append(run(inventory))
        both = [*full, *again]
        left = sum(one.threads_left + one.sockets_left for one in both)
        print(
            f"| {hosts} | {median(full, 'seconds'):.1f} s | {median(again, 'seconds'):.1f} s "
            f"| {median(again, 'cpu'):.1f} s | {max(one.memory for one in both):.0f} MB "
            f"| {max(one.threads for one in both)} | {max(one.descriptors for one in both)} "
            f"| {left or 'nothing'} |",
            flush=True,
        )


main()
