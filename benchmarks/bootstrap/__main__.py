"""Forming a swarm of bare machines, and finding nothing to do: swarmkit beside its rivals.

    python -m benchmarks.bootstrap --nodes 3,8,20:1 --rounds 3

Every fresh run has new nodes. Nothing-to-do is measured on a swarm that all candidates have been through,
once the machine is at rest. The candidates take turns, each round in another order; the medians are
printed as a table. Needs a Docker Engine, `ssh`, and the package mirror that the nodes install from.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.bootstrap.candidates import CANDIDATES, Candidate, install_rivals
from benchmarks.bootstrap.labs import Failed, Lab, lab, settle
from benchmarks.sizes import sizes

RUN_SECONDS = 900
LAB_NAME = "bench-bootstrap"

# Seconds of each run, by number of nodes, by "fresh" or "no-op", by candidate.
Times = dict[tuple[int, str, str], list[float]]


def seconds(candidate: Candidate, on: Lab) -> float:
    """The wall-clock time of one run; raises Failed with the end of its output where it fails."""
    with tempfile.TemporaryFile("w+") as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            candidate.command(on),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **candidate.environment},
            start_new_session=True,
        )
        try:
            status = process.wait(RUN_SECONDS)
        except BaseException:
            # With all that it has started.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        took = time.perf_counter() - start
        if status:
            output.seek(0)
            raise Failed(f"{candidate.name} ended with status {status}:\n{output.read()[-3000:]}")
    return took


def rotated(candidates: Sequence[Candidate], by: int) -> list[Candidate]:
    """The candidates in another order each round, so that none is always first."""
    start = by % len(candidates)
    return [*candidates[start:], *candidates[:start]]


def measure(
    candidates: Sequence[Candidate], nodes: int, rounds: int, repeats: int, name: str, home: Path
) -> Times:
    """All runs for one number of nodes."""
    times: Times = {}

    def note(kind: str, candidate: Candidate, took: float) -> None:
        times.setdefault((nodes, kind, candidate.name), []).append(took)
        print(f"{nodes} nodes, {kind}, {candidate.name}: {took:.2f} s", file=sys.stderr, flush=True)

    for turn in range(rounds):
        order = rotated(candidates, turn)
        for candidate in order:
            with lab(name, nodes, home) as fresh:
                settle()
                note("fresh", candidate, seconds(candidate, fresh))
                fresh.has_formed()
                if candidate is order[-1]:
                    # What one calls a label the others do not know: each makes the swarm its own first.
                    for each in order:
                        seconds(each, fresh)
                    for again in range(repeats):
                        for each in rotated(order, again):
                            settle()
                            note("no-op", each, seconds(each, fresh))
    return times


def interpreter_start() -> float:
    """The median time that Python itself takes, which a shell script does not."""
    taken = []
    for _ in range(11):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def table(times: Mapping[tuple[int, str, str], Sequence[float]], names: Sequence[str], start: float) -> str:
    """The medians, as Markdown. `start` is the interpreter's own time, in seconds."""
    with_ratio = {"swarmkit", "floor"} <= set(names)
    heads = ["nodes", "", *names, *(["swarmkit : floor"] if with_ratio else [])]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for nodes, kind in dict.fromkeys((nodes, kind) for nodes, kind, _ in times):
        runs = {name: times[nodes, kind, name] for name in names}
        medians = {name: statistics.median(some) for name, some in runs.items()}
        cells = [str(nodes), f"{kind} ({len(runs[names[0]])} runs)"]
        cells += [f"{median:.2f} s" if median < 10 else f"{median:.1f} s" for median in medians.values()]
        if with_ratio:
            own = medians["swarmkit"] - (start if kind == "no-op" else 0)
            cells.append(f"{own / medians['floor']:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    lines.append(
        f"For the ratio of the no-op the interpreter's own start, {start * 1000:.0f} ms, is taken off."
    )
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bootstrap",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = ",".join(each.name for each in CANDIDATES)
    parser.add_argument("--nodes", type=sizes, default="3,8,20:1", help="N[:ROUNDS],… (3,8,20:1)")
    parser.add_argument("--rounds", type=int, default=3, help="fresh runs of each candidate (3)")
    parser.add_argument("--repeats", type=int, default=5, help="no-op runs of each, a round (5)")
    parser.add_argument("--only", default=known, help=f"candidates ({known})")
    parser.add_argument("--lab", default=LAB_NAME, help=f"the lab's name ({LAB_NAME})")
    options = parser.parse_args()
    wanted = options.only.split(",")
    candidates = [each for each in CANDIDATES if each.name in wanted]
    if len(candidates) != len(wanted):
        parser.error(f"candidates are: {known}")
    # Ended from outside, it clears away as on Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if {"Ansible", "pyinfra"} & set(wanted):
        install_rivals()
    times: Times = {}
    try:
        with tempfile.TemporaryDirectory(prefix="swarmkit-bench-") as home:
            for nodes, rounds in options.nodes:
                times |= measure(
                    candidates, nodes, rounds or options.rounds, options.repeats, options.lab, Path(home)
                )
    except (Failed, subprocess.SubprocessError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    print(table(times, [each.name for each in candidates], interpreter_start()))


main()
