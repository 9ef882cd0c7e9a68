"""The loss test's backend keeps what such a server promises, so that what is lost is not its fault."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import socket
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks.traffic import site

FILE = Path(site.__file__).parent / "stack/image/backend.py"


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The backend's program, on ports of its own, and less slow."""
    spec = importlib.util.spec_from_file_location("backend", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        ports = {"PORT": one.getsockname()[1], "LEDGER_PORT": other.getsockname()[1]}
    for name, value in {**ports, "LEDGER": "127.0.0.1", "PAUSE_SECONDS": 0.3}.items():
        monkeypatch.setattr(module, name, value)
    return module


async def opened(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    for _ in range(200):
        try:
            return await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)
    raise AssertionError(f"nothing listens on {port}")


async def asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: str, body: str = "") -> Any:
    writer.write(f"{line} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = int(head.partition("Content-Length: ")[2].partition("\r\n")[0])
    return head.split(" ")[1], json.loads(await reader.readexactly(length))


def test_every_processed_post_is_counted_over_all_tasks(backend: ModuleType) -> None:
    async def run() -> list[Any]:
        keeping = asyncio.create_task(backend.ledger())
        await opened(backend.LEDGER_PORT)
        serving = asyncio.create_task(backend.Server().run())
        connection = await opened(backend.PORT)
        found = [await asked(*connection, "GET /healthz")]
        for line, body in (("POST /echo?id=a", "a.."), ("POST /echo?id=a", "a"), ("POST /echo?id=b", "x")):
            found.append(await asked(*connection, line, body))
        os.kill(os.getpid(), signal.SIGTERM)
        await serving
        keeping.cancel()
        return found

    healthy, first, again, other = asyncio.run(run())
    assert healthy[0] == "200"
    assert (first[0], first[1]["count"], again[1]["count"]) == ("200", 1, 2)
    # What was not sent as it was is no success.
    assert other[0] == "400"


def test_without_its_ledger_it_is_not_healthy(backend: ModuleType) -> None:
    async def run() -> Any:
        serving = asyncio.create_task(backend.Server().run())
        found = await asked(*await opened(backend.PORT), "GET /healthz")
        os.kill(os.getpid(), signal.SIGTERM)
        await serving
        return found

    assert asyncio.run(run())[0] == "503"


def test_told_to_stop_it_finishes_what_is_open_and_takes_nothing_new(backend: ModuleType) -> None:
    async def run() -> None:
        server = backend.Server()
        serving = asyncio.create_task(server.run())
        idle, busy = await opened(backend.PORT), await opened(backend.PORT)
        await asked(*idle, "GET /")
        answer = asyncio.create_task(asked(*busy, "GET /slow?id=1"))
        while not server.busy:
            await asyncio.sleep(0.005)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await idle[0].read() == b"", "a connection without a request is closed"
        with pytest.raises(OSError, match="Connect"):
            await asyncio.open_connection("127.0.0.1", backend.PORT)
        assert (await answer)[1]["id"] == "1"
        assert await busy[0].read() == b""
        await serving

    asyncio.run(run())
