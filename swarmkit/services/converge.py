"""Waiting for the truth: until services run as their specs say, or will not.

`progress` is pure: it judges one service from one reading of the swarm. `converge` reads again and
again. A service whose spec has a health check is there once its tasks run, for Swarm calls a task
running only when it is healthy; without one it must stay there for the update's monitor window, as
the docker command holds it (docker/cli, cli/command/service/progress; 5 s unless the spec says).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from swarmkit.errors import NotConverged, SwarmkitError, raise_all
from swarmkit.remote import Engine, EngineError
from swarmkit.swarm import (
    ACTIVE_STATES,
    FAILED_STATES,
    SECOND,
    Node,
    Service,
    Task,
    inspect,
    is_placeable,
    moment,
    nodes,
    tasks,
)
from swarmkit.ui import Progress, Ui
from swarmkit.waiting import POLL_SECONDS, wait_for

MONITOR_SECONDS = 5.0
# So many failures of one slot within one operation are no accident.
FAILURES = 3
# How long a task may wait for a node before that counts as "there is none for it".
UNPLACED_SECONDS = 15.0
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Baseline:
    """The swarm just before an operation: what is told from then on, and only that, tells of it.

    `time` is by the engine's own clock, `updates` each service's UpdateStatus. An update resets that
    (moby, UpdateService), so that one which is still the same tells of an earlier operation.
    """

    time: datetime
    updates: Mapping[str, Any] = field(default_factory=dict)


class Verdict(Enum):
    """Where a service stands."""

    WAITING = "waiting"
    THERE = "there"
    FAILED = "failed"


@dataclass(frozen=True)
class ServiceProgress:
    """One service at one moment: `running` of `desired` tasks, and why not more.

    `settled` is when the newest of the running tasks came to run; None where none runs.
    """

    name: str
    running: int
    desired: int
    verdict: Verdict
    reason: str = ""
    rolled_back: bool = False
    unplaced: bool = False
    settled: datetime | None = None

    def __str__(self) -> str:
        text = f"{self.name} {self.running}/{self.desired}"
        return f"{text} ({self.reason})" if self.reason and self.verdict is not Verdict.THERE else text


def progress(
    service: Service, current: Sequence[Task], every: Sequence[Task], known: Sequence[Node], before: Baseline
) -> ServiceProgress:
    """Judge a service. `current` are the tasks of its present spec, `every` all that it has.

    What happened before `before` was taken does not count: a failure or a rollback of last week.
    """
    alive = {node.id for node in known if node.state != "down"}
    places = alive
    if service.replicas is not None:
        desired = service.replicas
    else:
        # A paused node keeps the task that it has, and gets none.
        places = {node.id for node in known if is_placeable(node, service.constraints)}
        desired = len(places)
    up = [task for task in current if task.is_up and task.node_id in places]
    running = len(up)
    current_ids = {task.id for task in current}
    leaving = sum(task.is_leaving and task.node_id in alive for task in every)
    outdated = sum(task.is_up and task.id not in current_ids for task in every)

    def judged(verdict: Verdict, reason: str = "", **more: bool) -> ServiceProgress:
        settled = max((task.changed for task in up), default=None)
        return ServiceProgress(service.name, running, desired, verdict, reason, settled=settled, **more)

    is_news = service.update_status != before.updates.get(service.id)
    match service.update_state if is_news else "":
        case "paused":
            return judged(Verdict.FAILED, service.update_message or "the update was paused")
        case "rollback_paused":
            return judged(Verdict.FAILED, service.update_message or "the rollback was paused")
        case "rollback_completed":
            return judged(
                Verdict.FAILED, _failure(every) or service.update_message or "rolled back", rolled_back=True
            )
    failures = Counter(
        task.place for task in current if task.state in FAILED_STATES and task.created >= before.time
    )
    # While it updates, the swarm counts failures itself, and stops or goes back as the spec says.
    is_updating = service.update_state in ("updating", "rollback_started")
    if running < desired and not is_updating and failures and max(failures.values()) >= FAILURES:
        return judged(Verdict.FAILED, _failure(current))
    if running == desired and not leaving and not outdated and not is_updating:
        return judged(Verdict.THERE)
    if running >= desired and (leaving or outdated):
        return judged(Verdict.WAITING, f"{leaving + outdated} still stopping")
    pending = [task for task in current if task.state == "pending" and task.error]
    if pending:
        return judged(Verdict.WAITING, pending[0].error, unplaced=True)
    recent = [task for task in current if task.created >= before.time]
    return judged(
        Verdict.WAITING, _failure(recent) or ("monitoring the update" if running == desired else "")
    )


def _failure(some: Sequence[Task]) -> str:
    """The newest failure among tasks, in the engine's words."""
    failed = [task for task in some if task.state in FAILED_STATES and task.error]
    return max(failed, key=lambda task: task.changed).error if failed else ""


def monitor_seconds(service: Service) -> float:
    """How long the service must hold before it counts as there: nothing where health says so."""
    if service.has_health_check:
        return 0.0
    monitor = (service.spec.get("UpdateConfig") or {}).get("Monitor") or 0
    return monitor / SECOND if monitor else MONITOR_SECONDS


def converge(
    engine: Engine,
    service_ids: Sequence[str],
    ui: Ui,
    *,
    timeout: float,
    before: Baseline,
    may_go: bool = False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until all these services are there, at most `timeout` seconds.

    A service that somebody removes meanwhile is an error unless it `may_go`. Raises NotConverged
    (Problems for several) with the reason of each that is not.
    """
    start = clock()
    there_since: dict[str, float] = {}
    unplaced_since: dict[str, float] = {}
    with ui.progress() as shown:
        while True:
            states = read(engine, service_ids, before)
            if len(states) < len(service_ids) and not may_go:
                raise NotConverged(
                    "a service was removed while it was waited for", hint="see: swarmkit status"
                )
            now = clock()
            waiting = []
            for service, state in states:
                if state.verdict is Verdict.THERE:
                    held = now - there_since.setdefault(service.id, now)
                    # Tasks that ran long before the operation began have been watched already.
                    held += max(0.0, (before.time - (state.settled or _LONG_AGO)).total_seconds())
                    if held < monitor_seconds(service):
                        waiting.append((service, state))
                else:
                    there_since.pop(service.id, None)
                    waiting.append((service, state))
                if state.unplaced:
                    unplaced_since.setdefault(service.id, now)
                else:
                    unplaced_since.pop(service.id, None)
            _show(shown, states)
            if not waiting:
                return
            failed = [
                (service, state)
                for service, state in waiting
                if state.verdict is Verdict.FAILED
                or now - unplaced_since.get(service.id, now) > UNPLACED_SECONDS
            ]
            if failed:
                raise_all([_error(state) for _, state in failed])
            if now - start > timeout:
                raise_all([_error(state, f"after {timeout:.0f} s ") for _, state in waiting])
            sleep(POLL_SECONDS)


def read(
    engine: Engine, service_ids: Sequence[str], before: Baseline
) -> list[tuple[Service, ServiceProgress]]:
    """One reading of the swarm: each of the services, judged. A service that has gone is left out."""
    known = nodes(engine)
    every = tasks(engine, service_ids)
    current = tasks(engine, service_ids, up_to_date=True)
    found = []
    for service_id in service_ids:
        try:
            service = inspect(engine, service_id)
        except EngineError as error:
            if error.status == 404:
                continue
            raise
        found.append((service, progress(service, _of(current, service), _of(every, service), known, before)))
    return found


def _of(some: Sequence[Task], service: Service) -> list[Task]:
    return [task for task in some if task.service_id == service.id]


def _show(shown: Progress, states: Sequence[tuple[Service, ServiceProgress]]) -> None:
    shown.update("  " + ", ".join(str(state) for _, state in states))


def _error(state: ServiceProgress, when: str = "") -> SwarmkitError:
    reason = f": {state.reason}" if state.reason else ""
    back = "; rolled back to what ran before" if state.rolled_back else ""
    return NotConverged(
        f"{when}{state.running} of {state.desired} tasks run{reason}{back}",
        where=state.name,
        hint=f"see: swarmkit service ps {state.name}",
        rolled_back=state.rolled_back,
    )


def baseline(engine: Engine) -> Baseline:
    """The swarm as it is now, to judge by what comes of an operation that is about to begin."""
    updates = {raw["ID"]: raw.get("UpdateStatus") for raw in engine.get("/services")}
    return Baseline(moment(engine.get("/info")["SystemTime"]), updates)


def wait_gone(engine: Engine, removed: Mapping[str, str], ui: Ui, timeout: float) -> None:
    """Wait until no task of these removed services (name by id) runs any more; raises NotConverged.

    The engine forgets a removed service's tasks once their containers have stopped.
    """
    left: list[Task] = []
    with ui.progress() as shown:

        def is_gone() -> bool:
            alive = {node.id for node in nodes(engine) if node.state != "down"}
            left[:] = [
                task
                for task in map(Task.of, engine.get("/tasks"))
                if task.service_id in removed and task.node_id in alive and task.state in ACTIVE_STATES
            ]
            if left:
                shown.update(f"  {len(left)} tasks still stopping")
            return not left

        def explain() -> NotConverged:
            names = ", ".join(sorted({removed[task.service_id] for task in left}))
            return NotConverged(f"{len(left)} tasks still run after {timeout:.0f} s", where=names)

        wait_for(is_gone, timeout, explain)
