"""Where users find what the balancer serves."""

from __future__ import annotations

import pytest

from swarmkit.balancer.routes import Route
from swarmkit.balancer.urls import urls_of


@pytest.mark.parametrize(
    ("route", "entry", "found"),
    [
        (Route("web", 80), "http://192.0.2.1:8080", ["http://192.0.2.1:8080/"]),
        (Route("web", 80, path="/a"), "http://[2001:db8::1]:8080", ["http://[2001:db8::1]:8080/a"]),
        (
            Route("web", 80, hosts=("a.example", "*.b.example")),
            "http://127.0.0.1:8083",
            ["http://a.example:8083/", "http://*.b.example:8083/"],
        ),
        (Route("web", 80, hosts=("a.example",)), "https://lb.example", ["https://a.example/"]),
        (Route("web", 80, listen=9000), "http://lb.example:8080", ["http://lb.example:9000/"]),
        (Route("web", 80, listen=9000, tls="on"), "http://[2001:db8::1]", ["https://[2001:db8::1]:9000/"]),
        (Route("db", 5432, listen=5432, mode="tcp"), "http://192.0.2.1:8080", ["tcp://192.0.2.1:5432"]),
    ],
)
def test_a_route_is_found_at_the_entry_by_its_hosts(route: Route, entry: str, found: list[str]) -> None:
    assert urls_of(route, entry) == found
