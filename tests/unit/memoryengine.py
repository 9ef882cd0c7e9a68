"""An engine in memory: keeps what it is sent, as the manager of a swarm of one node does."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from swarmkit.names import STACK_LABEL
from swarmkit.remote import Engine, EngineError

NODE = {
    "ID": "node1",
    "Spec": {"Role": "manager", "Availability": "active", "Labels": {}},
    "Description": {"Hostname": "m1", "Platform": {"OS": "linux", "Architecture": "x86_64"}, "Engine": {}},
    "Status": {"State": "ready", "Addr": "192.0.2.1"},
}


class MemoryEngine(Engine):
    """`state` tells in which state a service's task is, from its spec; `writes` are the requests made."""

    def __init__(self, state: Callable[[dict[str, Any]], str] = lambda _: "running") -> None:
        self.name = "memory"
        self.state = state
        self.writes: list[str] = []
        self.on_write: Callable[[str], None] = lambda _: None
        self.held: dict[str, dict[str, dict[str, Any]]] = {
            kind: {} for kind in ("services", "configs", "secrets", "networks")
        }
        self.index = 10

    def close(self) -> None:
        """Nothing to give back."""

    def get(self, path: str, params: Any = None, *, headers: Any = None) -> Any:  # noqa: ARG002
        wanted = json.loads(params["filters"]) if params and "filters" in params else {}
        match path.strip("/").split("/"):
            case ["info"]:
                return {"SystemTime": _now()}
            case ["nodes"]:
                return [NODE]
            case ["tasks"]:
                return [
                    task
                    for service in self.held["services"].values()
                    if service["ID"] in wanted.get("service", [service["ID"]])
                    for task in self._tasks(service)
                ]
            case ["services"] if params and params.get("status"):
                return [self._counted(one) for one in self.get("/services", {**params, "status": ""})]
            case [kind]:
                return copy.deepcopy([one for one in self.held[kind].values() if _matches(one, wanted)])
            case [kind, identity]:
                return copy.deepcopy(self._find(kind, identity))
        raise AssertionError(path)

    def post(self, path: str, body: Any = None, params: Any = None, *, headers: Any = None) -> Any:  # noqa: ARG002
        body = copy.deepcopy(body)
        match path.strip("/").split("/"):
            case [kind, "create"]:
                name = body["Name"]
                self._write(f"create {kind} {name}")
                if name in self.held[kind]:
                    raise EngineError(f"{name} already exists", 409)
                self.index += 1
                identity = f"id-{self.index}"
                times = {"CreatedAt": _now(), "UpdatedAt": _now()}
                made = (
                    {"Id": identity, **body}
                    if kind == "networks"
                    else {"ID": identity, "Spec": self._kept(body), **times, "Version": {"Index": self.index}}
                )
                self.held[kind][name] = made
                return {"ID": identity, "Id": identity}
            case [kind, identity, "update"]:
                found = self._find(kind, identity)
                self._write(f"update {kind} {found['Spec']['Name']}")
                if found["Version"]["Index"] != params["version"]:
                    raise EngineError("update out of sequence", 500)
                self.index += 1
                found |= {"PreviousSpec": found["Spec"], "Spec": self._kept(body), "UpdatedAt": _now()}
                found["Version"] = {"Index": self.index}
                return None
        raise AssertionError(path)

    def delete(self, path: str, _params: Any = None) -> None:
        _, kind, identity = path.split("/")
        found = self._find(kind, identity)
        name = found.get("Name") or found["Spec"]["Name"]
        self._write(f"remove {kind} {name}")
        del self.held[kind][name]

    def _write(self, what: str) -> None:
        # The locks' and revisions' own are not the stack's.
        if "swarmkit-" not in what:
            self.writes.append(what)
            self.on_write(what)

    def _find(self, kind: str, identity: str) -> dict[str, Any]:
        for one in self.held[kind].values():
            if identity in (one.get("ID"), one.get("Id")):
                return one
        raise EngineError(f"{identity} not found", 404)

    def _kept(self, spec: dict[str, Any]) -> dict[str, Any]:
        for network in spec.get("TaskTemplate", {}).get("Networks", ()):
            network["Target"] = self.held["networks"].get(network["Target"], {"Id": network["Target"]})["Id"]
        if "Replicated" in spec.get("Mode", {}):
            spec["Mode"]["Replicated"].setdefault("Replicas", 1)
        return spec

    def _counted(self, service: dict[str, Any]) -> dict[str, Any]:
        states = [task["Status"]["State"] for task in self._tasks(service)]
        running, completed = states.count("running"), states.count("complete")
        counts = {"RunningTasks": running, "DesiredTasks": 1, "CompletedTasks": completed}
        return {**service, "ServiceStatus": counts}

    def _tasks(self, service: dict[str, Any]) -> list[dict[str, Any]]:
        state = self.state(service["Spec"])
        return [
            {
                "ID": f"{service['ID']}-{service['Version']['Index']}-{slot}",
                "ServiceID": service["ID"],
                "Slot": slot,
                "NodeID": "node1",
                "Status": {
                    "State": state,
                    "Timestamp": _now(),
                    "Err": "it broke" if state == "failed" else "",
                },
                "DesiredState": "shutdown" if state in ("complete", "failed") else "running",
                "Spec": service["Spec"]["TaskTemplate"],
                "CreatedAt": _now(),
                "UpdatedAt": _now(),
            }
            # Three failures are no accident.
            for slot in ([1] * 3 if state == "failed" else [1])
        ]


def _matches(one: dict[str, Any], wanted: dict[str, list[str]]) -> bool:
    labels = one.get("Spec", one).get("Labels") or {}
    if "label" in wanted:
        return all(f"{STACK_LABEL}={labels.get(STACK_LABEL)}" == label for label in wanted["label"])
    return one.get("ID") in wanted.get("id", [one.get("ID")])


def _now() -> str:
    return datetime.now(UTC).isoformat()
