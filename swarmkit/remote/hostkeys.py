"""Host keys: every key is checked; an unknown one is refused or, if the user says so, recorded."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
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
        self._lock = threading.Lock()

    @cached_property
    def _known(self) -> _Known:
        known = _Known()
        for file in dict.fromkeys((self._file, self._user_file)):
            for line in _read(file):
                known.add(line)
        return known

    def apply(self, client: paramiko.SSHClient, name: str) -> None:
        """Make `client` check keys by these rules, for the machine that known_hosts files call `name`."""
        keys = client.get_host_keys()
        with self._lock:
            lines = self._known.lines(name)
            revoked = self._known.revoked
        for line in lines:
            # As OpenSSH does, a line that cannot be read is passed over.
            with suppress(paramiko.SSHException, InvalidHostKey, ValueError):
                entry = HostKeyEntry.from_line(line)
                # The first key of a kind counts. No entry: a kind that paramiko does not know.
                if entry is None or entry.key.get_base64() in revoked:
                    continue
                if entry.key.get_name() not in (keys.lookup(name) or ()):
                    keys.add(name, entry.key.get_name(), entry.key)
        client.set_missing_host_key_policy(self)

    def missing_host_key(self, _client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        if key.get_base64() in self._known.revoked:
            raise UnknownHostKey(f"the host key {key.fingerprint} is marked as revoked", where=hostname)
        if not self._accept_new:
            raise UnknownHostKey(
                f"unknown host key {key.get_name()} {key.fingerprint}",
                where=hostname,
                hint="compare it with the machine's own (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), "
                "then log in once with ssh, or give --accept-host-keys to init or join",
            )
        line = f"{hostname} {key.get_name()} {key.get_base64()}"
        with self._lock:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._file.open("ab+") as file:
                # What was written by hand may lack the end of its last line.
                file.seek(0, os.SEEK_END)
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":
                        file.write(b"\n")
                file.write(f"{line}\n".encode())
            self._known.add(line)


class _Known:
    """Lines of known_hosts files by the names in them; `revoked` are keys, in base64.

    Lines are read as keys only when their host is asked for: paramiko would read all for each client,
    and compare each with all others, which for 500 hosts takes most of a minute.
    """

    def __init__(self) -> None:
        self.revoked: set[str] = set()
        self._by_name: dict[str, list[str]] = {}

    def add(self, line: str) -> None:
        """A line of a file; other markers than `@revoked` (authorities) are none of paramiko's."""
        marker, *words = line.split() if line.startswith("@") else ["", *line.split()]
        if marker == "@revoked" and len(words) > 2:
            self.revoked.add(words[2])
        elif not marker and words:
            for name in words[0].split(","):
                self._by_name.setdefault(name, []).append(line)

    def lines(self, name: str) -> list[str]:
        """The lines about one host, in their order."""
        return [
            line
            for known, lines in self._by_name.items()
            if known == name or (known.startswith("|1|") and _is_hash_of(known, name))
            for line in lines
        ]


def _read(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(file)) from None
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _is_hash_of(known: str, name: str) -> bool:
    # What a hash that was cut off makes paramiko raise.
    with suppress(ValueError, AssertionError):
        return paramiko.HostKeys.hash_host(name, known) == known
    return False
