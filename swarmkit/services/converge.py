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
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

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


class Verdict(Enum):
    """Where a service stands."""

    WAITING = "waiting"
    THERE = "there"
    FAILED = "failed"


@dataclass(frozen=True)
class ServiceProgress:
    """One service at one moment: `running` of `desired` tasks, and why not more."""

    name: str
    running: int
    desired: int
    verdict: Verdict
    reason: str = ""
    rolled_back: bool = False
    unplaced: bool = False

    def __str__(self) -> str:
        text = f"{self.name} {self.running}/{self.desired}"
        return f"{text} ({self.reason})" if self.reason and self.verdict is not Verdict.THERE else text


def progress(
    service: Service, current: Sequence[Task], every: Sequence[Task], known: Sequence[Node], since: datetime
) -> ServiceProgress:
    """Judge a service. `current` are the tasks of its present spec, `every` all that it has.

    Only what began at `since` (by the engine's own clock) or later tells of this operation: a failure or
    a rollback of last week does not.
    """
    alive = {node.id for node in known if node.state != "down"}
    if service.replicas is not None:
        desired = service.replicas
    else:
        desired = sum(is_placeable(node, service.constraints) for node in known)
    running = sum(task.is_up and task.node_id in alive for task in current)
    current_ids = {task.id for task in current}
    leaving = sum(task.is_leaving and task.node_id in alive for task in every)
    outdated = sum(task.is_up and task.id not in current_ids for task in every)

    def judged(verdict: Verdict, reason: str = "", **more: bool) -> ServiceProgress:
        return ServiceProgress(service.name, running, desired, verdict, reason, **more)

    is_news = service.update_started is not None and service.update_started >= since
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
        task.place for task in current if task.state in FAILED_STATES and task.created >= since
    )
    # While it updates, the swarm counts failures itself, and stops or goes back as the spec says.
    is_updating = service.update_state in ("updating", "rollback_started")
    if running < desired and not is_updating and failures and max(failures.values()) >= FAILURES:
        return judged(Verdict.FAILED, _failure(current))
    if running == desired and not leaving and not outdated and service.update_state != "rollback_started":
        return judged(Verdict.THERE)
    if running >= desired and (leaving or outdated):
        return judged(Verdict.WAITING, f"{leaving + outdated} still stopping")
    pending = [task for task in current if task.state == "pending" and task.error]
    if pending:
        return judged(Verdict.WAITING, pending[0].error, unplaced=True)
    return judged(Verdict.WAITING, _failure([task for task in current if task.created >= since]))


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
    since: datetime,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until all these services are there, at most `timeout` seconds.

    Raises NotConverged (Problems for several) with the reason of each that is not.
    """
    start = clock()
    there_since: dict[str, float] = {}
    unplaced_since: dict[str, float] = {}
    with ui.progress() as shown:
        while True:
            states = read(engine, service_ids, since)
            now = clock()
            waiting = []
            for service, state in states:
                if state.verdict is Verdict.THERE:
                    held = now - there_since.setdefault(service.id, now)
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
    engine: Engine, service_ids: Sequence[str], since: datetime
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
        found.append((service, progress(service, _of(current, service), _of(every, service), known, since)))
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


def engine_time(engine: Engine) -> datetime:
    """The engine's own clock, which its timestamps go by: ours may differ from it."""
    return moment(engine.get("/info")["SystemTime"])


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
