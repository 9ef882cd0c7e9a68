"""Streams of the Engine API: frames of standard output and error, and connections that go both ways."""

from __future__ import annotations

import io
import json
import socket
import struct
from collections.abc import Iterator
from http.client import parse_headers
from typing import TYPE_CHECKING, Any, Self, cast

import requests

if TYPE_CHECKING:
    import docker

STDOUT, STDERR, SYSTEM_ERROR = 1, 2, 3

_HEADER = struct.Struct(">B3xI")
_HEAD_END = b"\r\n\r\n"
_HEAD_BYTES = 65536


class Demultiplexer:
    """Takes a multiplexed stream apart, however it is cut into pieces (Engine API, "Stream format").

    Keeps at most the one frame that has not wholly arrived.
    """

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The frames that `data` completes: STDOUT, STDERR or SYSTEM_ERROR, and the payload."""
        self._rest += data
        start = 0
        while len(self._rest) - start >= _HEADER.size:
            kind, size = _HEADER.unpack_from(self._rest, start)
            end = start + _HEADER.size + size
            if len(self._rest) < end:
                break
            yield kind, bytes(self._rest[start + _HEADER.size : end])
            start = end
        del self._rest[:start]


class Refused(Exception):
    """The engine answered a request for a stream with an error: its HTTP status, and what it says."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status


class Duplex:
    """A connection of its own that became a stream both ways (Engine API, "Hijacking")."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        # A socket, or a channel that has the same methods.
        self._socket = cast("socket.socket", connection.sock)

    @classmethod
    def post(cls, api: docker.APIClient, url: str, body: object) -> Duplex:
        """Raises Refused, and what `channels.BROKEN` names."""
        headers = {"Connection": "Upgrade", "Upgrade": "tcp"}
        request = api.prepare_request(requests.Request("POST", url, json=body, headers=headers))
        adapter: Any = api.get_adapter(url)
        # Outside the pool: the connection is never given back, and others must not wait for it.
        pool = adapter.get_connection_with_tls_context(request, api.verify, cert=api.cert)
        connection = pool._new_conn()
        try:
            connection.request("POST", request.path_url, body=request.body, headers=request.headers)
            stream = cls(connection)
            stream._answered()
            connection.sock.settimeout(None)
        except BaseException:
            connection.close()
            raise
        return stream

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def recv(self, size: int) -> bytes:
        """What has come, `size` bytes at most; nothing at the end."""
        return self._socket.recv(size)

    def sendall(self, data: bytes) -> None:
        self._socket.sendall(data)

    def end_input(self) -> None:
        """Nothing more will be sent; what comes goes on."""
        self._socket.shutdown(socket.SHUT_WR)

    def _answered(self) -> None:
        """Read the head of the answer, and no byte of the stream behind it."""
        head = bytearray()
        while not head.endswith(_HEAD_END):
            byte = self._socket.recv(1)
            if not byte or len(head) > _HEAD_BYTES:
                raise EOFError("the connection ended before the answer did")
            head += byte
        first, _, fields = bytes(head).partition(b"\r\n")
        status = int(first.split()[1])
        if status in (101, 200):
            return
        length = int(parse_headers(io.BytesIO(fields)).get("Content-Length") or 0)
        body = bytearray()
        while len(body) < length and (more := self._socket.recv(length - len(body))):
            body += more
        try:
            said = str(json.loads(body)["message"])
        except (ValueError, KeyError, TypeError):
            said = f"HTTP status {status}"
        raise Refused(status, said)
