"""Many hosts at once: each with one connection, work in parallel under a cap, errors kept apart."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Generic, Self, TypeVar, cast

from swarmkit.errors import SwarmkitError, Unreachable, raise_all
from swarmkit.inventory import Host, Inventory, Login
from swarmkit.remote.connection import Connection
from swarmkit.remote.engine import Engine
from swarmkit.remote.hostkeys import HostKeys
from swarmkit.remote.keys import Keys
from swarmkit.remote.local import LocalConnection
from swarmkit.remote.secrets import Secrets
from swarmkit.remote.shell import RootShell

T = TypeVar("T")

# Enough for a class-room; more would only wait for the local CPU, which does the encryption.
AT_ONCE = 30
# How long one host is given before others are asked too.
PATIENCE_SECONDS = 1.0
# How long the end of a command waits for an engine that was opened ahead and is not needed any more.
GRACE_SECONDS = 2.0


@dataclass
class Outcomes(Generic[T]):
    """What came of the same work on several hosts: by host name, a value or an error."""

    values: dict[str, T] = field(default_factory=dict)
    errors: dict[str, SwarmkitError] = field(default_factory=dict)

    def all(self) -> dict[str, T]:
        """The values; raises all the errors where there are any, one that several hosts share once."""
        raise_all(list({str(error): error for error in self.errors.values()}.values()))
        return self.values


class Fleet:
    """The hosts of an inventory, connected to on first use and until the `with` block ends."""

    def __init__(
        self,
        inventory: Inventory,
        *,
        accept_host_keys: bool = False,
        at_once: int = AT_ONCE,
        secrets: Secrets | None = None,
    ) -> None:
        self.inventory = inventory
        self._host_keys = HostKeys(inventory.known_hosts, accept_host_keys)
        self._at_once = at_once
        self._lock = threading.Lock()
        self._closed = False
        self._secrets = secrets or Secrets()
        self._keys = Keys(self._secrets)
        self._connections: dict[str, RootShell] = {}
        self._engines: dict[str, Engine] = {}
        self._opening: dict[str, threading.Lock] = {}
        self._ahead: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all connections; work still running in other threads fails at once."""
        self._secrets.cancel()
        if self._ahead is not None:
            # Hung up on in the middle of its question, sudo would count a wrong password.
            self._ahead.join(GRACE_SECONDS)
        with self._lock:
            self._closed = True
            engines, self._engines = self._engines, {}
            connections, self._connections = self._connections, {}
        for engine in engines.values():
            engine.close()
        # A gateway was made before the hosts behind it, and ends after them.
        for connection in reversed(connections.values()):
            connection.close()

    def connection(self, machine: Login) -> RootShell:
        """The machine's one connection."""
        gateway = self.connection(self.inventory.login(machine.gateway)) if machine.gateway else None
        with self._lock:
            if self._closed:
                # A thread that was still at work when the command was interrupted.
                raise Unreachable("the connection was closed", where=machine.name)
            if machine.name not in self._connections:
                self._connections[machine.name] = self._made(machine, gateway)
            return self._connections[machine.name]

    def _made(self, machine: Login, gateway: RootShell | None) -> RootShell:
        if machine.is_local:
            return LocalConnection(machine, self._secrets)
        return Connection(
            machine,
            self._host_keys,
            # To go through this machine is to go directly.
            gateway if isinstance(gateway, Connection) else None,
            secrets=self._secrets,
            keys=self._keys,
        )

    def engine(self, host: Host) -> Engine:
        """The Docker Engine of a host, over the host's one connection."""
        connection = self.connection(host)
        with self._lock:
            opening = self._opening.setdefault(host.name, threading.Lock())
        # One lock a host: finding out the engine's version takes a round trip.
        with opening:
            if host.name not in self._engines:
                self._engines[host.name] = Engine.over(connection)
            return self._engines[host.name]

    def first(self, work: Callable[[Host], T], hosts: Sequence[Host]) -> T:
        """What `work` gives for whichever host is first to succeed at it.

        The first host is asked alone; the others when it fails or takes its time. Raises the errors of
        all where none succeeds.
        """
        answers: queue.Queue[tuple[T | None, Exception | None]] = queue.Queue()

        def ask(host: Host) -> None:
            try:
                answers.put((work(host), None))
            except Exception as error:
                if isinstance(error, SwarmkitError):
                    error.where = error.where or host.name
                answers.put((None, error))

        errors: list[SwarmkitError] = []
        waiting, running = list(hosts), 0
        while waiting or running:
            for host in waiting if running or errors else waiting[:1]:
                # A thread that waits for a dead machine must not hold up the end of the command.
                threading.Thread(target=ask, args=(host,), daemon=True).start()
                waiting, running = waiting[1:], running + 1
            try:
                answer, error = answers.get(timeout=PATIENCE_SECONDS if waiting else None)
            except queue.Empty:
                continue
            running -= 1
            if error is None:
                return cast("T", answer)
            if not isinstance(error, SwarmkitError):
                raise error
            errors.append(error)
        raise_all(errors)
        raise AssertionError("without hosts there is nothing to ask")

    def open_engine_ahead(self, host: Host) -> None:
        """Open a host's engine while something else is waited for; where that fails, `engine` says so.

        Loading the Docker SDK alone takes as long as machines do to tell their facts.
        """

        def open_it() -> None:
            with suppress(SwarmkitError):
                self.engine(host)

        self._ahead = threading.Thread(target=open_it, daemon=True)
        self._ahead.start()

    def map(self, work: Callable[[Host], T], hosts: Iterable[Host] | None = None) -> Outcomes[T]:
        """Do `work` for each host (all by default) in parallel; a host's error stops no other host.

        On Ctrl-C the connections are closed, so that no thread outlives the command.
        """
        chosen = list(self.inventory.hosts if hosts is None else hosts)
        outcomes: Outcomes[T] = Outcomes()
        if not chosen:
            return outcomes
        with ThreadPoolExecutor(max_workers=min(self._at_once, len(chosen))) as pool:
            futures = [(host, pool.submit(work, host)) for host in chosen]
            try:
                for host, future in futures:
                    try:
                        outcomes.values[host.name] = future.result()
                    except SwarmkitError as error:
                        error.where = error.where or host.name
                        outcomes.errors[host.name] = error
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.close()
                raise
        return outcomes
