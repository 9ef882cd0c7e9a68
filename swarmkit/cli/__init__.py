"""The command line: parse, call, render. No logic, and no heavy import before a command needs it."""

from __future__ import annotations

import sys


def main() -> None:
    """The console script. `--version` is answered before anything else is loaded."""
    if sys.argv[1:] == ["--version"]:
        import swarmkit

        print(f"swarmkit {swarmkit.__version__}")
        return
    from swarmkit.cli.main import main as run

    run()
