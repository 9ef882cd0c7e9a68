"""YAML files read so that every error can name its line and column.

PyYAML builds the data; the positions come from the same parse (its node tree), so the two agree.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from swarmkit.errors import Problems, SwarmkitError, UsageError, raise_all, reason, shown


class Model(BaseModel):
    """Base of everything read from a file: unknown keys are errors, values are never changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Loader(yaml.SafeLoader):
    """YAML as Compose files mean it, and docker reads it: nearer to YAML 1.2 than PyYAML's 1.1.

    Left out are numbers to the base of 60 (`22:22` is a port, not 1342), dates, the single `=` (which no
    constructor of PyYAML knows), and `yes`, `no`, `on`, `off` as booleans (a field that wants one still
    takes them). So are numbers with an exponent alone: `12e4567` may be a commit. Octal stays, as in
    `mode: 0444`.
    """

    yaml_implicit_resolvers = {
        first: [
            (tag, form)
            for tag, form in some
            if tag.rpartition(":")[2] not in ("bool", "int", "float", "timestamp", "value")
        ]
        for first, some in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.1 or the loader above would take for something other than text."""


for _tag, _form, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0b[01_]+|0o?[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)", "-+0123456789"),
    (
        "float",
        r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan",
        "-+.0123456789",
    ),
):
    for _side in (_Loader, _Dumper):
        _side.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_form})$"), list(_first))


# What no file written by people reaches, and aliases of aliases do ("billion laughs").
_DEPTH_LIMIT = 100
_PLACES_LIMIT = 250_000

# Halves of characters, which an escape in quotes can write and no file or request can hold.
_SURROGATE = re.compile("[\ud800-\udfff]")

_MERGE, _TEXT = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:str"

ModelT = TypeVar("ModelT", bound=BaseModel)
Loc = tuple[int | str, ...]


class Position(NamedTuple):
    """Where something stands: the file's name, and the line and column from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class YamlFile:
    """The data of a YAML file, or of several merged into one, with the position of every key and item.

    `tags` are those of the tags that the reader of the file knows, by where they stand.
    """

    name: str
    data: Any
    positions: dict[Loc, Position] = field(repr=False)
    tags: dict[Loc, str] = field(default_factory=dict, repr=False)

    def position(self, loc: Sequence[int | str]) -> Position:
        """That of the value at `loc`, or of the nearest thing around it that exists."""
        path = tuple(loc)
        while path not in self.positions and path:
            path = path[:-1]
        return self.positions.get(path, Position(self.name, 1, 1))

    def where(self, loc: Sequence[int | str]) -> str:
        """`file:line:column` of the value at `loc`, or of the nearest thing around it that exists."""
        return str(self.position(loc))

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


def read(path: Path, tags: frozenset[str] = frozenset()) -> YamlFile:
    """Read a YAML file; its values may bear the local `tags` (such as `!reset`).

    Raises UsageError where it cannot be read or is not YAML, Problems for its repeated keys.
    """
    return parse(read_text(path), str(path), tags)


def read_text(path: Path) -> str:
    """The text of a file; raises UsageError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError("no such file", where=str(path)) from None
    # ValueError: no text, or a path that no file can have.
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot be read: {reason(error)}", where=str(path)) from None


def parse(text: str, name: str, tags: frozenset[str] = frozenset()) -> YamlFile:
    """Parse YAML text that came from the file called `name`; takes and raises as `read` does."""
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        before = text[: error.position].split("\n")
        raise UsageError(
            f"not valid YAML: the character U+{ord(text[error.position]):04X} may not stand in it",
            where=f"{name}:{len(before)}:{len(before[-1]) + 1}",
        ) from None
    walk = _Walk(loader, name, tags)
    try:
        root = loader.get_single_node()
        if root is not None:
            walk.visit(root, ())
        raise_all(walk.errors)
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
    return YamlFile(name, data, walk.positions, walk.tagged)


def dump(data: Any) -> str:
    """Data as YAML text that `parse` reads as the same."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


@dataclass(frozen=True)
class _Walk:
    """Where everything stands, and which values have one of `tags`; the tags are taken off the nodes."""

    loader: _Loader
    name: str
    tags: frozenset[str]
    positions: dict[Loc, Position] = field(default_factory=dict)
    tagged: dict[Loc, str] = field(default_factory=dict)
    tag_of: dict[yaml.Node, str] = field(default_factory=dict)
    errors: list[SwarmkitError] = field(default_factory=list)

    def visit(self, node: yaml.Node, loc: Loc) -> None:
        here = self.place(node)
        if len(loc) > _DEPTH_LIMIT or len(self.positions) > _PLACES_LIMIT:
            raise UsageError(
                "not valid YAML: it is too deep, or its aliases stand for too much", where=str(here)
            )
        self.positions.setdefault(loc, here)
        if node.tag == _MERGE:
            # It means something as a key alone.
            node.tag = _TEXT
        self.take_tag(node, loc)
        self.check_text(node)
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.visit(item, (*loc, index))
        elif isinstance(node, yaml.MappingNode):
            self.mapping(node, loc)

    def place(self, node: yaml.Node) -> Position:
        return Position(self.name, node.start_mark.line + 1, node.start_mark.column + 1)

    def check_text(self, node: yaml.Node) -> None:
        if isinstance(node, yaml.ScalarNode) and (found := _SURROGATE.search(node.value)):
            message = f"not valid YAML: U+{ord(found[0]):04X} is half a character"
            self.errors.append(UsageError(message, where=str(self.place(node))))

    def take_tag(self, node: yaml.Node, loc: Loc) -> None:
        if node.tag in self.tags:
            self.tag_of[node] = node.tag
            plain = isinstance(node, yaml.ScalarNode) and node.style is None
            node.tag = self.loader.resolve(type(node), node.value, (plain, not plain))  # type: ignore[no-untyped-call]
        # An alias comes to the same node again.
        if node in self.tag_of:
            self.tagged.setdefault(loc, self.tag_of[node])

    def mapping(self, node: yaml.MappingNode, loc: Loc) -> None:
        seen: set[Hashable] = set()
        merged: list[yaml.Node] = []
        for key, value in node.value:
            # A merge key may stand more than once by YAML's own rule.
            if key.tag == _MERGE:
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
            elif isinstance(key, yaml.ScalarNode):
                here = (*loc, key.value)
                self.check_text(key)
                if key.value in seen:
                    self.errors.append(
                        UsageError(f"{dotted(here)}: stands here twice", where=str(self.place(key)))
                    )
                seen.add(key.value)
                self.visit(value, here)
        # Last: what the mapping says itself wins, and so does its position.
        for each in merged:
            self.visit(each, loc)


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
    return shown(f"{value[:57]}…" if isinstance(value, str) and len(value) > 60 else value)
