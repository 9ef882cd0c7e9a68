"""The machine that swarmkit runs on, worked on as the others are: without SSH."""

from __future__ import annotations

import getpass
import os
import select
import socket
import subprocess
import threading
import weakref
from contextlib import suppress
from typing import IO, cast

from swarmkit.errors import Unreachable
from swarmkit.inventory import Login
from swarmkit.remote.secrets import Secrets
from swarmkit.remote.shell import Channel, RootShell


class LocalConnection(RootShell):
    """Commands on this machine, as root: directly, or through sudo."""

    def __init__(self, login: Login, secrets: Secrets | None = None) -> None:
        super().__init__(secrets)
        self.login = login
        self._channels: weakref.WeakSet[LocalChannel] = weakref.WeakSet()

    @property
    def name(self) -> str:
        return self.login.name

    @property
    def user(self) -> str:
        return getpass.getuser()

    def start(self, command: str) -> Channel:
        try:
            channel = LocalChannel(command)
        except OSError as error:
            raise Unreachable(f"no shell here: {error.strerror}", where=self.name) from None
        self._channels.add(channel)
        return channel

    def close(self) -> None:
        for channel in list(self._channels):
            channel.close()


class LocalChannel(socket.socket):
    """A command's input and output as one socket, with what a paramiko channel has beside that."""

    def __init__(self, command: str) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            # A session of its own: Ctrl-C is for swarmkit, which ends what it began.
            self._process = subprocess.Popen(
                ["sh", "-c", command],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        super().__init__(fileno=ours.detach())

    @property
    def _errors(self) -> IO[bytes]:
        return cast("IO[bytes]", self._process.stderr)

    @property
    def closed(self) -> bool:
        return self.fileno() < 0

    @property
    def eof_received(self) -> bool:
        return self._process.poll() is not None

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        try:
            return super().recv(size, flags)
        except ConnectionResetError:
            # All that it wrote has been read; it ended without reading all that it was given (unix(7)).
            return b""

    def recv_stderr_ready(self) -> bool:
        return bool(select.select([self._errors], [], [], 0)[0])

    def recv_stderr(self, size: int) -> bytes:
        """Raises TimeoutError as `recv` does."""
        try:
            if not select.select([self._errors], [], [], self.gettimeout())[0]:
                raise TimeoutError
            return os.read(self._errors.fileno(), size)
        except ValueError:
            # Closed meanwhile, by whoever hung up.
            return b""

    def shutdown_write(self) -> None:
        self.shutdown(socket.SHUT_WR)

    def recv_exit_status(self) -> int:
        """As a shell says it: 128 and the signal's number for a command that one ended."""
        status = self._process.wait()
        return status if status >= 0 else 128 - status

    def close(self) -> None:
        """Hang up; the command is waited for in the background, so that nothing is left of it."""
        if self.closed:
            return
        with suppress(OSError):
            # Wakes whoever reads in another thread.
            self.shutdown(socket.SHUT_RDWR)
        super().close()
        threading.Thread(target=self._reap, daemon=True).start()

    def _reap(self) -> None:
        self._process.wait()
        self._errors.close()
