"""Services that do not come up: each says why in words, in a bounded time, and ends with its exit code."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from swarmkit.errors import NotConverged
from swarmkit.inventory import load
from swarmkit.remote import Fleet
from swarmkit.services.converge import baseline, converge
from swarmkit.ui import Output, Ui
from tests.conftest import Done, Swarmkit
from tests.e2e.conftest import BOX as IMAGE
from tests.e2e.conftest import Lab, bring_box

# Without a wait between two tries; the engine's own is 5 s. Not for ever, for that would keep the nodes busy.
AT_ONCE = {"restart_policy": {"delay": "0s", "max_attempts": 3}}
# Watched for a second instead of five.
SHORT = {"update_config": {"monitor": "1s"}}
LONG = {"image": IMAGE, "command": ["sleep", "3600"], "stop_grace_period": "0s"}


@pytest.fixture(scope="module")
def lab(machines: Callable[[int], Lab]) -> Lab:
    return machines(3)


@pytest.fixture(scope="module")
def sk(lab: Lab) -> Iterator[Swarmkit]:
    lab.swarmkit("init")
    bring_box(lab, "m1", "wn1", "wn2")
    yield lab.swarmkit
    lab.swarmkit("reset")


@pytest.fixture(scope="module", autouse=True)
def _clean(sk: Swarmkit) -> Iterator[None]:
    yield
    for stack in ("t", "holder"):
        if stack in [one["name"] for one in sk.json("stack", "ls") if one["services"]]:
            sk("stack", "down", stack)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """What is done inside does not take longer: whoever waits is told in time."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start < seconds


def up(sk: Swarmkit, folder: Path, services: dict[str, Any], code: int = 0, stack: str = "t") -> Done:
    """Deploy services as a stack, in place of those that it had."""
    file = folder / f"{stack}.yml"
    file.write_text(yaml.safe_dump({"services": services}))
    command = ("stack", "up", str(file), "--name", stack, "--prune", "--no-rollback", "-o", "json")
    return sk(*command, code=code)


def said(done: Done) -> dict[str, str]:
    """The errors by service, each with its details."""
    return {
        each["where"]: "\n".join([each["message"], *each.get("details", [])]) for each in done.json["errors"]
    }


def test_services_that_fail_say_why_with_their_last_words(lab: Lab, sk: Swarmkit, tmp_path: Path) -> None:
    on_m1 = {"placement": {"constraints": ["node.role == manager"]}}
    services: dict[str, dict[str, Any]] = {
        "noimage": {"image": "127.0.0.1:1/none:1"},
        "crash": {
            "image": IMAGE,
            "command": ["sh", "-c", "echo no such table >&2; exit 3"],
            "deploy": {"restart_policy": {"delay": "100ms"}},
        },
        "hungry": {
            "image": IMAGE,
            "command": ["sh", "-c", "echo loading; tail /dev/zero"],
            "deploy": {"resources": {"limits": {"memory": "16M"}}},
        },
        "nobind": {**LONG, "volumes": ["/no/such:/x"]},
        "typo": {"image": IMAGE, "command": ["slep", "3600"]},
        "busy": {**LONG, "ports": [{"target": 80, "published": 9083, "mode": "host"}], "deploy": on_m1},
        "brief": {"image": IMAGE, "command": ["sh", "-c", "echo good-bye"]},
    }
    # No service, so that nothing is known of it beforehand.
    lab.shell("m1", f"docker run -d --rm --name holder -p 9083:80 {IMAGE} sleep 3600")
    for name, service in services.items():
        expected = {
            "noimage": r"0 of 1 tasks run: no such image on \w+: 127.0.0.1:1/none:1\n.*connection refused",
            "crash": r"0 of 1 tasks run: exit 3 on \w+\nlast lines of its log:\n  no such table",
            "hungry": r"0 of 1 tasks run: exit 137: out of memory, limit 16 MB on \w+\nlast .*\n  loading",
            "nobind": r"0 of 1 tasks run: bind source /no/such missing on \w+",
            "typo": r'0 of 1 tasks run: no program "slep" in the image 127.0.0.1:1/box:1',
            "busy": r"0 of 1 tasks run: port 9083 taken on m1 by a program that is no service\n",
            "brief": r"0 of 1 tasks run: it ended by itself with success [^\n]*\nlast lines.*\n  good-bye",
        }[name]
        deploy = {**AT_ONCE, **service.get("deploy", {})}
        with within(15):
            done = up(sk, tmp_path, {name: {**service, "deploy": deploy}}, code=4)
        assert re.match(expected, said(done)[f"t_{name}"]), said(done)
    lab.shell("m1", "docker rm -f holder; docker service rm t_crash")
    # The same at any time.
    found = sk.json("service", "explain", "brief")
    assert (found["service"], found["running"], found["desired"]) == ("t_brief", 0, 1)
    assert [(one["code"], one["task"]) for one in found["problems"]] == [("ended", "t_brief.1")]


def test_a_failing_health_check_is_told_with_what_it_printed(sk: Swarmkit, tmp_path: Path) -> None:
    check = {"test": ["CMD-SHELL", "echo the cache is cold; exit 1"], "interval": "500ms", "retries": 3}
    services = {"ill": {**LONG, "healthcheck": check, "deploy": {"restart_policy": {"condition": "none"}}}}
    with within(30):
        done = up(sk, tmp_path, services, code=4)
    assert re.match(
        r"0 of 1 tasks run: health check failed \d times on \w+: the cache is cold", said(done)["t_ill"]
    )
    assert "the cache is cold" in sk("service", "explain", "t_ill").stdout


def test_what_no_node_can_run_is_refused_with_numbers_before_anything_is_made(
    sk: Swarmkit, tmp_path: Path
) -> None:
    published = {"ports": [{"target": 80, "published": 9080, "mode": "host"}, "9081:80"]}
    up(sk, tmp_path, {"web": {**LONG, **published, "deploy": {**SHORT, "mode": "global"}}}, stack="holder")
    services = {
        "gpu": {**LONG, "deploy": {"placement": {"constraints": ["node.labels.gpu == yes"]}}},
        "big": {
            **LONG,
            "deploy": {"replicas": 4, "resources": {"reservations": {"cpus": "100", "memory": "4M"}}},
        },
        "host": {**LONG, "ports": [{"target": 80, "published": 9080, "mode": "host"}]},
        "mesh": {**LONG, "ports": ["9081:80"]},
    }
    with within(10):
        errors = said(up(sk, tmp_path, services, code=2))
    lacking = "no node fits: 3 of 3 nodes lack the label gpu=yes (constraint node.labels.gpu == yes)"
    assert errors["t_gpu"] == lacking
    assert re.match(r"needs 4 × 100 CPUs; free: m1 [\d.]+ CPUs?, wn1 [\d.]+ CPUs?, wn2 ", errors["t_big"])
    assert errors["t_host"] == (
        "port 9080/tcp in host mode is taken on m1 (holder_web), wn1 (holder_web), wn2 (holder_web)"
    )
    assert errors["t_mesh"] == "port 9081/tcp is published by holder_web already"
    assert not {"t_gpu", "t_big", "t_host", "t_mesh"} & {one["name"] for one in sk.json("service", "ls")}


def test_a_service_that_outgrows_its_nodes_is_told_who_has_the_port(sk: Swarmkit, tmp_path: Path) -> None:
    sk("stack", "down", "holder")
    ports = [{"target": 80, "published": 9082, "mode": "host"}]
    up(sk, tmp_path, {"web": {**LONG, "ports": ports, "deploy": {**SHORT, "replicas": 3}}})
    assert "nothing wrong: 3 of 3 run" in sk("service", "explain", "web").stdout
    assert "nothing wrong: 1 of 1 run" in sk("service", "explain", "web.2").stdout
    error = sk("scale", "web=4", "--timeout", "1", code=4).error
    assert "t_web: after 1 s 3 of 4 tasks run: port 9082 taken by t_web on m1, wn1, wn2" in error
    assert 'no service is called "nothing"' in sk("service", "explain", "nothing", code=2).error


def test_cli_5299_work_that_ends_is_done_when_it_has_ended(lab: Lab, sk: Swarmkit, tmp_path: Path) -> None:
    once = {"image": IMAGE, "command": ["sh", "-c", "echo done"]}
    services = {"once": {**once, "deploy": {"restart_policy": {"condition": "on-failure"}}}}
    with within(15):
        assert up(sk, tmp_path, services).json["converged"]
    assert "t_once: nothing wrong: 1 of 1 completed" in sk("service", "explain", "once").stdout
    # What has ended well satisfies a second time.
    assert up(sk, tmp_path, services).json["changed"] == 0

    fails = {"image": IMAGE, "command": ["sh", "-c", "echo the disk is full; exit 9"]}
    services = {"fails": {**fails, "deploy": {"restart_policy": {"condition": "none"}}}}
    with within(15):
        done = up(sk, tmp_path, services, code=4)
    assert re.match(r"0 of 1 tasks run: exit 9 on \w+\n.*\n  the disk is full", said(done)["t_fails"])


def test_jobs_are_waited_for_until_they_have_ended(lab: Lab, sk: Swarmkit) -> None:
    create = "docker service create --quiet --detach --no-resolve-image --restart-condition none"
    modes = {"some": "--mode replicated-job --replicas 2", "each": "--mode global-job"}
    commands = {"good": "sleep 0.5", "bad": "echo no luck; exit 7"}
    names = [f"{outcome}-{mode}" for outcome in commands for mode in modes]
    script = [
        f"{create} --name {outcome}-{mode} {options} {IMAGE} sh -c '{command}'"
        for outcome, command in commands.items()
        for mode, options in modes.items()
    ]
    inventory = load(lab.inventory)
    try:
        with Fleet(inventory) as fleet:
            engine = fleet.engine(inventory.hosts[0])
            before = baseline(engine)
            ids = lab.shell("m1", "\n".join(script)).split()
            ui = Ui(Output.JSON)
            with within(15):
                converge(engine, ids[:2], ui, timeout=14, before=before, fleet=fleet)
            for one in ids[2:]:
                with (
                    within(15),
                    pytest.raises(NotConverged, match=r"0 of \d tasks completed: exit 7") as error,
                ):
                    converge(engine, [one], ui, timeout=14, before=before, fleet=fleet)
                assert "  no luck" in error.value.details
        assert "good-some: nothing wrong: 2 of 2 completed" in sk("service", "explain", "good-some").stdout
        assert "good-each: nothing wrong: 3 of 3 completed" in sk("service", "explain", "good-each").stdout
        assert "exit 7 on" in sk("service", "explain", "bad-each").stdout
    finally:
        lab.shell("m1", f"docker service rm {' '.join(names)}")
