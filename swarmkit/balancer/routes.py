"""Routes: what services ask the balancer for, with labels. Pure.

    deploy:
      labels:
        swarmkit.lb.port: "80"          # where the tasks listen
        swarmkit.lb.host: web.example   # optional: this host name only
        swarmkit.lb.path: /web          # optional: this path and what is under it

A service with several routes names them: `swarmkit.lb.NAME.port`. `LABELS` is the table of all labels;
docs/routes.md explains them. Labels end up in nginx's configuration: nothing that has a meaning there
passes, and each value is read into a type of its own before it is written again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from swarmkit.errors import UsageError
from swarmkit.images import REGISTRY_PORT
from swarmkit.names import ROUTE_PREFIX, is_version
from swarmkit.swarm import Service

# Where every route is served, unless it has a port of its own: without TLS and with it.
BALANCER_PORT = 8080
TLS_PORT = 8443
METRICS_PORT = 9145
# Ports of the nodes that no route can have: the proxy's own, the registry's, sshd's, the swarm's.
_TAKEN = frozenset({BALANCER_PORT, TLS_PORT, METRICS_PORT, REGISTRY_PORT, 22, 2377, 4789, 7946})

_SHOWN = 60
_HOST_FORM = re.compile(
    r"(?=.{1,253}\Z)(\*\.)?[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
)
_PATH_FORM = re.compile(r"(?=.{1,200}\Z)(/(?!\.{1,2}(/|\Z))[A-Za-z0-9._~-]+)*/?")
_SERVICE_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_NAME_FORM = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
_SECRET_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SIZE_FORM = re.compile(r"[0-9]{1,6}[kmg]?")
_RATE_FORM = re.compile(r"([1-9][0-9]{0,5})/([sm])")
_TIME_FORM = re.compile(r"([1-9][0-9]{0,5})([smh])")
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_LONGEST = 7 * 24 * 3600


@dataclass(frozen=True)
class Canary:
    """A service that gets `weight` percent of another's requests; `port` is where its tasks listen."""

    service: str
    port: int
    weight: int


@dataclass(frozen=True)
class Route:
    """Requests for one of `hosts` (none: any) under `path` go to `port` of the service's tasks.

    `label` is the NAME of `swarmkit.lb.NAME.port`, empty for a service's plain route. `listen` is its own
    entry port, 0 for the balancer's two. `tls` is empty where no label says it. `rate` is in nginx's form
    (`10r/s`), `body` too; `timeout` in seconds; -1 of a burst means as many as the rate's number.
    """

    service: str
    port: int
    stack: str = ""
    label: str = ""
    hosts: tuple[str, ...] = ()
    path: str = "/"
    strip: bool = False
    listen: int = 0
    mode: str = "http"
    balance: str = "least_conn"
    sticky: str = ""
    body: str = "0"
    rate: str = ""
    burst: int = -1
    connections: int = 0
    timeout: int = 0
    buffering: bool = True
    auth: str = ""
    tls: str = ""
    certificate: str = ""
    headers: bool = True
    log: str = ""
    canary: Canary | None = None

    @property
    def name(self) -> str:
        """What it is called in logs and metrics, and its upstream's name; services' names have no dots."""
        return f"{self.service}.{self.label}" if self.label else self.service

    @property
    def is_tcp(self) -> bool:
        return self.mode == "tcp"

    @property
    def has_tls(self) -> bool:
        """Whether its own entry port speaks TLS."""
        return self.tls in ("on", "redirect")

    @property
    def secrets(self) -> Sequence[str]:
        """The secrets that it needs, by the names that its labels give."""
        return [name for name in (self.auth, self.certificate) if name]

    @property
    def places(self) -> Sequence[str]:
        """What it claims, as a user reads it: `web.example/shop`, `port 5432`."""
        if self.is_tcp:
            return [f"port {self.listen}"]
        return [self.place(host) for host in self.hosts or ("",)]

    def place(self, host: str) -> str:
        port = f":{self.listen}" if self.listen else ""
        return f"{host or 'any host'}{port}{self.path}"


@dataclass(frozen=True)
class Routes:
    """What services ask for, and the mistakes in that; each error's `where` is the service's name."""

    routes: Sequence[Route]
    errors: Sequence[UsageError]

    @property
    def entry_ports(self) -> Sequence[int]:
        """The ports of their own that routes listen on, besides the balancer's two."""
        return sorted({route.listen for route in self.routes if route.listen})


def _number(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 7 and least <= int(text) <= most):
            raise ValueError
        return int(text)

    return read


def _one_of(*known: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in known:
            raise ValueError
        return text

    return read


def _switch(text: str) -> bool:
    return {"on": True, "true": True, "off": False, "false": False}[text]


def _matching(form: re.Pattern[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not form.fullmatch(text):
            raise ValueError
        return text

    return read


def _hosts(text: str) -> tuple[str, ...]:
    hosts = tuple(dict.fromkeys(host.strip(" ").lower() for host in text.split(",")))
    if not all(_HOST_FORM.fullmatch(host) for host in hosts) or len(hosts) > 50:
        raise ValueError
    return hosts


def _path(text: str) -> str:
    return _matching(_PATH_FORM)(text).rstrip("/") or "/"


def _listen(text: str) -> int:
    port = _number(1, 65535)(text)
    if port in _TAKEN:
        raise ValueError
    return port


def _rate(text: str) -> str:
    number, unit = _matching(_RATE_FORM)(text).split("/")
    return f"{number}r/{unit}"


def _time(text: str) -> int:
    found = _TIME_FORM.fullmatch(text)
    seconds = int(found[1]) * _SECONDS[found[2]] if found else 0
    if not 0 < seconds <= _LONGEST:
        raise ValueError
    return seconds


@dataclass(frozen=True)
class Label:
    """A label that the balancer knows: its name after `swarmkit.lb.`, the field of `Route` that it sets,
    what is expected in words, and how it is read (raises ValueError or KeyError).

    `tcp` says whether it has a meaning for plain TCP. The value of one that is not `shown` may be a secret
    that was put into the wrong place.
    """

    name: str
    field: str
    expected: str
    read: Callable[[str], Any]
    tcp: bool = False
    shown: bool = True


LABELS: Sequence[Label] = (
    Label("port", "port", "the port that the tasks listen on", _number(1, 65535), tcp=True),
    Label("host", "hosts", "host names, with commas between them, such as web.example or *.example", _hosts),
    Label("path", "path", "a path such as /web", _path),
    Label("strip", "strip", "on or off", _switch),
    Label(
        "listen",
        "listen",
        f"a port that is none of {', '.join(str(port) for port in sorted(_TAKEN))}",
        _listen,
        tcp=True,
    ),
    Label("mode", "mode", "http or tcp", _one_of("http", "tcp"), tcp=True),
    Label("balance", "balance", "least_conn or round_robin", _one_of("least_conn", "round_robin"), tcp=True),
    Label("sticky", "sticky", "cookie or ip", _one_of("cookie", "ip"), tcp=True),
    Label("body", "body", "the most that a request may carry, such as 10m", _matching(_SIZE_FORM)),
    Label("rate", "rate", "requests per second or minute, such as 10/s", _rate),
    Label("burst", "burst", "a number of requests", _number(0, 100_000)),
    Label("connections", "connections", "a number of connections", _number(1, 65535), tcp=True),
    Label("timeout", "timeout", "a time such as 90s, 5m or 2h, of 7 days at most", _time, tcp=True),
    Label("buffering", "buffering", "on or off", _switch),
    Label("auth", "auth", "the name of a secret", _matching(_SECRET_FORM), shown=False),
    Label("tls", "tls", "on, redirect or off", _one_of("on", "redirect", "off"), tcp=True),
    Label(
        "certificate", "certificate", "the name of a secret", _matching(_SECRET_FORM), tcp=True, shown=False
    ),
    Label("headers", "headers", "on or off", _switch),
    Label("log", "log", "json", _one_of("json"), tcp=True),
)
_KNOWN: Mapping[str, Label] = {label.name: label for label in LABELS}
CANARY, WEIGHT = "canary", "weight"
# All names of labels after `swarmkit.lb.`; the last two make a service a canary, whatever else it has.
LABEL_NAMES = (*_KNOWN, CANARY, WEIGHT)


def is_routed(service: Service) -> bool:
    """Whether a service asks the balancer for anything."""
    return any(label.startswith(ROUTE_PREFIX) for label in service.labels)


def routes(services: Iterable[Service]) -> Routes:
    """The routes that services ask for; mistakes are labels that cannot be honoured, and two services
    that ask for the same place (the one that was made first has it).
    """
    asking = [one for one in services if is_routed(one)]
    # One that is only planned was not made yet.
    asking.sort(key=lambda one: (str(one.raw.get("CreatedAt") or "9999"), one.name))
    found: list[Route] = []
    errors: list[UsageError] = []
    claims = _Claims()
    for service in asking:
        if f"{ROUTE_PREFIX}{CANARY}" in service.labels:
            continue
        for label, values in _by_route(service, errors).items():
            route = _route(service, label, values, errors)
            if route is None:
                continue
            if conflict := claims.take(route):
                errors.append(conflict)
            else:
                found.append(route)
    found = _with_canaries(found, asking, errors)
    found.sort(key=lambda route: (route.listen, route.hosts, route.path, route.name))
    return Routes(found, sorted(errors, key=lambda error: (error.where, error.message)))


def find_secret(name: str, stack: str, known: Iterable[str]) -> str | None:
    """The secret that a label means: `STACK_name`, else `name`; None where there is none.

    `known` are the names of the swarm's secrets, oldest first: of several versions the newest is taken.
    """
    names = list(known)
    for first in ([f"{stack}_{name}"] if stack else []) + [name]:
        versions = [one for one in names if is_version(one, first)]
        if versions:
            return versions[-1]
    return None


def _by_route(service: Service, errors: list[UsageError]) -> Mapping[str, Mapping[str, str]]:
    """The labels of each of the service's routes, by the route's name."""
    if not _SERVICE_FORM.fullmatch(service.name):
        errors.append(UsageError("a service of this name cannot be routed", where=service.name[:_SHOWN]))
        return {}
    found: dict[str, dict[str, str]] = {}
    for key, value in sorted(service.labels.items()):
        if not key.startswith(ROUTE_PREFIX):
            continue
        route, _, label = key.removeprefix(ROUTE_PREFIX).rpartition(".")
        if route and not _NAME_FORM.fullmatch(route):
            hint = f"swarmkit.lb.NAME.{label[:_SHOWN]}, with a NAME of lower-case letters, digits and dashes"
            errors.append(_error(service, key, "its route cannot be called so", hint))
            continue
        found.setdefault(route, {})[label] = value
    return found


def _error(service: Service, key: str, what: str, hint: str = "") -> UsageError:
    return UsageError(f"label {key[: 2 * _SHOWN]}: {what}", where=service.name, hint=hint)


def _route(service: Service, name: str, values: Mapping[str, str], errors: list[UsageError]) -> Route | None:
    prefix = f"{ROUTE_PREFIX}{name}." if name else ROUTE_PREFIX
    read: dict[str, Any] = {}
    wrong = list(_mistakes(service, prefix, values, read))
    if not wrong:
        route = Route(service=service.name, stack=service.stack, label=name, **read)
        wrong = [_error(service, prefix + label, what) for label, what in _contradictions(route, values)]
    errors += wrong
    return None if wrong else route


def _mistakes(
    service: Service, prefix: str, values: Mapping[str, str], read: dict[str, Any]
) -> Iterator[UsageError]:
    """What is wrong with single labels; fills in `read`, the fields of the route."""
    for name, text in values.items():
        label = _KNOWN.get(name)
        if label is None:
            hint = f"known: {', '.join(LABEL_NAMES)}"
            what = f"only has a meaning beside {ROUTE_PREFIX}{CANARY}" if name == WEIGHT else "is not known"
            yield _error(service, prefix + name, what, hint if name != WEIGHT else "")
            continue
        try:
            read[label.field] = label.read(text)
        except (ValueError, KeyError):
            got = f', got "{text[:_SHOWN]}"' if label.shown else ""
            yield _error(service, prefix + name, f"expected {label.expected}{got}")
    if "port" not in values:
        yield _error(service, f"{prefix}port", f"is missing; it is {_KNOWN['port'].expected}")


def _contradictions(route: Route, values: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Labels that do not go together, and why."""
    if route.is_tcp:
        for name in values:
            if not _KNOWN[name].tcp:
                yield name, "has no meaning for plain TCP"
        if not route.listen:
            yield "mode", "plain TCP needs an entry port of its own (label listen)"
        if route.sticky == "cookie":
            yield "sticky", "plain TCP knows no cookies; ip is possible"
        if route.tls == "redirect":
            yield "tls", "plain TCP knows no redirects; on or off is possible"
    if route.strip and route.path == "/":
        yield "strip", "there is no path to strip"
    if route.burst >= 0 and not route.rate:
        yield "burst", "only has a meaning beside a rate"
    if route.certificate and (route.tls == "off" or (route.listen and not route.has_tls)):
        yield "certificate", "only has a meaning with tls on or redirect"


class _Claims:
    """What routes have that no other can have as well."""

    def __init__(self) -> None:
        self._taken: dict[tuple[object, ...], Route] = {}

    def take(self, route: Route) -> UsageError | None:
        """Give the route what it asks for, all of it; else nothing, and say who has it."""
        if conflict := self._conflict(route):
            return conflict
        for key in self._keys(route):
            self._taken.setdefault(key, route)
        return None

    @staticmethod
    def _keys(route: Route) -> Iterator[tuple[object, ...]]:
        # nginx does not tell names of upstreams apart by case.
        yield "name", route.name.lower()
        if route.listen:
            yield "port", route.listen
        if not route.is_tcp:
            for host in route.hosts or ("",):
                yield "place", route.listen, host, route.path
                if route.certificate:
                    yield "certificate", route.listen, host

    def _conflict(self, route: Route) -> UsageError | None:
        def error(what: str, hint: str) -> UsageError:
            return UsageError(what, where=route.service, hint=hint)

        for key in self._keys(route):
            other = self._taken.get(key)
            match (other, *key):
                case (Route() as other, "port", port) if route.is_tcp or other.is_tcp:
                    hint = "plain TCP needs a port for itself alone: choose another"
                    return error(f"{other.service} already has the port {port}", hint)
                case (Route() as other, "port", port) if route.has_tls != other.has_tls:
                    speaks = "speaks" if other.has_tls else "does not speak"
                    hint = "a port can have TLS or not: choose another"
                    return error(f"port {port} {speaks} TLS already, for {other.service}", hint)
                case (Route() as other, "certificate", _, host):
                    if (route.stack, route.certificate) != (other.stack, other.certificate):
                        hint = "one host has one certificate: leave the label certificate out"
                        what = f"{other.service} already brings the certificate of {host or 'any host'}"
                        return error(what, hint)
                case (Route() as other, "place", _, host, _):
                    place = route.place(str(host))
                    hint = f"give one of them a {ROUTE_PREFIX}host or a {ROUTE_PREFIX}path of its own"
                    return error(f"{other.service} already has the route {place}", hint)
                case (Route() as other, "name", _):
                    return error(f"{other.service} already has this name", "give one of them another name")
        return None


def _with_canaries(
    found: Sequence[Route], asking: Sequence[Service], errors: list[UsageError]
) -> list[Route]:
    """The routes, shared with the services that are canaries of theirs."""
    canaries: dict[str, tuple[Service, int]] = {}
    names = {route.service for route in found}
    for service in asking:
        wanted = service.labels.get(f"{ROUTE_PREFIX}{CANARY}")
        if wanted is None:
            continue
        key = f"{ROUTE_PREFIX}{CANARY}"
        of = next((one for one in (f"{service.stack}_{wanted}", wanted) if one in names), None)
        try:
            weight = _number(0, 100)(service.labels.get(f"{ROUTE_PREFIX}{WEIGHT}", ""))
        except ValueError:
            errors.append(_error(service, f"{ROUTE_PREFIX}{WEIGHT}", "expected a percentage from 0 to 100"))
            continue
        if not _SERVICE_FORM.fullmatch(service.name):
            errors.append(UsageError("a service of this name cannot be routed", where=service.name[:_SHOWN]))
        elif of is None or of == service.name:
            errors.append(_error(service, key, f'no service "{wanted[:_SHOWN]}" has a route'))
        elif of in canaries:
            errors.append(_error(service, key, f"{of} has a canary already, {canaries[of][0].name}"))
        else:
            canaries[of] = service, weight
    return [_shared(route, canaries.get(route.service)) for route in found]


def _shared(route: Route, canary: tuple[Service, int] | None) -> Route:
    if canary is None:
        return route
    service, weight = canary
    prefix = f"{ROUTE_PREFIX}{route.label}." if route.label else ROUTE_PREFIX
    try:
        port = _KNOWN["port"].read(service.labels[f"{prefix}port"])
    except (KeyError, ValueError):
        port = route.port
    return replace(route, canary=Canary(service.name, port, weight))
