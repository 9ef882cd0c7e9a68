"""Time to a truthful answer: `swarmkit scale web=N` against docker's own client, on one lab.

Both scale the service `web_web` (whose tasks have a health check) up and down, in turn; docker's client
runs on the manager itself and is told to wait (`--detach=false`), swarmkit comes over SSH from outside.

    swarmkit lab up && swarmkit init && swarmkit stack up web
    .venv/bin/python benchmarks/scale.py -i INVENTORY
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

SWARMKIT = str(Path(sys.executable).with_name("swarmkit"))
RUNS = 5
SIZES = (7, 3)


def seconds(command: list[str]) -> float:
    """The wall-clock time of one run, which must succeed."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Print the table of medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-i", "--inventory", required=True)
    parser.add_argument("--manager", default="m1")
    given = parser.parse_args()
    base = [SWARMKIT, "-i", given.inventory]
    on_manager = [*base, "ssh", given.manager, "--", "sudo", "docker", "service"]
    clients: dict[str, Callable[[int], list[str]]] = {
        "docker service scale": lambda n: [*on_manager, "scale", "--detach=false", f"web_web={n}"],
        "swarmkit scale": lambda n: [*base, "scale", f"web={n}"],
    }
    times: dict[tuple[str, int], list[float]] = {}
    seconds(clients["swarmkit scale"](SIZES[-1]))
    for _ in range(RUNS):
        for name, command in clients.items():
            for size in SIZES:
                times.setdefault((name, size), []).append(seconds(command(size)))
    print("| to | docker service scale | swarmkit scale | ratio |\n|---|---|---|---|")
    for size in SIZES:
        docker, ours = (statistics.median(times[name, size]) for name in clients)
        print(f"| {size} tasks | {docker:.1f} s | {ours:.1f} s | {ours / docker:.2f} |")


if __name__ == "__main__":
    main()
