"""What is said beforehand of tasks that may lose requests when they are stopped or replaced."""

from __future__ import annotations

from typing import Any

import pytest

from swarmkit.errors import Unreachable
from swarmkit.services.caution import Facts, ImageFacts, cautions, forewarn_of_stops, look
from swarmkit.swarm import Service
from swarmkit.target import Swarm, Target
from tests.unit.memoryengine import MemoryEngine

CALM = ImageFacts(("/app",), (), "", has_health_check=True)


def spec(container: dict[str, Any] | None = None, replicas: int = 3, **more: Any) -> dict[str, Any]:
    return {
        "Name": "web",
        "Labels": {"swarmkit.lb.port": "80"},
        "TaskTemplate": {"ContainerSpec": {"Image": "x", **(container or {})}},
        "Mode": {"Replicated": {"Replicas": replicas}},
        **more,
    }


def scaled(image: ImageFacts | None, longest: float | None = None, **container: Any) -> list[str]:
    return cautions(spec(container), None, Facts({"x": image} if image else {}, longest))


def updated(image: ImageFacts | None = CALM, **after: Any) -> list[str]:
    return cautions(spec({"Env": ["OLD=1"]}), spec(**after), Facts({"x": image} if image else {}))


@pytest.mark.parametrize(
    ("program", "wanted"),
    [
        (("/docker-entrypoint.sh", "nginx", "-g", "daemon off;"), "SIGQUIT"),
        (("sh", "-c", "exec /usr/sbin/nginx -g 'daemon off;'"), "SIGQUIT"),
        (("httpd-foreground",), "SIGWINCH"),
        (("php-fpm8.4", "-F"), "SIGQUIT"),
        (("haproxy", "-f", "/c"), "SIGUSR1"),
    ],
)
def test_a_server_that_ends_requests_on_its_stop_signal_is_named_with_the_right_one(
    program: tuple[str, ...], wanted: str
) -> None:
    (line,) = scaled(ImageFacts((), program))
    assert f"ends open requests on SIGTERM; it finishes them on --stop-signal {wanted}" in line
    assert scaled(ImageFacts((), program, wanted)) == []
    assert scaled(ImageFacts((), program), StopSignal=wanted.removeprefix("SIG")) == []


def test_the_spec_goes_before_the_image() -> None:
    nginx = ImageFacts(("nginx",), (), "SIGQUIT")
    assert "on SIGTERM" in scaled(nginx, StopSignal="SIGTERM")[0]
    assert scaled(nginx, Command=["/app"]) == []
    assert scaled(ImageFacts((), ("/app",)), Args=["nginx"]) != []


def test_uwsgi_is_told_how_to_finish_requests() -> None:
    assert "hook-master-start" in scaled(ImageFacts((), ("uwsgi", "--http", ":80")))[0]
    hook = "unix_signal:15 gracefully_kill_them_all"
    assert scaled(ImageFacts((), ("uwsgi", "--hook-master-start", hook))) == []


def test_an_image_that_cannot_be_looked_at_is_not_guessed_at() -> None:
    assert scaled(None, Args=["nginx"]) == []
    assert "on TERM" in scaled(None, Args=["nginx"], StopSignal="TERM")[0]


def test_a_grace_period_shorter_than_requests_is_named() -> None:
    assert scaled(CALM, longest=9) == []
    assert "requests of 14 s were seen, and its tasks have 10 s" in scaled(CALM, longest=14)[0]
    assert scaled(CALM, longest=14, StopGracePeriod=30 * 10**9) == []


@pytest.mark.parametrize(
    ("replicas", "config", "gap"),
    [
        (1, {}, True),
        (1, {"UpdateConfig": {"Order": "start-first"}}, False),
        (3, {}, False),
        (3, {"UpdateConfig": {"Parallelism": 0}}, True),
        (3, {"UpdateConfig": {"Parallelism": 3}}, True),
        (0, {}, False),
    ],
)
def test_an_update_that_leaves_no_task_at_work_is_named(
    replicas: int, config: dict[str, Any], gap: bool
) -> None:
    found = updated(replicas=replicas, **config)
    assert any("--order start-first" in line for line in found) is gap
    assert len(found) == gap


def test_without_a_health_check_that_is_said() -> None:
    assert "health check" in updated(ImageFacts())[0]
    assert updated(ImageFacts(), container={"Healthcheck": {"Test": ["CMD", "true"]}}) == []
    assert "health check" in updated(CALM, container={"Healthcheck": {"Test": ["NONE"]}})[0]
    assert updated(None) == []


def test_nothing_is_said_without_a_route_or_where_no_task_is_replaced() -> None:
    facts = Facts({"x": ImageFacts(("nginx",))})
    assert cautions({**spec(), "Labels": {}}, None, facts) == []
    assert cautions(spec(), spec(UpdateConfig={"Delay": 1}), facts) == []


def test_images_are_looked_at_by_digest_and_what_is_not_there_is_left_out() -> None:
    engine = MemoryEngine()
    engine.images["x@sha256:1"] = {
        "Cmd": ["nginx"],
        "StopSignal": "SIGQUIT",
        "Healthcheck": {"Test": ["NONE"]},
    }
    swarm = Swarm(Target("memory", "--engine", named=True), engine)
    specs = [spec({"Image": "x:1@sha256:1"}), spec({"Image": "y"})]
    found = look(swarm, Service.of({"ID": "s", "Spec": specs[0]}), specs, None)
    assert found == Facts({"x:1@sha256:1": ImageFacts((), ["nginx"], "SIGQUIT", False)})


def test_what_cannot_be_looked_up_is_no_obstacle_and_the_proxies_are_asked_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Swarm] = []

    def refuse(swarm: Swarm) -> None:
        asked.append(swarm)
        raise Unreachable("nobody answers")

    monkeypatch.setattr("swarmkit.services.caution.read_status", refuse)
    swarm = Swarm(Target("memory", "--engine", named=True), MemoryEngine())
    nginx = spec({"Command": ["nginx"], "StopSignal": "SIGTERM"})
    some = [Service.of({"ID": name, "Spec": {**nginx, "Name": name}}) for name in ("a", "b")]
    without = Service.of({"ID": "c", "Spec": {**nginx, "Labels": {}}})
    found = forewarn_of_stops(swarm, [*some, without])
    assert [line.partition(":")[0] for line in found] == ["a", "b"]
    assert len(asked) == 1
