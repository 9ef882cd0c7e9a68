"""Logs of services, from whichever nodes their tasks are on.

`past` gives what has been written, in the order of time; `follow` what is being written, as it comes.
Neither keeps more than a bounded part of it in memory.
"""

from __future__ import annotations

import heapq
import json
import queue
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import IO, TypeVar

from swarmkit.compose.units import duration
from swarmkit.errors import SwarmkitError, Unreachable, UsageError
from swarmkit.remote import Engine, EngineError
from swarmkit.remote.streams import STDERR, STDOUT, SYSTEM_ERROR
from swarmkit.swarm import Service, Task, moment, nodes
from swarmkit.target import Swarm
from swarmkit.ui import Ui

# A connection has few channels (`remote.channels`), and other requests need one.
STREAMS = 3
# How long a manager that is away is asked again before that is an error, and how often.
PATIENCE_SECONDS = 120.0
RETRY_SECONDS = 1.0
# How often it is looked whether the services that are followed are still there.
WATCH_SECONDS = 2.0
# How far back a stream is asked for again: lines of other nodes may be late, and their clocks wrong.
OVERLAP = timedelta(seconds=30)
_REMEMBERED = 20_000
# Lines in memory before they are put aside on the disk, still to be sorted.
_RUN = 20_000
_WAITING_LINES = 1_000
_LINE_BYTES = 1 << 20
_KNOWN = 5_000
# Plain and bold: twelve tasks told apart by six colours that any terminal has.
_COLOURS = [f"{weight}{colour}" for weight in ("", "1;") for colour in (36, 33, 32, 35, 34, 31)]

K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True)
class LogLine:
    """One line of a task's log; `time` is RFC 3339 with nine digits of a second, as the engine gives it."""

    time: str
    source: str
    node: str
    text: str
    service: str
    task: str
    stream: str


@dataclass(frozen=True)
class Range:
    """Which lines: the last `tail` of each task (all for None), none from before `since` or after `until`."""

    tail: int | None = None
    since: datetime | None = None
    until: datetime | None = None


def when(text: str, now: datetime, where: str) -> datetime:
    """A point in time: RFC 3339 (of this machine's zone where it names none), or a duration before `now`.

    Raises UsageError for anything else.
    """
    # Python takes a number alone for a date.
    if not text.isdigit():
        with suppress(ValueError, OverflowError):
            return moment(text).astimezone(UTC)
    try:
        return now - timedelta(microseconds=duration(text) / 1000)
    except (ValueError, OverflowError):
        raise UsageError(
            f'expected a duration such as "10m" or a time such as "2026-01-31T09:30:00Z", got "{text}"',
            where=where,
        ) from None


class Names:
    """What people call the tasks that lines come from, asked of the swarm when first seen."""

    def __init__(self, engine: Callable[[], Engine]) -> None:
        self._engine = engine
        self._nodes: dict[str, str] = {}
        self._places: dict[str, str] = {}

    def node(self, node_id: str) -> str:
        if node_id not in self._nodes:
            self._nodes = {node.id: node.name for node in nodes(self._engine())}
            self._nodes.setdefault(node_id, node_id)
        return self._nodes[node_id]

    def place(self, task_id: str, node_id: str) -> str:
        """The slot of a task; the node's name for one of a global service."""
        if task_id not in self._places:
            try:
                slot = Task.of(self._engine().get(f"/tasks/{task_id}")).slot
                self._places[task_id] = str(slot) if slot is not None else self.node(node_id)
            except EngineError as error:
                if error.status != 404:
                    raise
                # The swarm has forgotten the task, but its lines are still there.
                self._places[task_id] = task_id[:8]
            _trim(self._places)
        return self._places[task_id]


def read(
    engine: Engine, service: Service, wanted: Range, names: Names, warn: Callable[[str], None], follow: bool
) -> Iterator[LogLine]:
    """The lines of a service as the engine sends them: those of one task in order, tasks mixed.

    Raises Unreachable where the stream breaks off.
    """
    has_tty = bool(service.spec["TaskTemplate"]["ContainerSpec"].get("TTY"))
    params: dict[str, str | bool] = {
        "stdout": True,
        "stderr": True,
        "timestamps": True,
        "details": True,
        "follow": follow,
        "tail": "all" if wanted.tail is None else str(wanted.tail),
    }
    if wanted.since is not None:
        params["since"] = f"{max(wanted.since.timestamp(), 0):.6f}"
    frames = engine.frames(f"/services/{service.id}/logs", params, multiplexed=not has_tty)
    for kind, message in _messages(_lines(frames) if has_tty else frames):
        if kind == SYSTEM_ERROR:
            warn(f"{service.name}: {message.decode(errors='replace').strip()}")
            continue
        time, _, rest = message.decode(errors="replace").partition(" ")
        details, _, text = rest.partition(" ")
        task, node = _detail(details, "task.id"), _detail(details, "node.id")
        yield LogLine(
            time=time,
            source=f"{service.name}.{names.place(task, node)}",
            node=names.node(node),
            # Only the end of a line ends it: a progress bar's carriage returns are its own.
            text=text.removesuffix("\n").removesuffix("\r"),
            service=service.name,
            task=task,
            stream="stderr" if kind == STDERR else "stdout",
        )


def _lines(pieces: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Whole lines of a stream that is cut anywhere."""
    rest = b""
    for _, piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield STDOUT, line + b"\n"
        if len(rest) > _LINE_BYTES:
            yield STDOUT, rest
            rest = b""
    if rest:
        yield STDOUT, rest


def _messages(frames: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Messages of a whole line each: the engine cuts long lines, each part with time and details."""
    parts: dict[tuple[int, bytes], bytes] = {}
    for kind, frame in frames:
        head = b" ".join(frame.split(b" ", 2)[1:2])
        first = parts.pop((kind, head), None)
        joined = frame if first is None else first + frame.split(b" ", 2)[-1]
        if frame.endswith(b"\n") or kind == SYSTEM_ERROR or len(joined) > _LINE_BYTES:
            yield kind, joined
        else:
            parts[kind, head] = joined
    for (kind, _), part in parts.items():
        yield kind, part


def _detail(details: str, key: str) -> str:
    """A value of `com.docker.swarm.KEY=value,…`, which the engine puts before each line."""
    for pair in details.split(","):
        name, _, value = pair.partition("=")
        if name == f"com.docker.swarm.{key}":
            return value
    return ""


def past(
    engine: Engine, services: Sequence[Service], wanted: Range, warn: Callable[[str], None]
) -> Iterator[LogLine]:
    """What the services have written, in the order of time."""
    names = Names(lambda: engine)

    def lines() -> Iterator[LogLine]:
        for service in services:
            # The engine knows no end, so that its last lines are not the last until then.
            asked = wanted if wanted.until is None else Range(since=wanted.since)
            some = read(engine, service, asked, names, warn, follow=False)
            if wanted.since is not None:
                some = _since(some, wanted.since)
            yield from some if wanted.until is None else _last_until(some, wanted.until, wanted.tail)

    return in_order(lines())


def _since(lines: Iterable[LogLine], since: datetime) -> Iterator[LogLine]:
    """The engine only looks for the first such line, and an earlier one of the other stream may follow."""
    return (line for line in lines if moment(line.time) >= since)


def _last_until(lines: Iterable[LogLine], until: datetime, tail: int | None) -> Iterator[LogLine]:
    """Of lines up to `until`, the last `tail` of each task."""
    kept: dict[str, deque[LogLine]] = {}
    for line in lines:
        if moment(line.time) > until:
            continue
        if tail is None:
            yield line
        else:
            kept.setdefault(line.task, deque(maxlen=tail)).append(line)
    for some in kept.values():
        yield from some


def in_order(lines: Iterable[LogLine], run: int = _RUN) -> Iterator[LogLine]:
    """Lines by time, however many: each `run` of them is sorted and put aside in a file of nobody's name."""
    source = iter(lines)
    with ExitStack() as files:
        runs: list[Iterator[LogLine]] = []
        while some := sorted(islice(source, run), key=_time):
            if len(some) < run:
                runs.append(iter(some))
                break
            file = files.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8"))
            for line in some:
                file.write(f"{json.dumps(asdict(line))}\n")
            file.seek(0)
            runs.append(_stored(file))
        yield from heapq.merge(*runs, key=_time)


def _stored(file: IO[str]) -> Iterator[LogLine]:
    for line in file:
        yield LogLine(**json.loads(line))


def _time(line: LogLine) -> str:
    # All of one length and in UTC: as text they have the order of time.
    return line.time


class Seen:
    """What has come of a stream, so that it can be taken up again with no line twice and none left out.

    The lines that one task writes to one of its streams come in the order of time; those of both may be
    mixed up by a moment. `start` is when the stream was first asked for.
    """

    def __init__(self, start: datetime, wanted: Range, remembered: int = _REMEMBERED) -> None:
        self._start = start
        self._wanted = wanted
        self._remembered = remembered
        self._recent: deque[tuple[str, tuple[str, str], int]] = deque()
        self._newest = ""
        self._first: dict[tuple[str, str], str] = {}
        self._forgotten: dict[tuple[str, str], str] = {}
        self._again: Counter[int] = Counter()

    def is_news(self, line: LogLine) -> bool:
        """Whether the line has not come before; it then has."""
        key = hash((line.task, line.time, line.stream, line.text))
        if self._again[key] > 0:
            self._again[key] -= 1
            return False
        if self._is_old(line):
            return False
        self._newest = max(self._newest, line.time)
        pipe = (line.task, line.stream)
        for written in (pipe, (line.task, "")):
            self._first.setdefault(written, line.time)
            _trim(self._first)
        self._recent.append((line.time, pipe, key))
        horizon = _text(moment(self._newest) - OVERLAP)
        while self._recent and (len(self._recent) > self._remembered or self._recent[0][0] < horizon):
            stamp, pipe, _ = self._recent.popleft()
            self._forgotten[pipe] = stamp
            _trim(self._forgotten)
        return True

    def _is_old(self, line: LogLine) -> bool:
        """Of what comes again: seen and not remembered, or from before the lines that were asked for."""
        if not self._again:
            return False
        pipe = (line.task, line.stream)
        if line.time <= self._forgotten.get(pipe, ""):
            return True
        if self._wanted.tail is None:
            return False
        # Of a task without a line so far there was none to come first, unless none was asked for.
        unseen = "" if self._wanted.tail else _text(self._start)
        return line.time < self._first.get(pipe, self._first.get((line.task, ""), unseen))

    def rest(self) -> Range:
        """What to ask for after the stream has broken off."""
        self._again = Counter(key for _, _, key in self._recent)
        if not self._newest:
            # Nothing was asked for of before, but the time in between was.
            return Range(since=self._start) if self._wanted.tail == 0 else self._wanted
        since = moment(self._newest) - OVERLAP
        return Range(since=max(since, self._wanted.since or since))


def _text(time: datetime) -> str:
    """As the engine writes it."""
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}000Z"


def _trim(known: dict[K, T]) -> None:
    """Forget the oldest entry of many: tasks come and go."""
    if len(known) > _KNOWN:
        del known[next(iter(known))]


class _Ways:
    """Ways into the swarm, each for STREAMS streams; further ones are opened when they are needed."""

    def __init__(
        self, first: Swarm, more: Callable[[], AbstractContextManager[Swarm]], opened: ExitStack
    ) -> None:
        self._more = more
        self._opened = opened
        # With the services (by id) whose streams each has.
        self._used: list[tuple[Swarm, set[str]]] = [(first, set())]

    def take(self, service_id: str) -> Swarm:
        way, used = next((each for each in self._used if len(each[1]) < STREAMS), (None, set[str]()))
        if way is None:
            way = self._opened.enter_context(self._more())
            self._used.append((way, used))
        used.add(service_id)
        return way

    def give_back(self, service_id: str) -> None:
        for _, used in self._used:
            used.discard(service_id)


def follow(
    swarm: Swarm,
    more: Callable[[], AbstractContextManager[Swarm]],
    services: Sequence[Service],
    wanted: Range,
    warn: Callable[[str], None],
    joins: Callable[[Service], bool] = lambda _: False,
) -> Iterator[LogLine]:
    """What the services have written and write, as it comes, until all of them have been removed.

    A service that is added meanwhile is followed too, from its beginning, if it `joins`. `more` opens
    further ways into the swarm, for more streams than one connection has room for. A stream that breaks off
    is taken up again, through whichever manager answers. Raises the error of the managers that has lasted
    PATIENCE_SECONDS.
    """
    start = moment(swarm.engine.get("/info")["SystemTime"])
    # A service is one that joins; its id says that no more of it comes.
    coming: queue.Queue[LogLine | Exception | Service | str] = queue.Queue(_WAITING_LINES)
    is_over = threading.Event()

    def pump(way: Swarm, service: Service, wanted: Range) -> None:
        try:
            for line in _lasting(way, service, Seen(start, wanted), wanted, warn):
                coming.put(line)
            ways.give_back(service.id)
            coming.put(service.id)
        except Exception as error:
            coming.put(error)

    with ExitStack() as stack:
        stack.callback(is_over.set)
        ways = _Ways(swarm, more, stack)
        left: set[str] = set()

        def begin(service: Service, wanted: Range) -> None:
            left.add(service.id)
            way = ways.take(service.id)
            threading.Thread(target=pump, args=(way, service, wanted), daemon=True).start()

        for service in services:
            begin(service, wanted)
        watching = (swarm, set(left), joins, coming.put, is_over)
        threading.Thread(target=_watch, args=watching, daemon=True).start()
        while left:
            match coming.get():
                case Exception() as error:
                    raise error
                case str() as ended:
                    left.discard(ended)
                case Service() as new:
                    begin(new, Range())
                case line:
                    yield line


def _watch(
    swarm: Swarm,
    known: set[str],
    joins: Callable[[Service], bool],
    tell: Callable[[Service | str], None],
    is_over: threading.Event,
) -> None:
    """Tell which services join those that are known, and which of them have been removed.

    Streams of services that are gone stay open (moby, logbroker).
    """
    engine = swarm.engine
    missing: set[str] = set()
    while not is_over.wait(WATCH_SECONDS):
        try:
            present = [Service.of(raw) for raw in engine.get("/services")]
        except SwarmkitError:
            with suppress(SwarmkitError):
                engine = swarm.reopened()
            continue
        for service in present:
            if service.id not in known and joins(service):
                known.add(service.id)
                tell(service)
        # Those that were missing a while ago: their last lines have come since.
        for service_id in missing:
            tell(service_id)
        known -= missing
        missing = known - {service.id for service in present}


def _lasting(
    way: Swarm, service: Service, seen: Seen, wanted: Range, warn: Callable[[str], None]
) -> Iterator[LogLine]:
    """The lines of one service until it has been removed, through however many streams."""
    engine = way.engine
    names = Names(lambda: engine)
    refused_since: float | None = None
    while True:
        try:
            for line in read(engine, service, wanted, names, warn, follow=True):
                refused_since = None
                if seen.is_news(line):
                    yield line
            engine.get(f"/services/{service.id}")
        except EngineError as error:
            if error.status == 404:
                return
            now = time.monotonic()
            refused_since = refused_since or now
            if now - refused_since > PATIENCE_SECONDS:
                raise
        except Unreachable:
            # Also where nothing was written for long: a connection that is dead looks the same.
            refused_since = None
        wanted = seen.rest()
        engine = _reopened(way, warn)


def _reopened(way: Swarm, warn: Callable[[str], None]) -> Engine:
    """A manager's engine that answers, now or soon."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    warned = False
    while True:
        time.sleep(RETRY_SECONDS)
        try:
            return way.reopened()
        except SwarmkitError as error:
            if time.monotonic() > deadline:
                raise
            if not warned:
                warn(f"no manager answers ({error}); trying again for {PATIENCE_SECONDS:.0f} s")
                warned = True


def show(ui: Ui, lines: Iterable[LogLine], *, follow: bool, timestamps: bool = False) -> None:
    """Print lines as they come, with the task and node that they are from.

    In JSON one document, a list, or one object a line with `follow`.
    """
    if ui.is_json:
        _show_json(ui, iter(lines), follow)
        return
    colours: dict[str, str] = {}
    width = 0
    for line in lines:
        place = line.source if line.source.endswith(f".{line.node}") else f"{line.source}@{line.node}"
        if ui.has_colour:
            width = max(width, len(place))
            colour = colours.setdefault(line.source, _COLOURS[len(colours) % len(_COLOURS)])
            _trim(colours)
            place = f"\x1b[{colour}m{place:<{width}} |\x1b[0m"
        else:
            place = f"{place} |"
        ui.line(f"{place} {line.time} {line.text}" if timestamps else f"{place} {line.text}")


def _show_json(ui: Ui, lines: Iterator[LogLine], follow: bool) -> None:
    if follow:
        for line in lines:
            ui.line(json.dumps(asdict(line), ensure_ascii=False))
        return
    # Never as a whole: logs are longer than memory.
    before = "["
    for line in lines:
        ui.line(before)
        ui.raw(f"  {json.dumps(asdict(line), ensure_ascii=False)}")
        before = ","
    ui.line("[]" if before == "[" else "\n]")
