"""Reaching a lab's nodes by SSH."""

from __future__ import annotations

import base64
import logging
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from swarmkit.lab.folder import LOOPBACK, USER, Folder, host_name
from swarmkit.lab.models import Node

if TYPE_CHECKING:
    import paramiko

_CONNECT_SECONDS = 10


def has_banner(port: int) -> bool:
    """Whether an SSH server greets on this port of the loopback (RFC 4253, section 4.2).

    The engine accepts connections before the node does, so that an open port tells nothing.
    """
    try:
        with socket.create_connection((LOOPBACK, port), timeout=_CONNECT_SECONDS) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


@dataclass
class Attempt:
    """Tries to log in on a node until it works; `problem` is why the last try did not."""

    folder: Folder
    node: Node
    host_key: str
    problem: str = ""

    def succeeds(self, remote: str) -> bool:
        """Whether the node lets the lab's key in and `remote` ends with status 0 there."""
        import paramiko

        # A server that is still starting hangs up; paramiko would print that on standard error.
        logging.getLogger("paramiko").setLevel(logging.CRITICAL)
        try:
            with paramiko.SSHClient() as client:
                kind, blob = self.host_key.split()
                key = paramiko.PKey.from_type_string(kind, base64.b64decode(blob))
                client.get_host_keys().add(host_name(self.node.ssh_port), kind, key)
                client.set_missing_host_key_policy(paramiko.RejectPolicy())
                client.connect(
                    LOOPBACK,
                    port=self.node.ssh_port,
                    username=USER,
                    key_filename=str(self.folder.key),
                    allow_agent=False,
                    look_for_keys=False,
                    timeout=_CONNECT_SECONDS,
                    banner_timeout=_CONNECT_SECONDS,
                    auth_timeout=_CONNECT_SECONDS,
                )
                return self._ran(client, remote)
        except (OSError, EOFError, paramiko.SSHException) as error:
            self.problem = str(error)
            return False

    def _ran(self, client: paramiko.SSHClient, remote: str) -> bool:
        _, stdout, stderr = client.exec_command(remote, timeout=_CONNECT_SECONDS)
        stdout.read()
        self.problem = stderr.read().decode(errors="replace").strip()
        return stdout.channel.recv_exit_status() == 0
