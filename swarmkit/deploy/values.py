"""The values of a stack's inputs: where they come from, and which of them wins.

By precedence: `--set`, the files of `--values` (the last one first), the environment
(`SWARMKIT_INPUT_<NAME>`), the person at the terminal where a value is required, the default. Secrets come
from a file, the environment or the person alone: arguments and files of values are seen by others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swarmkit.compose.contents import SECRET_LIMIT
from swarmkit.compose.models import Misplaced
from swarmkit.compose.paths import resolved
from swarmkit.deploy.inputs import Input, Inputs, variable
from swarmkit.deploy.types import Schema, Value
from swarmkit.errors import SwarmkitError, UsageError, raise_all, reason
from swarmkit.yamlfile import Loc, YamlFile, dotted, parse, read

# Asks for an input's value: (its name, its declaration, what was wrong with the last answer or "") → the
# answer, or None where nobody gives one.
Ask = Callable[[str, Input, str], str | None]


@dataclass(frozen=True)
class Given:
    """What the user says of a stack's inputs.

    `sets` are the texts KEY=VALUE of `--set`, `files` those of `--values`, `secret_files` the texts
    NAME=PATH of `--secret-file` (the path `-` is standard input, which `stdin` reads).
    """

    sets: Sequence[str] = field(default=(), repr=False)
    files: Sequence[Path] = ()
    secret_files: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    stdin: Callable[[], bytes] = bytes


class SecretInText(ValueError):
    """A template would write a secret into its text."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is a secret, and its value is never part of the Compose file")
        self.hint = (
            f"define `secrets: {{{name}: {{environment: {variable(name)}}}}}` and name it under `secrets:` "
            f"of a service, which finds the value in /run/secrets/{name}"
        )


@dataclass(frozen=True)
class SecretInput:
    """What a template has of a secret input: that it was given. The value is not in it."""

    name: str

    def __str__(self) -> str:
        raise SecretInText(self.name)


@dataclass(frozen=True)
class Resolved:
    """The inputs of a stack with their values.

    `values` is what the template gets: None for an input that was not given and need not be, and
    `SecretInput` for a secret. The secrets themselves are in `secrets`, by input.
    """

    values: Mapping[str, Value | SecretInput | None]
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class _Found:
    """A value as it was given, and how an error at a place in it is told."""

    value: object = field(repr=False)
    error: Callable[[Loc, str], SwarmkitError]


def resolve(inputs: Inputs, given: Given, ask: Ask | None = None) -> Resolved:
    """The value of every input.

    Raises UsageError, or Problems with all that is wrong and where it came from: an input that does not
    exist, one that is missing, a value that is not allowed, a secret that was given where others see it.
    `ask` is asked only once all that was given is right.
    """
    run = _Run(inputs, given)
    found = run.all_found()
    values: dict[str, Value | SecretInput | None] = {}
    secrets: dict[str, bytes] = {}
    for name, one in found.items():
        try:
            _put(name, inputs[name].checked(one.value), values, secrets)
        except Misplaced as error:
            run.errors += [one.error(loc, message) for loc, message in error.mistakes]
    missing = [
        name
        for name, declared in inputs.items()
        if declared.required and name not in found and name not in run.refused
    ]
    if run.errors or ask is None:
        run.errors += [_is_missing(name, inputs[name]) for name in missing]
    raise_all(run.errors)
    for name in missing:
        assert ask is not None, "else it is an error"
        _put(name, _asked(name, inputs[name], ask), values, secrets)
    return Resolved({name: values.get(name) for name in inputs}, secrets)


def _put(
    name: str, value: Value, values: dict[str, Value | SecretInput | None], secrets: dict[str, bytes]
) -> None:
    if isinstance(value, bytes):
        secrets[name] = value
        values[name] = SecretInput(name)
    else:
        values[name] = value


def _is_missing(name: str, declared: Input) -> UsageError:
    what = f": {declared.description}" if declared.description else ""
    how = f"--secret-file {name}=PATH" if declared.is_secret else f"--set {name}=…"
    return UsageError(f"the input {name} is required{what}", hint=f"add {how}, or set {variable(name)}")


def _asked(name: str, declared: Input, ask: Ask) -> Value:
    wrong = ""
    while True:
        answer = ask(name, declared, wrong)
        if answer is None:
            raise _is_missing(name, declared)
        try:
            if declared.is_secret:
                return declared.checked(_sized(answer.encode()))
            return declared.checked(_from_text(declared, answer))
        except ValueError as error:
            wrong = str(error)


@dataclass
class _Run:
    """Finds what was given, and keeps what is wrong with that; `refused` are inputs given in a wrong way."""

    inputs: Inputs
    given: Given
    errors: list[SwarmkitError] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)

    def all_found(self) -> dict[str, _Found]:
        """The value of each input that has one, by precedence."""
        sets, keys = self.sets()
        paths = self.secret_paths()
        files = [file for path in reversed(self.given.files) if (file := self.values_file(path))]
        out = {}
        for name, declared in self.inputs.items():
            if declared.is_secret:
                found = self.secret(name, paths)
            else:
                found = self.plain(name, declared, sets, files)
                found = _with_keys(name, declared, found, keys.get(name, {}))
            if found is not None:
                out[name] = found
        return out

    def plain(
        self, name: str, declared: Input, sets: Mapping[str, str], files: Iterable[YamlFile]
    ) -> _Found | None:
        if name in sets:
            return _text_found(declared, sets[name], f"--set {name}")
        for file in files:
            if file.data.get(name) is not None:
                return _Found(file.data[name], _in_file(file, name))
        if variable(name) in self.given.environment:
            return _text_found(declared, self.given.environment[variable(name)], variable(name))
        if declared.default is not None:
            return _Found(declared.default, _at(f"the default of {name}"))
        return None

    def secret(self, name: str, paths: Mapping[str, str]) -> _Found | None:
        where = f"--secret-file {name}"
        if name in paths:
            try:
                path = paths[name]
                data = self.given.stdin() if path == "-" else resolved(Path(), path).read_bytes()
            except OSError as error:
                return _refused(where, f"{path} cannot be read: {reason(error)}")
        elif variable(name) in self.given.environment:
            where = variable(name)
            # As it was: the environment may hold what is not UTF-8.
            data = self.given.environment[where].encode("utf-8", "surrogateescape")
        else:
            return None
        try:
            return _Found(_sized(data), _at(where))
        except ValueError as error:
            return _refused(where, str(error))

    def sets(self) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
        """Values by input, and by input and key. All behind the first dot is one key: labels have dots."""
        whole: dict[str, str] = {}
        keys: dict[str, dict[str, str]] = {}
        for text in self.given.sets:
            path, equals, value = text.partition("=")
            name, dot, key = path.partition(".")
            where = f"--set {path}"
            if not equals or not name:
                self.errors.append(UsageError("expected KEY=VALUE", where=where))
            elif name not in self.inputs:
                self.unknown(name, where)
            elif self.inputs[name].is_secret:
                self.public(name, where, "everyone on this machine sees the arguments of a command")
            elif dot and self.inputs[name].type != "map":
                kind = self.inputs[name].type
                self.errors.append(
                    UsageError(f"only a map has keys, and {name} is of type {kind}", where=where)
                )
            elif dot:
                keys.setdefault(name, {})[key] = value
            else:
                whole[name] = value
        return whole, keys

    def secret_paths(self) -> dict[str, str]:
        """The path of the file that holds each secret which `--secret-file` gives."""
        paths: dict[str, str] = {}
        for text in self.given.secret_files:
            name, _, path = text.partition("=")
            where = f"--secret-file {name}"
            if not path:
                self.errors.append(UsageError("expected NAME=PATH", where=where))
            elif name not in self.inputs:
                self.unknown(name, where)
            elif not self.inputs[name].is_secret:
                self.errors.append(UsageError("it is no secret", where=where, hint=f"use --set {name}=…"))
            elif path == "-" and "-" in paths.values():
                self.errors.append(UsageError("standard input can be one secret only", where=where))
                self.refused.add(name)
            else:
                paths[name] = path
        return paths

    def values_file(self, path: Path) -> YamlFile | None:
        try:
            file = read(path)
        except SwarmkitError as error:
            self.errors.append(error)
            return None
        if file.data is None:
            return None
        if not isinstance(file.data, dict):
            self.errors.append(file.error((), "expected a mapping of inputs to their values"))
            return None
        for key in file.data:
            name = str(key)
            if name not in self.inputs:
                self.errors.append(file.error((name,), "the stack has no such input", self.known()))
            elif self.inputs[name].is_secret:
                self.public(name, file.where((name,)), "a file of values is kept, and others read it")
        return file

    def unknown(self, name: str, where: str) -> None:
        self.errors.append(UsageError(f"the stack has no input {name}", where=where, hint=self.known()))

    def known(self) -> str:
        names = ", ".join(sorted(self.inputs))
        return (
            f"its inputs are: {names}"
            if names
            else "it has no inputs; only a template, such as stack.yml.j2, has them"
        )

    def public(self, name: str, where: str, reason: str) -> None:
        """A secret where others see it: that it is wrong, and how it is given instead."""
        hint = f"use --secret-file {name}=PATH (- is standard input), or set {variable(name)}"
        message = f"{name} is a secret and cannot be given here: {reason}"
        self.errors.append(UsageError(message, where=where, hint=hint))
        self.refused.add(name)


def _refused(where: str, message: str) -> _Found:
    """Something that no type takes, with the reason why."""
    return _Found(None, lambda _loc, _message: UsageError(message, where=where))


def _text_found(schema: Schema, text: str, where: str) -> _Found:
    try:
        return _Found(_from_text(schema, text), _at(where))
    except ValueError as error:
        return _refused(where, str(error))


def _from_text(schema: Schema, text: str) -> object:
    """What a text from the command line, the environment or a person stands for.

    Maps are YAML (`{a: 1}`), lists are YAML (`[1, 2]`) or words with commas between them; all else is
    read by its type. Raises ValueError for what is not YAML.
    """
    if schema.type == "map" or (schema.type == "list" and text.lstrip().startswith("[")):
        try:
            return parse(text, "").data
        except SwarmkitError as error:
            raise ValueError(f"cannot be read as a {schema.type}: {error.message}") from None
    if schema.type == "list":
        return [word.strip() for word in text.split(",")] if text.strip() else []
    return text


def _at(where: str) -> Callable[[Loc, str], SwarmkitError]:
    def tell(loc: Loc, message: str) -> SwarmkitError:
        return UsageError(f"{dotted(loc)}: {message}" if loc else message, where=where)

    return tell


def _in_file(file: YamlFile, name: str) -> Callable[[Loc, str], SwarmkitError]:
    return lambda loc, message: file.error((name, *loc), message)


def _with_keys(name: str, declared: Input, found: _Found | None, keys: Mapping[str, str]) -> _Found | None:
    """The value of a map with the keys that `--set NAME.KEY=VALUE` adds or replaces."""
    base = found.value if found is not None else {}
    if not keys or not isinstance(base, dict):
        return found
    values: dict[Any, Any] = dict(base)
    for key, text in keys.items():
        try:
            values[key] = _from_text(declared.entries, text)
        except ValueError as error:
            return _refused(f"--set {name}.{key}", str(error))

    def tell(loc: Loc, message: str) -> SwarmkitError:
        if loc and loc[0] in keys:
            return _at(f"--set {name}.{loc[0]}")(loc[1:], message)
        return (found.error if found is not None else _at(f"--set {name}"))(loc, message)

    return _Found(values, tell)


def _sized(data: bytes) -> bytes:
    if not 0 < len(data) < SECRET_LIMIT:
        raise ValueError(f"Swarm takes 1 to {SECRET_LIMIT - 1} bytes as a secret, this is {len(data)}")
    return data
