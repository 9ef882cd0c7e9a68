"""Upstreams: which tasks of a service can be sent requests, and why none can. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from swarmkit.names import EDGE_NETWORK
from swarmkit.swarm import Node, Service, Task


@dataclass(frozen=True, order=True)
class Endpoint:
    """A task that can be sent requests: its address on the edge network (without a port), the task's id,
    its slot as docker names it (`web_web.3`; for a global service `web_web.NODE`), its node's name.
    """

    address: str
    task: str
    slot: str
    node: str


@dataclass(frozen=True)
class Upstream:
    """A service's endpoints, in the order of their slots; where there is none, `unreachable` says why."""

    endpoints: Sequence[Endpoint]
    unreachable: str


def upstreams(
    services: Iterable[Service], tasks: Iterable[Task], nodes: Iterable[Node], edge_id: str
) -> Mapping[str, Upstream]:
    """For each service, by name, where its requests can go; `edge_id` is the edge network's id.

    A task is an endpoint while it runs and is to run: a swarm first changes what a task should be, and
    sends the stop signal later. It runs only when healthy, where its image has a check. A node that is
    drained is of no matter here. Tasks on nodes that are *down* count only where the service has no others:
    the swarm may err in that. On nodes *unknown* or *disconnected* they count as ever: after a change of
    leaders the new one knows no node for a moment (moby/swarmkit, dispatcher).
    """
    by_id = {node.id: node for node in nodes}
    of_service: dict[str, list[Task]] = {}
    for task in tasks:
        of_service.setdefault(task.service_id, []).append(task)
    return {
        service.name: _upstream(service, of_service.get(service.id, []), by_id, edge_id)
        for service in services
    }


def _upstream(service: Service, tasks: Sequence[Task], nodes: Mapping[str, Node], edge_id: str) -> Upstream:
    up = [task for task in tasks if task.is_up]
    attached = [(task, address) for task in up if (address := edge_address(task, edge_id))]
    alive = [(task, address) for task, address in attached if not _is_down(nodes.get(task.node_id))]
    endpoints = [
        Endpoint(address, task.id, _slot(service, task, nodes), _node_name(nodes, task.node_id))
        for task, address in sorted(alive or attached, key=lambda one: (one[0].slot or 0, one[0].node_id))
    ]
    return Upstream(endpoints, "" if endpoints else _reason(service, tasks, up))


def edge_address(task: Task, edge_id: str) -> str:
    """The task's address on the edge network; empty where it has none there."""
    for attachment in task.raw.get("NetworksAttachments") or []:
        if (attachment.get("Network") or {}).get("ID") != edge_id:
            continue
        for text in attachment.get("Addresses") or []:
            try:
                return str(ip_address(text.split("/")[0]))
            except ValueError:
                continue
    return ""


def _is_down(node: Node | None) -> bool:
    return node is None or node.state == "down"


def _node_name(nodes: Mapping[str, Node], node_id: str) -> str:
    return nodes[node_id].name if node_id in nodes else node_id


def _slot(service: Service, task: Task, nodes: Mapping[str, Node]) -> str:
    place = task.slot if task.slot is not None else _node_name(nodes, task.node_id)
    return f"{service.name}.{place}"


def _reason(service: Service, tasks: Sequence[Task], up: Sequence[Task]) -> str:
    if up:
        return f"not attached to the network {EDGE_NETWORK}"
    if service.replicas == 0:
        return "scaled to 0"
    waiting = Counter(task.state for task in tasks if task.desired in ("running", "ready"))
    states = ", ".join(f"{count} {state}" for state, count in sorted(waiting.items()))
    return f"no task runs yet ({states})" if states else "no task runs"
