"""Requests by HTTP/2 as browsers send them: all on one connection, until the server says that it ends."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from hyperframe.frame import Frame, GoAwayFrame

from benchmarks.traffic.connections import BEFORE, DURING, NO_ANSWER, Answer, Broken, Request, Server

_READ = 65536


class _NotProcessed(Exception):
    """The server has said that it did not look at the request."""


class _State(H2Connection):
    """The protocol's state. A server that ends a connection still answers what it has begun (RFC 9113,
    6.8), but h2 counts it as closed and takes nothing more from it then."""

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[Event]]:
        found = super()._receive_goaway_frame(frame)
        self.state_machine.state = ConnectionState.CLIENT_OPEN
        return found


@dataclass
class _Stream:
    answered: asyncio.Future[None]
    status: int = 0
    body: bytearray = field(default_factory=bytearray)

    @property
    def stage(self) -> str:
        return DURING if self.status else BEFORE

    def fail(self, error: Exception) -> None:
        if not self.answered.done():
            self.answered.set_exception(error)


class Multiplexed:
    """A server, and the one connection on which it is asked by HTTP/2.

    A request that the server has said it did not process, as its connection ends (GOAWAY: RFC 9113, 6.8), is
    sent again on the next connection, whatever its method: every client of HTTP/2 does that.
    """

    def __init__(self, server: Server) -> None:
        """`server` has to offer `h2` by ALPN."""
        self.server = server
        self.closed_idle = 0
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()

    async def ask(self, request: Request, deadline: float) -> Answer:
        """The answer, until `deadline`, a time of the loop. Raises Broken."""
        resent = False
        while True:
            connection, reused = await self._usable(deadline)
            try:
                status, body = await connection.ask(request, self.server.host, deadline)
            except _NotProcessed:
                resent = True
            except Broken as broken:
                broken.reused = reused
                raise
            else:
                return Answer(status, body, reused, resent)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()

    async def _usable(self, deadline: float) -> tuple[_Connection, bool]:
        """The connection, made again where the server is about to end it; whether it was there before."""
        async with self._connecting:
            found = self._connection
            if found is not None and found.is_open:
                return found, True
            self.closed_idle += found is not None
            self._connection = _Connection(*await self.server.connect(deadline))
            return self._connection, False


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.is_open = True
        self._reader, self._writer = reader, writer
        self._state = _State(H2Configuration(client_side=True))
        self._streams: dict[int, _Stream] = {}
        self._room = asyncio.Event()
        self._state.initiate_connection()
        self._flush()
        self._reading = asyncio.create_task(self._read())

    async def ask(self, request: Request, host: str, deadline: float) -> tuple[int, bytes]:
        number = self._state.get_next_available_stream_id()
        stream = self._streams[number] = _Stream(asyncio.get_running_loop().create_future())
        head = [
            (":method", request.method),
            (":scheme", "https"),
            (":authority", host),
            (":path", request.path),
        ]
        try:
            async with asyncio.timeout_at(deadline):
                self._state.send_headers(number, head, end_stream=not request.body)
                self._flush()
                await self._send(number, request.body, stream)
                await stream.answered
        except TimeoutError as error:
            raise Broken(NO_ANSWER, stream.stage) from error
        except OSError as error:
            raise Broken("reset", stream.stage, str(error)) from error
        finally:
            del self._streams[number]
            # Nobody may ask for it any more.
            stream.answered.cancel()
        return stream.status, bytes(stream.body)

    async def _send(self, number: int, body: bytes, stream: _Stream) -> None:
        """Send a body as the server gives room for it (RFC 9113, 5.2), or until it has answered."""
        while body and not stream.answered.done():
            room = min(self._state.local_flow_control_window(number), self._state.max_outbound_frame_size)
            if room <= 0:
                self._room.clear()
                await self._room.wait()
                continue
            part, body = body[:room], body[room:]
            self._state.send_data(number, part, end_stream=not body)
            self._flush()
            await self._writer.drain()

    def close(self) -> None:
        self.is_open = False
        self._reading.cancel()
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write(self._state.data_to_send())

    async def _read(self) -> None:
        kind, detail = "closed", ""
        try:
            while data := await self._reader.read(_READ):
                for event in self._state.receive_data(data):
                    self._happened(event)
                self._flush()
        except (OSError, ProtocolError) as error:
            kind, detail = "reset", str(error)
        self.is_open = False
        for stream in self._streams.values():
            stream.fail(Broken(kind, stream.stage, detail))
        self._room.set()
        with contextlib.suppress(OSError):
            self._writer.close()

    def _happened(self, event: Event) -> None:
        if isinstance(event, ConnectionTerminated):
            self.is_open = False
            for number, stream in self._streams.items():
                if number > (event.last_stream_id or 0):
                    stream.fail(_NotProcessed())
        self._room.set()
        found = self._streams.get(getattr(event, "stream_id", 0))
        if isinstance(event, DataReceived) and event.flow_controlled_length:
            self._state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        if found is None or isinstance(event, WindowUpdated):
            return
        if isinstance(event, ResponseReceived):
            found.status = next(int(value) for name, value in event.headers or [] if name == b":status")
        elif isinstance(event, DataReceived):
            found.body += event.data or b""
        elif isinstance(event, StreamEnded):
            if not found.answered.done():
                found.answered.set_result(None)
        elif isinstance(event, StreamReset):
            found.fail(Broken("stream reset", found.stage, str(event.error_code)))
