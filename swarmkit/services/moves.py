"""Moving tasks off a node, each after its replacement runs: what is sent, and who may be moved so.

A service that gets the constraint `node.id!=X`, and `start-first`, has its tasks on X replaced and no
others: where nothing but the placement differs and a task's node still fits, Swarm leaves the task alone
(moby/swarmkit, manager/orchestrator/task.go, IsTaskDirty). For the same reason the way back restarts
nothing. With a parallelism of N and a delay without end it is just N tasks that move.

All of this is pure. A service on the way carries the label `swarmkit.move`: what was put into its spec,
and what was there before, so that whoever comes next can go on or undo it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from swarmkit.names import BALANCER_STACK, MOVE_LABEL
from swarmkit.services.explain import halted
from swarmkit.services.placement import Ask, obstacles, rooms
from swarmkit.swarm import SECOND, Node, Service, Task

Operation = Literal["drain", "rebalance"]
# The longest that an update may be told to wait (Go's time.Duration ends at 292 years).
_ENDLESS = 100 * 365 * 24 * 3600 * SECOND
_UPDATING = ("updating", "rollback_started")
# Sockets and devices are no storage.
_NO_STORAGE = ("/dev", "/proc", "/run", "/sys", "/var/run")


# ---------------------------------------------------------------- specs on the way, and back


@dataclass(frozen=True)
class Mark:
    """What a service on the way carries.

    `nodes` are the ids of those that its tasks leave, `added` the constraints for that. `update_config`
    is the one from before, None for none; `placement` and `constraints` say whether there were any.
    """

    operation: Operation
    nodes: tuple[str, ...]
    added: tuple[str, ...]
    placement: bool
    constraints: bool
    update_config: Mapping[str, Any] | None

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Self | None:
        """The mark of a service's spec, if it has one."""
        text = (spec.get("Labels") or {}).get(MOVE_LABEL)
        if text is None:
            return None
        document = json.loads(text)
        return cls(**{**document, "nodes": tuple(document["nodes"]), "added": tuple(document["added"])})


def moving(service: Service, operation: Operation, nodes: Sequence[str], most: int = 0) -> dict[str, Any]:
    """The spec by which a service's tasks leave these nodes (by id), marked; with `most`, only so many.

    The user's own parallelism holds, else all move at once. A delay is for watching what is new, and
    nothing is.
    """
    spec = service.spec
    placement = spec["TaskTemplate"].get("Placement")
    constraints = list((placement or {}).get("Constraints") or ())
    added = [rule for rule in (f"node.id!={node}" for node in nodes) if rule not in constraints]
    config = spec.get("UpdateConfig")
    mark = Mark(
        operation,
        tuple(nodes),
        tuple(added),
        placement is not None,
        (placement or {}).get("Constraints") is not None,
        config,
    )
    return {
        **spec,
        "Labels": {**service.labels, MOVE_LABEL: json.dumps(asdict(mark), separators=(",", ":"))},
        "TaskTemplate": {
            **spec["TaskTemplate"],
            "Placement": {**(placement or {}), "Constraints": [*constraints, *added]},
        },
        "UpdateConfig": {
            "Parallelism": most or (config or {}).get("Parallelism", 0),
            "Delay": _ENDLESS if most else 0,
            "Order": "start-first",
            # Going back by itself would lose the mark.
            "FailureAction": "pause",
            # A task with a health check runs only once it is healthy: there is nothing more to watch for.
            "Monitor": SECOND if service.has_health_check else (config or {}).get("Monitor") or 5 * SECOND,
            "MaxFailureRatio": 0,
        },
    }


def settled(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """The spec without what `moving` put into it; the same one where it is not on the way.

    What somebody has changed besides stays.
    """
    mark = Mark.of(spec)
    if mark is None:
        return spec
    task = dict(spec["TaskTemplate"])
    placement = dict(task.pop("Placement", None) or {})
    left = [rule for rule in placement.pop("Constraints", None) or () if rule not in mark.added]
    if left or mark.constraints:
        placement["Constraints"] = left
    if placement or mark.placement:
        task["Placement"] = placement
    labels = {key: value for key, value in spec["Labels"].items() if key != MOVE_LABEL}
    found = {**spec, "Labels": labels, "TaskTemplate": task}
    found.pop("UpdateConfig", None)
    if mark.update_config is not None:
        found["UpdateConfig"] = dict(mark.update_config)
    return found


def eased(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a service on the way, without what rules nodes out; still marked.

    Swarm's update then has to choose between the tasks of a slot that has two. With the user's own delay it
    would take that long to end, and whoever waits for the service with it.
    """
    config = {**(spec.get("UpdateConfig") or {}), "Parallelism": 0, "Delay": 0}
    return {**settled(spec), "Labels": spec["Labels"], "UpdateConfig": config}


def is_eased(spec: Mapping[str, Any]) -> bool:
    """Whether a service on the way has no node ruled out any more."""
    mark = Mark.of(spec)
    constraints = (spec["TaskTemplate"].get("Placement") or {}).get("Constraints") or ()
    return mark is not None and not set(mark.added) & set(constraints)


def is_crowded(tasks: Sequence[Task]) -> bool:
    """Whether a slot has two tasks that are to run."""
    places = Counter(task.place for task in tasks if task.desired == "running")
    return any(number > 1 for number in places.values())


def may_settle(tasks: Sequence[Task]) -> bool:
    """Whether a service with these tasks can be sent its own spec again, and no slot lose what runs.

    In a slot with two tasks that both fit the spec, Swarm keeps the first by id, running or not, and stops
    the other (moby/swarmkit, manager/orchestrator/update/updater.go; tried). One without a node never fits.
    """
    slots: dict[int | str, list[Task]] = {}
    for task in tasks:
        if task.desired == "running" and task.node_id:
            slots.setdefault(task.place, []).append(task)
    return all(
        min(slot, key=lambda task: task.id).is_up for slot in slots.values() if any(one.is_up for one in slot)
    )


def is_updating(service: Service) -> bool:
    """Whether the swarm is at work on an update of it, or on the way back from one."""
    return service.update_state in _UPDATING


# ---------------------------------------------------------------- who may move


@dataclass(frozen=True)
class Gap:
    """Why a service's tasks stop before others run in their place: a code, and in words."""

    code: str
    reason: str


def risk(service: Service) -> Gap | None:
    """Why two tasks in one slot must not be, if only for seconds: what a user may insist on all the same."""
    # Where a configuration names no order the engine writes down its default: the two look alike.
    if (service.spec.get("UpdateConfig") or {}).get("Order") == "stop-first":
        return Gap("stop-first", "its update_config says stop-first (so it does where it names no order)")
    storage = sorted(_writable(service))
    if storage:
        return Gap("storage", f"two tasks at once must not write to the same storage ({', '.join(storage)})")
    return None


def hindrance(service: Service) -> Gap | None:
    """Why a service cannot be moved task by task at all."""
    if service.is_job:
        return Gap("job", "a job: its task is started again elsewhere")
    if service.replicas is None:
        return Gap("global", "global: one task a node, and this node's ends")
    if halt := halted(service):
        return Gap("halted", f"its last update stands still, and its tasks are not all alike: {halt.reason}")
    return None


def _writable(service: Service) -> set[str]:
    """The volumes and folders of nodes that its tasks may write to; none that are a task's own."""
    found = set()
    for mount in service.spec["TaskTemplate"].get("ContainerSpec", {}).get("Mounts") or ():
        source = mount.get("Source") or ""
        kind = mount.get("Type") or "volume"
        if kind not in ("volume", "bind", "cluster") or mount.get("ReadOnly") or not source:
            continue
        if kind == "bind" and any(source == one or source.startswith(f"{one}/") for one in _NO_STORAGE):
            continue
        found.add(source)
    return found


# ---------------------------------------------------------------- the plan of a drain


@dataclass(frozen=True)
class Departing:
    """A service with `count` of its `total` tasks on nodes that are emptied; `gap` is why they stop first.

    `waits` says that they run nowhere until a node is back, for there is no place for them.
    """

    service: Service
    count: int
    total: int
    gap: Gap | None = None
    waits: bool = False

    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"service": self.service.name, "tasks": self.count, "of": self.total}
        if self.gap is not None:
            found |= {"code": self.gap.code, "reason": self.gap.reason, "waits": self.waits}
        return found

    def __str__(self) -> str:
        tasks = f"{self.count} of {self.total} tasks" if self.total > 1 else "its task"
        several = self.total > 1 and self.count > 1
        if self.gap is None:
            verb = "move" if several else "moves"
            return f"{self.service.name}: {tasks} {verb}, once a replacement runs"
        verb = "stop" if several else "stops"
        then = f"{verb} and will wait" if self.waits else f"{verb} before another runs"
        if self.gap.code == "global":
            then = "ends" if not several else "end"
        return f"{self.service.name}: {tasks} {then}: {self.gap.reason}"


@dataclass(frozen=True)
class DrainPlan:
    """What becomes of the tasks on nodes that are emptied: those that move, and those that stop first."""

    nodes: Sequence[Node]
    moves: Sequence[Departing]
    gaps: Sequence[Departing]
    warnings: Sequence[str]

    @property
    def services(self) -> list[Service]:
        """Those of which tasks stop."""
        return [one.service for one in (*self.moves, *self.gaps)]

    def json(self) -> dict[str, Any]:
        return {
            "nodes": [node.name for node in self.nodes],
            "moves": [one.json() for one in self.moves],
            "gaps": [one.json() for one in self.gaps],
            "warnings": list(self.warnings),
        }


def plan_drain(
    chosen: Sequence[Node],
    nodes: Sequence[Node],
    services: Sequence[Service],
    tasks: Sequence[Task],
    *,
    force: bool = False,
) -> DrainPlan:
    """What a drain of the `chosen` nodes does to the services of a swarm.

    With `force`, those move as well that are said to have no two tasks at once. What a node that is down
    ran, the swarm has given up on by itself; from one that is drained already, tasks are going.
    """
    emptied = {node.id for node in chosen}
    sources = {node.id for node in chosen if node.is_ready and node.availability != "drain"}
    others = [node for node in nodes if node.id not in emptied]
    left = rooms(others, tasks, services)
    moves: list[Departing] = []
    gaps: list[Departing] = []
    for service in services:
        # As the user has it: the node that it leaves is ruled out by an operation that was cut off.
        own = [task for task in tasks if task.service_id == service.id and task.desired == "running"]
        count = sum(task.node_id in sources for task in own)
        if not count:
            continue
        service = Service.of({**service.raw, "Spec": settled(service.spec)})
        gap = hindrance(service)
        waits = False
        if gap is None:
            ask = Ask.of(service.spec)
            beside = Counter(task.node_id for task in own)
            able = [node for node in others if ask.allows(node)]
            takes = {
                node.id: max(0, min(left[node.id].takes(ask), ask.most - beside[node.id])) for node in able
            }
            room = sum(takes.values())
            waits = not able or not room
            if not able:
                gap = Gap("no-place", "no other node may have it" + _because(ask, others, left))
            elif room < count:
                gap = Gap("no-room", _no_room(room, count) + _because(ask, others, left))
            elif not force:
                gap = risk(service)
            if gap is None:
                # What moves takes its room from those that come after it.
                for node_id, number in _spread(count, takes, beside).items():
                    left[node_id] = left[node_id].without(ask, number, service.name)
        one = Departing(service, count, len(own), gap, waits)
        (moves if gap is None else gaps).append(one)
    return DrainPlan(chosen, moves, gaps, entry_warnings(chosen, services, tasks))


def _spread(count: int, takes: Mapping[str, int], beside: Mapping[str, int]) -> Mapping[str, int]:
    """How many of `count` tasks each node gets, as the scheduler spreads those of one service."""
    found = Counter[str]()
    for _ in range(count):
        open_ = [node for node, most in takes.items() if found[node] < most]
        found[min(open_, key=lambda node: beside[node] + found[node])] += 1
    return found


def _because(ask: Ask, others: Sequence[Node], left: Mapping[str, Any]) -> str:
    reasons = obstacles(ask, others, left)
    return f" ({'; '.join(reasons)})" if reasons else ""


def _no_room(room: int, count: int) -> str:
    return f"the other nodes have room for {room} of its {count} tasks"


def entry_warnings(
    touched: Sequence[Node], services: Sequence[Service], tasks: Sequence[Task]
) -> Sequence[str]:
    """A warning for each node by which clients come in: where the balancer's proxy runs."""
    proxies = {one.id: one.name for one in services if one.stack == BALANCER_STACK and one.is_global}
    on = {
        task.node_id: proxies[task.service_id]
        for task in tasks
        if task.service_id in proxies and task.desired == "running"
    }
    gone = {node.id for node in touched}
    names = {node.id: node.name for node in touched}
    other = sum(node not in gone for node in on)
    rest = "let them use another entry, or a floating address"
    if not other:
        rest = "there is no other entry now"
    return [
        f"{names[node]} is an entry node ({name} runs there): clients that come in by its address lose their "
        f"connections; {rest}"
        for node, name in on.items()
        if node in gone
    ]
