"""A service that is changed while it runs: updates, what takes them back, and canaries; on one machine.

The tests run in the order of the file; each leaves the stack as the next expects it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.conftest import Swarmkit
from tests.e2e.conftest import BOX, Lab, bring_box

NEXT = BOX.replace(":1/box:1", ":1/box:2")
# Its health is that it has not been told to fail.
CHECK = {
    "test": ["CMD", "sh", "-c", '[ "$$BROKEN" != yes ]'],
    "interval": "0.3s",
    "timeout": "5s",
    "retries": 1,
    "start_period": "0s",
}
WEB = {
    "image": BOX,
    "command": ["sh", "-c", "trap 'exit 143' TERM; while :; do sleep 0.2; done"],
    "environment": {"COLOUR": "blue"},
    "healthcheck": CHECK,
    "deploy": {
        "replicas": 2,
        "update_config": {"order": "start-first", "parallelism": 2, "monitor": "1s"},
        "restart_policy": {"delay": "0s"},
    },
}


@pytest.fixture(scope="module", autouse=True)
def app(lab: Lab, sk: Swarmkit) -> None:
    """A stack with the service that the tests change."""
    bring_box(lab, "m1")
    lab.shell("m1", f"docker tag {BOX} {NEXT}")
    file = sk.folder / "app.yml"
    file.write_text(yaml.safe_dump({"services": {"web": WEB}}))
    sk("stack", "up", str(file))


@pytest.fixture
def tasks(sk: Swarmkit) -> Callable[[], dict[str, Any]]:
    """The tasks that run, their images by service and slot."""

    def found() -> dict[str, Any]:
        rows = sk.json("stack", "ps", "app")
        return {f"{one['service']}.{one['slot']}": one["image"] for one in rows if one["state"] == "running"}

    return found


def spec(lab: Lab, name: str = "app_web") -> Any:
    return yaml.safe_load(lab.shell("m1", f"docker service inspect {name}"))[0]["Spec"]


def history(sk: Swarmkit) -> list[tuple[str, str]]:
    return [(one["doing"], one["state"]) for one in sk.json("stack", "history", "app")]


def test_an_update_is_on_its_tasks_when_the_command_ends(
    lab: Lab, sk: Swarmkit, tasks: Callable[[], dict[str, Any]]
) -> None:
    sk("scale", "web=3")
    options = ("--image", NEXT, "--env", "COLOUR=green", "--limit-memory", "64M", "--label", "team=a")
    assert sk("update", "web", *options, "--dry-run", "--detailed-exitcode", code=5).stdout.count("\n") == 2
    done = sk.json("update", "web", *options)
    assert (done["services"], done["changed"], done["converged"]) == (["app_web"], 1, True)
    assert tasks() == dict.fromkeys(("app_web.1", "app_web.2", "app_web.3"), NEXT)
    held = spec(lab)
    assert held["TaskTemplate"]["ContainerSpec"]["Env"] == ["COLOUR=green"]
    assert held["TaskTemplate"]["Resources"]["Limits"] == {"MemoryBytes": 64 * 1024 * 1024}
    assert history(sk) == [("stack up app", "done"), (f"update web --image {NEXT}", "done")]
    assert "nothing to do" in sk("update", "web", *options).stdout


def test_a_deployment_would_set_it_back_and_says_so(sk: Swarmkit) -> None:
    shown = sk("stack", "up", str(sk.folder / "app.yml"), "--name", "app", "--dry-run").stdout
    assert "env.COLOUR green → blue" in shown
    assert f"image {NEXT} → {BOX}" in shown
    assert "labels.team a → nothing" in shown
    assert "by hand" not in shown


def test_a_rollback_returns_what_was_there_and_keeps_the_scale(
    lab: Lab, sk: Swarmkit, tasks: Callable[[], dict[str, Any]]
) -> None:
    done = sk.json("rollback", "web")
    assert (done["changed"], done["converged"]) == (1, True)
    assert tasks() == dict.fromkeys(("app_web.1", "app_web.2", "app_web.3"), BOX)
    assert spec(lab)["TaskTemplate"]["ContainerSpec"]["Env"] == ["COLOUR=blue"]
    assert sk.json("stack", "up", str(sk.folder / "app.yml"), "--name", "app", "--dry-run")["changed"] == 0


@pytest.mark.parametrize("action", ["rollback", "continue"])
def test_an_update_that_does_not_become_healthy_is_taken_back(
    lab: Lab, sk: Swarmkit, tasks: Callable[[], dict[str, Any]], action: str
) -> None:
    before, known = spec(lab), history(sk)
    options = ("--env", "BROKEN=yes", "--failure-action", action, "--timeout", "60")
    error = sk("update", "web", *options, "-o", "json", code=4).json["error"]
    assert (error["where"], error["rolled_back"]) == ("app_web", True)
    assert "health check failed" in error["message"]
    assert len(tasks()) == 3
    assert spec(lab) == before
    assert history(sk) == known


def test_an_image_that_nobody_has_changes_nothing(lab: Lab, sk: Swarmkit) -> None:
    before = spec(lab)
    error = sk("update", "web", "--image", "127.0.0.1:1/none:1", code=1).error
    assert "127.0.0.1:1/none:1" in error
    assert spec(lab) == before


def test_a_service_without_a_stack_is_updated_and_rolled_back_too(lab: Lab, sk: Swarmkit) -> None:
    lab.shell("m1", f"docker service create -d --name lone --stop-grace-period 1s {BOX} sleep 3600")
    assert "there is no revision" in sk("rollback", "lone", code=2).error
    sk("update", "lone", "--env", "A=1", "--monitor", "1s")
    assert spec(lab, "lone")["TaskTemplate"]["ContainerSpec"]["Env"] == ["A=1"]
    sk("rollback", "lone", "--timeout", "60")
    assert "Env" not in spec(lab, "lone")["TaskTemplate"]["ContainerSpec"]
    lab.shell("m1", "docker service rm lone")


def test_a_canary_is_tried_and_given_up_or_gone_on_with(
    lab: Lab, sk: Swarmkit, tasks: Callable[[], dict[str, Any]]
) -> None:
    assert "no route" in sk("update", "web", "--image", NEXT, "--canary", "10%", code=2).error
    # Not by a deployment, which would bring up the balancer as well.
    lab.shell("m1", "docker service update -d --label-add swarmkit.lb.port=80 app_web")
    start = ("update", "web", "--image", NEXT, "--canary", "34%")
    assert "swarmkit update app_web --continue" in sk(*start).stdout
    assert tasks() == {
        **dict.fromkeys(("app_web.1", "app_web.2", "app_web.3"), BOX),
        "app_web-canary.1": NEXT,
    }
    labels = spec(lab, "app_web-canary")["Labels"]
    assert (labels["swarmkit.lb.canary"], labels["swarmkit.lb.weight"]) == ("app_web", "34")
    assert "swarmkit.lb.port" not in labels
    assert "a canary of app_web, 34% of its requests" in sk("service", "ls").stdout
    assert "it has a canary" in sk(*start, code=2).error
    sk("update", "web", "--abort")
    assert tasks() == dict.fromkeys(("app_web.1", "app_web.2", "app_web.3"), BOX)
    sk(*start)
    done = sk.json("update", "web", "--continue")
    assert [one["action"] for one in done["changes"]] == ["update", "remove"]
    assert tasks() == dict.fromkeys(("app_web.1", "app_web.2", "app_web.3"), NEXT)
    assert history(sk)[-1] == ("update web --continue", "done")
