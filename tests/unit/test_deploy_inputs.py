"""The declaration of a stack's inputs: what may stand in inputs.yml, and where its mistakes are."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmkit.deploy.inputs import load, variable
from swarmkit.errors import Problems, SwarmkitError


def mistakes(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "inputs.yml").write_text(text)
    with pytest.raises(SwarmkitError) as caught:
        load(tmp_path / "inputs.yml")
    assert caught.value.exit == 2
    errors = caught.value.errors if isinstance(caught.value, Problems) else [caught.value]
    return [str(each).replace(f"{tmp_path}/inputs.yml:", "") for each in errors]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {typo: 1}", "1:11: a.typo: unknown key"),
        (
            "a: {type: integer, default: x}",
            '1:29: a.default: the default is not allowed: expected a whole number, got "x"',
        ),
        (
            "a: {default: x, constraints: [{min_length: 2}]}",
            "1:14: a.default: the default is not allowed: expected at least 2 characters, got 1",
        ),
        (
            "a: {type: list, entry_schema: port, default: [80, 0]}",
            "1:51: a.default[1]: the default is not allowed: expected a port from 1 to 65535, got 0",
        ),
        (
            "a: {type: integer, constraints: [{in_range: [2, 1]}]}",
            "1:45: a.constraints[0].in_range: the range [2, 1] is empty",
        ),
        (
            "a: {type: list, entry_schema: {type: size, constraints: [{pattern: x}]}}",
            "1:68: a.entry_schema.constraints[0].pattern: does not go with the type size; what does: equal, "
            "valid_values, greater_than, greater_or_equal, less_than, less_or_equal, in_range",
        ),
        ("a: {entry_schema: port}", "1:19: a.entry_schema: is for lists and maps; this is of type string"),
        (
            "a: {type: map, entry_schema: secret}",
            "1:30: a.entry_schema: a secret cannot be an entry; declare an input for each",
        ),
        (
            "a: {type: secret, default: x}",
            "1:28: a.default: a secret has no default: whoever reads the stack would know it",
        ),
        ("cluster: {}", '1:10: cluster: an input cannot be called "cluster", which means something else'),
        ("a: {}\nA: {}", "1:4: a: A has the same name but for upper and lower case"),
        ("a: 1", "1:4: a: expected a mapping, got 1"),
        ("- a", "1:1: expected a mapping, got a list"),
        ("a-b: {}", '1:6: a-b: an input cannot be called "a-b"'),
        ("a: {type: text}", "1:11: a.type: input should be 'string', 'integer', 'number'"),
    ],
)
def test_a_mistake_in_the_declaration_names_its_place(tmp_path: Path, text: str, message: str) -> None:
    (said,) = mistakes(tmp_path, text)
    assert said.startswith(message)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    found = mistakes(
        tmp_path, "a: {typo: 1}\nb: {type: port, default: 0, constraints: [{length: 1}]}\nc: {default: [1]}\n"
    )
    assert [each.split(" ")[:2] for each in found] == [
        ["1:11:", "a.typo:"],
        ["2:52:", "b.constraints[0].length:"],
        ["2:26:", "b.default:"],
        ["3:14:", "c.default:"],
    ]


def test_an_empty_declaration_is_no_input(tmp_path: Path) -> None:
    (tmp_path / "inputs.yml").write_text("# none yet\n")
    assert load(tmp_path / "inputs.yml") == {}


def test_the_entries_of_a_list_may_be_declared_in_one_word_or_in_full(tmp_path: Path) -> None:
    (tmp_path / "inputs.yml").write_text(
        "a: {type: list, entry_schema: port}\nb: {type: list, entry_schema: {type: port}}\nc: {type: list}\n"
    )
    inputs = load(tmp_path / "inputs.yml")
    assert [inputs[name].type_text for name in "abc"] == ["list of port", "list of port", "list of string"]


def test_an_input_has_an_environment_variable() -> None:
    assert variable("db_password") == "SWARMKIT_INPUT_DB_PASSWORD"
