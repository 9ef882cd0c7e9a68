"""How nodes, services and tasks are shown: as the contract's JSON, and as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from swarmkit.images import REGISTRY
from swarmkit.names import CANARY_LABEL, HOST_LABEL
from swarmkit.services.canary import explanation
from swarmkit.swarm import Node, Service, Task
from swarmkit.ui import Ui, key_values


def node_json(node: Node) -> dict[str, Any]:
    """A node of `status` and `node ls`."""
    return {
        "name": node.name,
        "role": node.role,
        "leader": node.leader,
        "status": node.state,
        "availability": node.availability,
        "address": node.address,
        "engine": node.engine,
        "labels": dict(node.labels),
    }


def show_nodes(ui: Ui, found: Sequence[Node]) -> None:
    """The nodes as a table."""
    rows = [
        (
            node.name,
            f"{node.role}{' (leader)' if node.leader else ''}",
            node.state,
            node.availability,
            node.address,
            node.engine,
            key_values({key: value for key, value in node.labels.items() if key != HOST_LABEL}),
        )
        for node in found
    ]
    ui.table(("NODE", "ROLE", "STATUS", "AVAILABILITY", "ADDRESS", "ENGINE", "LABELS"), rows, "no nodes")


def service_json(service: Service) -> dict[str, Any]:
    """A service of `status` and `service ls`."""
    return {
        "name": service.name,
        "stack": service.stack,
        "mode": service.mode,
        "running": service.running,
        "desired": service.desired,
        "image": service.image,
        "update": service.update_state,
        "canary": service.labels.get(CANARY_LABEL, ""),
    }


def show_services(ui: Ui, found: Sequence[Service]) -> None:
    """The services as a table."""
    rows = [
        (
            service.name,
            service.stack or "-",
            service.mode,
            f"{service.running}/{service.desired}",
            short_image(service.image),
            explanation(service) or service.update_state or "-",
        )
        for service in found
    ]
    ui.table(("SERVICE", "STACK", "MODE", "RUNNING", "IMAGE", "UPDATE"), rows, "no services")


def task_json(task: Task, service: Service, nodes: Sequence[Node]) -> dict[str, Any]:
    """A task of `service ps` and `stack ps`."""
    return {
        "service": service.name,
        "slot": task.slot,
        "node": _node_name(task, nodes),
        "state": task.state,
        "desired": task.desired,
        "image": task.image,
        "error": task.error,
        "address": task.addresses[0] if task.addresses else "",
    }


def show_tasks(ui: Ui, rows: Sequence[dict[str, Any]]) -> None:
    """Tasks (of `task_json`) as a table."""
    ui.table(
        ("SERVICE", "SLOT", "NODE", "STATE", "DESIRED", "ADDRESS", "IMAGE", "ERROR"),
        [
            (
                row["service"],
                row["slot"] if row["slot"] is not None else "-",
                row["node"] or "-",
                row["state"],
                row["desired"],
                row["address"] or "-",
                short_image(row["image"]),
                row["error"],
            )
            for row in rows
        ],
        "no tasks",
    )


def task_rows(
    services: Sequence[Service], tasks: Sequence[Task], nodes: Sequence[Node], *, everything: bool = False
) -> list[dict[str, Any]]:
    """The tasks by service, slot and age, the newest first; those that have ended only with `everything`.

    A slot that has no live task shows its newest one, whatever became of it: that is the one to look at.
    """
    by_id = {service.id: service for service in services}
    newest_first = sorted(
        (task for task in tasks if task.service_id in by_id), key=lambda one: one.created, reverse=True
    )
    chosen = [task for task in newest_first if everything or task.desired == "running" or task.is_leaving]
    seen = {(task.service_id, by_id[task.service_id].place(task)) for task in chosen}
    for task in newest_first:
        service = by_id[task.service_id]
        place = (service.id, service.place(task))
        if _has_slot(service, task) and place not in seen:
            chosen.append(task)
            seen.add(place)
    chosen.sort(key=lambda one: (by_id[one.service_id].name, one.slot or 0, one.node_id))
    return [task_json(task, by_id[task.service_id], nodes) for task in chosen]


def _has_slot(service: Service, task: Task) -> bool:
    """Whether a task's slot is one that the service has now; a job's are those of its present run."""
    if service.is_job:
        return task.iteration == service.iteration
    return service.is_global or (service.replicas or 0) >= (task.slot or 0)


def short_image(image: str) -> str:
    """An image in few words: without our registry's name, and by the head of its digest if it has one."""
    name, _, digest = image.removeprefix(f"{REGISTRY}/").partition("@sha256:")
    if not digest:
        return name
    # A tag of ours is a hash as well: the digest says enough.
    return f"{name.rpartition(':')[0] if image.startswith(REGISTRY) else name}@{digest[:8]}"


def _node_name(task: Task, nodes: Sequence[Node]) -> str:
    return next((node.name for node in nodes if node.id == task.node_id), "")
