"""Many hosts at once: each with one connection, work in parallel under a cap, errors kept apart."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Generic, Self, TypeVar

from swarmkit.errors import SwarmkitError, Unreachable, raise_all
from swarmkit.inventory import Host, Inventory, Login
from swarmkit.remote.connection import SUDO_PASSWORD, Connection
from swarmkit.remote.engine import Engine
from swarmkit.remote.hostkeys import HostKeys

T = TypeVar("T")

# Enough for a class-room; more would only wait for the local CPU, which does the encryption.
AT_ONCE = 30


@dataclass
class Outcomes(Generic[T]):
    """What came of the same work on several hosts: by host name, a value or an error."""

    values: dict[str, T] = field(default_factory=dict)
    errors: dict[str, SwarmkitError] = field(default_factory=dict)

    def all(self) -> dict[str, T]:
        """The values; raises all the errors where there are any."""
        raise_all(list(self.errors.values()))
        return self.values


class Fleet:
    """The hosts of an inventory, connected to on first use and until the `with` block ends."""

    def __init__(
        self, inventory: Inventory, *, accept_host_keys: bool = False, at_once: int = AT_ONCE
    ) -> None:
        self.inventory = inventory
        self._host_keys = HostKeys(inventory.known_hosts, accept_host_keys)
        self._at_once = at_once
        self._lock = threading.Lock()
        self._closed = False
        self._connections: dict[str, Connection] = {}
        self._engines: dict[str, Engine] = {}
        self._opening: dict[str, threading.Lock] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all connections; work still running in other threads fails at once."""
        with self._lock:
            self._closed = True
            engines, self._engines = self._engines, {}
            connections, self._connections = self._connections, {}
        for engine in engines.values():
            engine.close()
        # A gateway was made before the hosts behind it, and ends after them.
        for connection in reversed(connections.values()):
            connection.close()

    def connection(self, machine: Login) -> Connection:
        """The machine's one connection."""
        gateway = self.connection(self.inventory.login(machine.gateway)) if machine.gateway else None
        with self._lock:
            if self._closed:
                # A thread that was still at work when the command was interrupted.
                raise Unreachable("the connection was closed", where=machine.name)
            if machine.name not in self._connections:
                self._connections[machine.name] = Connection(
                    machine, self._host_keys, gateway, os.environ.get(SUDO_PASSWORD)
                )
            return self._connections[machine.name]

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

    def open_engine_ahead(self, host: Host) -> None:
        """Open a host's engine while something else is waited for; where that fails, `engine` says so.

        Loading the Docker SDK alone takes as long as machines do to tell their facts.
        """

        def open_it() -> None:
            with suppress(SwarmkitError):
                self.engine(host)

        threading.Thread(target=open_it, daemon=True).start()

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
