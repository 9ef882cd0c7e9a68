"""The commands about stacks that need no cluster, and what they ask before they change one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from swarmkit.cli import stacks
from swarmkit.cli.common import Globals
from swarmkit.cli.main import main
from swarmkit.deploy.catalogue import find
from swarmkit.deploy.draft import Ready, draft
from swarmkit.deploy.values import Given
from swarmkit.errors import UsageError
from swarmkit.swarm import Service
from swarmkit.target import Swarm
from swarmkit.ui import Ui

SECRET = "correct horse"


class Command:
    """Runs the command line, and keeps what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: str, code: int = 0) -> str:
        with pytest.raises(SystemExit) as raised:
            main(arguments)
        self.out, self.err = self.capsys.readouterr()
        assert raised.value.code == code, self.err
        assert "Traceback" not in self.err
        return self.out

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "-o", "json"))


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "inputs.yml").write_text(
        "memory: {type: size, default: 4 GB, constraints: [{in_range: [1 GB, UNBOUNDED]}]}\n"
        "key: {description: which, constraints: [{min_length: 1}, {max_length: 9}]}\n"
        "ports: {type: list, entry_schema: port, required: false}\n"
        "token: {type: secret}\n"
    )
    (folder / "stack.yml.j2").write_text(
        "services: {a: {image: x, command: [[ key | yaml ]],"
        " deploy: {resources: {limits: {memory: [[ memory ]]}}}}}\n"
    )
    return folder


def test_inputs_are_a_table_that_marks_what_is_required_and_secret(command: Command, stack: Path) -> None:
    rows = [line.split("  ") for line in command("stack", "inputs", str(stack)).splitlines()]
    assert [[cell.strip() for cell in row if cell.strip()] for row in rows] == [
        ["INPUT", "TYPE", "DEFAULT", "CONSTRAINTS", "DESCRIPTION"],
        ["memory", "size", "4 GB", "in_range: [1 GB, UNBOUNDED]"],
        ["key", "string", "required", "min_length: 1, max_length: 9", "which"],
        ["ports", "list of port", "-", "-"],
        ["token", "secret", "required", "-"],
    ]


def test_inputs_are_json(command: Command, stack: Path) -> None:
    memory, _, ports, token = command.json("stack", "inputs", str(stack))
    assert memory == {
        "name": "memory",
        "type": "size",
        "description": "",
        "default": "4 GB",
        "required": True,
        "constraints": [{"in_range": ["1 GB", "UNBOUNDED"]}],
        "entries": None,
        "secret": False,
        "variable": "SWARMKIT_INPUT_MEMORY",
    }
    assert (ports["entries"], ports["required"]) == ("port", False)
    assert (token["secret"], token["variable"]) == (True, "SWARMKIT_INPUT_TOKEN")


def test_show_tells_what_a_stack_is(command: Command) -> None:
    assert command("stack", "show", "web").startswith("web: A small web site on several tasks")
    document = command.json("stack", "show", "web")
    assert document["name"] == "web"
    assert "replicas" in [one["name"] for one in document["inputs"]]


def test_render_needs_no_cluster_and_has_no_secret(
    command: Command, stack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWARMKIT_INPUT_TOKEN", SECRET)
    monkeypatch.setenv("SWARMKIT_INPUT_KEY", "k")
    text = command("stack", "render", str(stack), "--set", "memory=5 GB")
    assert text == (
        'services: {a: {image: x, command: "k", deploy: {resources: {limits: {memory: 5000000000}}}}}\n'
    )
    assert SECRET not in command.out + command.err


def test_a_secret_on_the_command_line_is_refused_and_not_repeated(command: Command, stack: Path) -> None:
    command("stack", "render", str(stack), "--set", f"token={SECRET}", code=2)
    assert "error: --set token: token is a secret and cannot be given here" in command.err
    assert "error: the input key is required: which" in command.err
    assert SECRET not in command.out + command.err


def test_a_secret_file_is_read(command: Command, stack: Path, tmp_path: Path) -> None:
    (tmp_path / "t").write_text(SECRET)
    values = tmp_path / "v.yml"
    values.write_text("key: a\n")
    files = ("--values", str(values), "--secret-file", f"token={tmp_path / 't'}")
    assert '"a"' in command("stack", "render", str(stack), *files)
    assert SECRET not in command.out + command.err


def test_a_new_stack_is_made_where_one_is_and_rendered(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    document = command.json("stack", "new", "blog")
    assert (document["folder"], len(document["files"])) == ("./blog", 5)
    assert "/second" in command("stack", "render", document["folder"], "--name", "second")
    command("stack", "new", "blog", code=2)


def test_a_template_that_needs_a_cluster_says_that_there_is_none(
    command: Command, stack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stack / "stack.yml.j2").write_text("[[ cluster.cpus ]]")
    (stack / "inputs.yml").unlink()
    monkeypatch.chdir(stack)
    command("--engine", "unix:///none/such.sock", "stack", "render", str(stack), code=3)


# ---------------------------------------------------------------- required stacks


@pytest.fixture
def needing(tmp_path: Path) -> Ready:
    for name, requires in (("db", ""), ("site", "x-swarmkit: {requires: [../db]}\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stack.yml").write_text(f"{requires}services: {{a: {{image: x}}}}\n")
    return draft(find(str(tmp_path / "site")), Given()).ready({})


def queue(
    wanted: Ready, monkeypatch: pytest.MonkeyPatch, *running: str, yes: bool = False, dry_run: bool = False
) -> list[str]:
    found = [
        Service.of({"ID": name, "Spec": {"Name": name, "Labels": {"com.docker.stack.namespace": name}}})
        for name in running
    ]
    monkeypatch.setattr("swarmkit.swarm.services", lambda _engine: found)

    class Somewhere:
        engine = None

    given = Globals(Ui(), None, None, yes)
    swarm = cast(Swarm, Somewhere())
    return [one.instance for one in stacks._with_required(given, swarm, wanted, Given(), dry_run=dry_run)]


def test_what_runs_already_is_left_alone(needing: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    assert queue(needing, monkeypatch, "db") == ["site"]


def test_with_yes_what_is_required_is_brought_up_first(
    needing: Ready, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert queue(needing, monkeypatch, "other", yes=True) == ["db", "site"]
    assert "db first, which site requires" in capsys.readouterr().err


def test_without_an_answer_what_is_missing_is_an_error_with_the_command(
    needing: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="site requires db, which does not run here") as caught:
        queue(needing, monkeypatch)
    assert caught.value.hint == "swarmkit stack up db; or add --yes, and it is brought up first"


def test_a_dry_run_plans_what_is_required(
    needing: Ready, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert queue(needing, monkeypatch, dry_run=True) == ["db"]
    assert "can be told once that runs" in capsys.readouterr().err
