"""The controller's eyes: reads the swarm over and over, and makes configurations of what it finds."""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from swarmkit.balancer.changes import changes, loses
from swarmkit.balancer.log import say
from swarmkit.balancer.nginx import Configuration, configure
from swarmkit.balancer.pacing import CALM_SECONDS, hold_back, is_hurried, is_settled, pause
from swarmkit.balancer.reading import Event, Reader, ReadingError
from swarmkit.swarm import Node, Service, Task

# All is read anew every so often, should an event have been lost.
_REFRESH_SECONDS = 30.0
# From an event to the reading: others come with it, and the tasks have been given their orders.
_EVENT_SECONDS = 0.02
# Before the stream of events is opened again.
_REOPEN_SECONDS = 0.5
# How long after an order to our own service we look whether we are still meant to run.
_OWN_SECONDS = 60.0
_NEVER = float("-inf")


class Replaced(Exception):
    """The swarm runs another task in this one's place."""


@dataclass
class _Known:
    """A service and its tasks as read last, when they last changed, and when there was an order for them."""

    service: Service
    tasks: list[Task] = field(default_factory=list)
    changed: float = _NEVER
    ordered: float = _NEVER

    def is_hurried(self, now: float) -> bool:
        return is_hurried(
            settled=is_settled(self.service, self.tasks),
            unchanged=now - self.changed,
            ordered=now - self.ordered,
        )


class Watcher:
    """Calls `publish` with each configuration whose bundle is another than that of the one before.

    `secrets` are contents by name. `own` are the ids of the service and the task that this process is of,
    if it is of one. Times are those of `time.monotonic`.
    """

    def __init__(
        self,
        reader: Reader,
        secrets: Mapping[str, str],
        publish: Callable[[Configuration], None],
        own: tuple[str, str] | None = None,
    ) -> None:
        self._reader = reader
        self._secrets = secrets
        self._publish = publish
        self._own = own
        self._known: dict[str, _Known] = {}
        self._nodes: Sequence[Node] = ()
        self._edge_id = ""
        # Made of the last reading; and the one that was published.
        self._configuration: Configuration | None = None
        self._published: Configuration | None = None
        self._published_at = _NEVER
        self._publishing: asyncio.TimerHandle | None = None
        # Whether anything was found another than it was, since the configuration was made last.
        self._is_new = False
        # What events have told, and when the first of them came that has not been looked into.
        self._changed: set[str] = set()
        self._all_changed = True
        self._told_at = _NEVER
        self._wake = asyncio.Event()
        self._is_listening = False
        # When readings ended, and the seconds that they took: of all, of some; and of all but tasks.
        self._all_at = self._some_at = self._refreshed_at = _NEVER
        self._all_cost = self._some_cost = 0.0
        self._own_ordered = _NEVER
        self._problem = ""
        # When the first of the readings began that have failed since the last good one.
        self._blind_since: float | None = None

    async def run(self) -> None:
        """Until it is cancelled; raises Replaced."""
        listening = asyncio.create_task(self._listen())
        try:
            while True:
                await self._until_due()
                await self._once()
        finally:
            listening.cancel()
            if self._publishing:
                self._publishing.cancel()

    def status(self) -> dict[str, Any]:
        """What there is to say of the readings, as JSON."""
        now = time.monotonic()
        read_at = max(self._all_at, self._some_at)
        shown = self._published
        return {
            "reading": {
                "age": None if read_at == _NEVER else round(now - read_at, 3),
                "cost": {"all": round(self._all_cost, 4), "some": round(self._some_cost, 4)},
                "problem": self._problem,
                "events": self._is_listening,
            },
            "services": len(self._known),
            "in_transition": sum(one.is_hurried(now) for one in self._known.values()),
            "routes": len(shown.routes) if shown else 0,
            "errors": [str(error) for error in shown.errors] if shown else [],
        }

    @property
    def blind_seconds(self) -> float:
        """Since when no reading has succeeded; 0 where the last one did."""
        return 0.0 if self._blind_since is None else time.monotonic() - self._blind_since

    async def _listen(self) -> None:
        while True:
            # What there is to say of an engine that does not answer, the readings say.
            with contextlib.suppress(ReadingError):
                async for event in self._reader.events():
                    self._is_listening = True
                    self._told(event)
            self._is_listening = False
            await asyncio.sleep(_REOPEN_SECONDS)

    def _told(self, event: Event | None) -> None:
        """Note what has changed; None: anything may have."""
        now = time.monotonic()
        if not self._changed and not self._all_changed:
            self._told_at = now
        if event is None or event.kind == "node":
            self._all_changed = True
        else:
            self._changed.add(event.id)
            if self._own and event.id == self._own[0]:
                self._own_ordered = now
        self._wake.set()

    async def _until_due(self) -> None:
        while (seconds := self._due_in(time.monotonic())) > 0:
            self._wake.clear()
            # Not `wait_for`, which before Python 3.12 may lose a cancellation.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wake.wait()

    def _due_in(self, now: float) -> float:
        """Seconds until the next reading."""
        told = self._told_at + _EVENT_SECONDS
        due = [self._all_at + pause(self._all_cost, hurried=False)]
        if self._all_changed:
            apart = CALM_SECONDS if self._problem else pause(self._all_cost, hurried=True)
            due.append(max(told, self._all_at + apart))
        some = self._some_at + pause(self._some_cost, hurried=True)
        if self._changed:
            due.append(max(told, some))
        if self._hurried(now):
            due.append(some)
        return min(due) - now

    def _hurried(self, now: float) -> list[str]:
        """Ids of services whose tasks are to be read often."""
        hurried = [identity for identity, one in self._known.items() if one.is_hurried(now)]
        if self._own and now - self._own_ordered < _OWN_SECONDS:
            hurried.append(self._own[0])
        return hurried

    async def _once(self) -> None:
        began = time.monotonic()
        try:
            await self._read()
        except ReadingError as error:
            self._all_changed = True
            self._all_at = time.monotonic()
            if self._blind_since is None:
                self._blind_since = began
            if str(error) != self._problem:
                say(f"the swarm cannot be read, and the last configuration stays: {error}")
            self._problem = str(error)
            return
        self._blind_since = None
        if self._problem:
            say("the swarm answers again")
            self._problem = ""
        if self._is_new:
            self._is_new = False
            self._conclude()

    async def _read(self) -> None:
        """Read what is due, and note whether anything is another than before.

        That is kept over readings that fail: what they noted already is not found to be new again.
        """
        began = time.monotonic()
        changed, all_changed = self._changed, self._all_changed
        self._changed, self._all_changed = set(), False
        refresh = all_changed or began - self._refreshed_at > _REFRESH_SECONDS
        if refresh:
            services, nodes = await self._reader.services(), await self._reader.nodes()
            edge_id = await self._reader.edge_id()
            self._is_new |= self._note(services, {*self._known}, began if all_changed else None)
            self._is_new |= ([one.raw for one in nodes], edge_id) != (
                [one.raw for one in self._nodes],
                self._edge_id,
            )
            self._nodes, self._edge_id = nodes, edge_id
            self._refreshed_at = began
        elif changed:
            services = await self._reader.services(sorted(changed))
            self._is_new |= self._note(services, changed, began)
        is_all = refresh or began >= self._all_at + pause(self._all_cost, hurried=False)
        ids = [*self._known] if is_all else self._hurried(began)
        found = await self._reader.tasks(ids) if ids else []
        self._is_new |= self._note_tasks(ids, found, began)
        now = time.monotonic()
        if is_all:
            self._all_at, self._all_cost = now, now - began
        self._some_at = now
        if not is_all:
            self._some_cost = now - began

    def _note(self, found: Sequence[Service], asked: set[str], ordered: float | None) -> bool:
        """Note services that were read, of those that were asked for; whether any is another than before."""
        is_new = False
        for identity in asked - {service.id for service in found}:
            is_new |= self._known.pop(identity, None) is not None
        for service in found:
            known = self._known.get(service.id)
            if known is None:
                known = self._known[service.id] = _Known(service)
                is_new = True
            is_new |= known.service.raw != service.raw
            known.service = service
            if ordered is not None:
                known.ordered = ordered
        return is_new

    def _note_tasks(self, ids: Sequence[str], found: Sequence[Task], now: float) -> bool:
        """Note the tasks of these services; whether any is another than before. Raises Replaced."""
        of: dict[str, list[Task]] = {identity: [] for identity in ids}
        for task in found:
            of.setdefault(task.service_id, []).append(task)
        if self._own and self._own[0] in of:
            others = [task.id for task in of.pop(self._own[0])]
            if others and self._own[1] not in others:
                raise Replaced
        is_new = False
        for identity, tasks in of.items():
            known = self._known.get(identity)
            if known is not None and [one.raw for one in known.tasks] != [one.raw for one in tasks]:
                known.tasks, known.changed = tasks, now
                is_new = True
        return is_new

    def _conclude(self) -> None:
        """Make the configuration of what was read, and see to it that it is published."""
        known = self._known.values()
        try:
            made = configure(
                [one.service for one in known],
                [task for one in known for task in one.tasks],
                self._nodes,
                self._edge_id,
                self._secrets,
            )
        except Exception:
            # Whatever somebody has written into a label: what is served goes on being served.
            say(f"no configuration can be made, and the last one stays:\n{traceback.format_exc()}")
            return
        self._configuration = made
        published = self._published
        if published is not None and made.bundle.revision == published.bundle.revision:
            self._publish_now(made)
            return
        now = time.monotonic()
        seconds = hold_back(
            leaves=published is None or loses(published.bundle, made.bundle),
            since_last=now - self._published_at,
        )
        if not seconds:
            self._publish_now(made)
        elif self._publishing is None:
            self._publishing = asyncio.get_running_loop().call_later(seconds, self._publish_held)

    def _publish_held(self) -> None:
        if self._configuration is not None:
            self._publish_now(self._configuration)

    def _publish_now(self, made: Configuration) -> None:
        if self._publishing:
            self._publishing.cancel()
            self._publishing = None
        for line in changes(self._published, made):
            say(line)
        self._published, self._published_at = made, time.monotonic()
        self._publish(made)
