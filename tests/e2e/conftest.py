"""The lab that end-to-end tests share: real nodes, made once a run and removed at its end."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from swarmkit.inventory import Login, load
from swarmkit.remote import Connection, HostKeys
from tests.conftest import Swarmkit

# Told apart by checkout: two may be tested on one machine at the same time.
LAB = f"swarmkit-tests-{hashlib.sha256(str(Path(__file__).resolve()).encode()).hexdigest()[:6]}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The story comes first: it begins with machines as they are made."""
    items.sort(key=lambda item: "test_story" not in item.nodeid and "e2e" in item.nodeid)


@dataclass(frozen=True)
class Lab:
    """A lab and the ways into it."""

    swarmkit: Swarmkit
    inventory: Path
    url: str
    nodes: dict[str, dict[str, Any]]

    def shell(self, node: str, script: str) -> str:
        """Run a script as root on a node, over a connection of its own; its output."""
        inventory = load(self.inventory)
        folder, found = self.inventory.parent, self.nodes[node]
        login = Login(node, "127.0.0.1", "swarmkit", found["ssh_port"], folder / "id_ed25519")
        connection = Connection(login, HostKeys(inventory.known_hosts))
        try:
            return connection.run(script, timeout=120).checked(script)
        finally:
            connection.close()

    def host(self, node: str) -> dict[str, Any]:
        """A node as an inventory has it."""
        return {
            "name": node,
            "address": "127.0.0.1",
            "port": self.nodes[node]["ssh_port"],
            "private_address": self.nodes[node]["address"],
            "user": "swarmkit",
            "key": str(self.inventory.parent / "id_ed25519"),
        }

    def power(self, state: str, node: str) -> None:
        """Switch a node `off` or `on`."""
        self.swarmkit("lab", "stop" if state == "off" else "start", node, "--name", LAB)


@pytest.fixture(scope="session")
def machines(docker_engine: None, swarmkit: Swarmkit) -> Iterator[Callable[[int], Lab]]:
    """Gives a lab of bare machines, made when first asked for; asked for more, it grows."""

    most = 0

    def up(count: int) -> Lab:
        nonlocal most
        # Others may have asked for more: a lab does not shrink.
        most = max(most, count)
        found = swarmkit.json("lab", "up", "--bare", "--name", LAB, "--nodes", str(most))
        inventory = Path(found["inventory"])
        by_name = {node["name"]: node for node in found["nodes"]}
        return Lab(
            Swarmkit(swarmkit.environment, inventory, folder=swarmkit.folder),
            inventory,
            found["urls"]["balancer"],
            by_name,
        )

    # What a run that was killed has left.
    if LAB in [lab["name"] for lab in swarmkit.json("lab", "ls")]:
        swarmkit("lab", "down", "--name", LAB)
    yield up
    swarmkit("lab", "down", "--name", LAB)


# A shell and little more; nothing answers at its registry, so nodes use what they have at once.
BOX = "127.0.0.1:1/box:1"


def bring_box(lab: Lab, *names: str, programs: str = "sh sleep tail") -> None:
    """Make the image BOX on nodes, of programs that they have."""
    script = f"""set -e
    mkdir -p /tmp/box/bin /tmp/box/tmp
    for program in {programs}; do cp /usr/bin/$program /tmp/box/bin; done
    for library in $(ldd /tmp/box/bin/* | grep -o '/[^ :]*lib[^ :]*' | sort -u); do
      mkdir -p "/tmp/box$(dirname $library)"; cp -L $library "/tmp/box$library"
    done
    tar -C /tmp/box -c . | docker import - {BOX} >/dev/null"""
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda name: lab.shell(name, script), names))


# A stack with a key of every kind that Swarm has.
EVERYTHING = Path(__file__).with_name("everything.yml")


def deploy_everything(sk: Swarmkit) -> str:
    """Deploy a stack that uses all there is, see that a second time changes nothing, and remove it.

    What the first time said on standard error.
    """
    options = ("--name", "all", "--resolve-image", "never", "--timeout", "30", "-o", "json")
    first, second = (sk("stack", "up", str(EVERYTHING), *options) for _ in range(2))
    assert first.json["converged"]
    assert second.json["changed"] == 0
    sk("stack", "down", "all")
    return first.stderr


@pytest.fixture
def inventory(lab: Lab, tmp_path: Path) -> Callable[..., Path]:
    """Writes an inventory of some of the lab's nodes, each with what is said of it changed.

    The first `managers` are managers; `top` are keys of the file itself.
    """

    def write(
        known_hosts: Path | None = None,
        managers: int = 1,
        top: Mapping[str, Any] | None = None,
        **hosts: dict[str, Any],
    ) -> Path:
        entries = [{**lab.host(name), **changed} for name, changed in hosts.items()]
        path = tmp_path / "inventory.yml"
        document = {
            "cluster": "trouble",
            "known_hosts": str(known_hosts or lab.inventory.parent / "known_hosts"),
            "managers": entries[:managers],
            "workers": entries[managers:],
            **(top or {}),
        }
        path.write_text(yaml.safe_dump(document))
        return path

    return write
