"""What a user means by a stack and the files beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from swarmkit.compose.load import Options
from swarmkit.deploy.catalogue import StackSource, catalogue, find
from swarmkit.errors import SwarmkitError, UsageError, raise_all

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*", re.ASCII)
_STDIN = Path("/dev/stdin")


def chosen(
    reference: str, files: Sequence[Path], options: Options, root: Path | None = None
) -> tuple[StackSource, Options]:
    """The stack to begin with, and `options` with what is laid over it and what it is called.

    Without `files`, `reference` is a stack as `find` knows it. With them it is that too, and they are laid
    over it; where there is none of that name, it names the instance, and the first file is the stack, as in
    `docker stack deploy -c FILE NAME`. A file `-` is standard input. Paths in files that are laid over a
    stack of the catalogue start from their own folders: they cannot be beside that. Raises UsageError or
    Problems.
    """
    over = [_STDIN if str(path) == "-" else path for path in files]
    name = options.name
    try:
        source = find(reference, root)
    except UsageError:
        if not over or not _NAME.fullmatch(reference):
            raise
        source = _first(over.pop(0), root)
        name = name or reference
    errors: list[SwarmkitError] = [
        UsageError("a template cannot be laid over a stack", where=str(path), hint="name it as STACK itself")
        for path in over
        if path.suffix == ".j2"
    ]
    raise_all(errors)
    shipped = source in catalogue(root)
    return source, replace(options, files=over, name=name, default_name=source.name, own_folders=shipped)


def _first(path: Path, root: Path | None) -> StackSource:
    if path == _STDIN:
        return StackSource(name="stack", folder=Path(), file=path)
    # With a folder before it, a file is not taken for a stack of the catalogue.
    return find(str(path) if len(path.parts) > 1 else f"./{path}", root)
