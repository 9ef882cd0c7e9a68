#!/usr/bin/python3
"""What answers the requests of the loss test, and the ledger in which processed ones are entered.

    backend.py serve     answers on port 8000 until SIGTERM, then finishes open requests
    backend.py ledger    counts on port 8001 how often each id was processed, over all tasks
    backend.py entries   the ledger's contents, as JSON

A POST is processed by entering its id in the ledger; the answer says how often that has happened, so
that a request which some proxy has sent twice shows, whichever tasks have seen it.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from urllib.parse import parse_qs, urlsplit

PORT, LEDGER_PORT = 8000, 8001
PAUSE_SECONDS = 2
LEDGER = os.environ.get("LEDGER", "ledger")
WHO = {
    "version": os.environ.get("VERSION", "1"),
    "task": os.environ.get("TASK", ""),
    "node": os.environ.get("NODE", ""),
}
TASK_ID = os.environ.get("TASK_ID", "")


class Ledger:
    """The way to the ledger: one line there, one back, in the same order."""

    def __init__(self) -> None:
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._lock = asyncio.Lock()

    async def say(self, line: str) -> str:
        """Send a line; the answer. Raises OSError."""
        async with self._lock:
            if self._streams is None:
                self._streams = await asyncio.open_connection(LEDGER, LEDGER_PORT)
            reader, writer = self._streams
            try:
                writer.write(f"{line}\n".encode())
                answer = await asyncio.wait_for(reader.readline(), 5)
                if not answer:
                    raise ConnectionError("the ledger has closed the connection")
            except (TimeoutError, OSError):
                # Not said again here: it may have been entered.
                writer.close()
                self._streams = None
                raise
            return answer.decode().strip()


class Server:
    """Answers requests; knows the open connections, so that it can end when none has a request."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.stopping = False
        self.busy = 0
        self.idle: set[asyncio.StreamWriter] = set()
        self.first = self.last = 0.0
        self.requests = 0

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                self.idle.add(writer)
                # An idle connection is ended by closing it.
                head = await reader.readuntil(b"\r\n\r\n")
                self.idle.discard(writer)
                self.busy += 1
                try:
                    last = await self.request(head, reader, writer)
                finally:
                    self.busy -= 1
                if last:
                    break
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            pass
        finally:
            self.idle.discard(writer)
            writer.close()

    async def request(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first, *lines = head.decode("latin-1").rstrip().split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        body = await reader.readexactly(length)
        parts = urlsplit(target)
        status, said = await self.answer(method, parts.path, parse_qs(parts.query).get("id", [""])[0], body)
        closes = self.stopping or headers.get("connection", "").lower() == "close"
        text = json.dumps({**WHO, **said}).encode()
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n"
            f"Connection: {'close' if closes else 'keep-alive'}\r\n\r\n".encode()
            + text
        )
        await writer.drain()
        return closes

    async def answer(
        self, method: str, path: str, identity: str, body: bytes
    ) -> tuple[str, dict[str, object]]:
        if path == "/healthz":
            return await self.health()
        self.last = time.time()
        self.first = self.first or self.last
        self.requests += 1
        said: dict[str, object] = {"id": identity}
        if method == "POST":
            if body.rstrip(b".") != identity.encode():
                return "400 Bad Request", {**said, "error": "the body is not what was sent"}
            try:
                said["count"] = int(await self.ledger.say(f"post {identity}"))
            except (TimeoutError, OSError) as error:
                return "500 Internal Server Error", {**said, "error": f"ledger: {error!r}"}
            said["bytes"] = len(body)
        if path.endswith("/slow"):
            await asyncio.sleep(PAUSE_SECONDS)
        return "200 OK", said

    async def health(self) -> tuple[str, dict[str, object]]:
        """Healthy is who can do its work, so the ledger must answer."""
        if os.environ.get("HEALTHY") == "no":
            return "503 Service Unavailable", {"error": "this version never becomes healthy"}
        try:
            await self.ledger.say("hello")
        except (TimeoutError, OSError) as error:
            return "503 Service Unavailable", {"error": f"ledger: {error!r}"}
        return "200 OK", {}

    async def run(self) -> None:
        told = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        listening = await asyncio.start_server(self.connection, "0.0.0.0", PORT, backlog=1024)
        await told.wait()
        self.stopping = True
        listening.close()
        for writer in list(self.idle):
            writer.close()
        while self.busy:
            await asyncio.sleep(0.02)
        report = {"task": TASK_ID, "first": self.first, "last": self.last, "requests": self.requests}
        try:
            await self.ledger.say(f"ended {json.dumps(report)}")
        except (TimeoutError, OSError) as error:
            print(f"ledger: {error!r}", file=sys.stderr)


async def ledger() -> None:
    """Keep the ledger until SIGTERM."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    posts: Counter[str] = Counter()
    ended: list[dict[str, object]] = []

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            word, _, rest = line.decode().strip().partition(" ")
            if word == "post":
                posts[rest] += 1
                answer = str(posts[rest])
            elif word == "ended":
                ended.append(json.loads(rest))
                answer = "noted"
            elif word == "entries":
                answer = json.dumps({"posts": posts, "ended": ended})
            else:
                answer = "hello"
            writer.write(f"{answer}\n".encode())
            await writer.drain()
        writer.close()

    await asyncio.start_server(connection, "0.0.0.0", LEDGER_PORT, limit=2**20)
    await told.wait()


async def entries() -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", LEDGER_PORT, limit=2**30)
    writer.write(b"entries\n")
    print((await reader.readline()).decode().strip())


if __name__ == "__main__":
    asyncio.run({"serve": lambda: Server().run(), "ledger": ledger, "entries": entries}[sys.argv[1]]())
