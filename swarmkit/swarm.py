"""The swarm as its managers tell it: nodes, services and tasks as typed values, and how to find them.

Each value keeps the Engine API's own JSON in `raw`: an update must send back all of a spec, also what
swarmkit does not know.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from swarmkit.errors import UsageError
from swarmkit.names import HOST_LABEL, STACK_LABEL

if TYPE_CHECKING:
    from swarmkit.remote.engine import Engine

SECOND = 1_000_000_000  # the Engine API's durations are nanoseconds

# Task states in which a container may exist and run (Engine API, TaskState).
ACTIVE_STATES = frozenset({"preparing", "starting", "running"})
FAILED_STATES = frozenset({"failed", "rejected"})
_MODES: Mapping[str, str] = {
    "Replicated": "replicated",
    "Global": "global",
    "ReplicatedJob": "replicated-job",
    "GlobalJob": "global-job",
}


@dataclass(frozen=True)
class Node:
    """A node as the swarm sees it. `state` is ready, down, disconnected or unknown."""

    id: str
    hostname: str
    role: str
    leader: bool
    state: str
    availability: str
    address: str
    engine: str
    labels: Mapping[str, str]
    raw: Mapping[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """The machine's name in the inventory that made it a node, else its hostname."""
        return self.labels.get(HOST_LABEL, self.hostname)

    @property
    def is_manager(self) -> bool:
        return self.role == "manager"

    @property
    def is_ready(self) -> bool:
        return self.state == "ready"

    @property
    def is_reachable(self) -> bool:
        """Whether the other managers reach this one."""
        return (self.raw.get("ManagerStatus") or {}).get("Reachability") == "reachable"

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Node:
        spec, description, status = raw["Spec"], raw["Description"], raw["Status"]
        manager = raw.get("ManagerStatus") or {}
        address = status.get("Addr", "")
        # A manager that advertised itself to itself shows 0.0.0.0 here (moby 35437).
        if address in ("", "0.0.0.0") and manager.get("Addr"):
            address = manager["Addr"].rsplit(":", 1)[0]
        return cls(
            id=raw["ID"],
            hostname=description.get("Hostname", ""),
            role=spec["Role"],
            leader=bool(manager.get("Leader")),
            state=status["State"],
            availability=spec["Availability"],
            address=address,
            engine=(description.get("Engine") or {}).get("EngineVersion", ""),
            labels=spec.get("Labels") or {},
            raw=raw,
        )


@dataclass(frozen=True)
class Service:
    """A service. `replicas` is None for a global one."""

    id: str
    name: str
    spec: Mapping[str, Any] = field(repr=False)
    raw: Mapping[str, Any] = field(repr=False)

    @property
    def labels(self) -> Mapping[str, str]:
        return self.spec.get("Labels") or {}

    @property
    def stack(self) -> str:
        return self.labels.get(STACK_LABEL, "")

    @property
    def is_global(self) -> bool:
        return "Global" in self.spec["Mode"]

    @property
    def mode(self) -> str:
        """`replicated`, `global`, `replicated-job` or `global-job`, as docker calls them."""
        return next((_MODES[key] for key in self.spec["Mode"] if key in _MODES), "replicated")

    @property
    def is_job(self) -> bool:
        """Whether its tasks are to end, each once."""
        return self.mode.endswith("job")

    @property
    def completions(self) -> int | None:
        """How many tasks of a replicated job must end with success; None for anything else."""
        job = self.spec["Mode"].get("ReplicatedJob")
        if job is None:
            return None
        # The engine's own default is 1; a job of 0 makes no task.
        given = [job[key] for key in ("TotalCompletions", "MaxConcurrent") if job.get(key) is not None]
        return int(given[0]) if given else 1

    @property
    def iteration(self) -> int:
        """Which run of a job the present one is (Engine API, JobStatus); its tasks carry the same number."""
        return _iteration(self.raw.get("JobStatus") or {})

    @property
    def replicas(self) -> int | None:
        replicated = self.spec["Mode"].get("Replicated")
        return None if replicated is None else int(replicated.get("Replicas", 1))

    @property
    def image(self) -> str:
        return str(self.spec["TaskTemplate"]["ContainerSpec"]["Image"])

    @property
    def constraints(self) -> Sequence[str]:
        return (self.spec["TaskTemplate"].get("Placement") or {}).get("Constraints") or []

    @property
    def has_health_check(self) -> bool:
        """Whether the spec itself has a check: a task then runs only once it is healthy."""
        test = (self.spec["TaskTemplate"]["ContainerSpec"].get("Healthcheck") or {}).get("Test") or []
        return bool(test) and test != ["NONE"]

    def place(self, task: Task) -> int | str:
        """What one of its tasks shares with those that came before and after it: the slot, or the node.

        The slots of a replicated job count from 0, and the engine leaves a 0 out.
        """
        return task.slot or 0 if self.completions is not None else task.place

    @property
    def restart_policy(self) -> Mapping[str, Any]:
        """What becomes of tasks that end; the engine fills in `any`, after 5 s, for ever."""
        return self.spec["TaskTemplate"].get("RestartPolicy") or {}

    @property
    def restarts_always(self) -> bool:
        """Whether a task that ends with success is started again."""
        return not self.is_job and self.restart_policy.get("Condition", "any") == "any"

    @property
    def update_state(self) -> str:
        return str((self.raw.get("UpdateStatus") or {}).get("State", ""))

    @property
    def is_halted(self) -> bool:
        """Whether the swarm has given up the last update, or its rollback, half-way.

        Some tasks may be of another spec. It stops one that fails (`failure_action: pause`, the default), and
        a rollback that fails itself, and goes on only once the service is updated anew.
        """
        return self.update_state in ("paused", "rollback_paused")

    @property
    def update_status(self) -> Mapping[str, Any] | None:
        """How the last update of the spec goes or went (Engine API, UpdateStatus); None before any."""
        return self.raw.get("UpdateStatus")

    @property
    def update_message(self) -> str:
        return str((self.raw.get("UpdateStatus") or {}).get("Message", ""))

    @property
    def running(self) -> int:
        """Running tasks, as counted by the manager; only known when listed by `services`."""
        return int((self.raw.get("ServiceStatus") or {}).get("RunningTasks", 0))

    @property
    def desired(self) -> int:
        """Tasks that should run, as counted by the manager; only known when listed by `services`."""
        return int((self.raw.get("ServiceStatus") or {}).get("DesiredTasks", 0))

    @property
    def is_completed(self) -> bool:
        """Whether it is a job and done, as counted by the manager; only known when listed by `services`."""
        done = int((self.raw.get("ServiceStatus") or {}).get("CompletedTasks", 0))
        return self.is_job and done >= (self.desired if self.completions is None else self.completions)

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Service:
        return cls(id=raw["ID"], name=raw["Spec"]["Name"], spec=raw["Spec"], raw=raw)


@dataclass(frozen=True)
class Task:
    """A task: one attempt to run one slot of a service (or, for a global one, one node's)."""

    id: str
    service_id: str
    slot: int | None
    node_id: str
    state: str
    desired: str
    error: str
    image: str
    addresses: tuple[str, ...]
    created: datetime
    changed: datetime
    raw: Mapping[str, Any] = field(repr=False)

    @property
    def place(self) -> int | str:
        """What a task's successors share with it: the slot, or the node of a global service."""
        return self.slot if self.slot is not None else self.node_id

    @property
    def iteration(self) -> int:
        """The run of its job that the task belongs to."""
        return _iteration(self.raw)

    @property
    def container_id(self) -> str:
        """Its container on its node; empty where none was made."""
        return str((self.raw["Status"].get("ContainerStatus") or {}).get("ContainerID") or "")

    @property
    def written(self) -> datetime:
        """When the managers last wrote it down, by their clock; `changed` is by the node's."""
        return moment(self.raw.get("UpdatedAt") or self.raw["CreatedAt"])

    @property
    def is_up(self) -> bool:
        return self.state == "running" and self.desired == "running"

    @property
    def is_leaving(self) -> bool:
        """Told to stop, and perhaps still running."""
        return self.desired in ("shutdown", "remove") and self.state in ACTIVE_STATES

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Task:
        status = raw["Status"]
        attachments = raw.get("NetworksAttachments") or []
        return cls(
            id=raw["ID"],
            service_id=raw["ServiceID"],
            slot=raw.get("Slot"),
            node_id=raw.get("NodeID", ""),
            state=status["State"],
            desired=raw["DesiredState"],
            error=status.get("Err", ""),
            image=raw["Spec"].get("ContainerSpec", {}).get("Image", ""),
            addresses=tuple(
                address.split("/")[0] for one in attachments for address in one.get("Addresses") or []
            ),
            created=moment(raw["CreatedAt"]),
            changed=moment(status.get("Timestamp") or raw["CreatedAt"]),
            raw=raw,
        )


def _iteration(raw: Mapping[str, Any]) -> int:
    return int((raw.get("JobIteration") or {}).get("Index") or 0)


def moment(text: str) -> datetime:
    """A point in time as the Engine API writes it: RFC 3339, with up to nine digits of a second."""
    return datetime.fromisoformat(text)


def filters(**wanted: str | Iterable[str]) -> dict[str, str]:
    """The `filters` parameter of the Engine API."""
    as_lists = {key: [value] if isinstance(value, str) else list(value) for key, value in wanted.items()}
    return {"filters": json.dumps(as_lists)}


def nodes(engine: Engine) -> list[Node]:
    """All nodes, managers first, then by name."""
    found = [Node.of(raw) for raw in engine.get("/nodes")]
    return sorted(found, key=lambda node: (not node.is_manager, node.name))


def services(engine: Engine, stack: str | None = None) -> list[Service]:
    """All services (of one stack), by name, with the counts of their tasks."""
    params = {"status": "true"} | (filters(label=f"{STACK_LABEL}={stack}") if stack else {})
    return sorted((Service.of(raw) for raw in engine.get("/services", params)), key=lambda one: one.name)


def tasks(engine: Engine, service_ids: Sequence[str], up_to_date: bool = False) -> list[Task]:
    """Tasks of these services; with `up_to_date` only those made from their present specs."""
    if not service_ids:
        return []
    wanted: dict[str, Any] = {"service": service_ids}
    if up_to_date:
        wanted["_up-to-date"] = "true"
    return [Task.of(raw) for raw in engine.get("/tasks", filters(**wanted))]


def node_tasks(engine: Engine, node_id: str) -> list[Task]:
    """Tasks on one node, of whatever service."""
    return [Task.of(raw) for raw in engine.get("/tasks", filters(node=node_id))]


def inspect(engine: Engine, service_id: str) -> Service:
    """The service as it is now, with its version; raises EngineError (404) where it has gone."""
    return Service.of(engine.get(f"/services/{service_id}"))


def find_service(known: Sequence[Service], name: str) -> Service:
    """The service the user means: by its whole name or id, else by its name within its stack.

    Raises UsageError where there is none, or more than one.
    """
    for service in known:
        if name in (service.name, service.id):
            return service
    candidates = [one for one in known if one.stack and one.name == f"{one.stack}_{name}"]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        names = ", ".join(one.name for one in candidates)
        raise UsageError(f'"{name}" may be any of {names}', hint="use the whole name")
    names = ", ".join(one.name for one in known) or "none"
    raise UsageError(f'no service is called "{name}"', hint=f"services here: {names}")


def find_node(known: Sequence[Node], name: str) -> Node:
    """The node the user means, by its inventory name, hostname or id; raises UsageError."""
    candidates = [node for node in known if name in (node.name, node.id)] or [
        node for node in known if node.hostname == name
    ]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        ids = ", ".join(node.id for node in candidates)
        raise UsageError(f'{len(candidates)} nodes are called "{name}"', hint=f"use an id: {ids}")
    names = ", ".join(node.name for node in known) or "none"
    raise UsageError(f'no node is called "{name}"', hint=f"nodes here: {names}")


def is_placeable(node: Node, constraints: Sequence[str]) -> bool:
    """Whether new tasks with these placement constraints may run on the node."""
    if node.state != "ready" or node.availability != "active":
        return False
    return all(meets(node, constraint) for constraint in constraints)


def split_constraint(constraint: str) -> tuple[str, bool, str]:
    """A placement constraint `key==value` or `key!=value` as key, whether they are to be equal, value."""
    wanted = "!=" not in constraint
    key, _, value = (part.strip() for part in constraint.partition("==" if wanted else "!="))
    return key, wanted, value


def meets(node: Node, constraint: str) -> bool:
    """Whether the node meets one placement constraint (Engine API, Placement).

    A key that swarmkit does not know is taken as met: the swarm itself decides, and says why not.
    """
    key, wanted, value = split_constraint(constraint)
    description = node.raw["Description"]
    match key.split(".", 2):
        case ["node", "id"]:
            actual = node.id
        case ["node", "hostname"]:
            actual = node.hostname
        case ["node", "role"]:
            actual = node.role
        case ["node", "platform", "os"]:
            actual = description["Platform"]["OS"]
        case ["node", "platform", "arch"]:
            actual = description["Platform"]["Architecture"]
        case ["node", "labels", label]:
            actual = node.labels.get(label, "")
        case ["engine", "labels", label]:
            actual = ((description.get("Engine") or {}).get("Labels") or {}).get(label, "")
        case _:
            return True
    # The swarm compares without regard to case (moby/swarmkit, constraint.go).
    return (actual.lower() == value.lower()) is wanted
