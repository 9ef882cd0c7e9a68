"""Carrying out a stack's plan: the one place where stacks change a swarm, and the waiting for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from swarmkit.compose.convert import Context, DesiredStack, builds, convert
from swarmkit.compose.load import Project
from swarmkit.deploy.builder import build_images
from swarmkit.deploy.plan import Change, LiveStack, orphans, plan_stack, with_config_ids
from swarmkit.errors import NotConverged, SwarmkitError, UsageError, raise_all
from swarmkit.names import STACK_LABEL
from swarmkit.remote import Engine, EngineError
from swarmkit.services.converge import converge, engine_time, wait_gone
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


def deploy(
    swarm: Swarm,
    ui: Ui,
    project: Project,
    stack: str,
    *,
    dry_run: bool = False,
    prune: bool = False,
    timeout: float = 300,
) -> list[Change]:
    """Make the swarm run `project` as `stack`; returns what had to be changed.

    Ends when every service of the stack runs and is healthy. In a dry run nothing is built or sent.
    Raises UsageError for what the swarm lacks, OperationFailed where a step fails, and NotConverged
    (Problems) where services do not come up within `timeout` seconds.
    """
    engine = swarm.engine
    sources = builds(project)
    images = build_images(swarm, ui, stack, sources, dry_run=dry_run)
    desired = convert(project, stack, Context(images=images))
    live = observe(engine, stack)
    _check_externals(engine, desired, live)
    changes = plan_stack(desired, live, prune=prune)
    if (left := orphans(desired, live)) and not prune:
        ui.warn(f"no longer in the file, and left running: {', '.join(left)} (--prune removes them)")
    if dry_run:
        return changes
    since = engine_time(engine)
    _Applier(engine, ui).run(changes)
    wanted = {service.name for service in desired.services}
    ids = [service.id for service in services(engine, stack) if service.name in wanted]
    converge(engine, ids, ui, timeout=timeout, since=since)
    return changes


def _check_externals(engine: Engine, desired: DesiredStack, live: LiveStack) -> None:
    errors: list[SwarmkitError] = [
        UsageError(
            f'there is no network "{name}" in the swarm',
            where=desired.name,
            hint=f"make it first: docker network create -d overlay {name}"
            if not name.startswith("swarmkit-")
            else "swarmkit init makes it",
        )
        for name in desired.external_networks
        if name not in live.network_ids
    ]
    if desired.external_configs:
        known = {config["Spec"]["Name"] for config in engine.get("/configs")}
        errors += [
            UsageError(f'there is no config "{name}" in the swarm', where=desired.name)
            for name in desired.external_configs
            if name not in known
        ]
    raise_all(errors)


class _Applier:
    """Sends changes to the engine, in the plan's order."""

    def __init__(self, engine: Engine, ui: Ui) -> None:
        self._engine = engine
        self._ui = ui

    def run(self, changes: Sequence[Change]) -> None:
        for change in changes:
            self._ui.say(f"  {describe(change)}")
            self._send(change)

    def _send(self, change: Change) -> None:
        engine, path = self._engine, f"/{change.kind}s"
        match change.action:
            case "remove":
                _when_free(lambda: engine.delete(f"{path}/{change.live_id}"))
                if change.kind == "service":
                    assert change.live_id is not None
                    wait_gone(engine, {change.live_id: change.name}, self._ui, GONE_SECONDS)
            case "create":
                engine.post(f"{path}/create", self._body(change))
            case "update":
                assert change.version is not None
                version = {"version": change.version}
                try:
                    engine.post(f"{path}/{change.live_id}/update", self._body(change), version)
                except EngineError as error:
                    if error.is_stale:
                        error.hint = "someone else changed it at the same time; run the command again"
                    raise

    def _body(self, change: Change) -> Mapping[str, Any]:
        assert change.spec is not None
        if change.kind != "service" or "Configs" not in change.spec["TaskTemplate"]["ContainerSpec"]:
            return change.spec
        ids = {config["Spec"]["Name"]: config["ID"] for config in self._engine.get("/configs")}
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

    Returns what was removed, nothing where there is no such stack. Raises NotConverged where tasks do
    not end in time.
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
