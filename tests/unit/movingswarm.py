"""A swarm in memory that moves tasks as Swarm does: constraints, start-first, and who is drained."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from swarmkit.remote import Engine, EngineError
from swarmkit.swarm import Node, Service, meets
from tests.unit.builders import node


class Killed(BaseException):
    """The command died here."""


class MovingSwarm(Engine):
    """Everything happens at once, and what runs is healthy; `gaps` are the slots that stopped too soon.

    After `writes` requests that write (none where it is None) the command is killed. Replacements of a
    service in `broken` are rejected.
    """

    def __init__(self, nodes: int, services: Mapping[str, Service], placed: Mapping[str, list[str]]) -> None:
        self.name = "memory"
        self.nodes = {name: dict(node(name).raw) for name in (f"n{each}" for each in range(1, nodes + 1))}
        for one in self.nodes.values():
            one["Version"] = {"Index": 1}
        self.services = {
            name: {**copy.deepcopy(dict(one.raw)), "ID": name, "Version": {"Index": 1}}
            for name, one in services.items()
        }
        self.tasks: list[dict[str, Any]] = []
        self.configs: dict[str, dict[str, Any]] = {}
        self.gaps: list[str] = []
        self.broken: set[str] = set()
        self.count = 0
        self.writes: int | None = None
        self.on_update: Callable[[str], None] = lambda _: None
        for name, where in placed.items():
            for slot, on in enumerate(where, 1):
                self._start(name, slot, on)

    # -------------------------------------------------------- what tests ask

    def specs(self) -> dict[str, Any]:
        return {name: copy.deepcopy(one["Spec"]) for name, one in self.services.items()}

    def up(self, service: str) -> dict[int, str]:
        """The node of each slot that runs."""
        return {
            one["Slot"]: one["NodeID"]
            for one in self.tasks
            if one["ServiceID"] == service and one["DesiredState"] == one["Status"]["State"] == "running"
        }

    def availability(self, name: str) -> str:
        return str(self.nodes[name]["Spec"]["Availability"])

    def is_marked(self) -> bool:
        things = [*self.nodes.values(), *self.services.values()]
        return any("swarmkit.move" in (one["Spec"].get("Labels") or {}) for one in things)

    # -------------------------------------------------------- the engine

    def close(self) -> None:
        """Nothing to give back."""

    def get(self, path: str, params: Any = None, *, headers: Any = None) -> Any:  # noqa: ARG002
        wanted = json.loads(params["filters"]) if params and "filters" in params else {}
        match path.strip("/").split("/"):
            case ["info"]:
                return {"SystemTime": _now()}
            case ["tasks"]:
                return copy.deepcopy([one for one in self.tasks if self._is_wanted(one, wanted)])
            case ["configs"]:
                return copy.deepcopy(list(self.configs.values()))
            case [kind]:
                held = self._held(kind).values()
                return copy.deepcopy([one for one in held if one["ID"] in wanted.get("id", [one["ID"]])])
            case [kind, identity]:
                return copy.deepcopy(self._held(kind)[identity])
        raise EngineError(f"nothing is known of {path}", 404)

    def post(self, path: str, body: Any = None, params: Any = None, *, headers: Any = None) -> Any:  # noqa: ARG002
        match path.strip("/").split("/"):
            case ["configs", "create"]:
                if body["Name"] in self.configs:
                    raise EngineError("already exists", 409)
                times = {"CreatedAt": _now(), "UpdatedAt": _now()}
                self.configs[body["Name"]] = {
                    "ID": body["Name"],
                    "Spec": body,
                    **times,
                    "Version": {"Index": 1},
                }
                return {"ID": body["Name"]}
            case [kind, identity, "update"]:
                held = self._held(kind)[identity]
                assert params["version"] == held["Version"]["Index"]
                held["Spec"] = copy.deepcopy(body)
                held["Version"] = {"Index": params["version"] + 1}
                if kind == "nodes":
                    self._node_updated(identity)
                if kind == "services":
                    self._service_updated(identity)
        self.on_update(path)
        self.count += 1
        if self.count == self.writes:
            raise Killed
        return None

    def delete(self, path: str, _params: Any = None) -> None:
        self.configs.pop(path.rpartition("/")[2], None)

    def _held(self, kind: str) -> dict[str, dict[str, Any]]:
        return {"nodes": self.nodes, "services": self.services, "configs": self.configs}[kind]

    def _is_wanted(self, task: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
        return (
            task["ServiceID"] in wanted.get("service", [task["ServiceID"]])
            and task["NodeID"] in wanted.get("node", [task["NodeID"]])
            and ("_up-to-date" not in wanted or self._fits(task["ServiceID"], task["NodeID"]))
        )

    # -------------------------------------------------------- the swarm

    def _fits(self, service: str, on: str) -> bool:
        one = Service.of(self.services[service])
        return all(meets(Node.of(self.nodes[on]), rule) for rule in one.constraints)

    def _place(self, service: str) -> str | None:
        counts = Counter(self.up(service).values())
        able = [
            name for name in self.nodes if self.availability(name) == "active" and self._fits(service, name)
        ]
        return min(able, key=lambda name: (counts[name], name), default=None)

    def _start(self, service: str, slot: int, on: str, state: str = "running") -> None:
        self.tasks.append(
            {
                "ID": f"{service}.{slot}-{len(self.tasks):04}",
                "ServiceID": service,
                "Slot": slot,
                "NodeID": on,
                "Status": {"State": state, "Timestamp": _now(), "Err": "No such image: i"},
                "DesiredState": "running" if state == "running" else "shutdown",
                "Spec": self.services[service]["Spec"]["TaskTemplate"],
                "CreatedAt": _now(),
                "UpdatedAt": _now(),
            }
        )

    def _stop(self, task: dict[str, Any]) -> None:
        task["DesiredState"] = task["Status"]["State"] = "shutdown"

    def _on(self, name: str) -> list[dict[str, Any]]:
        return [one for one in self.tasks if one["NodeID"] == name and one["DesiredState"] == "running"]

    def _node_updated(self, name: str) -> None:
        availability = self.availability(name)
        for task in self._on(name):
            out = availability == "active" and not self._fits(task["ServiceID"], name)
            if out or availability == "drain":
                self._stop(task)
                self.gaps.append(task["ServiceID"])
                if (other := self._place(task["ServiceID"])) is not None:
                    self._start(task["ServiceID"], task["Slot"], other)

    def _service_updated(self, name: str) -> None:
        service = self.services[name]
        service["UpdateStatus"] = None
        config = service["Spec"].get("UpdateConfig") or {}
        most = config.get("Parallelism", 1) if config.get("Delay") else 0
        unfit = [one for one in self.tasks if one["ServiceID"] == name and one["DesiredState"] == "running"]
        unfit = [one for one in unfit if not self._fits(name, one["NodeID"])]
        # From a node that takes tasks, the swarm rejects those that do not fit it, at any write to the node.
        self.gaps += [name for task in unfit if self.availability(task["NodeID"]) == "active"]
        for task in unfit[:most] if most else unfit:
            other = self._place(name)
            if name in self.broken or other is None:
                self._start(name, task["Slot"], other or "", "rejected")
                service["UpdateStatus"] = {"State": "paused", "StartedAt": _now(), "Message": "update paused"}
                return
            self._start(name, task["Slot"], other)
            self._stop(task)
        state = "updating" if most and unfit[most:] else "completed"
        if unfit:
            service["UpdateStatus"] = {"State": state, "StartedAt": _now(), "Message": ""}


def _now() -> str:
    return datetime.now(UTC).isoformat()
