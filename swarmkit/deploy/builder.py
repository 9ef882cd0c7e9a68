"""The images of a stack with `build:`: built on the manager that has the registry, known to all nodes."""

from __future__ import annotations

from collections.abc import Mapping

from swarmkit.cluster.facts import SwarmMembership
from swarmkit.compose.convert import BuildSource
from swarmkit.errors import OperationFailed, UsageError
from swarmkit.images.build import build_and_push, find_built
from swarmkit.images.distribute import distribute
from swarmkit.images.registry import SERVICE as REGISTRY_SERVICE
from swarmkit.images.registry import ensure_registry
from swarmkit.images.trust import FACTS, TrustFacts
from swarmkit.inventory import Host
from swarmkit.remote import Engine, Fleet
from swarmkit.swarm import nodes, services
from swarmkit.target import Swarm
from swarmkit.ui import Ui

NOT_BUILT = "(built when it is deployed)"


def build_images(
    swarm: Swarm, ui: Ui, stack: str, sources: Mapping[str, BuildSource], *, dry_run: bool = False
) -> dict[str, str]:
    """References by digest of the images of a stack's services, built and pushed where they are new.

    Every node that is ready gets them at once, so that the registry may fail later. In a dry run
    nothing is built, and what would have to be is a stand-in. Raises UsageError where the swarm is
    known by its engine alone, OperationFailed where a build fails.
    """
    if not sources:
        return {}
    if swarm.fleet is None:
        raise UsageError(
            f"the stack {stack} has `build:`, and that takes machines to build on and a registry of ours",
            where=swarm.target.name,
            hint="use an inventory (-i), or give the services images that the nodes can pull",
        )
    fleet = swarm.fleet
    host, certificate = _registry_host(fleet)
    engine, shell = fleet.engine(host), fleet.connection(host)
    if dry_run:
        return _built_already(engine, stack, sources)
    with ui.progress() as shown:

        def say(text: str) -> None:
            shown.update(f"  {text}")

        def detail(text: str) -> None:
            shown.detail(f"  {text[:100]}")

        node_id = SwarmMembership.of(engine.get("/info")).node_id
        ensure_registry(engine, shell, node_id, certificate, say=say)
        images = {
            service: str(
                build_and_push(
                    engine,
                    shell,
                    f"{stack}/{service}",
                    source.context,
                    source.dockerfile,
                    _arguments(source),
                    say=say,
                    detail=detail,
                )
            )
            for service, source in sources.items()
        }
        ready = {node.name for node in nodes(engine) if node.is_ready}
        others = [one for one in fleet.inventory.hosts if one.name in ready and one != host]
        outcomes = distribute(fleet, others, sorted(set(images.values())))
    for name, error in outcomes.errors.items():
        ui.warn(f"{name} does not have the images yet and will pull them when it needs them: {error.message}")
    return images


def _built_already(engine: Engine, stack: str, sources: Mapping[str, BuildSource]) -> dict[str, str]:
    """The references of images that the registry has; the others' stand-in."""
    has_registry = any(service.name == REGISTRY_SERVICE for service in services(engine))
    found = dict.fromkeys(sources, NOT_BUILT)
    for service, source in sources.items() if has_registry else ():
        name = f"{stack}/{service}"
        image = find_built(engine, name, source.context, source.dockerfile, _arguments(source))
        found[service] = str(image or NOT_BUILT)
    return found


def _arguments(source: BuildSource) -> dict[str, str]:
    return {key: value for key, value in source.args.items() if value is not None}


def _registry_host(fleet: Fleet) -> tuple[Host, str]:
    """The manager that has the registry's certificate, and which one that is."""

    def look(host: Host) -> TrustFacts:
        lines = fleet.connection(host).run(FACTS).checked("looking for the registry").splitlines()
        return TrustFacts.parse(dict(line.split("=", 1) for line in lines if "=" in line))

    outcomes = fleet.map(look, fleet.inventory.managers)
    for host in fleet.inventory.managers:
        found = outcomes.values.get(host.name)
        if found is not None and found.server:
            return host, found.server
    outcomes.all()
    raise OperationFailed(
        "no manager has the registry's certificate",
        where=fleet.inventory.cluster,
        hint="run swarmkit init again",
    )
