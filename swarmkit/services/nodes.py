"""Nodes in operation: labels and roles, draining, activating."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from swarmkit.errors import NotConverged
from swarmkit.remote import Engine, EngineError, while_stale
from swarmkit.services.converge import baseline, converge
from swarmkit.swarm import Node, is_placeable, node_tasks, nodes, services
from swarmkit.ui import Ui
from swarmkit.waiting import wait_for

ROLE_SECONDS = 60


@while_stale
def update_node(
    engine: Engine,
    node_id: str,
    *,
    labels: Mapping[str, str] | None = None,
    unwanted: Collection[str] = (),
    role: str | None = None,
    availability: str | None = None,
) -> None:
    """Change a node's labels (`unwanted` keys go, the others stay), role or availability; the rest stays."""
    raw = engine.get(f"/nodes/{node_id}")
    spec = raw["Spec"]
    kept = {key: value for key, value in (spec.get("Labels") or {}).items() if key not in unwanted}
    spec["Labels"] = {**kept, **(labels or {})}
    spec["Role"] = role or spec["Role"]
    spec["Availability"] = availability or spec["Availability"]
    engine.post(f"/nodes/{node_id}/update", spec, {"version": raw["Version"]["Index"]})


def wait_for_role(engine: Engine, node: Node, role: str) -> None:
    """Wait until the managers count the node in, or no longer; raises NotConverged."""

    def holds() -> bool:
        found = Node.of(engine.get(f"/nodes/{node.id}"))
        return found.is_reachable if role == "manager" else not found.raw.get("ManagerStatus")

    wait_for(
        holds,
        ROLE_SECONDS,
        lambda: NotConverged(
            "the managers do not reach it as one of them"
            if role == "manager"
            else "the managers still count it as one of them",
            where=node.name,
            hint="can the managers reach it on 2377/tcp?",
        ),
    )


def forget_node(engine: Engine, node_id: str) -> None:
    """Strike a node that is gone off the swarm's list; a manager is made a worker first."""
    if Node.of(engine.get(f"/nodes/{node_id}")).is_manager:
        update_node(engine, node_id, role="worker")
    for attempt in Retrying(
        # Until the other managers have taken it out of their number, it may not be removed.
        retry=retry_if_exception(lambda error: isinstance(error, EngineError) and error.status == 400),
        stop=stop_after_attempt(8),
        wait=wait_random_exponential(multiplier=0.1, max=2),
        reraise=True,
    ):
        with attempt:
            engine.delete(f"/nodes/{node_id}", {"force": True})


def drain_nodes(engine: Engine, chosen: Sequence[Node], ui: Ui, *, timeout: float) -> list[Node]:
    """Drain nodes, and wait until they are empty and their services are whole again on the others.

    Returns those that were not drained before. Raises NotConverged where it does not come true within
    `timeout` seconds.
    """
    leaving = {
        task.service_id
        for node in chosen
        for task in node_tasks(engine, node.id)
        if task.desired == "running"
    }
    before = baseline(engine)
    changed = [node for node in chosen if node.availability != "drain"]
    # All of them before any waiting: a task must not move to a node that is to be emptied next.
    for node in changed:
        update_node(engine, node.id, availability="drain")
    deadline = time.monotonic() + timeout
    names = ", ".join(node.name for node in chosen)
    with ui.progress() as shown:

        def are_empty() -> bool:
            # What a dead node runs nobody knows; the swarm has given up on it by itself.
            tasks = [task for node in chosen if node.is_ready for task in node_tasks(engine, node.id)]
            left = sum(task.is_up or task.is_leaving for task in tasks)
            shown.update(f"  {names}: {left} tasks still there")
            return not left

        wait_for(
            are_empty,
            timeout,
            lambda: NotConverged(
                f"not empty after {timeout:.0f} s",
                where=names,
                hint=f"it goes on by itself; to undo it: swarmkit node activate {names.replace(',', '')}",
            ),
        )
    others = nodes(engine)
    moved = []
    for service in services(engine):
        # Global services have no other place, and jobs end by themselves.
        if service.id not in leaving or service.replicas is None:
            continue
        if any(is_placeable(other, service.constraints) for other in others):
            moved.append(service.id)
        else:
            ui.warn(f"{service.name} may run nowhere else; it waits until the node is active again")
    if moved:
        converge(engine, moved, ui, timeout=max(deadline - time.monotonic(), 1.0), before=before, may_go=True)
    return changed


def activate_node(engine: Engine, node: Node) -> bool:
    """Let a node take tasks again; returns whether that was a change."""
    if node.availability == "active":
        return False
    update_node(engine, node.id, availability="active")
    return True
