"""Routes: labels in, typed values out, and a clear word on everything else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkit.balancer.routes import LABELS, Canary, Route, Routes, find_secret, routes
from swarmkit.compose.convert import Context, DesiredStack, convert
from swarmkit.compose.load import parse
from swarmkit.deploy.observe import after
from swarmkit.errors import UsageError
from swarmkit.swarm import Service
from tests.unit.memoryengine import MemoryEngine


def service(name: str, stack: str = "", made: str = "2026-01-01", **labels: str) -> Service:
    """A service with labels of the balancer; `admin__port` stands for `swarmkit.lb.admin.port`."""
    found = {f"swarmkit.lb.{key.replace('__', '.')}": value for key, value in labels.items()}
    found |= {"com.docker.stack.namespace": stack} if stack else {}
    return Service.of({"ID": name, "CreatedAt": made, "Spec": {"Name": name, "Labels": found}})


def only(name: str = "web", stack: str = "", **labels: str) -> Route:
    """The one route of a service with these labels."""
    found = routes([service(name, stack, **labels)])
    assert found.errors == []
    (route,) = found.routes
    return route


def mistakes(*services: Service) -> list[str]:
    return [str(error) for error in routes(services).errors]


def test_a_service_without_labels_has_no_route() -> None:
    assert routes([service("db")]) == Routes([], [])


def test_labels_become_a_route() -> None:
    assert only(port="80") == Route("web", 80)
    assert only(
        port="9000",
        host="API.example, *.api.example",
        path="/v1/",
        strip="on",
        balance="round_robin",
        sticky="cookie",
        body="10m",
        rate="600/m",
        burst="5",
        connections="20",
        timeout="2m",
        buffering="off",
        auth="passwords",
        tls="redirect",
        certificate="example.pem",
        headers="off",
        log="json",
    ) == Route(
        "web",
        9000,
        hosts=("api.example", "*.api.example"),
        path="/v1",
        strip=True,
        balance="round_robin",
        sticky="cookie",
        body="10m",
        rate="600r/m",
        burst=5,
        connections=20,
        timeout=120,
        buffering=False,
        auth="passwords",
        tls="redirect",
        certificate="example.pem",
        headers=False,
        log="json",
    )


def test_a_service_has_several_routes_by_name() -> None:
    found = routes([service("web", port="80", admin__port="81", admin__path="/admin")])
    assert [(route.name, route.port, route.path) for route in found.routes] == [
        ("web", 80, "/"),
        ("web.admin", 81, "/admin"),
    ]


def test_plain_tcp_has_a_port_for_itself() -> None:
    found = routes([service("db", port="5432", mode="tcp", listen="5432", sticky="ip")])
    assert (found.errors, found.entry_ports) == ([], [5432])
    assert mistakes(
        service("a", port="1", listen="7000", mode="tcp"), service("b", port="2", listen="7000")
    ) == ["b: a already has the port 7000"]


def test_the_service_that_was_made_first_keeps_its_route() -> None:
    found = routes([service("a", made="2026-02-01", port="80"), service("z", port="80")])
    assert [route.service for route in found.routes] == ["z"]
    assert [str(error) for error in found.errors] == ["a: z already has the route any host/"]
    planned = Service.of({"ID": "", "Spec": service("a", port="80").spec})
    assert [route.service for route in routes([planned, service("z", port="80")]).routes] == ["z"]


def test_one_host_of_several_is_enough_to_be_in_the_way() -> None:
    first = service("a", port="80", host="x.example,y.example")
    assert mistakes(first, service("b", port="80", host="z.example,y.example")) == [
        "b: a already has the route y.example/"
    ]
    assert mistakes(first, service("b", port="80", host="y.example", path="/b")) == []


def test_a_port_has_tls_or_not_and_a_host_one_certificate() -> None:
    first = service("a", port="80", listen="7000", tls="on", host="x.example", certificate="one")
    assert mistakes(first, service("b", port="80", listen="7000")) == [
        "b: port 7000 speaks TLS already, for a"
    ]
    other = service("b", port="80", listen="7000", tls="on", host="x.example", path="/b", certificate="two")
    assert mistakes(first, other) == ["b: a already brings the certificate of x.example"]


def test_a_canary_shares_the_routes_of_its_service_by_weight() -> None:
    stable = service("st_web", "st", port="80", admin__port="81", admin__path="/admin")
    # It may be a copy of the service, labels and all.
    copy = service(
        "st_next", "st", port="8000", admin__path="/admin", canary="web", weight="10", colour="red"
    )
    found = routes([stable, copy])
    assert found.errors == []
    assert [(route.name, route.canary) for route in found.routes] == [
        ("st_web", Canary("st_next", 8000, 10)),
        ("st_web.admin", Canary("st_next", 81, 10)),
    ]


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        ({"canary": "web"}, "label swarmkit.lb.weight: expected a percentage from 0 to 100"),
        ({"canary": "web", "weight": "101"}, "label swarmkit.lb.weight: expected a percentage"),
        ({"canary": "api", "weight": "5"}, 'label swarmkit.lb.canary: no service "api" has a route'),
        ({"canary": "next", "weight": "5"}, 'label swarmkit.lb.canary: no service "next" has a route'),
        ({"port": "80", "path": "/x", "weight": "5"}, "only has a meaning beside swarmkit.lb.canary"),
    ],
)
def test_a_canary_needs_a_service_and_a_weight(labels: dict[str, str], what: str) -> None:
    (mistake,) = mistakes(service("web", port="80"), service("next", **labels))
    assert mistake.startswith("next: ")
    assert what in mistake


@pytest.mark.parametrize(
    ("labels", "label"),
    [
        ({"host": "a.example"}, "port"),
        ({"port": "http"}, "port"),
        ({"port": "0"}, "port"),
        ({"port": "65536"}, "port"),
        ({"port": "٨٠"}, "port"),
        ({"port": "80;"}, "port"),
        ({"port": "80", "host": "a b"}, "host"),
        ({"port": "80", "host": "a.example;"}, "host"),
        ({"port": "80", "host": "*"}, "host"),
        ({"port": "80", "host": "a.*.example"}, "host"),
        ({"port": "80", "host": "a.example,"}, "host"),
        ({"port": "80", "host": "bücher.example"}, "host"),
        ({"port": "80", "host": "a" * 10_000}, "host"),
        ({"port": "80", "host": "a.example\n"}, "host"),
        ({"port": "80", "path": "web"}, "path"),
        ({"port": "80", "path": "/a{"}, "path"),
        ({"port": "80", "path": "/a\nb"}, "path"),
        ({"port": "80", "path": "/a/../b"}, "path"),
        ({"port": "80", "path": "/a//b"}, "path"),
        ({"port": "80", "path": '/a"; return 200; #'}, "path"),
        ({"port": "80", "path": "/" + "a" * 10_000}, "path"),
        ({"port": "80", "strip": "on"}, "strip"),
        ({"port": "80", "listen": "8080"}, "listen"),
        ({"port": "80", "listen": "22"}, "listen"),
        ({"port": "80", "mode": "udp"}, "mode"),
        ({"port": "80", "mode": "tcp"}, "mode"),
        ({"port": "80", "mode": "tcp", "listen": "7000", "path": "/a"}, "path"),
        ({"port": "80", "mode": "tcp", "listen": "7000", "sticky": "cookie"}, "sticky"),
        ({"port": "80", "mode": "tcp", "listen": "7000", "tls": "redirect"}, "tls"),
        ({"port": "80", "balance": "random"}, "balance"),
        ({"port": "80", "body": "10 MB"}, "body"),
        ({"port": "80", "rate": "0/s"}, "rate"),
        ({"port": "80", "rate": "10"}, "rate"),
        ({"port": "80", "burst": "5"}, "burst"),
        ({"port": "80", "connections": "0"}, "connections"),
        ({"port": "80", "timeout": "30"}, "timeout"),
        ({"port": "80", "timeout": "900000h"}, "timeout"),
        ({"port": "80", "auth": "../../etc/shadow"}, "auth"),
        ({"port": "80", "tls": "yes"}, "tls"),
        ({"port": "80", "tls": "off", "certificate": "x"}, "certificate"),
        ({"port": "80", "listen": "7000", "certificate": "x"}, "certificate"),
        ({"port": "80", "log": "xml"}, "log"),
        ({"port": "80", "colour": "red"}, "colour"),
    ],
)
def test_labels_that_cannot_be_honoured_are_mistakes_and_spare_the_others(
    labels: dict[str, str], label: str
) -> None:
    found = routes([service("web", **labels), service("well", port="80")])
    assert found.routes == [Route("well", 80)]
    (error,) = found.errors
    assert error.where == "web"
    assert error.message.startswith(f"label swarmkit.lb.{label}: ")
    assert len(error.message) < 250


def test_all_mistakes_are_told_at_once() -> None:
    assert mistakes(service("web", port="x", host="-", a__path="b", B__port="1")) == [
        "web: label swarmkit.lb.B.port: its route cannot be called so",
        'web: label swarmkit.lb.a.path: expected a path such as /web, got "b"',
        "web: label swarmkit.lb.a.port: is missing; it is the port that the tasks listen on",
        "web: label swarmkit.lb.host: expected host names, with commas between them, such as web.example or"
        ' *.example, got "-"',
        'web: label swarmkit.lb.port: expected the port that the tasks listen on, got "x"',
    ]


def test_what_may_be_a_secret_in_the_wrong_place_is_not_shown() -> None:
    (mistake,) = mistakes(service("web", port="80", auth="me:$apr1$hash"))
    assert "apr1" not in mistake


@pytest.mark.parametrize(
    ("known", "found"),
    [
        (["pw", "st_pw"], "st_pw"),
        (["st_pw", "st_pw-0123456789", "st_pw-abcdefabcd"], "st_pw-abcdefabcd"),
        (["pw", "other_pw"], "pw"),
        (["st_pwd", "other_pw"], None),
    ],
)
def test_a_secret_is_the_newest_of_its_stack_else_the_one_of_that_name(
    known: list[str], found: str | None
) -> None:
    assert find_secret("pw", "st", known) == found


KEYS = st.one_of(st.sampled_from([label.name for label in LABELS]), st.text(max_size=12))


@given(st.dictionaries(KEYS, st.text(max_size=40), max_size=6), st.text(max_size=20))
def test_whatever_labels_say_there_is_a_route_or_a_reason(labels: dict[str, str], name: str) -> None:
    wanted = {f"swarmkit.lb.{key}": value for key, value in labels.items()}
    found = routes([Service.of({"ID": "x", "Spec": {"Name": name, "Labels": wanted}})])
    assert bool(found.routes or found.errors) == bool(wanted)
    assert all(isinstance(error, UsageError) for error in found.errors)


def test_a_service_that_is_deployed_again_keeps_its_route() -> None:
    def desired(name: str) -> DesiredStack:
        text = "services: {web: {image: i, deploy: {labels: {swarmkit.lb.port: '80'}}}}"
        return convert(parse(text, "stack.yml", Path("/s"), {}), name, Context(images={"web": "i"}))

    engine = MemoryEngine()
    for name in ("old", "another"):
        (service,) = desired(name).services
        engine.post("/services/create", service.spec)
    # `another_web` would have it by its name, and by being the only one that is there.
    assert [str(one) for one in routes(after(engine, desired("old"))).errors] == [
        "another_web: old_web already has the route any host/"
    ]
