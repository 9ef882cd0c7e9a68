"""What the controller reads of the swarm, through the filter."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from aiohttp import ClientError, ClientSession, ClientTimeout, UnixConnector
from yarl import URL

from swarmkit.balancer.routes import is_routed
from swarmkit.names import EDGE_NETWORK
from swarmkit.swarm import Node, Service, Task, filters

# An engine that has no leader to ask answers within some seconds (moby/swarmkit, manager/raftproxy).
_SECONDS = 15.0
# As many ids as fit into the first line of a request.
_IDS = 1000


class ReadingError(Exception):
    """The swarm could not be read; the message says why."""


@dataclass(frozen=True)
class Event:
    """A service or a node has changed."""

    kind: str
    id: str


class Reader:
    """Reads through the socket of the filter; to be closed. Its methods raise ReadingError."""

    def __init__(self, socket: Path) -> None:
        # The filter takes one request a connection.
        self._session = ClientSession(connector=UnixConnector(str(socket), force_close=True, limit=0))

    async def close(self) -> None:
        """Give back what it holds."""
        await self._session.close()

    async def services(self, ids: Sequence[str] | None = None) -> list[Service]:
        """The services that ask for routes, of these ids or all."""
        raw = await self._listed("/services", ids)
        return [service for service in map(Service.of, raw) if is_routed(service)]

    async def tasks(self, service_ids: Sequence[str]) -> list[Task]:
        """The tasks of these services that are to run."""
        found: list[Task] = []
        for start in range(0, len(service_ids), _IDS):
            wanted = filters(service=service_ids[start : start + _IDS], **{"desired-state": "running"})
            found += map(Task.of, await self._get("/tasks", wanted))
        return found

    async def nodes(self) -> list[Node]:
        """All nodes."""
        return [Node.of(raw) for raw in await self._get("/nodes")]

    async def edge_id(self) -> str:
        """The id of the network that joins the balancer and the services behind it."""
        for raw in await self._get("/networks", filters(name=EDGE_NETWORK, scope="swarm")):
            # The engine's filter finds parts of names, too.
            if raw["Name"] == EDGE_NETWORK:
                return str(raw["Id"])
        raise ReadingError(f"there is no network {EDGE_NETWORK}")

    async def events(self) -> AsyncGenerator[Event | None, None]:
        """Changes of services and nodes as they happen; first None, once none of them can be missed."""
        wanted = filters(type=("service", "node"), scope="swarm")
        try:
            async with self._session.get(
                _url("/events", wanted), timeout=ClientTimeout(total=None)
            ) as answer:
                if answer.status != 200:
                    raise ReadingError(_said(await answer.read(), answer.status))
                yield None
                async for line in answer.content:
                    raw = json.loads(line)
                    yield Event(raw["Type"], raw["Actor"]["ID"])
        except (ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError) as error:
            raise ReadingError(_why(error)) from None

    async def _listed(self, path: str, ids: Sequence[str] | None) -> list[Any]:
        if ids is None:
            return list(await self._get(path))
        # The engine takes the beginning of an id for it.
        found = await self._get(path, filters(id=ids))
        return [raw for raw in found if raw["ID"] in ids]

    async def _get(self, path: str, params: dict[str, str] | None = None) -> Any:
        try:
            async with self._session.get(_url(path, params), timeout=ClientTimeout(total=_SECONDS)) as answer:
                data = await answer.read()
                if answer.status != 200:
                    raise ReadingError(_said(data, answer.status))
                return json.loads(data)
        except (ClientError, TimeoutError, OSError, ValueError) as error:
            raise ReadingError(_why(error)) from None


def _url(path: str, params: dict[str, str] | None) -> URL:
    # Every character that may have a meaning is written as its number: the filter takes no other form.
    return URL(f"http://engine{path}{f'?{urlencode(params)}' if params else ''}", encoded=True)


def _said(data: bytes, status: int) -> str:
    try:
        return str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {status}"


def _why(error: BaseException) -> str:
    return f"the engine does not answer: {str(error) or type(error).__name__}"
