"""The inputs of a stack: declared in its inputs.yml as TOSCA does, given by the user, checked before use.

    replicas:
      type: integer
      description: how many tasks answer requests
      default: 3
      constraints:
        - in_range: [1, 100]

A new type is a new entry of `_TYPES`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, StringConstraints, TypeAdapter, ValidationError, model_validator

from swarmkit.compose.units import shown
from swarmkit.errors import SwarmkitError, UsageError, raise_all
from swarmkit.yamlfile import Loc, Model, YamlFile, read, validation_errors

Value = str | int
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
TypeName = Literal["string", "integer", "image"]

# An image reference (distribution/reference): domain, path, tag, digest.
_IMAGE = re.compile(
    r"(?:[A-Za-z0-9.-]+(?::\d+)?/)?[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?",
    re.ASCII,
)


def _string(value: object) -> str:
    if isinstance(value, str):
        return value
    # YAML reads `message: 2024` as a number, where the user wrote text.
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"expected text, got {shown(value)}")


def _integer(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+", value, re.ASCII):
        return int(value)
    raise ValueError(f"expected a whole number, got {shown(value)}")


def _image(value: object) -> str:
    if isinstance(value, str) and _IMAGE.fullmatch(value):
        return value
    raise ValueError(f'expected an image such as "nginx:1.27" or "registry:5000/me/web", got {shown(value)}')


_TYPES: Mapping[str, Callable[[object], Value]] = {"string": _string, "integer": _integer, "image": _image}


class Constraint(Model):
    """One constraint, in TOSCA's words: exactly one of these."""

    in_range: tuple[int, int] | None = None
    valid_values: list[str | int] | None = None
    pattern: str | None = None
    min_length: int | None = None
    max_length: int | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Constraint:
        if len(self.model_fields_set) != 1:
            raise ValueError(f"expected one of {', '.join(type(self).model_fields)}")
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except re.error as error:
                raise ValueError(f"{self.pattern} is not a regular expression: {error}") from None
        if self.in_range and self.in_range[0] > self.in_range[1]:
            raise ValueError(f"the range {list(self.in_range)} is empty")
        return self

    def mistake(self, value: Value) -> str | None:
        """What is wrong with `value`, or None."""
        if self.in_range and not (isinstance(value, int) and self.in_range[0] <= value <= self.in_range[1]):
            return f"expected a number from {self.in_range[0]} to {self.in_range[1]}, got {value}"
        if self.valid_values is not None and value not in self.valid_values:
            return f"expected one of {', '.join(map(str, self.valid_values))}, got {shown(value)}"
        if self.pattern is not None and not re.fullmatch(self.pattern, str(value)):
            return f"expected text of the form {self.pattern}, got {shown(value)}"
        length = len(str(value))
        if self.min_length is not None and length < self.min_length:
            return f"expected at least {self.min_length} characters, got {length}"
        if self.max_length is not None and length > self.max_length:
            return f"expected at most {self.max_length} characters, got {length}"
        return None


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


class Input(Model):
    """One input. Without a default it has to be given, unless `required` is false: then it may be None."""

    type: TypeName = "string"
    description: str = ""
    default: Value | None = None
    required: bool = True
    constraints: Annotated[list[Constraint], BeforeValidator(_listed)] = []

    @model_validator(mode="after")
    def _default_is_allowed(self) -> Input:
        if self.default is not None:
            try:
                self.checked(self.default)
            except ValueError as error:
                raise ValueError(f"the default is not allowed: {error}") from None
        return self

    def checked(self, value: object) -> Value:
        """`value` as the input's type. Raises ValueError, saying what was expected."""
        typed = _TYPES[self.type](value)
        for constraint in self.constraints:
            if mistake := constraint.mistake(typed):
                raise ValueError(mistake)
        return typed


Inputs = Mapping[str, Input]
_FILE: TypeAdapter[dict[str, Input]] = TypeAdapter(dict[Name, Input])


def load(path: Path) -> Inputs:
    """Read and check an inputs.yml: what inputs a stack has. Raises UsageError or Problems."""
    file = read(path)
    try:
        return _FILE.validate_python({} if file.data is None else file.data)
    except ValidationError as error:
        raise_all(validation_errors(file, error))
        raise


def resolve(inputs: Inputs, given: Mapping[str, str], values: Path | None = None) -> dict[str, Value | None]:
    """The value of every input: `given` (from --set) before the file `values` before the default.

    An input that is not required and not given is None. Raises UsageError, or Problems with all that is
    wrong: an input that does not exist, one that is missing, a value that is not allowed.
    """
    file = _values_file(values)
    errors: list[SwarmkitError] = [*_unknown(inputs, given, file)]
    out: dict[str, Value | None] = {}
    for name, declared in inputs.items():
        try:
            if name in given:
                out[name] = declared.checked(given[name])
            elif file and file.data.get(name) is not None:
                out[name] = declared.checked(file.data[name])
            elif declared.default is not None or not declared.required:
                out[name] = (
                    declared.default if declared.default is None else declared.checked(declared.default)
                )
            else:
                what = f": {declared.description}" if declared.description else ""
                errors.append(UsageError(f"the input {name} is required{what}", hint=f"add --set {name}=…"))
        except ValueError as error:
            errors.append(_wrong(name, str(error), None if name in given else file))
    raise_all(errors)
    return out


def _values_file(path: Path | None) -> YamlFile | None:
    if path is None:
        return None
    file = read(path)
    if file.data is None:
        return None
    if not isinstance(file.data, dict):
        raise file.error((), "expected a mapping of inputs to their values")
    return file


def _unknown(inputs: Inputs, given: Mapping[str, str], file: YamlFile | None) -> Iterator[SwarmkitError]:
    hint = f"its inputs are: {', '.join(sorted(inputs))}" if inputs else "it has no inputs"
    for name in given:
        if name not in inputs:
            yield UsageError(f"the stack has no input {name}", where=f"--set {name}", hint=hint)
    for name in file.data if file else ():
        if name not in inputs and file:
            loc: Loc = (str(name),)
            yield file.error(loc, "the stack has no such input", hint)


def _wrong(name: str, message: str, file: YamlFile | None) -> SwarmkitError:
    if file:
        return file.error((name,), message)
    return UsageError(message, where=f"--set {name}")
