"""The commands about stacks that need no cluster, and what they ask before they change one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from swarmkit.cli.deploying import standing
from swarmkit.cli.main import main
from swarmkit.deploy.plan import Change
from swarmkit.swarm import Service
from swarmkit.target import Swarm, Target
from tests.unit.memoryengine import MemoryEngine

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

    def error(self, *arguments: str, code: int) -> Any:
        return json.loads(self(*arguments, "-o", "json", code=code))["error"]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> MemoryEngine:
    """The engine of the cluster that the commands find."""
    made = MemoryEngine()
    target = Target("memory", "--engine", named=True)

    @contextmanager
    def opened(*_: object, **__: object) -> Iterator[Swarm]:
        yield Swarm(target, made)

    monkeypatch.setattr("swarmkit.target.resolve", lambda *_, **__: target)
    monkeypatch.setattr("swarmkit.target.opened", opened)
    return made


# What needs no registry.
OFFLINE = ("--resolve-image", "never")


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "inputs.yml").write_text(
        "memory: {type: size, default: 4 GB, constraints: [{in_range: [1 GB, UNBOUNDED]}]}\n"
        "key: {description: which, constraints: [{min_length: 1}, {max_length: 9}]}\n"
        "ports: {type: list, required: false,"
        " entry_schema: {type: port, constraints: {greater_than: 1023}}}\n"
        "debug: {type: boolean, default: false}\n"
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
        ["ports", "list of port", "-", "each greater_than: 1023"],
        ["debug", "boolean", "false", "-"],
        ["token", "secret", "required", "-"],
    ]


def test_inputs_are_json(command: Command, stack: Path) -> None:
    memory, _, ports, _, token = command.json("stack", "inputs", str(stack))
    assert memory == {
        "name": "memory",
        "type": "size",
        "description": "",
        "default": "4 GB",
        "required": True,
        "constraints": [{"in_range": ["1 GB", "UNBOUNDED"]}],
        "entries": None,
        "entry_constraints": [],
        "secret": False,
        "variable": "SWARMKIT_INPUT_MEMORY",
    }
    assert (ports["entries"], ports["required"]) == ("port", False)
    assert ports["entry_constraints"] == [{"greater_than": 1023}]
    assert (token["secret"], token["variable"]) == (True, "SWARMKIT_INPUT_TOKEN")


def test_show_tells_what_a_stack_is(command: Command) -> None:
    assert command("stack", "show", "web").startswith("web: A small web site on several tasks")
    assert "requires" not in command.out
    document = command.json("stack", "show", "web")
    assert document["requires"] == []
    assert document["name"] == "web"
    assert "replicas" in [one["name"] for one in document["inputs"]]


def test_show_tells_what_a_stack_requires(command: Command, stack: Path, tmp_path: Path) -> None:
    (tmp_path / "on.yml").write_text("x-swarmkit: {requires: [web, ./app]}\nservices: {a: {image: x}}\n")
    assert "requires  web, app\n" in command("stack", "show", str(tmp_path / "on.yml"))
    assert command.json("stack", "show", str(tmp_path / "on.yml"))["requires"] == ["web", "app"]
    assert "requires  what its inputs make of it\n" in command("stack", "show", str(stack))
    assert command.json("stack", "show", str(stack))["requires"] is None


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


@pytest.mark.parametrize(
    ("template", "options", "error", "hint"),
    [
        ("a: [[ key", (), "stack.yml.j2:1: unexpected end of template", ""),
        ("a:\n  - [[[ key ]], 1]", (), "stack.yml.j2:2: unexpected ']'", "needs a space: `[ [[ value ]]"),
        ("a: 1", ("--name", "a/b"), '"a/b" cannot be the name of a stack', "letters, digits"),
    ],
)
def test_nobody_is_asked_for_inputs_where_no_answer_would_help(
    command: Command,
    stack: Path,
    monkeypatch: pytest.MonkeyPatch,
    template: str,
    options: tuple[str, ...],
    error: str,
    hint: str,
) -> None:
    (stack / "stack.yml.j2").write_text(template)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.prompt", pytest.fail)
    command("stack", "render", str(stack), *options, code=2)
    assert error in command.err
    assert hint in command.err


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
def needing(tmp_path: Path) -> Path:
    """A stack that requires another one, and is on its network."""
    service = "services: {a: {image: x, healthcheck: {test: t}}}\n"
    network = "networks: {default: {external: true, name: db_default}}\n"
    for name, more in (("db", ""), ("site", f"x-swarmkit: {{requires: [../db]}}\n{network}")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stack.yml").write_text(more + service)
    return tmp_path / "site"


DOES_NOT_RUN = "site requires db, which does not run here"


def test_what_runs_already_is_left_alone(command: Command, needing: Path, engine: MemoryEngine) -> None:
    command("stack", "up", str(needing.parent / "db"), *OFFLINE)
    engine.writes.clear()
    command("stack", "up", str(needing), *OFFLINE)
    assert engine.writes == ["create services site_a"]
    command("stack", "down", "db", code=2)
    assert "db: site requires it" in command.err


def test_with_yes_what_is_required_is_brought_up_first(
    command: Command, needing: Path, engine: MemoryEngine
) -> None:
    assert command.json("stack", "up", str(needing), *OFFLINE, "-y")["changed"] == 3
    assert engine.writes == ["create networks db_default", "create services db_a", "create services site_a"]
    assert "  db first, which site requires" in command.err


def test_without_an_answer_what_is_missing_is_an_error_with_the_command(
    command: Command, needing: Path, engine: MemoryEngine
) -> None:
    error = command.error("stack", "up", str(needing), *OFFLINE, code=2)
    assert error["message"] == DOES_NOT_RUN
    assert error["hint"] == (
        f"swarmkit stack up {needing}/../db/stack.yml; or add --yes, and what is missing is brought up first"
    )
    assert engine.writes == []


def test_a_dry_run_plans_what_is_required_and_what_requires_it(
    command: Command, needing: Path, engine: MemoryEngine
) -> None:
    shown = command("stack", "up", str(needing), *OFFLINE, "--dry-run").splitlines()
    planned = [line.split(":")[0].strip() for line in shown[:-1]]
    assert planned == ["create network db_default", "create service db_a", "create service site_a"]
    assert shown[-1] == "3 changes planned; nothing was changed"
    assert engine.writes == []


def test_a_dry_run_sees_that_two_new_stacks_want_one_port(
    command: Command, needing: Path, engine: MemoryEngine
) -> None:
    for folder in (needing, needing.parent / "db"):
        file = folder / "stack.yml"
        file.write_text(file.read_text().replace("image: x", "image: x, ports: ['80:80']"))
    error = command.error("stack", "up", str(needing), *OFFLINE, "--dry-run", code=2)
    assert error["message"] == "port 80/tcp is published by db_a already"


# ---------------------------------------------------------------- routes


ROUTED = "{image: x, deploy: {labels: {swarmkit.lb.port: 80}, update_config: {monitor: 1ms}}}"


@pytest.fixture
def routed(monkeypatch: pytest.MonkeyPatch, engine: MemoryEngine) -> list[list[str]]:
    """The services that the balancer was told to go by, one list a time."""
    engine.post("/networks/create", {"Name": "swarmkit-edge"})
    told: list[list[str]] = []

    def follow_routes(*_: object, known: Sequence[Service] | None = None, **__: object) -> Sequence[Change]:
        told.append([service.name for service in known or ()])
        return []

    monkeypatch.setattr("swarmkit.balancer.deploy.follow_routes", follow_routes)
    return told


def test_a_dry_run_counts_no_routes_of_services_that_would_go(
    command: Command, tmp_path: Path, engine: MemoryEngine, routed: list[list[str]]
) -> None:
    file = tmp_path / "app.yml"
    for services in ("web: {image: x}", f"web: {{image: x}}, old: {ROUTED}"):
        file.write_text(f"services: {{{services}}}\n")
        command("stack", "up", str(file), *OFFLINE)
    routed.clear()
    command("stack", "rollback", "app", "--dry-run")
    file.write_text("services: {web: {image: x}}\n")
    command("stack", "up", str(file), *OFFLINE, "--dry-run", "--prune")
    command("stack", "up", str(file), *OFFLINE, "--dry-run")
    assert routed == [["app_web"], ["app_web"], ["app_old", "app_web"]]
    assert set(engine.held["services"]) == {"app_web", "app_old"}


@pytest.mark.usefixtures("routed")
def test_a_route_goes_to_another_service_where_the_one_that_had_it_is_pruned(
    command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "app.yml"
    file.write_text(f"services: {{a: {ROUTED}}}\n")
    command("stack", "up", str(file), *OFFLINE)
    file.write_text(f"services: {{b: {ROUTED}}}\n")
    command("stack", "up", str(file), *OFFLINE, code=2)
    assert "app_b: app_a already has the route any host/" in command.err
    command("stack", "up", str(file), *OFFLINE, "--prune")


# ---------------------------------------------------------------- what became of it


def test_up_says_which_services_are_healthy_run_or_have_ended(
    command: Command, tmp_path: Path, engine: MemoryEngine
) -> None:
    engine.state = lambda spec: "complete" if "Job" in str(spec["Mode"]) else "running"
    file = tmp_path / "app.yml"
    healthy = "a: {image: x, healthcheck: {test: t}}"
    file.write_text(f"services: {{{healthy}}}\n")
    assert command("stack", "up", str(file), *OFFLINE).startswith("app: running and healthy (2 changes, ")
    file.write_text(
        f"services: {{{healthy}, b: {{image: x, deploy: {{mode: replicated-job}}}},"
        " c: {image: x, deploy: {update_config: {monitor: 1ms}}}}\n"
    )
    assert command("stack", "up", str(file), *OFFLINE).startswith(
        "app: 1 of 3 services running and healthy, 1 running, 1 completed (2 changes, "
    )
    assert "app  2/2 tasks, 1/1 jobs completed" in " ".join(command("stack", "ls").split("  "))


def test_ls_tells_swarmkits_own_stacks_from_others(command: Command, engine: MemoryEngine) -> None:
    for name in ("swarmkit-lb", "theirs"):
        labels = {"com.docker.stack.namespace": name}
        spec = {"Name": f"{name}_a", "Labels": labels, "Mode": {"Global": {}}, "TaskTemplate": {}}
        engine.post("/services/create", spec)
    shown = {line.split()[0]: line for line in command("stack", "ls").splitlines()}
    assert "(swarmkit's own)" in shown["swarmkit-lb"]
    assert "(not in the catalogue)" in shown["theirs"]


@pytest.mark.parametrize(
    ("mode", "policy", "running", "words"),
    [
        ({"Replicated": {"Replicas": 0}}, {}, 0, "without tasks"),
        ({"Global": {}}, {}, 0, "without tasks"),
        ({"Replicated": {"Replicas": 2}}, {"Condition": "none"}, 0, "completed"),
        ({"Replicated": {"Replicas": 2}}, {"Condition": "none"}, 1, "running"),
        ({"GlobalJob": {}}, {}, 0, "completed"),
    ],
)
def test_what_has_ended_is_not_called_running(
    mode: dict[str, Any], policy: dict[str, str], running: int, words: str
) -> None:
    spec = {
        "Name": "a",
        "Mode": mode,
        "TaskTemplate": {"ContainerSpec": {"Image": "x"}, "RestartPolicy": policy},
    }
    assert (
        standing([Service.of({"ID": "a", "Spec": spec, "ServiceStatus": {"RunningTasks": running}})]) == words
    )


def test_a_stack_without_services_runs_nothing() -> None:
    assert standing([]) == "no service runs"
