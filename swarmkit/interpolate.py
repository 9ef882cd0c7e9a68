"""Variables in Compose files, `.env` files and inventories, such as `${NAME:-default}`.

The forms are those of the Compose Specification ("Interpolation"):

    $NAME  ${NAME}       its value; nothing, with a warning, where it is not set
    ${NAME:-default}     the default where it is not set or empty
    ${NAME-default}      the default where it is not set
    ${NAME:?message}     an error where it is not set or empty
    ${NAME?message}      an error where it is not set
    ${NAME:+other}       the other text where it is set and not empty, else nothing
    ${NAME+other}        the other text where it is set, else nothing
    $$                   one dollar sign

A default, a message and another text may hold variables in turn, and end at their own `}`. They count
only where they are used. Only values are looked at, never keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from swarmkit.errors import SwarmkitError
from swarmkit.yamlfile import Loc, YamlFile, dotted

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_OPERATOR = re.compile(r":?[-?+]")
_PLAIN = re.compile(r"[^$]+")
_PLAIN_INSIDE = re.compile(r"[^$}]+")
_HINT = "write $$ for a plain dollar sign"
_NESTING_LIMIT = 50


@dataclass(frozen=True)
class Interpolated:
    """A file with its variables filled in, and the mistakes found by their place.

    `unset` has a warning for each variable that is not set and has no default, by its name.
    """

    file: YamlFile
    unset: Mapping[str, str]
    errors: Mapping[Loc, SwarmkitError]


def interpolate(file: YamlFile, environment: Mapping[str, str], *, required: bool = False) -> Interpolated:
    """Fill in the variables of every text in `file` from `environment`.

    A text with a mistake stays as it is and its error, with its place, is in `errors`. The warning of a
    variable that is not set has the first place that uses it; with `required` that is a mistake.
    """
    run = _Run(file, environment, required, {}, {})
    data = run.tree(file.data, ())
    return Interpolated(replace(file, data=data), run.unset, run.errors)


class Mistake(Exception):
    """What is wrong with a text that should hold variables, and what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class Malformed(Mistake):
    """A dollar sign that begins no variable; the message has the text from there on."""


def substitute(
    text: str, environment: Mapping[str, str], unset: Callable[[str], None], *, required: bool = False
) -> str:
    """`text` with its variables filled in.

    `unset` is called with the name of each that has neither a value nor a default. Raises Mistake; with
    `required` also for those.
    """
    if "$" not in text:
        return text
    parts, _ = _parsed(text, 0, 0)
    return _Filling(environment, unset, required).joined(parts)


@dataclass(frozen=True)
class _Variable:
    name: str
    operator: str = ""
    word: tuple[str | _Variable, ...] = ()


_Parts = tuple[str | _Variable, ...]


def _parsed(text: str, at: int, depth: int) -> tuple[_Parts, int]:
    """The parts of `text` from `at` to its end, or inside braces to the `}`, and where that is."""
    parts: list[str | _Variable] = []
    plain = _PLAIN_INSIDE if depth else _PLAIN
    while at < len(text) and not (depth and text[at] == "}"):
        if match := plain.match(text, at):
            parts.append(match[0])
            at = match.end()
        elif text.startswith("$$", at):
            parts.append("$")
            at += 2
        elif match := _NAME.match(text, at + 1):
            parts.append(_Variable(match[0]))
            at = match.end()
        else:
            variable, at = _braced(text, at, depth + 1)
            parts.append(variable)
    return tuple(parts), at


def _braced(text: str, at: int, depth: int) -> tuple[_Variable, int]:
    """The variable whose `${` stands at `at`, and where it ends."""
    mistake = Malformed(f'not a variable swarmkit understands: "{text[at : at + 20]}"', _HINT)
    name = _NAME.match(text, at + 2)
    if not text.startswith("${", at) or name is None or depth > _NESTING_LIMIT:
        raise mistake
    end, operator, word = name.end(), "", _Parts()
    if match := _OPERATOR.match(text, end):
        operator = match[0]
        word, end = _parsed(text, match.end(), depth)
    if not text.startswith("}", end):
        raise mistake
    return _Variable(name[0], operator, word), end + 1


@dataclass(frozen=True)
class _Filling:
    environment: Mapping[str, str]
    unset: Callable[[str], None]
    required: bool

    def joined(self, parts: _Parts) -> str:
        return "".join(part if isinstance(part, str) else self.value(part) for part in parts)

    def value(self, variable: _Variable) -> str:
        name, operator = variable.name, variable.operator
        value = self.environment.get(name)
        counts = bool(value) if ":" in operator else value is not None
        if operator.endswith("+"):
            return self.joined(variable.word) if counts else ""
        if value is not None and counts:
            return value
        if operator.endswith("-"):
            return self.joined(variable.word)
        if operator.endswith("?"):
            message = self.joined(variable.word) or "it has no value"
            raise Mistake(f"{name} must be set: {message}", f"export {name}=…")
        if self.required:
            raise Mistake(f"{name} is not set", f"export {name}=…, or give a default: ${{{name}:-…}}")
        self.unset(name)
        return ""


@dataclass(frozen=True)
class _Run:
    file: YamlFile
    environment: Mapping[str, str]
    required: bool
    unset: dict[str, str]
    errors: dict[Loc, SwarmkitError]

    def tree(self, node: Any, loc: Loc) -> Any:
        match node:
            case str():
                return self.text(node, loc)
            case dict():
                return {key: self.tree(value, (*loc, key)) for key, value in node.items()}
            case list():
                return [self.tree(item, (*loc, index)) for index, item in enumerate(node)]
            case _:
                return node

    def text(self, text: str, loc: Loc) -> str:
        def unset(name: str) -> None:
            self.unset.setdefault(name, unset_warning(f"{self.file.where(loc)}: {dotted(loc)}", name))

        try:
            return substitute(text, self.environment, unset, required=self.required)
        except Mistake as mistake:
            self.errors[loc] = self.file.error(loc, str(mistake), mistake.hint)
            return text


def unset_warning(where: str, name: str) -> str:
    """The warning of a variable without a value that is used at `where`."""
    return f"{where}: {name} is not set; nothing stands in its place"
