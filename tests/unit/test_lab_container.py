"""The container that a node is."""

from __future__ import annotations

import pytest

from swarmkit.inventory import Role
from swarmkit.lab.container import configuration
from swarmkit.lab.machine import missing_capabilities
from swarmkit.lab.models import Node

MANAGER = Node("m1", Role.MANAGER, "172.16.5.11", 22001, 8081)
WORKER = Node("wn1", Role.WORKER, "172.16.5.12", 22002)

# Numbers from linux/capability.h.
SYS_RESOURCE, CHECKPOINT_RESTORE = 24, 40
ALL = (1 << CHECKPOINT_RESTORE + 1) - 1


@pytest.mark.parametrize(
    ("bounding_set", "last", "missing"),
    [
        (ALL, CHECKPOINT_RESTORE, []),
        (ALL & ~(1 << SYS_RESOURCE), CHECKPOINT_RESTORE, ["SYS_RESOURCE"]),
        (ALL & ~1, CHECKPOINT_RESTORE, ["CHOWN"]),
        # A kernel that ends before those is not said to lack them.
        ((1 << 38) - 1, 37, []),
        (0, 2, ["CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH"]),
    ],
)
def test_only_capabilities_that_the_machine_lacks_are_dropped(
    bounding_set: int, last: int, missing: list[str]
) -> None:
    assert missing_capabilities(bounding_set, last) == missing
    host = configuration("x", WORKER, "image", "key", missing_capabilities=missing)["HostConfig"]
    assert host["CapAdd"] == ["ALL"]
    assert host["CapDrop"] == sorted(missing)


def test_a_node_has_its_fixed_address_and_loopback_ports() -> None:
    made = configuration("x", MANAGER, "image", "key")
    assert made["Hostname"] == "m1"
    assert made["NetworkingConfig"] == {
        "EndpointsConfig": {"swarmkit-x": {"IPAMConfig": {"IPv4Address": "172.16.5.11"}}}
    }
    assert made["HostConfig"]["PortBindings"] == {
        "22/tcp": [{"HostIp": "127.0.0.1", "HostPort": "22001"}],
        "8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8081"}],
    }
    assert list(configuration("x", WORKER, "image", "key")["HostConfig"]["PortBindings"]) == ["22/tcp"]


def test_containers_and_their_volumes_carry_the_labs_name() -> None:
    made = configuration("x", WORKER, "image", "key")
    assert made["Labels"]["swarmkit.lab"] == "x"
    volumes = [mount for mount in made["HostConfig"]["Mounts"] if mount["Type"] == "volume"]
    assert {mount["Target"] for mount in volumes} == {"/var/lib/docker", "/var/lib/containerd"}
    assert all(mount["VolumeOptions"] == {"Labels": {"swarmkit.lab": "x"}} for mount in volumes)
    assert not any("Source" in mount for mount in volumes)


def test_kernel_modules_are_shown_read_only_and_only_where_there_are_any() -> None:
    def binds(modules: bool) -> list[dict[str, object]]:
        made = configuration("x", WORKER, "image", "key", modules=modules)
        return [mount for mount in made["HostConfig"]["Mounts"] if mount["Type"] == "bind"]

    assert binds(False) == []
    assert [(mount["Source"], mount["ReadOnly"]) for mount in binds(True)] == [("/lib/modules", True)]
