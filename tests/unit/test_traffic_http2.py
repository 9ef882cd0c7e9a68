"""The load by HTTP/2 follows a server that ends its connections; what that did not process is sent again."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded
from hyperframe.frame import GoAwayFrame

from benchmarks.traffic.connections import Answer, Broken, Request, Server
from benchmarks.traffic.http2 import Multiplexed

GET = Request("GET", "/")
POST = Request("POST", "/", body=b"x" * 200_000)


class Backend:
    """Answers with the length of the body. It processes so many requests on a connection and says then that
    it ends, before it answers the last of them; or it says nothing and just closes."""

    def __init__(self, processes: int = 1000, *, says: bool = True) -> None:
        self.last = 2 * processes - 1
        self.says = says
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        state = H2Connection(H2Configuration(client_side=False))
        state.initiate_connection()
        lengths: dict[int, int] = {}
        under_way: set[int] = set()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while data := await reader.read(65536):
                for event in state.receive_data(data):
                    if isinstance(event, RequestReceived):
                        lengths[event.stream_id] = 0
                        under_way.add(event.stream_id)
                    elif isinstance(event, DataReceived):
                        lengths[event.stream_id] += len(event.data or b"")
                        state.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
                    elif isinstance(event, StreamEnded) and event.stream_id <= self.last:
                        under_way.discard(event.stream_id)
                        state.send_headers(event.stream_id, [(":status", "200")])
                        text = str(lengths[event.stream_id]).encode()
                        state.send_data(event.stream_id, text, end_stream=True)
                ends = max(lengths, default=0) >= self.last and not any(one <= self.last for one in under_way)
                if ends and not self.says:
                    break
                if ends:
                    writer.write(GoAwayFrame(0, last_stream_id=self.last).serialize())
                writer.write(state.data_to_send())
                await writer.drain()
                if ends:
                    break
        writer.close()


def asked(backend: Backend, *requests: Request, seconds: float = 5) -> list[Answer | BaseException]:
    async def run() -> list[Answer | BaseException]:
        async with await asyncio.start_server(backend, "127.0.0.1", 0) as server:
            way = Multiplexed(Server(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
            deadline = asyncio.get_running_loop().time() + seconds
            found = await asyncio.gather(
                *(way.ask(one, deadline) for one in requests), return_exceptions=True
            )
            way.close()
            return found

    return asyncio.run(run())


def test_all_requests_share_one_connection_and_large_bodies_wait_for_room() -> None:
    backend = Backend()
    found = asked(backend, GET, POST, GET, POST)
    assert [one.body for one in found if isinstance(one, Answer)] == [b"0", b"200000", b"0", b"200000"]
    assert backend.connections == 1


@pytest.mark.parametrize("requests", [(GET,) * 20, (POST, GET) * 10])
def test_what_a_server_that_ends_has_begun_is_answered_and_the_rest_is_sent_again(
    requests: tuple[Request, ...],
) -> None:
    backend = Backend(processes=7)
    found = asked(backend, *requests)
    assert [one.body for one in found if isinstance(one, Answer)] == [
        str(len(one.body)).encode() for one in requests
    ]
    assert backend.connections == 3
    assert any(one.resent for one in found if isinstance(one, Answer))


def test_a_connection_that_is_closed_without_a_word_fails_what_was_under_way() -> None:
    (found,) = asked(Backend(processes=1, says=False), POST)
    assert isinstance(found, Broken)
    assert (found.kind, found.stage) == ("closed", "before any answer byte")


def test_a_server_that_does_not_answer_fails_the_request_in_time() -> None:
    (found,) = asked(Backend(processes=0), GET, seconds=0.2)
    assert isinstance(found, Broken)
