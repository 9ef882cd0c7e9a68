"""Stacks as the swarm holds them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from swarmkit.compose.convert import DesiredStack
from swarmkit.deploy import history
from swarmkit.deploy.plan import LiveStack, used_ids
from swarmkit.deploy.scope import belongs
from swarmkit.names import MOVE_LABEL, STACK_LABEL
from swarmkit.remote import Engine
from swarmkit.services.moves import settled
from swarmkit.swarm import Service, filters, services


def observe(engine: Engine, stack: str) -> LiveStack:
    """What the swarm holds of a stack, or of another scope."""
    ours = filters(label=f"{STACK_LABEL}={stack}")
    overlays = engine.get("/networks", filters(scope="swarm"))
    configs = engine.get("/configs", ours)
    users: dict[str, list[str]] = {}
    own = []
    moved = set()
    for one in engine.get("/services"):
        labels = one["Spec"].get("Labels") or {}
        if belongs(one["Spec"], stack):
            own.append({**one, "Spec": settled(one["Spec"])})
            moved |= {one["Spec"]["Name"]} if MOVE_LABEL in labels else set()
            continue
        for identity in used_ids(one["Spec"]):
            users.setdefault(identity, []).append(one["Spec"]["Name"])
    return LiveStack(
        services=own,
        networks=[one for one in overlays if (one.get("Labels") or {}).get(STACK_LABEL) == stack],
        configs=[one for one in configs if not history.is_revision(one)],
        secrets=engine.get("/secrets", ours),
        network_ids={one["Name"]: one["Id"] for one in overlays},
        users=users,
        revisions=history.decode_all(configs),
        moved=frozenset(moved),
    )


def after(engine: Engine, *desired: DesiredStack, gone: Collection[str] = ()) -> list[Service]:
    """The swarm's services as they will be once these stacks are deployed and those in `gone` removed: those
    that stay keep their ids, and when they were made.
    """
    now = {service.name: service for service in services(engine)}
    wanted = {service.name: service for stack in desired for service in stack.services}
    others = [service for name, service in now.items() if name not in wanted and name not in gone]
    return others + [
        Service.of({"ID": name, **(now[name].raw if name in now else {}), "Spec": one.spec})
        for name, one in wanted.items()
    ]


def stacks(known: Sequence[Service]) -> dict[str, list[Service]]:
    """Services by the stack they belong to."""
    found: dict[str, list[Service]] = {}
    for service in known:
        if service.stack:
            found.setdefault(service.stack, []).append(service)
    return found
