"""How soon the balancer follows the swarm: from what the swarm knows of a task to its requests."""

from __future__ import annotations

import argparse
import io
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.traffic.client import Load, client, percentile
from benchmarks.traffic.drive import milliseconds, table
from benchmarks.traffic.operations import settled
from benchmarks.traffic.site import WEB, Site, lab_site
from swarmkit.swarm import find_service, services, tasks
from swarmkit.target import opened, resolve
from swarmkit.ui import Ui

LOOK_SECONDS = 0.1
HOLD_SECONDS = 3
MOST_SECONDS = 3600


@dataclass
class Seen:
    """When tasks became healthy and when the swarm decided to stop them (seconds since the epoch)."""

    healthy: dict[str, float] = field(default_factory=dict)
    leaving: dict[str, float] = field(default_factory=dict)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cycles", type=int, default=20, help="how often to scale up and down (20)")
    parser.add_argument("--rate", type=float, default=200, help="requests a second (200)")


def run(options: argparse.Namespace, work: Path) -> tuple[str, Mapping[str, Any], bool]:
    """From "task healthy" to its first request, and from "about to stop" to its last."""
    with lab_site(options.lab, 3, work) as site:
        site.up()
        site.swarmkit("scale", f"{WEB}=2")
        load = Load(site.url, options.rate, int(options.rate * MOST_SECONDS))
        with watching(site) as seen, client(load) as running:
            time.sleep(HOLD_SECONDS)
            begun = time.time()
            for _ in range(options.cycles):
                site.swarmkit("scale", f"{WEB}=6")
                time.sleep(HOLD_SECONDS)
                site.swarmkit("scale", f"{WEB}=2")
                settled(site)
            report = running.finish()
        # What was sent to a task is told by the task itself, when it ends.
        site.swarmkit("scale", f"{WEB}=0")
        ended = {str(one["task"]): one for one in site.entries()["ended"]}
    found = {
        "healthy → first request": _times(seen.healthy, ended, "first", begun),
        "about to stop → last request": _times(seen.leaving, ended, "last", begun),
    }
    document = {"waits": found, "load": report}
    failed = f"{report['requests']:,} requests, {report['failed']:,} failed."
    return f"{text(found)}\n\n{failed}", document, True


@contextmanager
def watching(site: Site) -> Iterator[Seen]:
    """Note what the swarm's managers write down of the tasks, with their own times."""
    seen, ended = Seen(), threading.Event()

    def watch() -> None:
        # A look is a few milliseconds' work for the manager; what is wanted changes every few seconds.
        with opened(resolve(site.inventory, None), Ui(stderr=io.StringIO())) as swarm:
            service = find_service(services(swarm.engine), WEB)
            while not ended.wait(LOOK_SECONDS):
                for task in tasks(swarm.engine, [service.id]):
                    if task.is_up:
                        seen.healthy.setdefault(task.id, task.changed.timestamp())
                    if task.is_leaving:
                        seen.leaving.setdefault(task.id, task.written.timestamp())

    with ThreadPoolExecutor(1) as pool:
        watched = pool.submit(watch)
        try:
            yield seen
        finally:
            ended.set()
        # What the watching has died of, if it has.
        watched.result()


def _times(
    since: Mapping[str, float], ended: Mapping[str, Mapping[str, Any]], what: str, begun: float
) -> list[float]:
    """The seconds from a change to a request, for the changes since the load has `begun`."""
    return sorted(
        round(ended[task][what] - moment, 4)
        for task, moment in since.items()
        if moment > begun and task in ended and ended[task]["requests"]
    )


def text(found: Mapping[str, Sequence[float]]) -> str:
    """The distributions, as Markdown."""
    rows = [
        [name, str(len(waits)), *(milliseconds(percentile(waits, part)) for part in (50, 90, 99, 100))]
        for name, waits in found.items()
    ]
    return table(["", "tasks", "p50", "p90", "p99", "most"], rows)
