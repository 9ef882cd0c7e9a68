"""Servers to stand behind nginx in one container with it, on addresses of the loopback; runs there, as PID 1.

Each address answers on port 9000 with who it is and what it got, as JSON, and on port 9001 with its name, an
echo of what comes, and an end. 127.0.0.3 reads a request whose path has `poison` in it and hangs up. On
127.0.0.4 nothing listens. Port 9002 is there on all addresses, for who finds this container by its name.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path

NAMES = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
seen = dict.fromkeys([*NAMES, "any"], 0)


async def http(name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while head := await reader.readuntil(b"\r\n\r\n"):
        seen[name] += 1
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        method, uri, _ = first.split(" ")
        headers = [line.split(": ", 1) for line in lines]
        given = {key.lower(): value for key, value in headers}
        if "poison" in uri and name == "127.0.0.3":
            writer.close()
            return
        if given.get("upgrade") == "websocket":
            writer.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
            )
            while data := await reader.read(1000):
                writer.write(data)
            return
        if "early" in uri:
            # The answer tells how it began, before all of it is there.
            body = await reader.readexactly(5)
        else:
            body = await reader.readexactly(int(given.get("content-length", "0")))
        answer = json.dumps(
            {"who": name, "method": method, "uri": uri, "headers": headers, "body": len(body), "seen": seen}
        ).encode()
        more = b"X-Frame-Options: DENY\r\n" if "framed" in uri else b""
        writer.write(b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s" % (more, len(answer), answer))
        if "slow" in uri:
            await asyncio.sleep(1)


async def echo(name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(f"{name}\n".encode())
    while data := await reader.read(1000):
        writer.write(data)
    await asyncio.sleep(0.1)
    writer.write(b"end\n")
    writer.close()


Serve = Callable[[str, asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]


async def listen(name: str, address: str, port: int, serve: Serve) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(name, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    await asyncio.start_server(handle, address, port)


async def main() -> int:
    for name in NAMES:
        await listen(name, name, 9000, http)
        await listen(name, name, 9001, echo)
    await listen("any", "0.0.0.0", 9002, http)
    Path("/run/swarmkit/log").mkdir(exist_ok=True)
    nginx = subprocess.Popen(["nginx", "-g", "daemon off;", "-c", "/run/swarmkit/current/nginx.conf"])
    return await asyncio.to_thread(nginx.wait)


sys.exit(asyncio.run(main()))
