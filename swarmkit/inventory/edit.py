"""Changing a user's inventory file: a host added or taken out, comments and order kept."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from swarmkit.errors import SwarmkitError, UsageError, raise_all
from swarmkit.inventory.destination import parse as parse_destination
from swarmkit.inventory.load import build, filled
from swarmkit.inventory.models import Host, Inventory, Role
from swarmkit.yamlfile import parse as parse_yaml
from swarmkit.yamlfile import read


@dataclass(frozen=True)
class NewHost:
    """A host to be added: what the user said of it, and nothing that defaults will say."""

    name: str
    address: str
    role: Role
    user: str | None = None
    port: int | None = None
    key: str | None = None
    private_address: str | None = None
    labels: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        role: str = Role.WORKER,
        name: str | None = None,
        private_address: str | None = None,
        key: str | None = None,
        labels: Sequence[str] = (),
    ) -> NewHost:
        """From `USER@ADDRESS:PORT` (user and port may be left out) and options.

        The name is the address's first part unless given. Raises UsageError for what is not of that form.
        """
        errors: list[SwarmkitError] = []
        found = parse_destination(text)
        if found is None:
            raise UsageError(
                f'expected the name of a host in the inventory or USER@ADDRESS[:PORT], got "{text}"'
            )
        if role not in list(Role):
            errors.append(UsageError(f'--role is manager or worker, not "{role}"'))
        pairs = [label.partition("=") for label in labels]
        errors += [UsageError(f'--label is K=V, not "{pair[0]}"') for pair in pairs if not pair[1]]
        raise_all(errors)
        address = found.address
        is_ip = ":" in address or address.replace(".", "").isdigit()
        return cls(
            name=name or (address if is_ip else address.split(".")[0]).replace(":", "-"),
            address=address,
            role=Role(role),
            user=found.user,
            port=found.port,
            key=key,
            private_address=private_address,
            labels={key: value for key, _, value in pairs},
        )

    @property
    def section(self) -> str:
        return "managers" if self.role is Role.MANAGER else "workers"

    def entry(self) -> dict[str, Any]:
        """The entry as it stands in an inventory file."""
        given = {
            "name": self.name,
            "address": self.address,
            "private_address": self.private_address,
            "user": self.user,
            "port": self.port,
            "key": self.key,
            "labels": self.labels or None,
        }
        return {key: value for key, value in given.items() if value is not None}


def with_host(inventory: Inventory, new: NewHost) -> tuple[Inventory, Host]:
    """The inventory as it will be with the new host in its file, and that host.

    The file itself is not touched; raises as `load` does where the result would not be valid.
    """
    assert inventory.source is not None, "only an inventory from a file is added to"
    document = _document(inventory.source)
    _insert(document, new)
    extended = build(parse_yaml(_dumped(document), str(inventory.source)), inventory.source)
    host = extended.host(new.name)
    assert host is not None, "it was just inserted"
    return extended, host


def add_host(path: Path, new: NewHost) -> None:
    """Write the new host into the inventory file."""
    document = _document(path)
    _insert(document, new)
    _write(path, document)


def remove_host(path: Path, name: str) -> bool:
    """Take the host called `name` out of the inventory file; whether it was there."""
    document = _document(path)
    # Its name may stand there as a variable.
    data = filled(read(path), os.environ).data
    for section in ("managers", "workers"):
        for index, entry in enumerate(data.get(section) or []):
            if entry.get("name") == name:
                del document[section][index]
                _write(path, document)
                return True
    return False


def give_role(path: Path, name: str, role: Role) -> bool:
    """Move the host called `name` to the section of `role`; whether it was in the other one."""
    document = _document(path)
    source, target = ("workers", "managers") if role is Role.MANAGER else ("managers", "workers")
    entries = document.get(source) or []
    for index, entry in enumerate(entries):
        if entry.get("name") == name:
            moved = entries.pop(index)
            if not document.get(target):
                document[target] = []
            document[target].append(moved)
            _write(path, document)
            return True
    return False


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _document(path: Path) -> Any:
    return _yaml().load(path.read_text(encoding="utf-8"))


def _insert(document: Any, new: NewHost) -> None:
    if not document.get(new.section):
        document[new.section] = []
    document[new.section].append(new.entry())


def _dumped(document: Any) -> str:
    out = io.StringIO()
    _yaml().dump(document, out)
    return out.getvalue()


def _write(path: Path, document: Any) -> None:
    """Replace the file in one step, with its permissions: it is never half-written."""
    target = path.resolve()
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write(_dumped(document))
    Path(name).chmod(target.stat().st_mode & 0o777)
    Path(name).replace(target)
