"""Keeping the balancer in step with the routes that services ask for."""

from __future__ import annotations

from collections.abc import Sequence

from swarmkit.balancer.routes import routes
from swarmkit.compose.load import parse
from swarmkit.deploy.apply import carry_out
from swarmkit.deploy.down import down
from swarmkit.deploy.options import Options
from swarmkit.deploy.plan import Change
from swarmkit.deploy.prepare import prepare
from swarmkit.resources import folder
from swarmkit.swarm import Service, services
from swarmkit.target import Swarm
from swarmkit.ui import Ui

BALANCER_STACK = "swarmkit-lb"


def follow_routes(
    swarm: Swarm, ui: Ui, *, timeout: float, dry_run: bool = False, known: Sequence[Service] | None = None
) -> Sequence[Change]:
    """Make the balancer serve the routes of the services that there are; no routes, no balancer.

    `known` are the services to go by, those of the swarm unless given. Routes that cannot be had are
    warned of and left out: they are the mistake of whoever deployed them. Returns what had to be (in a
    dry run: would have to be) changed; raises as deploying does.
    """
    live = services(swarm.engine)
    found = routes(live if known is None else known)
    for error in found.errors:
        ui.warn(f"no route for {error}")
    balancer = next((one for one in live if one.stack == BALANCER_STACK), None)
    # Commands for several stacks may get here at the same time.
    options = Options(timeout, "load balancer", lock_wait=timeout)
    if not found.routes:
        return [] if balancer is None or dry_run else down(swarm.engine, ui, BALANCER_STACK, options)
    # Without machines to build on, the image that runs will do.
    images = {"nginx": balancer.image} if balancer is not None and swarm.fleet is None else None
    if swarm.fleet is None and images is None:
        ui.warn("this swarm has no load balancer, and one can only be made with an inventory (-i)")
        return []
    source = folder("nginx") / "stack.yml"
    text = source.read_text(encoding="utf-8")
    project = parse(text, str(source), source.parent, {})
    prepared = prepare(swarm, ui, project, BALANCER_STACK, dry_run=dry_run, images=images)
    return (prepared.plan if dry_run else carry_out(swarm.engine, ui, prepared, options)).changes
