"""Routes: what services ask for with labels, and the nginx configuration that gives it to them. Pure.

    deploy:
      labels:
        swarmkit.lb.port: "80"          # where the tasks listen
        swarmkit.lb.host: web.example   # optional: this host name only
        swarmkit.lb.path: /web          # optional: this path and what is under it

The balancer finds a service's tasks by Docker's DNS (`tasks.NAME`), which it asks again every second.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from swarmkit.errors import UsageError
from swarmkit.names import ROUTE_PREFIX
from swarmkit.swarm import Service

BALANCER_PORT = 8080

_PORT = f"{ROUTE_PREFIX}port"
_HOST = f"{ROUTE_PREFIX}host"
_PATH = f"{ROUTE_PREFIX}path"
_KNOWN = (_PORT, _HOST, _PATH)

# Labels end up in nginx's configuration: nothing passes that has a meaning there.
_HOST_FORM = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_PATH_FORM = re.compile(r"/[A-Za-z0-9._~/-]{0,200}")
_SERVICE_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, order=True)
class Route:
    """Requests for `host` (empty: any) under `path` go to `port` of the service's tasks."""

    host: str
    path: str
    service: str
    port: int


@dataclass(frozen=True)
class Routes:
    """What services ask for, and the mistakes in that; each error's `where` is the service's name."""

    routes: Sequence[Route]
    errors: Sequence[UsageError]


def routes(services: Iterable[Service]) -> Routes:
    """The routes that services ask for; mistakes are labels that cannot be honoured, and two services
    that ask for the same host and path (the first by name has it).
    """
    found: dict[tuple[str, str], Route] = {}
    errors: list[UsageError] = []
    for service in sorted(services, key=lambda one: one.name):
        wanted = {key: value for key, value in service.labels.items() if key.startswith(ROUTE_PREFIX)}
        if not wanted:
            continue
        try:
            route = _route(service.name, wanted)
        except UsageError as error:
            errors.append(error)
            continue
        other = found.setdefault((route.host, route.path), route)
        if other is not route:
            errors.append(
                UsageError(
                    f"{other.service} already has the route {route.host or 'any host'}{route.path}",
                    where=route.service,
                    hint=f"give one of them a {_HOST} or a {_PATH} of its own",
                )
            )
    return Routes(sorted(found.values()), errors)


def _route(name: str, labels: dict[str, str]) -> Route:
    def bad(key: str, expected: str) -> UsageError:
        return UsageError(f'label {key}: expected {expected}, got "{labels.get(key, "")[:60]}"', where=name)

    unknown = sorted(set(labels) - set(_KNOWN))
    if unknown:
        hint = f"known: {', '.join(_KNOWN)}"
        raise UsageError(f"label {unknown[0]}: the balancer does not know it", where=name, hint=hint)
    port, host, path = labels.get(_PORT, ""), labels.get(_HOST, "").lower(), labels.get(_PATH, "/")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise bad(_PORT, "the port that the tasks listen on")
    if host and not _HOST_FORM.fullmatch(host):
        raise bad(_HOST, "a host name")
    if not _PATH_FORM.fullmatch(path):
        raise bad(_PATH, "a path such as /web")
    if not _SERVICE_FORM.fullmatch(name):
        raise UsageError("a service of this name cannot be routed", where=name)
    return Route(host, path.rstrip("/") or "/", name, int(port))


def configuration(wanted: Iterable[Route]) -> str:
    """nginx's server blocks for the routes, the same text for the same routes.

    What no route names is answered with 404.
    """
    by_host: dict[str, list[Route]] = {"": []}
    for route in sorted(wanted):
        by_host.setdefault(route.host, []).append(route)
    return "\n".join(_server(host, some) for host, some in by_host.items())


def _server(host: str, some: Sequence[Route]) -> str:
    lines = [f"listen {BALANCER_PORT}{'' if host else ' default_server'};"]
    if host:
        lines.append(f"server_name {host};")
    for route in some:
        lines += _locations(route)
    if not any(route.path == "/" for route in some):
        lines.append('location / { return 404 "no route here\\n"; }')
    return "\n".join(("server {", *(f"    {line}" for line in lines), "}\n"))


def _locations(route: Route) -> list[str]:
    # A variable makes nginx resolve the name when a request comes, not once when it starts.
    target = f"set $tasks tasks.{route.service}; proxy_pass http://$tasks:{route.port};"
    if route.path == "/":
        return [f"location / {{ {target} }}"]
    return [f"location = {route.path} {{ {target} }}", f"location {route.path}/ {{ {target} }}"]
