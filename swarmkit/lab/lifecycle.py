"""What is done with labs: up, down, stop and start."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, TypeVar

from swarmkit.errors import OperationFailed, SwarmkitError, Unreachable, raise_all
from swarmkit.lab import container, engine, image, machine, plan, ssh
from swarmkit.lab.folder import Folder
from swarmkit.lab.models import Lab, Node, Size, checked_name, container_name
from swarmkit.waiting import wait_for

if TYPE_CHECKING:
    from docker import DockerClient

Say = Callable[[str], None]
Result = TypeVar("Result")

# A node boots in a second or two; many at once share the machine's cores.
_BOOT_SECONDS = 60
_BOOT_SECONDS_PER_NODE = 3
_PARALLEL = 8
# Another program may take a port between our look and the engine's; it will not do so often.
_PORT_TRIES = 5

_HOST_KEY = "/etc/ssh/ssh_host_ed25519_key.pub"


@dataclass(frozen=True)
class Outcome:
    """A lab after `up`, with the names of the nodes that were made and of those that were started."""

    lab: Lab
    made: tuple[str, ...] = ()
    started: tuple[str, ...] = ()


def up(
    client: DockerClient,
    name: str,
    nodes: int | None,
    managers: int | None,
    bare: bool | None,
    release: str | None = None,
    *,
    say: Say,
    warn: Say,
) -> Outcome:
    """Make the lab, or complete, grow or start it; nothing where it is as asked.

    None means: as the lab is, or the default for a new one; `release` is that of the nodes that are made
    now, so that a lab can grow by nodes of another. Ends when every node lets the lab's key in
    by SSH and, unless bare, its engine answers. Raises UsageError where what is asked for cannot be had,
    Unreachable where a node does not come up in time, OperationFailed where the engine refuses.
    """
    known = engine.find(client, checked_name(name)).get(name)
    size = plan.wanted_size(known.lab if known else None, nodes, managers, bare, release)
    found = known or engine.Found(Lab(name, size))
    lab = found.lab
    site = _Site(client, name, size.bare, Folder(name))
    public_key = site.folder.public_key(may_create=not lab.nodes)
    stopped = [state.node for state in lab.nodes if not state.running]
    unknown = [state.node for state in lab.nodes if state.running and not site.folder.knows(state.node)]
    recorded = {node.name for node in stopped if site.folder.knows(node)}
    jobs: list[partial[Reached]] = [partial(site.started, node) for node in stopped]
    jobs += [partial(site.reached, node) for node in unknown]
    new: list[Node] = []
    if len(lab.nodes) < size.nodes:
        for leftover in found.never_started:
            engine.remove(client, leftover)
        site.folder.forget_others([state.node for state in lab.nodes])
        tag = image.ensure(client, size.bare, size.release, say)
        ports = _ports(client)
        new = plan.missing_nodes(lab, size, found.subnet or _make_network(client, name, size), ports)
        jobs += [partial(site.made, node, tag, public_key, ports) for node in new]
    if not jobs:
        if not site.folder.inventory.exists():
            site.folder.record([state.node for state in lab.nodes], {})
        return Outcome(lab)
    _make_room(engine.running_nodes(client) + len(stopped) + len(new), say, warn)
    say(f"waiting until {len(jobs)} nodes can be used")
    reached = _in_parallel([partial(job, among=len(jobs)) for job in jobs], site.cancelled)
    host_keys = {node: key for node, key in reached if node not in recorded}
    lab = engine.find(client, name)[name].lab
    site.folder.record([state.node for state in lab.nodes], host_keys)
    return Outcome(lab, tuple(node.name for node in new), tuple(node.name for node in stopped))


def start(client: DockerClient, lab: Lab, node: str) -> bool:
    """Switch a node on and wait until it can be used; false where it runs already.

    Raises UsageError for a node that the lab does not have; else as `up` does.
    """
    state = lab.state(node)
    if state.running:
        return False
    site = _Site(client, lab.name, lab.begun.bare, Folder(lab.name))
    site.folder.public_key(may_create=False)
    host_keys = dict([site.started(state.node, among=1)])
    if not site.folder.knows(state.node):
        site.folder.record([each.node for each in lab.nodes], host_keys)
    return True


def stop(client: DockerClient, lab: Lab, node: str) -> bool:
    """Switch a node off at once, as pulling its plug would; false where it is off already.

    Raises UsageError for a node that the lab does not have.
    """
    if not lab.state(node).running:
        return False
    engine.kill(client, lab.name, node)
    return True


def down(client: DockerClient, name: str) -> bool:
    """Remove all that belongs to a lab, on the engine and on disk; false where there was nothing."""
    containers = engine.containers_of(client, checked_name(name))
    _in_parallel([partial(engine.remove, client, each) for each in containers], threading.Event())
    left = engine.remove_networks_and_volumes(client, name)
    return Folder(name).remove() or bool(containers or left)


def down_all(client: DockerClient) -> list[str]:
    """Remove all labs, also what is left of half-removed ones; returns their names."""
    names = sorted({*engine.names(client), *Folder.names()})
    for name in names:
        down(client, name)
    return names


def _ports(client: DockerClient) -> plan.Ports:
    # Those of stopped nodes look free and are not.
    nodes = [state.node for found in engine.find(client).values() for state in found.lab.nodes]
    reserved = [port for node in nodes for port in (node.ssh_port, node.balancer_port) if port is not None]
    return plan.Ports(reserved, machine.port_is_free)


def _make_room(nodes: int, say: Say, warn: Say) -> None:
    limit = machine.inotify_needed(nodes)
    if limit is None:
        return
    setting = f"fs.inotify.max_user_instances={limit}"
    if machine.raise_inotify(limit):
        say(f"set {setting} on this machine: {nodes} nodes need it")
    else:
        warn(f"some of {nodes} nodes may not boot before you run: sudo sysctl {setting}")


def _make_network(client: DockerClient, lab: str, size: Size) -> IPv4Network:
    taken = [*engine.subnets(client), *machine.routes()]
    subnet = plan.free_subnet(taken)
    while not engine.make_network(client, lab, size, subnet):
        taken.append(subnet)
        subnet = plan.free_subnet(taken)
    return subnet


# A node that can be used: its name and its host key.
Reached = tuple[str, str]


@dataclass(frozen=True)
class _Site:
    """Where nodes of one lab are brought up; `cancelled` ends all waiting."""

    client: DockerClient
    lab: str
    bare: bool
    folder: Folder
    cancelled: threading.Event = field(default_factory=threading.Event)

    def made(self, node: Node, image_tag: str, public_key: str, ports: plan.Ports, *, among: int) -> Reached:
        """Make and start a node, on other ports where its own have been taken meanwhile."""
        lacking = machine.capabilities_lacking()
        for _ in range(_PORT_TRIES):
            wanted = container.configuration(
                self.lab,
                node,
                image_tag,
                public_key,
                missing_capabilities=lacking,
                modules=machine.has_modules(),
            )
            made = engine.create(self.client, self.lab, node.name, wanted)
            if engine.start(self.client, made, node.name):
                return self.reached(node, among=among)
            engine.remove(self.client, made)
            node = plan.with_other_ports(node, ports)
        raise OperationFailed("other programs take every port that is tried", where=node.name)

    def started(self, node: Node, *, among: int) -> Reached:
        """Start a node that has been stopped."""
        if not engine.start(self.client, container_name(self.lab, node.name), node.name):
            taken = " or ".join(str(port) for port in (node.ssh_port, node.balancer_port) if port is not None)
            raise OperationFailed(
                f"another program listens on port {taken} of 127.0.0.1, which is the node's",
                where=node.name,
                hint=f"end that program, or make the lab anew: swarmkit lab down --name {self.lab}",
            )
        return self.reached(node, among=among)

    def reached(self, node: Node, *, among: int) -> Reached:
        """Wait until a node lets the lab's key in and its engine answers; `among` so many that boot."""
        seconds = _BOOT_SECONDS + _BOOT_SECONDS_PER_NODE * among

        def greets() -> bool:
            self._go_on(node)
            return ssh.has_banner(node.ssh_port)

        wait_for(
            greets,
            seconds,
            lambda: Unreachable(f"no SSH server answers within {seconds} s", where=node.name),
        )
        # From the engine, not from the network: nothing has to be trusted at first sight.
        host_key = engine.read_file(self.client, self.lab, node.name, _HOST_KEY)
        if host_key is None:
            raise OperationFailed("has no SSH host key", where=node.name)
        # Its kind and itself, without the comment.
        host_key = " ".join(host_key.split()[:2])
        attempt = ssh.Attempt(self.folder, node, host_key)

        def lets_in() -> bool:
            self._go_on(node)
            return attempt.succeeds("true" if self.bare else "sudo docker version")

        wait_for(
            lets_in,
            seconds,
            lambda: Unreachable(f"cannot be used after {seconds} s: {attempt.problem}", where=node.name),
        )
        return node.name, host_key

    def _go_on(self, node: Node) -> None:
        """Raises OperationFailed where waiting is of no use any more."""
        if self.cancelled.is_set():
            raise OperationFailed("interrupted", where=node.name)
        if not engine.is_running(self.client, self.lab, node.name):
            raise OperationFailed(
                "stopped while it booted",
                where=node.name,
                hint=engine.log_tail(self.client, self.lab, node.name),
            )


def _in_parallel(jobs: Sequence[Callable[[], Result]], cancelled: threading.Event) -> list[Result]:
    """The results of all jobs; raises what they raise after all have ended."""
    results, errors = [], []
    pool = ThreadPoolExecutor(_PARALLEL)
    try:
        for future in [pool.submit(job) for job in jobs]:
            try:
                results.append(future.result())
            except SwarmkitError as error:
                errors.append(error)
    except BaseException:
        cancelled.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    raise_all(errors)
    return results
