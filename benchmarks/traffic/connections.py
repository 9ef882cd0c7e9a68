"""Requests on connections that are used again, and on fresh ones: HTTP/1.1, and what became of each."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

MOST_IDLE = 32
_READ = 65536

# How a request can fail that others are told apart by, and where it had got to.
NO_ANSWER = "no answer in time"
CONNECT, BEFORE, DURING = "connect", "before any answer byte", "during the answer"
# A server that closes a connection which has waited may not have seen the request that was on its way.
_NEVER_READ = ((BEFORE, "closed"), (BEFORE, "reset"))


@dataclass(frozen=True)
class Request:
    """What is asked; `keep_alive` says whether on a connection that may have been used before."""

    method: str
    path: str
    keep_alive: bool = True
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    """A whole answer; `reused` says whether the connection had been used before, `resent` whether the
    request had to be sent a second time."""

    status: int
    body: bytes
    reused: bool = False
    resent: bool = False


class Broken(Exception):
    """A request has failed: how, where it had got to, and whether its connection had been used before."""

    def __init__(self, kind: str, stage: str, detail: str = "", *, reused: bool = False) -> None:
        super().__init__(kind)
        self.kind, self.stage, self.detail, self.reused = kind, stage, detail, reused


class Server:
    """Where requests go, by URL; `host` is named to it instead of the URL's, where given.

    `certificates` are those that it has shown: the beginning of the SHA-256, and when it was first seen (s
    since the epoch).
    """

    def __init__(self, url: str, host: str = "", protocols: Sequence[str] = ()) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        self.address = parts.hostname
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.host = host or parts.netloc
        self.certificates: dict[str, float] = {}
        self.tls: ssl.SSLContext | None = None
        if parts.scheme == "https":
            # The balancer's own certificate is self-signed; which one it is, is noted.
            self.tls = ssl.create_default_context()
            self.tls.check_hostname = False
            self.tls.verify_mode = ssl.CERT_NONE
            if protocols:
                self.tls.set_alpn_protocols(list(protocols))

    async def connect(self, deadline: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A new connection; raises Broken, also where there is none by `deadline`, a time of the loop."""
        try:
            async with asyncio.timeout_at(deadline):
                reader, writer = await asyncio.open_connection(
                    self.address,
                    self.port,
                    ssl=self.tls,
                    server_hostname=self.host.split(":")[0] if self.tls else None,
                )
        except TimeoutError as error:
            raise Broken(NO_ANSWER, CONNECT) from error
        except ConnectionRefusedError as error:
            raise Broken("refused", CONNECT) from error
        except (OSError, ssl.SSLError) as error:
            raise Broken("reset", CONNECT, str(error)) from error
        if self.tls is not None:
            certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            self.certificates.setdefault(hashlib.sha256(certificate).hexdigest()[:16], time.time())
        return reader, writer


@dataclass
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def is_open(self) -> bool:
        """Whether the server has not closed it, as far as is known."""
        return not self.reader.at_eof() and self.reader.exception() is None

    def close(self) -> None:
        self.writer.close()


class Pool:
    """A server, and the connections to it that wait to be used again.

    With `resend`, a GET is sent once more, on a fresh connection, where the server closed a connection that
    had been used before without a byte of answer: RFC 9110, 9.2.2, allows it for methods that are idempotent.
    """

    def __init__(self, server: Server, *, resend: bool = False) -> None:
        self.server = server
        self.closed_idle = 0
        self._resend = resend
        self._idle: deque[_Connection] = deque()

    async def ask(self, request: Request, deadline: float) -> Answer:
        """The answer, until `deadline`, a time of the loop. Raises Broken."""
        waiting = self._waiting() if request.keep_alive else None
        if waiting is None:
            return await self._asked(await self._fresh(deadline), request, deadline)
        try:
            return await self._asked(waiting, request, deadline, reused=True)
        except Broken as broken:
            broken.reused = True
            was_never_read = (broken.stage, broken.kind) in _NEVER_READ
            if not (self._resend and request.method == "GET" and was_never_read):
                raise
        fresh = await self._fresh(deadline)
        return await self._asked(fresh, request, deadline, reused=True, resent=True)

    def close(self) -> None:
        """Close what waits."""
        while self._idle:
            self._idle.popleft().close()

    def _waiting(self) -> _Connection | None:
        """The connection that has waited longest. Those that the server has closed are no failures:
        a client sees that before it sends."""
        while self._idle:
            connection = self._idle.popleft()
            if connection.is_open:
                return connection
            self.closed_idle += 1
            connection.close()
        return None

    async def _fresh(self, deadline: float) -> _Connection:
        return _Connection(*await self.server.connect(deadline))

    async def _asked(
        self,
        connection: _Connection,
        request: Request,
        deadline: float,
        *,
        reused: bool = False,
        resent: bool = False,
    ) -> Answer:
        stays = False
        try:
            status, body, may_stay = await _exchange(connection, self._written(request), deadline)
            stays = request.keep_alive and may_stay and len(self._idle) < MOST_IDLE
        finally:
            if stays:
                self._idle.append(connection)
            else:
                connection.close()
        return Answer(status, body, reused, resent)

    def _written(self, request: Request) -> bytes:
        head = [
            f"{request.method} {request.path} HTTP/1.1",
            f"Host: {self.server.host}",
            f"Connection: {'keep-alive' if request.keep_alive else 'close'}",
        ]
        if request.body:
            head.append(f"Content-Length: {len(request.body)}")
        return "\r\n".join([*head, "", ""]).encode() + request.body


async def _exchange(connection: _Connection, request: bytes, deadline: float) -> tuple[int, bytes, bool]:
    """Send a request and read its answer: status, body, and whether the connection stays. Raises Broken."""
    stage = BEFORE
    data = b""

    async def more() -> bytes:
        nonlocal stage
        found = await connection.reader.read(_READ)
        if not found:
            raise Broken("closed", stage)
        stage = DURING
        return found

    try:
        async with asyncio.timeout_at(deadline):
            connection.writer.write(request)
            await connection.writer.drain()
            while b"\r\n\r\n" not in data:
                data += await more()
            head, _, body = data.partition(b"\r\n\r\n")
            status, headers = _head(head)
            if "content-length" in headers:
                while len(body) < int(headers["content-length"]):
                    body += await more()
            elif headers.get("transfer-encoding", "") == "chunked":
                while not body.endswith(b"0\r\n\r\n"):
                    body += await more()
                body = _unchunked(body)
            else:
                raise Broken("an answer without a length", stage)
    except TimeoutError as error:
        raise Broken(NO_ANSWER, stage) from error
    except OSError as error:
        raise Broken("reset", stage, str(error)) from error
    return status, body, headers.get("connection", "").lower() != "close"


def _head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}


def _unchunked(data: bytes) -> bytes:
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size.split(b";")[0], 16)
        body, data = body + data[:length], data[length + 2 :]
    return body
