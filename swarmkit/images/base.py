"""The base image that swarmkit's own images start from, on the machine that builds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from swarmkit.errors import OperationFailed
from swarmkit.images import BASE_TAG
from swarmkit.remote import Engine, EngineError, Finished

# The longest silence of the script, in seconds: it may unpack a whole Debian system.
SILENCE_SECONDS = 900


Say = Callable[[str], None]


def quiet(_line: str) -> None:
    """Says nothing."""


class Shell(Protocol):
    """A machine's root shell, such as a `Connection`."""

    @property
    def name(self) -> str: ...

    def run(self, script: str, timeout: float = ...) -> Finished: ...


@dataclass(frozen=True)
class BaseImage:
    """The base image as a builder has it."""

    tag: str
    id: str


def ensure_base(engine: Engine, shell: Shell, tag: str = BASE_TAG, say: Say = quiet) -> BaseImage:
    """The base image on the machine of `engine` and `shell`, made there by `base.sh` where missing.

    One request where it is there; else minutes, where it has to be made with debootstrap.

    Raises OperationFailed, with the end of the script's output, where it cannot be made.
    """
    if found := image_id(engine, tag):
        return BaseImage(tag, found)
    say(f"making the base image {tag}")
    script = (Path(__file__).parent / "base.sh").read_text(encoding="utf-8")
    shell.run(script, timeout=SILENCE_SECONDS).checked(f"making the image {tag}")
    if found := image_id(engine, tag):
        return BaseImage(tag, found)
    raise OperationFailed(f"the image {tag} is still missing after it was made", where=engine.name)


def image_id(engine: Engine, reference: str) -> str | None:
    """The ID of an image that the engine has, or None."""
    try:
        return str(engine.get(f"/images/{reference}/json")["Id"])
    except EngineError as error:
        if error.status == 404:
            return None
        raise
