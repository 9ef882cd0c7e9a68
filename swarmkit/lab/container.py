"""The container that a node is, as the Engine API's POST /containers/create takes it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from swarmkit.lab.models import LABEL, Node, network_name

SSH_PORT = "22/tcp"
BALANCER_PORT = "8080/tcp"
MODULES = "/lib/modules"


def configuration(
    lab: str,
    node: Node,
    image: str,
    public_key: str,
    *,
    missing_capabilities: Iterable[str] = (),
    modules: bool = False,
) -> dict[str, Any]:
    """The container for `node`: as near to a machine as an engine can make it.

    A node is what `--privileged` gives, less the capabilities that this machine itself lacks and less
    the machine's devices: with either of them the engine would refuse, or the node would reach disks
    that are not its own. `modules`: the machine has kernel modules that nodes may ask for.
    """
    ports: dict[str, int] = {SSH_PORT: node.ssh_port}
    if node.balancer_port is not None:
        ports[BALANCER_PORT] = node.balancer_port
    mounts: list[dict[str, Any]] = [
        # The node's engine keeps its data on the machine's own file system: overlays do not stack.
        {"Type": "volume", "Target": target, "VolumeOptions": {"Labels": {LABEL: lab}}}
        for target in ("/var/lib/docker", "/var/lib/containerd")
    ]
    if modules:
        mounts.append({"Type": "bind", "Source": MODULES, "Target": MODULES, "ReadOnly": True})
    return {
        "Image": image,
        "Hostname": node.name,
        "Env": [f"LAB_AUTHORIZED_KEY={public_key}"],
        "Labels": node.labels(lab),
        "ExposedPorts": {port: {} for port in ports},
        "HostConfig": {
            "CapAdd": ["ALL"],
            "CapDrop": sorted(missing_capabilities),
            "SecurityOpt": ["seccomp=unconfined", "apparmor=unconfined", "label=disable"],
            # What the docker command's `systempaths=unconfined` stands for.
            "MaskedPaths": [],
            "ReadonlyPaths": [],
            "DeviceCgroupRules": ["a *:* rwm"],
            "CgroupnsMode": "private",
            "Tmpfs": {"/run": "mode=755", "/run/lock": "", "/tmp": "exec,mode=1777"},
            "Mounts": mounts,
            "NetworkMode": network_name(lab),
            # `reboot` inside ends systemd with a signal: the node comes up again, as a machine does.
            "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
            "PortBindings": {
                port: [{"HostIp": "127.0.0.1", "HostPort": str(here)}] for port, here in ports.items()
            },
        },
        "NetworkingConfig": {
            "EndpointsConfig": {network_name(lab): {"IPAMConfig": {"IPv4Address": node.address}}}
        },
    }
