"""From what is asked of one service to what can be carried out: reads the swarm, changes nothing of it.

A change of one service is a revision of the stack that it belongs to, made by the same machinery and
under the same lock as a deployment; of a service without a stack it is one of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from swarmkit.balancer.routes import routes
from swarmkit.compose.convert import Spec
from swarmkit.deploy.history import Snapshot
from swarmkit.deploy.observe import observe
from swarmkit.deploy.plan import LiveStack, Plan, as_desired, name_of
from swarmkit.deploy.prepare import Prepared
from swarmkit.deploy.scope import scope_of
from swarmkit.errors import OperationFailed, SwarmkitError, Unreachable, UsageError, raise_all
from swarmkit.images.base import image_id
from swarmkit.images.credentials import Credentials
from swarmkit.images.distribute import held_as, pull
from swarmkit.images.resolve import Image, Unresolved, look_up, needs_credentials
from swarmkit.inventory import Host
from swarmkit.names import CANARY_LABEL, is_own
from swarmkit.remote import Engine
from swarmkit.services.canary import busy, canary_of, plan_abort, plan_canary, plan_continue, route_labels
from swarmkit.services.edits import Edits, Known
from swarmkit.services.placement import Ask
from swarmkit.services.update import NewImage, held, plan_return, plan_update, updated
from swarmkit.swarm import Service, nodes, services
from swarmkit.target import Swarm
from swarmkit.ui import Ui

Planner = Callable[[LiveStack], Plan]


@dataclass(frozen=True)
class Revision:
    """What is to be done to a service: `before` and `after` are its specs, equal where it stays as it is.

    `unresolved` is the image, where no registry could tell of it.
    """

    prepared: Prepared
    service: Service
    before: Spec
    unresolved: Unresolved | None = None

    @cached_property
    def after(self) -> Spec:
        """The service's spec once this is done."""
        for change in self.prepared.plan.changes:
            if change.name == self.service.name and change.spec is not None:
                return change.spec
        return self.before

    @property
    def changes_routes(self) -> bool:
        """Whether the service asks the balancer for something else then."""
        before, after = (route_labels(spec.get("Labels") or {}) for spec in (self.before, self.after))
        return before != after

    @property
    def new(self) -> Spec | None:
        """The spec of the service, or the canary, whose tasks run another image then; None where none do."""
        for change in self.prepared.plan.changes:
            if change.spec is not None and needs_credentials(change.spec, change.replaces):
                return change.spec
        return None


def update(swarm: Swarm, service: Service, edits: Edits) -> Revision:
    """Plan to change a service as the options say.

    Raises UsageError (or Problems) for what cannot be, and where the service has a canary; what
    `look_up` raises.
    """
    _refuse(service)
    image, unresolved, credentials = _image(swarm, service, edits)
    known = known_names(swarm.engine)

    def planner(live: LiveStack) -> Plan:
        _refuse_canary(live, service.name)
        return plan_update(live, service.name, edits, image, known)

    found = _prepared(swarm.engine, service, planner, credentials)
    if edits.changes_routes:
        _check_routes(swarm.engine, service.name, found.after)
    return replace(found, unresolved=unresolved)


def canary(swarm: Swarm, service: Service, edits: Edits, percent: int) -> Revision:
    """Plan to try the options on a canary that gets so many percent of the requests; raises as `update`."""
    _refuse(service)
    image, unresolved, credentials = _image(swarm, service, edits)
    known = known_names(swarm.engine)

    def planner(live: LiveStack) -> Plan:
        new = updated(held(live, service.name), edits, image, known)
        return plan_canary(live, service.name, new, percent)

    return replace(_prepared(swarm.engine, service, planner, credentials), unresolved=unresolved)


def go_on(swarm: Swarm, service: Service) -> Revision:
    """Plan to give a service the spec of its canary. Raises UsageError where it has none."""
    return _prepared(swarm.engine, service, lambda live: plan_continue(live, service.name))


def abort(swarm: Swarm, service: Service) -> Revision:
    """Plan to let the canary of a service go. Raises UsageError where it has none.

    The service itself is not waited for: where it is ill, its canary must go all the same.
    """
    return _prepared(
        swarm.engine, service, lambda live: plan_abort(live, service.name), waits_for_service=False
    )


def rollback(swarm: Swarm, service: Service, number: int | None) -> Revision:
    """Plan to return a service to what it was before its last change, or to what revision `number` left.

    Raises UsageError where that is not known, OperationFailed where something it needs is gone.
    """
    _refuse(service)
    known = known_names(swarm.engine)

    def planner(live: LiveStack) -> Plan:
        _refuse_canary(live, service.name)
        return plan_return(live, service.name, number, known)

    return _prepared(swarm.engine, service, planner, Credentials.read(os.environ))


def known_names(engine: Engine) -> Known:
    """The names of the swarm's secrets and configs, the oldest first."""

    def names(found: list[dict[str, Any]]) -> list[str]:
        return [name_of(one) for one in sorted(found, key=lambda one: str(one.get("CreatedAt", "")))]

    return {"secret": names(engine.get("/secrets")), "config": names(engine.get("/configs"))}


def _prepared(
    engine: Engine,
    service: Service,
    planner: Planner,
    credentials: Credentials | None = None,
    *,
    waits_for_service: bool = True,
) -> Revision:
    scope = scope_of(service)
    live = observe(engine, scope)
    plan = planner(live)
    before = held(live, service.name)
    specs = {service.name: before} if waits_for_service else {}
    specs |= {change.name: change.spec for change in plan.changes if change.spec is not None}
    last = live.revisions[-1].after.depends_on if live.revisions else {}
    wanted = as_desired(scope, Snapshot(specs, {name: last[name] for name in specs if name in last}))
    prepared = Prepared(wanted, planner, live, plan, credentials or Credentials())
    return Revision(prepared, service, before)


def _refuse(service: Service) -> None:
    if is_own(service.stack or service.name):
        raise UsageError(
            "it is swarmkit's own, which looks after it itself", where=service.name, hint="see: swarmkit init"
        )
    if of := service.labels.get(CANARY_LABEL):
        raise UsageError(
            f"it is the canary of {of}",
            where=service.name,
            hint=f"decide on it: swarmkit update {of} --continue, or --abort",
        )


def _refuse_canary(live: LiveStack, name: str) -> None:
    if (found := canary_of(live, name)) is not None:
        raise busy(name, name_of(found))


def _check_routes(engine: Engine, name: str, spec: Spec) -> None:
    """Raises UsageError (or Problems) for routes that the service cannot have."""
    others = [one for one in services(engine) if one.name != name]
    found = routes([*others, Service.of({"ID": name, "Spec": spec})])
    raise_all([error for error in found.errors if error.where == name])


def _image(
    swarm: Swarm, service: Service, edits: Edits
) -> tuple[NewImage | None, Unresolved | None, Credentials]:
    """The image that was asked for, and what a registry did not know of it.

    A registry that is away must not restart what runs the image of that name already.
    """
    credentials = Credentials.read(os.environ)
    if not edits.image:
        return None, None, credentials
    found = look_up(swarm.engine, edits.image, credentials)
    if isinstance(found, Unresolved):
        if service.image.partition("@")[0] == found.reference:
            return None, None, credentials
        return NewImage(edits.image, Image(found.reference)), found, credentials
    return NewImage(edits.image, found), None, credentials


def bring_image(
    swarm: Swarm, ui: Ui, spec: Spec, unresolved: Unresolved | None = None, *, insist: bool = True
) -> None:
    """Make the nodes that may run a service have its image before any of its tasks stops.

    Without machines that is left to the nodes. Raises OperationFailed (or Problems) where the image cannot
    be had: with `insist` where one node cannot have it, else where none can.
    """
    reference = str(spec["TaskTemplate"]["ContainerSpec"]["Image"])
    if swarm.fleet is None:
        if unresolved is not None and not image_id(swarm.engine, held_as(reference)):
            raise _missing(unresolved)
        ui.say(f"  {reference}: each node pulls it when it needs it (with an inventory: beforehand)")
        return
    fleet, ask = swarm.fleet, Ask.of(spec)
    names = {node.name for node in nodes(swarm.engine) if ask.allows(node)}
    hosts = [host for host in fleet.inventory.hosts if host.name in names]

    def bring(host: Host) -> None:
        engine = fleet.engine(host)
        if "@" in reference:
            pull(engine, reference)
        elif not image_id(engine, reference):
            raise _missing(unresolved) if unresolved else OperationFailed(f"it has no image {reference}")

    with ui.progress() as shown:
        shown.update(f"  {reference} to {len(hosts)} node{'' if len(hosts) == 1 else 's'}")
        outcomes = fleet.map(bring, hosts)
    failed: list[SwarmkitError] = []
    for name, error in outcomes.errors.items():
        if isinstance(error, Unreachable) or not insist:
            ui.warn(f"{name} may not have the image, and pulls it when it needs it: {error.message}")
        else:
            failed.append(error)
    if failed or (hosts and not outcomes.values):
        raise_all(failed or list(outcomes.errors.values()))


def _missing(unresolved: Unresolved) -> OperationFailed:
    # What that would lead to is of no interest where it is not done.
    return OperationFailed(
        unresolved.warning().partition("; ")[0],
        hint="nothing was changed; is the name right? for a private registry: docker login",
    )
