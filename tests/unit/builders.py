"""Nodes, services and tasks as an engine tells of them, in few words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swarmkit.swarm import Node, Service, Task


def node(name: str, **changed: Any) -> Node:
    raw: dict[str, Any] = {
        "ID": name,
        "Spec": {"Role": "worker", "Availability": "active", "Labels": changed.pop("labels", {})},
        "Description": {
            "Hostname": name,
            "Engine": {"EngineVersion": "26.1"},
            "Platform": {"OS": "linux", "Architecture": changed.pop("arch", "x86_64")},
            "Resources": {
                "NanoCPUs": int(changed.pop("cpus", 4) * 1e9),
                "MemoryBytes": changed.pop("memory", 1 << 30),
            },
        },
        "Status": {"State": changed.pop("state", "ready"), "Addr": "10.0.0.1"},
    }
    raw["Spec"].update(changed)
    return Node.of(raw)


def service(
    replicas: int | None = 2, update: str = "", message: str = "", at: str = "10:00:05", **spec: Any
) -> Service:
    """Called `web`, with the id `s`, unless `name` says otherwise; `container` and `task` are parts of it."""
    name, labels = spec.pop("name", "web"), spec.pop("labels", {})
    mode: dict[str, Any] = {"Global": {}} if replicas is None else {"Replicated": {"Replicas": replicas}}
    task = {"ContainerSpec": {"Image": "i", **spec.pop("container", {})}, **spec.pop("task", {})}
    raw: dict[str, Any] = {
        "ID": "s" if name == "web" else name,
        "Spec": {"Name": name, "Labels": labels, "Mode": mode, "TaskTemplate": task, **spec},
    }
    if update:
        raw["UpdateStatus"] = {"State": update, "Message": message, "StartedAt": f"2026-01-01T{at}.5Z"}
    return Service.of(raw)


def job(mode: Mapping[str, Any], iteration: int = 5, **policy: Any) -> Service:
    """A job in its `iteration`th run, with this restart policy."""
    one = service(Mode=dict(mode), task={"RestartPolicy": policy})
    return Service.of({**one.raw, "JobStatus": {"JobIteration": {"Index": iteration}}})


def task(
    number: int | None,
    state: str = "running",
    desired: str = "running",
    *,
    at: str = "10:00:01",
    on: str = "n1",
    error: str = "",
    **more: Any,
) -> Task:
    """The task of slot `number`; `container` is its container's id, `iteration` its job's run."""
    container, iteration = more.pop("container", ""), more.pop("iteration", None)
    return Task.of(
        {
            "ID": f"{number}-{on}-{at}-{state}",
            "ServiceID": more.pop("of", "s"),
            "NodeID": on,
            "Status": {
                "State": state,
                "Err": error,
                "Timestamp": f"2026-01-01T{at}Z",
                "ContainerStatus": {"ContainerID": container},
            },
            "DesiredState": desired,
            "Spec": {"ContainerSpec": {"Image": more.pop("image", "i")}, **more},
            "CreatedAt": f"2026-01-01T{at}Z",
        }
        | ({"Slot": number} if number else {})
        | ({"JobIteration": {"Index": iteration}} if iteration is not None else {})
    )
