"""Why a task does not run, in plain words: a pure function of what the swarm and the node tell.

The engine's own messages are those of moby (daemon/cluster/executor/container, daemon/create.go,
daemon/start.go, libnetwork) and of moby/swarmkit's scheduler. What they leave out is looked up: the
container's own state on its node (Engine API, ContainerInspect), its log, and what the registry says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from swarmkit.images.credentials import registry_of
from swarmkit.services.placement import Ask, Room, megabytes, obstacles, published
from swarmkit.swarm import FAILED_STATES, Node, Service, Task

LOG_LINES = 10
# The code of an update that the swarm has stopped.
STANDS_STILL = "update-paused"
# What a shell and the kernel mean by an exit code.
_EXIT_CODES: Mapping[int, str] = {
    126: "the program may not be run",
    127: "the shell found no such program",
    130: "interrupted (SIGINT)",
    132: "illegal instruction: is the image for this processor? (SIGILL)",
    134: "it gave up by itself (SIGABRT)",
    137: "killed (SIGKILL)",
    139: "segmentation fault (SIGSEGV)",
    143: "ended on request (SIGTERM)",
}


@dataclass(frozen=True)
class Evidence:
    """What was found out about one task beside what the managers know.

    `state` is the container's State of ContainerInspect; None where it could not be read, and `unread`
    says why. `log` are the last lines of its log. `registry` is what the registry answered when a manager
    asked it for the image, `logged_in` whether with a login: None where it was not asked, empty where it
    has the image.
    """

    state: Mapping[str, Any] | None = None
    unread: str = ""
    log: Sequence[str] = ()
    registry: str | None = None
    logged_in: bool = False


@dataclass(frozen=True)
class View:
    """The swarm around a service: its nodes, the room on each (by id), and all services."""

    nodes: Sequence[Node] = ()
    left: Mapping[str, Room] = field(default_factory=dict)
    services: Sequence[Service] = ()

    def name_of(self, task: Task) -> str:
        """The name of the task's node; empty where it has none."""
        return next((node.name for node in self.nodes if node.id == task.node_id), "")


@dataclass(frozen=True)
class Explanation:
    """Why a task does not run: `reason` in one line, `details` as lines, `hint` what to do.

    `code` names the kind of trouble for programs. `hopeless` says that another try alone changes nothing.
    """

    code: str
    reason: str
    details: tuple[str, ...] = ()
    hint: str = ""
    hopeless: bool = False
    task: str = ""
    node: str = ""

    def json(self) -> dict[str, Any]:
        """As `service explain` shows it."""
        return {key: value for key, value in asdict(self).items() if key != "hopeless"}


@dataclass(frozen=True)
class _Case:
    """One task with all that is known of it."""

    service: Service
    task: Task
    view: View
    evidence: Evidence

    @property
    def node(self) -> str:
        return self.view.name_of(self.task)

    @property
    def on_node(self) -> str:
        return f" on {self.node}" if self.node else ""

    @property
    def image(self) -> str:
        return self.task.image.partition("@")[0]

    @property
    def memory_limit(self) -> int:
        resources = self.task.raw["Spec"].get("Resources") or self.service.spec["TaskTemplate"].get(
            "Resources"
        )
        return int(((resources or {}).get("Limits") or {}).get("MemoryBytes") or 0)

    def explained(
        self, code: str, reason: str, *details: str, hint: str = "", hopeless: bool = False
    ) -> Explanation:
        place = self.service.place(self.task)
        name = f"{self.service.name}.{place if isinstance(place, int) else self.node or self.task.id[:8]}"
        return Explanation(code, reason, details, hint, hopeless, name, self.node)

    def log(self) -> list[str]:
        lines = list(self.evidence.log)[-LOG_LINES:]
        return ["last lines of its log:", *(f"  {line}" for line in lines)] if lines else []


def troubled(service: Service, tasks: Sequence[Task]) -> list[Task]:
    """The tasks to explain: of each slot (or node) that does not run, the newest that tells why.

    `tasks` are those of the service's present spec; what was told to stop does not count.
    """
    by_place: dict[int | str, list[Task]] = {}
    for task in sorted(tasks, key=lambda one: one.created):
        by_place.setdefault(service.place(task), []).append(task)
    found = []
    for some in by_place.values():
        newest = some[-1]
        if newest.is_up or (newest.state == "complete" and not service.restarts_always):
            continue
        telling = [task for task in some if _tells(service, task)]
        if telling:
            found.append(telling[-1])
        elif newest.desired in ("running", "ready", "complete"):
            found.append(newest)
    return found


def halted(service: Service) -> Explanation | None:
    """Why a service's update goes no further, though it is not complete; None where that is not so."""
    if not service.is_halted:
        return None
    what = "rollback" if service.update_state == "rollback_paused" else "update"
    return Explanation(
        STANDS_STILL,
        service.update_message or f"the {what} was paused",
        hint="correct the cause and deploy the stack again, which resumes it; to go back: "
        f"docker service rollback {service.name}",
        task=service.name,
    )


def _tells(service: Service, task: Task) -> bool:
    """Whether the task's end, or what it waits for, says what is wrong."""
    if task.state in FAILED_STATES or (task.state == "pending" and task.error):
        return True
    return is_quick_end(service, task)


def is_quick_end(service: Service, task: Task) -> bool:
    """Whether a task ended with success whose service is to run for ever."""
    return task.state == "complete" and service.restarts_always


def explain(service: Service, task: Task, view: View, evidence: Evidence | None = None) -> Explanation:
    """Why `task` does not run. What `evidence` lacks is said to be unknown, or left out."""
    case = _Case(service, task, view, evidence or Evidence())
    if task.state == "pending":
        return _unplaced(case)
    if task.state in FAILED_STATES:
        for pattern, explained in _ENGINE_SAYS:
            if match := re.search(pattern, task.error, re.IGNORECASE):
                return explained(case, match)
        reason = f"{task.error or 'it failed, and the engine does not say why'}{case.on_node}"
        return case.explained("failed", reason, *case.log())
    if task.state == "complete":
        return case.explained(
            "ended",
            "it ended by itself with success (exit 0), and is started again each time",
            *case.log(),
            hint="a service's command must go on running; for work that ends, say deploy.mode: replicated-job"
            " or restart_policy.condition: on-failure",
        )
    return _on_the_way(case)


# ---------------------------------------------------------------- without a failure


def _unplaced(case: _Case) -> Explanation:
    if not case.task.error:
        return case.explained("waiting", "it waits for a node")
    ask = Ask.of(case.service.spec)
    # A global service's task, which has no slot, waits for its one node, and only that says why.
    its_own = case.task.node_id if case.task.slot is None else ""
    places = [node for node in case.view.nodes if its_own in ("", node.id)]
    reasons = obstacles(ask, places, case.view.left)
    swarm = re.search(r"no suitable node \((.*)\)", case.task.error)
    if not reasons:
        return case.explained(
            "no-node", f"no node fits: {swarm[1] if swarm else case.task.error}", hint=_NO_NODE
        )
    if len(reasons) == 1 and reasons[0].startswith("port "):
        return case.explained("port-taken", reasons[0], case.task.error, hint=_PORT)
    return case.explained("no-node", f"no node fits: {'; '.join(reasons)}", case.task.error, hint=_NO_NODE)


_NO_NODE = (
    "see what nodes have: swarmkit node ls; give one what is asked for (swarmkit node label NODE KEY=VALUE,"
    " swarmkit node activate NODE), or let the service ask for less"
)
_PORT = "publish another port, or take the other service away"


def _on_the_way(case: _Case) -> Explanation:
    node = next((node for node in case.view.nodes if node.id == case.task.node_id), None)
    if node is not None and not node.is_ready:
        return case.explained(
            "node-down",
            f"{node.name} is {node.state}, and what runs there cannot be seen",
            hint=f"is the machine up? swarmkit doctor; swarmkit ssh {node.name}",
        )
    match case.task.state:
        case "new":
            return case.explained(
                "allocating",
                "it waits for addresses on its networks",
                *([case.task.error] if case.task.error else []),
                hint="where that lasts, the network's addresses are all taken: give it a larger subnet",
            )
        case "preparing":
            return case.explained(
                "preparing",
                f"the image {case.image} is being pulled{case.on_node}",
                hint="a large image, or a slow way to its registry; it goes on by itself",
            )
        case "starting" if case.service.has_health_check:
            output = _health_output(case)
            return case.explained(
                "starting",
                f"its health check has not passed yet{case.on_node}{f': {output[0]}' if output else ''}",
                *output[1:],
                *_unread(case),
                *case.log(),
                hint="see healthcheck.start_period, or what the check needs",
            )
    return case.explained("starting", f"{case.task.state}{case.on_node}", *case.log())


# ---------------------------------------------------------------- the engine's words


def _no_image(case: _Case, _match: re.Match[str]) -> Explanation:
    said = case.evidence.registry
    login = "your login" if case.evidence.logged_in else "no login"
    if said and re.search(_DENIED, said, re.IGNORECASE):
        return _denied(case)
    details = []
    hint = (
        "is the name right, and can the node reach the registry? An image that was built on one machine"
        " only must be pushed, or built by swarmkit (build:)"
    )
    if said == "":
        details = [f"the registry gives it to a manager that asks with {login}"]
        hint = "can the node reach the registry?"
        if case.evidence.logged_in:
            hint = f"deploy again, and the login goes with the service; else: {hint}"
    elif said:
        details = [f"the registry, asked by a manager with {login}: {said}"]
    # Engines say so too where access is denied (moby 52570).
    reason = "the image cannot be had" if said is None else "no such image"
    return case.explained(
        "no-image", f"{reason}{case.on_node}: {case.image}", *details, hint=hint, hopeless=True
    )


_DENIED = r"denied|unauthorized|authentication required|no basic auth|\b401\b|\b403\b"


def _denied_by_engine(case: _Case, _match: re.Match[str]) -> Explanation:
    return _denied(case)


def _denied(case: _Case) -> Explanation:
    registry = registry_of(case.image)
    said = case.evidence.registry or case.task.error
    hint = f"log in with docker login {registry}, and deploy again: the login goes with the service"
    if case.evidence.logged_in:
        hint = f"the login that docker has here for {registry} is of no use for it: {hint}"
    return case.explained(
        "image-denied",
        f"the registry {registry} denies access to {case.image}{case.on_node}, or has no such image",
        said,
        hint=hint,
        hopeless=True,
    )


def _no_source(case: _Case, match: re.Match[str]) -> Explanation:
    return case.explained(
        "no-bind-source",
        f"bind source {match[1]} missing{case.on_node}",
        hint="make the folder on every node that may run the task, keep the service on those that have it"
        " (placement.constraints), or use a volume",
        hopeless=True,
    )


def _no_command(case: _Case, match: re.Match[str]) -> Explanation:
    return case.explained(
        "no-command",
        f'no program "{match[1]}" in the image {case.image}',
        case.task.error,
        hint="see command and entrypoint; what needs a shell must say so: [sh, -c, …]",
        hopeless=True,
    )


def _wrong_platform(case: _Case, _match: re.Match[str]) -> Explanation:
    return case.explained(
        "wrong-platform",
        f"the image {case.image} is for another processor than that of {case.node or 'the node'},"
        " or what it starts is no program",
        case.task.error,
        hint="build the image for all platforms of the nodes, or constrain node.platform.arch",
        hopeless=True,
    )


def _port_taken(case: _Case, match: re.Match[str]) -> Explanation:
    port = next((group for group in match.groups() if group), "")
    room = case.view.left.get(case.task.node_id, Room({}))
    # In `ingress` mode a port is taken on every node, in `host` mode where a task has it.
    holders = {
        service.name
        for service in case.view.services
        if service.id != case.service.id and _has_port(published(service.spec, "ingress"), port)
    } | {holder for one, holder in room.ports.items() if _has_port([one], port)}
    # Its own next try.
    holders.discard(case.service.name)
    if holders:
        by = ", ".join(sorted(holders))
        return case.explained("port-taken", f"port {port} taken by {by}{case.on_node}", hint=_PORT)
    return case.explained(
        "port-taken",
        f"port {port} taken{case.on_node} by a program that is no service",
        case.task.error,
        hint=f"see which: swarmkit ssh {case.node or 'NODE'} -- sudo ss -ltnp 'sport = :{port}'",
    )


def _has_port(ports: Iterable[str], port: str) -> bool:
    return any(one.partition("/")[0] == port for one in ports)


def _no_network(case: _Case, match: re.Match[str]) -> Explanation:
    return case.explained(
        "no-network",
        f"network {match[1] or match[2]} not found{case.on_node}",
        case.task.error,
        hint="it was removed, or the node has not heard of it: see swarmkit doctor",
    )


def _no_addresses(case: _Case, _match: re.Match[str]) -> Explanation:
    return case.explained(
        "no-addresses",
        "no free address on its network",
        case.task.error,
        hint="give the network a larger subnet (ipam.config.subnet), or the service fewer replicas",
    )


def _no_secret(case: _Case, match: re.Match[str]) -> Explanation:
    kind = (match[1] or match[2]).lower()
    return case.explained(
        f"no-{kind}",
        f"a {kind} of the service is missing{case.on_node}",
        case.task.error,
        hint=f"see docker {kind} ls; deploy the stack again to make it",
    )


def _exit(case: _Case, match: re.Match[str]) -> Explanation:
    code = int(match[1])
    cause = (match[2] or "").strip(": ")
    state = case.evidence.state or {}
    if "unhealthy" in cause:
        return _unhealthy(case, match)
    limit = f", limit {megabytes(case.memory_limit)}" if case.memory_limit else ""
    if state.get("OOMKilled") or (code == 137 and limit and case.evidence.state is None):
        # Without the container's own word, a kill under a limit has hardly another cause.
        sure = "" if state.get("OOMKilled") else "most likely "
        return case.explained(
            "out-of-memory",
            f"exit {code}: {sure}out of memory{limit}{case.on_node}",
            *_unread(case),
            *case.log(),
            hint="raise deploy.resources.limits.memory, or let the program use less"
            if limit
            else "the node itself ran out of memory: set limits, or use a larger one",
        )
    said = state.get("Error") or cause or _EXIT_CODES.get(code, "")
    return case.explained(
        "exit",
        f"exit {code}{f': {said}' if said else ''}{case.on_node}",
        *_unread(case),
        *case.log(),
        hint=f"see all of its log: swarmkit service logs {case.service.name}",
    )


def _unhealthy(case: _Case, _match: re.Match[str]) -> Explanation:
    health = (case.evidence.state or {}).get("Health") or {}
    streak = health.get("FailingStreak") or len(_failed_checks(health))
    output = _health_output(case)
    times = f" {streak} times" if streak > 1 else ""
    return case.explained(
        "unhealthy",
        f"health check failed{times}{case.on_node}{f': {output[0]}' if output else ''}",
        *output[1:],
        *_unread(case),
        *case.log(),
        hint="try the check in a task that runs, or give it time: healthcheck.start_period, timeout, retries",
    )


def _health_output(case: _Case) -> list[str]:
    """The lines of the last failed check, its exit code first where it printed nothing."""
    failed = _failed_checks((case.evidence.state or {}).get("Health") or {})
    if not failed:
        return []
    lines = str(failed[-1].get("Output") or "").strip().splitlines()
    return lines[-LOG_LINES:] or [f"it printed nothing, exit {failed[-1].get('ExitCode')}"]


def _failed_checks(health: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [one for one in health.get("Log") or () if one.get("ExitCode")]


def _unread(case: _Case) -> list[str]:
    evidence = case.evidence
    if evidence.state is not None or not evidence.unread:
        return []
    return [f"the container's own state was not read: {evidence.unread}"]


_Explains = Callable[[_Case, re.Match[str]], Explanation]

# What the engine says, the most telling first.
_ENGINE_SAYS: Sequence[tuple[str, _Explains]] = (
    (r"non-zero exit \((\d+)\)(.*)", _exit),
    (r"unhealthy container", _unhealthy),
    (r"pull access denied|unauthorized|authentication required|no basic auth", _denied_by_engine),
    (r"no such image|manifest (?:for .* not found|unknown)", _no_image),
    (r"bind source path does not exist: (\S+)", _no_source),
    (r'exec: \\?"([^"\\]+)\\?": (?:executable file not found|stat .*no such file)', _no_command),
    (r'exec: \\?"([^"\\]+)\\?": (?:permission denied|is a directory)', _no_command),
    (r"exec format error", _wrong_platform),
    (r"Bind for \S*?:(\d+) failed|bind host port for \S*?:(\d+)|listen \w+ \S*?:(\d+): bind", _port_taken),
    (r"no available (?:IPv4|IP) addresses", _no_addresses),
    (r"network (\S+) not found|could not find network (\S+)", _no_network),
    (r"(secret|config)\b.*not found|unable to (?:get|find) (secret|config)", _no_secret),
)
