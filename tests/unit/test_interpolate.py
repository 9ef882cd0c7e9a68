"""Variables in Compose files."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmkit.interpolate import Interpolated, interpolate
from swarmkit.yamlfile import YamlFile, parse

ENVIRONMENT = {"TAG": "1.27", "EMPTY": "", "_x1": "under"}


def run(text: str) -> Interpolated:
    return interpolate(parse(text, "stack.yml"), ENVIRONMENT)


@pytest.mark.parametrize(
    ("written", "result"),
    [
        ("nginx:$TAG", "nginx:1.27"),
        ("nginx:${TAG}-x", "nginx:1.27-x"),
        ("${_x1}", "under"),
        ("${NONE:-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${NONE-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${NONE:-}", ""),
        ("${TAG:-d}", "1.27"),
        ("${TAG:?why}", "1.27"),
        ("${EMPTY?why}", ""),
        ("${NONE:-a:b/c-d}", "a:b/c-d"),
        ("${NONE:-${EMPTY:-x}}", "x"),
        ("${NONE:-a${TAG}b${NO:-c}d}e", "a1.27bcde"),
        ("${NONE:-$TAG}", "1.27"),
        ("${NONE:-5$$}", "5$"),
        ("${NONE:-{a}}", "{a}"),
        ("${TAG:-${NONE:?not asked}}", "1.27"),
        ("${TAG:+x}", "x"),
        ("${EMPTY:+x}", ""),
        ("${EMPTY+x}", "x"),
        ("${NONE+x}", ""),
        ("${TAG:+-${TAG}}", "-1.27"),
        ("$$TAG", "$TAG"),
        ("a$$$TAG", "a$1.27"),
        ("{{.Node.Hostname}}", "{{.Node.Hostname}}"),
        ("no variables", "no variables"),
    ],
)
def test_forms(written: str, result: str) -> None:
    done = run(f"a: '{written}'")
    assert done.file.data == {"a": result}
    assert done.errors == {}


def test_only_values_are_looked_at() -> None:
    assert run("$TAG: [1, null, {b: $TAG}]").file.data == {"$TAG": [1, None, {"b": "1.27"}]}


def test_a_variable_that_is_not_set_is_empty_and_warned_of_once() -> None:
    done = run("a: x$NONE\nb: [$NONE, '${EMPTY}']")
    assert done.file.data == {"a": "x", "b": ["", ""]}
    assert done.unset == {"NONE": "stack.yml:1:4: a: NONE is not set; nothing stands in its place"}


def test_what_is_not_used_is_not_warned_of() -> None:
    assert run("a: ['${TAG:-$NONE}', '${NONE:+$NO}', '${NONE-x}']").unset == {}


def test_nesting_has_an_end() -> None:
    (error,) = run("a: " + "${A:-" * 10_000 + "}" * 10_000).errors.values()
    assert "not a variable" in str(error)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("${NONE:?give me}", "NONE must be set: give me"),
        ("${EMPTY:?give me}", "EMPTY must be set: give me"),
        ("${NONE?}", "NONE must be set: it has no value"),
        ("cost: 5$", 'not a variable swarmkit understands: "$"'),
        ("${}", 'not a variable swarmkit understands: "${}"'),
        ("${TAG", 'not a variable swarmkit understands: "${TAG"'),
        ("$1", 'not a variable swarmkit understands: "$1"'),
        ("${TAG:x}", 'not a variable swarmkit understands: "${TAG:x}"'),
        ("${NONE:-${TAG}", 'not a variable swarmkit understands: "${NONE:-${TAG}"'),
        ("${TAG:-5$}", 'not a variable swarmkit understands: "$}"'),
        ("${NONE:?set it to ${TAG}}", "NONE must be set: set it to 1.27"),
    ],
)
def test_mistakes_name_their_place(written: str, message: str) -> None:
    done = run(f"services:\n  web:\n    ports: [80, '{written}']")
    (error,) = done.errors.values()
    assert str(error) == f"stack.yml:3:17: services.web.ports[1]: {message}"
    assert error.hint
    assert done.file.data["services"]["web"]["ports"][1] == written


@settings(deadline=None)
@given(st.text(), st.dictionaries(st.from_regex(r"[A-Z]{1,3}", fullmatch=True), st.text()))
def test_doubled_dollars_bring_any_text_through(text: str, environment: dict[str, str]) -> None:
    file = YamlFile("stack.yml", {"a": text.replace("$", "$$")}, {})
    assert interpolate(file, environment).file.data == {"a": text}


@settings(deadline=None)
@given(st.text("${}:-?+Aa "))
def test_any_text_is_filled_in_or_refused(text: str) -> None:
    done = interpolate(YamlFile("stack.yml", [text], {}), {"A": "x"})
    assert done.errors.keys() == ({(0,)} if done.file.data == [text] and "$" in text else set())


@settings(deadline=None)
@given(st.text())
def test_a_value_is_not_interpolated_again(value: str) -> None:
    assert interpolate(YamlFile("stack.yml", ["${A}"], {}), {"A": value}).file.data == [value]
