"""YAML files read so that every error can name its line and column.

PyYAML builds the data; the positions come from the same parse (its node tree), so the two agree.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from swarmkit.errors import Problems, SwarmkitError, UsageError, raise_all


class Model(BaseModel):
    """Base of everything read from a file: unknown keys are errors, values are never changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Loader(yaml.SafeLoader):
    """YAML as Compose files mean it, and docker reads it: nearer to YAML 1.2 than PyYAML's 1.1.

    Left out are numbers to the base of 60 (`22:22` is a port, not 1342), dates, and `yes`, `no`, `on`,
    `off` as booleans (a field that wants one still takes them). Octal stays, as in `mode: 0444`.
    """

    yaml_implicit_resolvers = {
        first: [
            (tag, form)
            for tag, form in some
            if tag.rpartition(":")[2] not in ("bool", "int", "float", "timestamp")
        ]
        for first, some in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


for _tag, _form, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0b[01_]+|0o?[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)", "-+0123456789"),
    (
        "float",
        r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_form})$"), list(_first))


ModelT = TypeVar("ModelT", bound=BaseModel)
Loc = tuple[int | str, ...]


@dataclass(frozen=True)
class YamlFile:
    """The data of a YAML file, with the position of every key and item in it."""

    name: str
    data: Any
    positions: dict[Loc, tuple[int, int]] = field(repr=False)

    def where(self, loc: Sequence[int | str]) -> str:
        """`file:line:column` of the value at `loc`, or of the nearest thing around it that exists."""
        path = tuple(loc)
        while path not in self.positions and path:
            path = path[:-1]
        line, column = self.positions.get(path, (1, 1))
        return f"{self.name}:{line}:{column}"

    def error(self, loc: Sequence[int | str], message: str, hint: str = "") -> UsageError:
        """An error about the value at `loc`, saying where that is and by which path it is reached."""
        path = dotted(loc)
        return UsageError(f"{path}: {message}" if path else message, where=self.where(loc), hint=hint)


def dotted(loc: Sequence[int | str]) -> str:
    """`("services", "web", "ports", 0)` as `services.web.ports[0]`."""
    out = ""
    for part in loc:
        if isinstance(part, int):
            out += f"[{part}]"
        else:
            out += f".{part}" if out else part
    return out


def read(path: Path) -> YamlFile:
    """Read a YAML file.

    Raises UsageError where it cannot be read or is not YAML, Problems for its repeated keys.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError("no such file", where=str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot be read: {error}", where=str(path)) from None
    return parse(text, str(path))


def parse(text: str, name: str) -> YamlFile:
    """Parse YAML text that came from the file called `name`; raises as `read` does."""
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        before = text[: error.position].split("\n")
        raise UsageError(
            f"not valid YAML: the character U+{ord(text[error.position]):04X} may not stand in it",
            where=f"{name}:{len(before)}:{len(before[-1]) + 1}",
        ) from None
    try:
        root = loader.get_single_node()
        positions: dict[Loc, tuple[int, int]] = {}
        errors: list[SwarmkitError] = []
        if root is not None:
            _walk(root, (), name, positions, errors)
        raise_all(errors)
        data = None if root is None else loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise UsageError(f"not valid YAML: {error.problem or error.context}", where=where) from None
    except yaml.YAMLError as error:
        raise UsageError(f"not valid YAML: {str(error).splitlines()[0]}", where=name) from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"not valid YAML: {error}", where=name) from None
    finally:
        loader.dispose()
    return YamlFile(name, data, positions)


def _walk(
    node: yaml.Node,
    loc: Loc,
    name: str,
    positions: dict[Loc, tuple[int, int]],
    errors: list[SwarmkitError],
) -> None:
    positions.setdefault(loc, (node.start_mark.line + 1, node.start_mark.column + 1))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, (*loc, index), name, positions, errors)
    elif isinstance(node, yaml.MappingNode):
        seen: set[Hashable] = set()
        for key, value in node.value:
            # A merge key may stand more than once by YAML's own rule.
            if key.tag != "tag:yaml.org,2002:merge" and isinstance(key, yaml.ScalarNode):
                here = (*loc, key.value)
                if key.value in seen:
                    line, column = key.start_mark.line + 1, key.start_mark.column + 1
                    errors.append(
                        UsageError(f"{dotted(here)}: stands here twice", where=f"{name}:{line}:{column}")
                    )
                seen.add(key.value)
                positions.setdefault(here, (value.start_mark.line + 1, value.start_mark.column + 1))
                _walk(value, here, name, positions, errors)
            else:
                _walk(value, loc, name, positions, errors)


def validated(file: YamlFile, model: type[ModelT]) -> ModelT:
    """The file's data as `model`; raises one UsageError or Problems naming every mistake in it."""
    try:
        return model.model_validate(file.data)
    except ValidationError as error:
        raise Problems(validation_errors(file, error)) from None


def validation_errors(file: YamlFile, error: ValidationError) -> list[UsageError]:
    """pydantic's errors in our words, each with its place in the file."""
    out = []
    for item in error.errors(include_url=False):
        # pydantic names the branch of a union or a validator's function in the location: not the user's.
        loc = tuple(part for part in item["loc"] if _is_users(part))
        out.append(file.error(loc, _message(item["type"], item["msg"], item.get("input"))))
    return out


def _is_users(part: int | str) -> bool:
    if isinstance(part, int):
        return True
    return part not in _BRANCHES and not any(sign in part for sign in "[]()|")


_BRANCHES = frozenset({"str", "int", "float", "bool", "function-after", "function-before"})


_EXPECTED = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "list_type": "a list",
}


def _message(kind: str, message: str, value: object) -> str:
    if kind == "missing":
        return "is required"
    if kind == "extra_forbidden":
        return "unknown key"
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, got {_shown(value)}"
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    return f"{message[:1].lower()}{message[1:]}, got {_shown(value)}"


def _shown(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"' if len(value) <= 60 else f'"{value[:57]}…"'
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return str(value)
