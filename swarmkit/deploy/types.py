"""The types and constraints of a stack's inputs, in the words of TOSCA (Simple Profile 1.3, section 3).

A value comes as YAML gives it, or as text from a command line or the environment, and leaves as what a
template works with: text, numbers, true and false, bytes for a size, `Duration` for a duration, lists and
maps of these, and `bytes` for a secret. A new type is a new entry of `_KINDS`.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from swarmkit.compose.models import Misplaced
from swarmkit.compose.units import duration as go_duration
from swarmkit.errors import shown
from swarmkit.yamlfile import Loc, Model

TypeName = Literal[
    "string",
    "integer",
    "number",
    "boolean",
    "list",
    "map",
    "size",
    "duration",
    "port",
    "image",
    "secret",
]

# Stands for no bound in a range (TOSCA, section 3.3.3).
UNBOUNDED = "UNBOUNDED"

_NANOSECONDS = {"h": 3_600_000_000_000, "m": 60_000_000_000, "s": 1_000_000_000}
_SMALL = {"ms": 1_000_000, "us": 1_000, "ns": 1}
_INT64_MAX = 2**63 - 1


@dataclass(frozen=True, order=True)
class Duration:
    """A length of time; as text it has the form that Compose takes, such as `1m30s`."""

    nanoseconds: int

    def __str__(self) -> str:
        rest, out = self.nanoseconds, ""
        for unit, length in (_NANOSECONDS | _SMALL).items():
            count, rest = divmod(rest, length)
            out += f"{count}{unit}" if count else ""
        return out or "0s"


Value = str | int | float | bool | Duration | bytes | list[Any] | dict[str, Any]

# An image reference (distribution/reference): domain, path, tag, digest.
_IMAGE = re.compile(
    r"(?:[A-Za-z0-9.-]+(?::\d+)?/)?[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?",
    re.ASCII,
)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,1000}", re.ASCII)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgtp])(ib|i|b)?|b)?", re.ASCII | re.IGNORECASE)
_POWERS = ("", "k", "m", "g", "t", "p")
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def _string(value: object) -> str:
    if isinstance(value, str):
        return value
    # YAML reads `message: 2024` as a number, where the user wrote text; a fraction may not come out as it
    # was written (1.10 is 1.1).
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    quoted = "; put it in quotes" if isinstance(value, bool | float) else ""
    raise ValueError(f"expected text, got {shown(value)}{quoted}")


def _integer(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    raise ValueError(f"expected a whole number, got {shown(value)}")


def _number(value: object) -> int | float:
    if isinstance(value, str):
        if _INTEGER.fullmatch(value):
            return int(value)
        if _NUMBER.fullmatch(value) and math.isfinite(float(value)):
            return float(value)
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    raise ValueError(f"expected a number, got {shown(value)}")


_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _BOOLEANS:
        return _BOOLEANS[value.lower()]
    raise ValueError(f"expected true or false, got {shown(value)}")


def _port(value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"\d{1,5}", value, re.ASCII):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535:
        return value
    raise ValueError(f"expected a port from 1 to 65535, got {shown(value)}")


def _image(value: object) -> str:
    if isinstance(value, str) and _IMAGE.fullmatch(value):
        return value
    raise ValueError(f'expected an image such as "nginx:1.27" or "registry:5000/me/web", got {shown(value)}')


def size(value: object) -> int:
    """Bytes of a size: `4 GB` is 4·10⁹ and `4 GiB` 4·2³⁰ (TOSCA, section 3.3.6.4), in any case of letters.

    One letter alone, `4G`, is the power of 1024 that docker, the JVM and Kubernetes (`4Gi`) mean by it; a
    number alone is bytes. Raises ValueError for anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _INT64_MAX:
        return value
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        base = 1000 if (match[3] or "").lower() == "b" else 1024
        total = int(Decimal(match[1]) * base ** _POWERS.index((match[2] or "").lower()))
        if total <= _INT64_MAX:
            return total
    raise ValueError(f'expected a size such as "512 MB", "4 GiB" or "4G", got {shown(value)}')


def size_text(number: int) -> str:
    """A number of bytes in the largest unit that has it as a whole number: `4 GiB`, `1500 kB`."""
    best, best_unit = number, "B"
    for base, units in ((1024, _BINARY_UNITS), (1000, _UNITS)):
        for power, unit in enumerate(units):
            count, rest = divmod(number, base**power)
            if number and not rest and count < best:
                best, best_unit = count, unit
    return f"{best} {best_unit}"


def duration(value: object) -> Duration:
    """A duration such as `1m30s` or `500ms`, and `10 s` or `2 d` as TOSCA (section 3.3.6.5) writes them.

    Raises ValueError for anything else.
    """
    if isinstance(value, str):
        text = re.sub(r"(?<=\d)\s+(?=[a-zµ])|(?<=[a-zµ])\s+(?=\d)", "", value)
        days = re.fullmatch(r"(\d+(?:\.\d+)?)d(.*)", text, re.ASCII)
        if days:
            text = f"{Decimal(days[1]) * 24:f}h{days[2]}"
        try:
            return Duration(go_duration(text))
        except ValueError:
            pass
    raise ValueError(f'expected a duration such as "10s", "1m30s" or "2 d", got {shown(value)}')


def in_unit(value: object, unit: str) -> int:
    """How many whole units there are in a size (in bytes) or a `Duration`, rounded down.

    For programs that take a number in one unit: `[[ memory | to("MiB") ]]m`. Raises ValueError for a unit
    that it does not know.
    """
    if isinstance(value, Duration):
        lengths = {"d": 24 * _NANOSECONDS["h"]} | _NANOSECONDS | _SMALL
        number, what = value.nanoseconds, "duration"
    elif isinstance(value, int) and not isinstance(value, bool):
        lengths = {name: 1000**power for power, name in enumerate(_UNITS)}
        lengths |= {name: 1024**power for power, name in enumerate(_BINARY_UNITS)}
        number, what = value, "size"
    else:
        raise ValueError("only a size or a duration can be told in units")
    if unit not in lengths:
        raise ValueError(f"{unit} is no unit of a {what}; its units are {', '.join(lengths)}")
    return number // lengths[unit]


def _list(value: object) -> list[Any]:
    if isinstance(value, list):
        return value
    raise ValueError(f"expected a list, got {shown(value)}")


def _map(value: object) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise ValueError(f"expected a mapping, got {shown(value)}")


def _secret(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    # Not shown: it may be what must not be seen.
    raise ValueError("a secret is not given as a value of a file or an argument")


@dataclass(frozen=True)
class _Kind:
    """One type: how it is read, and what may be asked of it.

    `noun` is what an ordered type is called in messages; other types have no order.
    """

    read: Callable[[object], Value]
    noun: str = ""
    has_length: bool = False
    is_text: bool = False


_KINDS: Mapping[TypeName, _Kind] = {
    "string": _Kind(_string, has_length=True, is_text=True),
    "integer": _Kind(_integer, noun="a number"),
    "number": _Kind(_number, noun="a number"),
    "boolean": _Kind(_boolean),
    "list": _Kind(_list, has_length=True),
    "map": _Kind(_map, has_length=True),
    "size": _Kind(size, noun="a size"),
    "duration": _Kind(duration, noun="a duration"),
    "port": _Kind(_port, noun="a number"),
    "image": _Kind(_image, has_length=True, is_text=True),
    "secret": _Kind(_secret, has_length=True, is_text=True),
}


def text_of(kind: TypeName, value: Value) -> str:
    """A value as an error or a table shows it."""
    if kind == "size" and isinstance(value, int):
        return size_text(value)
    if isinstance(value, Duration):
        return str(value)
    return shown(value)


class Constraint(Model):
    """One constraint, in TOSCA's words (section 3.6.3): exactly one of these.

    Operands are as the file has them; what they mean depends on the type that is constrained.
    """

    equal: Any = None
    greater_than: Any = None
    greater_or_equal: Any = None
    less_than: Any = None
    less_or_equal: Any = None
    in_range: Any = None
    valid_values: Any = None
    length: Any = None
    min_length: Any = None
    max_length: Any = None
    pattern: Any = None

    @property
    def word(self) -> str:
        """Which constraint this is."""
        return next(iter(self.model_fields_set))

    @property
    def operand(self) -> Any:
        """What follows the word."""
        return getattr(self, self.word)

    def text(self) -> str:
        """The constraint as a table shows it: `in_range: [1, 100]`."""
        operand = self.operand
        listed = isinstance(operand, list)
        return f"{self.word}: {f'[{_joined(operand)}]' if listed else _joined([operand])}"

    def mistakes(self, schema: Schema) -> Iterator[tuple[Loc, str]]:
        """What is wrong with the constraint itself, on values of `schema`."""
        if len(self.model_fields_set) != 1:
            yield (), f"expected one of {', '.join(type(self).model_fields)}"
            return
        word, operand = self.word, self.operand
        at: Loc = (word,)
        if word not in _words(schema.type):
            usable = ", ".join(_words(schema.type)) or "none"
            yield at, f"does not go with the type {schema.type}; what does: {usable}"
        elif word in ("length", "min_length", "max_length"):
            if not isinstance(operand, int) or isinstance(operand, bool) or operand < 0:
                yield at, f"expected a whole number of 0 or more, got {shown(operand)}"
        elif word == "pattern":
            yield from ((at, message) for message in _pattern_mistakes(operand))
        elif word == "valid_values":
            if not isinstance(operand, list) or not operand:
                yield at, "expected a list of values"
                return
            for index, each in enumerate(operand):
                yield from (((*at, index), message) for message in schema.refusals(each))
        elif word == "in_range":
            if not isinstance(operand, list) or len(operand) != 2:
                yield at, f"expected [from, to], got {shown(operand)}"
                return
            bounds = [(index, bound) for index, bound in enumerate(operand) if bound != UNBOUNDED]
            wrong = [((*at, index), message) for index, each in bounds for message in schema.refusals(each)]
            yield from wrong
            if not wrong and len(bounds) == 2 and _is_empty(schema, operand[0], operand[1]):
                yield at, f"the range [{operand[0]}, {operand[1]}] is empty"
        else:
            yield from ((at, message) for message in schema.refusals(operand))

    def mistake(self, schema: Schema, value: Any) -> str | None:
        """What is wrong with `value`, or None. Nothing in it tells the value of a secret.

        Raises ValueError where the value is bytes that should be text.
        """
        word, operand, noun = self.word, self.operand, _KINDS[schema.type].noun
        holds = True
        if word in _COMPARISONS:
            compare, expected = _COMPARISONS[word]
            holds = compare(value, schema.unconstrained(operand))
            expected = expected.format(noun=noun, operand=_joined([operand]))
        elif word == "in_range":
            low, high = operand
            holds = (low == UNBOUNDED or schema.unconstrained(low) <= value) and (
                high == UNBOUNDED or value <= schema.unconstrained(high)
            )
            expected = f"{noun} {_range_text(low, high)}"
        elif word == "valid_values":
            holds = value in [schema.unconstrained(each) for each in operand]
            expected = f"one of {_joined(operand)}"
        elif word == "pattern":
            holds = re.fullmatch(operand, _decoded(value)) is not None
            expected = f"text of the form {operand}"
        else:
            return _length_mistake(word, operand, schema, value)
        if holds:
            return None
        return f"expected {expected}" + ("" if schema.is_secret else f", got {text_of(schema.type, value)}")


def _joined(operands: list[Any]) -> str:
    """Operands as the file writes them, which Python would call True and False."""
    return ", ".join(str(each).lower() if isinstance(each, bool) else str(each) for each in operands)


_COMPARISONS: Mapping[str, tuple[Callable[[Any, Any], bool], str]] = {
    "equal": (operator.eq, "{operand}"),
    "greater_than": (operator.gt, "{noun} greater than {operand}"),
    "greater_or_equal": (operator.ge, "{noun} of at least {operand}"),
    "less_than": (operator.lt, "{noun} less than {operand}"),
    "less_or_equal": (operator.le, "{noun} of at most {operand}"),
}


def _words(kind: TypeName) -> list[str]:
    """The constraints that go with a type."""
    found = _KINDS[kind]
    words = [] if kind == "secret" else ["equal", "valid_values"]
    if found.noun:
        words += ["greater_than", "greater_or_equal", "less_than", "less_or_equal", "in_range"]
    if found.has_length:
        words += ["length", "min_length", "max_length"]
    if found.is_text:
        words.append("pattern")
    return words


def _is_empty(schema: Schema, low: Any, high: Any) -> bool:
    first: Any = schema.unconstrained(low)
    return bool(first > schema.unconstrained(high))


def _pattern_mistakes(operand: object) -> Iterator[str]:
    if not isinstance(operand, str):
        yield f"expected a regular expression, got {shown(operand)}"
        return
    try:
        re.compile(operand)
    except re.error as error:
        yield f"{operand} is not a regular expression: {error}"


def _range_text(low: object, high: object) -> str:
    if high == UNBOUNDED:
        return f"of at least {low}"
    return f"of at most {high}" if low == UNBOUNDED else f"from {low} to {high}"


def _decoded(value: Value) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise ValueError("expected text") from None
    return str(value)


def _length_mistake(word: str, operand: int, schema: Schema, value: Value) -> str | None:
    is_collection = isinstance(value, list | dict)
    length = len(value) if isinstance(value, list | dict) else len(_decoded(value))
    holds, how = {
        "length": (length == operand, ""),
        "min_length": (length >= operand, "at least "),
        "max_length": (length <= operand, "at most "),
    }[word]
    if holds:
        return None
    # How long a secret is helps who guesses it.
    got = "" if schema.is_secret else f", got {length}"
    return f"expected {how}{operand} {'entries' if is_collection else 'characters'}{got}"


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


def _schema(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


class Schema(Model):
    """What values are allowed: of an input, or of the entries of a list or a map."""

    type: TypeName = "string"
    description: str = ""
    constraints: Annotated[list[Constraint], BeforeValidator(_listed)] = []
    entry_schema: Annotated[Schema | None, BeforeValidator(_schema)] = None

    @property
    def is_secret(self) -> bool:
        return self.type == "secret"

    @property
    def has_entries(self) -> bool:
        return self.type in ("list", "map")

    @property
    def type_text(self) -> str:
        """The type as a table shows it: `list of port`."""
        return f"{self.type} of {self.entries.type_text}" if self.has_entries else self.type

    @property
    def constraints_text(self) -> str:
        """The constraints as a table shows them, those of the entries too."""
        told = [each.text() for each in self.constraints]
        if self.has_entries and (below := self.entries.constraints_text):
            told.append(f"each {below}")
        return ", ".join(told)

    @property
    def entries(self) -> Schema:
        """What the entries of a list or a map have to be: text, unless the declaration says more."""
        return self.entry_schema or Schema()

    def mistakes(self) -> Iterator[tuple[Loc, str]]:
        """What is wrong with the declaration, each with its place in it."""
        if self.entry_schema is not None:
            if not self.has_entries:
                yield ("entry_schema",), f"is for lists and maps; this is of type {self.type}"
            elif self.entry_schema.is_secret:
                yield ("entry_schema",), "a secret cannot be an entry; declare an input for each"
            else:
                yield from (
                    (("entry_schema", *loc), message) for loc, message in self.entry_schema.mistakes()
                )
                if list(self.entry_schema.mistakes()):
                    return
        for index, constraint in enumerate(self.constraints):
            yield from ((("constraints", index, *loc), message) for loc, message in constraint.mistakes(self))

    def refusals(self, operand: object) -> list[str]:
        """Why an operand of a constraint is no value of this type."""
        try:
            self.unconstrained(operand)
        except Misplaced as error:
            return [message for _, message in error.mistakes]
        return []

    def unconstrained(self, value: object) -> Value:
        """`value` as this type, whatever the constraints. Raises Misplaced, with each mistake's place."""
        try:
            typed = _KINDS[self.type].read(value)
        except ValueError as error:
            raise Misplaced(((), str(error))) from None
        if not isinstance(typed, list | dict):
            return typed
        wrong: list[tuple[Loc, str]] = []
        out: dict[int | str, Value] = {}
        for key, each in typed.items() if isinstance(typed, dict) else enumerate(typed):
            try:
                out[key] = self.entries.checked(each)
            except Misplaced as error:
                wrong += [((key, *below), message) for below, message in error.mistakes]
        if wrong:
            raise Misplaced(*wrong)
        return list(out.values()) if isinstance(typed, list) else {str(key): out[key] for key in out}

    def checked(self, value: object) -> Value:
        """`value` as this type. Raises Misplaced, with all that is not as expected and where in it."""
        typed = self.unconstrained(value)
        wrong: list[tuple[Loc, str]] = []
        for constraint in self.constraints:
            try:
                mistake = constraint.mistake(self, typed)
            except ValueError as error:
                mistake = str(error)
            if mistake:
                wrong.append(((), mistake))
        if wrong:
            raise Misplaced(*wrong)
        return typed
