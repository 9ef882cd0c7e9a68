"""The loss test: everything that swarmkit does to a balanced service, under load."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.traffic.client import Load
from benchmarks.traffic.drive import HEADS, Outcome, drive, table
from benchmarks.traffic.operations import DOCKER, SWARMKIT, TLS_PORT, chosen
from benchmarks.traffic.site import Site, lab_site

# A bit more than the load needs for the operations, so that it does not end before them.
MOST_SECONDS = 1800


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--requests", type=int, default=100_000, help="at least so many (100000)")
    parser.add_argument("--rate", type=float, default=250, help="requests a second (250)")
    parser.add_argument("--rounds", type=int, default=2, help="how often the operations are done (2)")
    parser.add_argument("--only", action="append", default=[], help="operations whose names begin so")
    parser.add_argument("--docker", action="store_true", help="by docker's own commands instead")
    parser.add_argument("--no-tls", action="store_true", help="no part of the load by TLS")
    parser.add_argument("--resend", action="store_true", help="let the client send safe requests again")


def run(options: argparse.Namespace, work: Path) -> tuple[str, Mapping[str, Any], bool]:
    """Every operation under load: the requests that failed, and what became of them."""
    operations = chosen(DOCKER if options.docker else SWARMKIT, options.only)
    with lab_site(options.lab, 3, work) as site:
        tls = bring_up(site, tls=not options.no_tls)
        load = Load(
            site.url,
            options.rate,
            int(options.rate * MOST_SECONDS),
            tls_url=tls,
            http2=True,
            resend=options.resend,
        )
        outcome = drive(site, load, operations, requests=options.requests, rounds=options.rounds)
    return text(outcome), outcome.document(), outcome.is_good


def bring_up(site: Site, *, tls: bool) -> str:
    """Deploy the stack; the URL of the balancer by TLS, empty without it."""
    if tls:
        site.certificate()
    site.up()
    return f"https://{site.addresses[site.manager]}:{TLS_PORT}" if tls else ""


def text(outcome: Outcome) -> str:
    """The table, and each kind of failure with an explanation."""
    report = outcome.report
    parts = [
        table(HEADS, outcome.rows()),
        f"{report['requests']:,} requests, {report['failed']:,} failed; {report['on used connections']:,} "
        f"on connections that had been used; {len(report['certificates'])} certificates seen; "
        f"{len(outcome.twice)} POSTs processed twice.",
    ]
    unexcused = {one["id"] for one in outcome.unexcused}
    kinds = Counter(
        (
            one["phase"],
            one["method"],
            one["kind"],
            one["stage"],
            f"processed {one['processed']} times",
            "not excused" if one["id"] in unexcused else "excused",
        )
        for one in outcome.failures
    )
    parts += [f"- {count} × {', '.join(words)}" for words, count in sorted(kinds.items())]
    return "\n".join([*parts, *(f"problem: {one}" for one in outcome.problems)])
