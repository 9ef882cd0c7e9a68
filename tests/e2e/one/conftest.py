"""A swarm of the lab's first machine: the modules here share it, and each begins with nothing on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import yaml

from tests.conftest import Swarmkit
from tests.e2e.conftest import Lab

# Commands that were killed leave locks; networks go when the last of their containers has gone.
CLEAN = """
docker service ls -q | xargs -r docker service rm
docker config ls -q | xargs -r docker config rm
docker secret ls -q | xargs -r docker secret rm
stacks='docker network ls -q --filter label=com.docker.stack.namespace'
for i in $(seq 200); do
  [ "$($stacks)" ] || exit 0
  docker network rm $($stacks) 2>/dev/null || sleep 0.1
done
exit 1
"""


@pytest.fixture(scope="package")
def lab(machines: Callable[[int], Lab]) -> Lab:
    return machines(1)


@pytest.fixture(scope="package")
def swarm_of_one(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarmkit]:
    """The command, on a swarm that has the base image."""
    path = tmp_path_factory.mktemp("one") / "inventory.yml"
    known = str(lab.inventory.parent / "known_hosts")
    path.write_text(yaml.safe_dump({"cluster": "one", "known_hosts": known, "managers": [lab.host("m1")]}))
    sk = Swarmkit(lab.swarmkit.environment, path)
    sk("init")
    lab.shell("m1", "docker load -q </var/lib/swarmkit/images/base.tar")
    yield sk
    sk("reset")


@pytest.fixture(scope="module")
def sk(lab: Lab, swarm_of_one: Swarmkit, tmp_path_factory: pytest.TempPathFactory) -> Swarmkit:
    """The command, run in a folder of the module's own."""
    lab.shell("m1", CLEAN)
    return Swarmkit(swarm_of_one.environment, swarm_of_one.inventory, folder=tmp_path_factory.mktemp("sk"))
