"""What things are called in the swarm, and whether they can be.

The names are those of `docker stack deploy`; what a swarm allows is from moby/swarmkit
(manager/controlapi: validateAnnotations, validateConfigOrSecretAnnotations).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from swarmkit.compose import models
from swarmkit.compose.models import ComposeFile
from swarmkit.errors import UsageError
from swarmkit.names import CONFIG_NAME_LIMIT, is_version
from swarmkit.yamlfile import Loc, YamlFile

_STACK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*", re.ASCII)
SERVICE_NAME_LIMIT = 63
# Services and networks; then configs and secrets.
_NAME = re.compile(r"[A-Za-z0-9](?:[-_]*[A-Za-z0-9]+)*", re.ASCII)
_FILE_NAME = re.compile(r"[A-Za-z0-9]+(?:[A-Za-z0-9_.-]*[A-Za-z0-9])?", re.ASCII)


def check_stack_name(stack: str) -> None:
    """Raises UsageError for what cannot be a stack's name."""
    if not _STACK_NAME.fullmatch(stack):
        raise UsageError(
            f'"{stack}" cannot be the name of a stack',
            hint="use letters, digits, dashes and underscores, and begin with a letter or a digit",
        )


def name_of(stack: str, key: str, definition: models.Definition | None) -> str:
    """docker's names: STACK_key; a `name:` as it stands; an external one by its own name."""
    if definition is None:
        return f"{stack}_{key}"
    return definition.name or (key if definition.external else f"{stack}_{key}")


@dataclass(frozen=True)
class _Thing:
    """A definition of the file: its name in the swarm, where that is said, and what the rest comes to.

    `meaning` is None where it is not known, for the content cannot be had.
    """

    section: str
    key: str
    name: str
    at: Loc
    external: bool
    meaning: Any


def mistakes(
    file: YamlFile, compose: ComposeFile, stack: str, contents: Mapping[str, Mapping[str, bytes]]
) -> Iterator[UsageError]:
    """Names that the swarm would refuse, and those that two things would have.

    `contents` has the content of configs and of secrets by their section and key. Of a stack that cannot be
    called so nothing else is said.
    """
    if not _STACK_NAME.fullmatch(stack):
        return
    for key in compose.services:
        yield from _impossible(file, ("services", key), f"{stack}_{key}", _NAME, SERVICE_NAME_LIMIT)
    for things in _sections(compose, stack, contents):
        first: dict[str, _Thing] = {}
        for thing in things:
            if not thing.external and thing.section == "networks":
                yield from _impossible(file, thing.at, thing.name, _NAME, SERVICE_NAME_LIMIT)
            elif not thing.external and thing.section in contents:
                yield from _impossible(file, thing.at, thing.name, _FILE_NAME, CONFIG_NAME_LIMIT)
            other = first.setdefault(thing.name, thing)
            if other.meaning != thing.meaning and None not in (other.meaning, thing.meaning):
                yield file.error(
                    thing.at,
                    f"{_place(file, other)} is called {thing.name} too, and is something else",
                    "give one of the two another name",
                )
        yield from _versions(file, [thing for thing in things if thing.section in contents])


def _sections(
    compose: ComposeFile, stack: str, contents: Mapping[str, Mapping[str, bytes]]
) -> Iterator[list[_Thing]]:
    networks = dict(compose.networks)
    if any("default" in (service.networks or ("default",)) for service in compose.services.values()):
        networks.setdefault("default", models.Network())
    sections: dict[str, Mapping[str, models.Definition]] = {
        "networks": networks,
        "volumes": compose.volumes,
        "configs": compose.configs,
        "secrets": compose.secrets,
    }
    for section, definitions in sections.items():
        yield [
            _Thing(
                section,
                key,
                name_of(stack, key, one),
                (section, key, "name") if one.name else (section, key),
                one.external,
                _meaning(one, contents.get(section, {}).get(key)),
            )
            for key, one in definitions.items()
        ]


def _meaning(one: models.Definition, content: bytes | None) -> Any:
    """What a definition comes to, whatever it is called and wherever its content is from."""
    has_content = isinstance(one, models.Config | models.Secret) and not one.external
    if has_content and content is None and not getattr(one, "driver", None):
        return None
    return one.model_dump(exclude={"name", "file", "content", "environment"}), content


def _versions(file: YamlFile, things: list[_Thing]) -> Iterator[UsageError]:
    own = [thing for thing in things if not thing.external]
    for thing in own:
        for other in own:
            if thing.name != other.name and is_version(thing.name, other.name):
                yield file.error(
                    thing.at,
                    f"{thing.name} is what another content of {_place(file, other)} could be called",
                    "give it a name with another end",
                )


def _place(file: YamlFile, thing: _Thing) -> str:
    return f"{thing.section}.{thing.key} ({file.where(thing.at)})"


def _impossible(
    file: YamlFile, at: Loc, name: str, form: re.Pattern[str], limit: int
) -> Iterator[UsageError]:
    if len(name) > limit:
        message = f"the name {name} is longer than the {limit} characters a swarm allows"
        yield file.error(at, message, "give the stack, or this, a shorter name")
    elif not form.fullmatch(name):
        signs = "dashes and underscores" if form is _NAME else "dots, dashes and underscores"
        yield file.error(
            at, f"a swarm takes no such name: {name}", f"use letters and digits, and between them {signs}"
        )
