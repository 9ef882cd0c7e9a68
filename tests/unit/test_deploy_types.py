"""Types and constraints of inputs: what is read, as what, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmkit.compose import units
from swarmkit.compose.models import Misplaced
from swarmkit.deploy.types import Constraint, Duration, Schema, duration, in_unit, size, size_text

SECOND = 1_000_000_000


def schema(type: str, *constraints: dict[str, Any], **more: Any) -> Schema:
    return Schema.model_validate({"type": type, "constraints": list(constraints), **more})


def refusal(declared: Schema, value: object) -> str:
    with pytest.raises(Misplaced) as caught:
        declared.checked(value)
    return str(caught.value)


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("4 GB", 4 * 10**9),
        ("4GB", 4 * 10**9),
        ("4 GiB", 4 * 2**30),
        ("1 kB", 1000),
        ("1 KiB", 1024),
        ("1.5 mb", 1_500_000),
        ("4G", 4 * 2**30),
        ("4g", 4 * 2**30),
        ("512Mi", 512 * 2**20),
        ("7 B", 7),
        ("7", 7),
        (7, 7),
    ],
)
def test_a_size_is_bytes(text: object, number: int) -> None:
    assert size(text) == number


@pytest.mark.parametrize(
    "value", ["", "GB", "-1 GB", -1, "1 XB", "1 iB", "1 G B", 1.5, True, None, [], "9" * 20 + "TB"]
)
def test_what_is_no_size_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match='expected a size such as "512 MB", "4 GiB" or "4G"'):
        size(value)


@settings(deadline=None)
@given(st.integers(0, 8000), st.sampled_from("kMGTP"), st.sampled_from(["", "i", "iB", "B"]), st.booleans())
def test_a_b_alone_makes_a_unit_decimal(number: int, prefix: str, tail: str, spaced: bool) -> None:
    base = 1000 if tail == "B" else 1024
    text = f"{number}{' ' if spaced else ''}{prefix}{tail}"
    assert size(text) == number * base ** ("kMGTP".index(prefix) + 1)


@settings(deadline=None)
@given(st.integers(0, 2**63 - 1))
def test_a_size_is_told_exactly(number: int) -> None:
    assert size(size_text(number)) == number


@settings(deadline=None)
@given(st.integers(0, 2**63 - 1))
def test_a_size_in_a_compose_file_means_the_same_bytes(number: int) -> None:
    assert units.size(schema("size").checked(number)) == number


# ---------------------------------------------------------------- durations


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1m30s", 90 * SECOND),
        ("10 s", 10 * SECOND),
        ("2 d", 48 * 3600 * SECOND),
        ("1d12h", 36 * 3600 * SECOND),
        ("1.5d", 36 * 3600 * SECOND),
        ("1 m 30 s", 90 * SECOND),
        ("500ms", SECOND // 2),
        ("0", 0),
    ],
)
def test_a_duration_is_read_in_both_ways_of_writing(text: str, nanoseconds: int) -> None:
    assert duration(text) == Duration(nanoseconds)


@pytest.mark.parametrize("value", ["", "10", 10, "s", "-1s", "1 0s", "1w", True, None, [], "9" * 20 + "h"])
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match='expected a duration such as "10s", "1m30s" or "2 d"'):
        duration(value)


@settings(deadline=None)
@given(st.integers(0, 2**63 - 1))
def test_a_duration_in_a_compose_file_means_the_same_time(nanoseconds: int) -> None:
    written = str(Duration(nanoseconds))
    assert units.duration(written) == nanoseconds
    assert duration(written) == Duration(nanoseconds)


# ---------------------------------------------------------------- in units


@pytest.mark.parametrize(
    ("value", "unit", "number"),
    [
        (4 * 2**30, "MiB", 4096),
        (4 * 10**9, "MB", 4000),
        (1023, "KiB", 0),
        (Duration(90 * SECOND), "s", 90),
        (Duration(90 * SECOND), "m", 1),
        (Duration(3 * 86400 * SECOND), "d", 3),
    ],
)
def test_sizes_and_durations_can_be_told_in_units(value: object, unit: str, number: int) -> None:
    assert in_unit(value, unit) == number


@pytest.mark.parametrize(
    ("value", "unit", "message"),
    [
        (1, "s", "s is no unit of a size; its units are B, kB, MB"),
        (Duration(1), "MB", "MB is no unit of a duration; its units are d, h, m, s"),
        ("x", "s", "only a size or a duration"),
        (True, "B", "only a size or a duration"),
    ],
)
def test_a_unit_of_something_else_is_refused(value: object, unit: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        in_unit(value, unit)


# ---------------------------------------------------------------- the other types


@pytest.mark.parametrize(
    ("kind", "given_value", "expected"),
    [
        ("string", 2024, "2024"),
        ("string", "", ""),
        ("integer", "-3", -3),
        ("number", "1.5", 1.5),
        ("number", "3", 3),
        ("number", "1e3", 1000.0),
        ("number", 2, 2),
        ("boolean", "true", True),
        ("boolean", "No", False),
        ("boolean", False, False),
        ("port", "8080", 8080),
        ("port", 65535, 65535),
        ("image", "reg.example:5000/a/b_c:v1", "reg.example:5000/a/b_c:v1"),
        ("list", ["a", 1], ["a", "1"]),
        ("map", {"a": "b", 1: 2}, {"a": "b", "1": "2"}),
        ("secret", b"\xff\x00", b"\xff\x00"),
    ],
)
def test_a_value_is_read_by_its_type(kind: str, given_value: object, expected: object) -> None:
    found = schema(kind).checked(given_value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("string", 1.10, "expected text, got 1.1; put it in quotes"),
        ("string", True, "expected text, got true; put it in quotes"),
        ("string", [1], "expected text, got a list"),
        ("integer", "1.0", 'expected a whole number, got "1.0"'),
        ("integer", True, "expected a whole number, got true"),
        ("number", "nan", 'expected a number, got "nan"'),
        ("number", "1e999", 'expected a number, got "1e999"'),
        ("number", float("inf"), "expected a number, got inf"),
        ("boolean", "maybe", 'expected true or false, got "maybe"'),
        ("boolean", 1, "expected true or false, got 1"),
        ("port", 0, "expected a port from 1 to 65535, got 0"),
        ("port", "65536", "expected a port from 1 to 65535, got 65536"),
        ("list", "a", 'expected a list, got "a"'),
        ("map", ["a"], "expected a mapping, got a list"),
    ],
)
def test_a_value_of_another_type_is_refused(kind: str, value: object, message: str) -> None:
    assert refusal(schema(kind), value) == message


@pytest.mark.parametrize(
    "image",
    ["nginx", "nginx:1.27", "me/web", "reg.example:5000/a/b_c:v1", "a@sha256:" + "0" * 64, "localhost/x"],
)
def test_images(image: str) -> None:
    assert schema("image").checked(image) == image


@pytest.mark.parametrize(
    "image", ["Nginx", "a b", "a:", "a//b", ":1", "a@sha256:1", "http://x/y", "-a", "a\n"]
)
def test_what_is_no_image_is_refused(image: str) -> None:
    assert refusal(schema("image"), image).startswith("expected an image")


def test_all_entries_are_checked_and_each_mistake_has_its_place() -> None:
    ports = schema("map", entry_schema={"type": "list", "entry_schema": "port"})
    assert ports.type_text == "map of list of port"
    assert ports.checked({"a": [80, "443"]}) == {"a": [80, 443]}
    with pytest.raises(Misplaced) as caught:
        ports.checked({"a": [80, 0], "b": 1, "c": ["x"]})
    assert [loc for loc, _ in caught.value.mistakes] == [("a", 1), ("b",), ("c", 0)]


# ---------------------------------------------------------------- constraints


@pytest.mark.parametrize(
    ("kind", "constraint", "good", "bad", "message"),
    [
        ("integer", {"equal": 3}, 3, 4, "expected 3, got 4"),
        ("integer", {"greater_than": 3}, 4, 3, "expected a number greater than 3, got 3"),
        ("number", {"greater_or_equal": 0.5}, 0.5, 0.4, "expected a number of at least 0.5, got 0.4"),
        ("number", {"less_than": 1}, 0.9, 1, "expected a number less than 1, got 1"),
        ("port", {"less_or_equal": 1024}, 80, 8080, "expected a number of at most 1024, got 8080"),
        ("integer", {"in_range": [1, 9]}, 9, 0, "expected a number from 1 to 9, got 0"),
        ("integer", {"in_range": [1, "UNBOUNDED"]}, 99, 0, "expected a number of at least 1, got 0"),
        ("integer", {"in_range": ["UNBOUNDED", 9]}, -99, 10, "expected a number of at most 9, got 10"),
        (
            "size",
            {"in_range": ["1 GB", "4 GiB"]},
            "2G",
            "8 GiB",
            "expected a size from 1 GB to 4 GiB, got 8 GiB",
        ),
        (
            "duration",
            {"greater_than": "1m"},
            "61s",
            "60s",
            "expected a duration greater than 1m, got 1m",
        ),
        ("string", {"valid_values": ["a", "b"]}, "b", "c", 'expected one of a, b, got "c"'),
        (
            "size",
            {"valid_values": ["1 GB", "2 GB"]},
            "2000 MB",
            "3 GB",
            "expected one of 1 GB, 2 GB, got 3 GB",
        ),
        ("boolean", {"equal": True}, "yes", "no", "expected true, got false"),
        ("string", {"length": 2}, "ab", "abc", "expected 2 characters, got 3"),
        ("list", {"min_length": 1}, ["a"], [], "expected at least 1 entries, got 0"),
        ("map", {"max_length": 1}, {"a": 1}, {"a": 1, "b": 2}, "expected at most 1 entries, got 2"),
        (
            "image",
            {"pattern": "nginx:.*"},
            "nginx:1",
            "web:1",
            'expected text of the form nginx:.*, got "web:1"',
        ),
    ],
)
def test_a_constraint_lets_through_what_it_names(
    kind: str, constraint: dict[str, Any], good: object, bad: object, message: str
) -> None:
    declared = schema(kind, constraint)
    assert list(declared.mistakes()) == []
    declared.checked(good)
    assert refusal(declared, bad) == message


def test_every_constraint_that_does_not_hold_is_told() -> None:
    declared = schema("string", {"min_length": 3}, {"pattern": "[a-z]+"})
    assert refusal(declared, "A1") == (
        'expected at least 3 characters, got 2; expected text of the form [a-z]+, got "A1"'
    )


@pytest.mark.parametrize(
    ("kind", "constraint", "loc", "message"),
    [
        ("string", {"in_range": [1, 2]}, ("in_range",), "does not go with the type string; what does: equal"),
        (
            "boolean",
            {"min_length": 1},
            ("min_length",),
            "does not go with the type boolean; what does: equal",
        ),
        ("secret", {"valid_values": ["a"]}, ("valid_values",), "does not go with the type secret"),
        ("integer", {"in_range": [2, 1]}, ("in_range",), "the range [2, 1] is empty"),
        ("integer", {"in_range": [1]}, ("in_range",), "expected [from, to], got a list"),
        ("size", {"in_range": ["lots", "4 GB"]}, ("in_range", 0), 'expected a size such as "512 MB"'),
        ("port", {"valid_values": [80, 0]}, ("valid_values", 1), "expected a port from 1 to 65535, got 0"),
        ("string", {"valid_values": []}, ("valid_values",), "expected a list of values"),
        ("integer", {"equal": "x"}, ("equal",), 'expected a whole number, got "x"'),
        ("string", {"max_length": -1}, ("max_length",), "expected a whole number of 0 or more, got -1"),
        ("string", {"pattern": "["}, ("pattern",), "[ is not a regular expression"),
        ("string", {"pattern": 1}, ("pattern",), "expected a regular expression, got 1"),
        ("string", {}, (), "expected one of equal, greater_than"),
        ("string", {"length": 1, "pattern": "a"}, (), "expected one of equal, greater_than"),
    ],
)
def test_a_constraint_that_means_nothing_is_a_mistake(
    kind: str, constraint: dict[str, Any], loc: tuple[Any, ...], message: str
) -> None:
    ((where, said),) = schema(kind, constraint).mistakes()
    assert where == ("constraints", 0, *loc)
    assert said.startswith(message)


@settings(deadline=None)
@given(st.integers(), st.integers(), st.integers())
def test_a_range_holds_its_bounds_and_what_is_between(low: int, high: int, value: int) -> None:
    found = Constraint(in_range=[low, high])
    wrong = list(found.mistakes(schema("integer")))
    assert bool(wrong) == (low > high)
    if not wrong:
        assert (found.mistake(schema("integer"), value) is None) == (low <= value <= high)


SECRET = "correct horse battery staple"


@pytest.mark.parametrize(
    "constraint", [{"length": 1}, {"min_length": 99}, {"max_length": 3}, {"pattern": "[0-9]+"}]
)
def test_a_secret_that_is_not_allowed_is_not_shown(constraint: dict[str, Any]) -> None:
    message = refusal(schema("secret", constraint), SECRET.encode())
    assert SECRET not in message
    assert str(len(SECRET)) not in message


def test_a_secret_that_should_be_text_and_is_not_says_so() -> None:
    assert refusal(schema("secret", {"min_length": 1}), b"\xff") == "expected text"


def test_a_secret_given_as_a_value_is_not_shown() -> None:
    assert SECRET not in refusal(schema("secret"), SECRET)
