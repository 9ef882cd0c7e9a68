"""The phases that carry out a plan: one function a kind of action, and the loop that runs them.

Everything that changes a machine or forms the swarm goes through `apply`. Within a phase the hosts
work in parallel; a host that fails leaves the phases after it, the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from swarmkit.cluster.facts import SwarmMembership
from swarmkit.cluster.plan import (
    Action,
    ClusterPlan,
    CreateNetwork,
    ForgetNode,
    InitSwarm,
    InstallEngine,
    JoinSwarm,
    LeaveOther,
    Phase,
    Trust,
    UpdateNode,
)
from swarmkit.errors import NotConverged, OperationFailed, SwarmkitError, raise_all
from swarmkit.images.trust import apply_trust
from swarmkit.inventory import Host
from swarmkit.remote import Engine, EngineError, Fleet, Outcomes
from swarmkit.services.nodes import forget_node, update_node
from swarmkit.swarm import Node, nodes
from swarmkit.ui import Ui
from swarmkit.waiting import wait_for

T = TypeVar("T")

SWARM_PORT = 2377
# A manager that joins makes the managers elect and copy; a small machine takes its time.
JOIN_SECONDS = 90
READY_SECONDS = 60

# dpkg may have been cut off in an earlier run, and a fresh machine's own updates may hold its locks.
# apt waits for dpkg's lock when told to, but not for that of its package lists.
_INSTALL = """
export DEBIAN_FRONTEND=noninteractive
apt='apt-get -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -q -y'
update() {{
  for second in $(seq 300); do
    said=$($apt update 2>&1) && return 0
    case "$said" in *'Could not get lock'*) sleep 1 ;; *) break ;; esac
  done
  printf '%s\n' "$said" >&2
  return 1
}}
install_them() {{ $apt install --no-install-recommends "$@" iptables ca-certificates; }}
# Before Debian 13 the docker command is part of docker.io, and there is no docker-cli.
known() {{ apt-cache show --no-all-versions {packages} 2>/dev/null | sed -n 's/^Package: //p'; }}
install_known() {{ set -- $(known); [ $# -gt 0 ] && install_them "$@"; }}
dpkg --configure -a >/dev/null
ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1 || update || exit 1
# Asking first what is known would take apt a second on a small machine.
install_them {packages} || install_known || {{ update && install_known; }} || exit 1
"""
_START = """
systemctl enable --now docker.service
for i in $(seq 150); do docker version >/dev/null 2>&1 && exit 0; sleep 0.2; done
systemctl status --no-pager docker.service
exit 1
"""


@dataclass
class Work:
    """What the phases share: the connections, the plan, who has failed and how long each took."""

    fleet: Fleet
    plan: ClusterPlan
    ui: Ui
    failed: dict[str, SwarmkitError] = field(default_factory=dict)
    seconds: dict[tuple[Phase, str], float] = field(default_factory=dict)

    @property
    def manager(self) -> Engine:
        return self.fleet.engine(self.plan.founder)

    @property
    def is_lost(self) -> bool:
        """Whether the manager that everything leans on has failed."""
        return self.plan.founder.name in self.failed

    def run(self, phase: Phase, hosts: Sequence[Host], work: Callable[[Host], T]) -> Outcomes[T]:
        """Do one phase's work on several hosts in parallel, and keep account of how it went on each."""

        def timed(host: Host) -> T:
            start = time.monotonic()
            result = work(host)
            self.seconds[phase, host.name] = time.monotonic() - start
            return result

        outcomes = self.fleet.map(timed, hosts)
        for name, error in outcomes.errors.items():
            self.ui.say(f"  {name}: {phase}: failed")
            self.failed[name] = error
        return Outcomes(outcomes.values)


def apply(work: Work) -> list[Action]:
    """Carry out the plan; returns the actions that were done. What failed is in `work.failed`."""
    done: list[Action] = []
    for phase in Phase:
        todo: dict[str, list[Action]] = {}
        for action in work.plan.actions:
            if action.phase is phase and action.host not in work.failed:
                todo.setdefault(action.host, []).append(action)
        if work.is_lost:
            break
        if todo:
            hosts = [host for host in work.fleet.inventory.hosts if host.name in todo]
            with work.ui.progress() as shown:
                shown.update(f"  {phase}: {', '.join(host.name for host in hosts)}")
                _RUN[phase](work, hosts, todo)
            for host in hosts:
                if (phase, host.name) in work.seconds:
                    done += todo[host.name]
                    did = ", ".join(action.title for action in todo[host.name])
                    work.ui.say(f"    {host.name}: {did} ({work.seconds[phase, host.name]:.1f} s)")
    return done


Todo = Mapping[str, Sequence[Action]]


def _engine(work: Work, hosts: Sequence[Host], todo: Todo) -> None:
    def install(host: Host) -> None:
        for action in todo[host.name]:
            assert isinstance(action, InstallEngine)
            packages = " ".join(action.packages)
            script = (_INSTALL.format(packages=packages) if packages else "") + _START
            work.fleet.connection(host).run(script).checked(action.title)

    work.run(Phase.ENGINE, hosts, install)


def _trust(work: Work, _hosts: Sequence[Host], todo: Todo) -> None:
    steps = tuple(action.step for some in todo.values() for action in some if isinstance(action, Trust))
    apply_trust(
        replace(work.plan.trust, actions=steps),
        work.fleet.inventory.hosts,
        lambda host, script: (
            work.fleet.connection(host).run(script).checked("setting up the registry's trust")
        ),
        lambda each, some: work.run(Phase.TRUST, some, each),
    )


def _swarm(work: Work, hosts: Sequence[Host], todo: Todo) -> None:
    tokens: dict[str, str] = {}

    def enter(host: Host) -> None:
        engine = work.fleet.engine(host)
        for action in todo[host.name]:
            match action:
                case LeaveOther():
                    engine.post("/swarm/leave", params={"force": True})
                case InitSwarm(address=address):
                    body = {
                        "ListenAddr": f"0.0.0.0:{SWARM_PORT}",
                        "AdvertiseAddr": f"{address}:{SWARM_PORT}",
                        "DataPathAddr": address,
                    }
                    engine.post("/swarm/init", body)
                case JoinSwarm(role=role, address=address):
                    _join(work, engine, address, tokens["Manager" if role == "manager" else "Worker"])

    # The swarm must exist before anyone can join it.
    founders = [host for host in hosts if host == work.plan.founder]
    work.run(Phase.SWARM, founders, enter)
    joining = [host for host in hosts if host not in founders]
    if not joining or work.is_lost:
        return
    try:
        tokens |= work.manager.get("/swarm")["JoinTokens"]
    except SwarmkitError as error:
        work.failed[work.plan.founder.name] = error
    else:
        work.run(Phase.SWARM, joining, enter)


def _join(work: Work, engine: Engine, address: str, token: str) -> None:
    """Join through the Engine API, so that the token is in a request's body and nowhere else."""
    body = {
        "ListenAddr": f"0.0.0.0:{SWARM_PORT}",
        "AdvertiseAddr": address,
        "DataPathAddr": address,
        "RemoteAddrs": [f"{work.plan.founder.private_address}:{SWARM_PORT}"],
        "JoinToken": token,
    }
    # While another manager joins, the swarm has no leader for a moment and turns newcomers away.
    for attempt in Retrying(
        retry=retry_if_exception_type(EngineError),
        stop=stop_after_delay(JOIN_SECONDS),
        wait=wait_random_exponential(multiplier=0.2, max=3),
        reraise=True,
    ):
        with attempt:
            if SwarmMembership.of(engine.get("/info")).state in ("inactive", "error"):
                _post_join(engine, body)
    wait_for(
        lambda: SwarmMembership.of(engine.get("/info")).state == "active",
        JOIN_SECONDS,
        lambda: OperationFailed(
            "joining goes on in the background and has not ended: "
            f"{SwarmMembership.of(engine.get('/info')).error or 'no reason given'}",
            where=engine.name,
            hint=f"can it reach {work.plan.founder.private_address}:{SWARM_PORT}/tcp?",
        ),
    )


def _post_join(engine: Engine, body: Mapping[str, object]) -> None:
    try:
        engine.post("/swarm/join", body)
    except EngineError as error:
        # The engine answers after 20 s whatever happens, and goes on by itself (moby, cluster.Join).
        if "Timeout was reached before node joined" not in error.message:
            raise


def _nodes(work: Work, hosts: Sequence[Host], todo: Todo) -> None:
    def update(host: Host) -> None:
        for action in todo[host.name]:
            match action:
                case ForgetNode(node_id=node_id):
                    forget_node(work.manager, node_id)
                case UpdateNode(labels=labels, role=role):
                    own_id = SwarmMembership.of(work.fleet.engine(host).get("/info")).node_id
                    update_node(work.manager, own_id, labels=labels, role=role)

    work.run(Phase.NODES, hosts, update)


def _network(work: Work, hosts: Sequence[Host], todo: Todo) -> None:
    def create(host: Host) -> None:
        for action in todo[host.name]:
            assert isinstance(action, CreateNetwork)
            body = {
                "Name": action.name,
                "Driver": "overlay",
                "Scope": "swarm",
                "CheckDuplicate": True,
                "IPAM": {"Driver": "default", "Config": [{"Subnet": action.subnet}]},
                "Labels": {"swarmkit.system": "edge"},
            }
            work.manager.post("/networks/create", body)

    work.run(Phase.NETWORK, hosts, create)


_RUN: Mapping[Phase, Callable[[Work, Sequence[Host], Todo], None]] = {
    Phase.ENGINE: _engine,
    Phase.TRUST: _trust,
    Phase.SWARM: _swarm,
    Phase.NODES: _nodes,
    Phase.NETWORK: _network,
}


def verify(work: Work, hosts: Sequence[Host]) -> list[Node]:
    """Wait until the swarm itself lists every host as ready and in its role; returns all its nodes.

    Raises NotConverged, or Problems, naming the hosts for which that does not come true.
    """
    found: list[Node] = []
    wrong: dict[str, str] = {}

    def all_right() -> bool:
        found[:] = nodes(work.manager)
        wrong.clear()
        by_name = {node.name: node for node in found}
        for host in hosts:
            node = by_name.get(host.name)
            if node is None:
                wrong[host.name] = "the swarm has no such node"
            elif not node.is_ready:
                message = node.raw["Status"].get("Message", "")
                wrong[host.name] = f"the swarm sees it as {node.state}{f': {message}' if message else ''}"
            elif node.role != host.role:
                wrong[host.name] = f"the swarm has it as a {node.role}"
        return not wrong

    def explain() -> SwarmkitError:
        hint = "is the machine up, and can it reach the managers on 2377/tcp?"
        errors: list[SwarmkitError] = [
            NotConverged(text, where=name, hint=hint) for name, text in wrong.items()
        ]
        try:
            raise_all(errors)
        except SwarmkitError as error:
            return error
        raise AssertionError("explained only when something is wrong")

    wait_for(all_right, READY_SECONDS, explain)
    return found
