"""The SSH servers: one for each machine, a delay in each wire, and the faults."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import deque
from collections.abc import Coroutine
from urllib.parse import parse_qsl, urlsplit

import asyncssh

from tests.simulation import Fault
from tests.simulation.machine import Machine
from tests.simulation.swarm import Engine, Refused

# What a shell that became root prints before the command's own output (swarmkit.remote.connection).
_READY = b"swarmkit:ready\n"
# As many connections as may wait to be accepted: a fleet calls many machines at once.
_BACKLOG = 128

Process = asyncssh.SSHServerProcess[bytes]


class _End(asyncio.Protocol):
    """One end of a delaying wire: what arrives here leaves at the other end `delay` seconds later."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._waiting: deque[bytes] = deque()
        self._transport: asyncio.Transport | None = None
        self._other: _End | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.pause_reading()

    def join(self, other: _End) -> None:
        """Let the wire carry: from here to `other`."""
        self._other = other
        assert self._transport is not None
        if self._transport.is_closing():
            other.write(b"")
        else:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self._waiting.append(data)
        asyncio.get_running_loop().call_later(self._delay, self._pass_on)

    def connection_lost(self, _error: Exception | None) -> None:
        # No data is the end of it.
        self.data_received(b"")

    def _pass_on(self) -> None:
        data = self._waiting.popleft()
        if self._other is not None:
            self._other.write(data)

    def write(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if data:
            self._transport.write(data)
        else:
            self._transport.close()


class Server:
    """The SSH server of one machine, for the holder of one key."""

    def __init__(
        self, machine: Machine, allowed: asyncssh.SSHKey, latency: float, fault: Fault | None
    ) -> None:
        self.machine = machine
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")
        self._latency = latency
        self._fault = fault
        # A key that nobody holds.
        let_in = asyncssh.generate_private_key("ssh-ed25519") if fault is Fault.DENY else allowed
        self._options = asyncssh.SSHServerConnectionOptions(
            server_host_keys=[self.host_key],
            authorized_client_keys=asyncssh.import_authorized_keys(let_in.export_public_key().decode()),
            process_factory=self._serve,
            encoding=None,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._ignored: list[_End] = []

    async def listen(self, port: int) -> int:
        """Start to listen; returns the port, which the system chooses where it is 0."""
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(self._called, self.machine.address, port, backlog=_BACKLOG)
        found: int = listening.sockets[0].getsockname()[1]
        if self._fault is Fault.REFUSE:
            listening.close()
        return found

    def _called(self) -> asyncio.Protocol:
        end = _End(self._latency / 2)
        if self._fault is Fault.HANG:
            # Kept, or it would be closed as garbage.
            self._ignored.append(end)
        else:
            self._start(self._answer(end))
        return end

    def _start(self, work: Coroutine[object, object, None]) -> None:
        # Kept: the loop itself holds tasks by weak references only.
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, far: _End) -> None:
        # The round trip in which TCP itself connects.
        await asyncio.sleep(self._latency)
        ours, theirs = socket.socketpair()
        near = _End(self._latency / 2)
        await asyncio.get_running_loop().create_connection(lambda: near, sock=theirs)
        near.join(far)
        far.join(near)
        try:
            await asyncssh.run_server(ours, options=self._options)
        except (OSError, asyncssh.Error):
            # The caller hung up, or was not let in; it knows that best itself.
            ours.close()

    async def _serve(self, process: Process) -> None:
        """One session: a script on standard input, or the engine's API."""
        command = process.command or ""
        if _READY.decode().strip() in command:
            process.stdout.write(_READY)
        try:
            if "dial-stdio" in command:
                await _speak_http(process, self.machine.engine)
                status = 0
            else:
                script = (await process.stdin.read()).decode() or command
                output, status = self.machine.run(script)
                if self._fault is Fault.CUT:
                    process.stdout.write(output[: len(output) // 2].encode())
                    process.channel.get_connection().abort()
                    return
                process.stdout.write(output.encode())
            process.exit(status)
        except (asyncssh.Error, BrokenPipeError, ConnectionError):
            process.close()


async def _speak_http(process: Process, engine: Engine) -> None:
    """Answer HTTP/1.1 requests (RFC 9112) until the client has no more."""
    while True:
        try:
            head = await process.stdin.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return
        start, *lines = head.decode().split("\r\n")
        method, target, _protocol = start.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        size = int(headers.get("content-length", 0))
        body = json.loads(await process.stdin.readexactly(size)) if size else {}
        url = urlsplit(target)
        # /v1.45/info, but /version.
        path = url.path.partition("/v1.")[2].partition("/")[2] or url.path
        try:
            status = 200
            answer = engine.answer(method, path, dict(parse_qsl(url.query)), body)
        except Refused as refusal:
            status, answer = refusal.status, {"message": refusal.message}
        # The engine sends nothing for a change that tells nothing.
        content = b"" if answer is None else json.dumps(answer).encode()
        process.stdout.write(
            f"HTTP/1.1 {status} \r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
