"""The commands that change one service, on an engine in memory: from the words to what is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from swarmkit.deploy.plan import Change
from swarmkit.swarm import Service
from swarmkit.target import Swarm, Target
from tests.unit.memoryengine import MemoryEngine
from tests.unit.test_cli_stacks import OFFLINE, Command

HEALTH = "healthcheck: {test: a}"
ROUTED = "deploy: {labels: {swarmkit.lb.port: '80'}}"


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> MemoryEngine:
    """The engine of the cluster that the commands find."""
    made = MemoryEngine()
    made.post("/networks/create", {"Name": "swarmkit-edge", "Labels": {}})
    made.digests = {"x:2": "sha256:" + "2" * 64, "x:3": "sha256:" + "3" * 64}
    target = Target("memory", "--engine", named=True)

    @contextmanager
    def opened(*_: object, **__: object) -> Iterator[Swarm]:
        yield Swarm(target, made)

    monkeypatch.setattr("swarmkit.target.resolve", lambda *_, **__: target)
    monkeypatch.setattr("swarmkit.target.opened", opened)
    monkeypatch.setattr("swarmkit.services.canary.PROXY_SECONDS", 0.0)
    return made


@pytest.fixture
def web(command: Command, engine: MemoryEngine, tmp_path: Path) -> Path:
    """A stack that runs: `st`, with the service `web`."""
    file = tmp_path / "stack.yml"
    file.write_text(f"services: {{web: {{image: 'x:1', {HEALTH}, environment: {{A: '1'}}, {ROUTED}}}}}")
    up(command, file)
    engine.writes.clear()
    return file


def broken(spec: dict[str, Any]) -> str:
    """The state of a service's tasks, where the image x:2 does not run."""
    return "failed" if "x:2" in spec["TaskTemplate"]["ContainerSpec"]["Image"] else "running"


def up(command: Command, file: Path, *options: str) -> str:
    return command("stack", "up", str(file), "--name", "st", *OFFLINE, *options)


def spec(engine: MemoryEngine, name: str = "st_web") -> dict[str, Any]:
    found: dict[str, Any] = engine.held["services"][name]["Spec"]
    return found


def image(engine: MemoryEngine, name: str = "st_web") -> str:
    return str(spec(engine, name)["TaskTemplate"]["ContainerSpec"]["Image"])


def environment(engine: MemoryEngine) -> list[str]:
    return list(spec(engine)["TaskTemplate"]["ContainerSpec"].get("Env") or [])


@pytest.mark.usefixtures("web")
def test_an_update_is_one_write_and_a_revision_of_the_stack(command: Command, engine: MemoryEngine) -> None:
    done = command.json("update", "web", "--image", "x:2", "--env", "A=2", "--env", "B=3")
    assert (done["services"], done["changed"], done["converged"], done["rolled_back"]) == (
        ["st_web"],
        1,
        True,
        False,
    )
    fields = done["changes"][0]["fields"]
    assert set(fields) == {"image", "env.A", "env.B"}
    assert engine.writes == ["update services st_web"]
    assert image(engine) == f"x:2@sha256:{'2' * 64}"
    *_, revision = command.json("stack", "history", "st")
    assert (revision["doing"], revision["state"]) == ("update web --image x:2", "done")


@pytest.mark.usefixtures("web")
def test_what_is_so_already_is_said_and_not_written(command: Command, engine: MemoryEngine) -> None:
    assert "nothing to do" in command("update", "web", "--env", "A=1", "--env-rm", "NONE")
    assert "note: st_web: it has no variable NONE" in command.out
    assert engine.writes == []


@pytest.mark.usefixtures("web")
def test_a_dry_run_shows_the_change_and_touches_nothing(command: Command, engine: MemoryEngine) -> None:
    dry = ("update", "web", "--image", "x:2", "--dry-run")
    command(*dry, "--detailed-exitcode", code=5)
    assert "image x:1 → x@22222222" in command.out
    assert "1 change planned; nothing was changed" in command.out
    assert "stack" not in command.json(*dry)
    command("update", "web", "--env", "A=1", "--dry-run", "--detailed-exitcode")
    assert engine.writes == []


def test_a_deployment_afterwards_shows_what_it_sets_back(
    command: Command, engine: MemoryEngine, web: Path
) -> None:
    command("update", "web", "--image", "x:2", "--env", "A=2")
    up(command, web, "--dry-run")
    assert "env.A 2 → 1" in command.out
    assert "x@22222222 → x:1" in command.out
    assert "by hand" not in command.out
    up(command, web)
    assert (image(engine), environment(engine)) == ("x:1", ["A=1"])


@pytest.mark.usefixtures("web")
def test_an_update_that_fails_is_taken_back_with_the_reason(command: Command, engine: MemoryEngine) -> None:
    engine.state = broken
    error = command.error("update", "web", "--image", "x:2", code=4)
    assert (error["where"], error["rolled_back"]) == ("st_web", True)
    assert "it broke" in error["message"]
    assert image(engine) == "x:1"
    assert len(command.json("stack", "history", "st")) == 1


def test_what_somebody_else_does_meanwhile_is_not_taken_back_with_an_update_that_fails(
    command: Command, engine: MemoryEngine, web: Path
) -> None:
    web.write_text(f"services: {{web: {{image: 'x:1', {HEALTH}}}, other: {{image: 'x:1', {HEALTH}}}}}")
    up(command, web)
    # As docker service create makes them, there is no number of the file's to go by.
    del spec(engine)["Labels"]["swarmkit.replicas"]
    engine.writes.clear()

    def meanwhile(_: str) -> None:
        engine.on_write = lambda _: None
        engine.state = ill

    def ill(one: dict[str, Any]) -> str:
        spec(engine)["Mode"] = {"Replicated": {"Replicas": 7}}
        spec(engine, "st_other")["TaskTemplate"]["ContainerSpec"]["Image"] = "x:9"
        return broken(one)

    engine.on_write = meanwhile
    # There never are seven: whether what was there before runs is another question.
    command("update", "web", "--image", "x:2", "--timeout", "1", code=4)
    assert "returning st to what it was" in command.err
    assert (image(engine), image(engine, "st_other")) == ("x:1", "x:9")
    assert spec(engine)["Mode"] == {"Replicated": {"Replicas": 7}}
    assert engine.writes == ["update services st_web"] * 2


@pytest.mark.usefixtures("web")
@pytest.mark.parametrize("option", [("--no-rollback",), ("--failure-action", "pause")])
def test_an_update_is_left_as_it_is_where_that_is_asked_for(
    command: Command, engine: MemoryEngine, option: tuple[str, ...]
) -> None:
    engine.state = broken
    error = command.error("update", "web", "--image", "x:2", *option, code=4)
    assert error["rolled_back"] is False
    assert image(engine).startswith("x:2")


@pytest.mark.usefixtures("web")
def test_an_image_that_cannot_be_had_stops_nothing(command: Command, engine: MemoryEngine) -> None:
    error = command.error("update", "web", "--image", "none:1", code=1)
    assert "none:1" in error["message"]
    assert engine.writes == []
    engine.images["none:1"] = {}
    command("update", "web", "--image", "none:1")
    assert image(engine) == "none:1"
    assert "cannot be reached" in command.err
    command("update", "web", "--image", "x:2")
    engine.digests.clear()
    assert "nothing to do" in command("update", "web", "--image", "x:2")


@pytest.mark.usefixtures("web")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nothing is to be changed"),
        (("--replicas", "3"), "update keeps the number of replicas"),
        (("--continue", "--abort"), "goes with nothing else"),
        (("--abort", "--image", "x:2"), "goes with nothing else"),
        (("--canary", "10%"), "nothing is to be changed"),
        (("--canary", "0%", "--image", "x:2"), "from 1% to 99%"),
        (("--canary", "5", "--image", "x:2", "--force"), "leave --force out"),
        (("--continue",), "it has no canary"),
        (("--label", "swarmkit.lb.port=none"), "swarmkit.lb.port"),
        (("--secret", "none"), 'there is no secret "none"'),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_changed(
    command: Command, engine: MemoryEngine, arguments: tuple[str, ...], said: str
) -> None:
    assert said in command.error("update", "web", *arguments, code=2)["message"]
    assert engine.writes == []


def test_swarmkits_own_services_are_left_to_swarmkit(command: Command, engine: MemoryEngine) -> None:
    alone(engine, "swarmkit-registry")
    for words in (("update", "swarmkit-registry", "--force"), ("rollback", "swarmkit-registry")):
        assert "swarmkit's own" in command.error(*words, code=2)["message"]


@pytest.mark.usefixtures("web")
def test_a_service_is_rolled_back_and_keeps_its_scale(command: Command, engine: MemoryEngine) -> None:
    command("update", "web", "--image", "x:2", "--env", "A=2")
    engine.held["services"]["st_web"]["Spec"]["Mode"]["Replicated"]["Replicas"] = 1
    done = command.json("rollback", "web")
    assert (done["services"], done["changed"], done["converged"]) == (["st_web"], 1, True)
    assert (image(engine), environment(engine)) == ("x:1", ["A=1"])
    command("rollback", "web", "2")
    assert environment(engine) == ["A=2"]
    assert [one["doing"] for one in command.json("stack", "history", "st")][2:] == [
        "rollback web",
        "rollback web 2",
    ]
    assert "has not changed" not in command("rollback", "web", "--dry-run")


def test_the_balancer_gets_what_routes_need_also_on_the_way_back(
    command: Command, engine: MemoryEngine, web: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def bring_secrets(*_: object, **__: object) -> None:
        done.append("bring")

    def follow_routes(*_: object, **__: object) -> list[Change]:
        done.append("follow")
        return []

    monkeypatch.setattr("swarmkit.balancer.deploy.bring_secrets", bring_secrets)
    monkeypatch.setattr("swarmkit.balancer.deploy.follow_routes", follow_routes)
    engine.on_write = done.append
    complete = ["bring", "update services st_web", "follow"]
    command("update", "web", "--label", "swarmkit.lb.auth=users")
    assert done == complete
    done.clear()
    command("rollback", "web")
    assert done == complete
    command("update", "web", "--env", "A=2")
    done.clear()
    command("rollback", "web")
    assert done == complete[:2], "routes that stay as they are need nothing"
    web.write_text(web.read_text().replace("'80'", "'80', swarmkit.lb.auth: users"))
    done.clear()
    up(command, web)
    command("stack", "rollback", "st")
    assert done == complete * 2


@pytest.mark.usefixtures("web")
def test_without_an_earlier_state_a_rollback_says_what_to_do(command: Command, engine: MemoryEngine) -> None:
    error = command.error("rollback", "web", code=2)
    assert "has not changed since it was made" in error["message"]
    assert "swarmkit update" in error["hint"]
    assert engine.writes == []


def alone(engine: MemoryEngine, name: str, **labels: str) -> None:
    """A service without a stack, as docker service create makes it."""
    container = {"Image": "x:1", "Healthcheck": {"Test": ["CMD", "true"]}}
    engine.post(
        "/services/create",
        {
            "Name": name,
            "Labels": labels,
            "TaskTemplate": {"ContainerSpec": container},
            "Mode": {"Replicated": {"Replicas": 1}},
        },
    )
    engine.writes.clear()


def test_a_service_without_a_stack_has_revisions_of_its_own(command: Command, engine: MemoryEngine) -> None:
    alone(engine, "web")
    alone(engine, "other")
    assert "there is no revision" in command.error("rollback", "web", code=2)["message"]
    command("update", "web", "--image", "x:2")
    command("update", "web", "--image", "x:3")
    assert "nothing to do" in command("update", "web", "--image", "x:3")
    command("rollback", "web")
    assert image(engine, "web").startswith("x:2@")
    spec(engine, "web")["Mode"]["Replicated"]["Replicas"] = 0
    command("rollback", "web", "2")
    assert image(engine, "web").startswith("x:3@")
    assert spec(engine, "web")["Mode"]["Replicated"]["Replicas"] == 0
    assert image(engine, "other") == "x:1"
    assert "there is no revision" in command.error("rollback", "other", code=2)["message"]


def test_an_update_of_a_service_without_a_stack_is_taken_back_too(
    command: Command, engine: MemoryEngine
) -> None:
    alone(engine, "web")
    engine.state = broken
    assert command.error("update", "web", "--image", "x:2", code=4)["rolled_back"] is True
    assert image(engine, "web") == "x:1"
    assert "returning web to what it was" in command.err


def services(engine: MemoryEngine) -> dict[str, Service]:
    return {name: Service.of(raw) for name, raw in engine.held["services"].items()}


def test_a_canary_is_made_told_of_and_gone_on_with(command: Command, engine: MemoryEngine, web: Path) -> None:
    command("update", "web", "--image", "x:2", "--canary", "10%")
    assert "swarmkit update st_web --continue" in command.out
    found = services(engine)
    assert (found["st_web"].image, found["st_web-canary"].image[:4]) == ("x:1", "x:2@")
    assert found["st_web-canary"].labels["swarmkit.lb.weight"] == "10"
    another = ("update", "web", "--canary", "5", "--image", "x:3")
    for words in (("update", "web", "--env", "A=3"), ("rollback", "web"), another):
        assert "it has a canary" in command.error(*words, code=2)["message"]
    assert "decide on it" in command.error("update", "web-canary", "--force", code=2)["hint"]
    assert "a canary of st_web, 10%" in command("service", "ls")
    up(command, web, "--prune")
    assert "st_web-canary is a canary, and stays" in command.err
    assert set(services(engine)) == {"st_web", "st_web-canary"}
    engine.writes.clear()
    done = command.json("update", "web", "--continue")
    assert [(one["name"], one["action"]) for one in done["changes"]] == [
        ("st_web", "update"),
        ("st_web-canary", "remove"),
    ]
    assert engine.writes == [
        "update services st_web",
        # Its share, and then its tasks.
        "update services st_web-canary",
        "update services st_web-canary",
        "remove services st_web-canary",
    ]
    assert list(services(engine)) == ["st_web"]
    assert image(engine).startswith("x:2@")
    command("rollback", "web")
    assert image(engine) == "x:1"


@pytest.mark.usefixtures("web")
def test_a_canary_that_is_given_up_leaves_the_service_as_it_was(
    command: Command, engine: MemoryEngine
) -> None:
    before = spec(engine)
    command("update", "web", "--image", "x:2", "--canary", "10%")
    command("update", "web", "--abort")
    assert engine.held["services"].keys() == {"st_web"}
    assert spec(engine) == before
    assert "it has no canary" in command.error("update", "web", "--abort", code=2)["message"]


@pytest.mark.usefixtures("web")
def test_a_canary_is_given_up_also_where_the_service_itself_is_ill(
    command: Command, engine: MemoryEngine
) -> None:
    command("update", "web", "--image", "x:2", "--canary", "10%")
    engine.state = lambda _: "failed"
    assert command.json("update", "web", "--abort")["converged"] is False
    assert "st_web: 0 of 1 tasks run" in command.err
    assert engine.held["services"].keys() == {"st_web"}


@pytest.mark.usefixtures("web")
def test_there_is_a_way_out_of_a_canary_that_was_gone_on_with_and_failed(
    command: Command, engine: MemoryEngine
) -> None:
    command("update", "web", "--image", "x:2", "--canary", "10%")
    engine.state = broken
    command("update", "web", "--continue", "--no-rollback", code=4)
    assert engine.held["services"].keys() == {"st_web", "st_web-canary"}
    command("update", "web", "--abort")
    assert engine.held["services"].keys() == {"st_web"}
    command("rollback", "web")
    assert image(engine) == "x:1"


def test_a_canary_that_does_not_run_goes_again(command: Command, engine: MemoryEngine) -> None:
    alone(engine, "web", **{"swarmkit.lb.port": "80"})
    engine.state = broken
    assert command.error("update", "web", "--image", "x:2", "--canary", "10%", code=4)["rolled_back"] is True
    assert engine.held["services"].keys() == {"web"}


@pytest.mark.usefixtures("web")
def test_what_may_lose_requests_is_said_beforehand(command: Command, engine: MemoryEngine) -> None:
    engine.images["x:1"] = {"Cmd": ["nginx"]}
    command("update", "web", "--env", "A=2")
    assert "warning: st_web: nginx ends open requests on SIGTERM" in command.err
    assert "warning: st_web: its one task stops before another starts" in command.err
    command("scale", "web=0")
    assert "warning: st_web: nginx ends open requests" in command.err
    assert "another starts" not in command.err
