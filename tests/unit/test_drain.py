"""Draining, activating and rebalancing, on a swarm in memory: every point at which it may be cut off."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from swarmkit.cluster.lock import NAME
from swarmkit.deploy.history import short
from swarmkit.errors import NotConverged, Problems
from swarmkit.names import BALANCER_STACK, CANARY_LABEL, STACK_LABEL
from swarmkit.remote import EngineError
from swarmkit.services.drain import activate_nodes, drain_nodes, settle
from swarmkit.services.moves import eased, moving
from swarmkit.services.rebalance import rebalance
from swarmkit.swarm import Service, nodes
from swarmkit.ui import Ui
from tests.unit.builders import service
from tests.unit.movingswarm import Killed, MovingSwarm

HEALTH: Any = {"container": {"Healthcheck": {"Test": ["CMD", "true"]}}}
Ending = Callable[[MovingSwarm], object]


def swarm(**placed: list[str]) -> MovingSwarm:
    found = {name: service(len(where), name=name, **HEALTH) for name, where in placed.items()}
    return MovingSwarm(3, found, placed)


def ui() -> Ui:
    return Ui(stdout=io.StringIO(), stderr=io.StringIO())


def drain(one: MovingSwarm, *names: str) -> object:
    chosen = [node for node in nodes(one) if node.name in names]
    return drain_nodes(one, chosen, ui(), timeout=5)


def activate(one: MovingSwarm, *names: str) -> object:
    return activate_nodes(one, [node for node in nodes(one) if node.name in names], ui())


def spread(one: MovingSwarm) -> object:
    return rebalance(one, [], ui(), timeout=5)


def two() -> MovingSwarm:
    return swarm(web=["n1", "n2", "n3", "n1"], api=["n1", "n3"])


def writes(do: Ending, make: Callable[[], MovingSwarm]) -> int:
    one = make()
    do(one)
    return one.count


def cut_off(one: MovingSwarm, after: int, do: Ending) -> None:
    """Run something that dies after so many writes."""
    one.writes = after
    with pytest.raises(Killed):
        do(one)
    one.writes = None
    one.configs.clear()


def test_a_drained_node_s_tasks_run_elsewhere_before_they_stop_and_nothing_else_moves() -> None:
    one = two()
    specs = one.specs()
    drain(one, "n1")
    assert one.availability("n1") == "drain"
    assert not one.gaps
    assert one.up("web").keys() == {1, 2, 3, 4}
    assert "n1" not in {*one.up("web").values(), *one.up("api").values()}
    assert (one.up("web")[2], one.up("web")[3], one.up("api")[2]) == ("n2", "n3", "n3")
    assert one.specs() == specs
    assert not one.is_marked()


def test_nothing_moves_to_a_node_that_is_emptied_next() -> None:
    one = two()
    drain(one, "n1", "n2")
    assert not one.gaps
    assert {*one.up("web").values(), *one.up("api").values()} == {"n3"}


def test_a_drain_of_what_is_drained_writes_nothing_to_nodes_and_services() -> None:
    one = two()
    drain(one, "n1")
    one.count = 0
    drain(one, "n1")
    assert not one.count


ENDINGS: dict[str, Ending] = {
    "the same": lambda one: drain(one, "n1"),
    "another": lambda one: drain(one, "n2"),
    "activate": lambda one: activate(one, "n1"),
    "activate another": lambda one: activate(one, "n2"),
    "rebalance": spread,
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("after", range(1, writes(lambda one: drain(one, "n1"), two)))
def test_a_drain_cut_off_at_any_write_is_gone_on_with_or_undone(after: int, ending: str) -> None:
    one = two()
    specs = one.specs()
    cut_off(one, after, lambda one: drain(one, "n1"))
    ENDINGS[ending](one)
    assert not one.gaps
    assert one.specs() == specs, "no service is left constrained"
    assert one.up("web").keys() == {1, 2, 3, 4}
    if ending == "the same":
        assert one.availability("n1") == "drain"
        assert "n1" not in one.up("web").values()
    activate(one, "n1")
    assert one.availability("n1") == "active"
    assert not one.is_marked()


def test_what_cannot_run_elsewhere_stays_and_all_is_as_before() -> None:
    one = two()
    one.broken = {"api"}
    specs = one.specs()
    with pytest.raises((NotConverged, Problems)) as raised:
        drain(one, "n1")
    assert "api" in str(raised.value)
    assert not one.gaps
    assert one.specs() == specs
    assert one.availability("n1") == "active"
    assert one.up("api") == {1: "n1", 2: "n3"}
    assert not one.is_marked()


def test_a_node_that_was_paused_is_so_again_where_the_drain_fails() -> None:
    one = two()
    one.broken = {"api"}
    one.nodes["n1"]["Spec"]["Availability"] = "pause"
    with pytest.raises((NotConverged, Problems)):
        drain(one, "n1")
    assert one.availability("n1") == "pause"


def uneven() -> MovingSwarm:
    return swarm(web=["n1", "n1", "n1", "n2", "n2", "n2"], api=["n2", "n2"])


def test_a_rebalance_moves_just_so_many_tasks_and_keeps_their_slots() -> None:
    one = uneven()
    specs = one.specs()
    spread(one)
    assert not one.gaps
    assert Counter(one.up("web").values()) == {"n1": 2, "n2": 2, "n3": 2}
    assert one.up("web").keys() == set(range(1, 7))
    assert max(Counter(one.up("api").values()).values()) == 1
    assert one.specs() == specs
    assert not one.is_marked()
    one.count = 0
    spread(one)
    assert not one.count


@pytest.mark.parametrize("ending", ["the same", "another", "activate another", "rebalance"])
@pytest.mark.parametrize("after", range(1, writes(spread, uneven)))
def test_a_rebalance_cut_off_at_any_write_is_gone_on_with_or_undone(after: int, ending: str) -> None:
    one = uneven()
    specs = one.specs()
    cut_off(one, after, spread)
    ENDINGS[ending](one)
    assert not one.gaps
    assert one.specs() == specs
    assert not one.is_marked()
    then = "drain" if ending == "the same" else "active"
    assert one.availability("n1") == then, "a node is paused for no longer than the move"
    if ending == "rebalance":
        assert Counter(one.up("web").values()) == {"n1": 2, "n2": 2, "n3": 2}


def test_a_rebalance_that_fails_puts_all_back() -> None:
    one = uneven()
    one.broken = {"web"}
    specs = one.specs()
    with pytest.raises((NotConverged, Problems)):
        spread(one)
    assert one.specs() == specs
    assert not one.is_marked()
    assert not one.gaps


def test_an_update_under_way_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    one = two()
    one.services["web"]["UpdateStatus"] = {"State": "updating", "StartedAt": "2026-01-01T10:00:00Z"}
    sent: list[str] = []
    one.on_update = sent.append
    waits: list[int] = []

    def waited(condition: Callable[[], bool], *_: object) -> None:
        while not condition():
            waits.append(sent.count("/services/web/update"))
            one.services["web"]["UpdateStatus"] = None

    monkeypatch.setattr("swarmkit.services.drain.wait_for", waited)
    drain(one, "n1")
    assert waits == [0], "it was waited for, and before anything was sent"
    assert sent.count("/services/web/update") == 2
    assert not one.gaps


def locks_at_an_update_of(name: str, one: MovingSwarm) -> list[str]:
    """The locks that a drain of n1 holds when it first sends the service something, in their order."""
    seen: dict[str, list[str]] = {}

    def look(path: str) -> None:
        seen.setdefault(path, list(one.configs))

    one.on_update = look
    drain(one, "n1")
    return seen[f"/services/{name}/update"]


def test_a_service_without_a_stack_is_locked_too_as_its_updates_do() -> None:
    one = swarm(web=["n1"], canary=["n1"])
    one.services["canary"]["Spec"]["Labels"] = {CANARY_LABEL: "web"}
    assert locks_at_an_update_of("web", one) == [short("swarmkit-lock-", "service.web")]


def test_the_balancer_s_lock_comes_last_for_others_take_it_within_their_stack_s() -> None:
    one = swarm(web=["n1"], lb=["n1"], api=["n1"])
    for name, stack in (("web", "web"), ("lb", BALANCER_STACK), ("api", "api")):
        one.services[name]["Spec"]["Labels"] = {STACK_LABEL: stack}
    expected = [short("swarmkit-lock-", stack) for stack in ("api", "web", BALANCER_STACK)]
    assert locks_at_an_update_of("web", one) == expected


def test_a_service_whose_update_stood_still_before_does_not_fail_the_drain() -> None:
    one = two()
    one.services["api"]["UpdateStatus"] = {"State": "paused", "StartedAt": "2026-01-01T10:00:00Z"}
    # Its other task is of the spec that was.
    one.services["api"]["Spec"]["TaskTemplate"]["Placement"] = {"Constraints": ["node.id!=n3"]}
    done = drain_nodes(one, [node for node in nodes(one) if node.name == "n1"], ui(), timeout=5)
    assert [(each.service.name, each.gap.code) for each in done.plan.gaps if each.gap] == [("api", "halted")]
    assert "n1" not in one.up("api").values()


def test_where_no_manager_decides_nothing_is_undone_and_the_way_on_is_said() -> None:
    one = two()

    def lose_the_leader(path: str) -> None:
        if path.startswith("/services"):
            raise EngineError("rpc error: code = Unknown desc = The swarm does not have a leader", 503)

    one.on_update = lose_the_leader
    said = io.StringIO()
    chosen = [node for node in nodes(one) if node.name == "n1"]
    with pytest.raises(EngineError):
        drain_nodes(one, chosen, Ui(stdout=said, stderr=said), timeout=5)
    assert "run it again to go on" in said.getvalue()
    assert one.availability("n1") == "pause"


def test_the_locks_of_the_stacks_are_given_back() -> None:
    one = two()
    for held in one.services.values():
        held["Spec"]["Labels"] = {"com.docker.stack.namespace": "s"}
    drain(one, "n1")
    assert not one.configs
    assert NAME not in one.configs


def test_a_node_is_activated_by_what_it_is_now() -> None:
    one = two()
    before = [node for node in nodes(one) if node.name == "n1"]
    drain(one, "n1")
    activate_nodes(one, before, ui())
    assert one.availability("n1") == "active"


def test_a_service_with_two_tasks_in_a_slot_does_not_wait_for_its_own_delay_when_it_is_put_back() -> None:
    one = swarm(web=["n1", "n2"])
    spec = one.services["web"]["Spec"]
    spec["UpdateConfig"] = {"Parallelism": 1, "Delay": 3600 * 10**9, "Order": "start-first"}
    was = one.specs()["web"]
    on_the_way = moving(Service.of(one.services["web"]), "drain", ["n1"])
    one.services["web"]["Spec"] = on_the_way
    one._start("web", 1, "n3", "starting")
    one.tasks[-1]["DesiredState"] = "running"
    sent = []

    def chosen(_: str) -> None:
        # The swarm's update leaves one task of the slot.
        sent.append(one.specs()["web"])
        one.tasks[-1]["DesiredState"] = "shutdown"

    one.on_update = chosen
    settle(one, ["web"])
    assert sent == [eased(on_the_way), was]
    assert sent[0]["UpdateConfig"]["Delay"] == 0
    assert "swarmkit.move" in sent[0]["Labels"]
