"""Taking away: what a plan removes, and whole stacks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from swarmkit.cluster.lock import Lock
from swarmkit.deploy import history
from swarmkit.deploy.observe import observe
from swarmkit.deploy.options import Options, locked_stack
from swarmkit.deploy.plan import Change, LiveStack, removal, waves
from swarmkit.deploy.report import describe
from swarmkit.errors import NotConverged, OperationFailed, SwarmkitError, raise_all
from swarmkit.names import CANARY_LABEL, CONTROLLER_SERVICE, STACK_LABEL
from swarmkit.remote import Engine, EngineError, Fleet
from swarmkit.services.canary import retire
from swarmkit.services.converge import wait_gone
from swarmkit.swarm import filters, services
from swarmkit.ui import Ui
from swarmkit.waiting import POLL_SECONDS, wait_for

# How long the swarm may take until it lets go of what nothing uses any more.
_BUSY_SECONDS = 60


def remove(engine: Engine, ui: Ui, lock: Lock, changes: Sequence[Change], timeout: float) -> None:
    """Remove things of a stack, services first; ends when they are gone.

    Raises NotConverged where tasks or networks are still there after `timeout` seconds.
    """
    for change in changes:
        lock.check()
        ui.say(f"  {describe(change)}")
    gone = {str(one.live_id): one.name for one in changes if one.kind == "service"}
    if gone:
        _retire(engine, gone, timeout)
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


def _retire(engine: Engine, service_ids: Iterable[str], timeout: float) -> None:
    """Let canaries among these services go without losing a request."""
    known = {one.id for one in services(engine) if CANARY_LABEL in one.labels}
    for identity in service_ids:
        if identity in known:
            retire(engine, identity, timeout)


def _when_free(remove: Callable[[], None]) -> None:
    """Remove what may still be in use for a moment (by tasks that are stopping); gone is fine too."""

    def is_busy(error: BaseException) -> bool:
        return isinstance(error, EngineError) and error.status in (400, 403, 409)

    for attempt in Retrying(
        retry=retry_if_exception(is_busy),
        stop=stop_after_delay(_BUSY_SECONDS),
        wait=wait_fixed(POLL_SECONDS),
        reraise=True,
    ):
        with attempt:
            try:
                remove()
            except EngineError as error:
                if error.status != 404:
                    raise


def down(
    engine: Engine,
    ui: Ui,
    stack: str,
    options: Options,
    release: Callable[[], object] | None = None,
) -> list[Change]:
    """Remove a stack: services (dependents first), secrets, configs, networks, revisions; volumes stay.

    Returns what was removed, nothing where there is no such stack: also what an interrupted `down` has
    left. Ends when all of it is gone. The load balancer has the secrets that the stack's routes name;
    `release` is called once the services are gone, and makes it let go of them.

    Raises OperationFailed (or Problems), and removes nothing, where other stacks use what is the stack's;
    NotConverged where tasks do not end in time.
    """
    live = observe(engine, stack)
    if not _everything(live) and not live.revisions:
        return []
    with locked_stack(engine, ui, stack, options) as lock:
        live = observe(engine, stack)
        changes = _everything(live)
        raise_all(_used(changes, live, () if release is None else (CONTROLLER_SERVICE,)))
        gone = {change.name: change for change in changes if change.kind == "service"}
        wanted = live.revisions[-1].after.depends_on if live.revisions else {}
        groups = [[gone[name] for name in wave] for wave in waves(list(gone), wanted)]
        for group in groups:
            remove(engine, ui, lock, group, options.timeout)
        if release is not None:
            release()
        others = [change for change in changes if change.kind != "service"]
        remove(engine, ui, lock, others, options.timeout)
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


def _used(changes: Sequence[Change], live: LiveStack, released: Collection[str]) -> list[SwarmkitError]:
    """What services of other stacks use, but for those that let go: the swarm would not."""
    return [
        OperationFailed(
            f"other stacks use the {change.kind}: {', '.join(users)}; nothing was removed",
            where=change.name,
            hint="take those down first",
        )
        for change in changes
        if (users := [one for one in live.users.get(str(change.live_id), ()) if one not in released])
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
