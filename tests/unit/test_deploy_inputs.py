"""Inputs of stacks: what may be declared, what may be given, and where the mistakes are."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmkit.deploy.inputs import Input, Inputs, load, resolve
from swarmkit.errors import Problems, SwarmkitError

DECLARED = """\
replicas:
  type: integer
  description: how many
  default: 3
  constraints: [{in_range: [1, 100]}]
message: {default: hello, constraints: [{min_length: 2}, {max_length: 5}]}
level: {default: info, constraints: {valid_values: [info, debug]}}
key: {description: "letters only", constraints: [{pattern: "[a-z]+"}]}
image: {type: image, required: false}
"""


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    (tmp_path / "inputs.yml").write_text(DECLARED)
    return load(tmp_path / "inputs.yml")


def mistakes(caught: pytest.ExceptionInfo[SwarmkitError], folder: Path) -> list[str]:
    error = caught.value
    assert error.exit == 2
    errors = error.errors if isinstance(error, Problems) else [error]
    return [str(each).replace(f"{folder}/", "") for each in errors]


def test_what_is_not_given_has_its_default(inputs: Inputs) -> None:
    assert resolve(inputs, {"key": "abc"}) == {
        "replicas": 3,
        "message": "hello",
        "level": "info",
        "key": "abc",
        "image": None,
    }


def test_set_wins_over_the_file_of_values(inputs: Inputs, tmp_path: Path) -> None:
    values = tmp_path / "values.yml"
    values.write_text("replicas: 5\nkey: abc\nmessage: 2024\nimage: \n")
    found = resolve(inputs, {"replicas": "7"}, values)
    assert (found["replicas"], found["key"], found["message"], found["image"]) == (7, "abc", "2024", None)


def test_an_empty_file_of_values_is_no_mistake(inputs: Inputs, tmp_path: Path) -> None:
    (tmp_path / "values.yml").write_text("# nothing\n")
    assert resolve(inputs, {"key": "a"}, tmp_path / "values.yml")["replicas"] == 3


def test_all_that_is_wrong_is_said_at_once(inputs: Inputs, tmp_path: Path) -> None:
    (tmp_path / "values.yml").write_text("message: x\nimage: A B\nmore: 1\nlevel: loud\n")
    with pytest.raises(SwarmkitError) as caught:
        resolve(inputs, {"replicas": "101", "nope": "1"}, tmp_path / "values.yml")
    assert mistakes(caught, tmp_path) == [
        "--set nope: the stack has no input nope",
        "values.yml:3:7: more: the stack has no such input",
        "--set replicas: expected a number from 1 to 100, got 101",
        "values.yml:1:10: message: expected at least 2 characters, got 1",
        'values.yml:4:8: level: expected one of info, debug, got "loud"',
        "the input key is required: letters only",
        'values.yml:2:8: image: expected an image such as "nginx:1.27" or "registry:5000/me/web", got "A B"',
    ]
    assert isinstance(caught.value, Problems)
    assert caught.value.errors[0].hint == "its inputs are: image, key, level, message, replicas"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("replicas", "three", 'expected a whole number, got "three"'),
        ("replicas", "1.5", 'expected a whole number, got "1.5"'),
        ("replicas", "0", "expected a number from 1 to 100, got 0"),
        ("message", "too long", "expected at most 5 characters, got 8"),
        ("key", "abc1", 'expected text of the form [a-z]+, got "abc1"'),
        ("image", "", 'expected an image such as "nginx:1.27" or "registry:5000/me/web", got ""'),
    ],
)
def test_a_value_that_is_not_allowed_says_what_is(
    inputs: Inputs, name: str, value: str, message: str
) -> None:
    with pytest.raises(SwarmkitError) as caught:
        resolve(inputs, {"key": "abc", name: value})
    assert str(caught.value) == f"--set {name}: {message}"


def test_a_stack_without_inputs_says_so() -> None:
    with pytest.raises(SwarmkitError) as caught:
        resolve({}, {"a": "1"})
    assert caught.value.hint == "it has no inputs"


def test_values_must_be_a_mapping(inputs: Inputs, tmp_path: Path) -> None:
    (tmp_path / "values.yml").write_text("- a\n")
    with pytest.raises(SwarmkitError, match="expected a mapping of inputs"):
        resolve(inputs, {}, tmp_path / "values.yml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {type: secret}", "1:11: a.type: input should be 'string', 'integer' or 'image', got \"secret\""),
        ("a: {typo: 1}", "1:11: a.typo: unknown key"),
        (
            "a: {type: integer, default: x}",
            '1:4: a: the default is not allowed: expected a whole number, got "x"',
        ),
        (
            "a: {default: x, constraints: [{min_length: 2}]}",
            "1:4: a: the default is not allowed: expected at least 2 characters, got 1",
        ),
        (
            "a: {constraints: [{}]}",
            "1:19: a.constraints[0]: expected one of in_range, valid_values, pattern, min_length, max_length",
        ),
        ("a: {constraints: [{in_range: [2, 1]}]}", "1:19: a.constraints[0]: the range [2, 1] is empty"),
        (
            "a: {constraints: [{pattern: '['}]}",
            "1:19: a.constraints[0]: [ is not a regular expression: unterminated character set at position 0",
        ),
        ("a: 1", "1:4: a: expected a mapping, got 1"),
        ("- a", "1:1: expected a mapping, got a list"),
    ],
)
def test_a_mistake_in_the_declaration_names_its_place(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "inputs.yml").write_text(text)
    with pytest.raises(SwarmkitError) as caught:
        load(tmp_path / "inputs.yml")
    assert mistakes(caught, tmp_path) == [f"inputs.yml:{message}"]


def test_an_empty_declaration_is_no_input(tmp_path: Path) -> None:
    (tmp_path / "inputs.yml").write_text("# none yet\n")
    assert load(tmp_path / "inputs.yml") == {}


@settings(deadline=None)
@given(st.integers())
def test_any_whole_number_can_be_given(number: int) -> None:
    assert resolve({"n": Input(type="integer")}, {"n": str(number)}) == {"n": number}


@settings(deadline=None)
@given(st.text())
def test_any_text_can_be_given(text: str) -> None:
    assert resolve({"t": Input()}, {"t": text}) == {"t": text}


@pytest.mark.parametrize(
    "image",
    ["nginx", "nginx:1.27", "me/web", "reg.example:5000/a/b_c:v1", "a@sha256:" + "0" * 64, "localhost/x"],
)
def test_images(image: str) -> None:
    assert Input(type="image").checked(image) == image


@pytest.mark.parametrize(
    "image", ["Nginx", "a b", "a:", "a//b", ":1", "a@sha256:1", "http://x/y", "-a", "a\n"]
)
def test_what_is_no_image_is_refused(image: str) -> None:
    with pytest.raises(ValueError, match="expected an image"):
        Input(type="image").checked(image)
