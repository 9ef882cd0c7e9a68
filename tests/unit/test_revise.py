"""The image of a service on the nodes that may run it, before any of its tasks stops."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from swarmkit.errors import OperationFailed, SwarmkitError, Unreachable
from swarmkit.images.resolve import Unresolved
from swarmkit.remote import Fleet, Outcomes
from swarmkit.services import revise
from swarmkit.swarm import Node
from swarmkit.target import Swarm, Target
from swarmkit.ui import Ui
from tests.unit.builders import node
from tests.unit.memoryengine import MemoryEngine

PINNED = "x:2@sha256:1"
NODES = [node("m1", Role="manager"), node("wn1"), node("wn2"), node("wn3", Availability="drain")]


class Machines:
    """The engines of four machines; `broken` says why one of them cannot have an image."""

    def __init__(self, **broken: SwarmkitError) -> None:
        self.broken = broken
        self.engines = {one.name: MemoryEngine() for one in NODES}
        self.inventory = SimpleNamespace(hosts=[SimpleNamespace(name=one.name) for one in NODES])
        self.pulled: list[str] = []
        for name, engine in self.engines.items():
            engine.name = name

    def engine(self, host: Any) -> MemoryEngine:
        if host.name in self.broken:
            raise self.broken[host.name]
        return self.engines[host.name]

    def map(self, work: Callable[[Any], None], hosts: Iterable[Any]) -> Outcomes[None]:
        outcomes: Outcomes[None] = Outcomes()
        for host in hosts:
            try:
                work(host)
                outcomes.values[host.name] = None
            except SwarmkitError as error:
                outcomes.errors[host.name] = error
        return outcomes


def bring(
    monkeypatch: pytest.MonkeyPatch,
    machines: Machines,
    image: str = PINNED,
    unresolved: Unresolved | None = None,
    *,
    insist: bool = True,
) -> str:
    """Bring an image for a service on workers; returns what was said."""

    def pull(engine: MemoryEngine, _reference: str) -> bool:
        machines.pulled.append(engine.name)
        return True

    def known(_engine: Any) -> list[Node]:
        return NODES

    monkeypatch.setattr(revise, "pull", pull)
    monkeypatch.setattr(revise, "nodes", known)
    task = {"ContainerSpec": {"Image": image}, "Placement": {"Constraints": ["node.role==worker"]}}
    said = io.StringIO()
    swarm = Swarm(Target("memory", "-i", named=True), MemoryEngine(), cast("Fleet", machines))
    spec = {"Name": "web", "TaskTemplate": task, "Mode": {"Replicated": {"Replicas": 1}}}
    revise.bring_image(swarm, Ui(stdout=said, stderr=said), spec, unresolved, insist=insist)
    return said.getvalue()


def test_the_nodes_that_may_run_it_have_it_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    machines = Machines()
    bring(monkeypatch, machines)
    assert machines.pulled == ["wn1", "wn2"]


def test_one_node_that_cannot_have_it_is_an_error_unless_the_way_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = OperationFailed("no space left", where="wn2")
    with pytest.raises(OperationFailed, match="no space left"):
        bring(monkeypatch, Machines(wn2=broken))
    assert "wn2 may not have the image" in bring(monkeypatch, Machines(wn2=broken), insist=False)
    with pytest.raises(SwarmkitError, match="no space left"):
        bring(monkeypatch, Machines(wn1=broken, wn2=broken), insist=False)


def test_a_machine_that_does_not_answer_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    said = bring(monkeypatch, Machines(wn1=Unreachable("no answer", where="wn1")))
    assert "warning: wn1 may not have the image" in said


def test_without_a_digest_the_nodes_must_hold_it_already(monkeypatch: pytest.MonkeyPatch) -> None:
    unresolved = Unresolved("x:2", "missing", "")
    machines = Machines()
    machines.engines["wn1"].images["x:2"] = {}
    with pytest.raises(OperationFailed, match="no such image"):
        bring(monkeypatch, machines, "x:2", unresolved)
    machines.engines["wn2"].images["x:2"] = {}
    bring(monkeypatch, machines, "x:2", unresolved)
    assert machines.pulled == []
