"""The filter before the engine: reading passes, and nothing else, however it is put."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarmkit.balancer.filter import TARGET_BYTES, refusal, serve

ALLOWED = [
    "/_ping",
    "/version",
    "/info",
    "/events",
    "/nodes",
    "/services",
    "/tasks",
    "/networks",
    "/networks/swarmkit-edge",
    "/v1.41/tasks",
    "/v1.51/networks/0a1b.c",
    "/tasks?filters=%7B%22service%22%3A%5B%22a%22%5D%7D",
]
REFUSED = [
    "/",
    "",
    "*",
    "/containers/json",
    "/v1.41/containers/json",
    "/secrets",
    "/configs",
    "/swarm",
    "/tasks/",
    "/tasks/abc",
    "/tasks/../containers/json",
    "/networks/..",
    "/networks/../containers/json",
    "/networks/a/../../containers/json",
    "/networks/%2e%2e/containers/json",
    "/networks/a%2fb",
    "/networks/a/b",
    "//tasks",
    "/tasks//",
    "/./tasks",
    "/v1.41/../tasks",
    "/v1.41//tasks",
    "/v2/tasks",
    "/v1.41/v1.41/tasks",
    "/tasks;x",
    "/tasks#x",
    "/tasks\n",
    "/Tasks",
    "http://engine/tasks",
    "http://engine/containers/json",
    "engine:2375",
    "/tasks?a=\x00",
    "/tasks?a=b c",
    "/tasks?a=b\r\nX: y",
    "/eventsx",
    "/grpc",
    "/session",
]


@pytest.mark.parametrize("target", ALLOWED)
def test_reading_what_the_balancer_needs_passes(target: str) -> None:
    assert refusal("GET", target, frozenset({"host", "accept"})) == ""


@pytest.mark.parametrize("target", REFUSED)
def test_other_paths_are_refused(target: str) -> None:
    assert "path" in refusal("GET", target, frozenset())


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "CONNECT", "PATCH", "get", ""]
)
def test_other_methods_are_refused(method: str) -> None:
    assert "not allowed" in refusal(method, "/tasks", frozenset())


@pytest.mark.parametrize(
    "header", ["upgrade", "http2-settings", "content-length", "transfer-encoding", "expect"]
)
def test_bodies_and_upgrades_are_refused(header: str) -> None:
    assert refusal("GET", "/tasks", frozenset({"host", header}))


# ---------------------------------------------------------------- whole, before an engine that takes notes

# All that the engine may ever get: one request, written by the filter.
_WRITTEN = re.compile(
    rb"GET (/v1\.[0-9]{1,3})?"
    rb"/(_ping|version|info|events|nodes|services|tasks|networks(/[A-Za-z0-9][A-Za-z0-9_.-]*)?)"
    rb"(\?[A-Za-z0-9%&=._~+,:-]*)? HTTP/1\.1\r\n"
    rb"Host: engine\r\nAccept: \*/\*\r\nAccept-Encoding: [a-z, ]*\r\nUser-Agent: [^\r\n]*\r\n"
    rb"(Connection: close\r\n)?\r\n"
)


class Engine:
    """Takes down what each connection brings, and gives the same answer to all of them."""

    def __init__(self, socket: Path, answer: bytes) -> None:
        self.socket = socket
        self.answer = answer
        self.got: list[bytes] = []
        self.open = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(self.got)
        self.got.append(b"")
        self.open += 1
        try:
            while b"\r\n\r\n" not in self.got[number]:
                data = await reader.read(65536)
                if not data:
                    return
                self.got[number] += data
            writer.write(self.answer)
            await writer.drain()
            while data := await reader.read(65536):
                self.got[number] += data
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            writer.close()


JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]"
STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'8\r\n{"a":1}\n\r\n'
)


@asynccontextmanager
async def filtered(folder: Path, answer: bytes = JSON) -> AsyncIterator[tuple[Engine, Path]]:
    engine = Engine(folder / "docker.sock", answer)
    server = await asyncio.start_unix_server(engine.handle, str(engine.socket))
    runner = await serve(engine.socket, folder / "filter.sock")
    try:
        yield engine, folder / "filter.sock"
    finally:
        await runner.cleanup()
        server.close()
        for file in folder.glob("*.sock"):
            file.unlink(missing_ok=True)


async def send(socket: Path, request: bytes, seconds: float = 10) -> bytes:
    """What comes back for these bytes, up to the end; nothing where it has not come within `seconds`."""
    reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.read(), seconds)
    except (ConnectionError, TimeoutError):
        return b""
    finally:
        writer.close()


def request(target: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join((f"{method} {target} HTTP/1.1", "Host: x", *headers, "", "")).encode("latin-1")


def test_an_answer_of_the_engine_comes_through(tmp_path: Path) -> None:
    async def run() -> None:
        async with filtered(tmp_path) as (engine, socket):
            answer = await send(socket, request("/v1.41/tasks?filters=%7B%7D", "X-Registry-Auth: secret"))
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert answer.endswith(b"\r\n\r\n2\r\n[]\r\n0\r\n\r\n")
            (got,) = engine.got
            assert _WRITTEN.fullmatch(got), got
            assert b"GET /v1.41/tasks?filters=%7B%7D " in got

    asyncio.run(run())


def test_a_refusal_says_why_and_never_gets_to_the_engine(tmp_path: Path) -> None:
    async def run() -> None:
        async with filtered(tmp_path) as (engine, socket):
            answer = await send(socket, request("/containers/create", method="POST"))
            assert answer.startswith(b"HTTP/1.1 403 ")
            assert b'"message": "POST is not allowed here' in answer
            assert engine.got == []

    asyncio.run(run())


def test_a_second_request_on_a_connection_is_not_read(tmp_path: Path) -> None:
    async def run() -> None:
        async with filtered(tmp_path) as (engine, socket):
            answer = await send(socket, request("/tasks") + request("/nodes"))
            assert answer.count(b"HTTP/1.1 ") == 1
            assert len(engine.got) == 1

    asyncio.run(run())


def test_the_socket_is_for_its_user_and_group(tmp_path: Path) -> None:
    async def run() -> None:
        async with filtered(tmp_path) as (_, socket):
            assert socket.stat().st_mode & 0o777 == 0o660

    asyncio.run(run())


def test_an_engine_that_is_away_is_said(tmp_path: Path) -> None:
    async def run() -> None:
        async with filtered(tmp_path) as (engine, socket):
            engine.socket.unlink()
            answer = await send(socket, request("/tasks"))
            assert answer.startswith(b"HTTP/1.1 502 ")

    asyncio.run(run())


def test_events_stream_and_end_with_whoever_listens(tmp_path: Path) -> None:
    async def run() -> None:
        async with filtered(tmp_path, STREAM) as (engine, socket):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            writer.write(request("/events"))
            found = await asyncio.wait_for(reader.readuntil(b'{"a":1}\n'), 10)
            assert b" 200 " in found
            assert engine.open == 1
            writer.close()
            for _ in range(1000):
                if engine.open == 0:
                    return
                await asyncio.sleep(0.005)
            raise AssertionError("the engine is still listened to")

    asyncio.run(run())


def test_an_answer_that_breaks_off_does_not_look_whole(tmp_path: Path) -> None:
    async def run() -> None:
        broken = STREAM + b"5\r\nab"
        async with filtered(tmp_path, broken) as (_, socket):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            writer.write(request("/tasks"))
            await asyncio.wait_for(reader.readuntil(b'{"a":1}\n'), 10)
            engine_side = [task for task in asyncio.all_tasks() if "Engine.handle" in repr(task)]
            for task in engine_side:
                task.cancel()
            rest = await asyncio.wait_for(reader.read(), 10)
            assert not rest.endswith(b"0\r\n\r\n")
            writer.close()

    asyncio.run(run())


def test_a_target_for_a_thousand_services_passes(tmp_path: Path) -> None:
    async def run() -> None:
        async with filtered(tmp_path) as (engine, socket):
            answer = await send(socket, request("/tasks?filters=" + "a" * (TARGET_BYTES - 100)))
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert len(engine.got) == 1

    asyncio.run(run())


# Pieces of requests, good and bad, in any order; and plain bytes.
_PIECES = st.sampled_from(
    [
        *(target.encode("latin-1") for target in (*ALLOWED, *REFUSED)),
        *(
            b"GET ",
            b"POST ",
            b"DELETE ",
            b"get ",
            b"G\x00T ",
            b"PRI * ",
            b" HTTP/1.1",
            b" HTTP/1.0",
            b" HTTP/0.9",
        ),
        *(b" HTTP/2.0", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b"\x0b", b":", b"0\r\n\r\n"),
        *(b"Host: x\r\n", b"Connection: keep-alive\r\n", b"Connection: upgrade\r\n", b"Upgrade: tcp\r\n"),
        *(
            b"Content-Length: 4\r\n",
            b"Content-Length: 0\r\n",
            b"Content-Length: -1\r\n",
            b"Content-Length: 4, 5\r\n",
        ),
        *(
            b"Transfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: xchunked\r\n",
            b"Transfer-Encoding\r\n : chunked\r\n",
        ),
        *(
            b"Expect: 100-continue\r\n",
            b"X: a\r\n folded\r\n",
            b"4\r\nabcd\r\n",
            b"%2e%2e/",
            b"../",
            b"//",
            b"\xff",
        ),
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
    ]
)
_WHOLE = st.builds(
    lambda method, target, headers, rest: request(target, *headers, method=method) + rest,
    st.sampled_from(["GET", "GET", "GET", "POST", "HEAD"]),
    st.sampled_from([*ALLOWED, *REFUSED]),
    st.lists(
        st.sampled_from(
            ["Content-Length: 2", "Transfer-Encoding: chunked", "Upgrade: h2c", "Connection: close", "A: b"]
        ),
        max_size=3,
    ),
    st.lists(_PIECES, max_size=6).map(b"".join),
)
_BYTES = st.one_of(st.lists(st.one_of(_PIECES, st.binary(max_size=8)), max_size=12).map(b"".join), _WHOLE)


def test_no_bytes_make_it_say_anything_else_to_the_engine(tmp_path: Path) -> None:
    async def run(some: bytes) -> None:
        async with filtered(tmp_path) as (engine, socket):
            # Half a request waits for the rest, and nothing comes back.
            await send(socket, some, 0.02)
            assert all(_WRITTEN.fullmatch(got) for got in engine.got if got), engine.got
            assert len(engine.got) <= 1

    @settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(_BYTES)
    def never(some: bytes) -> None:
        asyncio.run(run(some))

    never()


@settings(deadline=None)
@given(st.text(max_size=40), st.text(alphabet="/.%?&=tasknework12vE;#\\\r\n ", max_size=40))
def test_what_passes_names_one_place_and_no_other(method: str, tail: str) -> None:
    for target in (tail, f"/{tail}", f"/tasks{tail}", f"/networks/{tail}", f"/v1.41/{tail}"):
        if refusal("GET", target, frozenset()):
            continue
        path = target.partition("?")[0]
        assert "%" not in path
        assert ".." not in path.split("/")
        assert "//" not in path
        assert method == "GET" or refusal(method, target, frozenset())
