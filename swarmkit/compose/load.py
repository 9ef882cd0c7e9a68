"""Compose files: read, variables filled in, and checked whole.

Every mistake of a file is found in one go: what is wrong is reported and put aside, and the rest is
checked again, down to the references between its parts.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails

from swarmkit.compose.models import ComposeFile, Environment, Misplaced, Service, text
from swarmkit.errors import SwarmkitError, UsageError, raise_all
from swarmkit.interpolate import interpolate
from swarmkit.yamlfile import Loc, YamlFile, read, validation_errors
from swarmkit.yamlfile import parse as parse_yaml

# What Swarm takes as the content of a config (moby/swarmkit, api/validation): less than this many bytes.
CONFIG_LIMIT = 1000 * 1024


@dataclass(frozen=True)
class Project:
    """A Compose file that holds together.

    `folder` is what its relative paths start from, `config_data` the content of each config that is
    not external, by its key, `secret_data` that of each secret, and `warnings` are lines for the user.
    """

    file: ComposeFile
    folder: Path
    config_data: Mapping[str, bytes]
    warnings: tuple[str, ...]
    secret_data: Mapping[str, bytes] = field(default_factory=dict, repr=False)


def load(path: Path, environment: Mapping[str, str]) -> Project:
    """Read and check the Compose file at `path`.

    `environment` (name → value) is what its variables are filled in from. Raises UsageError or
    Problems, with every mistake and its place.
    """
    return _checked(read(path), path.parent, environment)


def parse(text: str, name: str, folder: Path, environment: Mapping[str, str]) -> Project:
    """As `load`, for the text of a file called `name` whose relative paths start from `folder`."""
    return _checked(parse_yaml(text, name), folder, environment)


def _checked(source: YamlFile, folder: Path, environment: Mapping[str, str]) -> Project:
    if not isinstance(source.data, dict):
        raise UsageError(
            "not a Compose file: expected a mapping with `services:`",
            where=source.where(()),
            hint="see docs/stacks.md for a small one",
        )
    filled = interpolate(replace(source, data=_text_keys(source.data)), environment)
    file = filled.file
    compose, errors = _validated(file, filled.errors)
    errors += filled.errors.values()
    config_data = _config_data(file, compose, folder, errors)
    errors += _mistakes_between(file, compose, folder)
    raise_all(sorted(errors, key=_place))
    return Project(_from_environment(compose, environment), folder.absolute(), config_data, filled.warnings)


def _text_keys(node: Any) -> Any:
    """Keys are names here, also those that YAML reads as numbers."""
    match node:
        case dict():
            return {_key(key): _text_keys(value) for key, value in node.items()}
        case list():
            return [_text_keys(item) for item in node]
        case _:
            return node


def _key(key: object) -> str:
    try:
        return text(key)
    except ValueError:
        return str(key)


def _place(error: SwarmkitError) -> tuple[int, int]:
    _, line, column = error.where.rsplit(":", 2)
    return int(line), int(column)


def _validated(file: YamlFile, known_bad: Iterable[Loc]) -> tuple[ComposeFile, list[SwarmkitError]]:
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
        return file.error(loc, "not supported by swarmkit yet", "docs/stacks.md lists what is")
    known = sorted(section.model_fields)
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
    return file.error(loc, "unknown key", hint)


def _inside(kind: Any, part: int | str) -> Any:
    """The type of what stands at `part` in a value of the type `kind`."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return _plain(kind.model_fields[str(part)].annotation)
    container, arguments = typing.get_origin(kind), typing.get_args(kind)
    return _plain(arguments[1] if container is dict else arguments[0])


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
    if loc[0] in ("networks", "volumes", "configs") and len(loc) > 1:
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


def _config_data(
    file: YamlFile, compose: ComposeFile, folder: Path, errors: list[SwarmkitError]
) -> dict[str, bytes]:
    out = {}
    for key, config in compose.configs.items():
        if config.external:
            continue
        loc: Loc = ("configs", key, "content" if config.file is None else "file")
        data = (config.content or "").encode()
        if config.file is not None:
            try:
                data = (folder / Path(config.file).expanduser()).read_bytes()
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                errors.append(file.error(loc, f"{config.file} cannot be read: {reason}"))
                continue
        if not data or len(data) >= CONFIG_LIMIT:
            errors.append(
                file.error(loc, f"Swarm takes 1 to {CONFIG_LIMIT - 1} bytes as a config, this is {len(data)}")
            )
        out[key] = data
    return out


def _mistakes_between(file: YamlFile, compose: ComposeFile, folder: Path) -> Iterator[SwarmkitError]:
    """References to what is not there; the names are those in the file, whether right otherwise or not."""
    if not file.data.get("services"):
        yield file.error(("services",), "at least one service is needed")
    for key, service in compose.services.items():
        here: Loc = ("services", key)
        written = file.data["services"][key] or {}
        if not written.get("image") and written.get("build") is None:
            yield file.error(here, "needs an image, or a build to make one from")
        for name in service.networks:
            if name != "default" and not _defined(file, "networks", name):
                at = _list_place(file, (*here, "networks"), name)
                yield file.error(
                    at, f'no network is called "{name}"', "define it under `networks:` of the file"
                )
        for index, mount in enumerate(service.volumes):
            if mount.type == "volume" and mount.source and not _defined(file, "volumes", mount.source):
                yield file.error(
                    (*here, "volumes", index),
                    f'no volume is called "{mount.source}"',
                    f"define it under `volumes:` of the file, or write ./{mount.source} for a folder",
                )
        for index, config in enumerate(service.configs):
            if not _defined(file, "configs", config.source):
                yield file.error(
                    (*here, "configs", index),
                    f'no config is called "{config.source}"',
                    "define it under `configs:` of the file",
                )
        yield from _build_mistakes(file, here, service, folder)


def _defined(file: YamlFile, kind: str, name: str) -> bool:
    """Whether the section has the name. One that is no mapping is a mistake of its own, told elsewhere."""
    section = file.data.get(kind) or {}
    return not isinstance(section, dict) or name in section


def _list_place(file: YamlFile, loc: Loc, name: str) -> Loc:
    """Where `name` stands at `loc`, which is a list of names or a mapping by name."""
    value: Any = file.data
    for part in loc:
        value = value[part]
    return (*loc, value.index(name)) if isinstance(value, list) else (*loc, name)


def _build_mistakes(file: YamlFile, here: Loc, service: Service, folder: Path) -> Iterator[SwarmkitError]:
    if service.build is None:
        return
    at: Loc = (*here, "build", "context")
    at = at if at in file.positions else at[:-1]
    context = service.build.context
    if "://" in context or context.startswith(("git@", "github.com/")):
        yield file.error(at, "a build context that is not a folder is not supported by swarmkit yet")
        return
    path = folder / Path(context).expanduser()
    if not path.is_dir():
        yield file.error(at, f'there is no folder "{context}" (a path starts from that of the Compose file)')
    elif not (path / service.build.dockerfile).is_file():
        yield file.error(at, f'there is no file "{service.build.dockerfile}" in the folder "{context}"')


def _from_environment(compose: ComposeFile, environment: Mapping[str, str]) -> ComposeFile:
    """Variables of services and builds that have no value here take that of `environment`.

    As docker does: an empty value counts as none; what `environment` does not have stays as it is.
    """

    def filled(variables: Environment) -> Environment:
        return {key: value or environment.get(key, value) for key, value in variables.items()}

    services = {
        key: service.model_copy(
            update={
                "environment": filled(service.environment),
                "build": service.build
                and service.build.model_copy(update={"args": filled(service.build.args)}),
            }
        )
        for key, service in compose.services.items()
    }
    return compose.model_copy(update={"services": services})
