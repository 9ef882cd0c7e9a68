"""From a checked project, or a revision, to a plan for a swarm; nothing of its services is touched."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from swarmkit.balancer.routes import routes
from swarmkit.compose.convert import Context, DesiredStack, builds, convert
from swarmkit.compose.dropped import without_dropped
from swarmkit.compose.load import Project
from swarmkit.deploy import history
from swarmkit.deploy.builder import NOT_BUILT, build_images
from swarmkit.deploy.observe import after, observe
from swarmkit.deploy.pinning import pinned, pins
from swarmkit.deploy.plan import (
    Dependencies,
    LiveStack,
    Plan,
    as_desired,
    at_live_scale,
    canaries,
    dependencies,
    only,
    orphans,
    plan_return,
    plan_stack,
)
from swarmkit.deploy.preflight import refusals
from swarmkit.errors import raise_all
from swarmkit.images.credentials import Credentials
from swarmkit.images.resolve import Resolve
from swarmkit.remote import Engine
from swarmkit.target import Swarm
from swarmkit.ui import Ui


@dataclass(frozen=True)
class Prepared:
    """What could be done to a stack: the plan, and how to make it again from what the swarm then holds.

    `desired` has the services that are to run in the end.
    """

    desired: DesiredStack
    planner: Callable[[LiveStack], Plan] = field(repr=False)
    live: LiveStack = field(repr=False)
    plan: Plan
    credentials: Credentials = field(default_factory=Credentials)

    @property
    def stack(self) -> str:
        return self.desired.name

    @property
    def services(self) -> frozenset[str]:
        return frozenset(service.name for service in self.desired.services)

    @property
    def gone(self) -> frozenset[str]:
        """The services that the plan removes for good."""
        removed = {one.name for one in self.plan.changes if one.kind == "service" and one.action == "remove"}
        return frozenset(removed) - self.services

    @property
    def wanted(self) -> Dependencies:
        return dependencies(self.desired)


def prepare(
    swarm: Swarm,
    ui: Ui,
    project: Project,
    stack: str,
    *,
    dry_run: bool = False,
    prune: bool = False,
    replace_secrets: bool = False,
    chosen: Sequence[str] = (),
    images: Mapping[str, str] | None = None,
    resolve_image: Resolve = "always",
    beside: Sequence[DesiredStack] = (),
) -> Prepared:
    """Plan to make the swarm run `project` as `stack`.

    `chosen` are the only services to deploy, by their names in the file; all of them where there is none.
    Images with `build:` are built and pushed, but in a dry run; `images` are those known already, by
    service. `resolve_image` says when registries are asked for the digests of the others, as in docker.
    `beside` are other stacks that will be there by then.
    Raises UsageError for what the swarm lacks, and for routes that it cannot have.
    """
    engine = swarm.engine
    credentials = Credentials.read(os.environ)
    sources = {
        service: source
        for service, source in builds(project).items()
        if service not in (images or {}) and (not chosen or service in chosen)
    }
    stand_ins = dict.fromkeys(builds(project), NOT_BUILT) | dict(images or {})

    def desired_with(images: Mapping[str, str]) -> tuple[DesiredStack, list[str]]:
        whole = convert(project, stack, Context(images=images))
        return without_dropped(only(whole, chosen) if chosen else whole, engine.api_version)

    # Whatever can be refused is, before anything is built.
    live = observe(engine, stack)
    desired, dropped = desired_with(stand_ins)
    found, unresolved = pins(engine, desired, live, resolve_image, credentials, stand_ins)
    for warning in (*dropped, *unresolved):
        ui.warn(warning)
    desired = pinned(desired, found)
    left = orphans(desired, live) if not chosen else []
    _check(engine, ui, at_live_scale(desired, live), left if prune else (), beside)
    if built := build_images(swarm, ui, stack, sources, dry_run=dry_run):
        desired = pinned(desired_with({**stand_ins, **built})[0], found)
    if left and not prune:
        ui.warn(f"no longer in the file, and left running: {', '.join(left)} (--prune removes them)")
    for canary in canaries(desired, live) if not chosen else ():
        ui.warn(f"{canary} is a canary, and stays: swarmkit update … --continue or --abort decides on it")

    def planner(live: LiveStack) -> Plan:
        return plan_stack(desired, live, prune=prune, replace_secrets=replace_secrets)

    return Prepared(desired, planner, live, planner(live), credentials)


def prepare_return(engine: Engine, stack: str, number: int | None) -> Prepared:
    """Plan to return a stack to what revision `number` left, or to what was there before the newest.

    Raises UsageError where there is no such revision, OperationFailed where something it needs is gone.
    """
    live = observe(engine, stack)
    to = history.choose(live.revisions, number)

    def planner(live: LiveStack) -> Plan:
        return plan_return(stack, to, live)

    return Prepared(as_desired(stack, to), planner, live, planner(live), Credentials.read(os.environ))


def _check(
    engine: Engine,
    ui: Ui,
    desired: DesiredStack,
    pruned: Sequence[str],
    beside: Sequence[DesiredStack],
) -> None:
    errors = refusals(engine, ui, desired, pruned, beside)
    wanted = {service.name for service in desired.services}
    found = routes(after(engine, *beside, desired, gone=pruned))
    # Another stack's mistakes are not this one's.
    errors += [error for error in found.errors if error.where in wanted]
    raise_all(errors)
