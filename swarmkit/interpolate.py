"""Variables in Compose files and inventories, such as `${NAME:-default}`.

The forms are those of the Compose Specification ("Interpolation") that `docker stack deploy` knows:

    $NAME  ${NAME}       its value; nothing, with a warning, where it is not set
    ${NAME:-default}     the default where it is not set or empty
    ${NAME-default}      the default where it is not set
    ${NAME:?message}     an error where it is not set or empty
    ${NAME?message}      an error where it is not set
    $$                   one dollar sign

Only values are looked at, never keys. A default is plain text up to the next `}`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from swarmkit.errors import SwarmkitError
from swarmkit.yamlfile import Loc, YamlFile, dotted

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_FORM = re.compile(
    rf"\$(?:(?P<dollar>\$)|(?P<bare>{_NAME})|\{{(?P<name>{_NAME})(?:(?P<how>:?[-?])(?P<text>[^}}]*))?\}})?",
    re.ASCII,
)
_HINT = "write $$ for a plain dollar sign"


@dataclass(frozen=True)
class Interpolated:
    """A file with its variables filled in, what to warn of, and the mistakes found by their place."""

    file: YamlFile
    warnings: tuple[str, ...]
    errors: Mapping[Loc, SwarmkitError]


def interpolate(file: YamlFile, environment: Mapping[str, str], *, required: bool = False) -> Interpolated:
    """Fill in the variables of every text in `file` from `environment`.

    A text with a mistake stays as it is and its error, with its place, is in `errors`. There is one
    warning for each variable that is not set and has no default, at the first place that uses it; with
    `required` that is a mistake.
    """
    run = _Run(file, environment, required, {}, {})
    data = run.tree(file.data, ())
    return Interpolated(replace(file, data=data), tuple(run.unset.values()), run.errors)


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
        try:
            return _FORM.sub(lambda match: self.value(match, loc), text)
        except _Mistake as mistake:
            self.errors[loc] = self.file.error(loc, str(mistake), mistake.hint)
            return text

    def value(self, match: re.Match[str], loc: Loc) -> str:
        if match["dollar"]:
            return "$"
        name = match["bare"] or match["name"]
        if not name:
            rest = match.string[match.start() :][:20]
            raise _Mistake(f'not a variable swarmkit understands: "{rest}"', _HINT)
        value = self.environment.get(name)
        how = match["how"] or ""
        if value or (value is not None and ":" not in how):
            return value
        if how.endswith("-"):
            return match["text"]
        if how.endswith("?"):
            raise _Mistake(f"{name} must be set: {match['text'] or 'it has no value'}", f"export {name}=…")
        if value is None and self.required:
            raise _Mistake(f"{name} is not set", f"export {name}=…, or give a default: ${{{name}:-…}}")
        if value is None and name not in self.unset:
            where, path = self.file.where(loc), dotted(loc)
            self.unset[name] = f"{where}: {path}: {name} is not set; nothing stands in its place"
        return ""


class _Mistake(Exception):
    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint
