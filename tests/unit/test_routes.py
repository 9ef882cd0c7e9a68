"""Routes: labels in, nginx configuration out, and nothing that could be one in between."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkit.balancer.routes import Route, configuration, routes
from swarmkit.swarm import Service


def service(name: str, **labels: str) -> Service:
    spec = {"Name": name, "Labels": {f"swarmkit.lb.{key}": value for key, value in labels.items()}}
    return Service.of({"ID": name, "Spec": spec})


def test_a_service_without_labels_has_no_route() -> None:
    assert routes([service("db")]).routes == []


def test_labels_become_routes() -> None:
    found = routes(
        [service("web_web", port="80"), service("api", port="9000", host="API.example", path="/v1/")]
    )
    assert found.routes == [Route("", "/", "web_web", 80), Route("api.example", "/v1", "api", 9000)]


def test_the_configuration_asks_dns_for_the_tasks_at_each_request() -> None:
    text = configuration([Route("", "/", "web_web", 80)])
    assert "listen 8080 default_server;" in text
    assert "set $tasks tasks.web_web; proxy_pass http://$tasks:80;" in text
    assert "404" not in text


def test_a_path_takes_what_is_under_it_and_not_what_begins_alike() -> None:
    text = configuration([Route("", "/web", "web", 80)])
    assert "location = /web {" in text
    assert "location /web/ {" in text
    assert "return 404" in text


def test_a_named_host_leaves_the_default_to_say_404() -> None:
    default, named = configuration([Route("a.example", "/", "web", 80)]).split("\n\n")
    assert "return 404" in default
    assert "server_name a.example;" in named


def test_two_services_cannot_have_one_route() -> None:
    found = routes([service("web_b", port="80"), service("web_a", port="80")])
    assert found.routes == [Route("", "/", "web_a", 80)]
    assert [(error.where, error.message) for error in found.errors] == [
        ("web_b", "web_a already has the route any host/")
    ]


@pytest.mark.parametrize(
    "labels",
    [
        {"port": "http"},
        {"port": "0"},
        {"port": "80;"},
        {"host": "a.example"},
        {"port": "80", "host": "a b"},
        {"port": "80", "host": "a.example;"},
        {"port": "80", "path": "web"},
        {"port": "80", "path": "/a{"},
        {"port": "80", "path": "/a\nb"},
        {"port": "80", "colour": "red"},
    ],
)
def test_labels_that_cannot_be_honoured_are_mistakes_and_spare_the_others(labels: dict[str, str]) -> None:
    found = routes([service("web", **labels), service("well", port="80")])
    assert found.routes == [Route("", "/", "well", 80)]
    assert [error.where for error in found.errors] == ["web"]


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=8))
def test_nothing_in_a_label_can_become_a_directive(host: str, path: str, port: str) -> None:
    text = configuration(routes([service("web", port=port, host=host, path=path)]).routes)
    inside = re.sub(
        r"\{ (set \$tasks tasks\.web; proxy_pass http://\$tasks:\d+;|return 404 .*?) \}", "", text
    )
    assert inside.count("{") == inside.count("}") == len(re.findall("^server ", text, re.MULTILINE))
    assert inside.count(";") == len(
        re.findall(r"^    (listen|server_name) [^;{}\s]+( default_server)?;$", inside, re.MULTILINE)
    )
