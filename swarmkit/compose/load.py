"""Compose files: read, merged, variables filled in, and checked whole.

Every mistake of the files is found in one go, with the file, line and column where it stands: what is
wrong is reported and put aside, and the rest is checked again, down to the references between its parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from swarmkit.compose import naming
from swarmkit.compose.contents import Contents
from swarmkit.compose.environment import Variables, default_files
from swarmkit.compose.extends import Findings, Reader
from swarmkit.compose.models import ComposeFile
from swarmkit.compose.references import dependencies, mistakes, switched_on
from swarmkit.compose.tree import TAGS, flat
from swarmkit.compose.validate import honoured, validated
from swarmkit.errors import SwarmkitError, UsageError, raise_all
from swarmkit.interpolate import Mistake, substitute
from swarmkit.yamlfile import YamlFile, dump, read
from swarmkit.yamlfile import parse as parse_yaml


@dataclass(frozen=True)
class Options:
    """What a user may say beside the first file.

    `files` are laid over it in their order. `env_files` are read instead of the `.env` in the folder of
    the first file. `profiles` replace those of COMPOSE_PROFILES; a service named in `services` takes part
    whatever its profiles. `name` is what the stack is called whatever the files say, `default_name` what
    it is called if nobody says. With `own_folders`, relative paths in `files` start from their own folders
    and not from that of the first file, as for changes to a stack that is kept elsewhere.
    """

    files: Sequence[Path] = ()
    env_files: Sequence[Path] = ()
    profiles: Sequence[str] = ()
    services: Sequence[str] = ()
    name: str = ""
    default_name: str = ""
    own_folders: bool = False


@dataclass(frozen=True)
class Project:
    """A Compose file, or several merged into one, that holds together.

    `folder` is what its relative paths start from, `config_data` and `secret_data` the content of each
    config and secret that is not external, by its key, and `warnings` are lines for the user. `name` is
    that of the stack; empty where nobody has said one. `data` is the merged file itself, with the services
    that are switched on.
    """

    file: ComposeFile
    folder: Path
    config_data: Mapping[str, bytes]
    warnings: tuple[str, ...]
    secret_data: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    name: str = ""
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)


def load(path: Path, environment: Mapping[str, str], options: Options | None = None) -> Project:
    """Read and check the Compose file at `path`.

    `environment` (name → value) is what its variables are filled in from, with `.env` files below it.
    Raises UsageError or Problems, with every mistake and its place.
    """
    return _loaded(read(path, TAGS), path.parent, environment, options or Options())


def parse(
    text: str, name: str, folder: Path, environment: Mapping[str, str], options: Options | None = None
) -> Project:
    """As `load`, for the text of a file called `name` whose relative paths start from `folder`."""
    return _loaded(parse_yaml(text, name, TAGS), folder, environment, options or Options())


def written(project: Project) -> str:
    """The merged file as YAML that means the same: its dollar signs are doubled."""

    def doubled(node: Any) -> Any:
        match node:
            case str():
                return node.replace("$", "$$")
            case dict():
                return {key: doubled(value) for key, value in node.items()}
            case list():
                return [doubled(item) for item in node]
            case _:
                return node

    return dump(doubled(project.data))


def _loaded(first: YamlFile, folder: Path, environment: Mapping[str, str], options: Options) -> Project:
    files, variables = _read(first, folder, environment, options)
    name = options.name or _own_name([file for file, _ in files], variables) or options.default_name
    if name:
        # The Compose Specification ("Interpolation") has it that the name can be used.
        variables = replace(variables, given={**variables.given, "COMPOSE_PROJECT_NAME": name})
    findings = Findings(unset=dict(variables.unset))
    including = tuple(Path(file.name).resolve() for file, _ in files)
    file, broken = flat(Reader(folder, variables, findings, including).project(files))
    file, ignored = honoured(file)
    broken = [loc for loc in broken if not any(loc[: len(place)] == place for place in ignored)]
    whole, errors = validated(file, broken)
    errors += findings.errors
    profiles = options.profiles or variables.given.get("COMPOSE_PROFILES", "").split(",")
    compose = _switched(whole, profiles, options.services)
    if whole.services and not compose.services:
        errors.append(_nothing_on(file, whole))
    missing = [*mistakes(file, compose, folder)]
    compose, waits = dependencies(file, compose, whole.services, missing)
    contents = Contents(file, folder, variables, errors, findings.unset)
    config_data, secret_data = contents.configs(compose.configs), contents.secrets(compose.secrets)
    compose = contents.completed(compose)
    if name:
        errors += naming.mistakes(file, compose, name, {"configs": config_data, "secrets": secret_data})
    # What others speak of may stand in a file that could not be read.
    if findings.complete:
        errors += missing
    raise_all(_in_order(errors, [one.name for one, _ in files]))
    unknown = _unknown_profiles(whole, options)
    return Project(
        compose,
        folder.absolute(),
        config_data,
        (*findings.unset.values(), *ignored.values(), *waits, *unknown),
        secret_data,
        name,
        {**file.data, "services": {key: file.data["services"][key] for key in compose.services}},
    )


def _read(
    first: YamlFile, folder: Path, environment: Mapping[str, str], options: Options
) -> tuple[list[tuple[YamlFile, Path]], Variables]:
    """All the files with the folders that their paths start from, and the variables they are filled in from.

    Raises for every one that cannot be read.
    """
    files = [(first, folder)]
    variables = Variables(environment, environment)
    errors: list[SwarmkitError] = []
    for path in options.files:
        try:
            files.append((read(path, TAGS), path.parent if options.own_folders else folder))
        except SwarmkitError as error:
            errors.append(error)
    env_folder = options.files[0].parent if options.own_folders and options.files else folder
    try:
        variables = variables.below(options.env_files or default_files(env_folder))
    except SwarmkitError as error:
        errors.append(error)
    raise_all(errors)
    return files, variables


def _own_name(files: Iterable[YamlFile], variables: Variables) -> str:
    """The name that the files give their project, the last one's; it may hold variables."""
    names = [file.data["name"] for file in files if isinstance(file.data, dict) and file.data.get("name")]
    if not names or not isinstance(names[-1], str):
        return ""
    try:
        return substitute(names[-1], variables.given, lambda _: None)
    except Mistake:
        # Told, with its place, when the file itself is filled in.
        return ""


def _switched(compose: ComposeFile, profiles: Iterable[str], asked: Iterable[str]) -> ComposeFile:
    on = {
        key: service
        for key, service in compose.services.items()
        if switched_on(service, key, set(profiles), set(asked))
    }
    return compose.model_copy(update={"services": on})


def _nothing_on(file: YamlFile, compose: ComposeFile) -> UsageError:
    known = sorted({name for service in compose.services.values() for name in service.profiles})
    hint = f"switch some on with --profile; there are {', '.join(known)}"
    return file.error(("services",), "every service is switched off by its profiles", hint)


def _unknown_profiles(compose: ComposeFile, options: Options) -> Iterator[str]:
    known = {name for service in compose.services.values() for name in service.profiles} | {"*"}
    for name in options.profiles:
        if name not in known:
            yield f'no service has the profile "{name}"'


_PLACE = re.compile(r"(.*?)(?::(\d+))?(?::(\d+))?", re.DOTALL)


def _in_order(errors: Iterable[SwarmkitError], files: Sequence[str]) -> list[SwarmkitError]:
    """As one reads the files, in the order they are merged; then what is in others."""

    def place(error: SwarmkitError) -> tuple[int, str, int, int]:
        match = _PLACE.fullmatch(error.where)
        name, line, column = match.groups() if match else ("", None, None)
        rank = files.index(name) if name in files else len(files)
        return rank, name, int(line or 0), int(column or 0)

    return sorted(errors, key=place)
