"""Stacks that change, fail, are cut short and come back: what lives afterwards is the old or the new.

The tests run in the order of the file, on one machine of the lab; each but those marked leaves the stack
`app` as the next expects it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Swarmkit, eventually
from tests.e2e.conftest import Lab, deploy_everything
from tests.terminal import typed

IMAGE = "swarmkit/base:13"


def service(**changed: Any) -> dict[str, Any]:
    return {
        "image": IMAGE,
        "command": ["sleep", "1000"],
        "stop_signal": "SIGKILL",
        "healthcheck": {"test": ["CMD", "true"], "interval": "300ms"},
        "deploy": {
            "update_config": {"monitor": "1s"},
            "restart_policy": {"delay": "100ms"},
        },
        **changed,
    }


def file(sk: Swarmkit, services: dict[str, Any], content: str = "one", **top: Any) -> str:
    path = sk.folder / "app.yml"
    document = {"services": services, "configs": {"c": {"content": content}}, **top}
    path.write_text(json.dumps(document))
    return str(path)


def good(**changed: Any) -> dict[str, Any]:
    return {"web": service(configs=["c"], **changed), "db": service()}


SICK = {"healthcheck": {"test": ["CMD", "false"], "interval": "1s", "start_period": "10m"}}
BROKEN = {"healthcheck": {"test": ["CMD", "false"], "interval": "100ms", "retries": 1}}


def inspected(lab: Lab, kind: str) -> list[dict[str, Any]]:
    script = (
        f"docker {kind} ls -q --filter label=com.docker.stack.namespace=app | xargs -r docker {kind} inspect"
    )
    return list(json.loads(lab.shell("m1", script) or "[]"))


def versions(lab: Lab) -> dict[str, Any]:
    """All that a write would change: the versions of what is there, and the tasks."""
    found: dict[str, Any] = {
        one["ID"]: one["Version"]["Index"] for kind in ("service", "config") for one in inspected(lab, kind)
    }
    every = "docker config ls -q; docker network ls -q; docker service ls -q | xargs -r docker service ps -q"
    return {**found, "all": sorted(lab.shell("m1", every).split())}


def specs(lab: Lab) -> dict[str, Any]:
    """What runs: the services' specs, and the configs that are no revisions."""
    found = {one["Spec"]["Name"]: one["Spec"] for one in inspected(lab, "service")}
    configs = [one["Spec"] for one in inspected(lab, "config")]
    return found | {one["Name"]: one["Labels"] for one in configs if "swarmkit.revision" not in one["Labels"]}


def up(sk: Swarmkit, path: str, *options: str, code: int = 0) -> Any:
    return sk("stack", "up", path, "--name", "app", *options, "-o", "json", code=code).json


def left_half_done(sk: Swarmkit, lab: Lab, path: str) -> subprocess.Popen[str]:
    """An `up` that waits for a service that does not become healthy."""
    running = subprocess.Popen(
        sk.command("stack", "up", path, "--name", "app"),
        env=sk.environment,
        cwd=sk.folder,
        stderr=subprocess.PIPE,
        text=True,
    )
    tasks = "docker service ps app_web --filter desired-state=running --format '{{.CurrentState}}'"
    eventually(lambda: "Starting" in lab.shell("m1", tasks), 60, "the new task starts")
    return running


def kill(running: subprocess.Popen[str]) -> None:
    os.kill(running.pid, signal.SIGKILL)
    running.communicate(timeout=30)


def test_a_stack_that_docker_deployed_is_adopted_and_no_task_restarts(lab: Lab, sk: Swarmkit) -> None:
    path = file(sk, good())
    text = Path(path).read_text().replace('"content"', '"file"').replace('"one"', '"/tmp/one"')
    lab.shell(
        "m1",
        f"printf one >/tmp/one; cat >/tmp/app.yml <<'END'\n"
        f'{{"version": "3.8", {text[1:]}\nEND\n'
        "docker stack deploy --resolve-image never -c /tmp/app.yml app",
    )
    ids = "docker service ps -q app_web app_db"
    eventually(lambda: "2/2" not in lab.shell("m1", ids) and len(specs(lab)) == 3, 30, "docker has deployed")
    before = sorted(lab.shell("m1", ids).split())
    changes = up(sk, path)["changes"]
    assert {(one["name"], one["action"]) for one in changes} == {("app_web", "update"), ("app_db", "update")}
    assert all(set(one["fields"]) == {"labels.swarmkit.spec", "labels.swarmkit.replicas"} for one in changes)
    assert sorted(lab.shell("m1", ids).split()) == before


def test_moby_31115_a_second_up_writes_nothing_and_restarts_no_task(lab: Lab, sk: Swarmkit) -> None:
    before = versions(lab)
    assert up(sk, file(sk, good()))["changed"] == 0
    assert versions(lab) == before


def test_cli_2235_the_scale_that_runs_is_kept(sk: Swarmkit, lab: Lab) -> None:
    sk("scale", "app_db=2")
    (change,) = up(sk, file(sk, good(environment={"A": "1"})))["changes"]
    assert change["fields"] == {"env.A": {"from": None, "to": "1"}}
    assert specs(lab)["app_db"]["Mode"]["Replicated"]["Replicas"] == 2


@pytest.fixture(scope="module")
def holder(sk: Swarmkit) -> None:
    """A service of another stack, with ports."""
    path = sk.folder / "holder.yml"
    ports = [{"target": 80, "published": 9090, "mode": "host"}, "9091:80"]
    path.write_text(json.dumps({"services": {"web": service(ports=ports)}}))
    sk("stack", "up", str(path), "--name", "holder")


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "bad image": ({"image": "registry.swarmkit.internal:5000/none/such:1"}, "no such image on m1"),
    "crash loop": (
        {"command": ["sh", "-c", "echo no such table; exit 3"], "healthcheck": {"disable": True}},
        "exit 3 on m1",
    ),
    "failing health check": (BROKEN, "health check failed"),
}


@pytest.mark.parametrize(
    "fault", ["bad image", *(pytest.param(name, marks=pytest.mark.soak) for name in [*FAULTS][1:])]
)
def test_cli_6752_a_stack_that_fails_is_again_what_it_was_and_says_so(
    lab: Lab, sk: Swarmkit, fault: str
) -> None:
    changed, words = FAULTS[fault]
    before = specs(lab)
    # All that is deployed together with it goes back too.
    services = {**good(**changed), "db": service(environment={"B": "2"}), "new": service()}
    failed = up(sk, file(sk, services, "two", networks={"more": {}}), code=4)
    assert failed["error"]["rolled_back"]
    assert failed["error"]["where"] == "app_web"
    assert words in failed["error"]["message"]
    assert specs(lab) == before
    assert up(sk, file(sk, good(environment={"A": "1"})))["changed"] == 0


@pytest.mark.usefixtures("holder")
def test_what_cannot_run_is_refused_before_the_first_write(lab: Lab, sk: Swarmkit) -> None:
    before = versions(lab)
    nowhere = {**service()["deploy"], "placement": {"constraints": ["node.labels.no == 1"]}}
    host = [{"target": 80, "published": 9090, "mode": "host"}]
    services = {
        "web": service(environment={"A": "2"}, deploy=nowhere),
        "db": service(ports=["9091:80"]),
        "new": service(ports=host),
    }
    refused = up(sk, file(sk, services), code=2)
    assert {one["where"]: one["message"] for one in refused["errors"]} == {
        "app_web": "no node fits: 1 of 1 node lacks the label no=1 (constraint node.labels.no == 1)",
        "app_db": "port 9091/tcp is published by holder_web already",
        "app_new": "port 9090/tcp in host mode is taken on m1 (holder_web)",
    }
    assert versions(lab) == before


def test_of_two_deployments_at_once_one_is_done_and_whole(lab: Lab, sk: Swarmkit) -> None:
    running = {}
    for who in ("a", "b"):
        services = {name: {**one, "environment": {"WHO": who}} for name, one in good().items()}
        path = sk.folder / f"{who}.yml"
        path.write_text(json.dumps({"services": services, "configs": {"c": {"content": who}}}))
        command = sk.command("stack", "up", str(path), "--name", "app", "--resolve-image", "never")
        running[who] = subprocess.Popen(
            command, env=sk.environment, cwd=sk.folder, stderr=subprocess.PIPE, text=True
        )
    said = {who: process.communicate(timeout=120)[1] for who, process in running.items()}
    codes = {who: process.returncode for who, process in running.items()}
    done = [who for who, code in codes.items() if code == 0]
    assert done, said
    for who in codes.keys() - set(done):
        assert codes[who] == 1
        assert "the stack app is locked" in said[who]
    now = specs(lab)
    found = {tuple(now[name]["TaskTemplate"]["ContainerSpec"]["Env"]) for name in ("app_web", "app_db")}
    assert found in [{(f"WHO={who}",)} for who in done]
    assert {one["state"] for one in sk.json("stack", "history", "app")} == {"done"}


def test_a_deployment_that_was_killed_can_be_taken_back(lab: Lab, sk: Swarmkit) -> None:
    before = specs(lab)
    running = left_half_done(sk, lab, file(sk, good(**SICK), "two"))
    locked = sk("stack", "up", file(sk, good()), "--name", "app", code=1).error
    assert "the stack app is locked" in locked
    kill(running)
    assert [one["state"] for one in sk.json("stack", "history", "app")][-1] == "unfinished"
    assert sk.json("stack", "rollback", "app")["converged"]
    assert specs(lab) == before


@pytest.mark.soak
def test_one_that_fails_after_one_that_was_killed_returns_to_where_that_began(lab: Lab, sk: Swarmkit) -> None:
    before = specs(lab)
    kill(left_half_done(sk, lab, file(sk, good(**SICK), "three")))
    assert up(sk, file(sk, good(**BROKEN), "three"), code=4)["error"]["rolled_back"]
    assert specs(lab) == before


def test_a_deployment_that_was_killed_is_completed_by_the_next(lab: Lab, sk: Swarmkit) -> None:
    kill(left_half_done(sk, lab, file(sk, good(**SICK), "three")))
    assert up(sk, file(sk, good(environment={"A": "3"}), "three"))["converged"]
    assert "A=3" in specs(lab)["app_web"]["TaskTemplate"]["ContainerSpec"]["Env"]
    assert {one["state"] for one in sk.json("stack", "history", "app")} == {"done"}


@pytest.mark.soak
def test_a_revision_can_be_returned_to(lab: Lab, sk: Swarmkit) -> None:
    for services in (good(), good(environment={"A": "9"})):
        up(sk, file(sk, services))
    now = specs(lab)
    first = sk.json("stack", "history", "app")[-2]["number"]
    shown = sk("stack", "history", "app").stdout.splitlines()
    (head,) = [number for number, line in enumerate(shown) if line.startswith(f"{first}  20")]
    assert "stack up app" in shown[head]
    assert re.match(r"    (create|update) service app_", shown[head + 1])
    result = sk.json("stack", "rollback", "app", str(first))
    assert (result["converged"], result["rolled_back"]) == (True, False)
    assert "Env" not in specs(lab)["app_web"]["TaskTemplate"]["ContainerSpec"]
    sk("stack", "rollback", "app")
    assert specs(lab) == now
    assert "there is no revision 99" in sk("stack", "rollback", "app", "99", code=2).error


@pytest.mark.soak
def test_what_is_pruned_goes_when_the_rest_runs(lab: Lab, sk: Swarmkit) -> None:
    up(sk, file(sk, good()))
    path = file(sk, {"web": service()})
    said = sk("stack", "up", path, "--name", "app", "--prune").stderr.splitlines()
    order = [line.split(":")[0].strip() for line in said if "service app_" in line]
    assert order == ["update service app_web", "remove service app_db"]
    assert set(specs(lab)) >= {"app_web"}
    assert "app_db" not in specs(lab)


@pytest.mark.soak
def test_a_port_goes_from_one_service_to_another(lab: Lab, sk: Swarmkit) -> None:
    def with_ports(web: list[Any], api: list[Any]) -> str:
        return file(sk, {"web": service(configs=["c"], ports=web), "api": service(ports=api)})

    both = [{"target": 80, "published": 9070, "mode": "host"}, "9071:80"]
    assert up(sk, with_ports([], both))["converged"]
    moved = up(sk, with_ports(both, ["9072:80"]))
    assert [one["name"] for one in moved["changes"] if one["kind"] == "service"] == ["app_api", "app_web"]
    # Neither can be first.
    swapped = up(sk, with_ports(["9072:80"], both))
    assert "remove" in [one["action"] for one in swapped["changes"] if one["kind"] == "service"]
    now = specs(lab)
    published = {
        name: sorted(port["PublishedPort"] for port in now[name]["EndpointSpec"]["Ports"])
        for name in ("app_web", "app_api")
    }
    assert published == {"app_web": [9072], "app_api": [9070, 9071]}


def test_moby_37901_a_network_is_made_again_where_that_is_agreed_to_and_only_there(
    lab: Lab, sk: Swarmkit
) -> None:
    path = file(sk, {"web": service()}, networks={"default": {"attachable": True}})
    before = versions(lab)
    refused = sk("stack", "up", path, "--name", "app", code=2)
    assert "app_default would be made again" in refused.error
    assert "remove network app_default: attachable False → True" in refused.stderr
    command = sk.command("stack", "up", path, "--name", "app")
    question = "Type the stack's name to go on"
    shown = typed(command, sk.environment, {question: "yes"})
    assert "not confirmed; nothing was changed" in shown
    assert shown.endswith("exit 2")
    assert versions(lab) == before
    shown = typed(command, sk.environment, {question: "app"})
    assert shown.endswith("exit 0"), shown
    assert up(sk, path)["changed"] == 0


@pytest.mark.soak
def test_what_one_stack_made_is_not_taken_over_or_removed_by_another(lab: Lab, sk: Swarmkit) -> None:
    def second(**top: Any) -> tuple[str, ...]:
        path = sk.folder / "second.yml"
        path.write_text(json.dumps({"services": {"api": service(**top.pop("uses"))}, **top}))
        return "stack", "up", str(path), "--name", "second", "--resolve-image", "never"

    config = {"c": {"content": "one", "name": "shared"}}
    network = {"n": {"name": "common"}}
    path = sk.folder / "app.yml"
    services = {"web": service(configs=["c"], networks=["n"])}
    path.write_text(json.dumps({"services": services, "configs": config, "networks": network}))
    up(sk, str(path), "--prune")
    before = specs(lab)
    refused = sk(*second(uses={"configs": ["c"]}, configs=config), code=2)
    assert "there is a config shared already, which is of the stack app" in refused.error
    sk(*second(uses={"networks": ["n"]}, networks=network))
    kept = sk("stack", "down", "app", code=1)
    assert "common: other stacks use the network: second_api; nothing was removed" in kept.error
    assert specs(lab) == before
    sk("stack", "down", "second")
    assert specs(lab) == before
    assert [one["Name"] for one in inspected(lab, "network")] == ["common"]


def test_moby_29293_up_straight_after_down_works_and_down_leaves_nothing(lab: Lab, sk: Swarmkit) -> None:
    sk("stack", "down", "app")
    assert not any(inspected(lab, kind) for kind in ("service", "config", "network", "secret"))
    assert up(sk, file(sk, {"web": service(volumes=["data:/d"])}, volumes={"data": {}}))["converged"]
    assert "app_data" in lab.shell("m1", "docker volume ls -q")
    sk("stack", "down", "app", "--volumes")
    assert "app_data" not in lab.shell("m1", "docker volume ls -q")


def test_an_engine_keeps_all_that_it_is_sent(sk: Swarmkit) -> None:
    """Otherwise a second `up` would find changes; what the engine would drop is not sent, which is said."""
    said = deploy_everything(sk)
    assert "service web: oom_score_adj: ignored" in said
    assert "start_interval" not in said
