"""Start-up time: `swarmkit --version` and `--help` against an interpreter that imports typer.

The three run in turn, so that a machine whose speed drifts drifts for all; medians and the ratio count.

    make unit && .venv/bin/python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 21
SWARMKIT = str(Path(sys.executable).with_name("swarmkit"))
COMMANDS = {
    "python -c 'import typer'": [sys.executable, "-c", "import typer"],
    "swarmkit --version": [SWARMKIT, "--version"],
    "swarmkit --help": [SWARMKIT, "--help"],
}


def seconds(command: list[str]) -> float:
    """The wall-clock time of one run."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Print the table of medians."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS + 1):
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))
    medians = {name: statistics.median(some[1:]) for name, some in times.items()}
    floor = next(iter(medians.values()))
    print("| command | median of 21 | ratio |\n|---|---|---|")
    for name, median in medians.items():
        print(f"| `{name}` | {median * 1000:.0f} ms | {median / floor:.2f} |")


if __name__ == "__main__":
    main()
