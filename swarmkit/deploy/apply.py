"""Carrying out a stack's plan: the one place where stacks change a swarm, and the waiting for it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from swarmkit.balancer.routes import routes
from swarmkit.cluster.lock import Holder, Lock, locked
from swarmkit.compose.convert import Context, DesiredStack, builds, convert
from swarmkit.compose.load import Project
from swarmkit.deploy import history
from swarmkit.deploy.builder import NOT_BUILT, build_images
from swarmkit.deploy.history import Revision
from swarmkit.deploy.pinning import pinned, pins
from swarmkit.deploy.plan import (
    Change,
    Dependencies,
    LiveStack,
    Plan,
    as_desired,
    at_live_scale,
    dependencies,
    is_job,
    only,
    orphans,
    plan_return,
    plan_stack,
    removal,
    result,
    waves,
    with_ids,
)
from swarmkit.deploy.preflight import refusals
from swarmkit.errors import (
    Exit,
    NotConverged,
    OperationFailed,
    Problems,
    SwarmkitError,
    raise_all,
)
from swarmkit.images.credentials import Credentials
from swarmkit.images.resolve import Resolve, needs_credentials
from swarmkit.names import STACK_LABEL
from swarmkit.remote import Engine, EngineError, Fleet, while_stale
from swarmkit.services.converge import (
    Baseline,
    ServiceProgress,
    Verdict,
    Watch,
    baseline,
    converge,
    read,
    wait_gone,
)
from swarmkit.swarm import Service, filters, services
from swarmkit.target import Swarm
from swarmkit.ui import Ui
from swarmkit.waiting import POLL_SECONDS, wait_for

GONE_SECONDS = 60
# As many requests as a connection has channels for.
_AT_ONCE = 4


@dataclass(frozen=True)
class Options:
    """How a plan is carried out.

    `timeout` are the seconds for all of it to come true. `rollback` returns to what was there where it
    does not. `recreate` allows what the plan says it has to make again. `lock_wait` are seconds.
    """

    timeout: float
    doing: str
    rollback: bool = True
    recreate: bool = False
    lock_wait: float = 0
    break_lock: bool = False


@dataclass(frozen=True)
class Deployment:
    """What `stack up`, `down` or `rollback` did, or in a dry run would do: the contract's JSON."""

    stack: str
    changes: Sequence[Change]
    converged: bool
    seconds: float
    notes: Sequence[str] = ()

    def json(self) -> dict[str, Any]:
        return {
            "stack": self.stack,
            "changed": len(self.changes),
            "changes": [change_json(change) for change in self.changes],
            "notes": list(self.notes),
            "converged": self.converged,
            "rolled_back": False,
            "seconds": self.seconds,
        }


def change_json(change: Change) -> dict[str, Any]:
    """A change as the contract shows it."""
    return {
        "kind": change.kind,
        "name": change.name,
        "action": change.action,
        "fields": {key: dict(value) for key, value in change.fields.items()},
        "by_hand": sorted(change.by_hand),
        "recreates": change.recreates,
        "note": change.note,
    }


def observe(engine: Engine, stack: str) -> LiveStack:
    """What the swarm holds of a stack."""
    ours = filters(label=f"{STACK_LABEL}={stack}")
    every = engine.get("/services")
    overlays = engine.get("/networks", filters(scope="swarm"))
    configs = engine.get("/configs", ours)
    users: dict[str, list[str]] = {}
    own = []
    for one in every:
        if (one["Spec"].get("Labels") or {}).get(STACK_LABEL) == stack:
            own.append(one)
            continue
        for network in one["Spec"]["TaskTemplate"].get("Networks") or ():
            users.setdefault(network["Target"], []).append(one["Spec"]["Name"])
    return LiveStack(
        services=own,
        networks=[one for one in overlays if (one.get("Labels") or {}).get(STACK_LABEL) == stack],
        configs=[one for one in configs if not history.is_revision(one)],
        secrets=engine.get("/secrets", ours),
        network_ids={one["Name"]: one["Id"] for one in overlays},
        users=users,
        revisions=history.decode_all(configs),
    )


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
    """Plan to make the swarm run `project` as `stack`. Nothing of the swarm's services is touched.

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
    # Whatever can be refused is, before anything is built.
    live = observe(engine, stack)
    whole = convert(project, stack, Context(images=stand_ins))
    whole = only(whole, chosen) if chosen else whole
    found, unresolved = pins(engine, whole, live, resolve_image, credentials, stand_ins)
    for warning in unresolved:
        ui.warn(warning)
    _check(engine, ui, at_live_scale(pinned(whole, found), live), beside)
    built = build_images(swarm, ui, stack, sources, dry_run=dry_run)
    desired = convert(project, stack, Context(images={**stand_ins, **built}))
    if not chosen and not prune and (left := orphans(desired, live)):
        ui.warn(f"no longer in the file, and left running: {', '.join(left)} (--prune removes them)")
    desired = pinned(only(desired, chosen) if chosen else desired, found)

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


def carry_out(
    engine: Engine, ui: Ui, prepared: Prepared, options: Options, fleet: Fleet | None = None
) -> Plan:
    """Make the changes; ends when every service of the stack runs and is healthy.

    Where that fails the stack returns to what it was, unless told not to. Returns the plan that was
    carried out: another command may have changed the stack since it was prepared. `fleet` lets reasons
    for failures be looked up on the nodes.

    Raises OperationFailed where somebody else is at work on the stack, or the plan has to make something
    again and may not; NotConverged (or Problems) where services do not come up in time, or a step fails.
    """
    if not prepared.plan.changes and prepared.live.unfinished() is None:
        _converge(engine, ui, prepared.stack, prepared.services, options.timeout, baseline(engine), fleet)
        return prepared.plan
    with _locked(engine, ui, prepared.stack, options) as lock:
        live = observe(engine, prepared.stack)
        plan = prepared.planner(live)
        if plan.recreates and not options.recreate:
            raise OperationFailed(
                "the stack has changed meanwhile, and the plan has to make something again",
                where=prepared.stack,
                hint="look at it with --dry-run",
            )
        return _Run(engine, ui, prepared, options, lock, fleet).deploy(live, plan)


def _locked(engine: Engine, ui: Ui, stack: str, options: Options) -> AbstractContextManager[Lock]:
    return locked(
        engine,
        ui,
        options.doing,
        wait=options.lock_wait,
        break_it=options.break_lock,
        name=history.short("swarmkit-lock-", stack),
        what=f"the stack {stack}",
    )


@dataclass(frozen=True)
class _Run:
    """One deployment under its lock."""

    engine: Engine
    ui: Ui
    prepared: Prepared
    options: Options
    lock: Lock
    fleet: Fleet | None

    def deploy(self, live: LiveStack, plan: Plan) -> Plan:
        stack = self.prepared.stack
        # What was left half-done is now part of this deployment, and returns to where that one began.
        left = [revision for revision in live.revisions if revision.is_open]
        revision = None
        if left or plan.makes_revision:
            revision = history.begin(self.engine, stack, self._revision(live, plan))
            history.forget(self.engine, left)
        try:
            self._make(plan, self.prepared.wanted, self.prepared.services)
        except KeyboardInterrupt:
            self.ui.warn(f"left half-done: run it again to complete it, or: swarmkit stack rollback {stack}")
            raise
        except SwarmkitError as error:
            # Somebody who has broken our lock is at work now; without a manager nothing can be done.
            self.lock.check()
            if revision is None or not self.options.rollback or error.exit is Exit.UNREACHABLE:
                raise
            self._return(revision, error)
        if revision is not None:
            history.close(self.engine, stack, revision)
            done = [one for one in live.revisions if not one.is_open]
            history.forget(self.engine, done[: -history.REVISIONS_KEPT + 1])
        self._remove([change for change in plan.changes if change.action == "remove" and not change.early])
        return plan

    def _revision(self, live: LiveStack, plan: Plan) -> Revision:
        return Revision(
            number=live.revisions[-1].number + 1 if live.revisions else 1,
            who=Holder.us("").who,
            doing=self.options.doing,
            changes=[describe(change) for change in plan.changes],
            before=live.before(),
            after=result(live, plan, self.prepared.wanted),
            is_open=True,
        )

    def _make(self, plan: Plan, wanted: Dependencies, names: frozenset[str]) -> None:
        """All but the removals at the end; ends when the services `names` run."""
        started = time.monotonic()
        before = baseline(self.engine)
        self._remove([change for change in plan.changes if change.early])
        for change in plan.changes:
            if change.kind != "service" and change.action != "remove":
                self.lock.check()
                self.ui.say(f"  {describe(change)}")
                _send(self.engine, change, change.spec)
        sent = [one for one in plan.changes if one.kind == "service" and one.action != "remove"]
        self._send_services(sent, wanted, before, started + self.options.timeout)
        left = max(0.0, started + self.options.timeout - time.monotonic())
        _converge(self.engine, self.ui, self.prepared.stack, names, left, before, self.fleet)

    def _send_services(
        self, changes: Sequence[Change], wanted: Dependencies, before: Baseline, deadline: float
    ) -> None:
        """Send each service once what it waits for is so; those that wait for nothing at the same time."""
        waiting = {change.name: change for change in changes}
        if not waiting:
            return
        ids = {kind: _ids(self.engine, kind) for kind in ("config", "secret")}
        known = {one.name: one.id for one in services(self.engine, self.prepared.stack)}
        asked: set[str] = set()
        watch = Watch(before)
        while waiting:
            needed = {one for name in waiting for one in wanted.get(name, {}) if one in known} - set(waiting)
            states = {
                service.name: (service, state)
                for service, state in (
                    read(self.engine, [known[name] for name in sorted(needed)], before) if needed else ()
                )
            }
            ready = [
                change
                for name, change in waiting.items()
                if all(
                    other not in waiting and other in states and is_met(condition, *states[other])
                    for other, condition in wanted.get(name, {}).items()
                )
            ]
            if not ready:
                for name in sorted(needed - asked):
                    self.ui.say(f"  waiting for {name}")
                asked |= needed
                now = time.monotonic()
                failed = [known[one] for one in needed if watch.judge(*states[one], now) is Verdict.FAILED]
                if failed or now > deadline:
                    # It looks again, and says why.
                    converge(
                        self.engine,
                        failed or [known[name] for name in needed],
                        self.ui,
                        timeout=max(0.0, deadline - now),
                        before=before,
                        fleet=self.fleet,
                    )
                time.sleep(POLL_SECONDS)
                continue
            self.lock.check()
            for change in ready:
                del waiting[change.name]
                self.ui.say(f"  {describe(change)}")
            with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
                bodies = [with_ids(one.spec or {}, ids["config"], ids["secret"]) for one in ready]
                answers = list(pool.map(self._send_service, ready, bodies))
            known |= {
                change.name: change.live_id or answer["ID"]
                for change, answer in zip(ready, answers, strict=True)
            }

    def _send_service(self, change: Change, body: Mapping[str, Any]) -> Any:
        headers: Mapping[str, str] = {}
        if needs_credentials(body, change.replaces):
            headers = self.prepared.credentials.headers(body["TaskTemplate"]["ContainerSpec"]["Image"])
        return _send(self.engine, change, body, headers)

    def _remove(self, changes: Sequence[Change]) -> None:
        for change in changes:
            self.lock.check()
            self.ui.say(f"  {describe(change)}")
        remove(self.engine, self.ui, changes)

    def _return(self, revision: Revision, error: SwarmkitError) -> None:
        """Put back what was there; always raises, with what has gone wrong first."""
        stack = self.prepared.stack
        for each in error.errors if isinstance(error, Problems) else [error]:
            self.ui.say(f"  failed: {each}")
        self.ui.say(f"returning {stack} to what it was")
        try:
            self._restore(revision)
        except SwarmkitError as second:
            hint = f"swarmkit stack rollback {stack} tries again"
            failure = OperationFailed(
                f"could not be returned to what it was: {second}", where=stack, hint=hint
            )
            raise Problems([error, failure]) from None
        history.forget(self.engine, [one for one in observe(self.engine, stack).revisions if one.is_open])
        raise_all(list(_rolled_back(error)))

    @while_stale
    def _restore(self, revision: Revision) -> None:
        stack, to = self.prepared.stack, revision.before

        def is_settled() -> bool:
            return all(one.update_state != "rollback_started" for one in services(self.engine, stack))

        # What the swarm rolls back by itself comes to its end first, or that would look like a failure.
        wait_for(
            is_settled,
            self.options.timeout,
            lambda: NotConverged("the swarm still rolls back services", where=stack),
        )
        plan = plan_return(stack, to, observe(self.engine, stack))
        self._make(plan, to.depends_on, frozenset(to.services))
        self._remove([change for change in plan.changes if change.action == "remove" and not change.early])


def is_met(condition: str, service: Service, state: ServiceProgress) -> bool:
    """Whether a service is as far as another that depends on it waits for (Compose Specification)."""
    there = state.verdict is Verdict.THERE
    match condition:
        case "service_started":
            return there or state.running > 0
        case "service_completed_successfully":
            return there and (is_job(service.spec) or not state.running)
    return there


def _rolled_back(error: SwarmkitError) -> Iterator[NotConverged]:
    """The errors of a deployment that was taken back, each saying so."""
    for each in error.errors if isinstance(error, Problems) else [error]:
        found = (
            each
            if isinstance(each, NotConverged)
            else NotConverged(each.message, where=each.where, hint=each.hint)
        )
        found.rolled_back = True
        yield found


def _converge(
    engine: Engine,
    ui: Ui,
    stack: str,
    names: frozenset[str],
    timeout: float,
    before: Baseline,
    fleet: Fleet | None,
) -> None:
    ids = [service.id for service in services(engine, stack) if service.name in names]
    converge(engine, ids, ui, timeout=timeout, before=before, fleet=fleet)


def after(engine: Engine, *desired: DesiredStack) -> list[Service]:
    """The swarm's services as they will be once these stacks are deployed."""
    wanted = {service.name for stack in desired for service in stack.services}
    others = [service for service in services(engine) if service.name not in wanted]
    return others + [
        Service.of({"ID": one.name, "Spec": one.spec}) for stack in desired for one in stack.services
    ]


def _check(engine: Engine, ui: Ui, desired: DesiredStack, beside: Sequence[DesiredStack]) -> None:
    errors = refusals(engine, ui, desired, beside)
    wanted = {service.name for service in desired.services}
    # Another stack's mistakes are not this one's.
    errors += [error for error in routes(after(engine, *beside, desired)).errors if error.where in wanted]
    raise_all(errors)


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
    if change.replaces is None or now["Spec"] != change.replaces:
        raise OperationFailed(
            "someone else changed it at the same time", where=change.name, hint="run the command again"
        )
    return engine.post(f"{path}/update", body, {"version": now["Version"]["Index"]}, headers=headers)


def _ids(engine: Engine, kind: str) -> dict[str, str]:
    return {one["Spec"]["Name"]: one["ID"] for one in engine.get(f"/{kind}s")}


def describe(change: Change) -> str:
    """A change in one line: `update service web_web: replicas 3 → 7`."""
    fields = ", ".join(
        (
            f"{name} {_shown(value.get('from'))} → {_shown(value.get('to'))}"
            if value.get("from") is not None
            else f"{name} {_shown(value.get('to'))}"
        )
        + (" (was changed by hand)" if name in change.by_hand else "")
        for name, value in change.fields.items()
    )
    what = f"{change.action} {change.kind} {change.name}{f': {fields}' if fields else ''}"
    return f"{what} ({change.note})" if change.note else what


def _shown(value: object) -> str:
    text = "nothing" if value is None else str(value)
    if "@sha256:" in text:
        name, _, digest = text.partition("@sha256:")
        return f"{name.rpartition('/')[2].partition(':')[0]}@{digest[:8]}"
    return text if len(text) <= 80 else f"{text[:79]}…"


def remove(engine: Engine, ui: Ui, changes: Sequence[Change], *, timeout: float = GONE_SECONDS) -> None:
    """Remove things of a stack, services first; ends when they are gone.

    Raises NotConverged where tasks or networks are still there after `timeout` seconds.
    """
    gone = {str(one.live_id): one.name for one in changes if one.kind == "service"}
    for identity in gone:
        _when_free(partial(engine.delete, f"/services/{identity}"))
    if gone:
        wait_gone(engine, gone, ui, timeout)
    networks: set[str] = set()
    for change in changes:
        if change.kind == "service":
            continue
        _when_free(partial(engine.delete, f"/{change.kind}s/{change.live_id}"))
        if change.kind == "network":
            networks.add(str(change.live_id))
    if not networks:
        return
    left: list[str] = []

    def are_gone() -> bool:
        # A manager's own part of a network goes a little later; its name is taken until then (moby 29293).
        left[:] = [one["Name"] for one in engine.get("/networks") if one["Id"] in networks]
        return not left

    wait_for(are_gone, timeout, lambda: NotConverged("networks are still there", where=", ".join(left)))


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


def down(engine: Engine, ui: Ui, stack: str, options: Options) -> list[Change]:
    """Remove a stack: services (dependents first), secrets, configs, networks, revisions; volumes stay.

    Returns what was removed, nothing where there is no such stack: also what an interrupted `down` has
    left. Ends when all of it is gone; raises NotConverged where tasks do not end in time.
    """
    live = observe(engine, stack)
    if not _everything(live) and not live.revisions:
        return []
    with _locked(engine, ui, stack, options) as lock:
        live = observe(engine, stack)
        changes = _everything(live)
        gone = {change.name: change for change in changes if change.kind == "service"}
        wanted = live.revisions[-1].after.depends_on if live.revisions else {}
        groups = [[gone[name] for name in wave] for wave in waves(list(gone), wanted)]
        groups.append([change for change in changes if change.kind != "service"])
        for group in groups:
            lock.check()
            for change in group:
                ui.say(f"  {describe(change)}")
            remove(engine, ui, group, timeout=options.timeout)
        history.forget(engine, live.revisions)
        wait_for(
            lambda: not _everything(observe(engine, stack)),
            options.timeout,
            lambda: NotConverged("something of it is still there", where=stack),
        )
    return changes


def _everything(live: LiveStack) -> list[Change]:
    return [
        *(removal("service", one) for one in live.services),
        *(removal("secret", one) for one in live.secrets),
        *(removal("config", one) for one in live.configs),
        *(removal("network", one) for one in live.networks),
    ]


def remove_volumes(fleet: Fleet, ui: Ui, stack: str) -> list[Change]:
    """Remove the volumes of a stack that is down, on every machine; returns what was removed.

    Raises Problems (or the one error) where a machine cannot be reached or a volume is in use.
    """

    def clear(engine: Engine) -> list[Change]:
        found = engine.get("/volumes", filters(label=f"{STACK_LABEL}={stack}"))["Volumes"] or []
        names = sorted(str(one["Name"]) for one in found)
        for name in names:
            # The containers of tasks that have ended go a little later.
            _when_free(partial(engine.delete, f"/volumes/{name}"))
        return [Change("volume", name, "remove", note=f"on {engine.name}") for name in names]

    outcomes = fleet.map(lambda host: clear(fleet.engine(host)))
    removed = [change for changes in outcomes.values.values() for change in changes]
    for change in removed:
        ui.say(f"  {describe(change)}")
    raise_all(list(outcomes.errors.values()))
    return removed


def stacks(known: Sequence[Service]) -> dict[str, list[Service]]:
    """Services by the stack they belong to."""
    found: dict[str, list[Service]] = {}
    for service in known:
        if service.stack:
            found.setdefault(service.stack, []).append(service)
    return found
