"""The engine that labs run on, through the Docker SDK."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any

from swarmkit.errors import OperationFailed, Unreachable, UsageError
from swarmkit.inventory import Role
from swarmkit.lab.models import (
    LABEL,
    Lab,
    Node,
    NodeState,
    Size,
    checked_name,
    container_name,
    network_name,
)

if TYPE_CHECKING:
    from docker import DockerClient

# Starting a container or removing its volumes may take a busy machine long.
TIMEOUT_SECONDS = 120

# How docker-py names an engine on this machine: a socket, a named pipe, the loopback.
_LOCAL = ("localhost", "localnpipe", "127.0.0.1")

# A container that was made and never started.
_CREATED = "created"
# One that runs, or that reboots.
_UP = ("running", "restarting")


def connect(timeout: int = TIMEOUT_SECONDS) -> DockerClient:
    """The engine of this machine: DOCKER_HOST's, else that of docker's current context.

    Raises Unreachable where none answers, UsageError where it is another machine's: nodes publish
    their ports on its loopback, where nothing here would reach them.
    """
    import docker
    from docker.context import ContextAPI
    from docker.errors import DockerException

    try:
        if os.environ.get("DOCKER_HOST"):
            client = docker.from_env(timeout=timeout)
        else:
            context: Any = ContextAPI.get_current_context()
            if context is None:
                raise ValueError("docker's current context does not exist")
            client = docker.DockerClient(base_url=context.Host, tls=context.TLSConfig, timeout=timeout)
    except (DockerException, OSError, ValueError) as error:
        raise _no_engine(error) from None
    url = str(client.api.base_url)
    if url.split("://", 1)[-1].split(":")[0] not in _LOCAL:
        client.close()
        raise UsageError(
            f"the engine is not on this machine: {url}",
            hint="labs run on this machine's own engine: unset DOCKER_HOST, or docker context use default",
        )
    return client


def _no_engine(error: Exception) -> Unreachable:
    said = str(error)
    if "Permission denied" in said or "PermissionError" in said:
        return Unreachable(
            "this user may not use the Docker Engine",
            hint="sudo usermod -aG docker $USER, then log in again (members of that group are as root)",
        )
    return Unreachable(
        f"no Docker Engine answers on this machine ({said})",
        hint="start it, or install it: https://docs.docker.com/engine/install/ "
        "(in a checkout on Debian or Ubuntu, as root: scripts/ensure-engine.sh)",
    )


@contextmanager
def explained(doing: str, where: str = "") -> Iterator[None]:
    """Turn the SDK's errors into ours: what was being done, and what the engine says."""
    import requests
    from docker.errors import APIError, DockerException

    try:
        yield
    except APIError as error:
        raise OperationFailed(f"{doing}: {error.explanation or error}", where=where) from None
    except (DockerException, requests.RequestException) as error:
        raise OperationFailed(f"{doing}: {error}", where=where) from None


@dataclass(frozen=True)
class Found:
    """What an engine has of a lab: the lab, its subnet, and containers that were made but never started."""

    lab: Lab
    subnet: IPv4Network | None = None
    never_started: tuple[str, ...] = ()


def find(client: DockerClient, name: str | None = None) -> dict[str, Found]:
    """The labs on this engine by name; only the one called `name` where that is given."""
    api: Any = client.api
    wanted = {"label": [LABEL if name is None else f"{LABEL}={name}"]}
    with explained("reading the labs"):
        networks = api.networks(filters=wanted)
        containers = api.containers(all=True, filters=wanted)
    sizes: dict[str, Size] = {}
    subnets: dict[str, IPv4Network] = {}
    for network in networks:
        lab = network["Labels"][LABEL]
        sizes[lab] = Size.from_labels(network["Labels"])
        subnets[lab] = IPv4Network(network["IPAM"]["Config"][0]["Subnet"])
    states: dict[str, list[NodeState]] = {lab: [] for lab in sizes}
    never_started: dict[str, list[str]] = {}
    for container in containers:
        lab = container["Labels"][LABEL]
        states.setdefault(lab, [])
        if container["State"] == _CREATED:
            never_started.setdefault(lab, []).append(container["Id"])
        else:
            node = Node.from_labels(container["Labels"])
            states[lab].append(NodeState(node, container["State"] in _UP))
    found = {}
    for lab in sorted(states):
        nodes = tuple(sorted(states[lab], key=_by_role_and_number))
        managers = sum(state.node.role is Role.MANAGER for state in nodes)
        size = sizes.get(lab, Size(len(nodes), managers, bare=False))
        found[lab] = Found(Lab(lab, size, nodes), subnets.get(lab), tuple(never_started.get(lab, ())))
    return found


def _by_role_and_number(state: NodeState) -> tuple[bool, int, str]:
    name = state.node.name
    return state.node.role is not Role.MANAGER, int(name.lstrip("mwn") or 0), name


def named(found: dict[str, Found], name: str) -> Lab:
    """The lab called `name`; raises UsageError, naming those there are."""
    if checked_name(name) not in found:
        raise UsageError(f'there is no lab "{name}"', hint=f"there are: {', '.join(found) or 'none'}")
    return found[name].lab


def names(client: DockerClient) -> set[str]:
    """The names of all labs that have left anything on the engine but images."""
    api: Any = client.api
    wanted = {"label": LABEL}
    with explained("reading the labs"):
        found = [
            *(each["Labels"] for each in api.containers(all=True, filters=wanted)),
            *(each["Labels"] for each in api.networks(filters=wanted)),
            *(each["Labels"] for each in api.volumes(filters=wanted)["Volumes"] or ()),
        ]
    return {labels[LABEL] for labels in found}


def running_nodes(client: DockerClient) -> int:
    """How many nodes run, of all labs."""
    return sum(state.running for found in find(client).values() for state in found.lab.nodes)


def subnets(client: DockerClient) -> list[IPv4Network]:
    """The IPv4 subnets of all of the engine's networks."""
    api: Any = client.api
    with explained("reading the networks"):
        networks = api.networks()
    configs = [config for network in networks for config in network["IPAM"]["Config"] or ()]
    return [IPv4Network(config["Subnet"]) for config in configs if "." in config.get("Subnet", "")]


def make_network(client: DockerClient, lab: str, size: Size, subnet: IPv4Network) -> bool:
    """Make the lab's network; false where the subnet has been taken meanwhile."""
    from docker.errors import APIError
    from docker.types import IPAMConfig, IPAMPool

    with explained("making the network", where=network_name(lab)):
        try:
            client.networks.create(
                network_name(lab),
                driver="bridge",
                ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=str(subnet))]),
                check_duplicate=True,
                labels=size.labels(lab),
            )
        except APIError as error:
            if "overlaps" in str(error.explanation):
                return False
            raise
    return True


def create(client: DockerClient, lab: str, node: str, configuration: dict[str, Any]) -> str:
    """Make a node's container, not started; returns its ID."""
    api: Any = client.api
    with explained("making the container", where=node):
        return str(api.create_container_from_config(configuration, container_name(lab, node))["Id"])


def start(client: DockerClient, container: str, node: str) -> bool:
    """Start a node's container (its name or ID); false where one of its ports is taken."""
    from docker.errors import APIError

    api: Any = client.api
    with explained("starting the container", where=node):
        try:
            api.start(container)
        except APIError as error:
            said = str(error.explanation)
            if "port is already allocated" in said or "address already in use" in said:
                return False
            raise
    return True


def kill(client: DockerClient, lab: str, node: str) -> None:
    """Stop a node at once, as pulling its plug would."""
    api: Any = client.api
    with explained("stopping the container", where=node):
        api.kill(container_name(lab, node))


def remove(client: DockerClient, container: str) -> None:
    """Remove a container (its name or ID), running or not, with its volumes; gone already is fine."""
    from docker.errors import NotFound

    api: Any = client.api
    with explained("removing a container", where=container), suppress(NotFound):
        api.remove_container(container, v=True, force=True)


def is_running(client: DockerClient, lab: str, node: str) -> bool:
    api: Any = client.api
    with explained("reading the container", where=node):
        return bool(api.inspect_container(container_name(lab, node))["State"]["Running"])


def log_tail(client: DockerClient, lab: str, node: str) -> str:
    """The last that a node's first process printed."""
    api: Any = client.api
    with explained("reading the container's log", where=node):
        return str(api.logs(container_name(lab, node), tail=5).decode(errors="replace")).strip()


def read_file(client: DockerClient, lab: str, node: str, path: str) -> str | None:
    """A file of a node, read through the engine, or None where there is none."""
    import io
    import tarfile

    from docker.errors import NotFound

    api: Any = client.api
    with explained(f"reading {path}", where=node):
        try:
            chunks, _ = api.get_archive(container_name(lab, node), path)
            data = b"".join(chunks)
        except NotFound:
            return None
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        member = archive.extractfile(archive.next() or path)
        return member.read().decode() if member else None


def containers_of(client: DockerClient, lab: str) -> list[str]:
    """The IDs of all of a lab's containers."""
    api: Any = client.api
    with explained("reading the containers"):
        found = api.containers(all=True, filters={"label": [f"{LABEL}={lab}"]})
    return [str(container["Id"]) for container in found]


def remove_networks_and_volumes(client: DockerClient, lab: str) -> int:
    """Remove what a lab's containers leave; returns how many things that were."""
    wanted = {"label": f"{LABEL}={lab}"}
    with explained("removing networks and volumes"):
        networks = client.networks.list(filters=wanted)
        volumes = client.volumes.list(filters=wanted)
        for network in networks:
            network.remove()
        for volume in volumes:
            volume.remove()
    return len(networks) + len(volumes)


def remove_images(client: DockerClient) -> int:
    """Remove the images of nodes and their base, but those that nodes still use; returns how many."""
    from docker.errors import ImageNotFound

    with explained("removing images"):
        in_use = {each["ImageID"] for each in client.api.containers(all=True)}
        nodes = client.images.list(filters={"label": "swarmkit=node"})
        base = client.images.list(filters={"label": "swarmkit=base"})
        unused = {str(image.id): None for image in [*nodes, *base] if image.id not in in_use}
        for image in unused:
            try:
                client.images.remove(image, force=True)
            except ImageNotFound:
                # It was a parent of the one before, and went with it.
                continue
    return len(unused)
