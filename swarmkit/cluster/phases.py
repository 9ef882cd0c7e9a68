"""The phases that carry out a plan: one small object each, and the loop that runs them.

Everything that changes a machine or the swarm's members goes through `apply`. Within a phase the hosts
work in parallel, unless the phase says otherwise; a host that fails is cleaned up after and leaves the
phases after it, the others go on.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import ClassVar, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from swarmkit.cluster.actions import (
    Action,
    ConfigureEngine,
    CreateNetwork,
    Demote,
    Departure,
    Drain,
    ForgetNode,
    InitSwarm,
    InstallEngine,
    JoinSwarm,
    LeaveFirst,
    LeaveOther,
    LeaveSwarm,
    MarkSwarm,
    Phase,
    ReleaseGossip,
    RestartEngine,
    StrikeOff,
    Trust,
    UpdateNode,
)
from swarmkit.cluster.alone import ALONE_SECONDS, alone
from swarmkit.cluster.facts import FORMING_FILE, SwarmMembership
from swarmkit.cluster.plan import ClusterPlan
from swarmkit.cluster.ports import MANAGER_PORT, release
from swarmkit.cluster.settings import engine_script, write_script
from swarmkit.errors import NotConverged, OperationFailed, Problems, SwarmkitError, Unreachable
from swarmkit.images.trust import REMOVE as REMOVE_TRUST
from swarmkit.images.trust import apply_trust
from swarmkit.inventory import Host
from swarmkit.names import CLUSTER_LABEL, RESTART_LABEL
from swarmkit.remote import Engine, EngineError, Fleet, Outcomes, is_cut_off, while_stale
from swarmkit.services.drain import drain_nodes, set_availability
from swarmkit.services.nodes import forget_node, update_node, wait_for_role
from swarmkit.swarm import Node, nodes
from swarmkit.ui import Ui
from swarmkit.waiting import wait_for

# A manager that joins makes the managers elect and copy; a small machine takes its time.
JOIN_SECONDS = 90
READY_SECONDS = 60
LEAVE_SECONDS = 60
DRAIN_SECONDS = 300

# dpkg may have been cut off in an earlier run, and a fresh machine's own updates may hold its locks.
# apt waits for dpkg's lock when told to, but not for that of its package lists; dpkg waits for none.
_INSTALL = """
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
apt='apt-get -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -q -y'
once_free() {{
  for second in $(seq 300); do
    said=$("$@" 2>&1) && return 0
    case "$said" in *'ould not get lock'* | *'lock was locked by'*) sleep 1 ;; *) break ;; esac
  done
  printf '%s\n' "$said" >&2
  return 1
}}
update() {{ once_free $apt update; }}
install_them() {{ $apt install --no-install-recommends "$@" iptables ca-certificates; }}
# Before Debian 13 the docker command is part of docker.io, and there is no docker-cli.
known() {{ apt-cache show --no-all-versions {packages} 2>/dev/null | sed -n 's/^Package: //p'; }}
install_known() {{ set -- $(known); [ $# -gt 0 ] && install_them "$@"; }}
once_free dpkg --configure -a
ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1 || update || exit 1
# Asking first what is known would take apt a second on a small machine.
install_them {packages} || install_known || {{ update && install_known; }} || exit 1
"""

T = TypeVar("T")
Todo = Mapping[str, Sequence[Action]]


@dataclass
class Work:
    """What the phases share: the connections, the plan, who has failed and how long each took.

    `drain_seconds` is how long a node that leaves may take to become empty.
    """

    fleet: Fleet
    plan: ClusterPlan
    ui: Ui
    drain_seconds: float = DRAIN_SECONDS
    failed: dict[str, SwarmkitError] = field(default_factory=dict)
    seconds: dict[tuple[Phase, str], float] = field(default_factory=dict)
    done: list[Action] = field(default_factory=list)
    _join_tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    _reading: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def manager(self) -> Engine:
        return self.fleet.engine(self.plan.founder)

    @property
    def join_tokens(self) -> Mapping[str, str]:
        """The swarm's, read once: all hosts that join would ask the one manager."""
        with self._reading:
            if not self._join_tokens:
                self._join_tokens = self.manager.get("/swarm")["JoinTokens"]
            return self._join_tokens

    @property
    def is_lost(self) -> bool:
        """Whether the manager that everything leans on has failed."""
        return self.plan.founder.name in self.failed

    def host(self, name: str) -> Host:
        """The machine of that name, or (for a node that no machine of ours is) a name without a login."""
        return self.fleet.inventory.host(name) or Host(name=name, address="", user="")


class Stage(ABC):
    """One phase's way of doing its actions."""

    phase: ClassVar[Phase]

    @abstractmethod
    def run(self, work: Work, hosts: Sequence[Host], todo: Todo) -> None:
        """Do the hosts' actions, `hosts` being in the plan's order; what fails goes into `work.failed`."""

    def timed(self, work: Work, each: Callable[[Host], T], hosts: Sequence[Host]) -> Outcomes[T]:
        """Do `each` for hosts in parallel, and keep account of every one's time and failure."""

        def counted(host: Host) -> T:
            start = time.monotonic()
            result = each(host)
            work.seconds[self.phase, host.name] = time.monotonic() - start
            return result

        outcomes = work.fleet.map(counted, hosts)
        for name, error in outcomes.errors.items():
            work.ui.say(f"  {name}: {self.phase}: failed")
            work.failed[name] = error
        return outcomes


class HostStage(Stage):
    """A phase whose actions are done host by host, independent of each other."""

    one_by_one: ClassVar[bool] = False

    def run(self, work: Work, hosts: Sequence[Host], todo: Todo) -> None:
        for group in [[host] for host in hosts] if self.one_by_one else [hosts]:
            self.each(work, group, todo)

    def each(self, work: Work, hosts: Sequence[Host], todo: Todo) -> None:
        """Do the actions of these hosts in parallel, each host's own in their order."""

        def act(host: Host) -> None:
            for action in todo[host.name]:
                try:
                    self.do(work, action)
                except SwarmkitError:
                    self.clean_up(work, action)
                    raise

        self.timed(work, act, hosts)

    @abstractmethod
    def do(self, work: Work, action: Action) -> None:
        """Do one action; raises a SwarmkitError where it fails."""

    def clean_up(self, work: Work, action: Action) -> None:
        """Undo what a failed action has left half-done, and raise nothing; by default there is nothing."""


class EngineStage(HostStage):
    """The engine and its command installed, set and running."""

    phase = Phase.ENGINE

    def do(self, work: Work, action: Action) -> None:
        match action:
            case InstallEngine(packages=packages):
                install = _INSTALL.format(packages=" ".join(packages)) if packages else ""
                script = install + engine_script("start")
            case ReleaseGossip():
                script = release(work.fleet.inventory.swarm.data_path_port)
            case ConfigureEngine(content=content, then=then):
                script = write_script(content)
                if then in ("reload", "restart"):
                    script += engine_script(then)
            case _:
                raise AssertionError(action)
        shell = work.fleet.connection(work.host(action.host))
        shell.run(alone(script), ALONE_SECONDS).checked(action.title)


class SwarmStage(HostStage):
    """The swarm itself, on its first manager."""

    phase = Phase.SWARM

    def do(self, work: Work, action: Action) -> None:
        host = work.host(action.host)
        engine = work.fleet.engine(host)
        shell = work.fleet.connection(host)
        match action:
            case LeaveFirst():
                _leave_by_force(work, host)
            case InitSwarm(address=address, settings=settings):
                body = {
                    "ListenAddr": f"0.0.0.0:{MANAGER_PORT}",
                    "AdvertiseAddr": f"{address}:{MANAGER_PORT}",
                    "DataPathAddr": address,
                    **settings,
                }
                # The engine makes the swarm first, and gives it our mark afterwards.
                shell.run(_FORMING).checked("noting that a swarm is formed here")
                engine.post("/swarm/init", body)
                shell.run(f"rm -f {FORMING_FILE}").checked("noting that the swarm is formed")
            case MarkSwarm(cluster=cluster):
                _mark(engine, cluster)
                shell.run(f"rm -f {FORMING_FILE}").checked("noting that the swarm is formed")


def _leave_by_force(work: Work, host: Host) -> None:
    work.fleet.engine(host).post("/swarm/leave", params={"force": True})
    _release(work, host)


def _release(work: Work, host: Host) -> None:
    """See that nothing is left of the swarm that was left: the next one could not be heard."""
    script = release(work.fleet.inventory.swarm.data_path_port)
    work.fleet.connection(host).run(script).checked("closing the ports of the swarm that was left")


_FORMING = f"mkdir -p {PurePosixPath(FORMING_FILE).parent} && touch {FORMING_FILE} && sync {FORMING_FILE}"


@while_stale
def _mark(engine: Engine, cluster: str) -> None:
    swarm = engine.get("/swarm")
    spec = swarm["Spec"]
    spec["Labels"] = {**(spec.get("Labels") or {}), CLUSTER_LABEL: cluster}
    engine.post("/swarm/update", spec, {"version": swarm["Version"]["Index"]})


class TrustStage(Stage):
    """Certificates and a name for the registry. Its hosts depend on each other: see `apply_trust`."""

    phase = Phase.TRUST

    def run(self, work: Work, hosts: Sequence[Host], todo: Todo) -> None:
        steps = tuple(action.step for some in todo.values() for action in some if isinstance(action, Trust))
        try:
            apply_trust(
                replace(work.plan.trust, actions=steps),
                work.fleet.inventory.hosts,
                lambda host, script: (
                    work.fleet.connection(host).run(script).checked("setting up the registry's trust")
                ),
                lambda each, some: self.timed(work, each, some),
            )
        except SwarmkitError as error:
            # Those that were not even begun, for want of what they depend on.
            for host in hosts:
                if (self.phase, host.name) not in work.seconds:
                    work.failed.setdefault(host.name, error)


class ForgetStage(HostStage):
    """Dead nodes off the swarm's list."""

    phase = Phase.FORGET

    def do(self, work: Work, action: Action) -> None:
        assert isinstance(action, ForgetNode)
        forget_node(work.manager, action.node_id)


class JoinStage(HostStage):
    """Machines made nodes, in parallel."""

    phase = Phase.JOIN

    def do(self, work: Work, action: Action) -> None:
        engine = work.fleet.engine(work.host(action.host))
        match action:
            case LeaveOther():
                _leave_by_force(work, work.host(action.host))
            case JoinSwarm(role=role, address=address):
                _join(work, engine, role, address)

    def clean_up(self, work: Work, action: Action) -> None:
        """A join goes on in the background for ever; half-way in, it would stand in the way of the next."""
        if not isinstance(action, JoinSwarm):
            return
        try:
            host = work.host(action.host)
            if SwarmMembership.of(work.fleet.engine(host).get("/info")).state in ("pending", "error"):
                _leave_by_force(work, host)
        except SwarmkitError as error:
            work.ui.warn(f"{action.host}: its unfinished join could not be undone: {error.message}")


def _join(work: Work, engine: Engine, role: str, address: str) -> None:
    """Join through the Engine API, so that the token is in a request's body and nowhere else."""
    # While another manager joins, the swarm has no leader for a moment and turns newcomers away.
    for attempt in Retrying(
        retry=retry_if_exception(_may_pass),
        stop=stop_after_delay(JOIN_SECONDS),
        wait=wait_random_exponential(multiplier=0.2, max=3),
        reraise=True,
    ):
        with attempt:
            if SwarmMembership.of(engine.get("/info")).state in ("inactive", "error"):
                body = {
                    "ListenAddr": f"0.0.0.0:{MANAGER_PORT}",
                    "AdvertiseAddr": address,
                    "DataPathAddr": address,
                    "RemoteAddrs": [f"{work.plan.founder.private_address}:{MANAGER_PORT}"],
                    "JoinToken": work.join_tokens["Manager" if role == "manager" else "Worker"],
                }
                _post_join(engine, body)
    wait_for(
        lambda: SwarmMembership.of(engine.get("/info")).state == "active",
        JOIN_SECONDS,
        lambda: OperationFailed(
            f"joining has not ended after {JOIN_SECONDS} s: "
            f"{SwarmMembership.of(engine.get('/info')).error or 'no reason given'}",
            where=engine.name,
            hint=f"can it reach {work.plan.founder.private_address}:{MANAGER_PORT}/tcp?",
        ),
    )


# What no waiting mends: an address that the machine does not have, a setting that is refused.
_HOPELESS = ("must specify a listening address", "is not a valid", "invalid join token", "could not find")


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, EngineError) and not any(sign in error.message for sign in _HOPELESS)


def _post_join(engine: Engine, body: Mapping[str, object]) -> None:
    try:
        engine.post("/swarm/join", body)
    except EngineError as error:
        # The engine answers after 20 s whatever happens, and goes on by itself (moby, cluster.Join).
        if "Timeout was reached before node joined" not in error.message:
            raise


class NodesStage(HostStage):
    """Roles, labels, availability. Changes of managers and of where tasks are come one after the other."""

    phase = Phase.NODES

    def run(self, work: Work, hosts: Sequence[Host], todo: Todo) -> None:
        changing = [
            host
            for host in hosts
            if any(
                isinstance(action, UpdateNode) and (action.role or action.availability)
                for action in todo[host.name]
            )
        ]
        self.each(work, [host for host in hosts if host not in changing], todo)
        for host in changing:
            self.each(work, [host], todo)

    def do(self, work: Work, action: Action) -> None:
        assert isinstance(action, UpdateNode)
        own_id = SwarmMembership.of(work.fleet.engine(work.host(action.host)).get("/info")).node_id
        update_node(
            work.manager,
            own_id,
            labels=action.labels,
            unwanted=action.unwanted,
            role=action.role,
        )
        if action.availability:
            node = Node.of(work.manager.get(f"/nodes/{own_id}"))
            set_availability(work.manager, node, action.availability, work.ui, timeout=work.drain_seconds)
        if action.role:
            # The next change of managers builds on this one.
            wait_for_role(work.manager, Node.of(work.manager.get(f"/nodes/{own_id}")), action.role)


class NetworkStage(HostStage):
    """The edge network."""

    phase = Phase.NETWORK

    def do(self, work: Work, action: Action) -> None:
        assert isinstance(action, CreateNetwork)
        body = {
            "Name": action.name,
            "Driver": "overlay",
            "Scope": "swarm",
            "CheckDuplicate": True,
            "IPAM": {"Driver": "default", "Config": [{"Subnet": action.subnet}]},
            "Options": {"com.docker.network.driver.mtu": str(action.mtu)} if action.mtu else {},
            "Labels": {"swarmkit.system": "edge"},
        }
        work.manager.post("/networks/create", body)


class RestartStage(HostStage):
    """Engines restarted one by one, so that no more than one node is away at any time."""

    phase = Phase.RESTART

    def run(self, work: Work, hosts: Sequence[Host], todo: Todo) -> None:
        for host in hosts:
            self.each(work, [host], todo)
            if host.name in work.failed:
                # What has gone wrong here would go wrong on the others.
                return

    def do(self, work: Work, action: Action) -> None:
        assert isinstance(action, RestartEngine)
        node = self._node(work, action)
        if action.drained:
            # The label first: whoever finds it knows what the node had before.
            update_node(work.manager, node.id, labels={RESTART_LABEL: action.availability})
            drain_nodes(work.manager, [node], work.ui, timeout=work.drain_seconds)
        script = (write_script(action.content) if action.keys else "") + engine_script("restart")
        work.fleet.connection(work.host(action.host)).run(script).checked("restarting the engine")
        self._restore(work, node, action)

    def clean_up(self, work: Work, action: Action) -> None:
        """The node gets back what it had: its engine runs, with the settings of before."""
        assert isinstance(action, RestartEngine)
        try:
            self._restore(work, self._node(work, action), action)
        except SwarmkitError as error:
            work.ui.warn(f"{action.host}: it stays drained until `swarmkit init` runs again: {error.message}")

    @staticmethod
    def _node(work: Work, action: RestartEngine) -> Node:
        return next(node for node in nodes(work.manager) if node.name == action.host)

    @staticmethod
    def _restore(work: Work, node: Node, action: RestartEngine) -> None:
        def is_back() -> bool:
            try:
                found = Node.of(work.manager.get(f"/nodes/{node.id}"))
            except (EngineError, Unreachable):
                # The manager that was restarted may be the one that we ask, or the leader.
                return False
            return found.is_ready and (found.is_reachable or not found.is_manager)

        wait_for(
            is_back,
            READY_SECONDS,
            lambda: NotConverged(
                f"not back in the swarm {READY_SECONDS} s after its engine was restarted", where=action.host
            ),
        )
        if action.drained:
            set_availability(work.manager, node, action.availability, work.ui, timeout=work.drain_seconds)
            update_node(work.manager, node.id, unwanted=(RESTART_LABEL,))


class LeaveStage(HostStage):
    """Nodes on their way out, one after the other: each must find room on those that stay."""

    phase = Phase.LEAVE
    one_by_one = True

    def do(self, work: Work, action: Action) -> None:
        assert isinstance(action, Departure)
        manager = work.manager
        node = next((node for node in nodes(manager) if node.id == action.node_id), None)
        if node is None:
            # Somebody, or an earlier run, has struck it off already.
            return
        match action:
            case Drain(force=force):
                try:
                    drain_nodes(manager, [node], work.ui, timeout=work.drain_seconds)
                except SwarmkitError as error:
                    if not force or is_cut_off(error):
                        raise
                    work.ui.warn(f"{error}; going on, as you said")
                    update_node(manager, node.id, availability="drain")
            case Demote():
                update_node(manager, node.id, role="worker")
            case LeaveSwarm():
                self._leave(work, action, node)
            case StrikeOff():
                forget_node(manager, node.id)

    def clean_up(self, work: Work, action: Action) -> None:
        """A node that could not be emptied stays a member as it was."""
        if not isinstance(action, Drain) or action.had == "drain":
            return
        try:
            node = Node.of(work.manager.get(f"/nodes/{action.node_id}"))
            set_availability(work.manager, node, action.had, work.ui, timeout=work.drain_seconds)
        except SwarmkitError as error:
            work.ui.warn(f"{action.host}: it stays drained: {error.message}")

    @staticmethod
    def _leave(work: Work, action: LeaveSwarm, node: Node) -> None:
        """Leave, once the node knows that it is a worker: a manager is not let go."""
        host = work.host(action.host)
        engine = work.fleet.engine(host)

        def left() -> bool:
            try:
                engine.post("/swarm/leave")
            except EngineError as error:
                if "not part of a swarm" in error.message:
                    return True
                if "manager" in error.message:
                    return False
                raise
            return True

        wait_for(
            left,
            LEAVE_SECONDS,
            lambda: NotConverged("the node still takes itself for a manager", where=node.name),
        )
        _release(work, host)
        if not action.rejoins:
            work.fleet.connection(host).run(REMOVE_TRUST).checked("removing the registry's certificates")
        wait_for(
            lambda: not Node.of(work.manager.get(f"/nodes/{node.id}")).is_ready,
            LEAVE_SECONDS,
            lambda: NotConverged("the swarm does not notice that the node has left", where=node.name),
        )


class RejoinStage(LeaveStage):
    """Nodes that leave in order to join again, before anything new joins."""

    phase = Phase.REJOIN


# Up to FORMING there may be no swarm, and so no lock that could lie in it.
PREPARING: tuple[Stage, ...] = (EngineStage(),)
FORMING: tuple[Stage, ...] = (SwarmStage(),)
CHANGING: tuple[Stage, ...] = (
    TrustStage(),
    ForgetStage(),
    RejoinStage(),
    JoinStage(),
    NodesStage(),
    NetworkStage(),
    RestartStage(),
    LeaveStage(),
)


def apply(work: Work, stages: Sequence[Stage], check: Callable[[], None] = lambda: None) -> None:
    """Carry out these stages of the plan: the one place where machines and the swarm's members change.

    `check` is called before each stage, and may raise. What was done is in `work.done`, what failed in
    `work.failed`.
    """
    for stage in stages:
        todo: dict[str, list[Action]] = {}
        for action in work.plan.actions:
            if action.phase is stage.phase and action.host not in work.failed:
                todo.setdefault(action.host, []).append(action)
        if work.is_lost:
            break
        if todo:
            check()
            _run(work, stage, todo)


def _run(work: Work, stage: Stage, todo: Todo) -> None:
    hosts = [work.host(name) for name in todo]
    with work.ui.progress() as shown:
        shown.update(f"  {stage.phase}: {', '.join(host.name for host in hosts)}")
        stage.run(work, hosts, todo)
    for host in hosts:
        if (stage.phase, host.name) in work.seconds:
            work.done += todo[host.name]
            did = ", ".join(action.title for action in todo[host.name])
            work.ui.say(f"    {host.name}: {did} ({work.seconds[stage.phase, host.name]:.1f} s)")


def _unfit(known: Sequence[Node], hosts: Sequence[Host]) -> dict[str, str]:
    """By host: in what the swarm sees it otherwise than as a ready node in its role."""
    by_name = {node.name: node for node in known}
    wrong: dict[str, str] = {}
    for host in hosts:
        node = by_name.get(host.name)
        if node is None:
            wrong[host.name] = "the swarm has no such node"
        elif not node.is_ready:
            message = node.raw["Status"].get("Message", "")
            wrong[host.name] = f"the swarm sees it as {node.state}{f': {message}' if message else ''}"
        elif node.role != host.role:
            wrong[host.name] = f"the swarm has it as a {node.role}"
    return wrong


def verify(manager: Engine, hosts: Sequence[Host], known: Sequence[Node] = ()) -> None:
    """Wait until the swarm itself lists every host as ready and in its role; `known` are nodes just read.

    Raises NotConverged, or Problems, naming the hosts for which that does not come true.
    """
    wrong = _unfit(known, hosts)

    def all_right() -> bool:
        nonlocal wrong
        wrong = _unfit(nodes(manager), hosts)
        return not wrong

    def explain() -> SwarmkitError:
        hint = f"is the machine up, and can it reach the managers on {MANAGER_PORT}/tcp?"
        errors: list[SwarmkitError] = [
            NotConverged(text, where=name, hint=hint) for name, text in wrong.items()
        ]
        return errors[0] if len(errors) == 1 else Problems(errors)

    if wrong:
        wait_for(all_right, READY_SECONDS, explain)
