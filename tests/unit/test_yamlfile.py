"""YAML as Compose files mean it."""

from __future__ import annotations

import pytest

from swarmkit.errors import UsageError
from swarmkit.yamlfile import parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("22:22", "22:22"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("2024-01-01", "2024-01-01"),
        ("0444", 0o444),
        ("0o17", 0o17),
        ("0x1F", 31),
        ("-12", -12),
        ("0", 0),
        ("1.5", 1.5),
        ("1.0e3", 1000.0),
        ("1e3", "1e3"),
        ("1.2.3", "1.2.3"),
        ("12:30:45.5", "12:30:45.5"),
        ("~", None),
        ("3.13", 3.13),
        ("=", "="),
        ("<<", "<<"),
        ("[a, =, <<]", ["a", "=", "<<"]),
    ],
)
def test_a_plain_scalar_is_what_docker_takes_it_for(text: str, value: object) -> None:
    found = parse(f"a: {text}\n", "f").data["a"]
    assert (found, type(found)) == (value, type(value))


def test_a_merge_key_merges() -> None:
    file = parse("a: &a {b: 1}\nc: {<<: *a, d: <<}\n", "f")
    assert file.data["c"] == {"b": 1, "d": "<<"}


def test_a_position_is_known_for_every_value() -> None:
    file = parse("a:\n  - b: 1\n    c: 2\n", "f")
    assert file.where(("a", 0, "c")) == "f:3:8"
    assert file.where(("a", 0, "none", "deeper")) == "f:2:5"


@pytest.mark.parametrize(
    "text", ["a: !!python/object:os.system {}", "a: *nowhere", "a: [", "\ta: 1", "a: 1\n---\nb: 2"]
)
def test_what_is_not_plain_yaml_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(UsageError, match="not valid YAML") as raised:
        parse(text, "f")
    assert raised.value.where.startswith("f")


def test_aliases_that_stand_for_too_much_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    with pytest.raises(UsageError, match="aliases stand for too much"):
        parse("\n".join(lines), "f")


def test_what_is_too_deep_is_refused() -> None:
    with pytest.raises(UsageError, match="not valid YAML"):
        parse("[" * 200 + "]" * 200, "f")
    with pytest.raises(UsageError, match="not valid YAML"):
        parse("a: &a [*a]", "f")


@pytest.mark.parametrize("text", [r'a: "\ud800"', r'"\udfff": 1'])
def test_half_a_character_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="half a character"):
        parse(text, "f")
