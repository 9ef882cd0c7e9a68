"""From one stack to the next of twenty: what lives afterwards is what a deployment from nothing gives."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from swarmkit.names import SECRET_LABEL, SPEC_LABEL
from tests.conftest import Swarmkit
from tests.e2e.conftest import Lab
from tests.twenty import FILES

IMAGE = "swarmkit/base:13"
OURS = "--filter label=com.docker.stack.namespace=ring"

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def sk(lab: Lab, sk: Swarmkit) -> Swarmkit:
    lab.shell("m1", f"docker tag {IMAGE} y:latest; docker tag {IMAGE} y:2; docker tag {IMAGE} x:latest")
    return sk


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


KINDS = ("service", "config", "secret", "network")
# A part each: what there is of each kind, the tasks, and what the containers have in their files.
LOOK = rf"""
for kind in {" ".join(KINDS)}; do
  ids=$(docker $kind ls -q {OURS})
  if [ "$ids" ]; then docker $kind inspect --format '{{{{json .}}}}' $ids; fi
  echo --
done
docker service ls -q {OURS} | xargs -r docker service ps -q | sort
echo --
for one in $(docker ps -q {OURS}); do
  name=$(docker inspect --format '{{{{index .Config.Labels "com.docker.swarm.service.name"}}}}' $one)
  docker exec $one sh -c 'for file in /run/secrets/* /c /d; do
    if test -f $file; then echo $file $(cat $file); fi
  done' |
    sed "s/^/$name /"
done | sort -u
"""


@dataclass(frozen=True)
class Seen:
    """What lives of the stack: `things` as the engine shows them, by kind; the tasks; the files."""

    things: dict[str, list[dict[str, Any]]]
    tasks: str
    files: str

    @classmethod
    def of(cls, lab: Lab) -> Seen:
        *things, tasks, files = lab.shell("m1", LOOK).split("--\n")
        decoded = [[json.loads(line) for line in part.splitlines()] for part in things]
        return cls(dict(zip(KINDS, decoded, strict=True)), tasks, files)

    def marks(self) -> Any:
        """All that a write would change: the versions of what is there, and the tasks."""
        versions = {one["ID"]: one["Version"] for kind in KINDS[:3] for one in self.things[kind]}
        return versions, sorted(one["Id"] for one in self.things["network"]), self.tasks

    def meaning(self) -> dict[str, Any]:
        """Without ids, and with contents in place of the names of versions."""
        names = {one["Id"]: one["Name"] for one in self.things["network"]}
        configs, secrets = (
            {one["Spec"]["Name"]: one["Spec"] for one in self.things[kind]} for kind in ("config", "secret")
        )
        found: dict[str, Any] = {"files": self.files}
        for service in copy.deepcopy(self.things["service"]):
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
        for network in self.things["network"]:
            options = dict(network["Options"] or {})
            # The engine's own numbering.
            options.pop("com.docker.network.driver.overlay.vxlanid_list", None)
            kept = ("Driver", "Internal", "Attachable", "Labels")
            found[f"network {network['Name']}"] = {"options": options, **{key: network[key] for key in kept}}
        return found


@pytest.fixture(scope="module")
def fresh(lab: Lab, sk: Swarmkit) -> list[dict[str, Any]]:
    """What each of the twenty is when it is deployed from nothing."""
    found = []
    for number in range(len(FILES)):
        assert up(sk, number)["converged"]
        found.append(Seen.of(lab).meaning())
        sk("stack", "down", "ring")
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
    seen = Seen.of(lab)
    assert seen.meaning() == fresh[number]
    assert up(sk, number)["changed"] == 0
    assert Seen.of(lab).marks() == seen.marks()
