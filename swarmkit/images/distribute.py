"""Bringing images to the nodes that will run them, before a service asks for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from swarmkit.errors import OperationFailed
from swarmkit.images import REGISTRY
from swarmkit.images.base import image_id
from swarmkit.inventory import Host
from swarmkit.remote import Engine, Fleet, Outcomes


def distribute(fleet: Fleet, hosts: Iterable[Host], references: Sequence[str]) -> Outcomes[list[str]]:
    """Make the engines of `hosts` have the images, given by digest, all hosts in parallel.

    The outcome of a host is the list of those that it had to pull, or its error.
    """

    def pull_missing(host: Host) -> list[str]:
        engine = fleet.engine(host)
        return [reference for reference in references if pull(engine, reference)]

    return fleet.map(pull_missing, hosts)


def pull(engine: Engine, reference: str) -> bool:
    """Make the engine have the image `name[:tag]@sha256:…`; whether it had to be pulled.

    Raises OperationFailed, saying why, where it cannot be had.
    """
    name, at, digest = reference.partition("@")
    if not at:
        raise ValueError(f"not a reference by digest: {reference}")
    repository = _untagged(name)
    if image_id(engine, held_as(reference)):
        return False
    # In the cluster's registry the node's certificate counts, and no credentials of the user's.
    credentials: dict[str, str] | None = {} if repository.startswith(f"{REGISTRY}/") else None
    messages = engine.stream(
        lambda api: api.pull(repository, digest, stream=True, decode=True, auth_config=credentials)
    )
    for message in messages:
        if problem := message.get("error"):
            raise OperationFailed(f"{reference} cannot be pulled: {problem}", where=engine.name)
    return True


def held_as(reference: str) -> str:
    """The reference by which an engine finds what it has: without the tag, where there is a digest."""
    name, at, digest = reference.partition("@")
    return f"{_untagged(name)}@{digest}" if at else name


def _untagged(name: str) -> str:
    """`host:5000/path` of `host:5000/path:tag`."""
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"
