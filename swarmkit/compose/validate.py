"""A Compose file's data checked against the models, down to every mistake in it.

What is wrong is reported and put aside, and the rest is checked again.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails

from swarmkit.compose.models import ComposeFile, Misplaced, Section, values_ignored
from swarmkit.errors import SwarmkitError, UsageError
from swarmkit.yamlfile import Loc, YamlFile, dotted, validation_errors

# The sections whose entries services refer to by name.
DEFINITIONS = ("networks", "volumes", "configs", "secrets")


def honoured(file: YamlFile) -> tuple[YamlFile, dict[Loc, str]]:
    """The file without the keys that Swarm cannot honour, and a warning for each by its place.

    One that asks for nothing (`privileged: false`, `devices: []`) is taken out without a word. What of a
    value cannot be honoured is warned of too, and left where it is.
    """
    warnings: dict[Loc, str] = {}

    def warn(here: Loc, instead: str) -> None:
        warnings[here] = f"{file.where(here)}: {dotted(here)}: ignored: {instead}"

    def kept(data: Any, kind: Any, loc: Loc) -> Any:
        if isinstance(data, list):
            return [kept(item, _inside(kind, n), (*loc, n)) for n, item in enumerate(data)]
        if not isinstance(data, dict):
            return data
        ignored = kind.ignored if _is_section(kind) else {}
        for key in data:
            if key in ignored and data[key]:
                warn((*loc, key), ignored[key])
        return {
            key: kept(value, _inside(kind, key), (*loc, key))
            for key, value in data.items()
            if key not in ignored
        }

    data = kept(file.data, ComposeFile, ())
    for here, instead in values_ignored(data):
        warn(here, instead)
    return replace(file, data=data), warnings


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def validated(file: YamlFile, known_bad: Iterable[Loc]) -> tuple[ComposeFile, list[SwarmkitError]]:
    """The model of all that is right in the file, and an error for each thing that is not.

    What stands at `known_bad` has its error already.
    """
    errors: list[SwarmkitError] = []
    data = _without_all(file.data, known_bad)
    while True:
        try:
            return ComposeFile.model_validate(data), errors
        except ValidationError as error:
            errors += _in_our_words(file, error)
            data = _without_all(data, _places(error))


def _places(error: ValidationError) -> Iterator[Loc]:
    for item in error.errors(include_url=False):
        cause = item.get("ctx", {}).get("error")
        below = [loc for loc, _ in cause.mistakes] if isinstance(cause, Misplaced) else [()]
        yield from ((*item["loc"], *loc) for loc in below)


def _in_our_words(file: YamlFile, error: ValidationError) -> Iterator[SwarmkitError]:
    others: list[InitErrorDetails] = []
    for item in error.errors(include_url=False):
        context = item.get("ctx", {})
        cause = context.get("error")
        if item["type"] == "extra_forbidden":
            yield _unknown_key(file, item["loc"])
        elif isinstance(cause, Misplaced):
            for below, message in cause.mistakes:
                yield file.error((*item["loc"], *below), message)
        else:
            others.append(
                InitErrorDetails(type=item["type"], loc=item["loc"], input=item["input"], ctx=context)
            )
    if others:
        yield from validation_errors(file, ValidationError.from_exception_data("", others))


def _unknown_key(file: YamlFile, loc: Loc) -> UsageError:
    section = ComposeFile
    for part in loc[:-1]:
        section = _inside(section, part)
    key = str(loc[-1])
    if key in getattr(section, "not_yet", ()):
        return file.error(loc, "not supported by swarmkit yet", "docs/compose-support.md lists what is")
    known = sorted(section.model_fields)
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
    return file.error(loc, "unknown key", hint)


def _inside(kind: Any, part: int | str) -> Any:
    """The type of what stands at `part` in a value of the type `kind`; None where that has no such part."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(str(part))
        return field and _plain(field.annotation)
    container, arguments = typing.get_origin(kind), typing.get_args(kind)
    if container is dict and isinstance(part, str):
        return _plain(arguments[1])
    return _plain(arguments[0]) if container is list and isinstance(part, int) else None


def _plain(kind: Any) -> Any:
    """A type without its `Annotated` and without its `| None`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _plain(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return _plain(next(argument for argument in arguments if argument is not types.NoneType))
    return kind


def _part(data: Any, loc: Loc) -> Loc:
    """What to put aside for an error at `loc`, so that the rest can be checked on its own."""
    if loc[0] in DEFINITIONS and len(loc) > 1:
        loc = loc[:2]
    # A list keeps its places in the file only as a whole.
    lists = [index for index, part in enumerate(loc) if isinstance(part, int)]
    loc = loc[: lists[0]] if lists else loc
    while not _has(data, loc):
        loc = loc[:-1]
    return loc


def _has(data: Any, loc: Loc) -> bool:
    for part in loc:
        if not isinstance(data, dict) or part not in data:
            return False
        data = data[part]
    return True


def _without_all(data: Any, places: Iterable[Loc]) -> Any:
    for part in [_part(data, loc) for loc in places]:
        data = _without(data, part)
    return data


def _without(data: Any, loc: Loc) -> Any:
    if not _has(data, loc):
        return data
    head, *rest = loc
    if not rest:
        return {key: value for key, value in data.items() if key != head}
    return {**data, head: _without(data[head], tuple(rest))}
