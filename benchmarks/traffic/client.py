"""A load that knows what became of each of its requests.

    python -m benchmarks.traffic.client '{"url": "http://127.0.0.1:8080", "rate": 100, "requests": 1000}'

Requests are due at fixed times, whether or not earlier ones have been answered. They are a fixed mix: GET
and POST, on connections that are used again and on fresh ones, and some whose answer takes the backend
two seconds. A request has failed if it had no whole answer in 30 s, if its connection was refused or
broke, or if the answer was not the expected one: another status, another request's, or a POST that had
been processed before (the backend counts the ids).

Names of phases are read from standard input, one a line; an answer belongs to the phase in which it
came. At the end of standard input, or when all requests were sent, the report is written: one JSON line.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.traffic.connections import DURING, NO_ANSWER, Answer, Broken, Pool, Request, Server
from benchmarks.traffic.http2 import Multiplexed

ANSWER_SECONDS = 30
# Bounds that hold whatever is asked for.
MOST_REQUESTS = 1_000_000
MOST_RATE = 1000
MOST_IN_FLIGHT = 500
# As many failures are told one by one; all are counted.
MOST_TOLD = 2000
# What a client does before the first phase and between two.
BETWEEN = "between"
_ROOT = Path(__file__).parents[2]

# Beyond what proxies hold in memory, so that some bodies go through their files.
_BODIES = (200, 4_000, 64_000)


@dataclass(frozen=True)
class Load:
    """What is to be sent: to `url`, every tenth request to `tls_url` if given, `rate` a second.

    Of those by TLS, every other one goes by HTTP/2 with `http2`. `resend` lets a GET be sent again, where a
    connection that had been used before was closed (see Pool). `host` is sent as the Host header.
    """

    url: str
    rate: float
    requests: int
    tls_url: str = ""
    http2: bool = False
    host: str = ""
    resend: bool = False


@dataclass(frozen=True)
class Kind:
    """One of the requests of the mix; `pause` are the seconds that the backend takes for it."""

    method: str
    path: str
    keep_alive: bool
    pause: float = 0


_GET, _POST = Kind("GET", "/", True), Kind("POST", "/echo", True)
_GET_FRESH, _POST_FRESH = Kind("GET", "/", False), Kind("POST", "/echo", False)
_SLOW_GET, _SLOW_POST = Kind("GET", "/slow", True, 2), Kind("POST", "/slow", True, 2)
_SLOW_FRESH = Kind("GET", "/slow", False, 2)
# 50 requests, then again: 24 and 14 of them on connections that are used again, 3 of 2 s.
_TEN = (_GET, _POST, _GET, _GET_FRESH, _POST, _GET, _POST, _GET, _POST_FRESH, _GET)
MIX = (
    *_TEN,
    *_TEN[:9],
    _SLOW_GET,
    *_TEN,
    *_TEN[:9],
    _SLOW_POST,
    *_TEN[:9],
    _SLOW_FRESH,
)


@dataclass(frozen=True)
class Failure:
    """A failed request: what happened, and where it had got to. `at` is seconds since the epoch."""

    id: str
    kind: str
    stage: str
    method: str
    path: str
    reused: bool
    phase: str
    at: float
    seconds: float
    detail: str = ""


@dataclass
class Phase:
    """What happened in a phase; `latencies` (s) are those of answered requests without a pause."""

    requests: int = 0
    failed: int = 0
    resent: int = 0
    latencies: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Counts, and latencies as percentiles."""
        found = sorted(self.latencies)
        at = {f"p{part}": percentile(found, part) for part in (50, 90, 99)}
        return {
            "requests": self.requests,
            "failed": self.failed,
            "resent": self.resent,
            **at,
            "max": found[-1] if found else None,
        }


def percentile(ordered: Sequence[float], part: float) -> float | None:
    """The value that `part` percent of the ordered values do not exceed (nearest rank); None of none."""
    if not ordered:
        return None
    return ordered[max(0, -(-len(ordered) * part // 100).__int__() - 1)]


class Run:
    """A load on its way; `name` begins the ids of its requests, `phase` is what answers now belong to."""

    def __init__(self, load: Load, name: str) -> None:
        self.load, self.name = load, name
        self.plain = Pool(Server(load.url, load.host), resend=load.resend)
        self.ways: list[Pool | Multiplexed] = [self.plain]
        if load.tls_url:
            self.ways.append(Pool(Server(load.tls_url, load.host), resend=load.resend))
        if load.tls_url and load.http2:
            self.ways.append(Multiplexed(Server(load.tls_url, load.host, ("h2",))))
        self.phase = BETWEEN
        self.phases: dict[str, Phase] = {}
        self.failures: list[Failure] = []
        self.kinds: Counter[str] = Counter()
        self.reused = 0
        self.sent = 0
        self.lag = 0.0
        self.stopping = asyncio.Event()

    async def run(self) -> None:
        """Send the requests, and wait for all answers."""
        loop, under_way = asyncio.get_running_loop(), set[asyncio.Task[None]]()
        start = loop.time()
        while self.sent < self.load.requests and not self.stopping.is_set():
            late = loop.time() - (start + self.sent / self.load.rate)
            if late < 0:
                await asyncio.sleep(-late)
                continue
            self.lag = max(self.lag, late)
            # Answers that are there come first, also where much is to be made up for.
            await asyncio.sleep(0)
            if len(under_way) >= MOST_IN_FLIGHT:
                await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                # What could not be sent in time is not made up for in a burst.
                start = loop.time() - self.sent / self.load.rate
                continue
            task = asyncio.create_task(self._one(self.sent))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            self.sent += 1
        await asyncio.gather(*under_way)
        for way in self.ways:
            way.close()

    def _way(self, number: int) -> Pool | Multiplexed:
        """How a request goes: every tenth by TLS, by each of those ways in turn."""
        tls = self.ways[1:]
        return tls[number // 10 % len(tls)] if tls and number % 10 == 7 else self.plain

    async def _one(self, number: int) -> None:
        kind = MIX[number % len(MIX)]
        began, began_in = time.time(), self.phase
        clock, deadline = time.perf_counter(), asyncio.get_running_loop().time() + ANSWER_SECONDS
        resent, failure = False, None
        identity = f"{self.name}-{number}"
        try:
            answer = await self._way(number).ask(_request(kind, identity, number), deadline)
            resent = answer.resent
            self.reused += answer.reused
            _check(kind, identity, answer)
        except Broken as broken:
            failure = broken
            self.reused += broken.reused
        seconds = time.perf_counter() - clock
        # What never was answered belongs to where it began.
        named = began_in if failure and failure.kind == NO_ANSWER else self.phase
        phase = self.phases.setdefault(named, Phase())
        phase.requests += 1
        phase.resent += resent
        if failure is None:
            if not kind.pause:
                phase.latencies.append(seconds)
            return
        phase.failed += 1
        self.kinds[failure.kind] += 1
        if len(self.failures) < MOST_TOLD:
            self.failures.append(
                Failure(
                    identity,
                    failure.kind,
                    failure.stage,
                    kind.method,
                    kind.path,
                    failure.reused,
                    named,
                    began,
                    round(seconds, 4),
                    failure.detail,
                )
            )

    def report(self) -> dict[str, Any]:
        """All that is known, for JSON; latencies in seconds."""
        return {
            "load": asdict(self.load),
            "name": self.name,
            "requests": sum(phase.requests for phase in self.phases.values()),
            "failed": sum(phase.failed for phase in self.phases.values()),
            "resent": sum(phase.resent for phase in self.phases.values()),
            "on used connections": self.reused,
            "closed while idle": sum(way.closed_idle for way in self.ways),
            "kinds": dict(self.kinds),
            "certificates": {
                name: min(way.server.certificates.get(name, math.inf) for way in self.ways)
                for way in self.ways
                for name in way.server.certificates
            },
            "most behind": round(self.lag, 3),
            "phases": {name: phase.summary() for name, phase in self.phases.items()},
            "failures": [asdict(failure) for failure in self.failures],
        }


def _request(kind: Kind, identity: str, number: int) -> Request:
    body = b""
    if kind.method == "POST":
        body = identity.encode().ljust(_BODIES[number % len(_BODIES)], b".")
    return Request(kind.method, f"{kind.path}?id={identity}", kind.keep_alive, body)


def _check(kind: Kind, identity: str, answer: Answer) -> None:
    """Raises Broken where the answer is not the expected one."""
    if answer.status != 200:
        raise Broken(f"status {answer.status}", DURING, answer.body[:200].decode("latin-1"))
    try:
        said = json.loads(answer.body)
    except ValueError:
        said = None
    if not isinstance(said, dict) or said.get("id") != identity:
        raise Broken("another answer", DURING, answer.body[:200].decode("latin-1"))
    if kind.method == "POST" and said.get("count") != 1:
        raise Broken("duplicate", DURING, f"processed {said.get('count')} times")


async def _main(load: Load, name: str) -> dict[str, Any]:
    run = Run(load, name)
    loop = asyncio.get_running_loop()

    def orders() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(setattr, run, "phase", line.strip())
        # The loop may have ended before its orders.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(run.stopping.set)

    async def progress() -> None:
        while True:
            print(json.dumps({"sent": run.sent, "failed": sum(run.kinds.values())}), flush=True)
            await asyncio.sleep(0.5)

    threading.Thread(target=orders, daemon=True).start()
    telling = asyncio.create_task(progress())
    await run.run()
    telling.cancel()
    return run.report()


class Client:
    """The load in a process of its own, whose work is told apart by phases."""

    def __init__(self, load: Load) -> None:
        """Begin; raises ValueError where more is asked for than is good for a shared machine."""
        if load.rate > MOST_RATE or load.requests > MOST_REQUESTS:
            raise ValueError(f"at most {MOST_RATE} requests a second, {MOST_REQUESTS} in all")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.traffic.client", json.dumps(asdict(load))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
            # Ctrl-C is for whoever drives the load.
            start_new_session=True,
        )
        self._last: dict[str, Any] = {"sent": 0, "failed": 0}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._last = json.loads(line)

    @property
    def sent(self) -> int:
        """How many requests were sent so far (known twice a second)."""
        return int(self._last.get("sent", self._last.get("requests", 0)))

    @property
    def failed(self) -> int:
        """How many of them are known to have failed."""
        return int(self._last.get("failed", 0))

    @property
    def runs(self) -> bool:
        """Whether requests are still being sent."""
        return self._process.poll() is None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What is answered meanwhile belongs to this phase."""
        self._tell(name)
        yield
        self._tell(BETWEEN)

    def _tell(self, name: str) -> None:
        assert self._process.stdin
        # A load that has ended needs no phases any more.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{name}\n")
            self._process.stdin.flush()

    def finish(self) -> Mapping[str, Any]:
        """Send no more, wait for the answers that are still to come, and return the report."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(ANSWER_SECONDS + 10)
        self._reader.join()
        return self._last

    def abandon(self) -> None:
        """End at once, without a report."""
        self._process.kill()
        self._process.wait()


@contextmanager
def client(load: Load) -> Iterator[Client]:
    """A load that surely ends."""
    running = Client(load)
    try:
        yield running
    finally:
        running.abandon()


if __name__ == "__main__":
    # Ids of two loads must not be the same.
    print(json.dumps(asyncio.run(_main(Load(**json.loads(sys.argv[1])), f"{time.time_ns():x}"))))
