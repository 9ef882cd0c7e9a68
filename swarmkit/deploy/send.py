"""Sending what a plan makes or changes, each thing once what it waits for is so."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from swarmkit.cluster.lock import Lock
from swarmkit.compose.convert import Spec
from swarmkit.deploy.history import Stored
from swarmkit.deploy.plan import COMPLETED, Change, Dependencies, is_job, ports, referred, with_ids
from swarmkit.deploy.report import describe
from swarmkit.deploy.scope import services_in
from swarmkit.errors import OperationFailed, SwarmkitError, raise_all
from swarmkit.images.credentials import Credentials
from swarmkit.images.resolve import needs_credentials
from swarmkit.remote import Engine, EngineError, Fleet, while_stale
from swarmkit.services.converge import Goal, ServiceProgress, Verdict, Watch, converge, read
from swarmkit.services.placement import published
from swarmkit.swarm import Service
from swarmkit.ui import Ui
from swarmkit.waiting import POLL_SECONDS

# As many requests as a connection has channels for.
_AT_ONCE = 4


@dataclass(frozen=True)
class Sender:
    """Sends the changes of one plan for `stack`, under its lock.

    `wanted` are the dependencies of its services, `names` those that are to run in the end. `timeout` are
    the seconds, from `started` on (by `time.monotonic`), for what is waited for. `insist` sends all there
    is even where that does not come.
    """

    engine: Engine
    ui: Ui
    lock: Lock
    credentials: Credentials
    fleet: Fleet | None
    stack: str
    wanted: Dependencies
    names: frozenset[str]
    watch: Watch
    timeout: float
    insist: bool = False
    started: float = field(default_factory=time.monotonic)

    def things(self, changes: Sequence[Change]) -> None:
        """Make or label networks, secrets and configs, one after the other."""
        for change in changes:
            self.lock.check()
            self.ui.say(f"  {describe(change)}")
            _send(self.engine, change, change.spec)

    def services(self, changes: Sequence[Change]) -> None:
        """Send each service once what it waits for is so; those that wait for nothing at the same time.

        Raises NotConverged (or Problems) where a service of the stack fails, or what is waited for does
        not come in time; what waits for it is not sent then, unless `insist` says so.
        """
        waiting = {change.name: change for change in changes}
        if not waiting:
            return
        ids: dict[Stored, dict[str, str]] = {
            "config": _ids(self.engine, "config"),
            "secret": _ids(self.engine, "secret"),
        }
        known = {one.name: one.id for one in services_in(self.engine, self.stack) if one.name in self.names}
        conditions = {
            name: {
                one: how for one, how in self.wanted.get(name, {}).items() if one in known or one in waiting
            }
            for name in waiting
        }
        insisting = False
        sent: set[str] = set()
        said: set[str] = set()
        while waiting:
            asked = {name: {*conditions[name], *change.after} for name, change in waiting.items()}
            needed = {one for others in asked.values() for one in others} - set(waiting)
            # One that has been sent and fails is the end, also where nothing waits for it.
            watched = sorted(known[name] for name in needed | sent if name in known) if needed else []
            states = {
                service.name: (service, state)
                for service, state in read(self.engine, watched, self.watch.before)
            }
            ready = [
                change
                for name, change in waiting.items()
                if asked[name] <= states.keys()
                and all(is_met(condition, *states[one]) for one, condition in conditions[name].items())
                and all(has_given(change, *states[one], insisting) for one in change.after)
            ]
            if ready:
                known |= self._send_all(ready, ids)
                for change in ready:
                    del waiting[change.name]
                    sent.add(change.name)
                continue
            for name in sorted(needed - said):
                self.ui.say(f"  waiting for {name}")
            said |= needed
            now = time.monotonic()
            failed = [
                service.id
                for service, state in states.values()
                if self.watch.judge(service, state, now) is Verdict.FAILED
            ]
            is_late = now > self.started + self.timeout
            if (failed or is_late) and self.insist and not insisting:
                insisting = True
                conditions = {name: {} for name in waiting}
                continue
            if (failed and not insisting) or is_late:
                self._explain(failed, [known[name] for name in sorted(needed)], conditions, known)
            time.sleep(POLL_SECONDS)

    def _explain(
        self,
        failed: Sequence[str],
        needed: Sequence[str],
        conditions: Mapping[str, Mapping[str, str]],
        known: Mapping[str, str],
    ) -> None:
        """Look again, and raise with the reason."""
        goals = dict.fromkeys(needed, Goal.RUNNING)
        for others in conditions.values():
            goals |= {
                known[name]: Goal.COMPLETED
                for name, condition in others.items()
                if condition == COMPLETED and name in known
            }
        converge(
            self.engine,
            failed or needed,
            self.ui,
            timeout=self.timeout,
            before=self.watch.before,
            goals=goals,
            fleet=self.fleet,
            watch=self.watch,
            started=self.started,
            is_paced=True,
        )

    def _send_all(self, ready: Sequence[Change], ids: Mapping[Stored, Mapping[str, str]]) -> dict[str, str]:
        """Send services at the same time; their ids by name."""
        self.lock.check()
        for change in ready:
            self.ui.say(f"  {describe(change)}")
        bodies = [_with_ids(change, ids) for change in ready]
        with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
            answers = list(pool.map(self._send_service, ready, bodies))
        return {
            change.name: change.live_id or answer["ID"] for change, answer in zip(ready, answers, strict=True)
        }

    def _send_service(self, change: Change, body: Spec) -> Any:
        headers: Mapping[str, str] = {}
        if needs_credentials(body, change.replaces):
            headers = self.credentials.headers(body["TaskTemplate"]["ContainerSpec"]["Image"])
        return _send(self.engine, change, body, headers)


def is_met(condition: str, service: Service, state: ServiceProgress) -> bool:
    """Whether a service is as far as another that depends on it waits for (Compose Specification)."""
    there = state.verdict is Verdict.THERE
    match condition:
        case "service_started":
            return there or state.running > 0
        case "service_completed_successfully":
            return there and (is_job(service.spec) or not state.running)
    return there


def has_given(change: Change, giver: Service, state: ServiceProgress, insisting: bool) -> bool:
    """Whether a service has given up the ports that another gets from it.

    The swarm refuses those that it still has among those it works with, which is a moment longer than its
    spec has them (moby/swarmkit, checkPortConflicts). In host mode the tasks that are replaced hold them.
    """
    spec = change.spec or {}
    if ports(spec) & ports({"EndpointSpec": giver.raw.get("Endpoint")}):
        return False
    return state.verdict is Verdict.THERE or insisting or not published(spec, "host")


def _with_ids(change: Change, ids: Mapping[Stored, Mapping[str, str]]) -> Spec:
    spec = change.spec or {}
    gone: list[SwarmkitError] = [
        OperationFailed(f'there is no {kind} "{name}" in the swarm', where=change.name)
        for kind, known in ids.items()
        for name in sorted(referred(spec, kind) - known.keys())
    ]
    raise_all(gone)
    return with_ids(spec, ids["config"], ids["secret"])


def _ids(engine: Engine, kind: Stored) -> dict[str, str]:
    return {one["Spec"]["Name"]: one["ID"] for one in engine.get(f"/{kind}s")}


def _send(
    engine: Engine, change: Change, body: Mapping[str, Any] | None, headers: Mapping[str, str] | None = None
) -> Any:
    """Make or change one thing; the engine's answer."""
    if change.action == "create":
        return engine.post(f"/{change.kind}s/create", body, headers=headers)
    path = f"/{change.kind}s/{change.live_id}"
    assert change.version is not None
    try:
        return engine.post(f"{path}/update", body, {"version": change.version}, headers=headers)
    except EngineError as error:
        if not error.is_stale:
            raise
    return _send_again(engine, change, path, body, headers)


@while_stale
def _send_again(
    engine: Engine,
    change: Change,
    path: str,
    body: Mapping[str, Any] | None,
    headers: Mapping[str, str] | None,
) -> Any:
    """Update what has another version than the plan knows, if it still is what the plan is for.

    The swarm itself gives a service another version at each turn of an update that goes on.
    """
    now = engine.get(path)
    if _labels(now["Spec"]) == _labels(body) != _labels(change.replaces):
        # It was carried out, and the answer was lost with a manager.
        return None
    if change.replaces is None or now["Spec"] != change.replaces:
        raise OperationFailed(
            "someone else changed it at the same time", where=change.name, hint="run the command again"
        )
    return engine.post(f"{path}/update", body, {"version": now["Version"]["Index"]}, headers=headers)


def _labels(spec: Mapping[str, Any] | None) -> Mapping[str, str]:
    """A service's hold the fingerprint of its spec."""
    return (spec or {}).get("Labels") or {}
