"""What the balancer does: the routes that the swarm asks for, and what its proxies say of themselves.

A proxy is asked by a command in its container, through its node's engine: nothing of it is open to others.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from math import ceil
from typing import Any

from swarmkit.balancer.nginx import RouteState, configure
from swarmkit.balancer.routes import Route, Routes, find_secret, is_routed, routes
from swarmkit.balancer.upstreams import Endpoint, Upstream, upstreams
from swarmkit.errors import NotConverged, OperationFailed, SwarmkitError, UsageError
from swarmkit.names import EDGE_NETWORK, PROXY_SERVICE, ROUTE_PREFIX
from swarmkit.remote import Engine, EngineError
from swarmkit.services.exec import engine_of, output
from swarmkit.swarm import Node, Service, Task, nodes, services, tasks
from swarmkit.target import Swarm
from swarmkit.ui import Ui
from swarmkit.waiting import wait_for

# What the proxy's image has, and what asks it.
QUESTION = ("python3", "/usr/local/lib/swarmkit/agent.py", "status")
# Proxies that are asked at a time.
_AT_ONCE = 30


# --- routes, from the swarm alone


@dataclass(frozen=True)
class SwarmRoutes:
    """The routes that services ask for, where each leads, and the mistakes in what they ask for."""

    routes: Sequence[RouteState]
    errors: Sequence[UsageError]


def read_routes(engine: Engine) -> SwarmRoutes:
    """As the managers tell it now; the balancer is not asked."""
    live = services(engine)
    wanted = routes(live)
    routed = [one for one in live if is_routed(one)]
    found = upstreams(routed, tasks(engine, [one.id for one in routed]), nodes(engine), edge_id(engine))
    secrets = [one["Spec"]["Name"] for one in engine.get("/secrets")]
    return swarm_routes(wanted, found, secrets)


def swarm_routes(wanted: Routes, found: Mapping[str, Upstream], secrets: Sequence[str]) -> SwarmRoutes:
    """The routes with their endpoints; `secrets` are the names of those that there are.

    What is in a secret only the balancer's controller knows, and says in its log.
    """
    errors = [
        UsageError(
            f"label {ROUTE_PREFIX}{route.label and f'{route.label}.'}{label}: the secret is not there",
            where=route.service,
        )
        for route in wanted.routes
        for label, name in (("auth", route.auth), ("certificate", route.certificate))
        if name and find_secret(name, route.stack, secrets) is None
    ]
    return SwarmRoutes([_state(route, found) for route in wanted.routes], [*wanted.errors, *errors])


def _state(route: Route, found: Mapping[str, Upstream]) -> RouteState:
    groups = [found[name] for name in _services_of(route) if name in found]
    endpoints = [endpoint for group in groups for endpoint in group.endpoints]
    return RouteState(route, endpoints, "" if endpoints else groups[0].unreachable)


def _services_of(route: Route) -> Sequence[str]:
    return [route.service, *([route.canary.service] if route.canary else [])]


def edge_id(engine: Engine) -> str:
    """The id of the network that joins the balancer and the services; empty where there is none."""
    try:
        return str(engine.get(f"/networks/{EDGE_NETWORK}")["Id"])
    except EngineError as error:
        if error.status == 404:
            return ""
        raise


def route_json(state: RouteState) -> dict[str, Any]:
    """A route of `lb routes`."""
    route = state.route
    return {
        "name": route.name,
        "service": route.service,
        "places": list(route.places),
        "hosts": list(route.hosts),
        "path": "" if route.is_tcp else route.path,
        "listen": route.listen,
        "mode": route.mode,
        "port": route.port,
        "canary": asdict(route.canary) if route.canary else None,
        "endpoints": [asdict(endpoint) for endpoint in state.endpoints],
        "unreachable": state.unreachable,
    }


def routes_json(found: SwarmRoutes) -> dict[str, Any]:
    """The document of `lb routes`."""
    return {
        "routes": [route_json(state) for state in found.routes],
        "errors": [
            {"service": error.where, "message": error.message, "hint": error.hint} for error in found.errors
        ],
    }


def show_routes(ui: Ui, found: SwarmRoutes) -> None:
    """The routes as a table, and the mistakes below it."""
    rows = [
        (
            place,
            state.route.service,
            state.route.port,
            _endpoints_shown(state.endpoints) if state.endpoints else f"unreachable: {state.unreachable}",
        )
        for state in found.routes
        for place in state.route.places
    ]
    ui.table(("ROUTE", "SERVICE", "PORT", "ENDPOINTS"), rows, "no routes")
    for error in found.errors:
        ui.warn(f"no route for {error}")


def _endpoints_shown(endpoints: Sequence[Endpoint]) -> str:
    shown = [f"{endpoint.slot} {endpoint.address}@{endpoint.node}" for endpoint in endpoints[:3]]
    return ", ".join(shown) + (f" and {len(endpoints) - 3} more" if len(endpoints) > 3 else "")


# --- what the proxies say


@dataclass(frozen=True)
class Latency:
    """How long something took: how many times by the upper bound of a bucket, and the longest, in seconds.

    Bounds are a fifth apart, and so may what is read from them be too much.
    """

    buckets: Mapping[float, int] = field(default_factory=dict)
    longest: float = 0.0

    @property
    def count(self) -> int:
        return sum(self.buckets.values())

    def percentile(self, percent: float) -> float | None:
        """The time that `percent` of them did not exceed; None where there were none."""
        left = ceil(self.count * percent / 100)
        for bound, number in sorted(self.buckets.items()):
            left -= number
            if left <= 0 and number:
                return min(bound, self.longest)
        return None

    def __add__(self, other: Latency) -> Latency:
        return Latency(Counter(self.buckets) + Counter(other.buckets), max(self.longest, other.longest))

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Latency:
        return cls({float(bound): int(n) for bound, n in raw["buckets"].items()}, float(raw["max"]))

    def json(self) -> dict[str, Any]:
        percentiles = {f"p{percent}": self.percentile(percent) for percent in (50, 90, 99)}
        return percentiles | {"max": self.longest if self.count else None}


@dataclass(frozen=True)
class UpstreamTraffic:
    """What was sent to one address for a route; `task` is empty for one that has gone."""

    address: str
    task: str = ""
    requests: int = 0
    failures: int = 0
    errors: int = 0
    in_flight: int = 0
    latency: Latency = Latency()

    def __add__(self, other: UpstreamTraffic) -> UpstreamTraffic:
        return UpstreamTraffic(
            self.address,
            self.task or other.task,
            self.requests + other.requests,
            self.failures + other.failures,
            self.errors + other.errors,
            self.in_flight + other.in_flight,
            self.latency + other.latency,
        )

    def json(self) -> dict[str, Any]:
        counts = {
            "address": self.address,
            "task": self.task,
            "requests": self.requests,
            "failures": self.failures,
            "errors": self.errors,
            "in_flight": self.in_flight,
        }
        return counts | self.latency.json()


@dataclass(frozen=True)
class RouteTraffic:
    """What clients asked of one route, since the proxies began.

    `errors` are the balancer's own answers of 500 and above, `upstream_errors` the service's; `aborted` are
    requests whose client went before the answer; `retries` further tries at another task.
    """

    name: str
    requests: int = 0
    errors: int = 0
    upstream_errors: int = 0
    aborted: int = 0
    retries: int = 0
    sent_bytes: int = 0
    latency: Latency = Latency()
    upstreams: Mapping[str, UpstreamTraffic] = field(default_factory=dict)

    @property
    def in_flight(self) -> int:
        return sum(upstream.in_flight for upstream in self.upstreams.values())

    def __add__(self, other: RouteTraffic) -> RouteTraffic:
        addresses = {**self.upstreams, **other.upstreams}
        return RouteTraffic(
            self.name,
            self.requests + other.requests,
            self.errors + other.errors,
            self.upstream_errors + other.upstream_errors,
            self.aborted + other.aborted,
            self.retries + other.retries,
            self.sent_bytes + other.sent_bytes,
            self.latency + other.latency,
            {
                address: self.upstreams.get(address, none) + other.upstreams.get(address, none)
                for address in addresses
                for none in [UpstreamTraffic(address)]
            },
        )

    def json(self) -> dict[str, Any]:
        counts = {
            "name": self.name,
            "requests": self.requests,
            "errors": self.errors,
            "upstream_errors": self.upstream_errors,
            "aborted": self.aborted,
            "retries": self.retries,
            "sent_bytes": self.sent_bytes,
            "in_flight": self.in_flight,
        }
        return counts | self.latency.json() | {"upstreams": [one.json() for one in self.upstreams.values()]}


@dataclass(frozen=True)
class ProxyStatus:
    """What one proxy says. `error` says why it could not be asked, and the rest is empty then.

    `served` has, for each route, the addresses in its configuration; `silence` is how long ago the
    controller answered, in seconds, and None where it never has.
    """

    node: str
    error: str = ""
    revision: str = ""
    fallback: bool = False
    silence: float | None = None
    refused: str = ""
    connections: int = 0
    reloads: int = 0
    uptime: float = 0.0
    served: Mapping[str, Collection[str]] = field(default_factory=dict)
    routes: Mapping[str, RouteTraffic] = field(default_factory=dict)

    @classmethod
    def of(cls, node: str, raw: Mapping[str, Any]) -> ProxyStatus:
        """From the agent's document (/status)."""
        refused = raw["refused"]
        names = {**raw["upstreams"], **raw["routes"]}
        return cls(
            node,
            revision=raw["revision"],
            fallback=raw["fallback"],
            silence=raw["controller"]["seconds_ago"],
            refused=refused["error"] if refused else "",
            connections=raw["connections"].get("active", 0),
            reloads=raw["reloads"],
            uptime=raw["uptime_seconds"],
            served={name: set(addresses) for name, addresses in raw["upstreams"].items()},
            routes={name: _traffic(name, raw) for name in names},
        )


def _traffic(name: str, raw: Mapping[str, Any]) -> RouteTraffic:
    present: Mapping[str, str] = raw["upstreams"].get(name, {})
    counted = raw["routes"].get(name)
    told = counted["upstreams"] if counted else {}
    each = {
        address: UpstreamTraffic(
            address,
            present.get(address, ""),
            in_flight=raw["in_flight"].get(address, 0),
            **(_counts(told[address], "requests", "failures", "errors") if address in told else {}),
        )
        for address in {**present, **told}
    }
    if counted is None:
        return RouteTraffic(name, upstreams=each)
    keys = ("requests", "errors", "upstream_errors", "aborted", "retries", "sent_bytes")
    return RouteTraffic(name, upstreams=each, **_counts(counted, *keys))


def _counts(raw: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: raw[key] for key in keys} | {"latency": Latency.of(raw["seconds"])}


@dataclass(frozen=True)
class Status:
    """All proxies, and what they served together."""

    proxies: Sequence[ProxyStatus]

    @property
    def revision(self) -> str:
        """The configuration that most proxies use; empty where none could be asked."""
        known = Counter(proxy.revision for proxy in self.proxies if not proxy.error)
        return known.most_common(1)[0][0] if known else ""

    def is_in_step(self, proxy: ProxyStatus) -> bool:
        """Whether it uses what most use, and that as it was meant."""
        return not proxy.error and not proxy.fallback and proxy.revision == self.revision != ""

    @property
    def routes(self) -> Sequence[RouteTraffic]:
        names = sorted({name for proxy in self.proxies for name in proxy.routes})
        return [
            reduce(
                RouteTraffic.__add__,
                [proxy.routes[name] for proxy in self.proxies if name in proxy.routes],
            )
            for name in names
        ]

    def longest(self, service: str) -> float | None:
        """The longest request that one of the service's routes has answered, in seconds; None without any."""
        seen = [
            route.latency.longest
            for route in self.routes
            if route.name.partition(".")[0] == service and route.latency.count
        ]
        return max(seen, default=None)

    def json(self) -> dict[str, Any]:
        """The document of `lb status`."""
        return {
            "proxies": [
                {
                    "node": proxy.node,
                    "error": proxy.error,
                    "revision": proxy.revision,
                    "in_step": self.is_in_step(proxy),
                    "fallback": proxy.fallback,
                    "controller_seconds": proxy.silence,
                    "refused": proxy.refused,
                    "connections": proxy.connections,
                    "reloads": proxy.reloads,
                    "uptime_seconds": proxy.uptime,
                }
                for proxy in self.proxies
            ],
            "routes": [route.json() for route in self.routes],
        }


Ask = Callable[[Engine, str], str]


def _ask(engine: Engine, container: str) -> str:
    return output(engine, container, QUESTION)


@dataclass(frozen=True)
class Proxies:
    """The proxies that run, found once and asked as often as one likes.

    `here` is the id of the one node whose engine can be spoken to, where there is but one.
    """

    swarm: Swarm
    running: Sequence[tuple[Node, Task]]
    here: str
    ask: Ask
    engines: dict[str, Engine] = field(default_factory=dict)

    @classmethod
    def find(cls, swarm: Swarm, live: Iterable[Service], known: Sequence[Node], ask: Ask = _ask) -> Proxies:
        """Among the services and nodes that there are."""
        by_id = {node.id: node for node in known}
        ids = [one.id for one in live if one.name == PROXY_SERVICE]
        running = [
            (by_id[task.node_id], task)
            for task in tasks(swarm.engine, ids)
            if task.is_up and task.node_id in by_id
        ]
        alone = swarm.fleet is None and running
        here = swarm.engine.get("/info")["Swarm"]["NodeID"] if alone else ""
        return cls(swarm, sorted(running, key=lambda one: one[0].name), here, ask)

    @property
    def within_reach(self) -> Proxies:
        """Those on nodes that are up; of an engine alone, the one on its node."""
        return replace(
            self,
            running=[one for one in self.running if one[0].is_ready and self.here in ("", one[0].id)],
        )

    def read(self) -> Status:
        """Ask all of them, in parallel; one that cannot be asked says why in its `error`."""
        if not self.running:
            return Status([])
        with ThreadPoolExecutor(min(_AT_ONCE, len(self.running))) as pool:
            return Status(list(pool.map(lambda one: self._one(*one), self.running)))

    def _one(self, node: Node, task: Task) -> ProxyStatus:
        if self.here not in ("", node.id):
            return ProxyStatus(node.name, "--engine leads to another node alone")
        if not node.is_ready:
            return ProxyStatus(node.name, f"the node is {node.state}")
        try:
            if node.id not in self.engines:
                self.engines[node.id] = engine_of(self.swarm, node)
            return ProxyStatus.of(node.name, json.loads(self.ask(self.engines[node.id], task.container_id)))
        except SwarmkitError as error:
            self.engines.pop(node.id, None)
            return ProxyStatus(node.name, error.message)
        except (ValueError, KeyError, TypeError) as error:
            return ProxyStatus(node.name, f"it says what is not understood: {type(error).__name__}: {error}")


def read_status(swarm: Swarm) -> Status:
    """What all proxies say; nothing where the balancer does not run."""
    return Proxies.find(swarm, services(swarm.engine), nodes(swarm.engine)).read()


def show_status(ui: Ui, status: Status) -> None:
    """The proxies and the routes as tables."""
    ui.table(
        ("PROXY", "CONFIGURATION", "IN STEP", "CONTROLLER", "CONNECTIONS", "NOTE"),
        [
            (
                proxy.node,
                proxy.revision or "-",
                "yes" if status.is_in_step(proxy) else "no",
                "-" if proxy.silence is None else f"{proxy.silence:.0f} s ago",
                proxy.connections,
                _note(proxy),
            )
            for proxy in status.proxies
        ],
        "no proxy runs: no service has a route, or no node has the label swarmkit.lb=true",
    )
    if not status.proxies:
        return
    ui.line()
    rows: list[Sequence[object]] = []
    for route in status.routes:
        rows.append(
            (
                "(no route)" if route.name == "-" else route.name,
                route.requests,
                route.errors,
                route.upstream_errors,
                *_times(route.latency),
                route.in_flight,
            )
        )
        rows += [
            (
                f"  {one.address} {one.task or '(gone)'}",
                one.requests,
                one.failures,
                one.errors,
                *_times(one.latency),
                one.in_flight,
            )
            for one in route.upstreams.values()
        ]
    ui.table(("ROUTE", "REQUESTS", "FAILED", "ERRORS", "P50", "P99", "MAX", "IN FLIGHT"), rows, "no requests")


def _note(proxy: ProxyStatus) -> str:
    if proxy.error:
        return proxy.error
    notes = [
        "addresses from Docker's DNS: no controller answers" if proxy.fallback else "",
        f"refused the newest: {' '.join(proxy.refused.split())[:160]}" if proxy.refused else "",
        "no configuration yet" if not proxy.revision else "",
    ]
    return "; ".join(note for note in notes if note)


def _times(latency: Latency) -> tuple[str, str, str]:
    return _time(latency.percentile(50)), _time(latency.percentile(99)), _time(latency.percentile(100))


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


# --- waiting for the proxies


def wait_until_served(
    swarm: Swarm, ui: Ui, names: Collection[str], *, timeout: float, patience: float = 10, ask: Ask = _ask
) -> None:
    """End when every proxy sends to exactly the endpoints that the services of these names have.

    Costs one request where none of them has a route. Proxies on nodes that are down are not waited for;
    where none runs, nothing is. One that cannot be asked for `patience` seconds is warned of, and left out.
    Raises NotConverged, with what each proxy lacks, after `timeout` seconds.
    """
    live = services(swarm.engine)
    wanted = [route.name for route in routes(live).routes if set(_services_of(route)) & set(names)]
    if not wanted:
        return
    known = nodes(swarm.engine)
    proxies = Proxies.find(swarm, live, known, ask).within_reach
    if not proxies.running:
        return
    edge = edge_id(swarm.engine)
    behind: list[str] = []
    unasked: list[str] = []
    start = time.monotonic()

    def is_served() -> bool:
        try:
            expected = _expected(swarm.engine, known, edge)
        except OperationFailed as error:
            # The controller too waits until the swarm makes sense.
            behind[:] = [error.message]
            return False
        mine = {name: expected.get(name, ()) for name in wanted}
        found = proxies.read().proxies
        is_patient = time.monotonic() - start < patience
        behind[:] = [text for one in found if (is_patient or not one.error) and (text := lack(one, mine))]
        unasked[:] = [f"{one.node}: {one.error}" for one in found if one.error]
        return not behind

    wait_for(
        is_served,
        timeout,
        lambda: NotConverged(
            f"the load balancer does not serve what runs after {timeout:.0f} s",
            hint="see: swarmkit lb status, swarmkit lb routes",
            details=behind,
        ),
    )
    for text in unasked:
        ui.warn(f"a proxy of the load balancer could not be asked whether it follows: {text}")


def _expected(engine: Engine, known: Sequence[Node], edge: str) -> Mapping[str, Collection[str]]:
    """The addresses that each route is to have, as the controller computes them."""
    routed = [one for one in services(engine) if is_routed(one)]
    # The addresses do not depend on what is in secrets.
    found = configure(routed, tasks(engine, [one.id for one in routed]), known, edge, {})
    return {name: set(each) for name, each in found.bundle.upstreams.items()}


def lack(proxy: ProxyStatus, expected: Mapping[str, Collection[str]]) -> str:
    """What keeps a proxy from serving these addresses for these routes, in words; empty for nothing."""
    if proxy.error:
        return f"{proxy.node}: {proxy.error}"
    if proxy.fallback:
        return f"{proxy.node}: no controller answers it"
    for name, addresses in expected.items():
        if set(proxy.served.get(name, ())) != set(addresses):
            has = ", ".join(sorted(proxy.served.get(name, ()))) or "nothing"
            why = f"; it refused the newest configuration: {proxy.refused}" if proxy.refused else ""
            wants = ", ".join(sorted(addresses)) or "nothing"
            return f"{proxy.node}: {name} leads to {has} instead of {wants}{why}"
    return ""
