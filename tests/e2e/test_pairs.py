"""From one stack to the next of twenty: what lives afterwards is what a deployment from nothing gives."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from swarmkit.names import SECRET_LABEL, SPEC_LABEL
from tests.conftest import Swarmkit
from tests.e2e.conftest import Lab, swarm_of_one
from tests.twenty import FILES

IMAGE = "swarmkit/base:13"
OURS = "--filter label=com.docker.stack.namespace=ring"

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def lab(machines: Callable[[int], Lab]) -> Lab:
    return machines(1)


@pytest.fixture(scope="module")
def sk(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarmkit]:
    with swarm_of_one(lab, tmp_path_factory.mktemp("pairs")) as sk:
        lab.shell("m1", f"docker tag {IMAGE} y:latest; docker tag {IMAGE} y:2; docker tag {IMAGE} x:latest")
        yield sk


def written(sk: Swarmkit, number: int) -> str:
    """One of the twenty as a file; its tasks stop at once, and are watched for a moment only."""
    text, secrets = FILES[number]
    document = yaml.safe_load(text)
    for service in document["services"].values():
        if "entrypoint" not in service:
            service.setdefault("command", ["sleep", "1000"])
        service["stop_signal"] = "SIGKILL"
        deploy = service.setdefault("deploy", {})
        deploy["update_config"] = {"monitor": "300ms", **deploy.get("update_config", {})}
        deploy["restart_policy"] = {"delay": "100ms"}
        # The balancer, which would be built here, has tests of its own.
        deploy.get("labels", {}).pop("swarmkit.lb.port", None)
        if secrets:
            service["secrets"] = [*secrets]
    for name, content in secrets.items():
        file = sk.folder / f"{number}.{name}"
        file.write_bytes(content)
        document.setdefault("secrets", {})[name] = {"file": str(file)}
    path = sk.folder / f"{number}.yml"
    path.write_text(json.dumps(document))
    return str(path)


def up(sk: Swarmkit, number: int) -> Any:
    options = ("--prune", "--resolve-image", "never", "-y", "-o", "json")
    return sk("stack", "up", written(sk, number), "--name", "ring", *options).json


def inspected(lab: Lab, kind: str) -> list[dict[str, Any]]:
    return list(
        json.loads(lab.shell("m1", f"docker {kind} ls -q {OURS} | xargs -r docker {kind} inspect") or "[]")
    )


def held(lab: Lab) -> dict[str, Any]:
    """All that lives of the stack, without ids, and with contents in place of the names of versions."""
    networks = inspected(lab, "network")
    names = {one["Id"]: one["Name"] for one in networks}
    configs = {one["Spec"]["Name"]: one["Spec"] for one in inspected(lab, "config")}
    secrets = {one["Spec"]["Name"]: one["Spec"] for one in inspected(lab, "secret")}
    found: dict[str, Any] = {}
    for service in inspected(lab, "service"):
        spec = service["Spec"]
        del spec["Labels"][SPEC_LABEL]
        container = spec["TaskTemplate"]["ContainerSpec"]
        for network in spec["TaskTemplate"]["Networks"]:
            network["Target"] = names[network["Target"]]
        for one in container.get("Configs", ()):
            del one["ConfigID"]
            config = configs[one.pop("ConfigName")]
            one["is"] = (config["Data"], config["Labels"])
        for one in container.get("Secrets", ()):
            del one["SecretID"]
            labels = secrets[one["SecretName"]]["Labels"]
            one["SecretName"] = re.sub("-[0-9a-f]{10}$", "", one["SecretName"])
            one["is"] = {key: value for key, value in labels.items() if key != SECRET_LABEL}
        found[spec["Name"]] = spec
    for network in networks:
        options = network["Options"] or {}
        options.pop("com.docker.network.driver.overlay.vxlanid_list", None)
        found[f"network {network['Name']}"] = {
            "options": options,
            **{key: network[key] for key in ("Driver", "Internal", "Attachable", "Labels")},
        }
    # What a container of each service has in its files.
    read = (
        f"for one in $(docker ps -q {OURS}); do\n"
        "docker inspect --format '{{index .Config.Labels \"com.docker.swarm.service.name\"}}' $one\n"
        "docker exec $one sh -c 'for file in /run/secrets/* /c /d; do"
        " test ! -f $file || echo $file $(cat $file); done' | tr '\\n' ' '; echo\n"
        "done"
    )
    return found | {"files": sorted(set(lab.shell("m1", read).splitlines()))}


def versions(lab: Lab) -> dict[str, Any]:
    """All that a write would change: the versions of what is there, and the tasks."""
    kinds = ("service", "config", "secret")
    found: dict[str, Any] = {one["ID"]: one["Version"] for kind in kinds for one in inspected(lab, kind)}
    tasks = f"docker service ls -q {OURS} | xargs -r docker service ps -q"
    return found | {
        "networks": sorted(one["Id"] for one in inspected(lab, "network")),
        "tasks": sorted(lab.shell("m1", tasks).split()),
    }


@pytest.fixture(scope="module")
def fresh(lab: Lab, sk: Swarmkit) -> list[dict[str, Any]]:
    """What each of the twenty is when it is deployed from nothing."""
    found = []
    for number in range(len(FILES)):
        assert up(sk, number)["converged"]
        found.append(held(lab))
        sk("stack", "down", "ring")
        assert not any(inspected(lab, kind) for kind in ("service", "config", "secret", "network"))
    return found


@pytest.fixture(scope="module")
def first(sk: Swarmkit, fresh: list[dict[str, Any]]) -> None:
    """The last of the twenty runs, which the first follows."""
    assert len(fresh) == len(FILES)
    up(sk, len(FILES) - 1)


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize("number", range(len(FILES)))
def test_the_next_stack_is_what_it_is_from_nothing_and_stays_so(
    lab: Lab, sk: Swarmkit, fresh: list[dict[str, Any]], number: int
) -> None:
    assert up(sk, number)["converged"]
    assert held(lab) == fresh[number]
    before = versions(lab)
    assert up(sk, number)["changed"] == 0
    assert versions(lab) == before
