"""Bringing the balancer up, and keeping it in step with what routes need besides their configuration.

A route that comes, goes or changes needs nothing of this: the controller sees it. But a swarm gives a
service its ports and secrets by its spec, so those that routes ask for are brought here, at the end of every
deployment.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from swarmkit.balancer.identity import CONTROLLER_NAME, PROXY_NAME
from swarmkit.balancer.nginx import DEFAULT_CERTIFICATE
from swarmkit.balancer.routes import BALANCER_PORT, TLS_PORT, Route, Routes, find_secret, routes
from swarmkit.balancer.status import wait_until_served
from swarmkit.compose.dropped import START_INTERVAL
from swarmkit.compose.load import Project, parse
from swarmkit.deploy.apply import carry_out
from swarmkit.deploy.down import down
from swarmkit.deploy.options import Options
from swarmkit.deploy.plan import Change
from swarmkit.deploy.prepare import prepare
from swarmkit.errors import NotConverged, OperationFailed
from swarmkit.images.ca import Authority, fingerprint, self_signed
from swarmkit.images.context import packed
from swarmkit.images.registry import AUTHORITY_LABEL as REGISTRY_AUTHORITY
from swarmkit.images.registry import SERVICE as REGISTRY
from swarmkit.images.trust import find_authority
from swarmkit.names import (
    AUTHORITY_LABEL,
    BALANCER_LABEL,
    BALANCER_STACK,
    CONTROLLER_SERVICE,
    PROXY_SERVICE,
    SOURCES_LABEL,
)
from swarmkit.remote import Engine
from swarmkit.resources import PACKAGE, folder
from swarmkit.services.nodes import update_node
from swarmkit.services.placement import published
from swarmkit.swarm import Service, nodes, services
from swarmkit.target import Swarm
from swarmkit.ui import Ui

# How long proxies may take to serve what runs: a controller that has just died is back within it.
_SERVED_SECONDS = 30.0
# What stands for the content of a secret in a plan that is not carried out.
_NOT_MADE = "(made when it is deployed)"
# The services of the stack's file by their names in the swarm.
_PARTS = {"controller": CONTROLLER_SERVICE, "proxy": PROXY_SERVICE}
# How often the balancer is brought into step where other commands change what is asked of it meanwhile.
_TRIES = 5


def follow_routes(
    swarm: Swarm,
    ui: Ui,
    *,
    timeout: float,
    dry_run: bool = False,
    known: Sequence[Service] | None = None,
    coming: Sequence[Service] = (),
) -> Sequence[Change]:
    """Make the balancer serve the routes of the services that there are; no routes, no balancer.

    `known` are the services to go by, those of the swarm unless given; the secrets that routes of those in
    `coming` name are brought as well, and nothing is said of mistakes yet. Routes that cannot be had are
    warned of and left out: they are the mistake of whoever deployed them. Returns what had to be (in a
    dry run: would have to be) changed; raises as deploying does.
    """
    changes: list[Change] = []
    # Commands for several stacks follow at the same time, and only the writing is under a lock: who has read
    # first and writes last would take away what the other one has brought. So: until what was read holds.
    for _ in range(_TRIES):
        live, secrets = services(swarm.engine), _secrets(swarm.engine)
        done = _follow(
            swarm, ui, live, secrets, live if known is None else known, coming, timeout, dry_run=dry_run
        )
        changes += done
        if not done or dry_run:
            break
        if _asked(services(swarm.engine), _secrets(swarm.engine)) == _asked(live, secrets):
            break
    return changes


def _asked(live: Sequence[Service], secrets: Mapping[str, Mapping[str, Any]]) -> tuple[object, ...]:
    """What routes ask of the balancer's services; whether there are any."""
    found = routes(live)
    known = [*secrets]
    names = {find_secret(name, route.stack, known) for route in found.routes for name in route.secrets}
    return bool(found.routes), names, found.entry_ports


def _follow(
    swarm: Swarm,
    ui: Ui,
    live: Sequence[Service],
    secrets: Mapping[str, Mapping[str, Any]],
    known: Sequence[Service],
    coming: Sequence[Service],
    timeout: float,
    *,
    dry_run: bool,
) -> Sequence[Change]:
    """Follow once, by what was read: all services and secrets of the swarm."""
    found = routes(known)
    wanted_routes = [*found.routes, *routes(coming).routes]
    # Commands for several stacks may get here at the same time.
    options = Options(timeout, "load balancer", lock_wait=timeout)
    for error in found.errors if not coming else ():
        ui.warn(f"no route for {error}")
    if not wanted_routes:
        is_there = any(one.stack == BALANCER_STACK for one in live)
        return down(swarm.engine, ui, BALANCER_STACK, options) if is_there and not dry_run else []
    running = {one.name: one for one in live}
    if swarm.fleet is None and not {CONTROLLER_SERVICE, PROXY_SERVICE} <= running.keys():
        ui.warn("this swarm has no load balancer, and one can only be made with an inventory (-i)")
        return []
    named, missing = _named(wanted_routes, [*secrets])
    for text in missing if not coming else ():
        ui.warn(text)
    wanted = Wanted(
        identities=_identities(swarm, running, secrets, dry_run=dry_run),
        secrets=named,
        ports=_ports(ui, found, live),
        sources=_sources() if swarm.fleet else _sources_of(running),
        start_interval=START_INTERVAL.taken(swarm.engine.api_version),
    )
    if not dry_run:
        _label_managers(swarm.engine, ui)
    # Without machines to build on, the images that run will do; and what was built need not be again.
    images = {
        key: service.image
        for key, name in _PARTS.items()
        if (service := running.get(name))
        and (swarm.fleet is None or service.labels.get(SOURCES_LABEL) == wanted.sources[key])
    }
    prepared = prepare(swarm, ui, project(wanted), BALANCER_STACK, dry_run=dry_run, prune=True, images=images)
    return (prepared.plan if dry_run else carry_out(swarm.engine, ui, prepared, options)).changes


def bring_secrets(swarm: Swarm, ui: Ui, changes: Sequence[Change], *, timeout: float) -> None:
    """Let the controller have the secrets that routes of services name once these changes are sent.

    Sent first, such a route would answer 503 until its secret came. What the routes name now stays with the
    controller. Costs nothing where the changes name no other secret; raises as deploying does.
    """
    changed = [one for one in changes if one.kind == "service" and one.action == "update"]
    coming = [Service.of({"ID": one.name, "Spec": one.spec}) for one in changed]
    present = [Service.of({"ID": one.name, "Spec": one.replaces}) for one in changed]
    if _secret_names(coming) <= _secret_names(present):
        return
    # Without a balancer there is no route that anything could happen to.
    if any(one.name == CONTROLLER_SERVICE for one in services(swarm.engine)):
        follow_routes(swarm, ui, timeout=timeout, coming=coming)


def _secret_names(some: Iterable[Service]) -> set[tuple[str, str]]:
    return {(route.stack, name) for route in routes(some).routes for name in route.secrets}


def await_served(swarm: Swarm, ui: Ui, names: Collection[str], *, timeout: float) -> None:
    """End when the proxies send requests to the tasks of these services; warn where they do not in time."""
    try:
        wait_until_served(swarm, ui, names, timeout=min(timeout, _SERVED_SECONDS))
    except NotConverged as error:
        ui.warn("; ".join((error.message, *error.details)))


@dataclass(frozen=True)
class Identities:
    """The names of the secrets by which the two parts know each other, and the default certificate's.

    `missing` has the contents of those that are not in the swarm yet.
    """

    authority: str
    controller: str
    proxy: str
    certificate: str
    fingerprint: str
    missing: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Wanted:
    """What the stack is made of besides its file.

    `secrets` are the names of those that the controller is to read for routes, `ports` all entry ports,
    `sources` stand for what the image of each service is made of. `start_interval` says whether engines look
    at a task's health more often while it starts.
    """

    identities: Identities
    secrets: Sequence[str]
    ports: Sequence[int]
    sources: Mapping[str, str]
    start_interval: bool = True


def project(wanted: Wanted) -> Project:
    """The balancer's Compose file."""
    source = folder("nginx") / "stack.yml"
    document = yaml.safe_load(source.read_text(encoding="utf-8"))
    if not wanted.start_interval:
        for service in document["services"].values():
            del service["healthcheck"]["start_interval"]
            service["healthcheck"]["interval"] = "1s"
    identities = wanted.identities
    document["services"]["proxy"]["ports"] = [
        {"target": port, "published": port, "mode": "host"} for port in wanted.ports
    ]
    used = document["services"]["controller"]["secrets"]
    owner = {key: used[0][key] for key in ("uid", "gid", "mode")}
    for name in wanted.secrets:
        document["secrets"][name] = {"name": name, "external": True}
        used.append({"source": name, "target": name, **owner})
    values = {
        "CONTROLLER_CONTEXT": str(PACKAGE),
        "CONTROLLER_DOCKERFILE": str(_controller_dockerfile()),
        **{f"{key.upper()}_SOURCES": value for key, value in wanted.sources.items()},
    }
    for key in ("authority", "controller", "proxy", "certificate"):
        name = getattr(identities, key)
        definition: dict[str, Any] = {"name": name}
        if name in identities.missing:
            values[f"{key.upper()}_CONTENT"] = identities.missing[name]
            definition["environment"] = f"{key.upper()}_CONTENT"
            definition["labels"] = {AUTHORITY_LABEL: identities.fingerprint}
        else:
            definition["external"] = True
        document["secrets"][key] = definition
    text = yaml.safe_dump(document, sort_keys=False)
    return parse(text, str(source), source.parent, values)


def _sources() -> dict[str, str]:
    """What stands for the content of each image's build context."""
    found = {}
    for key, context, dockerfile in (
        ("proxy", folder("nginx"), "Dockerfile"),
        ("controller", PACKAGE, str(_controller_dockerfile())),
    ):
        with packed(context, dockerfile) as archive:
            found[key] = archive.digest[:20]
    return found


def _sources_of(running: Mapping[str, Service]) -> dict[str, str]:
    """What the images that run were built of."""
    return {key: running[name].labels.get(SOURCES_LABEL, "") for key, name in _PARTS.items()}


def _controller_dockerfile() -> Path:
    return folder("nginx") / "controller" / "Dockerfile"


def _secrets(engine: Engine) -> dict[str, Mapping[str, Any]]:
    """The labels of the swarm's secrets by name, the oldest first."""
    found = sorted(engine.get("/secrets"), key=lambda one: str(one["CreatedAt"]))
    return {one["Spec"]["Name"]: one["Spec"].get("Labels") or {} for one in found}


def _identities(
    swarm: Swarm,
    running: Mapping[str, Service],
    secrets: Mapping[str, Mapping[str, Any]],
    *,
    dry_run: bool,
) -> Identities:
    """Those of the cluster's present authority: the ones that there are, else new ones."""
    authority = None
    mark = _authority_of_registry(running.get(REGISTRY)) or _authority_of_secrets(secrets)
    if not mark:
        authority = _authority(swarm)
        mark = fingerprint(authority.certificate)
    first = {key: f"{BALANCER_STACK}-{key}-{mark[:10]}" for key in ("ca", "controller", "proxy")}
    first["certificate"] = DEFAULT_CERTIFICATE
    names = {key: find_secret(name, "", secrets) or name for key, name in first.items()}
    lacking = [key for key, name in names.items() if name not in secrets]
    missing: dict[str, str] = {}
    if lacking and dry_run:
        missing = {names[key]: _NOT_MADE for key in lacking}
    elif lacking:
        if {*lacking} - {"certificate"}:
            authority = authority or _authority(swarm)
        for key in lacking:
            missing[names[key]] = _made(key, authority)
    return Identities(names["ca"], names["controller"], names["proxy"], names["certificate"], mark, missing)


def _made(key: str, authority: Authority | None) -> str:
    """The content of a new secret, in PEM."""
    if key == "certificate":
        issued = self_signed("swarmkit")
        return issued.certificate + issued.key
    assert authority is not None, "only the default certificate is nobody's"
    if key == "ca":
        return authority.certificate
    if key == "controller":
        issued = authority.issue_server([CONTROLLER_NAME])
    else:
        issued = authority.issue_client(PROXY_NAME)
    return issued.certificate + issued.key


def _authority(swarm: Swarm) -> Authority:
    fleet = swarm.fleet
    if fleet is None:
        raise OperationFailed(
            "the load balancer needs certificates, and the cluster's authority is on its managers",
            where=swarm.target.name,
            hint="use an inventory (-i)",
        )
    return find_authority(
        fleet.inventory.managers,
        lambda host, script: fleet.connection(host).run(script).checked("reading the certificate authority"),
        fleet.map,
    )


def _authority_of_registry(registry: Service | None) -> str:
    """The SHA-256 of the authority that the cluster's registry goes by; empty where that is not known."""
    if registry is None:
        return ""
    labels = registry.spec["TaskTemplate"]["ContainerSpec"].get("Labels") or {}
    return str(labels.get(REGISTRY_AUTHORITY, ""))


def _authority_of_secrets(secrets: Mapping[str, Mapping[str, Any]]) -> str:
    marks = [str(labels[AUTHORITY_LABEL]) for labels in secrets.values() if AUTHORITY_LABEL in labels]
    return marks[-1] if marks else ""


def _named(wanted: Iterable[Route], secrets: Sequence[str]) -> tuple[list[str], list[str]]:
    """The secrets that routes name, by their names in the swarm; and a warning for each that is not there."""
    found, missing = set(), []
    for route in wanted:
        for name in route.secrets:
            secret = find_secret(name, route.stack, secrets)
            if secret is None:
                hint = f"docker secret create {name} FILE"
                missing.append(f"{route.service}: there is no secret {name}, which its route needs ({hint})")
            else:
                found.add(secret)
    return sorted(found), missing


def _ports(ui: Ui, found: Routes, live: Sequence[Service]) -> list[int]:
    """All entry ports: those that any route has ever asked for stay as long as the proxies do.

    Warns of those that services publish themselves, and leaves them out: whoever asks for one must not keep
    others from deploying.
    """
    held: set[int] = set()
    taken: dict[int, str] = {}
    for one in live:
        if one.name == PROXY_SERVICE:
            held = {*_published(one)}
        elif one.stack != BALANCER_STACK:
            taken |= dict.fromkeys(_published(one), one.name)
    new = {*found.entry_ports} - held
    for port in sorted(new & taken.keys()):
        users = ", ".join(sorted({route.service for route in found.routes if route.listen == port}))
        ui.warn(
            f"{users}: port {port} is published by {taken[port]}, and cannot be an entry port (let one of"
            " the two have another)"
        )
    new -= taken.keys()
    if held and new:
        ports = ", ".join(str(port) for port in sorted(new))
        ui.warn(
            f"entry port {ports}: a swarm opens a port only for new tasks, so the proxies are replaced, node"
            " by node; meanwhile the node does not answer"
        )
    return sorted({BALANCER_PORT, TLS_PORT, *held, *new})


def _published(service: Service) -> Iterable[int]:
    """The TCP ports that a service publishes, on its nodes or on all."""
    texts = [*published(service.spec, "ingress"), *published(service.spec, "host")]
    return [int(port) for port, _, protocol in (text.partition("/") for text in texts) if protocol == "tcp"]


def _label_managers(engine: Engine, ui: Ui) -> None:
    """Let the balancer run on managers, but where somebody has said on which nodes."""
    for node in nodes(engine):
        if node.is_manager and BALANCER_LABEL not in node.labels:
            ui.say(f"  {node.name}: label {BALANCER_LABEL}=true")
            update_node(engine, node.id, labels={BALANCER_LABEL: "true"})
