"""How many tasks of a service each node would have, were they spread evenly: pure.

As Swarm's scheduler spreads them (moby/swarmkit, manager/scheduler): first over the values of the labels
that the spread preferences name, then over the nodes, as far as constraints, platforms, reservations, host
ports and `max_replicas_per_node` let it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from swarmkit.services.explain import halted
from swarmkit.services.moves import hindrance, is_updating, risk
from swarmkit.services.placement import Ask, rooms
from swarmkit.swarm import Node, Service, Task


@dataclass(frozen=True)
class Place:
    """A node, or several that have a label in common: how many tasks there are, and how many there may be."""

    count: int
    most: int
    node: str = ""
    inside: Sequence[Place] = ()


@dataclass(frozen=True)
class Balance:
    """A service: its tasks by node id as they are and as they would be; `skipped` is why they stay."""

    service: Service
    before: Mapping[str, int] = field(default_factory=dict)
    after: Mapping[str, int] = field(default_factory=dict)
    skipped: str = ""

    @property
    def excess(self) -> dict[str, int]:
        """How many tasks leave which node."""
        if self.skipped:
            return {}
        return {
            node: count - self.after.get(node, 0)
            for node, count in self.before.items()
            if count > self.after.get(node, 0)
        }

    @property
    def moves(self) -> int:
        return sum(self.excess.values())


def plan_balance(
    chosen: Sequence[Service],
    nodes: Sequence[Node],
    services: Sequence[Service],
    tasks: Sequence[Task],
    *,
    force: bool = False,
) -> list[Balance]:
    """How the tasks of these services would be spread; with `force`, also where no two may be at once."""
    left = rooms(nodes, tasks, services)
    found = []
    for service in chosen:
        own = [task for task in tasks if task.service_id == service.id and task.desired == "running"]
        ask = Ask.of(service.spec)
        able = [node for node in nodes if ask.allows(node)]
        counts = Counter(task.node_id for task in own)
        before = {node.id: counts[node.id] for node in nodes if node in able or counts[node.id]}
        places = [
            Place(
                counts[node.id],
                max(counts[node.id], min(counts[node.id] + left[node.id].takes(ask), ask.most)),
                node.id,
            )
            for node in able
        ]
        total = sum(place.count for place in places)
        tree = _tree(places, {node.id: node for node in able}, _descriptors(service))
        after = {**before, **_shared(tree, total)}
        balance = Balance(service, before, after)
        if balance.moves and (why_not := _why_not(service, own, force)):
            balance = Balance(service, before, before, why_not)
        # What moves takes its room from those that come after it.
        for node_id, count in balance.after.items():
            more = max(0, count - counts[node_id])
            left[node_id] = left[node_id].without(ask, more, service.name)
        found.append(balance)
    return found


def _why_not(service: Service, own: Sequence[Task], force: bool) -> str:
    if is_updating(service):
        return "it is being updated"
    if halt := halted(service):
        return f"its last update stands still: {halt.reason}"
    if sum(task.is_up for task in own) < (service.replicas or 0):
        return "not all of its tasks run"
    gap = hindrance(service) or (None if force else risk(service))
    return gap.reason if gap else ""


def _descriptors(service: Service) -> list[str]:
    preferences = (service.spec["TaskTemplate"].get("Placement") or {}).get("Preferences") or ()
    return [str((one.get("Spread") or {}).get("SpreadDescriptor") or "") for one in preferences]


def _tree(places: Sequence[Place], known: Mapping[str, Node], descriptors: Sequence[str]) -> Place:
    """The places by the values of the first label, those by the second, and so on."""
    inside = list(places)
    for number, descriptor in enumerate(descriptors):
        groups: dict[str, list[Place]] = {}
        for place in places:
            value = _value(known[place.node], descriptor)
            if value is None:
                break
            groups.setdefault(value, []).append(place)
        else:
            inside = [_tree(group, known, descriptors[number + 1 :]) for group in groups.values()]
            break
    return Place(sum(one.count for one in places), sum(one.most for one in places), inside=inside)


def _value(node: Node, descriptor: str) -> str | None:
    """What a spread preference goes by; the scheduler passes over what is no label."""
    whose, _, label = descriptor.partition(".labels.")
    if not label:
        return None
    match whose.lower():
        case "node":
            return node.labels.get(label, "")
        case "engine":
            engine = node.raw["Description"].get("Engine") or {}
            return str((engine.get("Labels") or {}).get(label, ""))
    return None


def _shared(place: Place, total: int) -> dict[str, int]:
    """So many tasks over a place, evenly at each level; one that is left over stays where it is."""
    if place.node:
        return {place.node: total}
    shares = [0] * len(place.inside)
    for _ in range(total):
        open_ = [number for number, one in enumerate(place.inside) if shares[number] < one.most]
        least = min(open_, key=lambda number: (shares[number], -place.inside[number].count))
        shares[least] += 1
    found: dict[str, int] = {}
    for one, share in zip(place.inside, shares, strict=True):
        found |= _shared(one, share)
    return found
