"""Templates of stacks: what is rendered, what passes untouched, and where the mistakes are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarmkit.compose.convert import Context, convert
from swarmkit.compose.load import Options
from swarmkit.deploy import inputs
from swarmkit.deploy.catalogue import StackSource, find
from swarmkit.deploy.render import render
from swarmkit.errors import Problems, SwarmkitError, UsageError

Write = Callable[..., StackSource]


@pytest.fixture
def written(tmp_path: Path) -> Write:
    def write(text: str, name: str = "stack.yml.j2") -> StackSource:
        file = tmp_path / name
        file.write_text(text, encoding="utf-8")
        return StackSource("s", tmp_path, file)

    return write


def test_a_plain_file_is_never_touched(written: Write) -> None:
    text = "services: {a: {image: '[[ x ]]', hostname: '{{.Node.Hostname}}'}} # [% if %]\n"
    assert render(written(text, "stack.yml"), {}).text == text


def test_a_template_leaves_swarms_own_templates_alone(written: Write) -> None:
    text = '[# note #]\n[% if n > 1 %]\na: {n: [[ n ]], h: "{{.Node.Hostname}}", b: {% x %}}\n[% endif %]\n'
    assert render(written(text), {"n": 2}).text == 'a: {n: 2, h: "{{.Node.Hostname}}", b: {% x %}}\n'


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: [[ nope ]]", ":2", "'nope' is undefined"),
        ("a: 1\n\nb: [[ x.y ]]", ":3", "'str object' has no attribute 'y'"),
        ("a: 1\n[% if x %]", ":2", "Unexpected end of template"),
        ("[[ x + ]]", ":1", "unexpected 'end of print statement'"),
        ("a: [[ x | nope ]]", ":1", "No filter named 'nope'"),
        ("\na: [[ x + 1 ]]", ":2", 'can only concatenate str (not "int") to str'),
        ("\na: [[ 1 / 0 ]]", ":2", "division by zero"),
        ("\na: [[ x.__class__.__mro__ ]]", ":2", "access to attribute '__class__' of 'str' object is unsafe"),
    ],
)
def test_a_mistake_names_the_templates_line(written: Write, text: str, line: str, message: str) -> None:
    source = written(text)
    with pytest.raises(UsageError) as caught:
        render(source, {"x": "text"})
    assert caught.value.where == f"{source.file}{line}"
    assert caught.value.message.startswith(message)


def test_a_mistake_hints_at_the_inputs(written: Write) -> None:
    with pytest.raises(UsageError) as caught:
        render(written("[[ c ]]"), {"b": 1, "a": 2})
    assert caught.value.hint == "its inputs are: a, b"


def test_a_template_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        render(StackSource("s", tmp_path, tmp_path / "stack.yml"), {})


def test_mistakes_in_the_rendered_text_say_whose_positions_they_give(written: Write) -> None:
    rendered = render(written("services: {a: {image: x, foo: [[ x ]], bar: 1}}"), {"x": 1})
    with pytest.raises(Problems) as caught:
        rendered.project({})
    assert [error.where.removeprefix(rendered.name) for error in caught.value.errors] == [":1:31", ":1:39"]
    assert rendered.name.endswith("stack.yml (rendered)")
    for error in caught.value.errors:
        assert "`swarmkit stack render` shows" in error.hint


def test_mistakes_in_a_file_beside_a_template_need_no_such_words(written: Write, tmp_path: Path) -> None:
    over = tmp_path / "over.yml"
    over.write_text("services: {a: {foo: 1}}")
    with pytest.raises(UsageError) as caught:
        render(written("services: {a: {image: [[ x ]]}}"), {"x": "y"}).project({}, Options(files=[over]))
    assert caught.value.where == f"{over}:1:21"
    assert "rendered" not in caught.value.hint


def test_mistakes_in_a_plain_file_need_no_such_words(written: Write) -> None:
    with pytest.raises(SwarmkitError) as caught:
        render(written("services: {}", "stack.yml"), {}).project({})
    assert caught.value.hint == ""


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(), number=st.integers())
def test_any_value_goes_into_yaml_unchanged(written: Write, text: str, number: int) -> None:
    body = "image: x, environment: {T: [[ t | yaml ]], N: [[ n | yaml ]]}, command: [[ [t] | yaml ]]"
    project = render(written(f"services: {{a: {{{body}}}}}"), {"t": text, "n": number}).project({})
    service = project.file.services["a"]
    assert service.environment == {"T": text, "N": str(number)}
    assert service.command == [text]


def test_a_value_can_be_kept_from_swarms_templates(written: Write) -> None:
    assert render(written("[[ t | literal ]]"), {"t": "a {{.X}} {{"}).text == 'a {{"{{"}}.X}} {{"{{"}}'


# ---------------------------------------------------------------- the stack web


def web(**given: str) -> dict[str, object]:
    source = find("web")
    assert source.inputs
    values = inputs.resolve(inputs.load(source.inputs), given)
    project = render(source, values).project({})
    (service,) = convert(
        project, "web", Context(images={"web": "built"} if "image" not in given else {})
    ).services
    assert service.routed
    assert (service.build is None) == ("image" in given)
    return service.spec


def test_web_runs_what_was_built() -> None:
    spec = str(web(message='it\'s "$5" {{now}}'))
    assert "'Image': 'built'" in spec
    assert "{'Replicas': 3}" in spec
    assert "StartInterval" in spec
    assert "NODE={{.Node.Hostname}}" in spec
    assert '$5" {{"{{"}}now}}' in spec


def test_web_runs_another_image_with_its_own_health_check() -> None:
    spec = str(web(image="nginx:1.27", replicas="100"))
    assert "'Image': 'nginx:1.27'" in spec
    assert "{'Replicas': 100}" in spec
    assert "Healthcheck" not in spec
