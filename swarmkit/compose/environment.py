"""Where the values of variables come from: the environment of the command, and `.env` files.

The syntax of the files is that of the Compose Specification ("Env_file format"), which is that of docker
compose. python-dotenv reads another one (`$NAME` and most of `${NAME…}` stay as they are, a line that it
does not understand is dropped with a log message), so the few rules are here.

Values are often secret: no error holds any part of one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from swarmkit.errors import SwarmkitError, UsageError, raise_all
from swarmkit.interpolate import Malformed, Mistake, substitute, unset_warning
from swarmkit.yamlfile import read_text

_BLANK = re.compile(r"\s*(#[^\n]*)?\n?")
_KEY = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*", re.ASCII)
_ALONE = re.compile(r"(#[^\n]*)?(?:\n|\Z)")
_SEPARATOR = re.compile(r"[=:]")
_REST = re.compile(r"[^\n]*")
_SINGLE = re.compile(r"[ \t]*'((?:[^'\\]|\\.)*)'", re.DOTALL)
_DOUBLE = re.compile(r'[ \t]*"((?:[^"\\]|\\.)*)"', re.DOTALL)
_AFTER_QUOTE = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_COMMENT = re.compile(r"\s#.*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "$": "$$"}


@dataclass(frozen=True)
class Variables:
    """The variables that a project's files are filled in from.

    `process` is the environment of the command, `given` that and below it what `.env` files say. `unset`
    has a warning for each variable of those files without a value, by its name.
    """

    process: Mapping[str, str] = field(repr=False)
    given: Mapping[str, str] = field(repr=False)
    unset: Mapping[str, str] = field(default_factory=dict)

    def below(self, files: Iterable[Path]) -> Variables:
        """These, and for what they leave out the variables of `files`, of which a later one wins.

        Raises UsageError, or Problems, for what cannot be read.
        """
        found: dict[str, str] = {}
        unset = dict(self.unset)
        errors: list[SwarmkitError] = []
        for path in files:
            try:
                read = parse(read_text(path), str(path), {**found, **self.given})
            except SwarmkitError as error:
                errors.append(error)
                continue
            found |= {name: value for name, value in read.values.items() if value is not None}
            unset = {**read.unset, **unset}
        raise_all(errors)
        return Variables(self.process, {**found, **self.given}, unset)


def default_files(folder: Path) -> list[Path]:
    """The `.env` of a project in `folder`, if there is one."""
    path = folder / ".env"
    return [path] if path.is_file() else []


@dataclass(frozen=True)
class EnvFile:
    """The variables of a file in its order (None: only named), and the warnings for those it uses in vain."""

    values: Mapping[str, str | None] = field(repr=False)
    unset: Mapping[str, str] = field(default_factory=dict)


def parse(text: str, name: str, environment: Mapping[str, str]) -> EnvFile:
    """The variables in `text`, which came from the file called `name`.

    Variables in its values are those of `environment`, and below it those of the lines before. Raises
    UsageError or Problems with the line and column of every mistake.
    """
    reader = _Reader(text.removeprefix("\ufeff"), name, environment)
    reader.run()
    raise_all(reader.errors)
    return EnvFile(reader.values, reader.unset)


def parse_raw(text: str) -> EnvFile:
    """The variables of a file whose values are taken as they stand (`format: raw`), as docker does."""
    lines = (line.lstrip() for line in text.removeprefix("\ufeff").split("\n"))
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return EnvFile({key: value if equals else None for key, equals, value in pairs})


@dataclass
class _Reader:
    text: str
    name: str
    environment: Mapping[str, str]
    at: int = 0
    values: dict[str, str | None] = field(default_factory=dict)
    unset: dict[str, str] = field(default_factory=dict)
    errors: list[SwarmkitError] = field(default_factory=list)

    def run(self) -> None:
        while self.at < len(self.text):
            if (blank := _BLANK.match(self.text, self.at)) and blank.end() > self.at:
                self.at = blank.end()
                continue
            start = self.at
            try:
                self.line()
            except Mistake as mistake:
                self.errors.append(UsageError(str(mistake), where=self.where(start), hint=mistake.hint))
                if self.at == start or self.text[self.at - 1] != "\n":
                    self.at = self.end_of_line(self.at)

    def where(self, at: int) -> str:
        before = self.text[:at].split("\n")
        return f"{self.name}:{len(before)}:{len(before[-1]) + 1}"

    def end_of_line(self, at: int) -> int:
        end = self.text.find("\n", at)
        return len(self.text) if end < 0 else end + 1

    def line(self) -> None:
        key = _KEY.match(self.text, self.at)
        if key is None:
            raise Mistake("expected NAME=value", "a name begins with a letter or an underscore")
        if alone := _ALONE.match(self.text, key.end()):
            self.values[key[1]] = None
            self.at = alone.end()
            return
        separator = _SEPARATOR.match(self.text, key.end())
        if separator is None:
            raise Mistake(f"{key[1]}: expected = after the name", "write NAME=value")
        start = self.at
        text, self.at = self.value(key[1], separator.end())
        self.values[key[1]] = self.filled(key[1], text, start)

    def value(self, name: str, at: int) -> tuple[str, int]:
        """The value that begins at `at`, its variables still in it, and where its line ends."""
        if single := _SINGLE.match(self.text, at):
            return single[1].replace("\\'", "'").replace("$", "$$"), self.after_quote(name, single.end())
        if double := _DOUBLE.match(self.text, at):
            text = _ESCAPE.sub(lambda found: _ESCAPES.get(found[1], found[0]), double[1])
            return text, self.after_quote(name, double.end())
        rest = _REST.match(self.text, at)
        line = rest[0] if rest else ""
        if line.lstrip().startswith(("'", '"')):
            raise Mistake(f"{name}: the quote is not closed", "close it, or write \\ before a quote inside")
        return _COMMENT.sub("", line).strip(), self.end_of_line(at)

    def after_quote(self, name: str, at: int) -> int:
        match = _AFTER_QUOTE.match(self.text, at)
        if match is None:
            self.at = at
            raise Mistake(f"{name}: there is more after the closing quote", "a comment begins with #")
        return match.end()

    def filled(self, name: str, text: str, start: int) -> str:
        def unset(missing: str) -> None:
            self.unset.setdefault(missing, unset_warning(f"{self.where(start)}: {name}", missing))

        before = {key: value for key, value in self.values.items() if value is not None}
        try:
            return substitute(text, {**before, **self.environment}, unset)
        except Malformed:
            hint = "write $$ for a plain dollar sign, or put the value in single quotes"
            raise Mistake(f"{name}: a dollar sign that begins no variable", hint) from None
        except Mistake as mistake:
            raise Mistake(f"{name}: {mistake}", mistake.hint) from None
