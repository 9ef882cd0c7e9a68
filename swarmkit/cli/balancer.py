"""Commands about the load balancer: lb status, routes and logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from swarmkit.cli.common import globals_of
from swarmkit.cli.logs import Follow, Since, Tail, Timestamps, Until, show_logs

if TYPE_CHECKING:
    from swarmkit.swarm import Service
    from swarmkit.target import Swarm

app = typer.Typer(help="Look at the load balancer.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def status(context: typer.Context) -> None:
    """Say how the proxies are, and what each route and task was asked since they began."""
    from swarmkit.balancer.status import read_status, show_status
    from swarmkit.target import opened, resolve

    given = globals_of(context)
    with opened(resolve(given.inventory, given.engine), given.ui) as swarm:
        found = read_status(swarm)
    given.ui.result(found.json(), lambda: show_status(given.ui, found))


@app.command()
def routes(context: typer.Context) -> None:
    """List the routes that services ask for, and where they lead."""
    from swarmkit.balancer.status import read_routes, routes_json, show_routes
    from swarmkit.target import opened, resolve

    given = globals_of(context)
    with opened(resolve(given.inventory, given.engine), given.ui) as swarm:
        found = read_routes(swarm.engine)
    given.ui.result(routes_json(found), lambda: show_routes(given.ui, found))


@app.command()
def logs(
    context: typer.Context,
    follow: Follow = False,
    since: Since = None,
    until: Until = None,
    tail: Tail = None,
    timestamps: Timestamps = False,
) -> None:
    """Print the requests that the proxies write down, in the order of time."""
    from swarmkit.errors import OperationFailed
    from swarmkit.names import PROXY_SERVICE
    from swarmkit.swarm import services

    def find(swarm: Swarm) -> list[Service]:
        found = [one for one in services(swarm.engine) if one.name == PROXY_SERVICE]
        if not found:
            raise OperationFailed("the load balancer does not run here", hint="no service has a route")
        return found

    show_logs(globals_of(context), find, follow, since, until, tail, timestamps)
