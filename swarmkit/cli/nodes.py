"""Commands about nodes: ls, drain, activate."""

from __future__ import annotations

from typing import Annotated

import typer

from swarmkit.cli.common import globals_of
from swarmkit.cli.complete import node_names

app = typer.Typer(
    help="Look at nodes, drain them, activate them.", no_args_is_help=True, rich_markup_mode=None
)

Names = Annotated[list[str], typer.Argument(help="Nodes.", autocompletion=node_names)]


@app.command("ls")
def ls(context: typer.Context) -> None:
    """List the swarm's nodes."""
    from swarmkit import report
    from swarmkit.swarm import nodes
    from swarmkit.target import opened, resolve

    given = globals_of(context)
    with opened(resolve(given.inventory, given.engine), given.ui) as swarm:
        found = nodes(swarm.engine)
    given.ui.result([report.node_json(node) for node in found], lambda: report.show_nodes(given.ui, found))


@app.command()
def drain(
    context: typer.Context,
    names: Names,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait until they are empty.")] = 300,
) -> None:
    """Move all tasks off nodes; ends when they run elsewhere."""
    from swarmkit.services.nodes import drain_nodes
    from swarmkit.swarm import find_node, nodes
    from swarmkit.target import opened, resolve

    given = globals_of(context)
    ui = given.ui
    with ui.timed() as seconds, opened(resolve(given.inventory, given.engine), ui, mutates=True) as swarm:
        known = nodes(swarm.engine)
        found = [find_node(known, name) for name in names]
        changed = drain_nodes(swarm.engine, found, ui, timeout=timeout)
        ui.result(
            {"nodes": [node.name for node in found], "changed": len(changed), "seconds": seconds()},
            f"{', '.join(node.name for node in found)}: drained, no task left ({seconds():.1f} s)",
        )


@app.command()
def activate(context: typer.Context, names: Names) -> None:
    """Let nodes take tasks again (running tasks are not moved back)."""
    from swarmkit.services.nodes import activate_node
    from swarmkit.swarm import find_node, nodes
    from swarmkit.target import opened, resolve

    given = globals_of(context)
    ui = given.ui
    with ui.timed() as seconds, opened(resolve(given.inventory, given.engine), ui, mutates=True) as swarm:
        known = nodes(swarm.engine)
        found = [find_node(known, name) for name in names]
        changed = [node.name for node in found if activate_node(swarm.engine, node)]
        ui.result(
            {"nodes": [node.name for node in found], "changed": len(changed), "seconds": seconds()},
            f"{', '.join(node.name for node in found)}: active ({seconds():.1f} s)",
        )
