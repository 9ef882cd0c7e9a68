"""The values of inputs: which of several wins, who is asked, and how secrets stay secret."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmkit.compose.contents import SECRET_LIMIT
from swarmkit.deploy.inputs import Input, Inputs, load
from swarmkit.deploy.types import Duration, Value
from swarmkit.deploy.values import Given, SecretInput, resolve
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


def written(folder: Path, text: str, name: str = "values.yml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def values(
    inputs: Inputs, *sets: str, files: Sequence[Path] = (), env: Mapping[str, str] | None = None
) -> Mapping[str, Value | SecretInput | None]:
    return resolve(inputs, Given(sets, files, environment=env or {})).values


def mistakes(inputs: Inputs, what: Given, folder: Path) -> list[str]:
    with pytest.raises(SwarmkitError) as caught:
        resolve(inputs, what)
    assert caught.value.exit == 2
    errors = caught.value.errors if isinstance(caught.value, Problems) else [caught.value]
    return [str(each).replace(f"{folder}/", "") for each in errors]


def test_what_is_not_given_has_its_default(inputs: Inputs) -> None:
    assert values(inputs, "key=abc") == {
        "replicas": 3,
        "message": "hello",
        "level": "info",
        "key": "abc",
        "image": None,
    }


def test_set_wins_over_files_the_last_file_over_the_first_and_all_over_the_environment(
    inputs: Inputs, tmp_path: Path
) -> None:
    first = written(tmp_path, "replicas: 5\nkey: first\nmessage: 2024\nimage: \n", "a.yml")
    last = written(tmp_path, "key: last\n", "b.yml")
    env = {"SWARMKIT_INPUT_REPLICAS": "9", "SWARMKIT_INPUT_KEY": "env", "SWARMKIT_INPUT_LEVEL": "debug"}
    found = values(inputs, "replicas=7", files=[first, last], env=env)
    assert found == {"replicas": 7, "key": "last", "message": "2024", "level": "debug", "image": None}


def test_the_last_set_of_an_input_wins(inputs: Inputs) -> None:
    assert values(inputs, "key=a", "replicas=1", "replicas=2")["replicas"] == 2


def test_a_value_may_hold_what_separates_keys_from_values(inputs: Inputs) -> None:
    assert values({"t": Input()}, "t=a=b.c=")["t"] == "a=b.c="


def test_an_empty_file_of_values_is_no_mistake(inputs: Inputs, tmp_path: Path) -> None:
    assert values(inputs, "key=a", files=[written(tmp_path, "# nothing\n")])["replicas"] == 3


def test_all_that_is_wrong_is_said_at_once_and_where_it_came_from(inputs: Inputs, tmp_path: Path) -> None:
    file = written(tmp_path, "message: x\nimage: A B\nmore: 1\n")
    found = mistakes(
        inputs,
        Given(
            ("replicas=101", "nope=1", "word", "=1", "level.x=1"),
            (file, tmp_path / "none.yml"),
            environment={"SWARMKIT_INPUT_LEVEL": "loud"},
        ),
        tmp_path,
    )
    assert found == [
        "--set nope: the stack has no input nope",
        "--set word: expected KEY=VALUE",
        "--set : expected KEY=VALUE",
        "--set level.x: only a map has keys, and level is of type string",
        "none.yml: no such file",
        "values.yml:3:7: more: the stack has no such input",
        "--set replicas: expected a number from 1 to 100, got 101",
        "values.yml:1:10: message: expected at least 2 characters, got 1",
        'SWARMKIT_INPUT_LEVEL: expected one of info, debug, got "loud"',
        'values.yml:2:8: image: expected an image such as "nginx:1.27" or "registry:5000/me/web", got "A B"',
        "the input key is required: letters only",
    ]


def test_an_input_that_is_not_there_hints_at_those_that_are(inputs: Inputs) -> None:
    with pytest.raises(SwarmkitError) as caught:
        resolve(inputs, Given(("key=a", "nope=1")))
    assert caught.value.hint == "its inputs are: image, key, level, message, replicas"
    with pytest.raises(SwarmkitError) as caught:
        resolve({}, Given(("a=1",)))
    assert caught.value.hint == "it has no inputs; only a template, such as stack.yml.j2, has them"


def test_a_missing_input_says_how_it_can_be_given(inputs: Inputs) -> None:
    with pytest.raises(SwarmkitError) as caught:
        resolve(inputs, Given())
    assert caught.value.hint == "add --set key=…, or set SWARMKIT_INPUT_KEY"


def test_values_must_be_a_mapping(inputs: Inputs, tmp_path: Path) -> None:
    found = mistakes(inputs, Given(("key=a",), (written(tmp_path, "- a\n"),)), tmp_path)
    assert found == ["values.yml:1:1: expected a mapping of inputs to their values"]


@settings(deadline=None)
@given(st.integers())
def test_any_whole_number_can_be_given(number: int) -> None:
    assert values({"n": Input(type="integer")}, f"n={number}") == {"n": number}


@settings(deadline=None)
@given(st.text())
def test_any_text_can_be_given(text: str) -> None:
    assert values({"t": Input()}, f"t={text}") == {"t": text}


# ---------------------------------------------------------------- lists and maps


def declared(**more: object) -> Inputs:
    return {"x": Input.model_validate(more)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", []), ("80", [80]), ("80, 443", [80, 443]), ("[80, 443]", [80, 443]), (" [ 80 ]", [80])],
)
def test_a_list_is_given_as_words_or_as_yaml(text: str, expected: list[int]) -> None:
    assert values(declared(type="list", entry_schema="port"), f"x={text}") == {"x": expected}


def test_a_map_is_given_as_yaml_or_key_by_key(tmp_path: Path) -> None:
    labels = declared(type="map", default={"disk": "hdd", "zone": "a"})
    assert values(labels, "x={disk: ssd}") == {"x": {"disk": "ssd"}}
    assert values(labels, "x.disk=ssd", "x.a.b=c") == {"x": {"disk": "ssd", "zone": "a", "a.b": "c"}}
    file = written(tmp_path, "x: {gpu: 'yes'}\n")
    assert values(labels, "x.disk=ssd", files=[file]) == {"x": {"gpu": "yes", "disk": "ssd"}}
    assert values(declared(type="map"), "x.a=1") == {"x": {"a": "1"}}


def test_mistakes_in_lists_and_maps_have_their_place(tmp_path: Path) -> None:
    ports = declared(type="map", entry_schema="port")
    file = written(tmp_path, "x:\n  a: 80\n  b: 0\n")
    assert mistakes(ports, Given(("x.c=99999",), (file,)), tmp_path) == [
        "values.yml:3:6: x.b: expected a port from 1 to 65535, got 0",
        "--set x.c: expected a port from 1 to 65535, got 99999",
    ]
    assert mistakes(ports, Given(("x={a: 1",)), tmp_path)[0].startswith("--set x: cannot be read as a map: ")
    assert mistakes(ports, Given(("x=a",)), tmp_path) == ['--set x: expected a mapping, got "a"']
    assert mistakes(declared(type="list", entry_schema="port"), Given(("x=80,no",)), tmp_path) == [
        '--set x: [1]: expected a port from 1 to 65535, got "no"'
    ]


def test_sizes_and_durations_are_read_wherever_they_come_from(tmp_path: Path) -> None:
    inputs = {"m": Input(type="size"), "d": Input(type="duration", default="10 s")}
    assert values(inputs, "m=4 GB") == {"m": 4 * 10**9, "d": Duration(10 * 10**9)}
    file = written(tmp_path, "m: 1 KiB\nd: 1m30s\n")
    assert values(inputs, files=[file]) == {"m": 1024, "d": Duration(90 * 10**9)}


# ---------------------------------------------------------------- the person at the terminal


class Person:
    """Answers questions in order, and remembers them."""

    def __init__(self, *answers: str | None) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, bool, str]] = []

    def __call__(self, name: str, declared: Input, wrong: str) -> str | None:
        self.asked.append((name, declared.is_secret, wrong))
        return self.answers.pop(0)


def test_only_what_is_required_and_missing_is_asked_for_until_it_is_right(inputs: Inputs) -> None:
    person = Person("ABC", "abc")
    assert resolve(inputs, Given(), person).values["key"] == "abc"
    assert person.asked == [
        ("key", False, ""),
        ("key", False, 'expected text of the form [a-z]+, got "ABC"'),
    ]


def test_nobody_is_asked_while_something_is_wrong(inputs: Inputs) -> None:
    with pytest.raises(Problems, match="nope"):
        resolve(inputs, Given(("nope=1",)), Person())


def test_who_gives_no_answer_is_told_how_to_give_one_otherwise(inputs: Inputs) -> None:
    with pytest.raises(SwarmkitError, match="the input key is required"):
        resolve(inputs, Given(), Person(None))


# ---------------------------------------------------------------- secrets

SECRET = "correct horse"
TOKEN: Inputs = {"token": Input(type="secret", description="who may come in")}


def test_a_secret_comes_from_a_file_byte_by_byte(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_bytes(b"\x00\xff\n")
    found = resolve(TOKEN, Given(secret_files=[f"token={path}"]))
    assert found.secrets == {"token": b"\x00\xff\n"}
    assert found.values == {"token": SecretInput("token")}


def test_a_secret_comes_from_standard_input_the_environment_or_a_person() -> None:
    env = {"SWARMKIT_INPUT_TOKEN": "env"}
    piped = Given(secret_files=["token=-"], environment=env, stdin=lambda: b"piped\n")
    assert resolve(TOKEN, piped).secrets == {"token": b"piped\n"}
    assert resolve(TOKEN, Given(environment=env)).secrets == {"token": b"env"}
    person = Person("", "typed")
    assert resolve(TOKEN, Given(), person).secrets == {"token": b"typed"}
    assert person.asked == [
        ("token", True, ""),
        ("token", True, f"Swarm takes 1 to {SECRET_LIMIT - 1} bytes as a secret, this is 0"),
    ]


def test_a_secret_that_is_not_required_may_be_left_out() -> None:
    found = resolve({"token": Input(type="secret", required=False)}, Given())
    assert (found.values, found.secrets) == ({"token": None}, {})


@pytest.mark.parametrize(
    ("given_value", "message"),
    [
        (Given(), "the input token is required: who may come in"),
        (
            Given((f"token={SECRET}",)),
            "--set token: token is a secret and cannot be given here: everyone on this machine sees the "
            "arguments of a command",
        ),
        (Given((f"token.x={SECRET}",)), "--set token.x: token is a secret and cannot be given here"),
        (Given(secret_files=["token=/none/such"]), "--secret-file token: /none/such cannot be read: no such"),
        (
            Given(secret_files=["token=~nobody-here/t"]),
            "--secret-file token: ~nobody-here/t cannot be read: ",
        ),
        (Given(secret_files=["token"]), "--secret-file token: expected NAME=PATH"),
        (Given(secret_files=["token=-"]), f"--secret-file token: Swarm takes 1 to {SECRET_LIMIT - 1} bytes"),
        (Given(environment={"SWARMKIT_INPUT_TOKEN": ""}), "SWARMKIT_INPUT_TOKEN: Swarm takes 1 to"),
        (
            Given(secret_files=["token=-"], stdin=lambda: bytes(SECRET_LIMIT)),
            f"--secret-file token: Swarm takes 1 to {SECRET_LIMIT - 1} bytes as a secret, this is 512000",
        ),
    ],
)
def test_a_secret_that_cannot_be_had_says_why(given_value: Given, message: str, tmp_path: Path) -> None:
    assert mistakes(TOKEN, given_value, tmp_path)[0].startswith(message)


def test_a_secret_in_a_file_of_values_is_refused_and_told_once(tmp_path: Path) -> None:
    file = written(tmp_path, f"token: {SECRET}\n")
    with pytest.raises(SwarmkitError) as caught:
        resolve(TOKEN, Given(files=[file]))
    assert str(caught.value) == (
        f"{file}:1:8: token is a secret and cannot be given here: "
        "a file of values is kept, and others read it"
    )
    assert caught.value.hint == (
        "use --secret-file token=PATH (- is standard input), or set SWARMKIT_INPUT_TOKEN"
    )


def test_only_secrets_have_files_and_standard_input_is_one_of_them(tmp_path: Path) -> None:
    inputs = {**TOKEN, "other": Input(type="secret"), "n": Input(default="a")}
    found = mistakes(
        inputs, Given(secret_files=["token=-", "other=-", "n=x", "nope=x"], stdin=lambda: b"x"), tmp_path
    )
    assert found == [
        "--secret-file other: standard input can be one secret only",
        "--secret-file n: it is no secret",
        "--secret-file nope: the stack has no input nope",
    ]


def test_no_error_and_no_value_shows_a_secret(tmp_path: Path) -> None:
    inputs = {
        "token": Input.model_validate({"type": "secret", "constraints": [{"pattern": "x"}, {"length": 1}]}),
        "other": Input(type="secret"),
    }
    file = written(tmp_path, f"token: {SECRET}\nother: [{SECRET}]\n")
    env = {"SWARMKIT_INPUT_TOKEN": SECRET, "SWARMKIT_INPUT_OTHER": SECRET}
    sets = (f"token={SECRET}", f"other.a={SECRET}")
    for what in (Given(environment=env), Given(sets), Given(files=[file]), Given(sets, [file], (), env)):
        with pytest.raises(SwarmkitError) as caught:
            resolve(inputs, what)
        errors = caught.value.errors if isinstance(caught.value, Problems) else [caught.value]
        assert SECRET not in "".join(f"{each} {each.hint} {each!r}" for each in errors)
    assert SECRET not in repr(Given(environment=env))
    assert SECRET not in repr(resolve(TOKEN, Given(environment=env)))
