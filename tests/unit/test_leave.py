"""The steps by which a node leaves, on a swarm in memory."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any, cast

import pytest

from swarmkit.cluster.actions import Drain
from swarmkit.cluster.bootstrap import Options
from swarmkit.cluster.departure import leave
from swarmkit.cluster.phases import LeaveStage, Work
from swarmkit.cluster.plan import ClusterPlan
from swarmkit.errors import Problems
from swarmkit.images.trust import TrustPlan
from swarmkit.inventory import Host, Inventory, Role
from swarmkit.remote import EngineError, Fleet
from swarmkit.ui import Ui
from tests.unit.builders import service
from tests.unit.movingswarm import MovingSwarm

HEALTH: Any = {"container": {"Healthcheck": {"Test": ["CMD", "true"]}}}


def broken() -> MovingSwarm:
    """A swarm of which two services cannot be moved off n1."""
    services = {name: service(1, name=name, **HEALTH) for name in ("web", "api")}
    one = MovingSwarm(2, services, {"web": ["n1"], "api": ["n1"]})
    one.broken = {"web", "api"}
    return one


def work(one: MovingSwarm) -> Work:
    fleet = cast(Fleet, SimpleNamespace(engine=lambda _: one))
    plan = ClusterPlan((), Host(name="m1", address="", user=""), TrustPlan())
    return Work(fleet, plan, Ui(stdout=io.StringIO(), stderr=io.StringIO()), drain_seconds=5)


def test_by_force_a_node_is_drained_whatever_number_of_services_cannot_be_moved() -> None:
    one = broken()
    LeaveStage().do(work(one), Drain("n1", "n1", force=True))
    assert one.availability("n1") == "drain"


def test_without_force_it_stays_as_it_was() -> None:
    one = broken()
    with pytest.raises(Problems):
        LeaveStage().do(work(one), Drain("n1", "n1"))
    assert one.availability("n1") == "active"


def test_force_goes_on_with_nothing_that_no_manager_decides_on() -> None:
    one = broken()

    def lose_the_leader(_: str) -> None:
        raise EngineError("The swarm does not have a leader", 503)

    one.on_update = lose_the_leader
    with pytest.raises(EngineError):
        LeaveStage().do(work(one), Drain("n1", "n1", force=True))
    assert one.availability("n1") == "pause"


def test_a_node_that_was_drained_before_is_not_drained_again_where_it_does_not_become_empty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_back: list[str] = []
    monkeypatch.setattr(
        "swarmkit.cluster.phases.set_availability",
        lambda _engine, _node, wanted, _ui, **_: set_back.append(wanted),
    )
    for had in ("drain", "pause"):
        LeaveStage().clean_up(work(broken()), Drain("n1", "n1", had=had))
    assert set_back == ["pause"]


def test_before_a_node_leaves_it_is_said_which_requests_may_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    container = {"Command": ["nginx"], "StopSignal": "SIGTERM"}
    web = service(1, labels={"swarmkit.lb.port": "80"}, container=container)
    one = MovingSwarm(2, {"web": web}, {"web": ["n1"]})
    one.name = "m1"
    one.nodes["n2"]["Spec"]["Role"] = "manager"
    one.nodes["n2"]["ManagerStatus"] = {"Reachability": "reachable"}
    monkeypatch.setattr("swarmkit.cluster.departure.manager_engine", lambda *_, **__: one)
    inventory = Inventory("test", (Host(name="m1", address="", user="", role=Role.MANAGER),))
    fleet = cast(Fleet, SimpleNamespace(inventory=inventory, engine=lambda _: one))
    said = io.StringIO()
    leave(fleet, Ui(stdout=said, stderr=said), "n1", Options(dry_run=True))
    assert "web: nginx ends open requests on SIGTERM" in " ".join(said.getvalue().split())
    assert not one.count
