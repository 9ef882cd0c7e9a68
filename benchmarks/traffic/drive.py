"""One run: a load, the operations one after the other, and what came of it."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.bootstrap.labs import Failed
from benchmarks.traffic.client import BETWEEN, Client, Load, client
from benchmarks.traffic.operations import Operation, explain, is_excused
from benchmarks.traffic.site import Site, eventually

CALM_SECONDS = 3
HOLDS_SECONDS = 30


@dataclass(frozen=True)
class Outcome:
    """The client's report, its failures explained.

    `problems` are operations that did not do their work, `seconds` how long each took, `dead` the
    addresses of tasks that died without a word, by the operation; `twice` are the ids of POSTs that were
    processed more than once, as the ledger has them.
    """

    report: Mapping[str, Any]
    failures: Sequence[Mapping[str, Any]]
    problems: Sequence[str]
    seconds: Mapping[str, float]
    dead: Mapping[str, Collection[str]]
    twice: Sequence[str]

    @property
    def is_good(self) -> bool:
        """Whether nothing happened that must not."""
        return not (self.problems or self.unexcused or self.twice)

    @property
    def unexcused(self) -> Sequence[Mapping[str, Any]]:
        """The failures that must not be: all, but for those excused where a backend dies without a word."""
        return [
            one
            for one in self.failures
            if one["phase"] not in self.dead or not is_excused(one, self.dead[one["phase"]])
        ]

    def document(self) -> dict[str, Any]:
        return {
            **self.report,
            "failures": list(self.failures),
            "problems": list(self.problems),
            "seconds": dict(self.seconds),
            "processed twice": list(self.twice),
            "dead": {name: sorted(addresses) for name, addresses in self.dead.items()},
        }

    def rows(self) -> list[list[str]]:
        """A row for each operation: requests, failed, resent, p50 and p99."""
        every = self.report["phases"]
        names = [*(name for name in every if name != BETWEEN), BETWEEN]
        return [[name, *_cells(every[name])] for name in names if name in every]


HEADS = ("operation", "requests", "failed", "sent again", "p50", "p99")


def _cells(phase: Mapping[str, Any]) -> list[str]:
    counts = [f"{phase[key]:,}" for key in ("requests", "failed", "resent")]
    return [*counts, milliseconds(phase["p50"]), milliseconds(phase["p99"])]


def milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.1f} ms"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def drive(
    site: Site,
    load: Load,
    operations: Sequence[Operation],
    *,
    requests: int = 0,
    rounds: int = 1,
    after: Callable[[], None] = lambda: None,
) -> Outcome:
    """Send the load while the operations are done, `rounds` times, and at the end those that are done once.

    Then the load goes on until so many `requests` were sent. An operation that fails is noted, and the
    rest is done all the same. `after` is called after each.
    """
    problems: list[str] = []
    seconds: dict[str, float] = {}
    dead: dict[str, Collection[str]] = {}
    repeated = [one for one in operations if not one.once]
    with client(load) as running:
        _wait(running, CALM_SECONDS)
        for one in [*repeated * rounds, *(one for one in operations if one.once)]:
            try:
                one.before(site)
                addresses = site.edge_addresses() if one.loses else set()
                with running.phase(one.name):
                    begun = time.monotonic()
                    try:
                        one.act(site)
                    finally:
                        seconds[one.name] = round(time.monotonic() - begun, 1)
                        _wait(running, one.seconds)
                eventually(functools.partial(one.holds, site), HOLDS_SECONDS, f"{one.name} was done")
                if one.loses:
                    dead[one.name] = addresses - site.edge_addresses()
                after()
            except Failed as error:
                problems.append(f"{one.name}: {error}")
            took = seconds.get(one.name, 0)
            _say(f"{one.name}: {took} s, {running.sent} sent, {running.failed} failed so far")
        while running.runs and running.sent < requests:
            _wait(running, 0.5)
        report = running.finish()
    processed = site.entries()["posts"]
    return Outcome(
        report,
        explain(site, report["failures"], processed),
        problems,
        seconds,
        dead,
        [one for one, times in processed.items() if times > 1],
    )


def _wait(running: Client, seconds: float) -> None:
    """Let the load go on for so long. Raises Failed where it has ended."""
    time.sleep(seconds)
    if not running.runs:
        raise Failed("the load has ended before the operations")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
