"""Published ports that go from one service of a stack to another: who gives comes before who takes.

The swarm refuses a port in `ingress` mode that another service still has, and a task that wants one in
`host` mode waits until the task that holds it has ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Any

from swarmkit.deploy.plan.model import Change
from swarmkit.deploy.plan.order import Dependencies, in_order
from swarmkit.services.placement import published


def ports(spec: Mapping[str, Any]) -> set[str]:
    """The ports that a service publishes, in whichever mode, as `8080/tcp`."""
    return {*published(spec, "ingress"), *published(spec, "host")}


def handed_over(changes: Iterable[Change], wanted: Dependencies) -> list[Change]:
    """The changes of services, each after those it waits for: by its dependencies, or for a port of theirs.

    Where services wait for one another so, one that gives a port away is removed first and made again.
    """
    found = list(changes)
    while True:
        sent = {one.name: one for one in found if one.action != "remove"}
        givers = _givers(sent)
        names = list(dict.fromkeys(one.name for one in found))
        both = {name: [*wanted.get(name, {}), *givers.get(name, ())] for name in names}
        try:
            TopologicalSorter(
                {name: [one for one in others if one in sent] for name, others in both.items()}
            ).prepare()
        except CycleError as error:
            circle: list[str] = error.args[1]
            # Each is one that the next waits for; dependencies alone make no circle.
            giver, taker = next(pair for pair in pairwise(circle) if pair[0] in givers.get(pair[1], ()))
            found = [
                part for one in found for part in (_made_again(one, taker) if one.name == giver else [one])
            ]
            continue
        place = {name: index for index, name in enumerate(in_order(names, both))}
        found.sort(key=lambda one: place[one.name])
        return [
            replace(one, after=givers[one.name]) if one.name in givers and one.spec else one for one in found
        ]


def _givers(sent: Mapping[str, Change]) -> dict[str, frozenset[str]]:
    """For each service that gets ports of others, those that give them."""
    given = {
        name: ports(one.replaces) - ports(one.spec)
        for name, one in sent.items()
        if one.replaces is not None and one.spec is not None
    }
    found: dict[str, frozenset[str]] = {}
    for name, one in sent.items():
        gained = ports(one.spec or {}) - ports(one.replaces or {})
        if givers := frozenset(other for other, freed in given.items() if other != name and freed & gained):
            found[name] = givers
    return found


def _made_again(change: Change, taker: str) -> Sequence[Change]:
    note = f"it is made again, for {taker} gets a port of it, and neither can be first"
    gone = replace(change, action="remove", spec=None, replaces=None, early=True, note=note)
    return gone, replace(change, action="create", live_id=None, version=None, replaces=None)
