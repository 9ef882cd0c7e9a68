"""A command inside a running task, on whichever node that is (asked of Swarm in moby 27552).

`choose` is pure: it says which task. `execute` speaks to the engine of the task's node.
"""

from __future__ import annotations

import os
import queue
import signal
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from swarmkit.errors import OperationFailed, SwarmkitError, Unreachable, UsageError
from swarmkit.remote import Engine, EngineError
from swarmkit.swarm import Node, Service, Task, find_node, find_service
from swarmkit.target import Swarm
from swarmkit.waiting import POLL_SECONDS, wait_for

if TYPE_CHECKING:
    from swarmkit.remote.streams import Duplex

# A task that waits for its health check has a container too, and one wants to look into it.
_ENTERED_STATES = ("running", "starting")
# How long the engine takes to know how a command ended whose output has ended.
_END_SECONDS = 10
# How long it may take to tell a command that nobody reads what it writes.
_PASS_ON_SECONDS = 5
# The engine knows a size's terminal only once the command has started.
_SIZE_TRIES = 20
_CHUNK = 65536
# The engine keeps the first key of the detach sequence back until the next is typed; by default that is
# Ctrl-P, which shells need. These nobody types.
_DETACH_KEYS = "ctrl-^,ctrl-_,ctrl-^,ctrl-_"


@dataclass(frozen=True)
class Command:
    """What to run and how; `environment` is `NAME=VALUE`, an empty user or folder the container's own."""

    words: Sequence[str]
    tty: bool
    stdin: bool = True
    user: str = ""
    workdir: str = ""
    environment: Sequence[str] = field(default=(), repr=False)

    @property
    def body(self) -> dict[str, object]:
        """Of the request that creates it (Engine API, ExecConfig)."""
        return {
            "AttachStdin": self.stdin,
            "AttachStdout": True,
            "AttachStderr": True,
            "DetachKeys": _DETACH_KEYS,
            "Tty": self.tty,
            "User": self.user,
            "WorkingDir": self.workdir,
            "Env": list(self.environment),
            "Cmd": list(self.words),
        }


@dataclass(frozen=True)
class Entered:
    """The task to enter: its container, the node that has it, and what people call it."""

    name: str
    node: Node
    container: str

    @classmethod
    def of(cls, service: Service, task: Task, known: Sequence[Node]) -> Entered:
        node = find_node(known, task.node_id)
        place = task.slot if task.slot is not None else node.name
        container = task.raw["Status"]["ContainerStatus"]["ContainerID"]
        return cls(f"{service.name}.{place}", node, str(container))


def environment(given: Sequence[str], own: Mapping[str, str]) -> list[str]:
    """`NAME=VALUE` as it is, and `NAME` with its value in `own`, where an argument list does not show it.

    Raises UsageError for a name that `own` does not have, or for none.
    """
    found = []
    for text in given:
        name, sign, _ = text.partition("=")
        if not name:
            raise UsageError("expected NAME or NAME=VALUE", where="--env")
        if not sign and name not in own:
            raise UsageError(f"{name} is not set in this environment", where="--env")
        found.append(text if sign else f"{name}={own[name]}")
    return found


def choose(
    services: Sequence[Service],
    tasks: Callable[[Service], Sequence[Task]],
    known: Sequence[Node],
    text: str,
    only_node: str = "",
) -> tuple[Entered, bool]:
    """The task that `SERVICE`, `SERVICE.SLOT` or `SERVICE.NODE` means, and whether the choice was ours.

    `only_node` is the id of the one node whose engine can be spoken to, if there is but one. Raises
    UsageError for a name that means nothing, OperationFailed where no task of the service runs.
    """
    # Neither services nor slots have dots in their names (moby/swarmkit, DNS names); nodes may.
    name, _, place = text.partition(".")
    service = find_service(services, name)
    every = tasks(service)
    running = sorted(
        (
            task
            for task in every
            if task.state in _ENTERED_STATES
            and task.desired == "running"
            and (task.raw["Status"].get("ContainerStatus") or {}).get("ContainerID")
        ),
        key=lambda task: (not task.is_up, task.slot or 0, _node_name(task, known)),
    )
    if not running:
        raise OperationFailed(
            f"no task of it runs{_why_none(every)}",
            where=service.name,
            hint=f"see: swarmkit service ps {service.name}",
        )
    names = {task.id: _node_name(task, known) for task in running}
    listed = ", ".join(
        f"{service.name}.{task.slot} on {names[task.id]}"
        if task.slot is not None
        else f"{service.name}.{names[task.id]}"
        for task in running
    )
    wanted = [task for task in running if not place or place in (str(task.slot), names[task.id])]
    if not wanted:
        raise UsageError(f'no running task is "{place}"', where=service.name, hint=f"running: {listed}")
    here = [task for task in wanted if only_node in ("", task.node_id)]
    if not here:
        raise UsageError(
            f"it runs on {', '.join(sorted({names[task.id] for task in wanted}))}, and --engine leads to "
            "another node alone",
            where=f"{service.name}{place and '.'}{place}",
            hint="with an inventory (-i) tasks on every node can be entered, or give the --engine of that "
            f"node; running: {listed}",
        )
    return Entered.of(service, here[0], known), not place and len(running) > 1


def _node_name(task: Task, known: Sequence[Node]) -> str:
    return next((node.name for node in known if node.id == task.node_id), task.node_id)


def _why_none(every: Sequence[Task]) -> str:
    """What became of the newest task, in the engine's words."""
    if not every:
        return ": it has none"
    newest = max(every, key=lambda task: task.created)
    state = "being stopped" if newest.is_leaving else newest.state
    return f": the newest is {state}" + (f" ({newest.error})" if newest.error else "")


def engine_of(swarm: Swarm, node: Node) -> Engine:
    """The engine of a node, through the inventory's connection to it; raises Unreachable."""
    if swarm.fleet is None:
        return swarm.engine
    host = swarm.fleet.inventory.host(node.name)
    if host is None:
        raise UsageError(
            f"{node.name} is a node of the swarm, but no machine of the inventory",
            where=swarm.target.origin,
            hint=f"let the inventory know it: swarmkit join USER@{node.address} --name {node.name}",
        )
    engine = swarm.fleet.engine(host)
    if engine.get("/info")["Swarm"].get("NodeID") != node.id:
        raise OperationFailed(
            "the machine that the inventory calls so is another node of the swarm, or in none",
            where=host.name,
            hint="see: swarmkit doctor",
        )
    return engine


def execute(
    engine: Engine,
    container: str,
    command: Command,
    *,
    kill: Callable[[int, int], None] | None = None,
    stdin: int = 0,
    stdout: BinaryIO,
    stderr: BinaryIO,
) -> int:
    """Run a command in a container with our input and output; its exit status, as the engine tells it.

    The terminal `stdin` is raw while it runs where the command has one, and restored on every way out.
    `kill(pid, number)` passes a signal on to a process of the machine; without it, a signal ends us alone.
    Raises UsageError for input that could not end, EngineError where the engine refuses, Unreachable where
    the connection breaks, and OSError where our output does.
    """
    from swarmkit.remote.channels import BROKEN
    from swarmkit.remote.streams import STDERR, Demultiplexer

    if command.stdin and not command.tty and not engine.can_end_input:
        raise UsageError(
            "the end of the input cannot be passed on over TLS",
            where="--engine",
            hint="use ssh://, or give no input: --no-stdin",
        )
    with _started(engine, container, command) as (ident, stream, received):

        def send() -> None:
            with suppress(*BROKEN):
                while data := os.read(stdin, _CHUNK):
                    stream.sendall(data)
                if engine.can_end_input:
                    stream.end_input()

        frames = Demultiplexer()
        with _raw(stdin, command.tty), _signals(engine, ident, command.tty, stdin, kill):
            if command.stdin:
                # Left behind where it waits for a key that nobody presses.
                threading.Thread(target=send, daemon=True).start()
            for data in received:
                if command.tty:
                    stdout.write(data)
                else:
                    for kind, payload in frames.feed(data):
                        (stderr if kind == STDERR else stdout).write(payload)
                    stderr.flush()
                stdout.flush()
    return _exit_code(engine, ident)


def output(engine: Engine, container: str, words: Sequence[str]) -> str:
    """What a command prints that is given no input; may be called in any thread.

    Raises OperationFailed where it fails, with what it says of that, and EngineError and Unreachable as
    `execute` does.
    """
    from swarmkit.remote.streams import STDERR, Demultiplexer

    frames, printed, complained = Demultiplexer(), bytearray(), bytearray()
    with _started(engine, container, Command(words, tty=False, stdin=False)) as (ident, _, received):
        for data in received:
            for kind, payload in frames.feed(data):
                (complained if kind == STDERR else printed).extend(payload)
    if code := _exit_code(engine, ident):
        said = complained.decode(errors="replace").strip()
        raise OperationFailed(said or f"exit status {code}", where=engine.name)
    return printed.decode(errors="replace")


@contextmanager
def _started(
    engine: Engine, container: str, command: Command
) -> Iterator[tuple[str, Duplex, Iterator[bytes]]]:
    """A command that runs: its id, the stream both ways, and what comes from it."""
    from swarmkit.remote.channels import BROKEN

    ident = str(engine.post(f"/containers/{container}/exec", command.body)["Id"])
    with engine.upgrade(f"/exec/{ident}/start", {"Detach": False, "Tty": command.tty}) as stream:

        def received() -> Iterator[bytes]:
            try:
                while data := stream.recv(_CHUNK):
                    yield data
            except BROKEN:
                raise _broke(engine) from None

        yield ident, stream, received()


def _exit_code(engine: Engine, ident: str) -> int:
    """Of a command whose output has ended."""
    wait_for(lambda: not engine.get(f"/exec/{ident}/json")["Running"], _END_SECONDS, lambda: _broke(engine))
    return int(engine.get(f"/exec/{ident}/json")["ExitCode"])


def _broke(engine: Engine) -> Unreachable:
    return Unreachable(
        "the connection ended before the command did, which may go on there", where=engine.name
    )


@contextmanager
def _raw(terminal: int, wanted: bool) -> Iterator[None]:
    """Every key goes to the command, and its terminal does the rest."""
    if not wanted:
        yield
        return
    before = termios.tcgetattr(terminal)
    tty.setraw(terminal)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


@contextmanager
def _signals(
    engine: Engine, ident: str, has_tty: bool, terminal: int, kill: Callable[[int, int], None] | None
) -> Iterator[None]:
    """Pass on what signals tell: the window's size, and that the command is to end.

    An engine has no call that signals a command inside a container, but tells its process (Engine API,
    ExecInspect). The first signal is the command's to answer; without an answer, the second ends us.
    """
    told: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    passed: set[int] = set()

    def pass_on() -> None:
        while (number := told.get()) is not None:
            # The command has ended meanwhile, or the connection has: the main thread sees that too.
            with suppress(SwarmkitError):
                if number == signal.SIGWINCH:
                    _set_size(engine, ident, terminal)
                elif kill is not None and (state := engine.get(f"/exec/{ident}/json"))["Running"]:
                    kill(int(state["Pid"]), number)

    def note(number: int, _frame: object) -> None:
        told.put(number)

    def end(number: int, _frame: object) -> None:
        if kill is None or number in passed:
            raise SystemExit(128 + number)
        passed.add(number)
        told.put(number)

    handlers: dict[signal.Signals, Callable[[int, object], None]] = {
        signal.SIGINT: end,
        signal.SIGTERM: end,
        signal.SIGHUP: end,
    }
    if has_tty:
        handlers[signal.SIGWINCH] = note
        told.put(signal.SIGWINCH)
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    worker = threading.Thread(target=pass_on, daemon=True)
    worker.start()
    try:
        yield
    except OSError:
        # What the command writes cannot be written here: nobody reads it any more, or a disk is full.
        told.put(signal.SIGPIPE)
        told.put(None)
        worker.join(_PASS_ON_SECONDS)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        told.put(None)


def _set_size(engine: Engine, ident: str, terminal: int) -> None:
    """Give the command's terminal the size of ours, as soon as it has one."""
    for _ in range(_SIZE_TRIES):
        size = os.get_terminal_size(terminal)
        try:
            engine.post(f"/exec/{ident}/resize", params={"h": size.lines, "w": size.columns})
        except EngineError:
            time.sleep(POLL_SECONDS)
        else:
            return
