"""The commands that move tasks off nodes, on a swarm in memory: what is said before a task stops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from swarmkit.target import Swarm, Target
from tests.unit.builders import service
from tests.unit.movingswarm import MovingSwarm
from tests.unit.test_cli_stacks import Command

CAUTION = "web: nginx ends open requests on SIGTERM; it finishes them on --stop-signal SIGQUIT"


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture
def swarm(monkeypatch: pytest.MonkeyPatch) -> MovingSwarm:
    """The swarm that the commands find: one service with a route and one without, both on n1."""
    container = {"Command": ["nginx"], "StopSignal": "SIGTERM", "Healthcheck": {"Test": ["CMD", "true"]}}
    web = service(2, labels={"swarmkit.lb.port": "80"}, container=container)
    made = MovingSwarm(
        2,
        {"web": web, "api": service(1, name="api", container=container)},
        {"web": ["n1", "n1"], "api": ["n1"]},
    )
    target = Target("memory", "--engine", named=True)

    @contextmanager
    def opened(*_: object, **__: object) -> Iterator[Swarm]:
        yield Swarm(target, made)

    monkeypatch.setattr("swarmkit.target.resolve", lambda *_, **__: target)
    monkeypatch.setattr("swarmkit.target.opened", opened)
    return made


def test_a_drain_says_which_requests_may_be_lost_and_so_does_its_plan(
    command: Command, swarm: MovingSwarm
) -> None:
    assert command.json("node", "drain", "n1", "--dry-run")["warnings"] == [CAUTION]
    assert not swarm.count
    assert command.json("node", "drain", "n1")["warnings"] == [CAUTION]
    assert command.err.count(CAUTION) == 1
    assert swarm.availability("n1") == "drain"


def test_so_does_a_rebalance_and_only_of_what_moves(command: Command, swarm: MovingSwarm) -> None:
    command("node", "rebalance", "--dry-run")
    assert CAUTION in command.err
    assert not swarm.count
    command("node", "rebalance", "api", "--dry-run")
    assert CAUTION not in command.err
