"""The proxy's agent without nginx, a controller or a clock of its own."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nginx.agent import (
    BACKOFF_SECONDS,
    BOUNDS,
    CALM_INTERVAL,
    FORGET_SECONDS,
    LEAVING_SECONDS,
    MANY_LEAVING,
    METRICS_BYTES,
    MOST_LEAVING,
    MOST_READERS,
    REFUSED_SECONDS,
    RELOAD_INTERVAL,
    ROTATED_SECONDS,
    Door,
    Follower,
    LogReader,
    Metrics,
    Proxy,
    Refused,
    Settings,
    connections,
    for_ever,
    in_flight,
    prometheus,
    surplus,
    write_folder,
)
from nginx.agent import Controller as Asker


class Clock:
    """Goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Nginx:
    """Takes any configuration but one that says `bad` (to the test) or `stuck` (to the reload)."""

    def __init__(self, root: Path) -> None:
        self._current = root / "current" / "nginx.conf"
        self.loaded: list[str] = []
        self.leaving = 0

    def test(self, configuration: Path) -> None:
        if "bad" in configuration.read_text():
            raise Refused('nginx -t: unknown directive "bad"')

    def reload(self) -> None:
        text = self._current.read_text()
        if "stuck" in text:
            raise Refused("nginx did not take it over")
        self.loaded.append(text)


class Controller:
    """Answers with what it was told to, in turn; an exception is raised."""

    def __init__(self) -> None:
        self.answers: list[bytes | Exception | None] = []
        self.questions: list[dict[str, str]] = []

    def ask(self, question: Mapping[str, str]) -> bytes | None:
        self.questions.append(dict(question))
        answer = self.answers.pop(0) if self.answers else OSError("connection refused")
        if isinstance(answer, Exception):
            raise answer
        return answer


class Rig:
    """A proxy and all that it needs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = Clock()
        self.nginx = Nginx(root)
        self.controller = Controller()
        self.proxy = Proxy(root, self.nginx, self.clock)
        self.proxy.begin()
        self.follower = Follower(self.proxy, self.controller.ask, self.clock.sleep)

    def step(self, *answers: bytes | Exception | None) -> None:
        self.controller.answers = list(answers)
        for _ in answers:
            self.follower.step()

    def miss(self, seconds: float) -> None:
        """No controller answers for so long."""
        until = self.clock.now + seconds
        while self.clock.now < until:
            self.step(OSError("connection refused"))

    @property
    def folders(self) -> set[str]:
        return {each.name for each in self.root.iterdir() if re.match("[0-9a-f]{16}", each.name)}


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def bundle(digit: str = "a", **changed: Any) -> bytes:
    raw = {
        "revision": digit * 16,
        "nginx": f"main {digit}",
        "fallback": f"fallback {digit}",
        "files": {"certs/x.pem": "secret"},
        "upstreams": {"web": {"10.0.1.5:80": "web_web.1 on wn1"}},
        "fallback_seconds": 60,
    }
    return json.dumps(raw | changed).encode()


# --- bundles in folders


def test_a_bundle_is_written_for_its_owner_alone(rig: Rig) -> None:
    rig.step(bundle("a"))
    assert rig.nginx.loaded == ["main a"]
    folder = (rig.root / "current").resolve()
    assert folder.name == "a" * 16
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "certs").stat().st_mode & 0o777 == 0o700
    for name in ("nginx.conf", "certs/x.pem"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    assert (folder / "certs" / "x.pem").read_text() == "secret"


@pytest.mark.parametrize(
    "path",
    ["../x", "a/../../x", "/etc/x", "", "a//b", "a/", ".hidden", "a/..", "nginx.conf", "a\0b", "a\nb", "a b"],
)
def test_a_bundle_with_a_path_that_is_not_plain_is_refused_as_a_whole(rig: Rig, path: str) -> None:
    rig.step(bundle("a"), bundle("b", files={"good": "x", path: "x"}))
    assert rig.nginx.loaded == ["main a"]
    assert rig.folders == {"a" * 16}
    assert rig.proxy.refusal is not None
    assert "not allowed" in rig.proxy.refusal.error


@given(
    st.dictionaries(
        st.text(max_size=20) | st.sampled_from(["..", "a/../..", "a", "a/b"]), st.text(), max_size=4
    )
)
def test_no_file_is_ever_written_outside_of_its_folder(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, str]
) -> None:
    root = tmp_path_factory.mktemp("root")
    try:
        write_folder(root / "inside", "text", files)
        written = {str(each.relative_to(root / "inside")) for each in root.rglob("*") if each.is_file()}
        assert written == {*files, "nginx.conf"}
    except Refused:
        assert not (root / "inside").exists()
    assert {each.name for each in root.iterdir()} <= {"inside"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        bundle(revision="../../etc"),
        bundle(revision="A" * 16),
        bundle(revision=7),
        bundle(nginx=None),
        bundle(files={"a": 1}),
        bundle(files="text"),
        bundle(upstreams={"web": ["10.0.0.1:80"]}),
        bundle(upstreams={"web": {"10.0.0.1:80": None}}),
        bundle(fallback_seconds="soon"),
    ],
)
def test_what_is_no_bundle_is_refused(rig: Rig, data: bytes) -> None:
    rig.step(data)
    assert rig.nginx.loaded == []
    assert rig.proxy.refusals == 1


def test_only_the_folder_in_use_is_kept(rig: Rig) -> None:
    rig.step(bundle("a"), bundle("b"), bundle("c"))
    assert rig.folders == {"c" * 16}


# --- refusals


@pytest.mark.parametrize("text", ["bad", "stuck"])
def test_what_nginx_refuses_is_reported_and_the_last_good_one_stays(rig: Rig, text: str) -> None:
    rig.step(bundle("a"), bundle("b", nginx=text), None)
    assert (rig.root / "current").resolve().name == "a" * 16
    assert rig.folders == {"a" * 16}
    assert rig.nginx.loaded[-1] == "main a"
    told = rig.controller.questions[-1]
    assert (told["have"], told["refused"]) == ("a" * 16, "b" * 16)
    assert "nginx" in told["error"]
    rig.step(bundle("c"), None)
    assert rig.controller.questions[-1] == {"have": "c" * 16}


def test_a_configuration_that_nginx_was_too_slow_with_does_not_stay_in_use(rig: Rig) -> None:
    rig.step(bundle("a"), bundle("b", nginx="stuck"))
    assert rig.nginx.loaded == ["main a", "main a"]


def test_a_refused_bundle_is_tried_again_but_not_at_once(rig: Rig) -> None:
    rig.step(bundle("b", nginx="bad"))
    before = rig.clock.now
    rig.step(bundle("b", nginx="bad"))
    assert rig.proxy.refusals == 1
    # A controller that gives it again and again is not asked without a pause.
    assert rig.clock.now - before >= 1
    rig.clock.sleep(REFUSED_SECONDS)
    rig.step(bundle("b"))
    # A controller does not give again what it is told was refused.
    assert "refused" not in rig.controller.questions[-1]
    assert rig.nginx.loaded == ["main b"]
    assert rig.proxy.refusal is None


# --- without a controller


def test_the_fallback_is_put_in_place_only_after_its_time(rig: Rig) -> None:
    rig.step(bundle("a"))
    rig.miss(55)
    assert rig.nginx.loaded == ["main a"]
    rig.miss(8)
    assert rig.nginx.loaded == ["main a", "fallback a"]
    assert rig.proxy.is_on_fallback
    rig.miss(300)
    assert rig.nginx.loaded == ["main a", "fallback a"]


def test_the_configuration_is_put_back_when_the_controller_answers(rig: Rig) -> None:
    rig.step(bundle("a"))
    rig.miss(70)
    rig.step(bundle("a"))
    # It says that it has none, so that it is answered at once.
    assert rig.controller.questions[-1]["have"] == ""
    assert rig.nginx.loaded == ["main a", "fallback a", "main a"]
    assert not rig.proxy.is_on_fallback
    assert rig.folders == {"a" * 16}


def test_any_answer_of_the_controller_puts_the_fallback_off(rig: Rig) -> None:
    rig.step(bundle("a"))
    for _ in range(5):
        rig.miss(40)
        rig.step(None)
    assert rig.nginx.loaded == ["main a"]


def test_a_fallback_that_nginx_refuses_leaves_what_is_there(rig: Rig) -> None:
    rig.step(bundle("a", fallback="bad"))
    rig.miss(200)
    assert rig.nginx.loaded == ["main a"]
    assert (rig.root / "current").resolve().name == "a" * 16
    assert not rig.proxy.is_on_fallback


def test_without_any_bundle_there_is_no_fallback(rig: Rig) -> None:
    rig.miss(200)
    assert rig.nginx.loaded == []
    assert "503" in (rig.root / "current" / "nginx.conf").read_text()


def test_a_controller_that_goes_is_asked_again_at_once_and_then_at_bounded_intervals(rig: Rig) -> None:
    rig.step(bundle("a"))
    rig.clock.sleep(10)
    waits = []
    for _ in range(20):
        before = rig.clock.now
        rig.step(OSError("gone"))
        waits.append(round(rig.clock.now - before, 3))
    assert waits[0] == 0
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(BACKOFF_SECONDS[1])


def test_reloads_keep_their_distance(rig: Rig) -> None:
    rig.step(bundle("a"), bundle("b"), bundle("c"))
    assert rig.clock.now - 1000 >= 2 * RELOAD_INTERVAL


def test_with_many_old_workers_reloads_are_rarer(rig: Rig) -> None:
    rig.nginx.leaving = MANY_LEAVING + 1
    rig.step(bundle("a"), bundle("b"), bundle("c"))
    assert rig.clock.now - 1000 >= 2 * CALM_INTERVAL


def test_of_too_many_old_workers_the_oldest_end_but_none_that_has_just_begun_to_leave() -> None:
    since = {1000 - age: float(-age) for age in range(MOST_LEAVING + 3)}
    assert set(surplus(since, LEAVING_SECONDS)) == {
        1000 - age for age in range(MOST_LEAVING, MOST_LEAVING + 3)
    }
    assert surplus(since, LEAVING_SECONDS - MOST_LEAVING - 10) == []
    assert surplus({1: 0.0}, 1e9) == []


def test_an_error_that_nobody_thought_of_ends_nothing(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    class Enough(BaseException):
        pass

    steps = iter([RuntimeError("odd\nerror"), None])

    def ask(_question: Mapping[str, str]) -> bytes | None:
        found = next(steps, Enough())
        if isinstance(found, BaseException):
            raise found
        return found

    with pytest.raises(Enough):
        Follower(rig.proxy, ask, rig.clock.sleep).run()
    assert capsys.readouterr().err == "agent: RuntimeError: odd error\n"


def test_work_that_goes_wrong_once_is_done_again(capsys: pytest.CaptureFixture[str]) -> None:
    class Enough(BaseException):
        pass

    errors = iter([RuntimeError("odd"), OSError("odder"), Enough()])

    def work() -> None:
        raise next(errors)

    with pytest.raises(Enough):
        for_ever(work, 0)
    assert capsys.readouterr().err == "agent: RuntimeError: odd\nagent: OSError: odder\n"


def test_settings_come_from_the_environment() -> None:
    found = Settings.of(
        {"SWARMKIT_CONTROLLER": "controller:9443", "SWARMKIT_CA": "/ca", "SWARMKIT_IDENTITY": "/me"}
    )
    assert (found.host, found.port, found.authority, found.identity) == ("controller", 9443, "/ca", "/me")
    with pytest.raises(KeyError):
        Settings.of({"SWARMKIT_CONTROLLER": "controller:9443"})


def test_no_controller_is_always_the_first_to_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def refuse(address: tuple[str, int], _timeout: float) -> None:
        tried.append(address[0])
        raise ConnectionRefusedError

    found = [(2, 1, 6, "", (f"10.0.0.{number}", 9443)) for number in range(5)]
    monkeypatch.setattr("nginx.agent.ssl.create_default_context", lambda **_: MagicMock())
    monkeypatch.setattr("nginx.agent.socket.getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr("nginx.agent.socket.create_connection", refuse)
    for _ in range(20):
        with pytest.raises(ConnectionRefusedError):
            Asker(Settings("controller", 9443, "n1", "/ca", "/me")).ask({"have": ""})
    assert {*tried[:5]} == {address[0] for *_, address in found}
    assert len({*tried[::5]}) > 1


# --- counting


def line(*fields: object) -> bytes:
    return "\t".join(map(str, fields)).encode() + b"\n"


A, B = "10.0.1.5:80", "10.0.1.6:80"


def counted(*lines: bytes) -> Metrics:
    metrics = Metrics(Clock())
    metrics.feed(b"".join(lines))
    return metrics


def test_requests_are_counted_by_route_and_by_address() -> None:
    metrics = counted(
        line("web", A, 200, 200, "0.010", "0.009", 100),
        line("web", B, 404, 404, "0.020", "0.019", 50),
        line("api", B, 200, 200, "1.500", "1.400", 7),
    )
    web = metrics.routes["web"].json()
    assert (web["requests"], web["codes"], web["sent_bytes"]) == (2, {"200": 1, "404": 1}, 150)
    assert (web["errors"], web["upstream_errors"], web["retries"]) == (0, 0, 0)
    assert {address: each["requests"] for address, each in web["upstreams"].items()} == {A: 1, B: 1}
    assert web["seconds"]["max"] == 0.02
    assert web["upstreams"][A]["seconds"]["sum"] == 0.009
    assert metrics.routes["api"].json()["seconds"]["max"] == 1.5


def test_a_request_that_was_tried_again_counts_a_failure_of_the_first_server() -> None:
    web = (
        counted(line("web", f"{A}, {B}", 200, "502, 200", "0.015", "0.002, 0.012", 100)).routes["web"].json()
    )
    assert (web["requests"], web["errors"], web["retries"]) == (1, 0, 1)
    first, second = web["upstreams"][A], web["upstreams"][B]
    assert (first["requests"], first["failures"], first["seconds"]["sum"]) == (1, 1, 0)
    assert (second["requests"], second["failures"], second["seconds"]["sum"]) == (1, 0, 0.012)


@pytest.mark.parametrize(
    ("fields", "errors", "upstream_errors"),
    [
        ((A, 500, 500), 0, 1),
        ((A, 502, 502), 1, 0),
        ((A, 504, 504), 1, 0),
        (("-", 503, "-"), 1, 0),
        (("web_web", 502, 502), 1, 0),
        ((f"{A}, {B}", 500, "504, 500"), 0, 1),
        ((f"{A}, web_web", 502, "502, 502"), 1, 0),
        ((f"{A} : {B}", 200, "404 : 200"), 0, 0),
    ],
)
def test_errors_of_ours_are_told_from_those_of_a_server(
    fields: tuple[str, int, str], errors: int, upstream_errors: int
) -> None:
    address, status, answered = fields
    waited = re.sub(r"[^,: ][^, ]*(?=, | : |$)", "0.001", address) if ":" in address else "0.000"
    metrics = counted(line("web", address, status, answered, "0.002", waited, 10))
    assert metrics.malformed == 0
    web = metrics.routes["web"].json()
    assert (web["errors"], web["upstream_errors"]) == (errors, upstream_errors)
    assert set(web["upstreams"]) <= {A, B}


def test_a_client_that_went_away_is_no_error() -> None:
    web = counted(line("web", A, 499, "-", "2.000", "2.000", 0)).routes["web"].json()
    assert (web["aborted"], web["errors"], web["upstream_errors"]) == (1, 0, 0)
    assert web["upstreams"][A]["failures"] == 0


def test_a_tcp_connection_has_no_status_of_its_tries() -> None:
    db = counted(line("db", f"{A}, {B}", 200, "-", "60.000", "-, 0.001", 10)).routes["db"].json()
    assert (db["requests"], db["retries"], db["errors"]) == (1, 1, 0)
    assert {address: each["failures"] for address, each in db["upstreams"].items()} == {A: 1, B: 0}


def test_lines_of_another_form_are_counted_as_such() -> None:
    metrics = counted(
        b"\n",
        b"nonsense\n",
        line("web", B, 200, 200, "soon", "0.001", 10),
        line("web", B, 200, 200, "0.001", "0.001", "many"),
        line("web", f"{A}, {B}", 200, "502, 200", "0.001", "0.001", 10),
        line("web", A, 200, 200, "0.001", "0.001", 10),
    )
    assert metrics.malformed == 5
    assert metrics.routes["web"].requests == 1


@given(st.binary())
def test_no_bytes_in_the_log_are_an_error(data: bytes) -> None:
    Metrics().feed(data)


@given(st.lists(st.tuples(st.sampled_from([A, B]), st.integers(0, 10_000_000)), max_size=30))
def test_every_request_is_in_one_bucket_that_holds_its_time(requests: list[tuple[str, int]]) -> None:
    metrics = counted(
        *(line("web", address, 200, 200, f"{ms / 1000:.3f}", "0.000", 1) for address, ms in requests)
    )
    expected: dict[str, int] = {}
    for _, ms in requests:
        label = next((f"{bound:g}" for bound in BOUNDS if ms / 1000 <= bound), "+Inf")
        expected[label] = expected.get(label, 0) + 1
    seconds = metrics.routes["web"].json()["seconds"] if requests else {"buckets": {}}
    assert seconds["buckets"] == expected


def test_buckets_have_labels_of_their_own() -> None:
    assert len({f"{bound:g}" for bound in BOUNDS}) == len(BOUNDS)
    assert list(BOUNDS) == sorted(BOUNDS)


def test_addresses_that_are_gone_are_forgotten_after_a_while() -> None:
    clock = Clock()
    metrics = Metrics(clock)
    metrics.feed(
        line("web", A, 200, 200, "0.001", "0.001", 1) + line("old", B, 200, 200, "0.001", "0.001", 1)
    )
    clock.sleep(FORGET_SECONDS - 1)
    metrics.forget({"web": {A: "web.1 on wn1"}})
    assert set(metrics.routes) == {"web", "old"}
    clock.sleep(2)
    metrics.forget({"web": {A: "web.1 on wn1"}})
    assert set(metrics.routes) == {"web"}
    assert set(metrics.routes["web"].upstreams) == {A}


# --- the log in memory


def test_the_log_is_read_as_it_grows_and_lines_are_never_cut(tmp_path: Path) -> None:
    log = tmp_path / "metrics.log"
    reader = LogReader(log, lambda: None, Clock())
    assert b"".join(reader.read()) == b""
    log.write_bytes(b"one\ntw")
    assert b"".join(reader.read()) == b"one\n"
    with log.open("ab") as file:
        file.write(b"o\nthree\n")
    assert b"".join(reader.read()) == b"two\nthree\n"


def test_a_log_that_has_grown_is_begun_anew_and_nothing_is_lost(tmp_path: Path) -> None:
    log, clock = tmp_path / "metrics.log", Clock()
    reopened = []
    reader = LogReader(log, lambda: reopened.append(True), clock)
    big = b"x" * 99 + b"\n"
    log.write_bytes(big * (METRICS_BYTES // 100 + 1))
    assert len(b"".join(reader.read())) > METRICS_BYTES
    assert reopened == [True]
    assert not log.exists()
    # A worker of before still has the old file open.
    old = tmp_path / "metrics.old"
    with old.open("ab") as file:
        file.write(b"late\n")
    log.write_bytes(b"new\n")
    assert b"".join(reader.read()) == b"late\nnew\n"
    clock.sleep(ROTATED_SECONDS + 1)
    assert b"".join(reader.read()) == b""
    assert not old.exists()


# --- what is under way


def test_connections_that_wait_for_an_answer_are_told_from_idle_ones() -> None:
    sockets = "\n".join(
        (
            # Sent 1.2 s ago, received last 5 s ago.
            f"0 0 10.0.1.9:40000 {A} cubic bytes_sent:900 bytes_received:800 lastsnd:1200 lastrcv:5000",
            # Has sent its first request.
            f"0 0 10.0.1.9:40002 {A} cubic bytes_sent:90 lastsnd:3 lastrcv:3",
            # The peer is silent.
            f"0 90 10.0.1.9:40004 {B} cubic unacked:1 bytes_sent:90 bytes_received:10 lastsnd:9 lastrcv:9",
            # Has its answer.
            f"0 0 10.0.1.9:40006 {B} cubic bytes_sent:90 bytes_received:100 lastsnd:20 lastrcv:18",
            # Has sent nothing yet.
            f"0 0 10.0.1.9:40008 {B} cubic lastsnd:20 lastrcv:20",
            "",
            "nonsense",
        )
    )
    assert in_flight(sockets) == {A: 2, B: 1}


def test_the_page_of_stub_status_is_read() -> None:
    page = (
        "Active connections: 3 \nserver accepts handled requests\n 10 11 12 \n"
        "Reading: 0 Writing: 1 Waiting: 2 \n"
    )
    assert connections(page) == {
        "active": 3,
        "accepted": 10,
        "handled": 11,
        "requests": 12,
        "reading": 0,
        "writing": 1,
        "waiting": 2,
    }


# --- who asks


@contextmanager
def door() -> Iterator[tuple[str, int]]:
    """The address of one of a proxy that is well."""
    well = MagicMock(is_healthy=True)
    with Door(("127.0.0.1", 0), well) as server:
        running = threading.Thread(target=server.serve_forever, args=(0.01,))
        running.start()
        try:
            yield "127.0.0.1", server.server_address[1]
        finally:
            server.shutdown()
            running.join()


def visitor(address: tuple[str, int], source: str) -> socket.socket:
    return socket.create_connection(address, timeout=10, source_address=(source, 0))


def health(address: tuple[str, int], source: str) -> bytes:
    with visitor(address, source) as one:
        try:
            one.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            return one.recv(100)
        except ConnectionError:
            return b""


def test_strangers_cannot_keep_the_proxy_s_own_health_check_out() -> None:
    with door() as address, ExitStack() as strangers:
        assert b" 200 " in health(address, "127.0.0.2")
        for _ in range(MOST_READERS + 4):
            strangers.enter_context(visitor(address, "127.0.0.2"))
        assert health(address, "127.0.0.2") == b""
        assert b" 200 " in health(address, "127.0.0.1")


def test_who_never_comes_to_the_end_of_a_question_has_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nginx.agent.VISIT_SECONDS", 0.2)
    with door() as address, visitor(address, "127.0.0.2") as dripping, suppress(ConnectionError):
        for _ in range(1000):
            dripping.sendall(b"x")
            dripping.settimeout(0.01)
            with suppress(TimeoutError):
                assert dripping.recv(1) == b""
                return
        pytest.fail("it may still send")


# --- Prometheus


def document(metrics: Metrics, **changed: Any) -> dict[str, Any]:
    return {
        "node": "wn1",
        "revision": "a" * 16,
        "fallback": False,
        "controller": {"seconds_ago": 1.5, "error": ""},
        "refused": None,
        "reloads": 3,
        "refusals": 0,
        "reload_seconds": 0.12,
        "uptime_seconds": 77,
        "malformed_lines": 0,
        "connections": {"active": 3, "reading": 0, "writing": 1, "waiting": 2},
        "in_flight": {A: 2},
        "upstreams": {"web": {A: "web_web.1 on wn1"}},
        "routes": {name: route.json() for name, route in metrics.routes.items()},
    } | changed


_SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)')


def samples(text: str) -> dict[tuple[str, str], float]:
    """What a reader of the format finds; fails on a line that it could not read."""
    found: dict[tuple[str, str], float] = {}
    families: set[str] = set()
    for each in text.splitlines():
        if each.startswith("# TYPE "):
            name = each.split()[2]
            assert name not in families, f"{name} comes twice"
            families.add(name)
        if each.startswith("#"):
            continue
        match = _SAMPLE.fullmatch(each)
        assert match, each
        name, labels, value = match.groups()
        assert name in families or re.sub("_(bucket|sum|count)$", "", name) in families, name
        assert (name, labels or "") not in found, each
        found[name, labels or ""] = float(value)
    return found


def test_prometheus_is_told_counters_and_cumulative_histograms() -> None:
    metrics = counted(
        line("web", A, 200, 200, "0.010", "0.009", 100),
        line("web", A, 200, 200, "0.100", "0.090", 100),
        line("web", A, 500, 500, "9999.000", "0.001", 100),
    )
    found = samples(prometheus(document(metrics)))
    assert found["swarmkit_lb_requests_total", 'route="web",code="200"'] == 2
    assert found["swarmkit_lb_errors_total", 'route="web",source="upstream"'] == 1
    assert found["swarmkit_lb_upstream_in_flight", f'upstream="{A}",task="web_web.1 on wn1"'] == 2
    assert found["swarmkit_lb_configuration_info", f'revision="{"a" * 16}",node="wn1"'] == 1
    name = "swarmkit_lb_request_duration_seconds"
    assert found[f"{name}_bucket", 'route="web",le="0.008"'] == 0
    assert found[f"{name}_bucket", 'route="web",le="0.016"'] == 1
    assert found[f"{name}_bucket", 'route="web",le="0.128"'] == 2
    assert found[f"{name}_bucket", 'route="web",le="+Inf"'] == 3
    assert found[f"{name}_count", 'route="web"'] == 3


def test_large_counts_are_told_whole() -> None:
    metrics = counted(line("web", A, 200, 200, "0.010", "0.009", 123_456_789))
    assert (
        samples(prometheus(document(metrics)))["swarmkit_lb_sent_bytes_total", 'route="web"'] == 123_456_789
    )


@given(st.text(), st.text())
def test_any_name_can_be_read_back(node: str, task: str) -> None:
    text = prometheus(document(counted(), node=node, upstreams={"web": {A: task}}, in_flight={}))
    samples(re.sub("[\x0b\x0c\x1c-\x1e\x85\u2028\u2029\r]", " ", text))
