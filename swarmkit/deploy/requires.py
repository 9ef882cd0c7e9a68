"""Stacks that need other stacks.

A stack says so at the top of its Compose file, where other tools pass it by:

    x-swarmkit:
      requires: [spark]

Each entry is a name of the catalogue, or a path such as `../db` from the stack's folder. What it names
has to run under its own name. The services of the stack that requires carry a label with those names, so
that anyone who looks at the swarm can tell what is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from swarmkit.compose.load import Project
from swarmkit.compose.tree import TAGS
from swarmkit.deploy.catalogue import StackSource, find
from swarmkit.errors import SwarmkitError, UsageError, raise_all
from swarmkit.names import REQUIRES_LABEL
from swarmkit.swarm import Service
from swarmkit.yamlfile import Model, parse, validation_errors

_KEY = "x-swarmkit"


class _Extension(Model):
    """`x-swarmkit:` of a Compose file."""

    requires: list[str] = []


_FILE: TypeAdapter[dict[str, _Extension]] = TypeAdapter(dict[str, _Extension])


def required(text: str, name: str, folder: Path) -> tuple[StackSource, ...]:
    """The stacks that the Compose file `text`, called `name` and at home in `folder`, requires.

    Raises UsageError or Problems, with the place, for an extension of another form, and for a stack that
    is nowhere to be found.
    """
    # Reading a large file twice takes a while, and few have this.
    if _KEY not in text:
        return ()
    file = parse(text, name, TAGS)
    if not isinstance(file.data, dict) or file.data.get(_KEY) is None:
        return ()
    try:
        references = _FILE.validate_python({_KEY: file.data[_KEY]})[_KEY].requires
    except ValidationError as error:
        raise_all(validation_errors(file, error))
        raise
    found: list[StackSource] = []
    errors: list[SwarmkitError] = []
    for index, reference in enumerate(references):
        try:
            is_path = reference.startswith((".", "/"))
            found.append(find(str(folder / reference) if is_path else reference))
        except UsageError as error:
            errors.append(file.error((_KEY, "requires", index), error.message, error.hint))
    raise_all(errors)
    return tuple(found)


def in_order(stack: str, requires: Callable[[str], Iterable[str]], running: Collection[str]) -> Sequence[str]:
    """The stacks to deploy before `stack`, each after what it requires itself; without those that run.

    `requires` gives the names that a stack requires. Raises UsageError for a circle.
    """
    order: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circle = " requires ".join((*path[path.index(name) :], name))
            raise UsageError(f"stacks that require each other can never start: {circle}", where=stack)
        for other in requires(name):
            if other not in running and other not in order:
                visit(other, (*path, name))
        order.append(name)

    visit(stack, ())
    return order[:-1]


def with_label(project: Project, names: Iterable[str]) -> Project:
    """The project with what it requires in a label of each of its services."""
    joined = ",".join(sorted(names))
    if not joined:
        return project
    services = {
        key: service.model_copy(
            update={
                "deploy": service.deploy.model_copy(
                    update={"labels": {**service.deploy.labels, REQUIRES_LABEL: joined}}
                )
            }
        )
        for key, service in project.file.services.items()
    }
    return replace(project, file=project.file.model_copy(update={"services": services}))


def requirers(services: Iterable[Service], stack: str) -> list[str]:
    """The other stacks among `services` that require `stack`, by name."""
    return sorted(
        {
            service.stack
            for service in services
            if service.stack != stack and stack in service.labels.get(REQUIRES_LABEL, "").split(",")
        }
    )


def refuse_if_required(services: Iterable[Service], stack: str) -> None:
    """Raises UsageError where stacks that run require `stack`."""
    if needing := requirers(services, stack):
        raise UsageError(
            f"{', '.join(needing)} {'requires' if len(needing) == 1 else 'require'} it",
            where=stack,
            hint=f"take that down first: swarmkit stack down {needing[0]}; or add --force",
        )
