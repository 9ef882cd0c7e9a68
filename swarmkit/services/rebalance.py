"""Moving tasks back to an even spread, each after its replacement runs: services/spread.py, carried out.

Slots keep their numbers and services their numbers of replicas: from each node that has too many just so
many are moved, as a drain moves all. (Scaling up and down again would do too, but forget both.)
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swarmkit.errors import SwarmkitError
from swarmkit.remote import Engine
from swarmkit.services.converge import baseline, converge
from swarmkit.services.drain import (
    await_updates,
    begin,
    clear,
    hold,
    marked,
    release,
    settle,
    stacks_locked,
    undone,
)
from swarmkit.services.moves import moving
from swarmkit.services.spread import Balance, plan_balance
from swarmkit.swarm import Node, Service, Task, nodes, services
from swarmkit.ui import Ui


@dataclass(frozen=True)
class Rebalanced:
    """The services, each with its tasks by node as they were and as they are now (planned: would be)."""

    balances: Sequence[Balance]
    names: Mapping[str, str]

    @property
    def moved(self) -> int:
        """How many services are spread otherwise than before."""
        return sum(one.before != one.after for one in self.balances)

    def json(self) -> dict[str, Any]:
        return {
            "services": [
                {
                    "service": one.service.name,
                    "before": self._named(one.before),
                    "after": self._named(one.after),
                    "moved": one.moves,
                    "skipped": one.skipped,
                }
                for one in self.balances
            ]
        }

    def lines(self) -> list[str]:
        """A line for each service that moves, or would if it could."""
        return [
            f"  {one.service.name}: {self._text(one.before)}"
            + (f"; stays so: {one.skipped}" if one.skipped else f" → {self._text(one.after)}")
            for one in self.balances
            if one.skipped or one.before != one.after
        ]

    def _named(self, counts: Mapping[str, int]) -> dict[str, int]:
        return {self.names[node]: count for node, count in counts.items()}

    def _text(self, counts: Mapping[str, int]) -> str:
        return ", ".join(f"{name} {count}" for name, count in self._named(counts).items())


def look_at_balance(engine: Engine, chosen: Sequence[str], *, force: bool = False) -> Rebalanced:
    """How the services (by id; all that have a number of replicas where none is named) would be spread."""
    known, live = services(engine), nodes(engine)
    every = [Task.of(raw) for raw in engine.get("/tasks")]
    meant = [one for one in known if one.id in chosen or (not chosen and one.replicas is not None)]
    found = plan_balance(meant, live, known, every, force=force)
    return Rebalanced(found, {node.id: node.name for node in live})


def rebalance(
    engine: Engine, chosen: Sequence[str], ui: Ui, *, timeout: float, force: bool = False
) -> Rebalanced:
    """Spread the tasks of services (by id; none for all) evenly; ends when they run where they are to.

    The caller holds the cluster's lock; those of stacks are taken here. Raises NotConverged where it does
    not come true within `timeout` seconds: services then have their own specs again, and what has moved
    stays where it is.
    """
    deadline = time.monotonic() + timeout
    left = marked(engine)
    with stacks_locked(engine, ui, left, "node rebalance", timeout):
        clear(engine, ui, left)
    first = look_at_balance(engine, chosen, force=force)
    tried: set[tuple[str, str]] = set()
    while True:
        plan = look_at_balance(engine, chosen, force=force)
        over = [
            (node, one) for one in plan.balances for node in one.excess if (one.service.id, node) not in tried
        ]
        if not over:
            break
        # One node after the other: it is paused meanwhile, and each round sees what the last has made of it.
        source = over[0][0]
        crowded = [one for node, one in over if node == source]
        tried |= {(one.service.id, source) for one in crowded}
        node = next(node for node in nodes(engine) if node.id == source)
        concerned = [one.service for one in crowded]
        with stacks_locked(engine, ui, concerned, "node rebalance", deadline - time.monotonic()):
            _Shift(engine, ui, node, crowded, deadline).run()
    then = {one.service.id: one.before for one in plan.balances}
    return Rebalanced(
        [
            Balance(one.service, one.before, then.get(one.service.id, {}), one.skipped)
            for one in first.balances
        ],
        {**first.names, **plan.names},
    )


@dataclass(frozen=True)
class _Shift:
    """Tasks of several services on their way off one node that has too many of them."""

    engine: Engine
    ui: Ui
    node: Node
    crowded: Sequence[Balance]
    deadline: float

    def run(self) -> None:
        """Ends when so many tasks run elsewhere; where that fails, all is as before and it raises."""
        for one in self.crowded:
            count = one.excess[self.node.id]
            self.ui.say(f"  {one.service.name}: {count} of its tasks off {self.node.name}")
        try:
            self._move()
        except KeyboardInterrupt:
            self.ui.warn("left half-done: run it again to go on; `swarmkit node activate` undoes it")
            raise
        except SwarmkitError as error:
            what = "services have their own specs again; tasks that have moved stay where they are"
            undone(self.ui, error, self._undo, what)

    def _move(self) -> None:
        engine, ui = self.engine, self.ui
        most = {one.service.id: one.excess[self.node.id] for one in self.crowded}
        found = [one.service for one in self.crowded]
        await_updates(engine, found, ui, self._seconds())
        hold(engine, self.node, "rebalance")
        before = baseline(engine)

        def change(service: Service) -> dict[str, object]:
            return moving(service, "rebalance", [self.node.id], most[service.id])

        begin(engine, found, change)
        # Those that stay on the node do not fit the spec as it is now.
        enough = {
            one.service.id: sum(one.before.values()) - one.before[self.node.id] + one.excess[self.node.id]
            for one in self.crowded
        }
        converge(engine, list(most), ui, timeout=self._seconds(), before=before, enough=enough, may_go=True)
        settle(engine, list(most))
        converge(engine, list(most), ui, timeout=self._seconds(), before=baseline(engine), may_go=True)
        release(engine, self.node)

    def _undo(self) -> None:
        settle(self.engine, [one.service.id for one in self.crowded])
        release(self.engine, self.node)

    def _seconds(self) -> float:
        return max(self.deadline - time.monotonic(), 1.0)
