"""A manager's engine as the balancer's controller sees it, at a unix socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

EDGE = "id-edge"
TIME = "2026-01-01T00:00:00.000000000Z"


class SimulatedSwarm:
    """Answers what a manager would; `leaderless` makes it answer as one without the others does, and what
    is in `failing` does so for that path alone.

    `asked` are the paths that were asked for.
    """

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "swarm.sock"
        self.services: dict[str, dict[str, Any]] = {}
        self.tasks: dict[str, dict[str, Any]] = {}
        self.nodes: dict[str, dict[str, Any]] = {}
        self.leaderless = False
        self.failing: set[str] = set()
        self.asked: list[str] = []
        self._listeners: set[asyncio.Queue[dict[str, Any] | None]] = set()
        self._numbers = iter(range(2, 250))
        for name in ("n1", "n2"):
            self.nodes[name] = {
                "ID": name,
                "Spec": {"Role": "worker", "Availability": "active", "Labels": {}},
                "Description": {"Hostname": name, "Platform": {}, "Engine": {}},
                "Status": {"State": "ready", "Addr": "192.0.2.1"},
            }

    # ------------------------------------------------------------ what happens in it

    def service(self, name: str, replicas: int = 0, **labels: str) -> str:
        """Make a service that asks for a route, without any tasks; its id."""
        identity = f"id-{name}"
        self.services[identity] = {
            "ID": identity,
            "CreatedAt": TIME,
            "Spec": {
                "Name": name,
                "Labels": {f"swarmkit.lb.{key}": value for key, value in {"port": "80", **labels}.items()},
                "TaskTemplate": {
                    "ContainerSpec": {"Image": "x"},
                    "Networks": [{"Target": EDGE, "Aliases": []}],
                },
                "Mode": {"Replicated": {"Replicas": replicas}},
            },
        }
        return identity

    def task(self, service: str, slot: int = 1, state: str = "running", node: str = "n1") -> str:
        """Start a task of a service; its id."""
        number = next(self._numbers)
        identity = f"{service}-task-{number}"
        self.tasks[identity] = {
            "ID": identity,
            "ServiceID": service,
            "Slot": slot,
            "NodeID": node,
            "Spec": {"ContainerSpec": {"Image": "x"}},
            "Status": {"State": state, "Timestamp": TIME},
            "DesiredState": "running",
            "CreatedAt": TIME,
            "NetworksAttachments": [{"Network": {"ID": EDGE}, "Addresses": [f"10.0.1.{number}/24"]}],
        }
        return identity

    def tell(self, kind: str, identity: str) -> None:
        """Tell all that listen of a change of a `service` or `node`."""
        self.tell_raw({"Type": kind, "Action": "update", "Actor": {"ID": identity}})

    def tell_raw(self, event: dict[str, Any]) -> None:
        """The same for whatever an engine may say."""
        for listener in self._listeners:
            listener.put_nowait(event)

    def break_events(self) -> None:
        """Break off all streams of events."""
        for listener in self._listeners:
            listener.put_nowait(None)

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    # ------------------------------------------------------------ its API

    @asynccontextmanager
    async def running(self) -> AsyncIterator[SimulatedSwarm]:
        app = web.Application(middlewares=[self._watched])
        for path, handler in (
            ("/services", self._services),
            ("/tasks", self._tasks),
            ("/nodes", self._nodes),
            ("/networks", self._networks),
            ("/events", self._events),
        ):
            app.router.add_get(path, handler)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, max_line_size=65536)
        await runner.setup()
        await web.UnixSite(runner, str(self.socket)).start()
        try:
            yield self
        finally:
            self.break_events()
            await runner.cleanup()
            self.socket.unlink(missing_ok=True)

    @web.middleware
    async def _watched(self, request: web.Request, handler: Any) -> Any:
        self.asked.append(request.path)
        if request.path in self.failing or (self.leaderless and request.path != "/events"):
            message = "rpc error: code = Unknown desc = The swarm does not have a leader."
            return web.json_response({"message": message}, status=503)
        return await handler(request)

    async def _services(self, request: web.Request) -> web.Response:
        ids = _filters(request).get("id")
        found = [one for one in self.services.values() if ids is None or one["ID"] in ids]
        return web.json_response(found)

    async def _tasks(self, request: web.Request) -> web.Response:
        wanted = _filters(request)
        assert wanted["desired-state"] == ["running"]
        return web.json_response(
            [
                one
                for one in self.tasks.values()
                if one["ServiceID"] in wanted["service"] and one["DesiredState"] == "running"
            ]
        )

    async def _nodes(self, _: web.Request) -> web.Response:
        return web.json_response([*self.nodes.values()])

    async def _networks(self, _: web.Request) -> web.Response:
        # The engine's filter finds parts of names.
        return web.json_response(
            [{"Name": "swarmkit-edge-2", "Id": "other"}, {"Name": "swarmkit-edge", "Id": EDGE}]
        )

    async def _events(self, request: web.Request) -> web.StreamResponse:
        assert _filters(request)["type"] == ["service", "node"]
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        answer = web.StreamResponse()
        await answer.prepare(request)
        self._listeners.add(queue)
        try:
            while (event := await queue.get()) is not None:
                await answer.write(json.dumps(event).encode() + b"\n")
        finally:
            self._listeners.discard(queue)
        return answer


def _filters(request: web.Request) -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads(request.query.get("filters", "{}"))
    return found
