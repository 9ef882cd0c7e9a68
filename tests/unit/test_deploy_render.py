"""Templates of stacks: what is rendered, what passes untouched, and where the mistakes are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarmkit.compose.convert import Context, convert
from swarmkit.compose.load import Options
from swarmkit.deploy import render as rendering
from swarmkit.deploy.catalogue import StackSource, find
from swarmkit.deploy.cluster import Cluster, NodeFacts
from swarmkit.deploy.draft import draft
from swarmkit.deploy.render import Rendered, needs_cluster
from swarmkit.deploy.types import Duration
from swarmkit.deploy.values import Given, Resolved, SecretInput
from swarmkit.errors import Problems, SwarmkitError, UsageError

Write = Callable[..., StackSource]


def render(source: StackSource, values: Mapping[str, Any]) -> Rendered:
    return rendering.render(source, Resolved(values))


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
    with pytest.raises(UsageError, match=r"stack\.yml: no such file"):
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


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (2**32, "4294967296"),
        (Duration(90 * 10**9), "1m30s"),
        (["a", "it's"], '["a", "it\'s"]'),
        ({"a": True, "b": [1.5]}, '{"a": true, "b": [1.5]}'),
        (["$HOME"], '["$$HOME"]'),
    ],
)
def test_a_value_of_any_type_is_written_as_compose_reads_it(written: Write, value: object, text: str) -> None:
    assert render(written("[[ x ]]"), {"x": value}).text == text


def test_values_of_all_types_can_be_quoted(written: Write) -> None:
    value = {"d": Duration(10**9), "t": "<"}
    assert render(written("[[ x | yaml ]] [[ '<' | e | yaml ]]"), {"x": value}).text == (
        '{"d": "1s", "t": "<"} "&lt;"'
    )


def test_a_size_and_a_duration_of_an_input_are_the_same_in_compose(written: Write) -> None:
    body = (
        "services: {a: {image: x, stop_grace_period: [[ grace ]],"
        " deploy: {resources: {limits: {memory: [[ memory ]]}}}}}"
    )
    values = {"memory": 4 * 10**9, "grace": Duration(90 * 10**9)}
    service = render(written(body), values).project({}).file.services["a"]
    assert service.stop_grace_period == 90 * 10**9
    assert service.deploy.resources.limits
    assert service.deploy.resources.limits.memory == 4 * 10**9


def test_a_value_can_be_told_in_a_unit(written: Write) -> None:
    text = "-m [[ memory | to('MiB') ]]m -t [[ wait | to('s') ]]"
    assert render(written(text), {"memory": 2**32, "wait": Duration(90 * 10**9)}).text == "-m 4096m -t 90"
    with pytest.raises(UsageError, match="x is no unit of a size"):
        render(written("[[ 1 | to('x') ]]"), {})


@pytest.mark.parametrize("text", ["[[ x ]]", "[[ x | yaml ]]", "[[ x | literal | yaml ]]"])
def test_what_has_no_value_is_no_text(written: Write, text: str) -> None:
    assert render(written(f"[% if x %]{text}[% endif %]"), {"x": None}).text == ""
    with pytest.raises(UsageError, match="this has no value: write"):
        render(written(text), {"x": None})


def test_a_template_knows_what_its_instance_is_called(written: Write) -> None:
    source = written("[[ instance ]]")
    assert rendering.render(source, Resolved({})).text == "s"
    assert rendering.render(source, Resolved({}), "other").text == "other"


# ---------------------------------------------------------------- secrets

SECRET = "correct horse"
DATA = {"token": SECRET.encode()}
WITH_TOKEN = Resolved({"token": SecretInput("token"), "x": "x"}, DATA)


@pytest.mark.parametrize(
    "text",
    [
        "[[ token ]]",
        "[[ token | yaml ]]",
        "[[ [token] | yaml ]]",
        "[[ [token] ]]",
        "[[ {'a': token} ]]",
        "[[ token | literal ]]",
        "[[ token ~ '' ]]",
        "[[ 'a' ~ token ]]",
        "[[ '%s' | format(token) ]]",
        "[[ token | string ]]",
        "[[ token | upper ]]",
        "[[ [token, 'a'] | join ]]",
        "[[ 'a{}'.format(token) ]]",
    ],
)
def test_a_secret_is_no_text_of_the_compose_file(written: Write, text: str) -> None:
    source = written(f"a: 1\nb: {text}")
    with pytest.raises(UsageError, match="token is a secret, and its value is never part of") as caught:
        rendering.render(source, WITH_TOKEN)
    assert caught.value.where == f"{source.file}:2"
    assert "`secrets: {token: {environment: SWARMKIT_INPUT_TOKEN}}`" in caught.value.hint
    assert SECRET not in f"{caught.value!r} {caught.value.hint}"


@pytest.mark.parametrize(
    "text", ["[[ token | length ]]", "[[ token | tojson ]]", "[[ token.data ]]", "[[ '%r' | format(token) ]]"]
)
def test_no_trick_gets_a_secret_into_the_text(written: Write, text: str) -> None:
    try:
        found = rendering.render(written(text), WITH_TOKEN).text
    except UsageError as error:
        found = f"{error!r} {error.hint}"
    assert SECRET not in found


def test_a_template_may_ask_whether_there_is_a_secret(written: Write) -> None:
    source = written("[% if token %]yes[% else %]no[% endif %]")
    assert rendering.render(source, WITH_TOKEN).text == "yes"
    assert rendering.render(source, Resolved({"token": None})).text == "no"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ("environment: {A: 'x$SWARMKIT_INPUT_TOKEN'}", "services.a.environment.A"),
        ("environment: {SWARMKIT_INPUT_TOKEN: }", "services.a.environment.SWARMKIT_INPUT_TOKEN"),
        ("environment: [SWARMKIT_INPUT_TOKEN]", "services.a.environment.SWARMKIT_INPUT_TOKEN"),
        ("command: [run, '${SWARMKIT_INPUT_TOKEN:-none}']", "services.a.command[1]"),
        ("command: 'run ${SWARMKIT_INPUT_TOKEN}'", "services.a.command[1]"),
        ("deploy: {labels: {l: '${SWARMKIT_INPUT_TOKEN:?why}'}}", "services.a.deploy.labels.l"),
    ],
)
def test_a_variable_with_a_secret_goes_nowhere_but_into_a_secret(
    written: Write, body: str, path: str
) -> None:
    rendered = rendering.render(written(f"services: {{a: {{image: x, {body}}}}}"), WITH_TOKEN)
    with pytest.raises(UsageError) as caught:
        rendered.project({"SWARMKIT_INPUT_TOKEN": SECRET})
    assert caught.value.message == (
        f"{path}: token is a secret, and its value is never part of the Compose file"
    )
    assert SECRET not in f"{caught.value!r} {caught.value.hint} {rendered!r}"


def test_a_config_is_no_place_for_a_secret(written: Write) -> None:
    body = "services: {a: {image: x}}\nconfigs: {c: {content: 'key=${SWARMKIT_INPUT_TOKEN}'}}"
    with pytest.raises(Problems) as caught:
        rendering.render(written(body), WITH_TOKEN).project({})
    assert [str(each).partition(": ")[2].partition(": ")[0] for each in caught.value.errors] == [
        "configs.c.content",
        "configs.c",
    ]


def test_a_mistake_in_the_file_does_not_show_a_secret_that_got_there(written: Write) -> None:
    body = "services: {a: {image: x, stop_grace_period: '$SWARMKIT_INPUT_TOKEN'}}"
    with pytest.raises(UsageError, match="secret-input-token") as caught:
        rendering.render(written(body), WITH_TOKEN).project({"SWARMKIT_INPUT_TOKEN": SECRET})
    assert SECRET not in f"{caught.value!r} {caught.value.hint}"


def test_the_content_of_a_secret_is_the_value_of_the_input(written: Write) -> None:
    body = "services: {a: {image: x}}\nsecrets: {s: {environment: SWARMKIT_INPUT_TOKEN}}"
    project = rendering.render(written(body), WITH_TOKEN).project({"SWARMKIT_INPUT_TOKEN": "another"})
    assert project.secret_data == {"s": SECRET.encode()}
    assert SECRET not in repr(project)


def test_a_secret_is_no_part_of_another(written: Write) -> None:
    stack = written("services: {a: {image: x}}\nsecrets: {s: {environment: LOGIN}}")
    (stack.folder / ".env").write_text("LOGIN=user:${SWARMKIT_INPUT_TOKEN}\n")
    with pytest.raises(UsageError, match="can be all of a secret, and no part of one"):
        rendering.render(stack, WITH_TOKEN).project({})


# ---------------------------------------------------------------- the cluster's facts

NODES = (
    NodeFacts("m1", "manager", "10.0.0.1", {}, 2, 2**30, True),
    NodeFacts("w1", "worker", "10.0.0.2", {"disk": "ssd"}, 4, 2**31, True),
    NodeFacts("w2", "worker", "10.0.0.3", {"disk": "hdd"}, 8, 2**32, False),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[ cluster.nodes | length ]] [[ cluster.workers | length ]]", "3 2"),
        ("[[ cluster.managers[0].address ]]", "10.0.0.1"),
        ("[[ cluster.available | map(attribute='name') | join(',') ]]", "m1,w1"),
        ("[[ cluster.cpus ]] [[ cluster.memory | to('GiB') ]]", "6 3"),
        ("[[ cluster.labels.disk ]]", '["hdd", "ssd"]'),
        ("[% for n in cluster.nodes if n.labels.get('disk') == 'ssd' %][[ n.name ]][% endfor %]", "w1"),
    ],
)
def test_a_template_can_use_the_clusters_facts(written: Write, text: str, expected: str) -> None:
    source = written(text)
    assert needs_cluster(source)
    assert rendering.render(source, Resolved({}), cluster=Cluster(NODES)).text == expected


@pytest.mark.parametrize(
    "text", ["a: [[ x ]]", "[% set cluster = x %][[ cluster ]]", "[# cluster #]", "cluster: [[ x.cluster ]]"]
)
def test_a_template_that_needs_no_facts_is_known_by_it(written: Write, text: str) -> None:
    assert not needs_cluster(written(text))
    assert not needs_cluster(written("[[ cluster ]]", "stack.yml"))


def test_a_template_may_not_reach_into_the_facts(written: Write) -> None:
    with pytest.raises(UsageError, match="access to attribute"):
        rendering.render(written("[[ cluster.__class__ ]]"), Resolved({}), cluster=Cluster(NODES))


# ---------------------------------------------------------------- the stack web


def web(**given: str) -> dict[str, object]:
    made = draft(find("web"), Given([f"{name}={value}" for name, value in given.items()]))
    (service,) = convert(
        made.ready({}).project, "web", Context(images={"web": "built"} if "image" not in given else {})
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


def test_web_beside_web_has_a_host_name_of_its_own() -> None:
    assert "'swarmkit.lb.host': 'intern.example'" in str(web(host="intern.example"))
    assert "swarmkit.lb.host" not in str(web())


def test_web_takes_a_size_for_its_memory() -> None:
    assert "'MemoryBytes': 67108864" in str(web())
    assert "'MemoryBytes': 100000000" in str(web(memory="100 MB"))
