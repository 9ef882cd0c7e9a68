"""Host keys: every key is checked; an unknown one is refused or, if the user says so, recorded."""

from __future__ import annotations

import threading
from pathlib import Path

import paramiko

from swarmkit.errors import Unreachable


class UnknownHostKey(Unreachable):
    """The host is not in any known_hosts file."""


class HostKeys(paramiko.MissingHostKeyPolicy):
    """What to do with host keys: paramiko's policy for unknown ones, and the files of known ones.

    `known_hosts` is the inventory's own file, if it has one; the user's is always read. With
    `accept_new` an unknown key is recorded in the former (else the latter). A key that differs from
    the known one is refused whatever the user says, as OpenSSH's `accept-new` does.
    """

    def __init__(self, known_hosts: Path | None = None, accept_new: bool = False) -> None:
        self._user_file = Path("~/.ssh/known_hosts").expanduser()
        self._file = known_hosts or self._user_file
        self._accept_new = accept_new
        self._writing = threading.Lock()

    def apply(self, client: paramiko.SSHClient) -> None:
        """Make `client` check keys by these rules."""
        for file in {self._user_file, self._file}:
            if file.is_file():
                client.load_system_host_keys(str(file))
        client.set_missing_host_key_policy(self)

    def missing_host_key(self, _client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        if not self._accept_new:
            raise UnknownHostKey(
                f"unknown host key {key.get_name()} {key.fingerprint}",
                where=hostname,
                hint="compare it with the machine's own (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), "
                "then log in once with ssh, or give --accept-host-keys to init or join",
            )
        with self._writing:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as out:
                out.write(f"{hostname} {key.get_name()} {key.get_base64()}\n")
