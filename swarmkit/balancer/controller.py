"""The balancer's controller: watches the swarm, and gives the proxies their configuration.

It keeps nothing: whatever it serves it has made of what the swarm said last; and where the swarm says
nothing, what it said before still holds. Runs in the image of `nginx/controller`, as a user without rights,
behind `filter`.

    python3 -m swarmkit.balancer.controller          serves
    python3 -m swarmkit.balancer.controller status   prints what that one knows, as JSON
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from aiohttp import ClientError, ClientSession, ClientTimeout, UnixConnector

from swarmkit.balancer.filter import FOLDER, SOCKET
from swarmkit.balancer.identity import AUTHORITY_FILE, IDENTITY_FILE
from swarmkit.balancer.log import say
from swarmkit.balancer.reading import Reader
from swarmkit.balancer.serving import Server
from swarmkit.balancer.watching import Replaced, Watcher

PORT = 9443
STATUS_SOCKET = FOLDER / "status.sock"
SECRETS = Path("/run/secrets")


def read_secrets(folder: Path) -> dict[str, str]:
    """The contents of the secrets that routes may name, by file; not those that are the controller's own."""
    found = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.name in (AUTHORITY_FILE, IDENTITY_FILE):
            continue
        try:
            found[file.name] = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            # Not the error itself, which would quote what it could not read.
            say(f"secret {file.name}: left out ({type(error).__name__})")
    return found


def tls(folder: Path) -> ssl.SSLContext:
    """TLS 1.3 that takes nobody without a certificate of the cluster's authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(folder / AUTHORITY_FILE)
    context.load_cert_chain(folder / IDENTITY_FILE)
    return context


async def run(
    engine: Path = SOCKET,
    secrets: Path = SECRETS,
    status: Path = STATUS_SOCKET,
    port: int = PORT,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Watch and serve until it is cancelled, or another task has taken its place.

    `engine` is the filter's socket, `status` where it tells of itself. SERVICE and TASK in the environment
    are the ids of those that it is of.
    """
    context = tls(secrets)
    own = (environment["SERVICE"], environment["TASK"]) if "TASK" in environment else None
    reader = Reader(engine)
    watcher: Watcher
    server = Server(lambda: watcher.blind_seconds)
    watcher = Watcher(reader, read_secrets(secrets), lambda made: server.publish(made.bundle), own)
    runners = [await server.tell(status, watcher.status)]
    watching = asyncio.create_task(watcher.run())
    # Nobody is told anything before there is something to tell.
    first = asyncio.create_task(server.first())
    try:
        await asyncio.wait((watching, first), return_when=asyncio.FIRST_COMPLETED)
        if first.done():
            runners.append(await server.serve(port, context))
            say(f"serving {server.revision} on port {port}")
        await watching
    except Replaced:
        say("another task has taken the place of this one")
    finally:
        watching.cancel()
        first.cancel()
        for runner in runners:
            await runner.cleanup()
        await reader.close()


async def ask(socket: Path = STATUS_SOCKET) -> str:
    """What the controller of this container tells of itself, as JSON. Raises ClientError where none runs."""
    async with (
        ClientSession(connector=UnixConnector(str(socket))) as session,
        session.get("http://controller/status", timeout=ClientTimeout(total=5)) as answer,
    ):
        return json.dumps(await answer.json(), indent=2)


def main(arguments: Sequence[str]) -> int:
    """The command; its exit status."""
    match arguments:
        case []:
            asyncio.run(run())
            return 0
        case ["status"]:
            try:
                text = asyncio.run(ask())
            except (ClientError, TimeoutError, OSError) as error:
                say(f"no controller answers here: {error}")
                return 1
            sys.stdout.write(text + "\n")
            return 0
        case _:
            say("usage: python3 -m swarmkit.balancer.controller [status]")
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
