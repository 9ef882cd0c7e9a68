"""Many machines played by one process: real SSH servers on the loopback, with scripted answers.

Each machine has an address of its own in 127.77.0.0/16 (Linux answers on all of 127.0.0.0/8), its own
host key, and an engine that speaks as much of the Engine API as forming a swarm needs. Everything that
SSH itself does is real; only the machine behind it is not. What a machine is told it remembers, so that
`swarmkit init` turns bare machines into a swarm, and finds nothing to do the second time.

    python -m tests.simulation --hosts 50 --latency 0.02
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

START_SECONDS = 60


class Fault(StrEnum):
    """How a machine fails: nothing listens; it listens and says nothing; it lets nobody in; the
    connection breaks in the middle of an answer.
    """

    REFUSE = "refuse"
    HANG = "hang"
    DENY = "deny"
    CUT = "cut"


@contextmanager
def simulated(
    folder: Path, hosts: int, latency: float = 0.0, faults: Mapping[str, Fault] | None = None
) -> Iterator[Path]:
    """Run a simulation in a process of its own; yields its inventory, which lies in `folder`.

    `latency` is that of a round trip, in seconds; `faults` are by machine (m1, w1, w2, …).
    """
    command = [sys.executable, "-m", "tests.simulation", "--folder", str(folder)]
    command += ["--hosts", str(hosts), "--latency", str(latency)]
    command += [f"--fault={name}={fault}" for name, fault in (faults or {}).items()]
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
    ) as process:
        assert process.stdout is not None
        # Its one line comes when all machines listen; none comes where it could not start.
        ready = process.stdout.readline()
        if not ready:
            raise RuntimeError(f"the simulation ended with status {process.wait(START_SECONDS)}")
        try:
            yield Path(json.loads(ready)["inventory"])
        finally:
            # It ends when its input does.
            process.communicate(timeout=START_SECONDS)
