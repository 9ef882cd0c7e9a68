"""No request is lost: what swarmkit does to a balanced service, done under load."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from benchmarks.traffic.client import Load
from benchmarks.traffic.drive import Outcome, drive
from benchmarks.traffic.operations import SWARMKIT, TLS_PORT, chosen
from benchmarks.traffic.site import Site, make_site
from tests.e2e.conftest import LAB, Lab

MOST_SECONDS = 1800
EVERY_DAY = (
    "scale",
    "node drain",
    "node activate",
    "node rebalance",
    "update to a new image",
    "update that fails",
    "rollback",
    "controller killed",
)


@pytest.fixture(scope="module")
def site(machines: Callable[[int], Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A swarm with the balanced service that the load is sent to."""
    lab = machines(3)
    lab.swarmkit("init")
    addresses = {name: str(node["address"]) for name, node in lab.nodes.items()}
    work = tmp_path_factory.mktemp("traffic")
    found = make_site(lab.inventory, LAB, lab.url, addresses, work, lab.swarmkit.environment)
    found.up()
    yield found
    lab.swarmkit("reset")


def drive_all(site: Site, names: tuple[str, ...], *, rate: float, requests: int, rounds: int = 1) -> Outcome:
    """The operations whose names begin so, under load by HTTP and, once it has a certificate, by HTTPS."""
    tls = f"https://{site.addresses[site.manager]}:{TLS_PORT}" if "certificate" in names else ""
    load = Load(site.url, rate, int(rate * MOST_SECONDS), tls_url=tls, http2=True)
    operations = [replace(one, seconds=min(one.seconds, 2)) for one in chosen(SWARMKIT, names)]
    return drive(site, load, operations, requests=requests, rounds=rounds)


def test_no_request_fails_while_a_service_is_scaled_moved_updated_and_rolled_back(site: Site) -> None:
    outcome = drive_all(site, EVERY_DAY, rate=120, requests=10_000)
    assert outcome.problems == []
    assert outcome.failures == []
    assert outcome.twice == []
    assert outcome.report["requests"] >= 10_000
    # The load was such as can lose something: most of it on connections that had been used.
    assert outcome.report["on used connections"] > 5_000


@pytest.mark.soak
def test_none_of_100_000_requests_fails_but_where_a_backend_dies_without_a_word(site: Site) -> None:
    site.certificate()
    site.up()
    outcome = drive_all(
        site, ("certificate", "route", *EVERY_DAY, "task", "worker"), rate=250, requests=100_000, rounds=2
    )
    assert outcome.problems == []
    assert outcome.unexcused == []
    assert outcome.twice == []
    assert outcome.report["requests"] >= 100_000
