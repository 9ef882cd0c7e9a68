"""The inputs of a stack, declared in its inputs.yml as TOSCA does.

replicas:
  type: integer
  description: how many tasks answer requests
  default: 3
  constraints:
    - in_range: [1, 100]
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from swarmkit.compose.models import Misplaced
from swarmkit.deploy.types import Schema
from swarmkit.errors import SwarmkitError, raise_all, shown
from swarmkit.yamlfile import Loc, read, validation_errors

# What templates have besides their inputs.
CLUSTER = "cluster"
INSTANCE = "instance"

# Words that mean something else in a template.
_RESERVED = frozenset(
    {CLUSTER, INSTANCE, "and", "else", "false", "if", "in", "is", "none", "not", "or", "true"}
)

_PREFIX = "SWARMKIT_INPUT_"


class Input(Schema):
    """One input. Without a default it has to be given, unless `required` is false: then it may be None."""

    default: Any = None
    required: bool = True

    @property
    def must_be_given(self) -> bool:
        """Whether there is no stack without a value from the user."""
        return self.required and self.default is None

    @property
    def default_text(self) -> str:
        """The default as `--set` takes it: `true`, `[80, 443]`, `4 GB`."""
        if isinstance(self.default, str):
            return self.default
        return json.dumps(self.default, ensure_ascii=False)

    def mistakes(self) -> Iterator[tuple[Loc, str]]:
        """What is wrong with the declaration, each with its place in it."""
        found = list(super().mistakes())
        yield from found
        if self.default is None:
            return
        if self.is_secret:
            yield ("default",), "a secret has no default: whoever reads the stack would know it"
        elif not any("entry_schema" in loc for loc, _ in found):
            try:
                # With constraints that mean something, that is.
                (self.unconstrained if found else self.checked)(self.default)
            except Misplaced as error:
                for loc, message in error.mistakes:
                    yield ("default", *loc), f"the default is not allowed: {message}"


Inputs = Mapping[str, Input]
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_DECLARATION: TypeAdapter[dict[str, Input]] = TypeAdapter(dict[str, Input])


def variable(name: str) -> str:
    """The environment variable of an input: the one that gives its value, and by which a stack's
    `secrets.….environment` names a secret input.
    """
    return f"{_PREFIX}{name.upper()}"


def load(path: Path) -> Inputs:
    """Read and check an inputs.yml: what inputs a stack has.

    Raises UsageError or Problems, with every mistake and its place.
    """
    file = read(path)
    if file.data is None:
        return {}
    if not isinstance(file.data, dict):
        raise file.error((), f"expected a mapping, got {shown(file.data)}")
    inputs: dict[str, Input] = {}
    errors: list[SwarmkitError] = []
    for name, declaration in file.data.items():
        try:
            # One by one: the mistakes of one input must not hide those of the others.
            inputs |= _DECLARATION.validate_python({name: declaration})
        except ValidationError as error:
            errors += validation_errors(file, error)
    for name, declared in inputs.items():
        errors += [file.error((name,), message) for message in _bad_names(name, inputs)]
        errors += [file.error((name, *loc), message) for loc, message in declared.mistakes()]
    raise_all(errors)
    return inputs


def _bad_names(name: str, inputs: Inputs) -> Iterator[str]:
    if not _NAME.fullmatch(name):
        yield f'an input cannot be called "{name}": use letters, digits and underscores, and no digit first'
    if name.lower() in _RESERVED:
        yield f'an input cannot be called "{name}", which means something else in templates'
    others = [other for other in inputs if other < name and variable(other) == variable(name)]
    if others:
        yield f"{others[0]} has the same name but for upper and lower case, and so the same variable"
