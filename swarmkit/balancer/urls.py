"""Where users find what the balancer serves."""

from __future__ import annotations

from swarmkit.balancer.routes import BALANCER_PORT, routes
from swarmkit.swarm import nodes, services
from swarmkit.target import Swarm


def urls(swarm: Swarm, stack: str) -> list[str]:
    """The URLs of a stack's routes: at the inventory's entry, else at the first manager."""
    wanted = routes(services(swarm.engine, stack)).routes
    if not wanted:
        return []
    inventory = swarm.target.inventory
    address = inventory.managers[0].address if inventory is not None else nodes(swarm.engine)[0].address
    bracketed = f"[{address}]" if ":" in address else address
    entry = (inventory and inventory.entry) or f"http://{bracketed}:{BALANCER_PORT}"
    scheme, _, place = entry.partition("://")
    port = place.rpartition(":")[2] if ":" in place else ""
    return [
        f"{scheme}://{f'{route.host}:{port}' if route.host and port else route.host or place}{route.path}"
        for route in wanted
    ]
