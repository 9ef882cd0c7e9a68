"""One SSH connection to one machine, and what runs over it as root."""

from __future__ import annotations

import logging
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import fabric
import paramiko

from swarmkit.errors import Unreachable
from swarmkit.inventory import Login
from swarmkit.remote.hostkeys import HostKeys
from swarmkit.remote.keys import KeyAuth, Keys, described
from swarmkit.remote.secrets import Secrets
from swarmkit.remote.shell import Channel, RootShell, reason

if TYPE_CHECKING:
    from paramiko.transport import Transport

# Without a handler, Python prints what paramiko logs, with its tracebacks. Errors tell the user.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

CONNECT_SECONDS = 15
KEEPALIVE_SECONDS = 15
IDLE_SECONDS = 5
# How long what was sent may go unconfirmed. A machine without power says nothing, and TCP alone would try
# for a quarter of an hour.
SILENT_SECONDS = 30


class Connection(RootShell):
    """A login on a machine, opened when first used, safe to use from several threads."""

    def __init__(
        self,
        login: Login,
        host_keys: HostKeys,
        gateway: Connection | None = None,
        *,
        secrets: Secrets | None = None,
        keys: Keys | None = None,
    ) -> None:
        super().__init__(secrets)
        self.login = login
        self.host_keys = host_keys
        self.gateway = gateway
        self._keys = keys or Keys(self.secrets)
        self._opening = threading.Lock()
        self._fabric: fabric.Connection | None = None
        self._failed: tuple[float, Unreachable] | None = None

    @property
    def name(self) -> str:
        return self.login.name

    @property
    def user(self) -> str:
        return self.login.user

    def open(self) -> fabric.Connection:
        """The open Fabric connection; raises Unreachable, saying why, where there can be none."""
        asked = time.monotonic()
        with self._opening:
            if self._fabric is not None and self._fabric.is_connected:
                return self._fabric
            # A gateway has many who wait for it; what one attempt has shown is not tried by each of them.
            if self._failed is not None and self._failed[0] > asked:
                raise self._failed[1]
            try:
                self._fabric = self._connected()
            except Unreachable as error:
                self._failed = time.monotonic(), error
                raise
            return self._fabric

    def _connected(self) -> fabric.Connection:
        login = self.login
        at = login.destination
        auth = KeyAuth(login, self._keys)
        try:
            made = fabric.Connection(
                host=login.address,
                user=login.user,
                port=login.port,
                # ssh_config is in the login already. Fabric by itself would also jump through machines
                # whose host keys it does not check.
                config=fabric.Config(ssh_config=paramiko.SSHConfig(), lazy=True),
                connect_timeout=CONNECT_SECONDS,
                connect_kwargs={
                    "auth_strategy": auth,
                    "banner_timeout": CONNECT_SECONDS,
                    "auth_timeout": CONNECT_SECONDS,
                    **self._through(),
                },
            )
            self.host_keys.apply(made.client, known_as(login))
            try:
                made.open()
            except BaseException:
                # Else its thread and its socket live on.
                _end(made.client)
                raise
        except Unreachable as error:
            if self.gateway is not None and error.where == self.gateway.name:
                raise
            raise Unreachable(f"{at}: {error.message}", where=self.name, hint=error.hint) from None
        except paramiko.BadHostKeyException as error:
            raise Unreachable(
                f"{at}: the host key has changed: it is {error.key.get_name()} {error.key.fingerprint}, "
                f"known is {error.expected_key.fingerprint}",
                where=self.name,
                hint="another machine may be answering; if this one was made anew, remove the old key with "
                f"ssh-keygen -R '{known_as(login)}'",
            ) from None
        except paramiko.AuthenticationException:
            raise self._denied(auth) from None
        except TimeoutError:
            raise Unreachable(
                f"{at}: no answer within {CONNECT_SECONDS} s", where=self.name, hint=self._reach_hint
            ) from None
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise Unreachable(f"{at}: {reason(error)}", where=self.name, hint=self._reach_hint) from None
        made.transport.set_keepalive(KEEPALIVE_SECONDS)
        # How often the connection's own thread looks up while nothing comes. paramiko's tenth of a
        # second keeps a core busy with a few hundred idle connections.
        made.transport.sock.settimeout(IDLE_SECONDS)
        if isinstance(made.transport.sock, socket.socket):
            # As OpenSSH does: the end of a request is not kept back until its beginning has arrived.
            made.transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                milliseconds = SILENT_SECONDS * 1000
                made.transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        return made

    def _through(self) -> dict[str, Any]:
        """What stands in for a direct connection: a channel of the gateway, or a command."""
        login = self.login
        if login.proxy_command is not None:
            return {"sock": paramiko.ProxyCommand(login.proxy_command)}
        if self.gateway is None:
            return {}
        transport: Transport = self.gateway.open().transport
        # Without a limit, paramiko waits an hour for the gateway to say that it reaches nothing.
        return {
            "sock": transport.open_channel(
                "direct-tcpip", (login.address, login.port), ("", 0), timeout=CONNECT_SECONDS
            )
        }

    @property
    def _reach_hint(self) -> str:
        if self.gateway is not None:
            return (
                f"can {self.gateway.name} reach {self.login.address}:{self.login.port}? "
                "Check `address:`, `port:` and `gateway:` in the inventory"
            )
        return "check that the machine is up, and `address:`, `port:` and `gateway:` in the inventory"

    def _denied(self, auth: KeyAuth) -> Unreachable:
        at = f"{self.login.destination}: permission denied with {described(self.login)}"
        if auth.notes:
            return Unreachable(f"{at} ({auth.notes[0].message})", where=self.name, hint=auth.notes[0].hint)
        return Unreachable(
            at,
            where=self.name,
            hint="check `user:` and `key:` in the inventory; the public key must be in the user's "
            "~/.ssh/authorized_keys there",
        )

    def start(self, command: str) -> Channel:
        opened = self.open()
        try:
            channel: paramiko.Channel = opened.transport.open_session(timeout=CONNECT_SECONDS)
        except paramiko.ChannelException:
            # Refused, by a server that is there.
            raise
        except paramiko.SSHException:
            # Dead, though it may look open for a quarter of an hour: the next one who asks gets another.
            _end(opened.client)
            raise
        channel.exec_command(command)
        return channel

    def close(self) -> None:
        """End the connection; what still runs over it fails."""
        if self._fabric is not None:
            _end(self._fabric.client)
            self._fabric.close()


def _end(client: paramiko.SSHClient) -> None:
    """Close a connection, and wake its thread: else that would end only when it next looks up."""
    transport = client.get_transport()
    if isinstance(transport, paramiko.Transport) and isinstance(transport.sock, socket.socket):
        with suppress(OSError):
            transport.sock.shutdown(socket.SHUT_RDWR)
    client.close()


def known_as(login: Login) -> str:
    """How known_hosts files name the machine (sshd(8))."""
    return login.address if login.port == 22 else f"[{login.address}]:{login.port}"
