"""Carrying out a stack's plan: the one place where stacks change a swarm, and the waiting for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from swarmkit.balancer.routes import routes
from swarmkit.compose.convert import Context, DesiredStack, builds, convert
from swarmkit.compose.load import Project
from swarmkit.deploy.builder import NOT_BUILT, build_images
from swarmkit.deploy.plan import Change, LiveStack, orphans, plan_stack, with_config_ids
from swarmkit.deploy.preflight import refusals
from swarmkit.errors import NotConverged, raise_all
from swarmkit.names import STACK_LABEL
from swarmkit.remote import Engine, EngineError, Fleet
from swarmkit.services.converge import baseline, converge, wait_gone
from swarmkit.swarm import Service, filters, services
from swarmkit.target import Swarm
from swarmkit.ui import Ui

GONE_SECONDS = 60
POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Deployment:
    """What `stack up` or `stack down` did, or in a dry run would do: the contract's JSON."""

    stack: str
    changes: Sequence[Change]
    converged: bool
    seconds: float

    def json(self) -> dict[str, Any]:
        return {
            "stack": self.stack,
            "changed": len(self.changes),
            "changes": [change_json(change) for change in self.changes],
            "converged": self.converged,
            "rolled_back": False,
            "seconds": self.seconds,
        }


def change_json(change: Change) -> dict[str, Any]:
    """A change as the contract shows it."""
    fields = {key: dict(value) for key, value in change.fields.items()}
    return {"kind": change.kind, "name": change.name, "action": change.action, "fields": fields}


def observe(engine: Engine, stack: str) -> LiveStack:
    """What the swarm holds of a stack."""
    ours = filters(label=f"{STACK_LABEL}={stack}")
    overlays = engine.get("/networks", filters(scope="swarm"))
    return LiveStack(
        services=engine.get("/services", ours),
        networks=[one for one in overlays if (one.get("Labels") or {}).get(STACK_LABEL) == stack],
        configs=engine.get("/configs", ours),
        network_ids={one["Name"]: one["Id"] for one in overlays},
    )


@dataclass(frozen=True)
class Prepared:
    """A stack that could be deployed: what it should be, and what has to change for that."""

    desired: DesiredStack
    changes: Sequence[Change]


def prepare(
    swarm: Swarm,
    ui: Ui,
    project: Project,
    stack: str,
    *,
    dry_run: bool = False,
    prune: bool = False,
    images: Mapping[str, str] | None = None,
) -> Prepared:
    """Plan to make the swarm run `project` as `stack`. Nothing of the swarm's services is touched.

    Images with `build:` are built and pushed, but in a dry run; `images` are those known already, by
    service. Raises UsageError for what the swarm lacks, and for routes that it cannot have.
    """
    engine = swarm.engine
    sources = {
        service: source for service, source in builds(project).items() if service not in (images or {})
    }
    stand_ins = dict.fromkeys(sources, NOT_BUILT) | dict(images or {})
    # Whatever can be refused is, before anything is built.
    _check(engine, ui, convert(project, stack, Context(images=stand_ins)))
    built = build_images(swarm, ui, stack, sources, dry_run=dry_run)
    desired = convert(project, stack, Context(images={**(images or {}), **built}))
    live = observe(engine, stack)
    changes = plan_stack(desired, live, prune=prune)
    if (left := orphans(desired, live)) and not prune:
        ui.warn(f"no longer in the file, and left running: {', '.join(left)} (--prune removes them)")
    return Prepared(desired, changes)


def carry_out(
    engine: Engine, ui: Ui, prepared: Prepared, *, timeout: float, fleet: Fleet | None = None
) -> None:
    """Make the changes; ends when every service of the stack runs and is healthy.

    `fleet` lets reasons for failures be looked up on the nodes. Raises OperationFailed where a step fails,
    NotConverged (or Problems) where services do not come up within `timeout` seconds.
    """
    before = baseline(engine)
    for change in prepared.changes:
        ui.say(f"  {describe(change)}")
        _send(engine, ui, change)
    wanted = {service.name for service in prepared.desired.services}
    ids = [service.id for service in services(engine, prepared.desired.name) if service.name in wanted]
    converge(engine, ids, ui, timeout=timeout, before=before, fleet=fleet)


def after(engine: Engine, desired: DesiredStack) -> list[Service]:
    """The swarm's services as they will be once `desired` is deployed."""
    wanted = {service.name for service in desired.services}
    others = [service for service in services(engine) if service.name not in wanted]
    return others + [Service.of({"ID": one.name, "Spec": one.spec}) for one in desired.services]


def _check(engine: Engine, ui: Ui, desired: DesiredStack) -> None:
    errors = refusals(engine, ui, desired)
    wanted = {service.name for service in desired.services}
    # Another stack's mistakes are not this one's.
    errors += [error for error in routes(after(engine, desired)).errors if error.where in wanted]
    raise_all(errors)


def _send(engine: Engine, ui: Ui, change: Change) -> None:
    """The one place where a stack's change reaches the swarm."""
    path = f"/{change.kind}s"
    match change.action:
        case "remove":
            _when_free(lambda: engine.delete(f"{path}/{change.live_id}"))
            if change.kind == "service":
                assert change.live_id is not None
                wait_gone(engine, {change.live_id: change.name}, ui, GONE_SECONDS)
        case "create":
            engine.post(f"{path}/create", _body(engine, change))
        case "update":
            assert change.version is not None
            try:
                version = {"version": change.version}
                engine.post(f"{path}/{change.live_id}/update", _body(engine, change), version)
            except EngineError as error:
                if error.is_stale:
                    error.hint = "someone else changed it at the same time; run the command again"
                raise


def _body(engine: Engine, change: Change) -> Mapping[str, Any]:
    assert change.spec is not None
    if change.kind != "service" or "Configs" not in change.spec["TaskTemplate"]["ContainerSpec"]:
        return change.spec
    ids = {config["Spec"]["Name"]: config["ID"] for config in engine.get("/configs")}
    return with_config_ids(change.spec, ids)


def describe(change: Change) -> str:
    """A change in one line: `update service web_web: replicas 3 → 7`."""
    fields = ", ".join(
        f"{name} {_shown(value.get('from'))} → {_shown(value.get('to'))}"
        if value.get("from") is not None
        else f"{name} {_shown(value.get('to'))}"
        for name, value in change.fields.items()
    )
    return f"{change.action} {change.kind} {change.name}{f': {fields}' if fields else ''}"


def _shown(value: object) -> str:
    text = "nothing" if value is None else str(value)
    if "@sha256:" in text:
        name, _, digest = text.partition("@sha256:")
        return f"{name.rpartition('/')[2].partition(':')[0]}@{digest[:8]}"
    return text if len(text) <= 80 else f"{text[:79]}…"


def _when_free(remove: Callable[[], None]) -> None:
    """Remove what may still be in use for a moment (by tasks that are stopping); gone is fine too."""

    def is_busy(error: BaseException) -> bool:
        return isinstance(error, EngineError) and error.status in (400, 403, 409)

    for attempt in Retrying(
        retry=retry_if_exception(is_busy),
        stop=stop_after_delay(GONE_SECONDS),
        wait=wait_fixed(POLL_SECONDS),
        reraise=True,
    ):
        with attempt:
            try:
                remove()
            except EngineError as error:
                if error.status != 404:
                    raise


def down(engine: Engine, ui: Ui, stack: str, *, timeout: float = 120) -> list[Change]:
    """Remove a stack: services, then (once their tasks have ended) configs and networks; volumes stay.

    Returns what was removed, nothing where there is no such stack: also what an interrupted `down` has
    left. Raises NotConverged where tasks do not end in time.
    """
    live = observe(engine, stack)
    removed: list[Change] = []

    def remove(kind: str, raw: Mapping[str, Any]) -> None:
        identity, name = raw.get("ID") or raw["Id"], raw.get("Name") or raw["Spec"]["Name"]
        change = Change(kind=kind, name=name, action="remove", live_id=identity)  # type: ignore[arg-type]
        ui.say(f"  {describe(change)}")
        _when_free(lambda: engine.delete(f"/{kind}s/{identity}"))
        removed.append(change)

    for raw in live.services:
        remove("service", raw)
    wait_gone(engine, {raw["ID"]: raw["Spec"]["Name"] for raw in live.services}, ui, timeout)
    for raw in live.configs:
        remove("config", raw)
    for raw in live.networks:
        remove("network", raw)
    networks = {raw["Id"] for raw in live.networks}
    for attempt in Retrying(stop=stop_after_delay(GONE_SECONDS), wait=wait_fixed(POLL_SECONDS), reraise=True):
        with attempt:
            left = [one["Name"] for one in engine.get("/networks") if one["Id"] in networks]
            if left:
                raise NotConverged(f"networks are still there: {', '.join(left)}", where=stack)
    return removed


def stacks(known: Sequence[Service]) -> dict[str, list[Service]]:
    """Services by the stack they belong to."""
    found: dict[str, list[Service]] = {}
    for service in known:
        if service.stack:
            found.setdefault(service.stack, []).append(service)
    return found
