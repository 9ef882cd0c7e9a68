"""No request lost: the balancer under load while the swarm is worked on.

    python -m benchmarks.traffic loss          every operation, one after the other, under load
    python -m benchmarks.traffic compare       the same beside nginx, Traefik, HAProxy and Caddy
    python -m benchmarks.traffic throughput    the proxy beside nginx with a configuration by hand
    python -m benchmarks.traffic latency       how soon a task gets requests, and how soon no more
    python -m benchmarks.traffic controller    what the controller costs with 10, 100 and 500 services

All but the last make a lab of three nodes and remove it. All load goes to lab nodes and the loopback.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.bootstrap.labs import Failed
from benchmarks.traffic import compare, controller, latency, loss, throughput

Report = Callable[[argparse.Namespace, Path], tuple[str, Mapping[str, Any], bool]]
REPORTS: Mapping[str, tuple[Callable[[argparse.ArgumentParser], None], Report]] = {
    "loss": (loss.arguments, loss.run),
    "compare": (compare.arguments, compare.run),
    "throughput": (throughput.arguments, throughput.run),
    "latency": (latency.arguments, latency.run),
    "controller": (controller.arguments, controller.run),
}


def main() -> None:
    """Measure, print the table, and write all that was found where `--json` says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.traffic",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (arguments, report) in REPORTS.items():
        command = commands.add_parser(name, help=(report.__doc__ or "").splitlines()[0])
        command.add_argument("--json", type=Path, help="write all that was found into this file")
        command.add_argument("--lab", default="traffic", help="the lab's name (traffic)")
        arguments(command)
    options = parser.parse_args()
    # Ended from outside, it clears away as on Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with tempfile.TemporaryDirectory(prefix="swarmkit-traffic-") as work:
            text, document, is_good = REPORTS[options.command][1](options, Path(work))
    except (Failed, subprocess.SubprocessError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    print(text)
    if options.json:
        options.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    sys.exit(0 if is_good else 1)


main()
