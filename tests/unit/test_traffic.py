"""The load of the loss test sees what happens to its requests, and excuses only what nobody can save."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from benchmarks.traffic import client
from benchmarks.traffic.client import MIX, Load, Run, percentile
from benchmarks.traffic.operations import is_excused

Handler = Callable[[bytes, bytes, asyncio.StreamWriter], Awaitable[bool]]


def answer(head: bytes, count: int = 1, status: str = "200 OK", **more: Any) -> bytes:
    identity = re.search(rb"id=(\S+)", head)
    assert identity
    body = json.dumps({"id": identity[1].decode(), "count": count, **more}).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def sent(
    handler: Handler, requests: int = len(MIX), *, resend: bool = False, phase: str = ""
) -> dict[str, Any]:
    """The report of a load that was sent to a server whose `handler` writes answers; it says whether the
    connection stays."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"Content-Length: (\d+)", head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                if not await handler(head, body, writer):
                    break
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            pass
        finally:
            writer.close()

    async def run() -> dict[str, Any]:
        async with await asyncio.start_server(connection, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            load = Run(Load(f"http://127.0.0.1:{port}", 1000, requests, resend=resend), "x")
            load.phase = phase or load.phase
            await load.run()
            return load.report()

    return asyncio.run(run())


async def fine(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
    writer.write(answer(head))
    return b"Connection: keep-alive" in head


def test_all_is_answered_and_most_of_it_on_connections_that_are_used_again() -> None:
    bodies: dict[str, set[int]] = {"GET": set(), "POST": set()}

    async def handler(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        bodies[head.split()[0].decode()].add(len(body))
        return await fine(head, body, writer)

    report = sent(handler, 100, phase="scale")
    assert (report["requests"], report["failed"]) == (100, 0)
    assert report["on used connections"] > 0
    assert bodies == {"GET": {0}, "POST": {200, 4_000, 64_000}}
    assert set(report["phases"]) == {"scale"}
    assert report["phases"]["scale"]["p99"] > 0


@pytest.mark.parametrize(
    ("written", "kind", "stage"),
    [
        (b"", "closed", "before any answer byte"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "closed", "during the answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", "closed", "during the answer"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "status 502", "during the answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "another answer", "during the answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{", "closed", "during the answer"),
    ],
)
def test_what_is_no_whole_answer_has_failed_and_is_told(written: bytes, kind: str, stage: str) -> None:
    async def handler(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(written)
        return False

    report = sent(handler, 1)
    (failure,) = report["failures"]
    assert (failure["kind"], failure["stage"], failure["method"]) == (kind, stage, "GET")
    assert report["failed"] == 1


def test_an_answer_in_chunks_is_an_answer() -> None:
    async def handler(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        text = answer(head).partition(b"\r\n\r\n")[2]
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in (text[:5], text[5:]):
            writer.write(b"%x\r\n%s\r\n" % (len(part), part))
        writer.write(b"0\r\n\r\n")
        return True

    assert sent(handler, 10)["failed"] == 0


def test_a_reset_and_a_refused_connection_have_failed() -> None:
    async def handler(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.transport.abort()
        return False

    assert sent(handler, 1)["failures"][0]["stage"] == "before any answer byte"

    async def refused() -> dict[str, Any]:
        load = Run(Load("http://127.0.0.1:1", 1000, 1), "x")
        await load.run()
        return load.report()

    assert asyncio.run(refused())["kinds"] == {"refused": 1}


@pytest.mark.parametrize(
    ("written", "stage"), [(b"", "before any answer byte"), (b"HTTP/1.1 200 OK", "during the answer")]
)
def test_no_answer_in_time_has_failed_where_it_began(
    monkeypatch: pytest.MonkeyPatch, written: bytes, stage: str
) -> None:
    monkeypatch.setattr(client, "ANSWER_SECONDS", 0.05)

    async def handler(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(written)
        await asyncio.sleep(10)
        return False

    report = sent(handler, 1, phase="drain")
    assert report["kinds"] == {"no answer in time": 1}
    assert report["failures"][0]["stage"] == stage
    assert report["phases"]["drain"]["failed"] == 1


def test_a_post_that_was_processed_before_is_a_duplicate() -> None:
    async def handler(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(answer(head, count=2))
        return True

    report = sent(handler, 10)
    assert report["kinds"] == {"duplicate": sum(kind.method == "POST" for kind in MIX[:10])}


def test_a_connection_that_was_closed_while_idle_is_not_used_and_no_failure() -> None:
    async def handler(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        # Says nothing of the connection, and closes it.
        writer.write(answer(head))
        return False

    report = sent(handler, 100)
    # A close that meets the next request on its way cannot be told from a failure, and is one.
    assert report["failed"] == sum(one["reused"] for one in report["failures"])
    assert report["closed while idle"] > 0


def test_only_a_get_on_a_used_connection_is_sent_again_and_only_if_asked_for() -> None:
    async def handler(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        if writer in used:
            return False
        used.add(writer)
        return await fine(head, body, writer)

    used: set[asyncio.StreamWriter] = set()
    strict = sent(handler, 100)
    assert {one["reused"] for one in strict["failures"]} == {True}
    assert {one["method"] for one in strict["failures"]} == {"GET", "POST"}
    assert strict["resent"] == 0
    lenient = sent(handler, 100, resend=True)
    assert lenient["resent"] > 0
    assert {one["method"] for one in lenient["failures"]} == {"POST"}


def test_a_load_that_is_too_much_for_a_shared_machine_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 1000 requests a second"):
        client.Client(Load("http://127.0.0.1:1", 100_000, 1))


@pytest.mark.parametrize(("part", "value"), [(50, 5), (90, 9), (99, 10), (100, 10), (1, 1)])
def test_percentiles_are_values_that_occurred(part: float, value: float) -> None:
    assert percentile([float(number) for number in range(1, 11)], part) == value


LINE = '[21/Nov/2026:18:00:00 +0000] "POST /echo?id=x-1 HTTP/1.1" 502 150 0.1s from 127.0.0.1 to'


@pytest.mark.parametrize(
    ("method", "stage", "kind", "sent_to", "excused"),
    [
        ("GET", "during the answer", "closed", "10.0.1.5:80", True),
        # The balancer has answered: it had all it needed to ask another backend.
        ("GET", "during the answer", "status 502", "10.0.1.5:80", False),
        ("GET", "before any answer byte", "reset", "10.0.1.5:80", False),
        ("GET", "connect", "refused", "10.0.1.5:80", False),
        ("POST", "during the answer", "status 502", "10.0.1.5:80", True),
        # To one that lives, whatever was tried before.
        ("POST", "during the answer", "status 502", "10.0.1.5:80, 10.0.1.6:80", False),
        ("POST", "during the answer", "status 502", "-", False),
    ],
)
def test_only_what_nobody_can_save_is_excused(
    method: str, stage: str, kind: str, sent_to: str, excused: bool
) -> None:
    failure = {"method": method, "stage": stage, "kind": kind, "log": f"{LINE} {sent_to}"}
    assert is_excused(failure, {"10.0.1.5"}) is excused


def test_a_post_of_which_the_balancer_s_log_says_nothing_is_not_excused() -> None:
    failure = {"method": "POST", "stage": "before any answer byte", "kind": "closed", "log": ""}
    assert not is_excused(failure, {"10.0.1.5"})
