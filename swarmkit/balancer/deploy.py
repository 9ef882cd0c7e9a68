"""Keeping the balancer in step with the routes that services ask for."""

from __future__ import annotations

from swarmkit.balancer.routes import configuration, routes
from swarmkit.compose.load import parse
from swarmkit.deploy.apply import deploy, down
from swarmkit.resources import folder
from swarmkit.swarm import services
from swarmkit.target import Swarm
from swarmkit.ui import Ui

BALANCER_STACK = "swarmkit-lb"


def follow_routes(swarm: Swarm, ui: Ui, *, timeout: float) -> bool:
    """Make the balancer serve the routes of the services that there are; no routes, no balancer.

    Returns whether it had to be changed. Raises as `deploy` does, and UsageError for bad route labels.
    """
    known = services(swarm.engine)
    wanted = routes(known)
    if not wanted:
        return any(one.stack == BALANCER_STACK for one in known) and bool(
            down(swarm.engine, ui, BALANCER_STACK)
        )
    source = folder("nginx") / "stack.yml"
    text = source.read_text(encoding="utf-8")
    project = parse(text, str(source), source.parent, {"ROUTES": configuration(wanted)})
    return bool(deploy(swarm, ui, project, BALANCER_STACK, timeout=timeout))
