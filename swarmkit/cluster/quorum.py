"""The managers' majority: what may go, and what would be lost. Pure arithmetic, no network.

The managers agree on every change by Raft: of N managers more than N/2 must be reachable, or the swarm
takes no more orders (docs.docker.com, "Raft consensus in swarm mode"). What runs goes on running.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from swarmkit.errors import UsageError
from swarmkit.swarm import Node


def majority(managers: int) -> int:
    """How many of so many managers must be reachable."""
    return managers // 2 + 1


@dataclass(frozen=True)
class Quorum:
    """Names of the managers, and of those that are reachable."""

    managers: frozenset[str]
    reachable: frozenset[str]

    @classmethod
    def of(cls, nodes: Iterable[Node]) -> Quorum:
        """From the swarm's nodes."""
        managers = [node for node in nodes if node.is_manager]
        return cls(
            frozenset(node.name for node in managers),
            frozenset(node.name for node in managers if node.is_reachable),
        )

    @property
    def needed(self) -> int:
        return majority(len(self.managers))

    @property
    def spare(self) -> int:
        """How many more managers may fail; negative where the majority is lost."""
        return len(self.reachable) - self.needed

    def without(self, names: Collection[str]) -> Quorum:
        """After these are no managers any more."""
        return Quorum(self.managers - set(names), self.reachable - set(names))

    def losing(self, names: Collection[str]) -> Quorum:
        """While these are down, and still counted as managers."""
        return Quorum(self.managers, self.reachable - set(names))

    def __str__(self) -> str:
        return f"{len(self.reachable)} of {len(self.managers)} reachable, and {self.needed} needed"


def refusal(now: Quorum, then: Quorum, doing: str, *, force: bool = False) -> UsageError | None:
    """Why `doing` may not be, with the arithmetic; None where a majority remains.

    `then` are the managers as they will be. `force` overrides it, the last manager apart.
    """
    if not then.managers:
        return none_left(now.managers)
    if then.spare >= 0 or force:
        return None
    unreachable = ", ".join(sorted(now.managers - now.reachable))
    return UsageError(
        f"{doing} would lose the managers' majority: now {now}; then {then}",
        hint=(f"bring {unreachable} back first, or take it out of the swarm; " if unreachable else "")
        + f"--force does it all the same: {LOSS}",
    )


def none_left(managers: Collection[str]) -> UsageError:
    """The refusal to take away all the managers that there are."""
    all_of_them = "is the only manager" if len(managers) == 1 else "are all the managers"
    return UsageError(
        f"{', '.join(sorted(managers))} {all_of_them}, and without one there is no swarm",
        hint="make another node a manager first (swarmkit node promote); "
        "to take the whole cluster apart: swarmkit reset",
    )


LOSS = (
    "nothing can be changed any more (no deploying, scaling, joining or rescheduling), what runs goes on "
    "running, until enough managers are back"
)
