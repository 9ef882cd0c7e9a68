"""Host keys: every key is checked; an unknown one is refused or, if the user says so, recorded."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

import paramiko
from paramiko.hostkeys import HostKeyEntry, InvalidHostKey

from swarmkit.errors import Unreachable, UsageError


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
        self._revoked: set[paramiko.PKey] = set()

    @cached_property
    def _known(self) -> paramiko.HostKeys:
        entries = [each for file in dict.fromkeys((self._user_file, self._file)) for each in _entries(file)]
        revoked = {entry.key for is_revoked, entry in entries if is_revoked}
        known = paramiko.HostKeys()
        for _, entry in entries:
            if entry.key not in revoked:
                for name in entry.hostnames:
                    known.add(name, entry.key.get_name(), entry.key)
        self._revoked = revoked
        return known

    def apply(self, client: paramiko.SSHClient, name: str) -> None:
        """Make `client` check keys by these rules, for the machine that known_hosts files call `name`."""
        with self._writing:
            found: Mapping[str, paramiko.PKey] = self._known.lookup(name) or {}
        for kind, key in found.items():
            client.get_host_keys().add(name, kind, key)
        client.set_missing_host_key_policy(self)

    def missing_host_key(self, _client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        if key in self._revoked:
            raise UnknownHostKey(f"the host key {key.fingerprint} is marked as revoked", where=hostname)
        if not self._accept_new:
            raise UnknownHostKey(
                f"unknown host key {key.get_name()} {key.fingerprint}",
                where=hostname,
                hint="compare it with the machine's own (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), "
                "then log in once with ssh, or give --accept-host-keys to init or join",
            )
        with self._writing:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._file.open("ab+") as file:
                # What was written by hand may lack the end of its last line.
                file.seek(0, os.SEEK_END)
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":
                        file.write(b"\n")
                file.write(f"{hostname} {key.get_name()} {key.get_base64()}\n".encode())
            self._known.add(hostname, key.get_name(), key)


def _entries(file: Path) -> Iterator[tuple[bool, HostKeyEntry]]:
    """The usable lines of a known_hosts file, and whether each is marked as revoked.

    As OpenSSH does, others are passed over. Authorities (`@cert-authority`) are none of paramiko's.
    """
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(file)) from None
    for line in text.splitlines():
        is_revoked = line.startswith("@revoked ")
        line = line.removeprefix("@revoked ").strip()
        if line and not line.startswith(("#", "@")):
            try:
                entry = HostKeyEntry.from_line(line)
            except (paramiko.SSHException, InvalidHostKey, ValueError):
                continue
            if entry is not None:
                yield is_revoked, entry
