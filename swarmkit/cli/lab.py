"""`swarmkit lab`: a swarm's machines as containers on this one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swarmkit.cli.common import globals_of
from swarmkit.errors import SwarmkitError, UsageError

if TYPE_CHECKING:
    from docker import DockerClient

    from swarmkit.lab.models import Lab
    from swarmkit.ui import Ui

app = typer.Typer(
    help="A laboratory on this machine: nodes as containers, reached by SSH just as machines are.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def _lab_names(incomplete: str) -> list[str]:
    from swarmkit.lab.folder import Folder

    return [name for name in Folder.names() if name.startswith(incomplete)]


def _releases(incomplete: str) -> list[str]:
    from swarmkit.lab.models import RELEASES

    return [release for release in RELEASES if release.startswith(incomplete)]


def _node_names(context: typer.Context, incomplete: str) -> list[str]:
    try:
        with _client() as client:
            lab = _chosen(client, context.params.get("name"))
    except SwarmkitError:
        return []
    return [state.node.name for state in lab.nodes if state.node.name.startswith(incomplete)]


Release = Annotated[
    str | None,
    typer.Option(
        "--debian",
        help="What new nodes are: Debian 12, 13, or sid (Debian 13 with unstable's Docker Engine).",
        show_default="13",
        metavar="RELEASE",
        autocompletion=_releases,
    ),
]
Name = Annotated[
    str | None,
    typer.Option("--name", help="The lab's name; the only lab if left out.", autocompletion=_lab_names),
]
NewName = Annotated[str, typer.Option("--name", help="The lab's name.", autocompletion=_lab_names)]
NodeName = Annotated[str, typer.Argument(metavar="NODE", help="A node.", autocompletion=_node_names)]


@contextmanager
def _client() -> Iterator[DockerClient]:
    from swarmkit.lab import engine

    client = engine.connect()
    try:
        yield client
    finally:
        client.close()


def _chosen(client: DockerClient, name: str | None) -> Lab:
    """The lab called `name`; without a name the only one that was made by this user.

    Raises UsageError, naming those there are.
    """
    from swarmkit.lab import engine
    from swarmkit.lab.folder import Folder

    found = engine.find(client)
    if name is None:
        own = [lab for lab in found if Folder(lab).exists]
        if len(own) > 1:
            raise UsageError("there are several labs", hint=f"name one with --name: {', '.join(own)}")
        if not own:
            raise UsageError("you have no lab on this machine", hint="make one: swarmkit lab up")
        name = own[0]
    return engine.named(found, name)


def _document(lab: Lab) -> dict[str, Any]:
    from swarmkit.lab.folder import Folder, url

    urls = [url(state.node) for state in lab.nodes if state.node.balancer_port is not None]
    return {
        "name": lab.name,
        "inventory": str(Folder(lab.name).inventory),
        "nodes": [
            {
                "name": state.node.name,
                "role": state.node.role.value,
                "address": state.node.address,
                "ssh_port": state.node.ssh_port,
                "status": state.status,
            }
            for state in lab.nodes
        ],
        "urls": {"balancer": urls[0]} if urls else {},
    }


def _show(ui: Ui, lab: Lab) -> None:
    document = _document(lab)
    rows = [
        (
            state.node.name,
            state.node.role,
            state.status,
            state.node.address,
            f"127.0.0.1:{state.node.ssh_port}",
        )
        for state in lab.nodes
    ]
    ui.table(("NODE", "ROLE", "STATUS", "ADDRESS", "SSH"), rows)
    ui.line(f"inventory: {document['inventory']}")
    for name, url in document["urls"].items():
        ui.line(f"{name}: {url}")


@app.command()
def up(
    context: typer.Context,
    nodes: Annotated[
        int | None, typer.Option(help="How many nodes, managers among them.", show_default="3")
    ] = None,
    managers: Annotated[int | None, typer.Option(help="How many managers.", show_default="1")] = None,
    name: NewName = "lab",
    bare: Annotated[
        bool | None, typer.Option("--bare", help="Nodes without a Docker Engine, as fresh machines.")
    ] = None,
    debian: Release = None,
) -> None:
    """Make a lab, or complete, grow or start it; nothing where it is as asked."""
    from swarmkit.lab import lifecycle

    ui = globals_of(context).ui
    ui.say(f"lab {name}")
    with ui.timed() as seconds, _client() as client:
        with ui.progress() as progress:
            outcome = lifecycle.up(
                client, name, nodes, managers, bare, debian, say=progress.update, warn=ui.warn
            )
        took = seconds()
    changed = len(outcome.made) + len(outcome.started)

    def text() -> None:
        if changed:
            made = f"{len(outcome.made)} nodes made" if outcome.made else ""
            started = f"{len(outcome.started)} nodes started" if outcome.started else ""
            ui.line(f"lab {name}: {', '.join(filter(None, (made, started)))} ({took:.1f} s)")
        else:
            ui.line(f"lab {name}: nothing to do, {len(outcome.lab.nodes)} nodes run ({took:.1f} s)")
        _show(ui, outcome.lab)

    ui.result({**_document(outcome.lab), "changed": changed, "seconds": took}, text)


@app.command()
def ls(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="A lab; all if left out.", autocompletion=_lab_names)
    ] = None,
) -> None:
    """List the labs, or the nodes of one."""
    from swarmkit.lab import engine

    ui = globals_of(context).ui
    with _client() as client:
        found = engine.find(client)
    if name is not None:
        lab = engine.named(found, name)
        ui.result(_document(lab), lambda: _show(ui, lab))
        return
    labs = [each.lab for each in found.values()]
    rows = [
        (
            lab.name,
            len(lab.nodes),
            sum(state.running for state in lab.nodes),
            " ".join(_document(lab)["urls"].values()),
            _document(lab)["inventory"],
        )
        for lab in labs
    ]
    ui.result(
        [_document(lab) for lab in labs],
        lambda: ui.table(("LAB", "NODES", "RUNNING", "BALANCER", "INVENTORY"), rows, empty="no labs"),
    )


@app.command()
def down(
    context: typer.Context,
    name: NewName = "lab",
    everything: Annotated[bool, typer.Option("--all", help="All labs.")] = False,
    images: Annotated[
        bool, typer.Option("--images", help="The images too, which the next `lab up` needs.")
    ] = False,
) -> None:
    """Remove a lab: its nodes with all that is on them, its network, key and inventory."""
    from swarmkit.lab import engine, lifecycle

    ui = globals_of(context).ui
    with _client() as client:
        if everything:
            removed = lifecycle.down_all(client)
        else:
            ui.say(f"lab {name}")
            removed = [name] if lifecycle.down(client, name) else []
        left = engine.names(client)
        removed_images = engine.remove_images(client) if images else 0
    if removed:
        text = f"removed: {', '.join(removed)}"
    else:
        others = f"; there are: {', '.join(sorted(left))}" if left else ""
        text = f"nothing to do{others}"
    if images:
        text += f" ({removed_images} images removed)"
    ui.result({"removed": removed, "images": removed_images}, text)


@app.command()
def image(
    context: typer.Context,
    bare: Annotated[bool, typer.Option("--bare", help="Without a Docker Engine, as fresh machines.")] = False,
    debian: Release = None,
) -> None:
    """Build the image of nodes where it is missing or old: `lab up` does so too, Vagrant cannot."""
    from swarmkit.lab import image
    from swarmkit.lab.models import checked_release

    ui = globals_of(context).ui
    release = checked_release(debian)
    with ui.timed() as seconds, _client() as client:
        with ui.progress() as progress:
            image.ensure(client, bare, release, progress.update)
        took = seconds()
    tag = image.stable_tag(bare, release)
    ui.result({"image": tag, "seconds": took}, f"{tag} is up to date ({took:.1f} s)")


@app.command(context_settings={"ignore_unknown_options": True})
def ssh(
    node: NodeName,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[-- COMMAND…]", help="What to run; a shell if left out.")
    ] = None,
    name: Name = None,
) -> None:
    """Log in on a node, or run a command on it."""
    from swarmkit.inventory import Inventory
    from swarmkit.lab.folder import Folder
    from swarmkit.remote.openssh import login

    with _client() as client:
        lab = _chosen(client, name)
    state = lab.state(node)
    if not state.running:
        raise UsageError(f"{node} is switched off", hint=f"swarmkit lab start {node} --name {lab.name}")
    folder = Folder(lab.name)
    folder.public_key(may_create=False)
    inventory = Inventory(cluster=lab.name, hosts=(), known_hosts=folder.known_hosts)
    raise typer.Exit(login(inventory, folder.login(state.node), command or ()))


@app.command()
def stop(context: typer.Context, node: NodeName, name: Name = None) -> None:
    """Switch a node off at once, as pulling its plug would."""
    from swarmkit.lab import lifecycle

    _switch(globals_of(context).ui, node, name, "off", lifecycle.stop)


@app.command()
def start(context: typer.Context, node: NodeName, name: Name = None) -> None:
    """Switch a node on, and wait until it can be used."""
    from swarmkit.lab import lifecycle

    _switch(globals_of(context).ui, node, name, "on", lifecycle.start)


def _switch(
    ui: Ui, node: str, name: str | None, state: str, switch: Callable[[DockerClient, Lab, str], bool]
) -> None:
    with _client() as client:
        lab = _chosen(client, name)
        ui.say(f"lab {lab.name}")
        changed = switch(client, lab, node)
    text = f"{node} is {state}" if changed else f"nothing to do: {node} is {state} already"
    ui.result({"name": lab.name, "node": node, "changed": int(changed)}, text)
