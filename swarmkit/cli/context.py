"""Commands about docker contexts: export."""

from __future__ import annotations

from typing import Annotated

import typer

from swarmkit.cli.common import globals_of

app = typer.Typer(help="Let plain docker work on the cluster.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Keeps `export` a command of its own while it is the only one."""


@app.command()
def export(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Option("--name", help="The context's name; the cluster's by default.")
    ] = None,
    write_ssh_config: Annotated[
        bool,
        typer.Option("--write-ssh-config", help="Write the way in to ~/.ssh, where docker's ssh looks."),
    ] = False,
    print_ssh_config: Annotated[
        bool, typer.Option("--print-ssh-config", help="Print the way in, and do nothing else.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over a context that is there.")] = False,
) -> None:
    """Make a docker context of the cluster: `docker --context NAME node ls`."""
    from swarmkit import context as contexts
    from swarmkit.target import fleet_of, resolve

    given = globals_of(context)
    ui = given.ui
    target = resolve(given.inventory, given.engine, hosts_needed=True)
    assert target.inventory is not None
    chosen = contexts.context_name(target.inventory, name)
    with fleet_of(target) as fleet:
        if print_ssh_config:
            blocks = contexts.ssh_config(fleet, chosen)
            ui.result({"ssh_config": blocks}, lambda: ui.raw(blocks))
            return
        done = contexts.export(fleet, chosen, force=force, write_ssh_config=write_ssh_config)
    if done.ssh_config is not None:
        ui.say(f"  {done.ssh_config}: written, and included from ~/.ssh/config")
    if not done.is_checked:
        ui.warn("the docker command is not installed here, so the context was not tried")
    ui.result(done.json(), f"context {chosen} leads to {done.manager}: docker --context {chosen} node ls")
