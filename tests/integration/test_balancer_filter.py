"""The filter before a real engine: what comes through is what the engine says, and nothing gets past it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from aiohttp import ClientSession, ClientTimeout, UnixConnector
from yarl import URL

from swarmkit.balancer.filter import ENGINE, serve

pytestmark = pytest.mark.usefixtures("docker_engine")


async def ask(socket: Path, path: str, method: str = "GET", **options: Any) -> tuple[int, Any]:
    async with (
        ClientSession(connector=UnixConnector(str(socket)), timeout=ClientTimeout(total=20)) as session,
        session.request(method, URL(f"http://engine{path}", encoded=True), **options) as answer,
    ):
        text = await answer.text()
        said = json.loads(text) if text.startswith(("{", "[")) else text
        # The engine lists networks in another order each time.
        return answer.status, sorted(said, key=lambda one: one["Id"]) if isinstance(said, list) else said


async def through(folder: Path, path: str, method: str = "GET", **options: Any) -> tuple[int, Any]:
    runner = await serve(ENGINE, folder / "filter.sock")
    try:
        return await ask(folder / "filter.sock", path, method, **options)
    finally:
        await runner.cleanup()


def test_what_the_engine_says_comes_through(tmp_path: Path) -> None:
    async def run() -> None:
        for path in ("/version", "/v1.41/networks", "/_ping"):
            assert await through(tmp_path, path) == await ask(ENGINE, path)

    asyncio.run(run())


def test_filters_come_through(tmp_path: Path) -> None:
    wanted = urlencode({"filters": json.dumps({"name": ["^bridge$"]})})
    status, found = asyncio.run(through(tmp_path, f"/networks?{wanted}"))
    assert (status, [one["Name"] for one in found]) == (200, ["bridge"])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/containers/create"),
        ("POST", "/swarm/leave"),
        ("DELETE", "/networks/bridge"),
        ("GET", "/containers/json"),
        ("GET", "/secrets"),
        ("GET", "/configs"),
        ("GET", "/swarm/unlockkey"),
    ],
)
def test_all_else_is_refused(tmp_path: Path, method: str, path: str) -> None:
    status, said = asyncio.run(through(tmp_path, path, method))
    assert status == 403
    assert said["message"]


def test_events_come_as_they_happen(tmp_path: Path) -> None:
    async def run() -> None:
        runner = await serve(ENGINE, tmp_path / "filter.sock")
        name = "swarmkit-test-events"
        async with ClientSession(connector=UnixConnector(str(tmp_path / "filter.sock"))) as session:
            wanted = urlencode({"filters": json.dumps({"type": ["volume"], "volume": [name]})})
            async with session.get(URL(f"http://engine/events?{wanted}", encoded=True)) as answer:
                assert answer.status == 200
                made, _ = await ask(ENGINE, "/volumes/create", "POST", json={"Name": name})
                assert made == 201
                try:
                    line = await asyncio.wait_for(answer.content.readline(), 10)
                finally:
                    await ask(ENGINE, f"/volumes/{name}", "DELETE")
                assert json.loads(line)["Action"] == "create"
        await runner.cleanup()

    asyncio.run(run())
