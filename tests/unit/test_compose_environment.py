"""`.env` files, and what they give to a project."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmkit.compose.environment import parse, parse_raw
from swarmkit.compose.load import Options, Project, load
from swarmkit.errors import Problems, SwarmkitError


def value(line: str, **environment: str) -> str | None:
    (found,) = parse(line, "f.env", environment).values.values()
    return found


@pytest.mark.parametrize(
    ("line", "result"),
    [
        ("A=b", "b"),
        ("A=", ""),
        ("A", None),
        ("A # nothing", None),
        ("export A=b", "b"),
        ("  A = b  ", "b"),
        ("A: b", "b"),
        ("A=b c", "b c"),
        ("A=b # c", "b"),
        ("A=b#c", "b#c"),
        ("A= # c", ""),
        ("A=b=c:d", "b=c:d"),
        ("A='b # c'", "b # c"),
        ("A='b' # c", "b"),
        ('A="b # c"', "b # c"),
        ("A='$X ${X}'", "$X ${X}"),
        ("A='Let\\'s go'", "Let's go"),
        ("A='b\\n'", "b\\n"),
        ('A="b\\nc\\td\\\\"', "b\nc\td\\"),
        ('A="{\\"b\\": 1}"', '{"b": 1}'),
        ('A="\\$X"', "$X"),
        ("A='b\nc'", "b\nc"),
        ('A="b\nc"', "b\nc"),
        ("A=$X", "x"),
        ("A=${X}y${NO:-z}", "xyz"),
        ('A="${X:+y}"', "y"),
        ("A=$$X", "$X"),
        ("A=b\\n", "b\\n"),
        ("\ufeffA=b", "b"),
        ("# c\n\nA=b\n", "b"),
    ],
)
def test_the_syntax(line: str, result: str | None) -> None:
    assert value(line, X="x") == result


def test_lines_may_use_what_stands_before_them_and_the_environment_wins() -> None:
    read = parse("A=1\nB=$A\nC=$X", "f.env", {"X": "theirs"})
    assert read.values == {"A": "1", "B": "1", "C": "theirs"}
    assert parse("X=mine\nB=$X", "f.env", {"X": "theirs"}).values["B"] == "theirs"


def test_all_mistakes_are_told_with_their_place_and_without_the_values() -> None:
    with pytest.raises(Problems) as caught:
        parse("A=1\n1x=hush\nB='hush\nC=hush$\nD='x' hush\nE hush\nF=${G:?say it}\n", "f.env", {})
    assert [str(error) for error in caught.value.errors] == [
        "f.env:2:1: expected NAME=value",
        "f.env:3:1: B: there is more after the closing quote",
        "f.env:6:1: E: expected = after the name",
        "f.env:7:1: F: G must be set: say it",
    ]
    with pytest.raises(Problems) as caught:
        parse("B='hush\nC=hush$!\nD=\"hush", "f.env", {})
    assert [str(error) for error in caught.value.errors] == [
        "f.env:1:1: B: the quote is not closed",
        "f.env:2:1: C: a dollar sign that begins no variable",
        "f.env:3:1: D: the quote is not closed",
    ]
    assert "hush" not in repr(caught.value.errors) + str([error.hint for error in caught.value.errors])


def test_a_variable_without_a_value_is_warned_of_once() -> None:
    read = parse("A=$NO\nB=$NO", "f.env", {})
    assert dict(read.unset) == {"NO": "f.env:1:1: A: NO is not set; nothing stands in its place"}


def test_raw_values_stay_as_they_are() -> None:
    read = parse_raw("# c\n\n  A='b $C' # d\nB=\nC\n")
    assert read.values == {"A": "'b $C' # d", "B": "", "C": None}


@settings(deadline=None)
@given(st.text("AB=:'\"\\#$ {}-?\n\texport"))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse(text, "f.env", {"A": "x"})
    except SwarmkitError as error:
        for each in error.errors if isinstance(error, Problems) else [error]:
            assert each.where.startswith("f.env:")


@settings(deadline=None)
@given(st.text().filter(lambda text: "\r" not in text))
def test_single_quotes_bring_any_text_through(text: str) -> None:
    if not text.endswith("\\") and "\\'" not in text:
        assert value("A='" + text.replace("'", "\\'") + "'") == text


# ---------------------------------------------------------------- in a project


def project(folder: Path, text: str, options: Options | None = None, **environment: str) -> Project:
    (folder / "stack.yml").write_text(text)
    return load(folder / "stack.yml", environment, options)


def test_the_env_file_beside_the_file_is_read_and_the_environment_wins(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TAG=1\nOWN=file\nA=from file\n")
    read = project(tmp_path, "services: {a: {image: 'x:$TAG-$OWN', environment: [A, B=]}}", OWN="mine")
    assert read.file.services["a"].image == "x:1-mine"
    assert read.file.services["a"].environment == {"A": "from file", "B": ""}


def test_an_empty_value_takes_that_of_the_command_but_not_that_of_an_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=file\nB=file\n")
    read = project(tmp_path, "services: {a: {image: x, environment: [A=, B=]}}", B="mine")
    assert read.file.services["a"].environment == {"A": "", "B": "mine"}


def test_env_files_that_are_named_stand_in_for_it_and_the_last_wins(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=no\nB=no\nC=no")
    (tmp_path / "1.env").write_text("A=1\nB=1")
    (tmp_path / "2.env").write_text("B=2$A")
    options = Options(env_files=[tmp_path / "1.env", tmp_path / "2.env"])
    read = project(tmp_path, "services: {a: {image: 'x:$A-$B-$C'}}", options)
    assert read.file.services["a"].image == "x:1-21-"
    assert len(read.warnings) == 1


def test_a_folder_called_env_is_no_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    assert project(tmp_path, "services: {a: {image: x}}").name == ""


def test_a_services_env_files_stand_below_its_environment(tmp_path: Path) -> None:
    (tmp_path / "1.env").write_text("A=1\nB=1\nC='q'\nHOME_OF\nGONE\n")
    (tmp_path / "2.env").write_text("B=2\nD='q' # raw\n")
    text = (
        "services:\n  a:\n    image: x\n    environment: {A: own}\n"
        "    env_file: [1.env, {path: 2.env, format: raw}, {path: none.env, required: false}]\n"
        "  b: {image: x, env_file: 1.env}\n"
    )
    read = project(tmp_path, text, HOME_OF="me").file.services
    assert read["a"].environment == {
        "A": "own",
        "B": "2",
        "C": "q",
        "HOME_OF": "me",
        "D": "'q' # raw",
    }
    assert read["b"].environment["B"] == "1"


@pytest.mark.parametrize(
    ("env_file", "place"),
    [("¦none.env", "env_file"), ("[¦none.env]", "env_file[0]"), ("[{path: ¦none.env}]", "env_file[0].path")],
)
def test_an_env_file_that_is_not_there_is_a_mistake(tmp_path: Path, env_file: str, place: str) -> None:
    text = f"services: {{a: {{image: x, env_file: {env_file}}}}}"
    with pytest.raises(SwarmkitError) as caught:
        project(tmp_path, text.replace("¦", ""))
    assert str(caught.value) == (
        f"{tmp_path}/stack.yml:1:{text.index('¦') + 1}: services.a.{place}: none.env: no such file"
    )


def test_mistakes_in_a_services_env_file_have_their_place_there(tmp_path: Path) -> None:
    (tmp_path / "1.env").write_text("A=1\n=2\n")
    with pytest.raises(SwarmkitError) as caught:
        project(tmp_path, "services: {a: {image: x, env_file: 1.env}}")
    assert str(caught.value) == f"{tmp_path}/1.env:2:1: expected NAME=value"


def test_what_a_services_env_file_uses_in_vain_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "1.env").write_text("A=$NO")
    assert project(tmp_path, "services: {a: {image: x, env_file: 1.env}}").warnings == (
        f"{tmp_path}/1.env:1:1: A: NO is not set; nothing stands in its place",
    )
