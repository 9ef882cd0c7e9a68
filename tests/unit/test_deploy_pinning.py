"""Images by digest: what a stack's services are sent with, and what keeps them from being restarted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import pytest

from swarmkit.compose.convert import DesiredService, DesiredStack
from swarmkit.deploy.pinning import pinned, pins
from swarmkit.deploy.plan import LiveStack
from swarmkit.images.credentials import Credentials
from swarmkit.images.resolve import Resolve
from swarmkit.names import IMAGE_LABEL
from swarmkit.remote import Engine, EngineError

DIGEST = f"sha256:{'1a' * 32}"
OLD = f"web:1@sha256:{'0f' * 32}"
AMD = {"architecture": "amd64", "os": "linux"}


class Registry:
    """An engine that answers what registries have, and notes what it was asked for."""

    def __init__(self, **known: Any) -> None:
        self.known = known
        self.asked: list[str] = []

    def get(self, path: str, headers: Mapping[str, str]) -> Any:
        assert headers == {}
        name = path.removeprefix("/distribution/").removesuffix("/json")
        self.asked.append(name)
        if name.partition(":")[0] not in self.known:
            raise EngineError("dial tcp: no such host", 500)
        return {"Descriptor": {"digest": DIGEST}, "Platforms": [AMD]}


def service(name: str, image: str) -> DesiredService:
    spec = {
        "Name": f"s_{name}",
        "Labels": {IMAGE_LABEL: image},
        "TaskTemplate": {"ContainerSpec": {"Image": image}, "Placement": {}},
        "Mode": {"Replicated": {}},
    }
    return DesiredService(f"s_{name}", name, spec, build=None, routed=False)


def stack(*services: DesiredService) -> DesiredStack:
    return DesiredStack("s", services)


def live(image: str, written: str) -> LiveStack:
    task = {"ContainerSpec": {"Image": image}, "Placement": {"Platforms": [{"OS": "linux"}]}}
    spec = {"Name": "s_web", "Labels": {IMAGE_LABEL: written}, "TaskTemplate": task}
    return LiveStack(services=[{"ID": "1", "Version": {"Index": 1}, "Spec": spec}])


def images(
    registry: Registry, desired: DesiredStack, held: LiveStack, mode: Resolve = "always"
) -> tuple[dict[str, str], list[str]]:
    found, said = pins(cast("Engine", registry), desired, held, mode, Credentials(), {"built"})
    sent = pinned(desired, found)
    return {
        one.short_name: one.spec["TaskTemplate"]["ContainerSpec"]["Image"] for one in sent.services
    }, list(said)


def test_what_the_registry_has_is_sent_by_digest_and_for_its_platforms() -> None:
    registry = Registry(web=True)
    desired = stack(service("web", "web:1"), service("again", "web:1"), service("built", "mine@sha256:5"))
    found, said = images(registry, desired, LiveStack())
    assert found == {"web": f"web:1@{DIGEST}", "again": f"web:1@{DIGEST}", "built": "mine@sha256:5"}
    assert registry.asked == ["web:1"]
    assert said == []
    placed = pinned(
        desired, pins(cast("Engine", registry), desired, LiveStack(), "always", Credentials(), ())[0]
    )
    assert placed.services[0].spec["TaskTemplate"]["Placement"]["Platforms"] == [
        {"Architecture": "amd64", "OS": "linux"}
    ]


def test_moby_34153_a_registry_that_is_away_does_not_restart_what_runs() -> None:
    desired = stack(service("web", "web:1"))
    found, (said,) = images(Registry(), desired, live(OLD, "web:1"))
    assert found == {"web": OLD}
    assert "cannot be reached" in said
    # Another image than the one that runs has to be tried.
    assert images(Registry(), desired, live(OLD, "web:0"))[0] == {"web": "web:1"}
    assert images(Registry(), desired, LiveStack())[0] == {"web": "web:1"}


@pytest.mark.parametrize(
    ("mode", "written", "expected", "asked"),
    [
        ("always", "web:1", f"web:1@{DIGEST}", 1),
        ("changed", "web:1", OLD, 0),
        ("changed", "web:0", f"web:1@{DIGEST}", 1),
        ("never", "web:1", OLD, 0),
        ("never", "web:0", "web:1", 0),
    ],
)
def test_registries_are_asked_as_docker_asks_them(
    mode: Resolve, written: str, expected: str, asked: int
) -> None:
    registry = Registry(web=True)
    assert images(registry, stack(service("web", "web:1")), live(OLD, written), mode)[0] == {"web": expected}
    assert len(registry.asked) == asked


def test_a_service_keeps_what_else_its_spec_says() -> None:
    one = service("web", "web:1")
    spec = {**one.spec, "TaskTemplate": {**one.spec["TaskTemplate"], "Placement": {"MaxReplicas": 2}}}
    desired = stack(replace(one, spec=spec))
    found, _ = pins(cast("Engine", Registry(web=True)), desired, LiveStack(), "always", Credentials(), ())
    (sent,) = pinned(desired, found).services
    assert sent.spec["TaskTemplate"]["Placement"]["MaxReplicas"] == 2
    assert sent.spec["Mode"] == {"Replicated": {}}
