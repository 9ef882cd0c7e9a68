"""`inventory init`: a first inventory file, with what can be learnt from the machines themselves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from swarmkit.errors import UsageError
from swarmkit.inventory.addresses import SCRIPT, interfaces, is_ip, on_common_network
from swarmkit.inventory.generate import Entry, relative, text
from swarmkit.inventory.load import build
from swarmkit.inventory.logins import Logins, Said
from swarmkit.inventory.models import Host, Inventory
from swarmkit.inventory.sshconfig import SshConfig
from swarmkit.remote import Fleet
from swarmkit.ui import Ui
from swarmkit.yamlfile import parse

# Standard output in place of a file.
STDOUT = "-"


@dataclass(frozen=True)
class Draft:
    """An inventory that is about to be written to `file`; relative paths in it start from its folder.

    `known_hosts` is a file of host keys of its own: virtual machines on the loopback change theirs.
    """

    cluster: str
    file: str
    entries: Sequence[Entry]
    known_hosts: str | None = None

    @property
    def folder(self) -> Path:
        return (Path.cwd() if self.file == STDOUT else Path(self.file).absolute().parent).resolve()

    @property
    def needs_private(self) -> bool:
        """Whether an address that SSH uses cannot be the one that nodes use: one is the loopback's."""
        return any(
            one.private_address is None and one.address.startswith(("127.", "localhost", "::1"))
            for one in self.entries
        )

    def text(self) -> str:
        """The file; raises UsageError, or Problems, where it would not be valid."""
        entries = [
            replace(one, key=relative(one.key, self.folder) if one.key else None) for one in self.entries
        ]
        missing = self.needs_private and len(entries) > 1
        made = text(self.cluster, entries, known_hosts=self.known_hosts, unknown_private=missing)
        if not missing:
            name = "the new inventory" if self.file == STDOUT else self.file
            build(parse(made, name), self.folder / "inventory.yml")
        return made

    def inventory(self) -> Inventory:
        """The machines, to be connected to before there is a file."""
        logins = Logins(SshConfig())
        hosts = []
        for one in self.entries:
            key = Path(one.key).expanduser().absolute() if one.key else None
            login = logins.login(one.name, one.address, Said(one.user, one.port, key))
            hosts.append(Host(**vars(login), role=one.role))
        known_hosts = self.folder / self.known_hosts if self.known_hosts else None
        return Inventory(self.cluster, tuple(hosts), tuple(logins.jumps.values()), known_hosts)

    def json(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "cluster": self.cluster,
            "hosts": [
                {
                    "name": one.name,
                    "role": one.role,
                    "address": one.address,
                    "private_address": one.private_address,
                }
                for one in self.entries
            ],
        }


def learn(draft: Draft, ui: Ui, *, accept_host_keys: bool) -> Draft:
    """The draft with the machines' addresses on the network that all share, asked of them over SSH.

    What cannot be learnt is left out and said.
    """
    inventory = draft.inventory()
    with Fleet(inventory, accept_host_keys=accept_host_keys) as fleet:
        outcomes = fleet.map(lambda host: fleet.connection(host).run(SCRIPT).checked("asking for addresses"))
    for error in outcomes.errors.values():
        ui.warn(f"private addresses are not known: {error}")
        if error.hint:
            ui.say(f"  {error.hint}")
    if outcomes.errors:
        return draft
    addresses = on_common_network({name: interfaces(said) for name, said in outcomes.values.items()})
    if not addresses:
        ui.warn("private addresses are not known: the machines share no network with an address each")
    # What SSH connects to already is not written twice.
    return replace(
        draft,
        entries=[
            one
            if addresses.get(one.name) == one.address
            else replace(one, private_address=addresses.get(one.name))
            for one in draft.entries
        ],
    )


def write(draft: Draft, *, force: bool) -> None:
    """Write the file, never over another without `force`; raises UsageError where there is one."""
    made = draft.text()
    if not force:
        refuse_existing(draft.file)
    how = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
    with os.fdopen(os.open(draft.file, how, 0o644), "w", encoding="utf-8") as out:
        out.write(made)


def refuse_existing(file: str) -> None:
    """Raises UsageError where the file is there."""
    if Path(file).exists():
        raise UsageError(
            "there is a file already",
            where=file,
            hint="--force writes over it; --file names another; `--file -` prints it",
        )


def problems(draft: Draft) -> list[str]:
    """What still has to be written into the file by hand."""
    names = [one.name for one in draft.entries if one.private_address is None and not is_ip(one.address)]
    if draft.needs_private and len(draft.entries) > 1:
        return ["every machine needs a `private_address:` in it, on the network that all share"]
    if names and len(draft.entries) > 1:
        return [f"give {', '.join(names)} a `private_address:` if the name does not stand for it everywhere"]
    return []
