"""Stacks that require others: how they say so, in which order they go, and what may not be taken away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from swarmkit.deploy.catalogue import StackSource, find
from swarmkit.deploy.draft import Ready, draft, requires_by_default, with_required
from swarmkit.deploy.requires import in_order, refuse_if_required, required, requirers
from swarmkit.deploy.values import Given
from swarmkit.errors import Problems, SwarmkitError, UsageError
from swarmkit.swarm import Service


def stack(folder: Path, name: str, requires: str = "") -> StackSource:
    (folder / name).mkdir()
    extension = f"x-swarmkit: {{requires: [{requires}]}}\n" if requires else ""
    (folder / name / "stack.yml").write_text(f"{extension}services: {{a: {{image: x}}}}\n")
    return find(str(folder / name))


def ready(source: StackSource) -> Ready:
    return draft(source, Given()).ready({})


# ---------------------------------------------------------------- saying so


def test_a_stack_names_others_of_the_catalogue_or_by_a_path(tmp_path: Path) -> None:
    stack(tmp_path, "db")
    found = required("x-swarmkit: {requires: [web, ./db]}", "f", tmp_path)
    assert [one.name for one in found] == ["web", "db"]


@pytest.mark.parametrize(
    "text",
    [
        "a: 1",
        "x-swarmkit:",
        "x-swarmkit: {}",
        "a: x-swarmkit",
        "- x-swarmkit",
        "x-swarmkit:\na: !override [1]",
    ],
)
def test_a_file_that_says_nothing_requires_nothing(text: str) -> None:
    assert required(text, "f", Path()) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x-swarmkit: {require: [a]}", "f:1:23: x-swarmkit.require: unknown key"),
        ("x-swarmkit: {requires: web}", 'f:1:24: x-swarmkit.requires: expected a list, got "web"'),
        ("x-swarmkit: [web]", "f:1:13: x-swarmkit: expected a mapping, got a list"),
        (
            "x-swarmkit:\n  requires: [web, nope]",
            'f:2:19: x-swarmkit.requires[1]: there is no stack "nope"',
        ),
    ],
)
def test_a_mistake_in_what_is_required_has_its_place(text: str, message: str) -> None:
    with pytest.raises(SwarmkitError) as caught:
        required(text, "f", Path())
    error = caught.value.errors[0] if isinstance(caught.value, Problems) else caught.value
    assert str(error).startswith(message)


# ---------------------------------------------------------------- the order

GRAPH: Mapping[str, Sequence[str]] = {
    "top": ["left", "right"],
    "left": ["base"],
    "right": ["base"],
    "base": [],
    "a": ["b"],
    "b": ["c"],
    "c": ["b"],
    "self": ["self"],
}


@pytest.mark.parametrize(
    ("start", "running", "order"),
    [
        ("base", [], []),
        ("top", [], ["base", "left", "right"]),
        ("top", ["left"], ["base", "right"]),
        ("top", ["left", "right"], []),
        ("a", ["b"], []),
    ],
)
def test_what_is_required_goes_first_and_once(start: str, running: list[str], order: list[str]) -> None:
    assert list(in_order(start, GRAPH.__getitem__, running)) == order


@pytest.mark.parametrize(
    ("start", "circle"), [("a", "b requires c requires b"), ("self", "self requires self")]
)
def test_a_circle_is_an_error_that_shows_it(start: str, circle: str) -> None:
    with pytest.raises(UsageError, match=f"can never start: {circle}"):
        in_order(start, GRAPH.__getitem__, [])


def test_only_what_does_not_run_is_made_ready(tmp_path: Path) -> None:
    for name, others in (
        ("base", ""),
        ("left", "../base"),
        ("right", "../base"),
        ("up", "../left, ../right"),
    ):
        stack(tmp_path, name, others)
    made: list[str] = []

    def prepare(source: StackSource) -> Ready:
        made.append(source.name)
        return ready(source)

    wanted = ready(find(str(tmp_path / "up")))
    queue = with_required(wanted, ["right"], prepare)
    assert [one.instance for one in queue] == ["base", "left", "up"]
    assert queue[-1] is wanted
    assert made == ["left", "base"]


def test_what_a_stack_requires_by_default_is_told_without_its_inputs(tmp_path: Path) -> None:
    def told(text: str, inputs: str = "{}") -> list[str] | None:
        (tmp_path / "stack.yml.j2").write_text(text)
        (tmp_path / "inputs.yml").write_text(inputs)
        return requires_by_default(find(str(tmp_path)))

    inputs = "token: {type: secret}\nlake: {type: boolean, default: true}\nname: {}\n"
    text = "x-swarmkit: {requires: [ [% if token and lake %]web[% endif %]]}\n"
    assert told("a: 1") == []
    assert told(text, inputs) == ["web"]
    assert told(text + "[% for n in cluster.nodes %][[ n.name ]][% endfor %]", inputs) == ["web"]
    assert told("[[ name ]]", inputs) is None
    with pytest.raises(UsageError, match='there is no stack "nope"'):
        told("x-swarmkit: {requires: [nope]}")


# ---------------------------------------------------------------- what runs


def service(stack: str, requires: str = "") -> Service:
    labels = {"com.docker.stack.namespace": stack} | ({"swarmkit.requires": requires} if requires else {})
    return Service.of({"ID": stack, "Spec": {"Name": f"{stack}_a", "Labels": labels}})


def test_services_carry_what_their_stack_requires(tmp_path: Path) -> None:
    stack(tmp_path, "db")
    stack(tmp_path, "app", "../db, web")
    project = ready(find(str(tmp_path / "app"))).project
    assert project.file.services["a"].deploy.labels == {"swarmkit.requires": "db,web"}
    assert ready(find(str(tmp_path / "db"))).project.file.services["a"].deploy.labels == {}


def test_who_requires_a_stack_is_told_by_the_labels() -> None:
    running = [
        service("spark"),
        service("jupyter", "spark"),
        service("tfaas", "db,spark"),
        service("db", "db"),
    ]
    assert requirers(running, "spark") == ["jupyter", "tfaas"]
    assert requirers(running, "jupyter") == []
    assert requirers(running, "par") == []


def test_a_stack_that_is_required_is_not_taken_away() -> None:
    refuse_if_required([service("spark")], "spark")
    with pytest.raises(UsageError, match="spark: jupyter requires it") as caught:
        refuse_if_required([service("spark"), service("jupyter", "spark")], "spark")
    assert "swarmkit stack down jupyter" in caught.value.hint
    assert "--force" in caught.value.hint
