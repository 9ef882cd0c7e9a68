"""What may lose requests when tasks of a balanced service are replaced or stopped: said beforehand.

The balancer sends a task that is about to stop nothing new; what it has been sent already it must finish
by itself, and a new one must be able to answer when it counts as running. `cautions` is pure; what it
goes by is read by `look`, which costs a round trip to a node and to each proxy, and never fails.
"""

from __future__ import annotations

import shlex
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

from swarmkit.balancer.status import Status, read_status
from swarmkit.compose.convert import Spec
from swarmkit.errors import SwarmkitError
from swarmkit.images.distribute import held_as
from swarmkit.remote import Engine
from swarmkit.services.canary import has_route
from swarmkit.services.update import restarts
from swarmkit.swarm import SECOND, Service, nodes, tasks
from swarmkit.target import Swarm

_DEFAULT_GRACE = 10 * SECOND
_DEFAULT_SIGNAL = "SIGTERM"
# On which signal servers finish open requests, of those that end them at once on SIGTERM: nginx(8),
# httpd "Stopping and Restarting", php-fpm(8), haproxy's Management Guide 4, lighttpd(8), unicorn SIGNALS.
_GRACEFUL: Mapping[str, str] = {
    "nginx": "SIGQUIT",
    "nginx-debug": "SIGQUIT",
    "openresty": "SIGQUIT",
    "httpd": "SIGWINCH",
    "httpd-foreground": "SIGWINCH",
    "apache2": "SIGWINCH",
    "apache2-foreground": "SIGWINCH",
    "apachectl": "SIGWINCH",
    "apache2ctl": "SIGWINCH",
    "php-fpm": "SIGQUIT",
    "haproxy": "SIGUSR1",
    "lighttpd": "SIGINT",
    "unicorn": "SIGQUIT",
}
# uWSGI reloads on SIGTERM unless told to die, and finishes requests only where a hook says so.
_UWSGI_HOOK = "gracefully_kill_them_all"


@dataclass(frozen=True)
class ImageFacts:
    """What an image says of how it runs (Engine API, ImageConfig)."""

    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    stop_signal: str = ""
    has_health_check: bool = False

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Self:
        config = raw.get("Config") or {}
        test = (config.get("Healthcheck") or {}).get("Test") or []
        return cls(
            config.get("Entrypoint") or (),
            config.get("Cmd") or (),
            config.get("StopSignal") or "",
            bool(test) and test != ["NONE"],
        )


@dataclass(frozen=True)
class Facts:
    """What is known of a service beyond its spec: its images by reference, and its requests.

    `longest` is how long the longest of them took, in seconds, as far as the balancer has seen.
    """

    images: Mapping[str, ImageFacts]
    longest: float | None = None


def cautions(before: Spec, after: Spec | None, facts: Facts) -> list[str]:
    """A line, with what to do, for each thing that may lose requests when tasks of the service stop.

    `after` is what the service becomes; None where it only gets fewer tasks. Nothing for a service without
    a route, nor where no task is replaced.
    """
    if not has_route(before.get("Labels") or {}) or (after is not None and not restarts(before, after)):
        return []
    name = before["Name"]
    lines = [*_of_stopping(before, facts)]
    if after is not None:
        lines += _of_starting(after, facts)
    return [f"{name}: {line}" for line in lines]


def _of_stopping(spec: Spec, facts: Facts) -> Iterator[str]:
    container = spec["TaskTemplate"]["ContainerSpec"]
    image = facts.images.get(container["Image"])
    arguments = _arguments(container, image)
    server = next((one for one in map(_program, arguments) if one in _GRACEFUL or one == "uwsgi"), "")
    sent = container.get("StopSignal") or (image.stop_signal if image else "") or _DEFAULT_SIGNAL
    if server == "uwsgi" and not any(_UWSGI_HOOK in one for one in arguments):
        yield (
            f"uwsgi ends open requests when it is stopped;"
            f" tell it: hook-master-start = unix_signal:15 {_UWSGI_HOOK}"
        )
    # Where the image is not known, its own signal may be the right one.
    elif server in _GRACEFUL and (image or container.get("StopSignal")):
        wanted = _GRACEFUL[server]
        if _number(sent) != _number(wanted):
            yield f"{server} ends open requests on {sent}; it finishes them on --stop-signal {wanted}"
    grace = container.get("StopGracePeriod", _DEFAULT_GRACE) / SECOND
    if facts.longest is not None and facts.longest > grace:
        wanted_grace = int(facts.longest * 1.5) + 1
        yield (
            f"requests of {facts.longest:.0f} s were seen, and its tasks have {grace:g} s to finish theirs;"
            f" give them --stop-grace-period {wanted_grace}s"
        )


def _of_starting(spec: Spec, facts: Facts) -> Iterator[str]:
    container, config = spec["TaskTemplate"]["ContainerSpec"], spec.get("UpdateConfig") or {}
    replicated = spec["Mode"].get("Replicated")
    if replicated is not None and config.get("Order", "stop-first") != "start-first":
        replicas, at_once = int(replicated.get("Replicas", 1)), int(config.get("Parallelism", 1))
        if 0 < replicas <= (at_once or replicas):
            tasks_word = "its one task stops" if replicas == 1 else f"all of its {replicas} tasks stop"
            yield f"{tasks_word} before another starts, and nothing answers between; --order start-first"
    test = (container.get("Healthcheck") or {}).get("Test") or []
    image = facts.images.get(container["Image"])
    if test == ["NONE"] or (not test and image is not None and not image.has_health_check):
        yield (
            "without a health check a task gets requests as soon as its process starts;"
            " give it a healthcheck: in its stack file"
        )


def _arguments(container: Mapping[str, Any], image: ImageFacts | None) -> list[str]:
    """What runs: the spec's command (the API's word for an entrypoint) and arguments, else the image's."""
    entrypoint, command = container.get("Command"), container.get("Args")
    if entrypoint is None and image is not None:
        entrypoint, command = image.entrypoint, command or image.command
    found: list[str] = []
    for one in [*(entrypoint or ()), *(command or ())]:
        try:
            # A shell gets all of it in one.
            found += shlex.split(one)
        except ValueError:
            found.append(one)
    return found


def _program(argument: str) -> str:
    """`/usr/sbin/php-fpm8.4` as `php-fpm`."""
    name = argument.rpartition("/")[2]
    return name.rstrip("0123456789.") or name if name.startswith("php-fpm") else name


def _number(name: str) -> int:
    if name.isdigit():
        return int(name)
    wanted = f"SIG{name.upper().removeprefix('SIG')}"
    return next((int(each) for each in signal.Signals if each.name == wanted), 0)


def forewarn(swarm: Swarm, service: Service, before: Spec, after: Spec | None = None) -> list[str]:
    """The `cautions` of a service; only one that has a route is looked at."""
    if not has_route(service.labels):
        return []
    specs = [before] if after is None else [before, after]
    return cautions(before, after, look(swarm, service, specs, _status(swarm)))


def forewarn_of_stops(swarm: Swarm, concerned: Iterable[Service]) -> list[str]:
    """The `cautions` of services of which tasks stop; looked up for all at once."""
    routed = [one for one in concerned if has_route(one.labels)]
    if not routed:
        return []
    status = _status(swarm)

    def lines(service: Service) -> list[str]:
        spec = dict(service.spec)
        return cautions(spec, None, look(swarm, service, [spec], status))

    with ThreadPoolExecutor() as pool:
        return [line for found in pool.map(lines, routed) for line in found]


def look(swarm: Swarm, service: Service, specs: Sequence[Spec], status: Status | None) -> Facts:
    """What is to be known of a service for `cautions`; what cannot be read is left out.

    `status` is what the proxies say, None where they cannot be asked.
    """
    longest = status.longest(service.name) if status else None
    references = {str(spec["TaskTemplate"]["ContainerSpec"]["Image"]) for spec in specs}
    try:
        engine = _engine_with(swarm, service)
    except SwarmkitError:
        return Facts({}, longest)

    def facts(reference: str) -> ImageFacts | None:
        try:
            return ImageFacts.of(engine.get(f"/images/{held_as(reference)}/json"))
        except SwarmkitError:
            return None

    with ThreadPoolExecutor() as pool:
        found = zip(references, pool.map(facts, references), strict=True)
        return Facts({name: one for name, one in found if one is not None}, longest)


def _status(swarm: Swarm) -> Status | None:
    try:
        return read_status(swarm)
    except SwarmkitError:
        return None


def _engine_with(swarm: Swarm, service: Service) -> Engine:
    """The engine of a node that runs a task of the service; the manager's where no machine is known."""
    if swarm.fleet is None:
        return swarm.engine
    names = {node.id: node.name for node in nodes(swarm.engine)}
    running = {names.get(task.node_id) for task in tasks(swarm.engine, [service.id]) if task.is_up}
    for host in swarm.fleet.inventory.hosts:
        if host.name in running:
            return swarm.fleet.engine(host)
    return swarm.engine
