"""An engine in memory: keeps what it is sent, as the manager of a swarm of one node does."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from swarmkit.deploy.plan import ports
from swarmkit.names import STACK_LABEL
from swarmkit.remote import Engine, EngineError

NODE = {
    "ID": "node1",
    "Spec": {"Role": "manager", "Availability": "active", "Labels": {}},
    "Description": {"Hostname": "m1", "Platform": {"OS": "linux", "Architecture": "x86_64"}, "Engine": {}},
    "Status": {"State": "ready", "Addr": "192.0.2.1"},
}
_ERRORS = {"failed": "it broke", "pending": "no suitable node (insufficient resources on 1 node)"}


class MemoryEngine(Engine):
    """`state` tells in which state a service's task is, from its spec; `writes` are the requests made.

    As in a swarm, a service that is updated keeps the ports that it had for a moment: for two looks at it.
    """

    def __init__(self, state: Callable[[dict[str, Any]], str] = lambda _: "running") -> None:
        self.name = "memory"
        self.state = state
        self.writes: list[str] = []
        self.on_write: Callable[[str], None] = lambda _: None
        self.held: dict[str, dict[str, dict[str, Any]]] = {
            kind: {} for kind in ("services", "configs", "secrets", "networks")
        }
        # What it has of images, by reference, and the digests that registries tell; none answers else.
        self.images: dict[str, dict[str, Any]] = {}
        self.digests: dict[str, str] = {}
        self.index = 10
        self.turn = threading.Lock()
        self.looks: dict[str, int] = {}

    def close(self) -> None:
        """Nothing to give back."""

    @property
    def api_version(self) -> str:
        return "1.45"

    def get(self, path: str, params: Any = None, *, headers: Any = None) -> Any:  # noqa: ARG002
        wanted = json.loads(params["filters"]) if params and "filters" in params else {}
        match path.strip("/").split("/"):
            case ["info"]:
                return {"SystemTime": _now(), "Swarm": {"NodeID": NODE["ID"]}}
            case ["nodes"]:
                return [NODE]
            case ["images", *name, "json"]:
                if "/".join(name) not in self.images:
                    raise EngineError("no such image", 404)
                return {"Id": "sha256:1", "Config": self.images["/".join(name)]}
            case ["distribution", *name, "json"]:
                if "/".join(name) not in self.digests:
                    raise EngineError("dial tcp: connection refused", 500)
                return {"Descriptor": {"digest": self.digests["/".join(name)]}}
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
                found = copy.deepcopy([one for one in self.held[kind].values() if _matches(one, wanted)])
                for one in self.held["services"].values():
                    self.looks[one["ID"]] = self.looks.get(one["ID"], 0) + 1
                    if self.looks[one["ID"]] > 2:
                        _allocate(one)
                return found
            case [kind, identity]:
                return copy.deepcopy(self._find(kind, identity))
        raise AssertionError(path)

    def received(self, path: str) -> None:
        """Called with the path of each request that writes, before it is carried out."""

    def post(self, path: str, body: Any = None, params: Any = None, *, headers: Any = None) -> Any:  # noqa: ARG002
        # Services are sent side by side; a swarm takes one thing after the other.
        with self.turn:
            return self._post(path, copy.deepcopy(body), params)

    def _post(self, path: str, body: Any, params: Any) -> Any:
        self.received(path)
        match path.strip("/").split("/"):
            case [kind, "create"]:
                name = body["Name"]
                self._write(f"create {kind} {name}")
                if name in self.held[kind]:
                    raise EngineError(f"{name} already exists", 409)
                self._check_ports(body)
                self.index += 1
                identity = f"id-{self.index}"
                times = {"CreatedAt": _now(), "UpdatedAt": _now()}
                made = (
                    {"Id": identity, **body}
                    if kind == "networks"
                    else {"ID": identity, "Spec": self._kept(body), **times, "Version": {"Index": self.index}}
                )
                self.held[kind][name] = made
                _allocate(made)
                return {"ID": identity, "Id": identity}
            case [kind, identity, "update"]:
                found = self._find(kind, identity)
                self._write(f"update {kind} {found['Spec']['Name']}")
                if found["Version"]["Index"] != params["version"]:
                    raise EngineError("update out of sequence", 500)
                self._check_ports(body)
                self.index += 1
                found |= {"PreviousSpec": found["Spec"], "Spec": self._kept(body), "UpdatedAt": _now()}
                found["Version"] = {"Index": self.index}
                self.looks[found["ID"]] = 0
                return None
        raise AssertionError(path)

    def delete(self, path: str, _params: Any = None) -> None:
        self.received(path)
        _, kind, identity = path.split("/")
        found = self._find(kind, identity)
        name = found.get("Name") or found["Spec"]["Name"]
        self._write(f"remove {kind} {name}")
        del self.held[kind][name]

    def _check_ports(self, spec: dict[str, Any]) -> None:
        """As the swarm: by what it works with, which may be a moment behind the specs."""
        wanted = ports(spec)
        for other in self.held["services"].values():
            taken = ports(other["Spec"]) | ports({"EndpointSpec": other["Endpoint"]})
            if other["Spec"]["Name"] != spec["Name"] and wanted & taken:
                raise EngineError(f"port is already in use by service {other['Spec']['Name']}", 400)

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
        if service["Spec"].get("Mode", {}).get("Replicated", {}).get("Replicas", 1) == 0:
            return []
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
                    "Err": _ERRORS.get(state, ""),
                },
                "DesiredState": "shutdown" if state in ("complete", "failed") else "running",
                "Spec": service["Spec"]["TaskTemplate"],
                "CreatedAt": _now(),
                "UpdatedAt": _now(),
            }
            # Three failures are no accident.
            for slot in ([1] * 3 if state == "failed" else [1])
        ]


def _allocate(thing: dict[str, Any]) -> None:
    thing["Endpoint"] = copy.deepcopy(thing.get("Spec", {}).get("EndpointSpec") or {})


def _matches(one: dict[str, Any], wanted: dict[str, list[str]]) -> bool:
    labels = one.get("Spec", one).get("Labels") or {}
    if "label" in wanted:
        return all(f"{STACK_LABEL}={labels.get(STACK_LABEL)}" == label for label in wanted["label"])
    return one.get("ID") in wanted.get("id", [one.get("ID")])


def _now() -> str:
    return datetime.now(UTC).isoformat()
