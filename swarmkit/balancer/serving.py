"""The controller's mouth: gives proxies the newest bundle as soon as there is one, and tells of itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from swarmkit.balancer.bundle import Bundle
from swarmkit.balancer.identity import PROXY_NAME
from swarmkit.balancer.log import say

# How long a proxy's question stays open where there is nothing new.
POLL_SECONDS = 25.0
# One that has not been able to read the swarm for so long knows nothing of it: proxies are told, so that they
# ask another one, or go by Docker's DNS.
BLIND_SECONDS = 20.0
# Then Swarm is to make another one, elsewhere.
_SICK_SECONDS = 60.0
# How soon open questions end where that comes to be so.
_LOOK_SECONDS = 1.0
# A proxy that has not asked for so long is on a node that has gone.
_FORGET_SECONDS = 600.0
# The most of a proxy's words that is kept.
_WORDS = 1000


@dataclass
class _Proxy:
    """What a proxy said when it asked last, at that time by `time.monotonic`."""

    revision: str
    asked: float
    refused: str = ""
    error: str = ""


class Server:
    """Holds the newest bundle, and the questions of those that have it already.

    `blind_seconds` says for how long the swarm could not be read that the bundle is made of.
    """

    def __init__(self, blind_seconds: Callable[[], float]) -> None:
        self._blind_seconds = blind_seconds
        self._revision = ""
        self._answer = b""
        self._is_new = asyncio.Event()
        self._proxies: dict[str, _Proxy] = {}

    @property
    def revision(self) -> str:
        """That of the bundle it holds; empty before the first."""
        return self._revision

    def publish(self, bundle: Bundle) -> None:
        """Answer all open questions with this bundle, where it is another."""
        if bundle.revision == self._revision:
            return
        self._answer = json.dumps({**json.loads(bundle.to_json()), "revision": bundle.revision}).encode()
        self._revision = bundle.revision
        self._is_new.set()
        self._is_new = asyncio.Event()

    async def first(self) -> None:
        """Ends when there is a bundle."""
        if not self._revision:
            await self._is_new.wait()

    def status(self) -> dict[str, Any]:
        """What there is to say of the proxies, as JSON; ages in seconds."""
        now = time.monotonic()
        return {
            "revision": self._revision,
            "proxies": {
                node: {
                    "revision": proxy.revision,
                    "age": round(now - proxy.asked, 1),
                    "refused": proxy.refused,
                    "error": proxy.error,
                }
                for node, proxy in sorted(self._proxies.items())
                if now - proxy.asked < _FORGET_SECONDS
            },
        }

    async def _bundle(self, request: web.Request) -> web.StreamResponse:
        if _common_name(request) != PROXY_NAME:
            return web.json_response({"message": "this is for the balancer's proxies"}, status=403)
        said = request.query
        have, refused = said.get("have", ""), said.get("refused", "")
        self._note(said.get("node", "")[:_WORDS], have[:64], refused[:64], said.get("error", "")[:_WORDS])
        ends = time.monotonic() + POLL_SECONDS
        while True:
            if self._blind_seconds() >= BLIND_SECONDS:
                return web.json_response({"message": "the swarm cannot be read"}, status=503)
            if self._revision and self._revision not in (have, refused):
                break
            left = ends - time.monotonic()
            if left <= 0:
                return web.Response(status=204)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, _LOOK_SECONDS)):
                    await self._is_new.wait()
        return web.Response(body=self._answer, content_type="application/json")

    def _note(self, node: str, have: str, refused: str, error: str) -> None:
        now = time.monotonic()
        before = self._proxies.get(node)
        self._proxies[node] = _Proxy(have, now, refused, error)
        if refused and (before is None or before.refused != refused):
            say(f"{node}: refuses configuration {refused} and keeps {have or 'none'}: {error}")
        for name in [name for name, one in self._proxies.items() if now - one.asked > _FORGET_SECONDS]:
            del self._proxies[name]

    async def serve(self, port: int, context: ssl.SSLContext) -> web.AppRunner:
        """Begin to answer proxies; to be cleaned up by the caller."""
        app = web.Application()
        app.router.add_get("/v1/bundle", self._bundle)
        # Who has gone away waits for nothing; at the end, a proxy asks whoever comes next.
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, port=port, ssl_context=context).start()
        return runner

    async def tell(self, socket: Path, more: Callable[[], Mapping[str, Any]]) -> web.AppRunner:
        """Begin to answer at a socket of the container: `/status`, and `/healthz`.

        That is 200 once there is a bundle, and as long as the swarm can be read.
        """

        async def status(_: web.Request) -> web.Response:
            return web.json_response({**self.status(), **more()})

        async def healthz(_: web.Request) -> web.Response:
            is_well = self._revision and self._blind_seconds() < _SICK_SECONDS
            return web.Response(status=200 if is_well else 503)

        app = web.Application()
        app.router.add_get("/status", status)
        app.router.add_get("/healthz", healthz)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        # It holds no secret; whoever is in the container may ask.
        before = os.umask(0o111)
        try:
            await web.UnixSite(runner, str(socket)).start()
        finally:
            os.umask(before)
        return runner


def _common_name(request: web.Request) -> str:
    """That of the certificate that the client has shown."""
    transport = request.transport
    shown = transport.get_extra_info("peercert") if transport is not None else None
    for part in (shown or {}).get("subject", ()):
        for key, value in part:
            if key == "commonName":
                return str(value)
    return ""
