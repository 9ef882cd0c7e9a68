"""A stack whose tasks are being moved: no drift, and what was cut off is undone with the next deployment."""

from __future__ import annotations

import io
from typing import Any

from swarmkit.compose.convert import DesiredStack
from swarmkit.deploy.apply import carry_out
from swarmkit.deploy.observe import observe
from swarmkit.deploy.options import Options
from swarmkit.deploy.plan import LiveStack, Plan, plan_return, plan_stack, snapshot
from swarmkit.deploy.prepare import Prepared
from swarmkit.deploy.report import describe
from swarmkit.names import MOVE_LABEL
from swarmkit.services.moves import moving, settled
from swarmkit.swarm import Service
from swarmkit.ui import Ui
from tests.unit.memoryengine import MemoryEngine
from tests.unit.stackswarm import stack

WEB = "services: {web: {image: x, healthcheck: {test: a}, deploy: {replicas: 1}}}"


def up(engine: MemoryEngine, desired: DesiredStack) -> Plan:
    def planner(live: LiveStack) -> Plan:
        return plan_stack(desired, live)

    live = observe(engine, "st")
    prepared = Prepared(desired, planner, live, planner(live))
    ui = Ui(stdout=io.StringIO(), stderr=io.StringIO())
    return carry_out(engine, ui, prepared, Options(timeout=20, doing="stack up st"))


class Replacing(MemoryEngine):
    """The moved task's replacement starts beside it, until it has been looked at so often."""

    looks_left = 0

    def _tasks(self, service: dict[str, Any]) -> list[dict[str, Any]]:
        found = super()._tasks(service)
        if MOVE_LABEL not in service["Spec"]["Labels"] or not self.looks_left:
            return found
        self.looks_left -= 1
        status = {**found[0]["Status"], "State": "starting"}
        return [{**found[0], "ID": "0", "Status": status}, *found]


def cut_off() -> tuple[Replacing, dict[str, Any]]:
    """A stack with a service whose move was cut off, and the spec that it had before."""
    engine = Replacing()
    up(engine, stack(WEB))
    held = engine.held["services"]["st_web"]
    before = held["Spec"]
    held["Spec"] = moving(Service.of(held), "drain", ["n9"])
    return engine, before


def test_the_next_deployment_undoes_it_and_nothing_else() -> None:
    engine, before = cut_off()
    plan = plan_stack(stack(WEB), observe(engine, "st"))
    assert [describe(change) for change in plan.changes] == ["update service st_web: move cut off → undone"]
    assert not plan.changes[0].by_hand
    up(engine, stack(WEB))
    assert engine.held["services"]["st_web"]["Spec"] == before
    assert not plan_stack(stack(WEB), observe(engine, "st")).changes


def test_it_is_undone_once_no_slot_loses_the_task_that_runs() -> None:
    engine, before = cut_off()
    engine.looks_left = 2
    at_writes: list[int] = []
    engine.on_write = lambda what: at_writes.append(engine.looks_left) if "services" in what else None
    up(engine, stack(WEB))
    assert at_writes == [0], "Swarm would keep the first of the two by id, which does not run yet"
    assert engine.held["services"]["st_web"]["Spec"] == before


def test_a_deployment_of_something_else_undoes_it_too() -> None:
    engine, _ = cut_off()
    up(engine, stack(WEB.replace("image: x", "image: y")))
    spec = engine.held["services"]["st_web"]["Spec"]
    assert settled(spec) is spec
    assert spec["TaskTemplate"]["ContainerSpec"]["Image"] == "y:latest"


def test_no_revision_has_what_is_on_the_way() -> None:
    engine, _ = cut_off()
    live = observe(engine, "st")
    (revision,) = live.revisions
    for one in (snapshot(live), live.before()):
        assert one.services["st_web"]["Labels"] == revision.after.services["st_web"]["Labels"]
        assert not one.services["st_web"]["TaskTemplate"]["Placement"]
    assert not [change for change in plan_return("st", snapshot(live), live).changes if change.by_hand]
