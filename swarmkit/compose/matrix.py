"""Every key of a Compose file that swarmkit knows, and what it does with it, read from the models."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from swarmkit.compose.dropped import Part, parts
from swarmkit.compose.models import ComposeFile, Section

Status = Literal["supported", "ignored", "not yet"]

# Keys that are gone before the models see a file (swarmkit.compose.extends).
_TAKEN_BEFORE = {"": ("include",), "services.NAME": ("extends",)}
# What the models have as a mapping and a file as lines alone.
_LINES = ("services.NAME.tmpfs[]",)


@dataclass(frozen=True)
class Key:
    """A key, in the section at `section` (`services.NAME.ports[]`; "" is the top of the file).

    `note` says what happens to a key that is ignored, or when a supported one is.
    """

    section: str
    name: str
    status: Status
    note: str = ""


def keys() -> list[Key]:
    """All keys, section by section from the top down, sorted by name within one."""
    return [key for path, section in _sections("", ComposeFile) for key in _keys(path, section)]


def _keys(path: str, section: type[Section]) -> list[Key]:
    found = [_known(path, name) for name in (*section.model_fields, *_TAKEN_BEFORE.get(path, ()))]
    found += [Key(path, name, "ignored", instead) for name, instead in section.ignored.items()]
    found += [Key(path, name, "not yet") for name in section.not_yet]
    return sorted(found, key=lambda key: key.name)


def _known(path: str, name: str) -> Key:
    """A key of the models, which engines may drop all the same."""
    dropped = [part for key, part in parts() if key == f"{path}.{name}"]
    if not dropped:
        return Key(path, name, "supported")
    if all(not part.since and not part.value for part in dropped):
        return Key(path, name, "ignored", dropped[0].instead)
    return Key(path, name, "supported", "; ".join(_when(part) for part in dropped))


def _when(part: Part) -> str:
    if part.since:
        return f"from version {part.since} of the Engine API on, with older ones ignored"
    return f"`{part.value}` is ignored: {part.instead}"


def _sections(path: str, section: type[Section]) -> Iterator[tuple[str, type[Section]]]:
    yield path, section
    for name, field in section.model_fields.items():
        below, inner = _inside(field.annotation)
        place = f"{path}.{name}{below}".removeprefix(".")
        if inner is not None and place not in _LINES:
            yield from _sections(place, inner)


def _inside(kind: Any) -> tuple[str, type[Section] | None]:
    """The section in a field of the type `kind`, and the path to it from there."""
    if isinstance(kind, type) and issubclass(kind, Section):
        return "", kind
    own = {dict: ".NAME", list: "[]"}.get(typing.get_origin(kind), "")
    for argument in typing.get_args(kind):
        below, inner = _inside(argument)
        if inner is not None:
            return own + below, inner
    return "", None
