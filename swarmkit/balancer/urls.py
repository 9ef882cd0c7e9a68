"""Where users find what the balancer serves."""

from __future__ import annotations

from swarmkit.balancer.routes import BALANCER_PORT, Route, routes
from swarmkit.swarm import nodes, services
from swarmkit.target import Swarm


def urls(swarm: Swarm, stack: str) -> list[str]:
    """The URLs of a stack's routes: at the inventory's entry, else at the first manager.

    A wildcard stays one, and plain TCP is shown as `tcp://`.
    """
    wanted = routes(services(swarm.engine, stack)).routes
    if not wanted:
        return []
    inventory = swarm.target.inventory
    address = inventory.managers[0].address if inventory is not None else nodes(swarm.engine)[0].address
    bracketed = f"[{address}]" if ":" in address else address
    entry = (inventory and inventory.entry) or f"http://{bracketed}:{BALANCER_PORT}"
    return [url for route in wanted for url in urls_of(route, entry)]


def urls_of(route: Route, entry: str) -> list[str]:
    """The URLs of a route, for each of its hosts; `entry` is the URL of the balancer."""
    scheme, _, place = entry.partition("://")
    machine, port = (place, "") if place.endswith("]") or ":" not in place else place.rsplit(":", 1)
    if route.is_tcp:
        return [f"tcp://{machine}:{route.listen}"]
    if route.listen:
        scheme, port = "https" if route.has_tls else "http", str(route.listen)
    colon = f":{port}" if port else ""
    return [f"{scheme}://{host}{colon}{route.path}" for host in route.hosts or (machine,)]
