"""Waiting for a condition, with a limit."""

from __future__ import annotations

import time
from collections.abc import Callable

from swarmkit.errors import SwarmkitError

POLL_SECONDS = 0.25


def wait_for(condition: Callable[[], bool], seconds: float, explain: Callable[[], SwarmkitError]) -> None:
    """Ask every POLL_SECONDS until `condition` holds; after `seconds` raise what `explain` gives."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise explain()
        time.sleep(POLL_SECONDS)
