"""A first stack of one's own: the folder `scaffold` beside this file, under another name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from swarmkit.deploy.catalogue import catalogue
from swarmkit.errors import UsageError
from swarmkit.names import is_own

_SCAFFOLD = Path(__file__).with_name("scaffold")
# What the scaffold calls itself.
_NAME = "my-stack"


def create(name: str, parent: Path) -> Sequence[Path]:
    """Write a stack called `name` into the folder of that name in `parent`; returns its files.

    It deploys as it is. Raises UsageError where the name cannot be that of a stack, or the folder exists.
    """
    if not re.fullmatch(r"[a-z0-9]([a-z0-9_-]*[a-z0-9])?", name, re.ASCII):
        raise UsageError(
            f'"{name}" cannot be the name of a stack',
            hint="use small letters, digits, and between them dashes and underscores",
        )
    if is_own(name):
        raise UsageError(f'"{name}" is a name of swarmkit\'s own', hint="choose another name")
    if name in {source.name for source in catalogue()}:
        raise UsageError(f"the catalogue has a stack {name}", hint="choose another name")
    folder = parent / name
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError("it is there already, and nothing is written over", where=str(folder))
    written = []
    for source in sorted(path for path in _SCAFFOLD.rglob("*") if path.is_file()):
        target = folder / source.relative_to(_SCAFFOLD)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.read_text(encoding="utf-8").replace(_NAME, name), encoding="utf-8")
        written.append(target)
    return written
