"""Draining nodes and activating them again: the planning of services/moves.py, carried out.

Each task that may move does so after its replacement runs; then the node is drained, which stops the
rest. What is on the way is marked in the swarm, so that the same command goes on with what was cut off,
and `activate_nodes` undoes it.

A node is paused first: where it is active, the swarm rejects the tasks on it that a constraint rules out
(moby/swarmkit, manager/orchestrator/constraintenforcer), before others run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

from swarmkit.deploy.options import Options, locked_stack
from swarmkit.deploy.scope import scope_of
from swarmkit.errors import NotConverged, OperationFailed, Problems, SwarmkitError, raise_all
from swarmkit.names import BALANCER_STACK, MOVE_LABEL
from swarmkit.remote import Engine, is_cut_off, while_stale
from swarmkit.services.converge import baseline, converge
from swarmkit.services.explain import halted
from swarmkit.services.moves import (
    DrainPlan,
    Mark,
    Operation,
    eased,
    is_crowded,
    is_eased,
    is_updating,
    may_settle,
    moving,
    plan_drain,
    settled,
)
from swarmkit.services.nodes import update_node
from swarmkit.swarm import SECOND, Node, Service, Task, inspect, moment, node_tasks, nodes, services, tasks
from swarmkit.ui import Ui
from swarmkit.waiting import wait_for

# How long a slot's replacement may be on its way while a service cannot be put back.
SETTLE_SECONDS = 120.0
_AT_ONCE = 8


@dataclass(frozen=True)
class Drained:
    """What a drain did: by which plan, and the nodes that were not drained before."""

    plan: DrainPlan
    changed: Sequence[Node]


def look_at_drain(engine: Engine, chosen: Sequence[Node], *, force: bool = False) -> DrainPlan:
    """The plan of a drain, by the swarm as it is now."""
    every = [Task.of(raw) for raw in engine.get("/tasks")]
    return plan_drain(chosen, nodes(engine), services(engine), every, force=force)


def drain_nodes(
    engine: Engine, chosen: Sequence[Node], ui: Ui, *, timeout: float, force: bool = False
) -> Drained:
    """Drain nodes; ends when they are empty and their services are whole again on the others.

    Tasks that may move run elsewhere before they stop; with `force` also those of services that are said to
    have no two at once. All the nodes are one operation: nothing moves to one that is emptied next. The
    caller holds the cluster's lock; those of the stacks concerned are taken here.

    Raises NotConverged where it does not come true within `timeout` seconds: while tasks were being moved,
    the nodes are what they were before, and services have their own specs again.
    """
    for name in sorted(node.name for node in nodes(engine) if _is_held(node) and node.id not in _ids(chosen)):
        ui.warn(
            f"{name} is paused by an operation that was cut off: `swarmkit node drain {name}` goes on with"
            f" it, `swarmkit node activate {name}` undoes it"
        )
    plan = look_at_drain(engine, chosen, force=force)
    announce(plan, ui)
    names = " ".join(node.name for node in chosen)
    concerned = [one.service for one in plan.moves] + marked(engine)
    drain = _Drain(engine, ui, chosen, force, time.monotonic() + timeout)
    with stacks_locked(engine, ui, concerned, f"node drain {names}", timeout):
        try:
            drain.move()
            before = baseline(engine)
            for node in drain.changed:
                update_node(engine, node.id, availability="drain", unwanted=(MOVE_LABEL,))
            settle(engine, drain.moved)
        except KeyboardInterrupt:
            ui.warn(f"left half-done: run it again to go on; to undo it: swarmkit node activate {names}")
            raise
    drain.wait_until_empty(timeout)
    again = [
        one.service.id
        for one in plan.gaps
        # An update that stood still before does so still: that would look like a failure of ours.
        if one.service.replicas is not None and one.gap and one.gap.code != "halted" and not one.waits
    ]
    if again:
        converge(engine, again, ui, timeout=drain.seconds_left(), before=before, may_go=True)
    return Drained(plan, drain.changed)


def announce(plan: DrainPlan, ui: Ui) -> None:
    """Say what becomes of the tasks, before anything is touched."""
    for warning in plan.warnings:
        ui.warn(warning)
    for one in plan.moves:
        ui.say(f"  {one}")
    for one in plan.gaps:
        if one.gap is not None and one.gap.code == "global":
            ui.say(f"  {one}")
        else:
            ui.warn(str(one))


def activate_nodes(engine: Engine, chosen: Sequence[Node], ui: Ui) -> list[Node]:
    """Let nodes take tasks again, and undo what an operation that was cut off has left.

    Returns those that did not take any before. The caller holds the cluster's lock.
    """
    left = marked(engine)
    names = " ".join(node.name for node in chosen)
    with stacks_locked(engine, ui, left, f"node activate {names}", SETTLE_SECONDS):
        # Before the nodes are active: then the swarm would reject what a constraint still rules out.
        clear(engine, ui, left)
    # As they are now: who drains a node and then activates it may hold it as it was before.
    now = [node for node in nodes(engine) if node.id in _ids(chosen)]
    changed = [node for node in now if node.availability != "active" or _is_held(node)]
    for node in changed:
        update_node(engine, node.id, availability="active", unwanted=(MOVE_LABEL,))
    return changed


def set_availability(engine: Engine, node: Node, wanted: str, ui: Ui, *, timeout: float) -> None:
    """Make a node active, paused or drained, whatever it takes: the one door to that."""
    if wanted == "active":
        activate_nodes(engine, [node], ui)
    elif wanted == "drain":
        drain_nodes(engine, [node], ui, timeout=timeout)
    else:
        update_node(engine, node.id, availability=wanted, unwanted=(MOVE_LABEL,))


# ---------------------------------------------------------------- what drain and rebalance share


def marked(engine: Engine) -> list[Service]:
    """The services whose tasks are being moved, or were when that was cut off."""
    return [one for one in services(engine) if Mark.of(one.spec) is not None]


@contextmanager
def stacks_locked(
    engine: Engine, ui: Ui, concerned: Iterable[Service], doing: str, timeout: float
) -> Iterator[None]:
    """Hold the locks of the services' stacks (of a service without one its own), waiting for who has them."""
    options = Options(timeout, doing, lock_wait=timeout)
    with ExitStack() as held:
        for scope in sorted({scope_of(one) for one in concerned}, key=_lock_order):
            held.enter_context(locked_stack(engine, ui, scope, options))
        yield


def _lock_order(scope: str) -> tuple[bool, str]:
    """The balancer's last: who deploys a stack or takes it down takes that within the stack's own."""
    return scope == BALANCER_STACK, scope


def clear(engine: Engine, ui: Ui, left: Sequence[Service]) -> None:
    """Undo what operations that were cut off have left, but for the nodes that a drain has paused."""
    if left:
        ui.say(f"  undoing what was cut off: {', '.join(one.name for one in left)}")
        settle(engine, [one.id for one in left])
    for node in nodes(engine):
        if node.labels.get(MOVE_LABEL, "").startswith("rebalance/"):
            release(engine, node)


def hold(engine: Engine, node: Node, operation: Operation) -> None:
    """Pause a node, and write on it what it was; `clear` may have released it since `node` was read."""
    found = Node.of(engine.get(f"/nodes/{node.id}"))
    if not _is_held(found):
        label = {MOVE_LABEL: f"{operation}/{found.availability}"}
        update_node(engine, node.id, availability="pause", labels=label)


def release(engine: Engine, node: Node) -> None:
    """Make a node that is held what it was before."""
    found = Node.of(engine.get(f"/nodes/{node.id}"))
    if _is_held(found):
        had = found.labels[MOVE_LABEL].partition("/")[2]
        update_node(engine, node.id, availability=had, unwanted=(MOVE_LABEL,))


def _is_held(node: Node) -> bool:
    return MOVE_LABEL in node.labels


def await_updates(engine: Engine, moved: Sequence[Service], ui: Ui, seconds: float) -> None:
    """Wait until no update of these services is under way: another one would stop tasks before their time."""
    ids = {one.id for one in moved}
    busy: list[str] = []
    with ui.progress() as shown:

        def are_done() -> bool:
            busy[:] = [one.name for one in services(engine) if one.id in ids and is_updating(one)]
            if busy:
                shown.update(f"  {', '.join(busy)}: being updated, which comes first")
            return not busy

        wait_for(
            are_done,
            seconds,
            lambda: NotConverged(
                f"still being updated after {seconds:.0f} s",
                where=", ".join(busy),
                hint="tasks are moved once that has ended",
            ),
        )


def begin(engine: Engine, moved: Sequence[Service], change: Callable[[Service], dict[str, object]]) -> None:
    """Send services what makes their tasks move, side by side; those on the way already are left alone."""

    @while_stale
    def send(service: Service) -> None:
        now = inspect(engine, service.id)
        if Mark.of(now.spec) is None:
            version = {"version": now.raw["Version"]["Index"]}
            engine.post(f"/services/{now.id}/update", change(now), version)

    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        list(pool.map(send, moved))


def settle(engine: Engine, service_ids: Sequence[str]) -> None:
    """Give services their own specs again, each in a moment in which no slot loses the task that runs.

    Raises NotConverged where there is none in SETTLE_SECONDS: it stays marked, for another try.
    """
    left = set(service_ids)

    def are_settled() -> bool:
        for service in services(engine):
            if service.id not in left:
                continue
            if Mark.of(service.spec) is None or _restored(engine, service.id):
                left.discard(service.id)
        # Whoever is gone needs nothing.
        left.intersection_update(one.id for one in services(engine))
        return not left

    wait_for(
        are_settled,
        SETTLE_SECONDS,
        lambda: NotConverged(
            "a replacement has been starting for long, and the service cannot be put back before it runs or"
            " fails, or the task that runs would stop",
            where=", ".join(inspect(engine, each).name for each in sorted(left)),
            hint="see what keeps it: swarmkit service explain; then `swarmkit node activate` undoes the rest",
        ),
    )


@while_stale
def _restored(engine: Engine, service_id: str) -> bool:
    """Give a service its own spec again, if that can be now; where slots have two tasks, in two steps."""
    now = inspect(engine, service_id)
    found = tasks(engine, [service_id])
    if not may_settle(found):
        return False

    def send(spec: Mapping[str, Any]) -> None:
        version = {"version": now.raw["Version"]["Index"]}
        engine.post(f"/services/{service_id}/update", spec, version)

    if is_eased(now.spec):
        if is_crowded(found) or is_updating(now):
            return False
    elif is_crowded(found):
        send(eased(now.spec))
        return False
    send(settled(now.spec))
    return True


def undone(ui: Ui, error: SwarmkitError, undo: Callable[[], None], what: str) -> NoReturn:
    """Undo an operation that has failed, and raise its error; where no manager decides, only that."""
    if is_cut_off(error):
        ui.warn("left half-done: run it again to go on; `swarmkit node activate` undoes it")
        raise error
    errors = error.errors if isinstance(error, Problems) else [error]
    try:
        undo()
    except SwarmkitError as second:
        raise_all([*errors, OperationFailed(f"could not be undone: {second.message}", where=second.where)])
    ui.say(f"  {what}")
    for each in errors:
        if isinstance(each, NotConverged):
            each.rolled_back = True
    raise_all(errors)
    raise AssertionError("there is an error")


# ---------------------------------------------------------------- one drain


class _Drain:
    """One drain on its way. `moved` are the services (by id) that have been sent what makes tasks move."""

    def __init__(self, engine: Engine, ui: Ui, chosen: Sequence[Node], force: bool, deadline: float) -> None:
        self.engine = engine
        self.ui = ui
        self.chosen = chosen
        self.force = force
        self.deadline = deadline
        self.changed = [node for node in chosen if node.availability != "drain"]
        self.moved: list[str] = []

    def seconds_left(self) -> float:
        return max(self.deadline - time.monotonic(), 1.0)

    def move(self) -> None:
        """Ends when what may move runs elsewhere; where that fails, all is as before and it raises."""
        try:
            self._move()
        except SwarmkitError as error:
            names = ", ".join(node.name for node in self.changed)
            what = f"{names}: as before; tasks that have moved stay where they are"
            undone(self.ui, error, self._undo, what)

    def _move(self) -> None:
        engine = self.engine
        left = marked(engine)
        own = [one for one in left if self._is_own(one) and halted(one) is None]
        clear(engine, self.ui, [one for one in left if one not in own])
        for node in self.changed:
            hold(engine, node, "drain")
        plan = look_at_drain(engine, self.chosen, force=self.force)
        fresh = [one.service for one in plan.moves if one.service.id not in _ids(own)]
        await_updates(engine, fresh, self.ui, self.seconds_left())
        # An update may have moved tasks, or have come to stand still.
        plan = look_at_drain(engine, self.chosen, force=self.force)
        fresh = [one.service for one in plan.moves if one.service.id not in _ids(own)]
        before = baseline(engine)
        self.moved = [one.id for one in (*own, *fresh)]
        begin(engine, fresh, lambda one: moving(one, "drain", sorted(_ids(self.chosen))))
        if self.moved:
            converge(engine, self.moved, self.ui, timeout=self.seconds_left(), before=before, may_go=True)

    def _is_own(self, service: Service) -> bool:
        mark = Mark.of(service.spec)
        return mark is not None and mark.operation == "drain" and set(mark.nodes) == _ids(self.chosen)

    def _undo(self) -> None:
        settle(self.engine, [one.id for one in marked(self.engine)])
        for node in self.changed:
            release(self.engine, node)

    def wait_until_empty(self, timeout: float) -> None:
        """Until no task is on the nodes; what a dead node runs nobody knows."""
        names = ", ".join(node.name for node in self.chosen)
        left: list[tuple[Node, Task]] = []
        with self.ui.progress() as shown:

            def are_empty() -> bool:
                left[:] = [
                    (node, task)
                    for node in self.chosen
                    if node.is_ready
                    for task in node_tasks(self.engine, node.id)
                    if task.is_up or task.is_leaving
                ]
                shown.update(f"  {names}: {len(left)} tasks still there")
                return not left

            wait_for(
                are_empty,
                self.seconds_left(),
                lambda: NotConverged(
                    f"not empty after {timeout:.0f} s: {len(left)} tasks still there",
                    where=names,
                    hint=f"it goes on by itself; to undo it: swarmkit node activate {names.replace(',', '')}",
                    details=describe_left(self.engine, left),
                ),
            )


def describe_left(engine: Engine, left: Sequence[tuple[Node, Task]]) -> list[str]:
    """A line for each task that is still on a node: in which state, since when, and why."""
    known = {one.id: one for one in services(engine)}
    now = moment(engine.get("/info")["SystemTime"])
    return [_line(node, task, known.get(task.service_id), now) for node, task in left]


def _line(node: Node, task: Task, service: Service | None, now: datetime) -> str:
    name = service.name if service else "a service that was removed"
    where = f"{name}.{task.slot or task.node_id} on {node.name}: {task.state}"
    if not task.is_leaving:
        return f"{where}, not told to stop yet"
    container = task.raw["Spec"].get("ContainerSpec") or {}
    grace = container.get("StopGracePeriod") or 10 * SECOND
    told = (now - task.written).total_seconds()
    return (
        f"{where}, told to stop {told:.0f} s ago; it has {grace / SECOND:.0f} s for that (stop_grace_period)"
    )


def _ids(things: Iterable[Node | Service]) -> set[str]:
    return {one.id for one in things}
