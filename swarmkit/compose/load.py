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

from swarmkit.compose.models import (
    ComposeFile,
    Environment,
    FileObject,
    Misplaced,
    Section,
    Service,
    text,
    values_ignored,
)
from swarmkit.errors import SwarmkitError, UsageError, raise_all
from swarmkit.interpolate import interpolate
from swarmkit.yamlfile import Loc, YamlFile, dotted, read, validation_errors
from swarmkit.yamlfile import parse as parse_yaml

# What Swarm takes as the content of a config (moby/swarmkit, api/validation): less than this many bytes.
CONFIG_LIMIT = 1000 * 1024
# The same for a secret.
SECRET_LIMIT = 500 * 1024 + 1


@dataclass(frozen=True)
class Project:
    """A Compose file that holds together.

    `folder` is what its relative paths start from, `config_data` the content of each config that is
    not external, by its key, and `warnings` are lines for the user.
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
    file, ignored = _without_ignored(filled.file)
    compose, errors = _validated(file, filled.errors)
    errors += filled.errors.values()
    config_data = _contents(file, "configs", compose.configs, folder, environment, errors)
    secret_data = _contents(file, "secrets", compose.secrets, folder, environment, errors)
    errors += _mistakes_between(file, compose, folder)
    raise_all(sorted(errors, key=_place))
    return Project(
        _from_environment(compose, environment),
        folder.absolute(),
        config_data,
        (*filled.warnings, *ignored),
        secret_data,
    )


def _without_ignored(file: YamlFile) -> tuple[YamlFile, list[str]]:
    """The file without the keys that Swarm cannot honour, and a warning for each of them."""
    found = [*_ignored(ComposeFile, file.data, ()), *values_ignored(file.data)]
    warnings = [f"{file.where(loc)}: {dotted(loc)}: ignored: {instead}" for loc, instead in found]
    data = file.data
    for loc, _ in _ignored(ComposeFile, file.data, ()):
        data = _removed(data, loc)
    return replace(file, data=data), warnings


def _ignored(kind: Any, data: Any, here: Loc) -> Iterator[tuple[Loc, str]]:
    """The keys below `data` that the model `kind` has in `ignored`, and what happens instead."""
    if isinstance(kind, type) and issubclass(kind, Section) and isinstance(data, dict):
        for key, value in data.items():
            if key in kind.ignored and value is not None:
                yield (*here, key), kind.ignored[key]
            elif key in kind.model_fields:
                yield from _ignored(_inside(kind, key), value, (*here, key))
    elif typing.get_origin(kind) in (dict, list):
        items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
        for part, value in items:
            yield from _ignored(_inside(kind, part), value, (*here, part))


def _removed(data: Any, loc: Loc) -> Any:
    head, *rest = loc
    if not rest:
        return {key: value for key, value in data.items() if key != head}
    if isinstance(data, list):
        return [_removed(item, tuple(rest)) if index == head else item for index, item in enumerate(data)]
    return {**data, head: _removed(data[head], tuple(rest))}


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
    if loc[0] in ("networks", "volumes", "configs", "secrets") and len(loc) > 1:
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


def _contents(
    file: YamlFile,
    kind: str,
    objects: Mapping[str, FileObject],
    folder: Path,
    environment: Mapping[str, str],
    errors: list[SwarmkitError],
) -> dict[str, bytes]:
    """The content of each config or secret that is made of one, by its key in the section `kind`."""
    out = {}
    for key, thing in objects.items():
        content = getattr(thing, "content", None)
        if thing.external or (thing.file, thing.environment, content) == (None, None, None):
            continue
        loc: Loc = (kind, key, "file" if thing.file else "environment" if thing.environment else "content")
        data = (content or "").encode()
        if thing.file is not None:
            try:
                data = (folder / Path(thing.file).expanduser()).read_bytes()
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                errors.append(file.error(loc, f"{thing.file} cannot be read: {reason}"))
                continue
        elif thing.environment is not None:
            if thing.environment not in environment:
                errors.append(file.error(loc, f"the variable {thing.environment} is not set"))
                continue
            data = environment[thing.environment].encode()
        limit = CONFIG_LIMIT if kind == "configs" else SECRET_LIMIT
        if not data or len(data) >= limit:
            errors.append(
                file.error(loc, f"Swarm takes 1 to {limit - 1} bytes as a {kind[:-1]}, this is {len(data)}")
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
            source = mount.source or ""
            named = mount.type == "volume" or (mount.type == "cluster" and not source.startswith("group:"))
            if named and source and not _defined(file, "volumes", source):
                yield file.error(
                    (*here, "volumes", index),
                    f'no volume is called "{source}"',
                    f"define it under `volumes:` of the file, or write ./{source} for a folder",
                )
        for kind, uses in (("configs", service.configs), ("secrets", service.secrets)):
            for index, use in enumerate(uses):
                if not _defined(file, kind, use.source):
                    yield file.error(
                        (*here, kind, index),
                        f'no {kind[:-1]} is called "{use.source}"',
                        f"define it under `{kind}:` of the file",
                    )
        spec = service.credential_spec
        if spec and spec.config and not _defined(file, "configs", spec.config):
            yield file.error(
                (*here, "credential_spec", "config"),
                f'no config is called "{spec.config}"',
                "define it under `configs:` of the file",
            )
        for name in service.depends_on:
            if not _defined(file, "services", name):
                at = _list_place(file, (*here, "depends_on"), name)
                yield file.error(at, f'no service is called "{name}"')
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
