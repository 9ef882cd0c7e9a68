"""Lines of logs: taken apart, put in order, and followed through streams that break."""

from __future__ import annotations

import io
import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkit.errors import Unreachable, UsageError
from swarmkit.remote import Engine, EngineError
from swarmkit.remote.streams import STDERR, STDOUT, SYSTEM_ERROR
from swarmkit.services import logs
from swarmkit.services.logs import LogLine, Range, Seen, follow, in_order, past, show, when
from swarmkit.swarm import Service
from swarmkit.target import Swarm, Target
from swarmkit.ui import Output, Ui

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
ALL = Range()


def stamp(seconds: float) -> str:
    return f"{NOW + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S.%f}000Z"


def message(task: str, seconds: float, text: str) -> bytes:
    return (
        f"{stamp(seconds)} com.docker.swarm.node.id=n1,com.docker.swarm.service.id=s,"
        f"com.docker.swarm.task.id={task} {text}"
    ).encode()


def service(name: str = "web", tty: bool = False) -> Service:
    container = {"Image": "i", "TTY": tty}
    spec = {"Name": name, "Mode": {"Replicated": {}}, "TaskTemplate": {"ContainerSpec": container}}
    return Service.of({"ID": f"id-{name}", "Spec": spec})


class FakeEngine:
    """A manager's engine with logs; each stream ends, or breaks off, where `cuts` says."""

    def __init__(self, frames: Sequence[tuple[int, bytes]], cuts: Sequence[int | None] = ()) -> None:
        self.messages = list(frames)
        self.cuts = list(cuts)
        self.asked: list[Mapping[str, Any]] = []

    def get(self, path: str) -> Any:
        if path == "/info":
            return {"SystemTime": stamp(0)}
        if path == "/nodes":
            return [
                {
                    "ID": "n1",
                    "Spec": {"Role": "worker", "Availability": "active"},
                    "Description": {"Hostname": "wn1"},
                    "Status": {"State": "ready"},
                }
            ]
        if path.startswith("/tasks/") and path[7:].isdigit():
            return {
                "ID": path[7:],
                "ServiceID": "s",
                "Slot": int(path[7:]),
                "Status": {"State": "running"},
                "DesiredState": "running",
                "Spec": {},
                "CreatedAt": stamp(0),
            }
        raise EngineError("gone", 404)

    def frames(self, _path: str, params: Mapping[str, Any], **_: object) -> Iterator[tuple[int, bytes]]:
        self.asked.append(params)
        since = float(params.get("since", 0))
        chosen = [
            (kind, text)
            for kind, text in self.messages
            if datetime.fromisoformat(text.split()[0].decode()).timestamp() >= since - 1e-6
        ]
        if not self.cuts:
            yield from chosen
            return
        cut = self.cuts.pop(0)
        yield from chosen[:cut]
        if cut is not None:
            raise Unreachable("broke off")


def swarm_of(engine: FakeEngine) -> Swarm:
    return Swarm(Target("test", "test", True), cast("Engine", engine))


def no_warning(text: str) -> None:
    raise AssertionError(text)


def read_past(frames: Sequence[tuple[int, bytes]], wanted: Range = ALL, tty: bool = False) -> list[LogLine]:
    engine = cast("Engine", FakeEngine(frames))
    return list(past(engine, [service(tty=tty)], wanted, no_warning))


def test_a_line_is_told_with_its_task_node_stream_and_time() -> None:
    (line,) = read_past([(STDERR, message("3", 1, "all is  well\n"))])
    assert asdict(line) == {
        "time": stamp(1),
        "source": "web.3",
        "node": "wn1",
        "text": "all is  well",
        "service": "web",
        "task": "3",
        "stream": "stderr",
    }


def test_a_task_that_the_swarm_has_forgotten_still_has_its_lines() -> None:
    (line,) = read_past([(STDOUT, message("abcdefghijkl", 1, "x\n"))])
    assert line.source == "web.abcdefgh"


def test_the_parts_of_a_long_line_are_one_line() -> None:
    found = read_past(
        [
            (STDOUT, message("1", 1, "a long ")),
            (STDERR, message("1", 2, "other\n")),
            (STDOUT, message("2", 3, "between\n")),
            (STDOUT, message("1", 4, "line\n")),
            (STDOUT, message("1", 5, "no end")),
        ]
    )
    assert [line.text for line in found] == ["a long line", "other", "between", "no end"]


def test_carriage_returns_within_a_line_are_its_own() -> None:
    (line,) = read_past([(STDOUT, message("1", 1, "10%\r20%\r100%\n"))])
    assert line.text == "10%\r20%\r100%"


@given(st.lists(st.integers(0, 400), max_size=8))
def test_the_log_of_a_terminal_is_cut_anywhere_and_comes_in_lines(cuts: list[int]) -> None:
    stream = message("1", 1, "one\r\n") + message("2", 2, "two\r\n")
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [(STDOUT, stream[start:end]) for start, end in pairwise(edges)]

    class Cut(FakeEngine):
        def frames(self, *_: Any, **more: Any) -> Iterator[tuple[int, bytes]]:
            assert more == {"multiplexed": False}
            yield from pieces

    found = list(past(cast("Engine", Cut([])), [service(tty=True)], Range(), no_warning))
    assert [(line.task, line.text) for line in found] == [("1", "one"), ("2", "two")]


def test_what_the_engine_says_of_missing_lines_is_a_warning_and_no_line() -> None:
    warnings: list[str] = []

    class Warns(FakeEngine):
        def frames(self, *_: object, **__: object) -> Iterator[tuple[int, bytes]]:
            yield SYSTEM_ERROR, b"error from daemon: node wn2 is not available\n"
            yield STDOUT, message("1", 1, "x\n")

    found = list(past(cast("Engine", Warns([])), [service()], Range(), warnings.append))
    assert [line.text for line in found] == ["x"]
    assert warnings == ["web: error from daemon: node wn2 is not available"]


@given(st.lists(st.integers(0, 50)), st.integers(1, 7))
def test_lines_come_in_the_order_of_time_however_many(times: list[int], run: int) -> None:
    lines = [
        LogLine(stamp(time), "web.1", "wn1", str(n), "web", "1", "stdout") for n, time in enumerate(times)
    ]
    found = list(in_order(lines, run))
    # Those of one time stay in the order in which they came.
    assert found == sorted(lines, key=lambda line: (line.time, int(line.text)))


def test_a_range_ends_where_it_is_told_to_and_its_last_lines_are_the_last_until_then() -> None:
    frames = [(STDOUT, message(str(1 + n % 2), n, f"{n}\n")) for n in range(10)]
    until = NOW + timedelta(seconds=6)
    assert [line.text for line in read_past(frames, Range(until=until))] == list("0123456")
    assert [line.text for line in read_past(frames, Range(tail=2, until=until))] == list("3456")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10m", NOW - timedelta(minutes=10)),
        ("1h30m", NOW - timedelta(minutes=90)),
        ("1.5s", NOW - timedelta(seconds=1.5)),
        ("0", NOW),
        ("2026-01-01T09:30:00Z", datetime(2026, 1, 1, 9, 30, tzinfo=UTC)),
        ("2026-01-01T09:30:00.123456789+02:00", datetime(2026, 1, 1, 7, 30, 0, 123456, tzinfo=UTC)),
        ("2026-01-01", datetime(2026, 1, 1).astimezone(UTC)),
    ],
)
def test_a_time_is_a_duration_ago_or_a_date(text: str, expected: datetime) -> None:
    assert when(text, NOW, "--since") == expected


@pytest.mark.parametrize("text", ["", "soon", "10", "20260101", "10 m", "-5m", "2026-13-01", "9" * 15 + "h"])
def test_a_time_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected a duration") as raised:
        when(text, NOW, "--since")
    assert raised.value.where == "--since"


def followed(engine: FakeEngine, wanted: Range) -> list[LogLine]:
    return list(follow(swarm_of(engine), lambda: nullcontext(swarm_of(engine)), [service()], wanted, print))


@given(
    st.lists(st.tuples(st.sampled_from("123"), st.sampled_from([0, 0, 1, 9, 31])), max_size=30),
    st.lists(st.integers(0, 12), max_size=5),
    st.sampled_from([None, 1000]),
    st.sampled_from([1, 3, 1000]),
)
def test_following_through_streams_that_break_gives_every_line_once(
    some: list[tuple[str, int]], cuts: list[int], tail: int | None, remembered: int
) -> None:
    now, frames = 0, []
    for task, wait in some:
        now += wait
        # Those of task 3 by a clock that is behind. Lines of one time and text are lines of their own.
        frames.append((STDOUT, message(task, now - (20 if task == "3" else 0), "x\n")))
    if remembered < len(frames):
        # What is forgotten is told by its time alone.
        frames = list(dict.fromkeys(frames))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "RETRY_SECONDS", 0)
        patch.setattr(logs, "Seen", partial(Seen, remembered=remembered))
        found = followed(FakeEngine(frames, cuts), Range(tail=tail))
    expected = [text.split() for _, text in frames]
    assert Counter((line.time, line.task) for line in found) == Counter(
        (time.decode(), details.decode().rpartition("=")[2]) for time, details, _ in expected
    )


def test_a_stream_is_taken_up_again_a_while_before_its_newest_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "RETRY_SECONDS", 0)
    frames = [(STDOUT, message("1", second, f"{second}\n")) for second in range(0, 300, 10)]
    engine = FakeEngine(frames, [29])
    assert len(followed(engine, Range(tail=50))) == 30
    first, second = engine.asked
    assert (first["tail"], second["tail"]) == ("50", "all")
    assert float(second["since"]) == pytest.approx((NOW + timedelta(seconds=250)).timestamp())


def test_what_was_not_asked_for_does_not_come_after_a_break_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "RETRY_SECONDS", 0)

    class Tailed(FakeEngine):
        def frames(self, *given: Any, **more: Any) -> Iterator[tuple[int, bytes]]:
            if given[1]["tail"] == "1":
                self.asked.append(given[1])
                yield self.messages[1]
                raise Unreachable("broke off")
            yield from super().frames(*given, **more)

    frames = [(STDOUT, message("1", second, f"{second}\n")) for second in (-2, -1, 1)]
    assert [line.text for line in followed(Tailed(frames), Range(tail=1))] == ["-1", "1"]


def test_streams_of_a_task_that_are_mixed_up_by_a_moment_bring_no_older_line_after_a_break() -> None:
    def line(seconds: float, stream: str) -> LogLine:
        return LogLine(stamp(seconds), "", "", str(seconds), "", "1", stream)

    seen = Seen(NOW, Range(tail=2))
    assert seen.is_news(line(1, "stderr"))
    assert seen.is_news(line(3, "stdout"))
    seen.rest()
    # Written before what was asked for, though after the first line of the other stream.
    assert not seen.is_news(line(2, "stdout"))
    assert not seen.is_news(line(0.5, "stderr"))
    assert seen.is_news(line(4, "stdout"))


def test_a_range_begins_where_it_is_told_to_also_where_streams_are_mixed_up() -> None:
    frames = [(STDOUT, message("1", 2, "b\n")), (STDERR, message("1", 1, "a\n"))]
    found = read_past(frames, Range(since=NOW + timedelta(seconds=2)))
    assert [line.text for line in found] == ["b"]


def test_without_lines_of_before_a_break_loses_none_of_since(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "RETRY_SECONDS", 0)
    frames = [(STDOUT, message("1", second, f"{second}\n")) for second in (-1, 1)]
    assert [line.text for line in followed(FakeEngine(frames, [0]), Range(tail=0))] == ["1"]


def test_what_was_before_the_time_asked_for_does_not_come_after_a_break(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs, "RETRY_SECONDS", 0)
    frames = [(STDOUT, message("1", second, f"{second}\n")) for second in (-10, 1, 2)]
    assert [line.text for line in followed(FakeEngine(frames, [1]), Range(since=NOW))] == ["1", "2"]


def test_a_removed_service_is_followed_no_longer_though_its_stream_stays_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = threading.Event()

    class Open(FakeEngine):
        def get(self, path: str) -> Any:
            return [] if path == "/services" else super().get(path)

        def frames(self, *_: Any, **__: Any) -> Iterator[tuple[int, bytes]]:
            yield from self.messages
            ended.wait(60)

    monkeypatch.setattr(logs, "WATCH_SECONDS", 0.01)
    try:
        assert [line.text for line in followed(Open([(STDOUT, message("1", 1, "x\n"))]), ALL)] == ["x"]
    finally:
        ended.set()


def test_a_service_that_is_added_meanwhile_is_followed_from_its_beginning_if_it_joins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs, "WATCH_SECONDS", 0.01)
    has_begun, has_joined = threading.Event(), threading.Event()
    asked: dict[str, str] = {}

    class Growing(FakeEngine):
        """Has `web`, and later `db` and `other` as well."""

        def get(self, path: str) -> Any:
            if path != "/services":
                return super().get(path)
            more = [service("db"), service("other")] if has_begun.is_set() else []
            return [one.raw for one in (service(), *more)]

        def frames(self, _path: str, params: Mapping[str, Any], **_: object) -> Iterator[tuple[int, bytes]]:
            name = _path.split("/")[2]
            asked[name] = str(params["tail"])
            yield STDOUT, message("1", 1, f"of {name}\n")
            (has_begun if name == "id-web" else has_joined).set()
            assert has_joined.wait(60)

    way = swarm_of(Growing([]))
    found = follow(
        way, lambda: nullcontext(way), [service()], Range(tail=1), no_warning, lambda one: one.name != "other"
    )
    assert {line.text for line in found} == {"of id-web", "of id-db"}
    assert asked == {"id-web": "1", "id-db": "all"}


def test_memory_of_what_has_come_is_bounded() -> None:
    seen = Seen(NOW, Range(), remembered=10)
    for number in range(10_000):
        assert seen.is_news(LogLine(stamp(number / 1000), "", "", str(number), "", str(number), "stdout"))
    assert len(seen._recent) == 10
    assert len(seen._first) <= logs._KNOWN
    assert len(seen._forgotten) <= logs._KNOWN


def test_a_manager_that_answers_no_more_is_an_error_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    class Away(FakeEngine):
        def get(self, path: str) -> Any:
            if path == "/info" and self.asked:
                raise Unreachable("no answer", where="m1")
            return super().get(path)

    monkeypatch.setattr(logs, "RETRY_SECONDS", 0)
    monkeypatch.setattr(logs, "PATIENCE_SECONDS", 0.05)
    engine, warnings = Away([], [0]), list[str]()
    with pytest.raises(Unreachable, match="no answer"):
        list(
            follow(
                swarm_of(engine), lambda: nullcontext(swarm_of(engine)), [service()], Range(), warnings.append
            )
        )
    assert len(warnings) == 1
    assert "no manager answers (m1: no answer)" in warnings[0]


def test_many_services_share_connections_by_threes() -> None:
    are_all_open = threading.Barrier(8)

    class Open(FakeEngine):
        def frames(self, *given: Any, **more: Any) -> Iterator[tuple[int, bytes]]:
            are_all_open.wait(60)
            return super().frames(*given, **more)

    opened = []

    def more() -> nullcontext[Swarm]:
        opened.append(Open([]))
        return nullcontext(swarm_of(opened[-1]))

    first = Open([])
    services = [service(f"s{number}") for number in range(8)]
    assert not list(follow(swarm_of(first), more, services, Range(), no_warning))
    assert [len(engine.asked) for engine in (first, *opened)] == [3, 3, 2]


class Screen(io.StringIO):
    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


LINES = [
    LogLine(stamp(1), "web.1", "wn1", "one", "web", "1", "stdout"),
    LogLine(stamp(2), "lb.wn2", "wn2", "two [b]", "lb", "2", "stdout"),
]


def shown(is_terminal: bool = False, output: Output = Output.TEXT, **options: bool) -> str:
    screen = Screen(is_terminal)
    show(Ui(output, stdout=screen), LINES, **({"follow": False} | options))
    return screen.getvalue()


def test_lines_are_shown_with_task_and_node_and_their_time_if_wanted() -> None:
    assert shown() == "web.1@wn1 | one\nlb.wn2 | two [b]\n"
    assert shown(timestamps=True).splitlines()[0] == f"web.1@wn1 | {stamp(1)} one"


def test_each_task_has_a_colour_on_a_terminal_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" not in shown()
    assert shown(is_terminal=True) == ("\x1b[36mweb.1@wn1 |\x1b[0m one\n\x1b[33mlb.wn2    |\x1b[0m two [b]\n")
    monkeypatch.setenv("NO_COLOR", "1")
    assert shown(is_terminal=True) == shown()
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert shown(is_terminal=True) == shown()


def test_json_is_one_list_or_an_object_a_line_while_following() -> None:
    expected = [asdict(line) for line in LINES]
    assert json.loads(shown(output=Output.JSON)) == expected
    assert [json.loads(line) for line in shown(output=Output.JSON, follow=True).splitlines()] == expected
    screen = Screen(False)
    show(Ui(Output.JSON, stdout=screen), [], follow=False)
    assert json.loads(screen.getvalue()) == []
