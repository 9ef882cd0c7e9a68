"""The labs that run on this machine, for commands that were not told which cluster they are about."""

from __future__ import annotations

from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from swarmkit.errors import SwarmkitError
from swarmkit.lab.folder import Folder

if TYPE_CHECKING:
    from docker import DockerClient

# Guessing must not keep anyone waiting: an engine on this machine answers in milliseconds.
_TIMEOUT_SECONDS = 3


@dataclass(frozen=True)
class LabInfo:
    """A lab with running nodes."""

    name: str
    inventory: Path


def running(client: DockerClient | None = None) -> list[LabInfo]:
    """The labs with running nodes whose inventory is on this machine, by name.

    None where no engine answers; never raises SwarmkitError. Asks no engine where no lab has a folder.
    """
    if not any(Folder(name).inventory.is_file() for name in Folder.names()):
        return []
    from swarmkit.lab import engine

    try:
        with nullcontext(client) if client else closing(engine.connect(_TIMEOUT_SECONDS)) as connected:
            labs = [found.lab for found in engine.find(connected).values()]
    except SwarmkitError:
        return []
    return [
        LabInfo(lab.name, Folder(lab.name).inventory)
        for lab in labs
        if any(state.running for state in lab.nodes) and Folder(lab.name).inventory.is_file()
    ]
