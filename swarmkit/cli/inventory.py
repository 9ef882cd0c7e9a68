"""Commands about the inventory file: init, show, schema."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swarmkit.cli.common import globals_of
from swarmkit.errors import UsageError

if TYPE_CHECKING:
    from swarmkit.inventory import Login
    from swarmkit.inventory.generate import Entry

app = typer.Typer(
    help="Write, look at and check the file that says which machines there are.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def init(
    context: typer.Context,
    hosts: Annotated[
        list[str] | None,
        typer.Argument(metavar="HOST", help="USER@ADDRESS[:PORT], or a Host of ssh_config."),
    ] = None,
    managers: Annotated[int, typer.Option("--managers", help="How many of them are managers.")] = 1,
    cluster: Annotated[str, typer.Option("--cluster", help="The cluster's name.")] = "swarm",
    file: Annotated[
        str | None, typer.Option("--file", help="The file to write; - is standard output.")
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="The private SSH key for all of them.")] = None,
    vagrant: Annotated[
        bool, typer.Option("--from-vagrant", help="The machines of the Vagrantfile here, which are up.")
    ] = False,
    vagrant_config: Annotated[
        str | None,
        typer.Option("--vagrant-config", help="The output of `vagrant ssh-config`, in a file or - ."),
    ] = None,
    probe: Annotated[
        bool | None,
        typer.Option("--probe/--no-probe", help="Ask the machines for private addresses (Vagrant: yes)."),
    ] = None,
    accept_host_keys: Annotated[
        bool, typer.Option("--accept-host-keys", help="While asking: record unknown host keys.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write an inventory of machines, the first of which are the managers."""
    from swarmkit.inventory import create

    given = globals_of(context)
    ui = given.ui
    is_vagrant = vagrant or vagrant_config is not None
    if bool(hosts) == is_vagrant:
        raise UsageError(
            "name the machines, or say --from-vagrant",
            hint="swarmkit inventory init debian@203.0.113.5 debian@203.0.113.6 debian@203.0.113.7",
        )
    entries = _from_vagrant(vagrant_config, managers) if is_vagrant else _from_words(hosts, managers, key)
    draft = create.Draft(
        cluster,
        file or str(given.inventory or "inventory.yml"),
        entries,
        known_hosts="known_hosts" if is_vagrant else None,
    )
    to_stdout = draft.file == create.STDOUT
    if not to_stdout and not force:
        # Before the machines are asked anything.
        create.refuse_existing(draft.file)
    if is_vagrant if probe is None else probe:
        draft = create.learn(draft, ui, accept_host_keys=accept_host_keys)
    for line in create.problems(draft):
        ui.warn(line)
    if to_stdout:
        made = draft.text()
        ui.result({**draft.json(), "text": made}, lambda: ui.raw(made))
        return
    create.write(draft, force=force)
    count = sum(entry.role == "manager" for entry in draft.entries)
    ui.result(
        draft.json(),
        f"{draft.file}: {_counted(count, 'manager')}, {_counted(len(draft.entries) - count, 'worker')}; "
        "next: swarmkit init --dry-run",
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _from_words(words: list[str] | None, managers: int, key: str | None) -> list[Entry]:
    from swarmkit.inventory.generate import from_words

    return from_words(words or [], managers=managers, key=key)


def _from_vagrant(source: str | None, managers: int) -> list[Entry]:
    from swarmkit.inventory.generate import from_vagrant, vagrant_ssh_config

    if source is None:
        text = vagrant_ssh_config(Path.cwd())
    elif source == "-":
        text = sys.stdin.read()
    else:
        text = _read(Path(source))
    return from_vagrant(text, managers=managers)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot be read: {error}", where=str(path)) from None


@app.command()
def show(context: typer.Context) -> None:
    """Check the inventory, and list its machines with all that defaults and ssh_config add."""
    from swarmkit.target import resolve
    from swarmkit.ui import key_values

    given = globals_of(context)
    target = resolve(given.inventory, given.engine, hosts_needed=True)
    inventory = target.inventory
    assert inventory is not None
    rows: list[tuple[Login, str, str, dict[str, str]]] = [
        (host, host.role.value, host.private_address, host.labels) for host in inventory.hosts
    ]
    rows += [(gateway, "gateway", "", {}) for gateway in inventory.gateways]
    document = {
        "cluster": inventory.cluster,
        "file": str(inventory.source),
        "hosts": [
            {
                "name": machine.name,
                "role": role,
                "login": machine.destination,
                "gateway": machine.gateway,
                "private_address": private or None,
                "keys": [str(key) for key in machine.keys],
                "labels": labels,
            }
            for machine, role, private, labels in rows
        ],
    }

    def text() -> None:
        given.ui.line(f"cluster {inventory.cluster} ({target.origin})")
        given.ui.line()
        given.ui.table(
            ["NAME", "ROLE", "LOGIN", "THROUGH", "PRIVATE ADDRESS", "KEYS", "LABELS"],
            [
                (
                    machine.name,
                    role,
                    machine.destination,
                    machine.gateway or ("a ProxyCommand" if machine.proxy_command else "-"),
                    private or "-",
                    ", ".join(str(key) for key in machine.keys) or "-",
                    key_values(labels),
                )
                for machine, role, private, labels in rows
            ],
        )

    given.ui.result(document, text)


@app.command()
def schema(context: typer.Context) -> None:
    """Print the form of an inventory file as JSON Schema, for editors."""
    import json

    from swarmkit.inventory.schema import schema as generated

    made = generated()
    ui = globals_of(context).ui
    ui.result(made, lambda: ui.line(json.dumps(made, indent=2)))
