"""Waiting for the truth: until services run as their specs say, or will not.

`progress` is pure: it judges one service from one reading of the swarm. `converge` reads again and
again, all services at once. A service is there once its tasks run and have run for the update's monitor
window, each counted from its own start (5 s unless the spec says, as with docker/cli,
cli/command/service/progress); where the spec has a health check, at once, for Swarm calls a task running
only when it is healthy. A job is there when the tasks of its present run have ended with success. A
service that is not started again once it has ended with success, is there then as well.
"""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from typing import Any

from swarmkit.errors import NotConverged, SwarmkitError, raise_all
from swarmkit.remote import Engine, Fleet
from swarmkit.services.evidence import Examiner
from swarmkit.services.explain import STANDS_STILL, Explanation, View, explain, halted, is_quick_end
from swarmkit.swarm import (
    ACTIVE_STATES,
    FAILED_STATES,
    SECOND,
    Node,
    Service,
    Task,
    filters,
    meets,
    moment,
    nodes,
    tasks,
)
from swarmkit.ui import Progress, Ui
from swarmkit.waiting import POLL_SECONDS, wait_for

MONITOR_SECONDS = 5.0
# So many failures of one slot within one operation are no accident; fewer, where a retry cannot help.
FAILURES = 3
HOPELESS_FAILURES = 2
# How long a task may wait for a node before that counts as "there is none for it": what stops makes room.
UNPLACED_SECONDS = 15.0
# Likewise where no node has what the constraints ask for: nothing that stops changes that.
UNMATCHED_SECONDS = 2.0
# How long a slot may stay without a successor: the swarm makes one in the moment it starts a task again.
ENDED_SECONDS = 1.0
# Readings so far apart tell nothing of the time between, in which the managers may have had no leader.
GAP_SECONDS = 3.0
# So many services have a line each on a terminal.
LINES_SHOWN = 15
_clock = time.monotonic


@dataclass(frozen=True)
class Baseline:
    """The swarm just before an operation: what is told from then on, and only that, tells of it.

    `time` is by the engine's own clock, `taken` the same moment by `time.monotonic`. `updates` is each
    service's UpdateStatus. An update resets that (moby, UpdateService), so that one which is still the
    same tells of an earlier operation.
    """

    time: datetime
    updates: Mapping[str, Any] = field(default_factory=dict)
    taken: float = field(default_factory=_clock)


class Goal(Enum):
    """What is waited for, of one service.

    RUNNING: its tasks run (and are healthy, where the spec has a check). STABLE: and have done so for the
    monitor window. COMPLETED: its tasks have ended with success. For a job all three mean the last.
    """

    RUNNING = "running"
    STABLE = "stable"
    COMPLETED = "completed"


class Verdict(Enum):
    """Where a service stands."""

    WAITING = "waiting"
    THERE = "there"
    FAILED = "failed"


@dataclass(frozen=True)
class ServiceProgress:
    """One service at one moment: `running` of `desired` tasks (of a job: completed), and why not more.

    `code` names the kind of `reason`. `up` are the tasks that run, `finished` how many have ended with
    success and stay so. `activity` is what the others do. `stuck` names what keeps it from going on, empty
    where nothing does; it is a failure when the same lasts longer than `patience` seconds.
    """

    name: str
    running: int
    desired: int
    verdict: Verdict
    reason: str = ""
    code: str = ""
    rolled_back: bool = False
    stuck: str = ""
    patience: float = 0.0
    up: tuple[Task, ...] = ()
    finished: int = 0
    activity: str = ""
    is_job: bool = False

    @property
    def is_troubled(self) -> bool:
        """Whether something is wrong with it, and not merely on its way."""
        return self.code not in ("", "stopping", "monitoring")

    @property
    def count(self) -> str:
        """`2 of 3 tasks run`; of what is to end, `2 of 3 tasks completed`."""
        if self.is_job or self.finished:
            return f"{self.finished} of {self.desired} tasks completed"
        return f"{self.running} of {self.desired} tasks run"

    @property
    def short_count(self) -> str:
        """`2/3`, the same where there is little room."""
        return f"{self.finished if self.is_job or self.finished else self.running}/{self.desired}"


def progress(
    service: Service, current: Sequence[Task], every: Sequence[Task], known: Sequence[Node], before: Baseline
) -> ServiceProgress:
    """Judge a service. `current` are the tasks of its present spec, `every` all that it has.

    What happened before `before` was taken does not count: a failure or a rollback of last week.
    """
    if service.is_job:
        return _job_progress(service, every, known)
    alive = {node.id for node in known if node.state != "down"}
    # What runs where nothing is heard from is not known until the node is back, or down.
    seen = {node.id for node in known if node.is_ready}
    if service.replicas is not None:
        places, desired = alive, service.replicas
    else:
        places = _eligible(service, known)
        desired = len(places)
    up = tuple(task for task in current if task.is_up and task.node_id in places & seen)
    current_ids = {task.id for task in current}
    leaving = sum(task.is_leaving and task.node_id in alive for task in every)
    outdated = sum(task.is_up and task.id not in current_ids for task in every)
    newest = _newest(service, current)
    finished = sum(
        task.state == "complete"
        and not service.restarts_always
        # Done is done, whatever has become of its node; but it stands for no other node.
        and (service.replicas is not None or task.node_id in places)
        for task in newest
    )
    running = len(up)
    view = View(known)

    def judged(
        verdict: Verdict,
        why: _Why | None = None,
        *,
        rolled_back: bool = False,
        stuck: str = "",
        patience: float = 0.0,
    ) -> ServiceProgress:
        return ServiceProgress(
            service.name,
            running,
            desired,
            verdict,
            why.reason if why else "",
            why.code if why else "",
            rolled_back=rolled_back,
            stuck=stuck if _is_led(known) else "",
            patience=patience,
            up=up,
            finished=finished,
            activity=_activity(newest, view),
        )

    is_news = service.update_status != before.updates.get(service.id)
    missing = running + finished < desired
    if (halt := halted(service)) and (is_news or outdated):
        return judged(Verdict.FAILED, _Why(halt.code, halt.reason))
    if is_news and service.update_state == "rollback_completed":
        # What failed is of the spec that is gone.
        recent = [task for task in every if task.created >= before.time]
        cause = _failure(service, recent, view) or _Why("rolled-back", service.update_message)
        return judged(Verdict.FAILED, cause, rolled_back=True)
    # While it updates, the swarm counts failures itself, and stops or goes back as the spec says.
    is_updating = service.update_state in ("updating", "rollback_started")
    failures = [task for task in current if _is_failure(service, task) and task.created >= before.time]
    if missing and not is_updating and _is_enough(service, failures, view):
        return judged(Verdict.FAILED, _failure(service, failures, view))
    if running + finished == desired and not leaving and not outdated and not is_updating:
        return judged(Verdict.THERE)
    if not missing and (leaving or outdated):
        return judged(Verdict.WAITING, _Why("stopping", f"{leaving + outdated} still stopping"))
    ended = [task for task in newest if _is_failure(service, task)]
    if missing and ended and not is_updating:
        why = _failure(service, ended, view)
        return judged(Verdict.WAITING, why, stuck=_first(ended), patience=ENDED_SECONDS)
    pending = [task for task in newest if task.state == "pending" and task.error]
    if pending:
        why = _why(service, pending[0], view)
        # Its own tasks that stop may make room, after as long as their grace periods say.
        stuck = "" if leaving else "unplaced"
        return judged(Verdict.WAITING, why, stuck=stuck, patience=_unplaced_seconds(service, known))
    monitored = None if missing else _Why("monitoring", "the update is being monitored")
    return judged(Verdict.WAITING, _failure(service, failures, view) or monitored)


def _job_progress(service: Service, every: Sequence[Task], known: Sequence[Node]) -> ServiceProgress:
    """Judge a job by the tasks of its present run; an earlier run that ended says nothing of it.

    Whether a task that fails is tried again is the restart policy's to say (moby/swarmkit,
    manager/orchestrator/jobs): one without a successor stays what it is.
    """
    current = [task for task in every if task.iteration == service.iteration]
    newest = _newest(service, current)
    completed = {service.place(task) for task in current if task.state == "complete"}
    if service.completions is not None:
        desired = service.completions
    else:
        # Done is done, also on a node that has been drained since.
        desired = len(_eligible(service, known) | {str(place) for place in completed})
    view = View(known)
    failures = [task for task in current if task.state in FAILED_STATES]
    ended = [task for task in newest if task.state in FAILED_STATES and service.place(task) not in completed]
    pending = [task for task in newest if task.state == "pending" and task.error]
    why: _Why | None
    stuck, patience = "", 0.0
    if ended:
        why, stuck, patience = _failure(service, ended, view), _first(ended), ENDED_SECONDS
    elif pending:
        why, stuck = _why(service, pending[0], view), "unplaced"
        patience = _unplaced_seconds(service, known)
    else:
        why = _failure(service, failures, view)
    is_there = len(completed) >= desired
    hopeless = not is_there and _is_hopeless(service, failures, view)
    return ServiceProgress(
        service.name,
        len(completed),
        desired,
        Verdict.THERE if is_there else Verdict.FAILED if hopeless else Verdict.WAITING,
        why.reason if why else "",
        why.code if why else "",
        stuck=stuck if _is_led(known) else "",
        patience=patience,
        finished=len(completed),
        activity=_activity(newest, view),
        is_job=True,
    )


def _eligible(service: Service, known: Sequence[Node]) -> set[str]:
    """The nodes (by id) that are to have a task of a global service, or may have one of another.

    Also those that are not heard from: after a change of leaders that is all of them, until they report
    again, and the swarm gives none up before it is down (moby/swarmkit, InvalidNode). A paused node keeps
    the task that it has, and gets none.
    """
    return {
        node.id
        for node in known
        if node.state != "down"
        and node.availability == "active"
        and all(meets(node, constraint) for constraint in service.constraints)
    }


def _is_led(known: Sequence[Node]) -> bool:
    """Whether the leader has taken its work up, without which nothing goes on.

    A new one first calls all nodes unknown, until they report (moby/swarmkit, manager/dispatcher).
    """
    return all(node.state != "unknown" for node in known)


def _newest(service: Service, some: Sequence[Task]) -> list[Task]:
    """The newest task of each slot (of a global service: of each node)."""
    by_place = {service.place(task): task for task in sorted(some, key=lambda task: task.created)}
    return list(by_place.values())


def _first(ended: Sequence[Task]) -> str:
    """The one that ended first: later ones may still be about to get a successor."""
    return min(ended, key=lambda task: task.changed).id


def _is_failure(service: Service, task: Task) -> bool:
    return task.state in FAILED_STATES or is_quick_end(service, task)


def _is_enough(service: Service, failures: Sequence[Task], view: View) -> bool:
    """Whether so many failures mean that it will not run."""
    if _is_hopeless(service, failures, view):
        return True
    # How often to try is the policy's to say, where it says it: a slot without a successor is the end.
    if service.restart_policy.get("MaxAttempts"):
        return False
    return _most(service, failures) >= FAILURES


def _is_hopeless(service: Service, failures: Sequence[Task], view: View) -> bool:
    hopeless = [task for task in failures if explain(service, task, view).hopeless]
    return _most(service, hopeless) >= HOPELESS_FAILURES


def _most(service: Service, failures: Sequence[Task]) -> int:
    """The failures of the slot that has most."""
    return max(Counter(service.place(task) for task in failures).values(), default=0)


@dataclass(frozen=True)
class _Why:
    """Why a service is not there: the kind, and in words."""

    code: str
    reason: str


def _why(service: Service, task: Task, view: View) -> _Why:
    found = explain(service, task, view)
    return _Why(found.code, found.reason)


def _failure(service: Service, some: Sequence[Task], view: View) -> _Why | None:
    """The newest failure among tasks, in words; None where there is none."""
    failed = [task for task in some if _is_failure(service, task)]
    return _why(service, max(failed, key=lambda task: task.changed), view) if failed else None


def _unplaced_seconds(service: Service, known: Sequence[Node]) -> float:
    return UNPLACED_SECONDS if _eligible(service, known) else UNMATCHED_SECONDS


def _activity(newest: Sequence[Task], view: View) -> str:
    """What tasks do that do not run yet: `preparing on wn1, wn2; starting on m1`."""
    where: dict[str, list[str]] = {}
    for task in newest:
        if task.desired in ("running", "ready", "complete") and task.state not in ("running", "complete"):
            where.setdefault(task.state, []).append(view.name_of(task))
    return "; ".join(
        f"{state} on {', '.join(sorted(set(filter(None, on))))}" if any(on) else state
        for state, on in where.items()
    )


def monitor_seconds(service: Service) -> float:
    """How long the service must hold before it counts as there: nothing where health says so."""
    if service.has_health_check:
        return 0.0
    monitor = (service.spec.get("UpdateConfig") or {}).get("Monitor") or 0
    return monitor / SECOND if monitor else MONITOR_SECONDS


def pace_seconds(service: Service, count: int) -> float:
    """How long the swarm itself lets an update of so many tasks take, were each up at once.

    It waits the delay after every batch, and watches the last for the monitor window (moby/swarmkit,
    manager/orchestrator/update); where it goes back, it does all that once more.
    """
    keys = ["UpdateConfig", *(["RollbackConfig"] if service.update_state.startswith("rollback") else [])]
    total = 0.0
    for config in (service.spec.get(key) or {} for key in keys):
        at_once = config.get("Parallelism", 1) or count or 1
        total += math.ceil(count / at_once) * (config.get("Delay") or 0) + (config.get("Monitor") or 0)
    return total / SECOND


@dataclass
class Watch:
    """What one wait remembers between its readings of the swarm, to judge by time as well.

    `now` is by `time.monotonic`, as `before.taken` is. `goals` says by service id what is waited for,
    where that is not STABLE.
    """

    before: Baseline
    goals: Mapping[str, Goal] = field(default_factory=dict)
    up_since: dict[str, float] = field(default_factory=dict)
    # By service: what keeps it, since when, and when that was last seen.
    stuck: dict[str, tuple[str, float, float]] = field(default_factory=dict)

    def judge(self, service: Service, state: ServiceProgress, now: float) -> Verdict:
        """Where the service stands, counted from the starts of its tasks."""
        goal = self.goals.get(service.id, Goal.STABLE)
        stuck, since, seen = self.stuck.get(service.id, ("", now, now))
        if state.stuck != stuck or now - seen > GAP_SECONDS:
            since = now
        self.stuck[service.id] = (state.stuck, since, now)
        if state.stuck and now - since > state.patience:
            return Verdict.FAILED
        for task in state.up:
            self.up_since.setdefault(task.id, now - self._ran_before(task, now))
        if state.verdict is not Verdict.THERE or state.is_job:
            return state.verdict
        if goal is Goal.COMPLETED:
            return Verdict.THERE if state.finished == state.desired else Verdict.WAITING
        held = min((now - self.up_since[task.id] for task in state.up), default=0.0)
        needed = monitor_seconds(service) if goal is Goal.STABLE and state.up else 0.0
        return Verdict.THERE if held >= needed else Verdict.WAITING

    def _ran_before(self, task: Task, now: float) -> float:
        """How long a task ran before it was first seen to, by the managers' clock alone."""
        here = (task.written - self.before.time).total_seconds()
        return max(0.0, (now - self.before.taken) - here)


def converge(
    engine: Engine,
    service_ids: Sequence[str],
    ui: Ui,
    *,
    timeout: float,
    before: Baseline,
    may_go: bool = False,
    goals: Mapping[str, Goal] | None = None,
    fleet: Fleet | None = None,
    watch: Watch | None = None,
    started: float | None = None,
    enough: Mapping[str, int] | None = None,
    is_paced: bool = False,
    clock: Callable[[], float] = _clock,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until all these services are there, at most `timeout` seconds for all of them together.

    `goals` says by service id what to wait for, where that is not STABLE. A service that somebody removes
    meanwhile is an error unless it `may_go`. `fleet` lets the reason for a failure be looked up on the
    nodes. A wait that goes on has the `watch` of its first part, and `started` then (by `clock`). `enough`
    says by service id how many running tasks that fit the present spec will do, for an update that is to
    stop half-way. Where it `is_paced`, what services' own specs make their update wait comes on top of
    `timeout`: a slow one is no failure. Raises NotConverged (Problems for several) with the reason of each
    that is not there.
    """
    start = clock() if started is None else started
    watch = replace(watch, goals=goals or {}) if watch else Watch(before, goals or {})
    names: dict[str, str] = {}
    limit = timeout
    with ui.progress() as shown:
        board = Board(shown)
        while True:
            states = _readings(engine, service_ids, before)
            names |= {one.service.id: one.service.name for one in states}
            gone = set(service_ids) - {one.service.id for one in states}
            if gone and not may_go:
                where = ", ".join(sorted(names.get(each, each) for each in gone))
                raise NotConverged(
                    "removed while it was waited for", where=where, hint="see: swarmkit status"
                )
            now = clock()
            verdicts = [
                Verdict.THERE
                if len(one.state.up) >= (enough or {}).get(one.service.id, sys.maxsize)
                else watch.judge(one.service, one.state, now)
                for one in states
            ]
            board.show([(one.state, verdict) for one, verdict in zip(states, verdicts, strict=True)])
            judged = list(zip(states, verdicts, strict=True))
            waiting = [one for one, verdict in judged if verdict is not Verdict.THERE]
            if not waiting:
                return
            failed = [one for one, verdict in judged if verdict is Verdict.FAILED]
            if failed:
                # Those that have not failed for good yet, and have something to say of it: all at once.
                failed += [one for one in waiting if one not in failed and one.state.is_troubled]
                raise_all(_errors(engine, fleet, failed))
            if is_paced:
                limit = max(limit, timeout + max(_pace(one, before) for one in states))
            if now - start > limit:
                raise_all(_errors(engine, fleet, waiting, f"after {limit:.0f} s "))
            sleep(POLL_SECONDS)


@dataclass(frozen=True)
class _Reading:
    """One service as it was at one moment, judged; `tasks` are those that tell of it."""

    service: Service
    state: ServiceProgress
    tasks: Sequence[Task]


def _pace(one: _Reading, before: Baseline) -> float:
    """What the update of a service may take of itself, in seconds; nothing where none has begun since."""
    is_news = one.service.update_status != before.updates.get(one.service.id)
    return pace_seconds(one.service, one.state.desired) if is_news and one.service.update_status else 0.0


def read(
    engine: Engine, service_ids: Sequence[str], before: Baseline
) -> list[tuple[Service, ServiceProgress]]:
    """One reading of the swarm: each of the services, judged. A service that has gone is left out.

    What a state becomes when it lasts is `Watch.judge`'s to say.
    """
    return [(one.service, one.state) for one in _readings(engine, service_ids, before)]


def _readings(engine: Engine, service_ids: Sequence[str], before: Baseline) -> list[_Reading]:
    if not service_ids:
        return []
    known = nodes(engine)
    every = tasks(engine, service_ids)
    current = tasks(engine, service_ids, up_to_date=True)
    by_id = {raw["ID"]: Service.of(raw) for raw in engine.get("/services", filters(id=service_ids))}
    found = []
    for service in (by_id[service_id] for service_id in service_ids if service_id in by_id):
        own, of_spec = _of(every, service), _of(current, service)
        state = progress(service, of_spec, own, known, before)
        if service.is_job:
            telling = [task for task in own if task.iteration == service.iteration]
        elif state.rolled_back:
            telling = [task for task in own if task.created >= before.time]
        else:
            telling = of_spec
        found.append(_Reading(service, state, telling))
    return found


def _of(some: Sequence[Task], service: Service) -> list[Task]:
    return [task for task in some if task.service_id == service.id]


class Board:
    """Shows where services stand: on a terminal a line each that changes, else a line a turn of events."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown
        self._said: dict[str, str] = {}

    def show(self, states: Sequence[tuple[ServiceProgress, Verdict]]) -> None:
        if self._shown.rows is not None:
            self._shown.update(_lines(states, self._shown.rows()))
            return
        for state, verdict in states:
            there = verdict is Verdict.THERE
            # Counts go up by themselves; that they are complete, or what is in their way, is news.
            news = "there" if there else state.code
            if news and self._said.get(state.name) != news:
                self._said[state.name] = news
                more = "" if there else f": {state.reason}"
                self._shown.update(f"  {state.name}: {state.count}{more}")


def _lines(states: Sequence[tuple[ServiceProgress, Verdict]], rows: int) -> str:
    """A line a service, what is wrong first and what is there last; no more than `rows` of a screen take."""
    ordered = sorted(states, key=lambda each: (each[1] is Verdict.THERE, not each[0].is_troubled))
    width = max((len(state.name) for state, _ in ordered), default=0)
    # One for those that are left out, and one for the cursor.
    most = max(1, min(LINES_SHOWN, rows - 2))
    lines = []
    for state, verdict in ordered[:most]:
        more = state.reason or state.activity
        if verdict is Verdict.THERE:
            more = "there"
        elif not more and state.verdict is Verdict.THERE:
            more = "watched for a while"
        lines.append(f"  {state.name:{width}}  {state.short_count}  {more}".rstrip())
    if len(ordered) > most:
        lines.append(f"  … and {len(ordered) - most} more")
    return "\n".join(lines)


def _errors(
    engine: Engine, fleet: Fleet | None, failed: Sequence[_Reading], when: str = ""
) -> list[SwarmkitError]:
    """An error for each service, with what can be found out of it; looked up for all at once."""
    examiner = Examiner(engine, fleet)
    try:
        view = examiner.view()
    except SwarmkitError:
        # What is known already must be told all the same.
        return [_error(one, (), when) for one in failed]
    with ThreadPoolExecutor(max_workers=8) as pool:
        found = pool.map(lambda one: examiner.explain(one.service, one.tasks, view), failed)
        return [_error(one, explained, when) for one, explained in zip(failed, found, strict=True)]


def _error(one: _Reading, explained: Sequence[Explanation], when: str) -> SwarmkitError:
    state = one.state
    first = next(iter(explained), None)
    reason = first.reason if first else state.reason
    others = [f"also {each.reason}" for each in explained[1:]]
    then = "; rolled back to what ran before" if state.rolled_back else ""
    hint = first.hint if first else ""
    if state.code == STANDS_STILL and (halt := halted(one.service)):
        then = "; its update stands still" if first else ""
        hint = hint or halt.hint
    return NotConverged(
        f"{when}{state.count}{f': {reason}' if reason else ''}{then}",
        where=state.name,
        hint=hint or f"see: swarmkit service ps {state.name}",
        rolled_back=state.rolled_back,
        details=(*(first.details if first else ()), *others),
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
