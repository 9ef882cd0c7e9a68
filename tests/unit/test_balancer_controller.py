"""The controller follows a swarm, and gives proxies what follows from it."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError, ClientSession, UnixConnector

from swarmkit.balancer import controller, filter, serving
from swarmkit.balancer.bundle import Bundle
from swarmkit.balancer.identity import (
    AUTHORITY_FILE,
    CONTROLLER_NAME,
    IDENTITY_FILE,
    PROXY_NAME,
)
from swarmkit.balancer.nginx import DEFAULT_CERTIFICATE, Configuration
from swarmkit.balancer.reading import Event, Reader
from swarmkit.balancer.watching import Replaced, Watcher
from swarmkit.images.ca import Authority, Issued, self_signed
from tests.unit.simulatedswarm import EDGE, SimulatedSwarm

SECONDS = 10.0
_ISSUED = self_signed("x")
SECRETS = {DEFAULT_CERTIFICATE: _ISSUED.certificate + _ISSUED.key}


class Followed:
    """A watcher of a simulated swarm, and what it has published."""

    def __init__(self, swarm: SimulatedSwarm, own: tuple[str, str] | None = None) -> None:
        self.swarm = swarm
        self.reader = Reader(swarm.socket)
        self.published: list[Configuration] = []
        self.watcher = Watcher(self.reader, SECRETS, self.published.append, own)

    @property
    def addresses(self) -> list[str]:
        """All that requests are sent to."""
        if not self.published:
            return []
        upstreams = self.published[-1].bundle.upstreams
        return sorted(address for each in upstreams.values() for address in each)

    async def until(self, condition: Callable[[], bool]) -> None:
        await until(condition, lambda: f"addresses {self.addresses}, {self.watcher.status()}")


async def until(condition: Callable[[], bool], explain: Callable[[], object] = lambda: "") -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, explain()
        await asyncio.sleep(0.005)


@asynccontextmanager
async def following(folder: Path, prepare: Callable[[SimulatedSwarm], object]) -> AsyncIterator[Followed]:
    swarm = SimulatedSwarm(folder)
    prepare(swarm)
    async with swarm.running():
        followed = Followed(swarm)
        running = asyncio.create_task(followed.watcher.run())
        try:
            await followed.until(lambda: bool(followed.published) and swarm.listeners == 1)
            yield followed
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            await followed.reader.close()


def web(swarm: SimulatedSwarm, count: int = 2) -> str:
    service = swarm.service("web_web", count)
    for slot in range(1, count + 1):
        swarm.task(service, slot)
    return service


def test_what_runs_is_sent_requests(tmp_path: Path) -> None:
    async def run() -> None:
        async with following(tmp_path, web) as followed:
            assert followed.addresses == ["10.0.1.2:80", "10.0.1.3:80"]

    asyncio.run(run())


def test_the_filter_lets_everything_through_that_is_asked_for(tmp_path: Path) -> None:
    async def run() -> None:
        swarm = SimulatedSwarm(tmp_path)
        service = web(swarm)
        async with swarm.running():
            runner = await filter.serve(swarm.socket, tmp_path / "filter.sock")
            reader = Reader(tmp_path / "filter.sock")
            events = reader.events()
            assert await anext(events) is None
            assert [one.name for one in await reader.services()] == ["web_web"]
            assert [one.id for one in await reader.services([service])] == [service]
            assert len(await reader.tasks([service])) == 2
            # As many as a swarm may have.
            assert len(await reader.tasks([service, *(f"{number:025}" for number in range(2500))])) == 2
            assert [one.name for one in await reader.nodes()] == ["n1", "n2"]
            assert await reader.edge_id() == EDGE
            await until(lambda: swarm.listeners == 1)
            swarm.tell("node", "n1")
            assert await anext(events) == Event("node", "n1")
            await events.aclose()
            await reader.close()
            await runner.cleanup()

    asyncio.run(run())


def test_a_new_task_enters_once_it_runs(tmp_path: Path) -> None:
    async def run() -> None:
        async with following(tmp_path, web) as followed:
            swarm = followed.swarm
            swarm.services["id-web_web"]["Spec"]["Mode"]["Replicated"]["Replicas"] = 3
            task = swarm.task("id-web_web", 3, "starting")
            swarm.tell("service", "id-web_web")
            await followed.until(lambda: followed.watcher.status()["in_transition"] == 1)
            assert len(followed.addresses) == 2
            # Its health check has succeeded; nothing tells of that.
            swarm.tasks[task]["Status"]["State"] = "running"
            await followed.until(lambda: followed.addresses == [f"10.0.1.{n}:80" for n in (2, 3, 4)])

    asyncio.run(run())


def test_a_task_leaves_when_it_is_told_to_stop_though_it_still_runs(tmp_path: Path) -> None:
    async def run() -> None:
        async with following(tmp_path, web) as followed:
            swarm = followed.swarm
            task = next(iter(swarm.tasks.values()))
            task["DesiredState"] = "shutdown"
            swarm.services["id-web_web"]["Spec"]["Mode"]["Replicated"]["Replicas"] = 1
            swarm.tell("service", "id-web_web")
            await followed.until(lambda: followed.addresses == ["10.0.1.3:80"])

    asyncio.run(run())


def test_a_drained_node_is_followed(tmp_path: Path) -> None:
    async def run() -> None:
        async with following(tmp_path, web) as followed:
            swarm = followed.swarm
            for task in swarm.tasks.values():
                task["DesiredState"] = "shutdown"
            swarm.task("id-web_web", 1, node="n2")
            swarm.tell("node", "n1")
            await followed.until(lambda: followed.addresses == ["10.0.1.4:80"])

    asyncio.run(run())


def test_a_task_that_fails_is_found_without_any_event(tmp_path: Path) -> None:
    async def run() -> None:
        async with following(tmp_path, web) as followed:
            next(iter(followed.swarm.tasks.values()))["DesiredState"] = "shutdown"
            await followed.until(lambda: followed.addresses == ["10.0.1.3:80"])

    asyncio.run(run())


def test_routes_come_and_go(tmp_path: Path) -> None:
    async def run() -> None:
        async with following(tmp_path, web) as followed:
            swarm = followed.swarm
            swarm.service("other", 1, host="other.example")
            swarm.task("id-other")
            swarm.tell("service", "id-other")
            await followed.until(lambda: len(followed.published[-1].routes) == 2)
            await followed.until(lambda: "10.0.1.4:80" in followed.addresses)
            del swarm.services["id-other"]
            swarm.tell("service", "id-other")
            await followed.until(lambda: len(followed.published[-1].routes) == 1)
            # One that asks for nothing any more, too.
            swarm.services["id-web_web"]["Spec"]["Labels"] = {}
            swarm.tell("service", "id-web_web")
            await followed.until(lambda: followed.addresses == [])

    asyncio.run(run())


def test_without_a_leader_the_last_configuration_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run() -> None:
        async with following(tmp_path, web) as followed:
            swarm = followed.swarm
            swarm.leaderless = True
            swarm.tell("node", "n1")
            await followed.until(lambda: "leader" in followed.watcher.status()["reading"]["problem"])
            count = len(swarm.asked)
            await followed.until(lambda: len(swarm.asked) > count + 2)
            assert followed.addresses == ["10.0.1.2:80", "10.0.1.3:80"]
            next(iter(swarm.tasks.values()))["DesiredState"] = "shutdown"
            swarm.leaderless = False
            await followed.until(lambda: followed.addresses == ["10.0.1.3:80"])
            assert followed.watcher.status()["reading"]["problem"] == ""

    asyncio.run(run())
    said = capsys.readouterr().err
    assert said.count("the last configuration stays") == 1
    assert said.count("the swarm answers again") == 1


def test_a_change_outlives_a_reading_that_fails_half_way(tmp_path: Path) -> None:
    async def run() -> None:
        async with following(tmp_path, web) as followed:
            swarm = followed.swarm
            swarm.failing = {"/tasks"}
            swarm.services["id-web_web"]["Spec"]["Labels"]["swarmkit.lb.port"] = "81"
            swarm.tell("service", "id-web_web")
            await followed.until(lambda: followed.watcher.status()["reading"]["problem"] != "")
            swarm.failing = set()
            await followed.until(lambda: followed.addresses == ["10.0.1.2:81", "10.0.1.3:81"])

    asyncio.run(run())


def test_a_swarm_without_a_leader_at_the_beginning_makes_no_configuration(tmp_path: Path) -> None:
    async def run() -> None:
        swarm = SimulatedSwarm(tmp_path)
        web(swarm)
        swarm.leaderless = True
        async with swarm.running():
            followed = Followed(swarm)
            running = asyncio.create_task(followed.watcher.run())
            await followed.until(lambda: len(swarm.asked) > 4)
            assert followed.published == []
            swarm.leaderless = False
            await followed.until(lambda: len(followed.addresses) == 2)
            running.cancel()
            await followed.reader.close()

    asyncio.run(run())


def test_what_happened_while_events_were_cut_is_found(tmp_path: Path) -> None:
    async def run() -> None:
        async with following(tmp_path, web) as followed:
            swarm = followed.swarm
            swarm.break_events()
            swarm.service("other", 1, host="other.example")
            swarm.task("id-other")
            await followed.until(lambda: "10.0.1.4:80" in followed.addresses)
            await followed.until(lambda: swarm.listeners == 1)

    asyncio.run(run())


def test_an_event_that_makes_no_sense_does_not_end_the_listening(tmp_path: Path) -> None:
    async def run() -> None:
        async with following(tmp_path, web) as followed:
            swarm = followed.swarm
            swarm.tell_raw({"Type": "service"})
            await followed.until(lambda: swarm.asked.count("/events") == 2 and swarm.listeners == 1)
            next(iter(swarm.tasks.values()))["DesiredState"] = "shutdown"
            swarm.tell("service", "id-web_web")
            await followed.until(lambda: followed.addresses == ["10.0.1.3:80"])

    asyncio.run(run())


def test_an_event_is_answered_by_a_reading_of_what_changed_alone(tmp_path: Path) -> None:
    async def run() -> None:
        async with following(tmp_path, web) as followed:
            swarm = followed.swarm
            # All are read often after the beginning, as after any event that may be about all.
            await followed.until(lambda: followed.watcher.status()["in_transition"] == 0)
            swarm.asked.clear()
            swarm.tell("service", "id-web_web")
            await followed.until(lambda: "/services" in swarm.asked)
            assert "/nodes" not in swarm.asked

    asyncio.run(run())


def test_many_changes_make_few_configurations(tmp_path: Path) -> None:
    async def run() -> None:
        async with following(tmp_path, lambda swarm: web(swarm, 1)) as followed:
            swarm, before = followed.swarm, len(followed.published)
            began = time.monotonic()
            for slot in range(2, 42):
                swarm.task("id-web_web", slot)
                swarm.tell("service", "id-web_web")
                await asyncio.sleep(0.01)
            await followed.until(lambda: len(followed.addresses) == 41)
            took = time.monotonic() - began
            assert len(followed.published) - before <= took * 5 + 2

    asyncio.run(run())


def test_one_whose_place_is_taken_ends(tmp_path: Path) -> None:
    async def run() -> None:
        swarm = SimulatedSwarm(tmp_path)
        web(swarm)
        swarm.service("swarmkit-lb_controller")
        swarm.services["id-swarmkit-lb_controller"]["Spec"]["Labels"] = {}
        old = swarm.task("id-swarmkit-lb_controller")
        async with swarm.running():
            followed = Followed(swarm, ("id-swarmkit-lb_controller", old))
            running = asyncio.create_task(followed.watcher.run())
            await followed.until(lambda: bool(followed.published) and swarm.listeners == 1)
            swarm.task("id-swarmkit-lb_controller")
            swarm.tell("service", "id-swarmkit-lb_controller")
            await asyncio.sleep(0.3)
            assert not running.done()
            swarm.tasks[old]["DesiredState"] = "shutdown"
            with pytest.raises(Replaced):
                await asyncio.wait_for(running, SECONDS)
            await followed.reader.close()

    asyncio.run(run())


def test_labels_that_nobody_understands_leave_the_other_routes_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run() -> None:
        async with following(tmp_path, web) as followed:
            swarm = followed.swarm
            swarm.service("bad", 1, port="none; }")
            swarm.tell("service", "id-bad")
            await followed.until(lambda: len(followed.watcher.status()["errors"]) == 1)
            assert followed.addresses == ["10.0.1.2:80", "10.0.1.3:80"]

    asyncio.run(run())
    assert capsys.readouterr().err.count("cannot be done: bad: ") == 1


# ---------------------------------------------------------------- proxies


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.make()


def write(folder: Path, authority: Authority, issued: Issued) -> Path:
    folder.mkdir()
    (folder / AUTHORITY_FILE).write_text(authority.certificate)
    (folder / IDENTITY_FILE).write_text(issued.certificate + issued.key)
    return folder


def client(folder: Path | None, authority: Authority) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.certificate)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if folder is not None:
        context.load_cert_chain(folder / IDENTITY_FILE)
    return context


@asynccontextmanager
async def controlled(
    folder: Path, authority: Authority, unused_port: int
) -> AsyncIterator[tuple[SimulatedSwarm, Callable[..., Coroutine[Any, Any, Any]], asyncio.Task[None]]]:
    """A whole controller of a simulated swarm, and a way to ask it as a proxy does."""
    secrets = write(folder / "secrets", authority, authority.issue_server([CONTROLLER_NAME]))
    proxy = write(folder / "proxy", authority, authority.issue_client(PROXY_NAME))
    swarm = SimulatedSwarm(folder)
    web(swarm)
    async with swarm.running(), ClientSession() as session:
        running = asyncio.create_task(
            controller.run(swarm.socket, secrets, folder / "status.sock", unused_port, {})
        )

        async def ask(context: ssl.SSLContext | None = None, **question: str) -> Any:
            async with session.get(
                f"https://127.0.0.1:{unused_port}/v1/bundle",
                params={"node": "n1", **question},
                ssl=context or client(proxy, authority),
                server_hostname=CONTROLLER_NAME,
            ) as answer:
                return answer.status, await answer.json() if answer.status != 204 else None

        async def is_serving() -> bool:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", unused_port)
                writer.close()
                return True
            return False

        deadline = time.monotonic() + SECONDS
        while not await is_serving():
            assert time.monotonic() < deadline
            assert not running.done(), running.exception()
            await asyncio.sleep(0.01)
        try:
            yield swarm, ask, running
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_a_proxy_gets_the_bundle_and_then_each_new_one_at_once(
    tmp_path: Path, authority: Authority, unused_port: int
) -> None:
    async def run() -> None:
        async with controlled(tmp_path, authority, unused_port) as (swarm, ask, _):
            status, first = await ask()
            assert status == 200
            bundle = Bundle.from_json(json.dumps(first))
            assert bundle.revision == first["revision"]
            assert sorted(*bundle.upstreams.values()) == ["10.0.1.2:80", "10.0.1.3:80"]

            waiting = asyncio.create_task(ask(have=first["revision"]))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            next(iter(swarm.tasks.values()))["DesiredState"] = "shutdown"
            swarm.tell("service", "id-web_web")
            status, second = await asyncio.wait_for(waiting, SECONDS)
            assert status == 200
            assert sorted(*second["upstreams"].values()) == ["10.0.1.3:80"]
            # One that has an older one, or none, has it at once.
            assert (await ask(have=first["revision"]))[1]["revision"] == second["revision"]

    asyncio.run(run())


def test_a_question_ends_where_there_is_nothing_new(
    tmp_path: Path, authority: Authority, unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "POLL_SECONDS", 0.05)

    async def run() -> None:
        async with controlled(tmp_path, authority, unused_port) as (_, ask, _running):
            _, first = await ask()
            assert await ask(have=first["revision"]) == (204, None)

    asyncio.run(run())


def test_one_that_cannot_read_the_swarm_is_not_relied_on_until_it_can(
    tmp_path: Path, authority: Authority, unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "BLIND_SECONDS", 0.2)
    monkeypatch.setattr(serving, "_SICK_SECONDS", 0.4)
    monkeypatch.setattr(serving, "_LOOK_SECONDS", 0.01)

    async def health() -> int:
        async with (
            ClientSession(connector=UnixConnector(str(tmp_path / "status.sock"))) as session,
            session.get("http://controller/healthz") as answer,
        ):
            return answer.status

    async def run() -> None:
        async with controlled(tmp_path, authority, unused_port) as (swarm, ask, _):
            _, first = await ask()
            waiting = asyncio.create_task(ask(have=first["revision"]))
            assert await health() == 200
            swarm.leaderless = True
            assert (await asyncio.wait_for(waiting, SECONDS))[0] == 503
            # Who has another one, or none, gets none that may be long out of date.
            assert (await ask())[0] == 503
            deadline = time.monotonic() + SECONDS
            while await health() != 503:
                assert time.monotonic() < deadline
            swarm.leaderless = False
            while await health() != 200:
                assert time.monotonic() < deadline
            assert (await ask())[1]["revision"] == first["revision"]

    asyncio.run(run())


def test_what_a_proxy_has_refused_is_said_once_and_not_sent_again(
    tmp_path: Path,
    authority: Authority,
    unused_port: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(serving, "POLL_SECONDS", 0.05)

    async def run() -> None:
        async with controlled(tmp_path, authority, unused_port) as (_, ask, _running):
            _, first = await ask()
            for _ in range(2):
                said = {"have": "old", "refused": first["revision"], "error": "bad\nthing"}
                assert await ask(**said) == (204, None)
            status = json.loads(await controller.ask(tmp_path / "status.sock"))
            assert status["revision"] == first["revision"]
            assert status["proxies"]["n1"]["refused"] == first["revision"]
            assert status["proxies"]["n1"]["error"] == "bad\nthing"
            assert status["routes"] == 1
            assert status["reading"]["problem"] == ""

    asyncio.run(run())
    assert capsys.readouterr().err.count("refuses configuration") == 1


def test_nobody_without_a_proxy_s_certificate_is_told_anything(
    tmp_path: Path, authority: Authority, unused_port: int
) -> None:
    node = write(tmp_path / "node", authority, authority.issue_client("m1"))
    other = Authority.make()
    stranger = write(tmp_path / "stranger", other, other.issue_client(PROXY_NAME))

    async def run() -> None:
        async with controlled(tmp_path, authority, unused_port) as (_, ask, _running):
            # A node's certificate is of the same authority.
            assert (await ask(client(node, authority)))[0] == 403
            for context in (client(None, authority), client(stranger, authority)):
                with pytest.raises((ClientError, OSError)):
                    await ask(context)
            old = client(None, authority)
            old.minimum_version = ssl.TLSVersion.TLSv1_2
            old.maximum_version = ssl.TLSVersion.TLSv1_2
            with pytest.raises((ClientError, OSError)):
                await ask(old)

    asyncio.run(run())


def test_a_controller_that_begins_anew_gives_the_same_bundle(
    tmp_path: Path, authority: Authority, unused_port: int
) -> None:
    revisions = set()
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()

        async def once(folder: Path = folder) -> str:
            async with controlled(folder, authority, unused_port) as (_, ask, _running):
                return str((await ask())[1]["revision"])

        revisions.add(asyncio.run(once()))
    assert len(revisions) == 1


def test_secrets_are_read_but_for_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, data in (
        (AUTHORITY_FILE, b"ca"),
        (IDENTITY_FILE, b"key"),
        ("web_users", b"me:hash"),
        ("odd", b"\xffsecret"),
    ):
        (tmp_path / name).write_bytes(data)
    assert controller.read_secrets(tmp_path) == {"web_users": "me:hash"}
    assert "secret odd: left out" in (said := capsys.readouterr().err)
    assert "xff" not in said
    assert controller.read_secrets(tmp_path / "none") == {}
