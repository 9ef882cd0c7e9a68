"""Nodes in operation: labels and roles."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from swarmkit.errors import NotConverged
from swarmkit.remote import Engine, EngineError, while_stale
from swarmkit.swarm import Node
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
