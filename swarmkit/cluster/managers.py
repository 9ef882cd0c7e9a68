"""The way into a swarm: whichever of the inventory's managers answers.

Most commands need no more of a cluster than this; it leans on nothing that plans or changes one.
"""

from __future__ import annotations

from swarmkit.errors import OperationFailed, UsageError
from swarmkit.inventory import Host
from swarmkit.remote import Engine, Fleet


def manager_engine(fleet: Fleet, without: str = "") -> Engine:
    """The engine of whichever of the inventory's managers (`without` one) answers first as one.

    Raises Unreachable (or Problems) where none answers, OperationFailed where they are in no swarm.
    """

    def ask(host: Host) -> Engine:
        engine = fleet.engine(host)
        if not engine.get("/info")["Swarm"].get("ControlAvailable"):
            raise OperationFailed(
                "no manager of a swarm", where=host.name, hint="form the swarm: swarmkit init"
            )
        return engine

    others = [host for host in fleet.inventory.managers if host.name != without]
    if not others:
        raise UsageError(
            f"{without} is the inventory's only manager", hint="the swarm is spoken to through another one"
        )
    return fleet.first(ask, others)
