"""The first process of a load balancer's proxy: runs nginx, brings it its configuration, counts requests.

It asks the controller for *bundles* (an nginx.conf and the files that it names) by HTTPS long poll, with
certificates both ways. Each is written to a folder of its own in memory, tested by `nginx -t`, and put in
place by moving a symbolic link and a graceful reload. What nginx refuses is reported, and the last good one
stays. Without a controller for long enough that addresses may belong to others, the bundle's fallback is put
in place, which asks Docker's DNS.

    agent.py            what the container runs
    agent.py status     print /status of the agent that runs here
    agent.py health     exit 0 where nginx runs with a configuration of the controller's

It listens on port 9145: /metrics (Prometheus' text format), /status (JSON) and /healthz. It needs Python's
standard library only and is no part of the package: the proxy's image seldom changes.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

ROOT = Path("/run/swarmkit")
PORT = 9145
# The name in the controller's certificate, whatever address it is reached at.
CONTROLLER_NAME = "controller.swarmkit.internal"

# The controller answers a long poll within 25 s (204 where nothing has changed).
POLL_SECONDS = 35.0
CONNECT_SECONDS = 2.0
# Between tries while no controller answers: the first at once, then twice as long each time, up to this.
BACKOFF_SECONDS = (0.05, 2.0)
# At most so often is nginx reloaded: each reload starts all its workers anew.
RELOAD_INTERVAL = 0.1
# Workers of before stay until what they have open ends, WebSockets for long, and take some 4 MB each. With
# more than MANY_LEAVING nginx is reloaded less often; beyond MOST_LEAVING, the oldest end.
MANY_LEAVING, CALM_INTERVAL = 24, 1.0
MOST_LEAVING = 48
# What clients may still send on a connection that is kept has long been answered after this time.
LEAVING_SECONDS = 15.0
# How long new workers may take to come, and a configuration to be tested.
RELOAD_SECONDS = 30.0
TEST_SECONDS = 30.0
# A bundle that was refused is tried again after so long: the reason may have been this machine's.
REFUSED_SECONDS = 30.0
BUNDLE_BYTES = 64 << 20
ERROR_LENGTH = 1000

# Often, so that a busy proxy's many lines are never counted all at once, while nginx waits for the processor.
METRICS_SECONDS = 0.1
LOOK_SECONDS = 1.0
# The log of requests is in memory, and begun anew beyond this.
METRICS_BYTES = 8 << 20
# Workers of before a rotation may still write what they have buffered.
ROTATED_SECONDS = 5.0
# What the configuration no longer names is forgotten when nothing was sent there for so long.
FORGET_SECONDS = 300.0
IN_FLIGHT_SECONDS = 0.5
# Anyone on the edge network may ask for the metrics.
MOST_READERS = 16
READER_SECONDS = 5.0
# In all, for a question and its answer: who sends a byte now and then would stay for ever.
VISIT_SECONDS = 15.0

REVISION = re.compile(r"[0-9a-f]{16}")
FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")

BUILT_IN = """\
# Until the controller has given the first configuration.
pid {root}/nginx.pid;
error_log /dev/stderr warn;
worker_processes 1;
events {{
    worker_connections 1024;
}}
http {{
    access_log off;
    client_body_temp_path {root}/client_body;
    proxy_temp_path {root}/proxy;
    fastcgi_temp_path {root}/fastcgi;
    uwsgi_temp_path {root}/uwsgi;
    scgi_temp_path {root}/scgi;
    server_tokens off;
    default_type text/plain;
    server {{
        listen 8080 default_server;
        return 503 "the load balancer has no configuration yet: its controller does not answer\\n";
    }}
    server {{
        listen unix:{root}/stub.sock;
        stub_status;
    }}
}}
"""


def say(text: str) -> None:
    """One line in the container's log."""
    sys.stderr.write(f"agent: {' '.join(text.split())}\n")
    sys.stderr.flush()


class Refused(Exception):
    """A bundle that cannot be put in place, and why."""


# --- bundles


@dataclass(frozen=True)
class Bundle:
    """A configuration of nginx's as the controller gives it.

    `files` are paths within the bundle's folder and their contents; `upstreams` says, for each upstream's
    name, which task an address (with its port) is. `fallback` is the nginx.conf for times without a
    controller, in force after `fallback_seconds`.
    """

    revision: str
    nginx: str = field(repr=False)
    fallback: str = field(repr=False)
    files: Mapping[str, str] = field(repr=False)
    upstreams: Mapping[str, Mapping[str, str]] = field(repr=False)
    fallback_seconds: float = 60

    @classmethod
    def parse(cls, data: bytes) -> Bundle:
        """From the controller's JSON; raises Refused for anything that is not of that form."""
        try:
            raw = json.loads(data)
            revision = raw["revision"]
            bundle = cls(
                revision,
                nginx=raw["nginx"],
                fallback=raw["fallback"],
                files=dict(raw["files"]),
                upstreams={name: dict(each) for name, each in raw["upstreams"].items()},
                fallback_seconds=float(raw["fallback_seconds"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Refused(f"not a bundle: {type(error).__name__}") from None
        # The revision becomes a folder's name.
        if not isinstance(revision, str) or not REVISION.fullmatch(revision):
            raise Refused("not a bundle: its revision is not 16 hexadecimal digits")
        texts = [bundle.nginx, bundle.fallback, *bundle.files.values()]
        texts += [task for each in bundle.upstreams.values() for task in each.values()]
        if not all(isinstance(text, str) for text in texts):
            raise Refused("not a bundle: a text is missing")
        return bundle


def write_folder(folder: Path, nginx: str, files: Mapping[str, str]) -> None:
    """Make `folder` (0700) with nginx.conf and the files (0600) of a bundle, and nothing of before.

    Raises Refused, before anything is written, for a file's path that leads out of the folder or is not of
    the plain form; and where the disk does not take it.
    """
    for path in files:
        if not FILE_NAME.fullmatch(path) or path == "nginx.conf":
            raise Refused(f"a file of the bundle has a path that is not allowed: {path[:100]!r}")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        for path, text in {**files, "nginx.conf": nginx}.items():
            target = folder / path
            for parent in reversed(target.relative_to(folder).parents):
                (folder / parent).mkdir(mode=0o700, exist_ok=True)
            with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text)
    except (OSError, ValueError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise Refused(f"the bundle cannot be written: {error}") from None


# --- nginx


class Server(Protocol):
    """What `Proxy` asks of nginx; `test` and `reload` raise Refused."""

    @property
    def leaving(self) -> int: ...

    def test(self, configuration: Path) -> None: ...

    def reload(self) -> None: ...


@dataclass(frozen=True)
class Process:
    """A process as /proc shows it; `title` is its command line, which nginx's workers write."""

    pid: int
    parent: int
    state: str
    title: str


def processes() -> Iterator[Process]:
    """All processes of this container."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
            title = (entry / "cmdline").read_bytes()
        except OSError:
            continue  # it has ended meanwhile
        # The command's name, in parentheses, may hold anything (proc(5)).
        state, parent = stat.rpartition(")")[2].split()[:2]
        yield Process(int(entry.name), int(parent), state, title.rstrip(b"\0 ").decode(errors="replace"))


class Nginx:
    """The server, as a child of ours."""

    # What nginx calls a worker that takes connections, and one that takes none any more.
    _WORKING = "nginx: worker process"
    _LEAVING = "nginx: worker process is shutting down"

    def __init__(self, configuration: Path) -> None:
        self._command = ["nginx", "-c", str(configuration), "-g", "daemon off;"]
        self._master: subprocess.Popen[bytes] | None = None
        # Since when each worker that leaves was seen to.
        self._since: Mapping[int, float] = {}

    def start(self) -> None:
        self._master = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        assert self._master is not None
        return self._master.wait()

    @property
    def is_alive(self) -> bool:
        return self._master is not None and self._master.poll() is None

    def signal(self, number: signal.Signals) -> None:
        if self._master is not None:
            self._master.send_signal(number)

    def test(self, configuration: Path) -> None:
        try:
            done = subprocess.run(
                ["nginx", "-t", "-q", "-c", str(configuration), "-g", "daemon off;"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=TEST_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Refused(f"nginx -t did not end within {TEST_SECONDS:.0f} s") from None
        if done.returncode:
            raise Refused(f"nginx -t: {done.stderr.decode(errors='replace').strip()[-ERROR_LENGTH:]}")

    def reload(self) -> None:
        """Take over the configuration; ends when no worker of before takes connections any more.

        The master starts the new workers first and tells the old ones to end 0.1 s later (nginx,
        ngx_master_process_cycle).
        """
        before = self._workers(self._WORKING)
        self.signal(signal.SIGHUP)
        deadline = time.monotonic() + RELOAD_SECONDS
        while True:
            now = self._workers(self._WORKING)
            if now - before and not now & before:
                return
            if not self.is_alive:
                raise Refused("nginx has ended")
            if time.monotonic() > deadline:
                raise Refused(f"nginx did not take it over within {RELOAD_SECONDS:.0f} s; its log says why")
            time.sleep(0.005)

    @property
    def leaving(self) -> int:
        """How many workers take no connections any more and have some open."""
        return len(self._workers(self._LEAVING))

    def end_surplus(self, now: float) -> None:
        """End the oldest of too many workers that leave; to be called every now and then."""
        self._since = {pid: self._since.get(pid, now) for pid in self._workers(self._LEAVING)}
        ended = surplus(self._since, now)
        for pid in ended:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        if ended:
            say(f"ended {len(ended)} old workers with long connections: more than {MOST_LEAVING} were left")

    def _workers(self, title: str) -> frozenset[int]:
        master = self._master.pid if self._master is not None else 0
        return frozenset(each.pid for each in processes() if each.parent == master and each.title == title)


def surplus(since: Mapping[int, float], now: float) -> Sequence[int]:
    """Which workers are too many, of those that leave, by their process ids: the oldest, but none that may
    still be sent a request on a connection that was kept.
    """
    oldest_first = sorted(since, key=lambda pid: since[pid])
    return [
        pid
        for pid in oldest_first[: max(0, len(since) - MOST_LEAVING)]
        if now - since[pid] >= LEAVING_SECONDS
    ]


class Undertaker:
    """Reaps what lost its parent inside this container and became ours, as the first process must."""

    def __init__(self) -> None:
        self._seen: frozenset[int] = frozenset()

    def look(self) -> None:
        """Reap what has been dead for two looks: our own children are waited for by who started them."""
        dead = frozenset(each.pid for each in processes() if each.parent == os.getpid() and each.state == "Z")
        for pid in dead & self._seen:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        self._seen = dead


# --- what is in use


@dataclass(frozen=True)
class Refusal:
    """A revision that was refused, why, and when (by the clock that is given)."""

    revision: str
    error: str
    time: float


class Proxy:
    """Which configuration is in use, and why not another. `clock` gives seconds."""

    def __init__(self, root: Path, server: Server, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._server = server
        self._clock = clock
        self._reloaded = -RELOAD_INTERVAL
        self._heard: float | None = None
        self._failed_fallback = ""
        self.bundle: Bundle | None = None
        self.is_on_fallback = False
        self.refusal: Refusal | None = None
        self.refusals = 0
        self.reloads = 0
        self.reload_seconds = 0.0

    def begin(self) -> Path:
        """Put the built-in configuration in place; the path that nginx is to be started with."""
        for name in ("log", "builtin"):
            (self._root / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._root / "builtin" / "nginx.conf").write_text(BUILT_IN.format(root=self._root))
        self._link("builtin")
        return self._root / "current" / "nginx.conf"

    @property
    def question(self) -> dict[str, str]:
        """What the controller is told when it is asked: the revision in use, and one that was refused."""
        # On the fallback nothing of the controller's is in use: it is to answer at once.
        have = self.bundle.revision if self.bundle is not None and not self.is_on_fallback else ""
        refusal = self.refusal
        # Left out after a while: it is given again then, and tried.
        if refusal is None or not refusal.revision or self._is_old(refusal):
            return {"have": have}
        return {"have": have, "refused": refusal.revision, "error": refusal.error}

    @property
    def seconds_since_heard(self) -> float | None:
        """Since a controller answered; None before the first time."""
        return None if self._heard is None else self._clock() - self._heard

    @property
    def seconds_to_next_reload(self) -> float:
        """How long to wait before asking: what comes until then is one reload."""
        interval = CALM_INTERVAL if self._server.leaving > MANY_LEAVING else RELOAD_INTERVAL
        return max(0.0, self._reloaded + interval - self._clock())

    def heard(self) -> None:
        """The controller has answered."""
        self._heard = self._clock()

    def missed(self) -> None:
        """The controller has not answered: put the fallback in place where that has lasted too long."""
        bundle = self.bundle
        if bundle is None or self.is_on_fallback or self._failed_fallback == bundle.revision:
            return
        silence = self.seconds_since_heard
        if silence is None or silence < bundle.fallback_seconds:
            return
        say(f"no controller for {silence:.0f} s: addresses come from Docker's DNS from now on")
        name = f"{bundle.revision}-fallback"
        try:
            self._put(name, bundle.fallback, bundle.files)
        except Refused as error:
            # The configuration in use is the better one.
            self._failed_fallback = bundle.revision
            say(f"the fallback was refused: {error}")
            return
        self.is_on_fallback = True
        self._remove_others(name)

    def offer(self, bundle: Bundle) -> bool:
        """Put a bundle of the controller's in place; False where it is refused, now or a moment ago."""
        refusal = self.refusal
        if refusal is not None and refusal.revision == bundle.revision and not self._is_old(refusal):
            return False
        if self.bundle is not None and self.bundle.revision == bundle.revision and not self.is_on_fallback:
            self.refusal = None
            return True
        try:
            self._put(bundle.revision, bundle.nginx, bundle.files)
        except Refused as error:
            self.refuse(bundle.revision, str(error))
            return False
        self.bundle, self.is_on_fallback, self.refusal = bundle, False, None
        self._failed_fallback = ""
        self._remove_others(bundle.revision)
        say(f"configuration {bundle.revision} is in use ({self.reload_seconds:.3f} s)")
        return True

    def refuse(self, revision: str, error: str) -> None:
        """Remember why a bundle is not in use; the controller is told when it is asked next."""
        self.refusals += 1
        self.refusal = Refusal(revision, error[:ERROR_LENGTH], self._clock())
        say(f"configuration {revision} was refused: {error}")

    def _is_old(self, refusal: Refusal) -> bool:
        return self._clock() - refusal.time >= REFUSED_SECONDS

    def _put(self, name: str, nginx: str, files: Mapping[str, str]) -> None:
        """Write, test and take over; what was in place stays so where that fails."""
        folder = self._root / name
        before = (self._root / "current").readlink().name
        start = time.monotonic()
        write_folder(folder, nginx, files)
        try:
            self._server.test(folder / "nginx.conf")
            self._reloaded = self._clock()
            self._take_over(name, before)
        except Refused:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self.reloads += 1
        self.reload_seconds = time.monotonic() - start

    def _take_over(self, name: str, before: str) -> None:
        self._link(name)
        try:
            self._server.reload()
        except Refused:
            self._link(before)
            # It may have been slow only, and use now what is about to be removed.
            with suppress(Refused):
                self._server.reload()
            raise

    def _link(self, name: str) -> None:
        """Let `current` lead to another folder, with no moment in which it leads nowhere."""
        fresh = self._root / "current.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(name)
        fresh.replace(self._root / "current")

    def _remove_others(self, name: str) -> None:
        for folder in self._root.iterdir():
            if folder.name != name and REVISION.fullmatch(folder.name.removesuffix("-fallback")):
                shutil.rmtree(folder, ignore_errors=True)


# --- the controller


@dataclass(frozen=True)
class Settings:
    """Where the controller is, who we are, and the files that prove it."""

    host: str
    port: int
    node: str
    authority: str
    identity: str

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Settings:
        """From SWARMKIT_CONTROLLER (host:port), SWARMKIT_NODE, SWARMKIT_CA (the authority's certificate) and
        SWARMKIT_IDENTITY (our certificate and its key, in one file); raises KeyError or ValueError.
        """
        host, _, port = environment["SWARMKIT_CONTROLLER"].rpartition(":")
        return cls(
            host,
            int(port),
            environment.get("SWARMKIT_NODE", ""),
            environment["SWARMKIT_CA"],
            environment["SWARMKIT_IDENTITY"],
        )


class Controller:
    """Asks whichever controller answers; a connection is kept for the next question."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, question: Mapping[str, str]) -> bytes | None:
        """The JSON of a bundle, or None where there is none but the one we have.

        Raises OSError (ssl.SSLError among them) or http.client.HTTPException where no controller answers,
        or none that can prove to be it.
        """
        try:
            if self._connection is None:
                self._connection = self._connected()
            asked = urlencode({**question, "node": self._settings.node})
            self._connection.request("GET", f"/v1/bundle?{asked}")
            answer = self._connection.getresponse()
            data = answer.read(BUNDLE_BYTES + 1)
            if answer.status not in (200, 204) or len(data) > BUNDLE_BYTES:
                raise http.client.HTTPException(f"HTTP status {answer.status}, {len(data)} bytes")
            if answer.will_close:
                self._close()
        except BaseException:
            self._close()
            raise
        return data if answer.status == 200 else None

    def _connected(self) -> http.client.HTTPConnection:
        """A connection to an address that lets us in; the name is looked up each time."""
        settings = self._settings
        # Read each time: they may have been renewed.
        context = ssl.create_default_context(cafile=settings.authority)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(settings.identity)
        error: OSError = OSError(f"{settings.host} has no address")
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
        # In any order: one that cannot read the swarm lets us in as well, and may not be asked for ever.
        for *_, address in random.sample(found, len(found)):
            host, port = address[:2]
            try:
                plain = socket.create_connection((str(host), int(port)), CONNECT_SECONDS)
            except OSError as failed:
                error = failed
                continue
            try:
                connection = http.client.HTTPConnection(settings.host, settings.port)
                connection.sock = context.wrap_socket(plain, server_hostname=CONTROLLER_NAME)
            except OSError as failed:
                plain.close()
                error = failed
                continue
            connection.sock.settimeout(POLL_SECONDS)
            _notice_death(connection.sock)
            return connection
        raise error

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def _notice_death(connection: socket.socket) -> None:
    """Let a peer that is gone without a word be noticed within 8 s (tcp(7))."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 8000)


class Follower:
    """Keeps a proxy in step with its controller. `ask` is `Controller.ask`, `sleep` takes seconds."""

    def __init__(
        self,
        proxy: Proxy,
        ask: Callable[[Mapping[str, str]], bytes | None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._proxy = proxy
        self._ask = ask
        self._sleep = sleep
        self._failures = 0
        self.error = ""

    def run(self) -> None:
        """For ever; no error ends it."""
        while True:
            try:
                self.step()
            except Exception as error:
                say(f"{type(error).__name__}: {error}")
                self._sleep(BACKOFF_SECONDS[1])

    def step(self) -> None:
        """Ask once, and do what follows from the answer."""
        # Whatever happens while nginx reloads is in the one answer that comes afterwards.
        self._sleep(self._proxy.seconds_to_next_reload)
        try:
            data = self._ask(self._proxy.question)
        except (OSError, http.client.HTTPException) as error:
            self._missed(f"{type(error).__name__}: {error}")
            return
        self._proxy.heard()
        if self.error:
            say("the controller answers")
        self.error, self._failures = "", 0
        if data is None:
            return
        try:
            is_in_use = self._proxy.offer(Bundle.parse(data))
        except Refused as error:
            self._proxy.refuse("", str(error))
            is_in_use = False
        if not is_in_use:
            # It would be given again at once.
            self._sleep(1)

    def _missed(self, error: str) -> None:
        if error != self.error:
            say(f"no answer of the controller: {error}")
        self.error = error
        self._proxy.missed()
        # The first time at once: a controller that ends is replaced by one that is there already.
        if self._failures:
            least, most = BACKOFF_SECONDS
            self._sleep(min(most, least * 2 ** min(self._failures, 16)))
        self._failures += 1


# --- metrics

# Upper bounds of the histograms' buckets, in seconds: four to a doubling, from 1 ms (what nginx tells) to
# more than an hour. What is longer is in one bucket more.
BOUNDS = tuple(float(f"{0.001 * 2 ** (step / 4):g}") for step in range(89))
# Of those, the bounds that Prometheus is told: every doubling.
_TOLD = range(0, len(BOUNDS), 4)
# How a request that was tried at several servers is written: `a, b`, and `a : b` where nginx started anew.
_TRIES = re.compile(r", | : ")
# The statuses that nginx writes for a server that gave no answer.
_NO_ANSWER = ("502", "504")
_CLIENT_GONE = "499"


class Histogram:
    """How long something took: `counts` by the bounds, `total` and `longest` in seconds."""

    __slots__ = ("counts", "longest", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0
        self.longest = 0.0

    def add(self, seconds: float, times: int) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += times
        self.total += seconds * times
        self.longest = max(self.longest, seconds)

    def json(self) -> dict[str, Any]:
        """The buckets that have anything, by their upper bound; `+Inf` for what is beyond all."""
        labels = (*(f"{bound:g}" for bound in BOUNDS), "+Inf")
        buckets = {label: count for label, count in zip(labels, self.counts, strict=True) if count}
        return {"sum": round(self.total, 3), "max": self.longest, "buckets": buckets}


class Upstream:
    """What was sent to one address for one route.

    Failures: no answer, or none in time; errors: an answer of 500 and above. The seconds are those to an
    answer's end; of TCP, those to the connection.
    """

    __slots__ = ("errors", "failures", "last", "requests", "seconds")

    def __init__(self) -> None:
        self.requests = 0
        self.failures = 0
        self.errors = 0
        self.seconds = Histogram()
        self.last = 0.0

    def json(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "failures": self.failures,
            "errors": self.errors,
            "seconds": self.seconds.json(),
        }


class Route:
    """What clients asked of one route.

    `errors` are answers of 500 and above that nginx made because no server gave one (502 and 504 also where
    a server itself said so: they cannot be told apart); `upstream_errors` those that came from a server.
    """

    __slots__ = (
        "aborted",
        "codes",
        "errors",
        "last",
        "requests",
        "retries",
        "seconds",
        "sent",
        "upstream_errors",
        "upstreams",
    )

    def __init__(self) -> None:
        self.requests = 0
        self.codes: dict[str, int] = {}
        self.errors = 0
        self.upstream_errors = 0
        self.aborted = 0
        self.retries = 0
        self.sent = 0
        self.seconds = Histogram()
        self.upstreams: dict[str, Upstream] = {}
        self.last = 0.0

    def json(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "codes": dict(sorted(self.codes.items())),
            "errors": self.errors,
            "upstream_errors": self.upstream_errors,
            "aborted": self.aborted,
            "retries": self.retries,
            "sent_bytes": self.sent,
            "seconds": self.seconds.json(),
            "upstreams": {address: each.json() for address, each in sorted(self.upstreams.items())},
        }


class Metrics:
    """Counts of requests by route, and within it by the address that they were sent to.

    Fed with the lines of the log format `swarmkit_metrics`: the route's name, $upstream_addr, $status,
    $upstream_status, $request_time, $upstream_response_time and the bytes sent, with tabs between; of TCP,
    `-` for the fourth, $session_time and $upstream_connect_time.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.routes: dict[str, Route] = {}
        self.malformed = 0
        self.lock = threading.Lock()

    def feed(self, data: bytes) -> None:
        """Count the lines in `data`, which are whole.

        Those that differ in times and sizes alone are counted together: a second may have 10,000 of them.
        """
        alike: defaultdict[str, tuple[list[str], list[str], list[str]]] = defaultdict(lambda: ([], [], []))
        malformed = 0
        for line in data.decode(errors="replace").splitlines():
            try:
                head, second, wait, size = line.rsplit("\t", 3)
            except ValueError:
                malformed += 1
                continue
            seconds, waited, sent = alike[head]
            seconds.append(second)
            waited.append(wait)
            sent.append(size)
        now = self._clock()
        with self.lock:
            for head, (seconds, waited, sent) in alike.items():
                try:
                    self._count(Alike.of(head, seconds, waited, sent), now)
                except ValueError:
                    malformed += len(sent)
            self.malformed += malformed

    def forget(self, current: Mapping[str, Mapping[str, str]]) -> None:
        """Drop the addresses that are in no upstream of `current` and had no request for long, and the
        routes that had none and have no address left.
        """
        known = {address for each in current.values() for address in each}
        before = self._clock() - FORGET_SECONDS
        with self.lock:
            for name, route in list(self.routes.items()):
                for address, upstream in list(route.upstreams.items()):
                    if address not in known and upstream.last < before:
                        del route.upstreams[address]
                if not route.upstreams and route.last < before:
                    del self.routes[name]

    def _count(self, alike: Alike, now: float) -> None:
        route = self.routes.setdefault(alike.route, Route())
        number, status = alike.number, alike.status
        route.requests += number
        route.codes[status] = route.codes.get(status, 0) + number
        route.sent += alike.sent
        route.last = now
        for seconds, times in alike.seconds:
            route.seconds.add(seconds, times)
        if status == _CLIENT_GONE:
            route.aborted += number
        elif status >= "500":
            if status == alike.answered[-1] and status not in _NO_ANSWER:
                route.upstream_errors += number
            else:
                route.errors += number
        route.retries += number * (len(alike.addresses) - 1)
        for place, (address, answered) in enumerate(zip(alike.addresses, alike.answered, strict=True)):
            # Where no server is left, nginx writes the upstream's name; and `-` where it needed none.
            if ":" not in address:
                continue
            upstream = route.upstreams.setdefault(address, Upstream())
            upstream.requests += number
            upstream.last = now
            if answered in _NO_ANSWER:
                upstream.failures += number
                continue
            if answered >= "500":
                upstream.errors += number
            for waited, times in alike.waited:
                if (took := waited[place]) is None:
                    upstream.failures += times
                else:
                    upstream.seconds.add(took, times)


@dataclass(frozen=True)
class Alike:
    """Requests of one route that took the same way to the same answer.

    `addresses` are those that were tried, each with its answer in `answered`; `seconds` are the times that
    requests took and how many took each, `waited` the times of each try likewise.
    """

    route: str
    addresses: Sequence[str]
    status: str
    answered: Sequence[str]
    number: int
    sent: int
    seconds: Sequence[tuple[float, int]]
    waited: Sequence[tuple[Sequence[float | None], int]]

    @classmethod
    def of(cls, head: str, seconds: Sequence[str], waited: Sequence[str], sent: Sequence[str]) -> Alike:
        """From the texts of their lines; `head` is what they have in common. Raises ValueError."""
        route, address, status, answered = head.split("\t")
        addresses, answers = _TRIES.split(address), _TRIES.split(answered)
        # Of a connection (TCP) nginx tells no statuses of tries.
        answers += ["-"] * (len(addresses) - len(answers))
        tries = [([_seconds(part) for part in _TRIES.split(text)], n) for text, n in Counter(waited).items()]
        if len(answers) != len(addresses) or any(len(each) != len(addresses) for each, _ in tries):
            raise ValueError(head)
        return cls(
            route,
            addresses,
            status,
            answers,
            len(sent),
            sum(map(int, sent)),
            [(float(text), number) for text, number in Counter(seconds).items()],
            tries,
        )


def _seconds(text: str) -> float | None:
    return None if text == "-" else float(text)


class LogReader:
    """Reads the log of requests as it grows, and has it begun anew before it fills the memory."""

    def __init__(self, path: Path, reopen: Callable[[], None], clock: Callable[[], float]) -> None:
        self._path = path
        self._old = path.with_suffix(".old")
        self._reopen = reopen
        self._clock = clock
        self._rotated: float | None = None
        self._offset = 0
        self._old_offset = 0

    def read(self) -> Iterator[bytes]:
        """What has been written since the last time; each piece ends with a line's end."""
        if self._rotated is not None:
            yield from self._read_old()
        try:
            data, self._offset = _read_from(self._path, self._offset)
        except FileNotFoundError:
            return
        yield data
        if self._offset > METRICS_BYTES and self._rotated is None:
            self._path.rename(self._old)
            self._reopen()
            self._rotated = self._clock()
            self._offset, self._old_offset = 0, self._offset

    def _read_old(self) -> Iterator[bytes]:
        assert self._rotated is not None
        data, self._old_offset = _read_from(self._old, self._old_offset)
        yield data
        if self._clock() - self._rotated > ROTATED_SECONDS:
            self._old.unlink()
            self._rotated = None


def _read_from(path: Path, offset: int) -> tuple[bytes, int]:
    """The whole lines from `offset` on, and where they end."""
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    return whole, offset + len(whole)


def in_flight(sockets: str) -> dict[str, int]:
    """Connections that wait for an answer, by peer, from what `ss -tinHO state established` prints.

    Such have sent something since they last received (ss counts in milliseconds, and leaves a 0 out), or
    have received nothing so far, or have sent what the peer has not acknowledged.
    """
    found: dict[str, int] = {}
    for line in sockets.splitlines():
        words = line.split()
        if len(words) < 4:
            continue
        told = dict(word.split(":", 1) for word in words[4:] if ":" in word)
        number = {
            key: int(told.get(key, "0"))
            for key in ("lastsnd", "lastrcv", "unacked", "bytes_sent", "bytes_received")
        }
        is_first = number["bytes_sent"] and not number["bytes_received"]
        if number["lastsnd"] < number["lastrcv"] or number["unacked"] or is_first:
            found[words[3]] = found.get(words[3], 0) + 1
    return found


def connections(page: str) -> dict[str, int]:
    """The numbers of nginx's stub_status page: active, accepted, handled, requests, reading, writing and
    waiting (ngx_http_stub_status_module).
    """
    numbers = [int(word) for word in re.findall(r"\d+", page)]
    names = ("active", "accepted", "handled", "requests", "reading", "writing", "waiting")
    return dict(zip(names, numbers, strict=False))


# --- what others are told


class Observer:
    """The agent's state as one document, and as Prometheus' text."""

    def __init__(self, node: str, proxy: Proxy, follower: Follower, metrics: Metrics, nginx: Nginx) -> None:
        self._node = node
        self._proxy = proxy
        self._follower = follower
        self._metrics = metrics
        self._nginx = nginx
        self._lock = threading.Lock()
        self._sockets: tuple[float, dict[str, int]] = (-IN_FLIGHT_SECONDS, {})
        self._start = time.monotonic()

    @property
    def is_healthy(self) -> bool:
        """Whether nginx runs, with a configuration of the controller's."""
        return self._nginx.is_alive and self._proxy.bundle is not None

    def in_flight(self) -> dict[str, int]:
        """By address; not asked of the kernel more often than each IN_FLIGHT_SECONDS."""
        with self._lock:
            then, found = self._sockets
            if time.monotonic() - then >= IN_FLIGHT_SECONDS:
                done = subprocess.run(
                    ["ss", "-tinHO", "state", "established"],
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=READER_SECONDS,
                    check=False,
                )
                found = in_flight(done.stdout)
                self._sockets = (time.monotonic(), found)
        return found

    def status(self) -> dict[str, Any]:
        """What /status gives."""
        proxy = self._proxy
        bundle, refusal = proxy.bundle, proxy.refusal
        upstreams = dict(bundle.upstreams) if bundle is not None else {}
        heard = proxy.seconds_since_heard
        with self._metrics.lock:
            routes = {name: route.json() for name, route in sorted(self._metrics.routes.items())}
            addresses = {address for route in self._metrics.routes.values() for address in route.upstreams}
        addresses |= {address for each in upstreams.values() for address in each}
        waiting = self.in_flight()
        return {
            "node": self._node,
            "revision": bundle.revision if bundle is not None else "",
            "fallback": proxy.is_on_fallback,
            "controller": {
                "seconds_ago": None if heard is None else round(heard, 2),
                "error": self._follower.error,
            },
            "refused": None if refusal is None else {"revision": refusal.revision, "error": refusal.error},
            "reloads": proxy.reloads,
            "refusals": proxy.refusals,
            "reload_seconds": round(proxy.reload_seconds, 3),
            "uptime_seconds": round(time.monotonic() - self._start, 1),
            "malformed_lines": self._metrics.malformed,
            "connections": self._connections(),
            "in_flight": {address: waiting[address] for address in sorted(addresses) if address in waiting},
            "upstreams": upstreams,
            "routes": routes,
        }

    def _connections(self) -> dict[str, int]:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stub:
                stub.settimeout(READER_SECONDS)
                stub.connect(str(ROOT / "stub.sock"))
                stub.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = b"".join(iter(lambda: stub.recv(4096), b""))
        except OSError:
            return {}
        return connections(answer.partition(b"\r\n\r\n")[2].decode())

    def prometheus(self) -> str:
        """What /metrics gives."""
        return prometheus(self.status())


def escaped(value: str) -> str:
    """A label's value as Prometheus' text format wants it."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def prometheus(status: Mapping[str, Any]) -> str:
    """The document of /status in Prometheus' text format (version 0.0.4)."""
    lines: list[str] = []

    def head(name: str, kind: str, text: str) -> None:
        lines.extend((f"# HELP swarmkit_lb_{name} {text}", f"# TYPE swarmkit_lb_{name} {kind}"))

    def sample(name: str, value: float, **labels: str) -> None:
        inside = ",".join(f'{key}="{escaped(text)}"' for key, text in labels.items())
        lines.append(f"swarmkit_lb_{name}{{{inside}}} {value}" if inside else f"swarmkit_lb_{name} {value}")

    def histogram(name: str, seconds: Mapping[str, Any], **labels: str) -> None:
        counts = seconds["buckets"]
        so_far = 0
        for index, bound in enumerate(BOUNDS):
            so_far += counts.get(f"{bound:g}", 0)
            if index in _TOLD:
                sample(f"{name}_bucket", so_far, **labels, le=f"{bound:g}")
        everything = sum(counts.values())
        sample(f"{name}_bucket", everything, **labels, le="+Inf")
        sample(f"{name}_sum", seconds["sum"], **labels)
        sample(f"{name}_count", everything, **labels)

    routes: Mapping[str, Any] = status["routes"]
    tasks = {address: task for each in status["upstreams"].values() for address, task in each.items()}
    head("requests_total", "counter", "Requests that clients made, by the status they got.")
    for name, route in routes.items():
        for code, number in route["codes"].items():
            sample("requests_total", number, route=name, code=code)
    head("errors_total", "counter", "Answers of 500 and above, by who made them.")
    for name, route in routes.items():
        sample("errors_total", route["errors"], route=name, source="balancer")
        sample("errors_total", route["upstream_errors"], route=name, source="upstream")
    for key, text in (
        ("aborted", "Requests whose client went before the answer."),
        ("retries", "Further tries at another upstream."),
        ("sent_bytes", "Bytes sent to clients."),
    ):
        head(f"{key}_total", "counter", text)
        for name, route in routes.items():
            sample(f"{key}_total", route[key], route=name)
    head("request_duration_seconds", "histogram", "From a request's first byte to its answer's last.")
    for name, route in routes.items():
        histogram("request_duration_seconds", route["seconds"], route=name)
    each_upstream = [
        (upstream, {"route": name, "upstream": address, "task": tasks.get(address, "")})
        for name, route in routes.items()
        for address, upstream in route["upstreams"].items()
    ]
    for key, text in (
        ("requests", "Tries at an upstream."),
        ("failures", "Tries at an upstream that gave no answer, or none in time."),
        ("errors", "Answers of 500 and above of an upstream."),
    ):
        head(f"upstream_{key}_total", "counter", text)
        for upstream, labels in each_upstream:
            sample(f"upstream_{key}_total", upstream[key], **labels)
    head("upstream_duration_seconds", "histogram", "From the connection to an upstream to its answer's end.")
    for upstream, labels in each_upstream:
        histogram("upstream_duration_seconds", upstream["seconds"], **labels)
    head("upstream_in_flight", "gauge", "Connections to an upstream that wait for an answer.")
    for address, task in tasks.items():
        sample("upstream_in_flight", status["in_flight"].get(address, 0), upstream=address, task=task)
    head("connections", "gauge", "Connections of clients, by state.")
    for state in ("active", "reading", "writing", "waiting"):
        sample("connections", status["connections"].get(state, 0), state=state)
    head("configuration_info", "gauge", "The configuration in use.")
    sample("configuration_info", 1, revision=status["revision"], node=status["node"])
    head("fallback", "gauge", "Whether the configuration for times without a controller is in use.")
    sample("fallback", float(status["fallback"]))
    heard = status["controller"]["seconds_ago"]
    head("controller_silence_seconds", "gauge", "Since the controller answered last.")
    sample("controller_silence_seconds", status["uptime_seconds"] if heard is None else heard)
    for key, text in (("reloads", "Reloads of nginx."), ("refusals", "Configurations that were refused.")):
        head(f"{key}_total", "counter", text)
        sample(f"{key}_total", status[key])
    head("reload_duration_seconds", "gauge", "How long the last configuration took to be in use.")
    sample("reload_duration_seconds", status["reload_seconds"])
    return "\n".join(lines) + "\n"


class Door(ThreadingHTTPServer):
    """Serves /metrics, /status and /healthz to a bounded number of readers at a time.

    Who asks from within the container always gets in: the swarm replaces a proxy that does not say that it is
    well.
    """

    daemon_threads = True

    def __init__(self, address: tuple[str, int], observer: Observer) -> None:
        self.observer = observer
        self._free = threading.BoundedSemaphore(MOST_READERS)
        super().__init__(address, _Reader)

    def process_request(self, request: Any, client_address: Any) -> None:
        if _is_own(client_address) or self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        end = threading.Timer(VISIT_SECONDS, _hang_up, [request])
        end.daemon = True
        end.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            end.cancel()
            if not _is_own(client_address):
                self._free.release()

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            say(f"{type(error).__name__}: {error}")


def _is_own(address: tuple[str, int]) -> bool:
    return address[0] == "127.0.0.1"


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _Reader(BaseHTTPRequestHandler):
    timeout = READER_SECONDS

    def do_GET(self) -> None:
        assert isinstance(self.server, Door)
        observer = self.server.observer
        match self.path.partition("?")[0]:
            case "/metrics":
                self._answer(200, "text/plain; version=0.0.4; charset=utf-8", observer.prometheus())
            case "/status":
                self._answer(200, "application/json", json.dumps(observer.status()))
            case "/healthz" if observer.is_healthy:
                self._answer(200, "text/plain", "ok\n")
            case "/healthz":
                self._answer(503, "text/plain", "nginx has no configuration of the controller's\n")
            case _:
                self._answer(404, "text/plain", "there are /metrics, /status and /healthz\n")

    def _answer(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: the container's log is for clients' requests."""


# --- the process


def for_ever(work: Callable[[], object], seconds: float) -> None:
    """Do a work again and again, so many seconds after each time; what goes wrong is said."""
    while True:
        try:
            work()
        except Exception as error:
            say(f"{type(error).__name__}: {error}")
        time.sleep(seconds)


def count(metrics: Metrics, reader: LogReader) -> None:
    """Feed what has come to the log of requests to the metrics."""
    for data in reader.read():
        metrics.feed(data)


def look_after(metrics: Metrics, undertaker: Undertaker, proxy: Proxy, nginx: Nginx) -> None:
    """Forget addresses that are gone, reap orphans, end old workers."""
    metrics.forget(proxy.bundle.upstreams if proxy.bundle is not None else {})
    undertaker.look()
    nginx.end_surplus(time.monotonic())


def run(environment: Mapping[str, str]) -> int:
    """Be the container's first process, until nginx ends; the exit status."""
    os.umask(0o077)
    try:
        settings = Settings.of(environment)
    except (KeyError, ValueError) as error:
        say(f"SWARMKIT_CONTROLLER, SWARMKIT_CA and SWARMKIT_IDENTITY must be set: {error}")
        return 2
    nginx = Nginx(ROOT / "current" / "nginx.conf")
    proxy = Proxy(ROOT, nginx)
    proxy.begin()
    is_stopping = threading.Event()

    def stop(_number: int, _frame: object) -> None:
        is_stopping.set()
        nginx.signal(signal.SIGQUIT)

    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT):
        signal.signal(number, stop)
    nginx.start()
    if is_stopping.is_set():
        nginx.signal(signal.SIGQUIT)
    follower = Follower(proxy, Controller(settings).ask)
    metrics = Metrics()
    reader = LogReader(ROOT / "log" / "metrics.log", lambda: nginx.signal(signal.SIGUSR1), time.monotonic)
    door = Door(("", PORT), Observer(settings.node, proxy, follower, metrics, nginx))
    undertaker = Undertaker()
    for work in (
        follower.run,
        lambda: for_ever(lambda: count(metrics, reader), METRICS_SECONDS),
        lambda: for_ever(lambda: look_after(metrics, undertaker, proxy, nginx), LOOK_SECONDS),
        door.serve_forever,
    ):
        threading.Thread(target=work, daemon=True).start()
    status = nginx.wait()
    if is_stopping.is_set():
        return 0
    say(f"nginx has ended with status {status}")
    return 1


def ask_own(path: str) -> tuple[int, str]:
    """What the agent that runs in this container answers; 0 where none does."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=READER_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return 0, f"the agent does not answer: {error}\n"
    finally:
        connection.close()


def main(arguments: Sequence[str]) -> int:
    """The command; its exit status."""
    match arguments:
        case []:
            return run(os.environ)
        case ["status" | "health" as what]:
            status, text = ask_own("/status" if what == "status" else "/healthz")
            (sys.stdout if status == 200 else sys.stderr).write(text)
            return 0 if status == 200 else 1
        case _:
            sys.stderr.write("usage: agent.py [status|health]\n")
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
