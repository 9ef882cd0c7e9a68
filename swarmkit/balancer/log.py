"""The controller's log: lines on standard error."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Write one line."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
