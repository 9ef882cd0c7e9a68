"""The controller's way to the engine: it reads what the balancer needs, and no more.

Whoever may use an engine's socket owns the machine. So the controller, which talks to the network, cannot
open it. This process can, and listens on a socket of its own; it takes nothing of a request over to the
engine but a path that is on its list and a query, and writes the engine's request itself. What cannot be
said to it cannot be smuggled past it.

It is the container's first process, starts the controller as a user without rights, and ends when that
does.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TypeVar

from aiohttp import ClientError, ClientSession, ClientTimeout, UnixConnector, hdrs, web
from yarl import URL

ENGINE = Path("/var/run/docker.sock")
# In memory, and for the controller's group alone.
FOLDER = Path("/run/swarmkit/controller")
SOCKET = FOLDER / "engine.sock"
# No user of this number is anywhere in the image; so nothing belongs to it.
CONTROLLER_UID = 10001

# As it stands in the request's first line: without a scheme, escapes, empty segments or dots that lead up.
_ALLOWED = re.compile(
    r"(/v1\.[0-9]{1,3})?"
    r"/(_ping|version|info|events|nodes|services|tasks|networks(/[A-Za-z0-9][A-Za-z0-9_.-]{0,127})?)"
    r"(\?[A-Za-z0-9%&=._~+,:-]*)?"
)
# The longest target of a request.
TARGET_BYTES = 65536
# How long the engine may be silent; only events may be so for ever.
_SILENCE_SECONDS = 60


def refusal(method: str, target: str, headers: frozenset[str]) -> str:
    """Why a request is not passed on; empty where it is.

    `target` is the request's target as it was sent, `headers` the lower-case names of its headers.
    """
    if method != "GET":
        return f"{method} is not allowed here: this way to the engine is for reading"
    if not _ALLOWED.fullmatch(target):
        return "the path is not among those that the balancer needs"
    if headers & {"upgrade", "http2-settings"}:
        return "the connection stays what it is: no upgrade"
    if headers & {"content-length", "transfer-encoding", "expect"}:
        return "a request for reading has no body"
    return ""


def application(engine: Path) -> web.Application:
    """The filter before the engine that listens at `engine`."""

    async def connected(app: web.Application) -> AsyncIterator[None]:
        connector = UnixConnector(str(engine), force_close=True)
        async with ClientSession(connector=connector, auto_decompress=False) as session:
            app[_SESSION] = session
            yield

    app = web.Application()
    app.cleanup_ctx.append(connected)
    app.router.add_route("*", "/{any:.*}", _handle)
    return app


_SESSION = web.AppKey("session", ClientSession)


async def _handle(request: web.Request) -> web.StreamResponse:
    target = request.raw_path
    reason = refusal(request.method, target, frozenset(name.lower() for name in request.headers))
    if reason:
        return _closing(web.json_response({"message": reason}, status=403))
    silence = None if target.partition("?")[0].endswith("/events") else _SILENCE_SECONDS
    asked = request.app[_SESSION].get(
        URL(f"http://engine{target}", encoded=True),
        timeout=ClientTimeout(total=None, sock_read=silence),
        allow_redirects=False,
    )
    try:
        found = await asked
    except (ClientError, TimeoutError, OSError) as error:
        message = f"the engine does not answer: {str(error) or type(error).__name__}"
        return _closing(web.json_response({"message": message}, status=502))
    async with found:
        answer = _closing(
            web.StreamResponse(status=found.status, headers={hdrs.CONTENT_TYPE: found.content_type})
        )
        await answer.prepare(request)
        try:
            async for data in found.content.iter_any():
                await answer.write(data)
        except (ClientError, TimeoutError):
            # Half an answer must not look like a whole one.
            if request.transport is not None:
                request.transport.abort()
        else:
            await answer.write_eof()
        return answer


AnswerT = TypeVar("AnswerT", bound=web.StreamResponse)


def _closing(answer: AnswerT) -> AnswerT:
    """One request a connection: what comes after it is not even read."""
    answer.force_close()
    return answer


async def serve(engine: Path, socket: Path) -> web.AppRunner:
    """Start to listen; the socket is for the process's user and group."""
    # The ids of a thousand services make a long line. Who has gone away needs no more events.
    runner = web.AppRunner(
        application(engine),
        access_log=None,
        handler_cancellation=True,
        lingering_time=0,
        shutdown_timeout=0.1,
        max_line_size=TARGET_BYTES,
    )
    await runner.setup()
    before = os.umask(0o117)
    try:
        await web.UnixSite(runner, str(socket)).start()
    finally:
        os.umask(before)
    return runner


async def run(command: Sequence[str]) -> int:
    """Filter for the controller, which is `command`, until it ends; its exit status."""
    # What is made from here on is for this user and the controller's group; the engine's socket is open to
    # root as its owner.
    os.setgroups([])
    os.setgid(CONTROLLER_UID)
    FOLDER.mkdir(mode=0o770, exist_ok=True)
    FOLDER.chmod(0o770)
    runner = await serve(ENGINE, SOCKET)
    # Not asyncio's own, which at the end would kill what this user, without its rights, may not kill.
    controller = subprocess.Popen(command, user=CONTROLLER_UID, group=CONTROLLER_UID)
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(os.pidfd_open(controller.pid), over.set)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    await over.wait()
    await runner.cleanup()
    status = controller.poll()
    # Told to stop: the controller has nothing to put away, and ends with its container's first process.
    # Else as a shell tells of a signal that has ended something.
    return 0 if status is None else status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(asyncio.run(run([sys.executable, "-m", "swarmkit.balancer.controller"])))
