"""What `lb status` and `lb routes` make of what the swarm and the proxies say."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx.agent import Metrics
from swarmkit.balancer import status
from swarmkit.balancer.routes import routes
from swarmkit.balancer.status import (
    Latency,
    Proxies,
    ProxyStatus,
    Status,
    lack,
    read_routes,
    routes_json,
    show_routes,
    show_status,
    swarm_routes,
    wait_until_served,
)
from swarmkit.balancer.upstreams import upstreams
from swarmkit.errors import NotConverged, Unreachable
from swarmkit.names import EDGE_NETWORK, PROXY_SERVICE
from swarmkit.remote import Engine, EngineError
from swarmkit.swarm import Node, Service, Task
from swarmkit.target import Swarm, Target
from swarmkit.ui import Output, Ui
from tests.unit.builders import node, service, task

A, B, C = "10.0.1.5:80", "10.0.1.6:80", "10.0.1.7:80"


def agent(
    upstreams: Mapping[str, Mapping[str, str]], lines: bytes = b"", revision: str = "a" * 16, **changed: Any
) -> dict[str, Any]:
    """What an agent says, of requests as its own code counts them."""
    metrics = Metrics()
    metrics.feed(lines)
    return {
        "node": "n1",
        "revision": revision,
        "fallback": False,
        "controller": {"seconds_ago": 3.0, "error": ""},
        "refused": None,
        "reloads": 2,
        "refusals": 0,
        "reload_seconds": 0.1,
        "uptime_seconds": 60.0,
        "malformed_lines": 0,
        "connections": {"active": 4},
        "in_flight": {},
        "upstreams": upstreams,
        "routes": {name: route.json() for name, route in metrics.routes.items()},
    } | changed


def lines(route: str, address: str, milliseconds: list[int], code: int = 200) -> bytes:
    return b"".join(
        f"{route}\t{address}\t{code}\t{code}\t{ms / 1000:.3f}\t{ms / 1000:.3f}\t10\n".encode()
        for ms in milliseconds
    )


def attached(number: int, address: str, on: str = "n1", **more: Any) -> Task:
    made = task(number, on=on, **more)
    network = {"Network": {"ID": "edge"}, "Addresses": [f"{address}/16"]}
    return Task.of({**made.raw, "NetworksAttachments": [network]})


WEB = {"swarmkit.lb.port": "80"}


class Manager(Engine):
    """A manager's engine that has these services, tasks and nodes."""

    def __init__(self, services: list[Service], tasks: list[Task], nodes: list[Node]) -> None:
        self.name = "manager"
        self.services, self.tasks, self.nodes = services, tasks, nodes
        self.asked: list[str] = []

    def get(self, path: str, params: Any = None, *, headers: Any = None) -> Any:  # noqa: ARG002
        self.asked.append(path)
        match path:
            case "/services":
                return [one.raw for one in self.services]
            case "/tasks":
                ids = json.loads(params["filters"])["service"]
                return [one.raw for one in self.tasks if one.service_id in ids]
            case "/nodes":
                return [one.raw for one in self.nodes]
            case "/secrets":
                return [{"Spec": {"Name": "web_users"}}]
            case "/info":
                return {"Swarm": {"NodeID": "n1"}}
            case "/networks/swarmkit-edge":
                return {"Id": "edge"}
        raise EngineError("not found", 404)


def swarm_of(manager: Manager) -> Swarm:
    return Swarm(Target("here", "--engine", named=True, engine_url="unix://"), manager)


def proxy_service() -> Service:
    return service(None, name=PROXY_SERVICE)


def proxy_task(on: str) -> Task:
    return task(None, on=on, of=PROXY_SERVICE, container=f"proxy-{on}")


# --- routes


def test_routes_are_read_from_the_swarm_alone() -> None:
    manager = Manager(
        [service(name="web", labels=WEB), service(name="db", labels={})],
        [attached(1, "10.0.1.5"), attached(2, "10.0.1.6")],
        [node("n1")],
    )
    (found,) = routes_json(read_routes(manager))["routes"]
    assert found["name"] == "web"
    assert found["places"] == ["any host/"]
    assert [each["address"] for each in found["endpoints"]] == ["10.0.1.5", "10.0.1.6"]
    assert found["unreachable"] == ""


def test_a_service_that_is_not_on_the_edge_network_is_said_to_be_unreachable() -> None:
    manager = Manager([service(name="web", labels=WEB)], [task(1)], [node("n1")])
    (found,) = routes_json(read_routes(manager))["routes"]
    assert found["endpoints"] == []
    assert found["unreachable"] == f"not attached to the network {EDGE_NETWORK}"


def test_mistakes_in_labels_and_missing_secrets_are_told_with_the_routes() -> None:
    known = [
        service(name="web", labels={**WEB, "swarmkit.lb.auth": "users"}),
        service(name="bad", labels={"swarmkit.lb.port": "http"}),
    ]
    wanted = routes(known)
    found = swarm_routes(wanted, upstreams(known, [], [node("n1")], "edge"), ["other"])
    assert [(error.where, error.message) for error in found.errors] == [
        ("bad", 'label swarmkit.lb.port: expected the port that the tasks listen on, got "http"'),
        ("web", "label swarmkit.lb.auth: the secret is not there"),
    ]
    assert not swarm_routes(wanted, upstreams(known, [], [], "edge"), ["users"]).errors[1:]


def shown(show: Any, found: Any) -> str:
    stdout, stderr = io.StringIO(), io.StringIO()
    show(Ui(Output.TEXT, stdout=stdout, stderr=stderr), found)
    return stdout.getvalue() + stderr.getvalue()


def test_the_table_of_routes_shows_endpoints_or_why_there_are_none() -> None:
    manager = Manager(
        [service(name="web", labels=WEB), service(0, name="off", labels={**WEB, "swarmkit.lb.path": "/off"})],
        [attached(number, f"10.0.1.{number}") for number in range(1, 6)],
        [node("n1")],
    )
    text = shown(show_routes, read_routes(manager))
    assert "web.1 10.0.1.1@n1, web.2 10.0.1.2@n1, web.3 10.0.1.3@n1 and 2 more" in text
    assert "any host/off" in text
    assert "unreachable: scaled to 0" in text


# --- latency


def test_percentiles_are_read_from_the_buckets() -> None:
    found = Latency({0.001: 50, 0.016: 49, 4.0: 1}, 3.2)
    assert found.percentile(50) == 0.001
    assert found.percentile(51) == 0.016
    assert found.percentile(99) == 0.016
    assert found.percentile(100) == 3.2
    assert Latency().percentile(50) is None


@given(st.lists(st.integers(0, 5_000_000), min_size=1, max_size=50), st.integers(1, 100))
def test_a_percentile_is_at_most_a_fifth_too_much_and_never_too_little(
    milliseconds: list[int], percent: int
) -> None:
    raw = agent({}, lines("web", A, milliseconds))
    found = ProxyStatus.of("n1", raw).routes["web"].latency
    exact = sorted(milliseconds)[-(-len(milliseconds) * percent // 100) - 1] / 1000
    told = found.percentile(percent)
    assert told is not None
    assert exact <= told <= max(exact * 1.2, 0.001)


# --- what proxies say


def test_what_several_proxies_counted_is_added_up() -> None:
    tasks = {"web": {A: "web.1 on n1", B: "web.2 on n2"}}
    first = agent(tasks, lines("web", A, [10] * 3), in_flight={A: 2})
    second = agent(tasks, lines("web", A, [500]) + lines("web", B, [20], 500), in_flight={A: 1, B: 1})
    found = Status([ProxyStatus.of("n1", first), ProxyStatus.of("n2", second)])
    (web,) = found.routes
    assert (web.requests, web.upstream_errors, web.errors, web.in_flight) == (5, 1, 0, 4)
    assert web.latency.longest == 0.5
    assert {one.address: (one.task, one.requests, one.in_flight) for one in web.upstreams.values()} == {
        A: ("web.1 on n1", 4, 3),
        B: ("web.2 on n2", 1, 1),
    }
    (document,) = found.json()["routes"]
    assert document["p50"] == pytest.approx(0.011, rel=0.2)
    assert document["max"] == 0.5


def test_a_task_without_requests_and_one_that_has_gone_are_both_shown() -> None:
    raw = agent({"web": {A: "web.1 on n1"}}, lines("web", C, [1]))
    text = shown(show_status, Status([ProxyStatus.of("n1", raw)]))
    assert f"{A} web.1 on n1" in text
    assert f"{C} (gone)" in text


def test_the_longest_request_of_a_service_is_that_of_all_its_routes() -> None:
    raw = agent(
        {}, lines("web_web", A, [20]) + lines("web_web.api", A, [7000]) + lines("web_webx", A, [9999])
    )
    found = Status([ProxyStatus.of("n1", raw)])
    assert found.longest("web_web") == 7.0
    assert found.longest("db") is None


def test_proxies_that_are_behind_are_told_from_those_in_step() -> None:
    found = Status(
        [
            ProxyStatus.of("n1", agent({})),
            ProxyStatus.of("n2", agent({})),
            ProxyStatus.of("n3", agent({}, revision="b" * 16, refused={"error": "nginx -t: bad"})),
            ProxyStatus.of("n4", agent({}, fallback=True)),
            ProxyStatus("n5", "does not answer"),
        ]
    )
    assert [found.is_in_step(proxy) for proxy in found.proxies] == [True, True, False, False, False]
    text = shown(show_status, found)
    for note in ("refused the newest: nginx -t: bad", "no controller answers", "does not answer"):
        assert note in text


def test_proxies_without_any_configuration_are_not_in_step() -> None:
    found = Status([ProxyStatus.of("n1", agent({}, revision="", controller={"seconds_ago": None}))])
    assert not found.is_in_step(found.proxies[0])
    assert "no configuration yet" in shown(show_status, found)


def test_a_proxy_that_cannot_be_asked_is_named_and_spoils_nothing() -> None:
    nodes = [node("n1"), node("n2"), node("n3", state="down")]
    manager = Manager([proxy_service()], [proxy_task(each.id) for each in nodes], nodes)
    swarm = swarm_of(manager)

    def ask(_engine: Engine, container: str) -> str:
        assert container == "proxy-n1"
        raise Unreachable("the connection ended")

    found = Proxies.find(swarm, manager.services, nodes, ask).read()
    assert [(proxy.node, proxy.error) for proxy in found.proxies] == [
        ("n1", "the connection ended"),
        ("n2", "--engine leads to another node alone"),
        ("n3", "--engine leads to another node alone"),
    ]


@pytest.mark.parametrize("said", ["", "[]", "{}", '{"revision": 1}', "null"])
def test_an_answer_that_is_not_understood_is_an_error_of_that_proxy(said: str) -> None:
    manager = Manager([proxy_service()], [proxy_task("n1")], [node("n1")])
    found = Proxies.find(swarm_of(manager), manager.services, manager.nodes, lambda *_: said).read()
    assert "not understood" in found.proxies[0].error


def test_without_a_balancer_there_is_nothing_to_ask() -> None:
    manager = Manager([], [], [node("n1")])
    assert status.read_status(swarm_of(manager)).proxies == []
    assert "no proxy runs" in shown(show_status, Status([]))


# --- waiting


def quiet(stderr: io.StringIO | None = None) -> Ui:
    return Ui(Output.TEXT, stdout=io.StringIO(), stderr=stderr or io.StringIO())


def a_served_swarm() -> Manager:
    return Manager(
        [service(name="web", labels=WEB), service(name="db"), proxy_service()],
        [attached(1, "10.0.1.5"), attached(2, "10.0.1.6"), proxy_task("n1")],
        [node("n1")],
    )


def test_waiting_ends_when_the_proxies_have_the_endpoints_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarmkit.waiting.POLL_SECONDS", 0)
    answers = [agent({}), agent({"web": {A: "old"}}), agent({"web": {A: "", B: ""}})]

    def ask(_engine: Engine, _container: str) -> str:
        return json.dumps(answers.pop(0))

    wait_until_served(swarm_of(a_served_swarm()), quiet(), {"web"}, timeout=10, ask=ask)
    assert answers == []


def test_waiting_costs_one_request_where_nothing_is_routed() -> None:
    manager = a_served_swarm()
    wait_until_served(swarm_of(manager), quiet(), {"db"}, timeout=10, ask=lambda *_: pytest.fail("asked"))
    assert manager.asked == ["/services"]


def test_waiting_in_vain_says_what_each_proxy_lacks() -> None:
    raw = agent({"web": {A: "", C: ""}}, refused={"error": "nginx -t: bad"})
    with pytest.raises(NotConverged) as caught:
        wait_until_served(
            swarm_of(a_served_swarm()), quiet(), {"web"}, timeout=0, ask=lambda *_: json.dumps(raw)
        )
    assert caught.value.details == (
        f"n1: web leads to {A}, {C} instead of {A}, {B}; it refused the newest configuration: nginx -t: bad",
    )


def test_a_proxy_on_a_node_that_is_down_is_not_waited_for() -> None:
    manager = a_served_swarm()
    manager.nodes = [node("n1", state="down"), node("n2")]
    wait_until_served(swarm_of(manager), quiet(), {"web"}, timeout=0, ask=lambda *_: pytest.fail("asked"))


def test_a_proxy_that_cannot_be_asked_is_warned_of_and_holds_nothing_up() -> None:
    def ask(_engine: Engine, _container: str) -> str:
        raise Unreachable("no machine of the inventory")

    said = io.StringIO()
    swarm = swarm_of(a_served_swarm())
    wait_until_served(swarm, quiet(said), {"web"}, timeout=10, patience=0, ask=ask)
    assert "could not be asked whether it follows: n1: no machine of the inventory" in said.getvalue()
    with pytest.raises(NotConverged):
        wait_until_served(swarm, quiet(), {"web"}, timeout=0, ask=ask)


def test_a_canary_is_waited_for_with_the_service_whose_routes_it_shares() -> None:
    canary = service(name="web-canary", labels={"swarmkit.lb.canary": "web", "swarmkit.lb.weight": "10"})
    manager = a_served_swarm()
    manager.services.append(canary)
    manager.tasks.append(attached(1, "10.0.1.7", of="web-canary"))
    both = json.dumps(agent({"web": {A: "", B: ""}}))
    with pytest.raises(NotConverged):
        wait_until_served(swarm_of(manager), quiet(), {"web-canary"}, timeout=0, ask=lambda *_: both)
    every = json.dumps(agent({"web": {A: "", B: "", C: ""}}))
    wait_until_served(swarm_of(manager), quiet(), {"web-canary"}, timeout=0, ask=lambda *_: every)


def test_a_proxy_that_goes_by_dns_serves_nothing_for_certain() -> None:
    proxy = ProxyStatus.of("n1", agent({"web": {A: ""}}, fallback=True))
    assert lack(proxy, {"web": {A}}) == "n1: no controller answers it"
    assert lack(ProxyStatus("n1", "gone"), {}) == "n1: gone"
