"""Host keys: every key is checked; an unknown one is refused or, if the user says so, recorded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import paramiko
from paramiko.hostkeys import HostKeyEntry, InvalidHostKey

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
        self._files = threading.Lock()
        # By the name as the files write it, hashed or not: the lines that give it a key.
        self._lines: dict[str, list[str]] | None = None

    def apply(self, client: paramiko.SSHClient, name: str) -> None:
        """Make `client` check the keys of the host `name` by these rules.

        `name` is as known_hosts files write it: the address, or `[address]:port`.
        """
        keys = client.get_host_keys()
        for line in self._lines_of(name):
            # As OpenSSH does, a line that cannot be read is passed over.
            with suppress(paramiko.SSHException, InvalidHostKey):
                entry = HostKeyEntry.from_line(line)
                # The first key of a kind counts. No entry: a kind that paramiko does not know.
                if entry is not None and entry.key.get_name() not in (keys.lookup(name) or ()):
                    keys.add(name, entry.key.get_name(), entry.key)
        client.set_missing_host_key_policy(self)

    def _lines_of(self, name: str) -> Iterator[str]:
        """The lines about one host, those of the inventory's own file first.

        The files are read once: paramiko reads them for each client, and compares each line with all
        others, which for 500 hosts takes most of a minute.
        """
        with self._files:
            if self._lines is None:
                self._lines = {}
                for file in dict.fromkeys((self._file, self._user_file)):
                    for line in _read(file):
                        for known in line.split(maxsplit=1)[0].split(","):
                            self._lines.setdefault(known, []).append(line)
            found = self._lines
        for known, lines in found.items():
            if known == name or (known.startswith("|1|") and _is_hash_of(known, name)):
                yield from lines

    def missing_host_key(self, _client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        if not self._accept_new:
            raise UnknownHostKey(
                f"unknown host key {key.get_name()} {key.fingerprint}",
                where=hostname,
                hint="compare it with the machine's own (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), "
                "then log in once with ssh, or give --accept-host-keys to init or join",
            )
        with self._files:
            self._lines = None
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as out:
                out.write(f"{hostname} {key.get_name()} {key.get_base64()}\n")


def _read(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _is_hash_of(known: str, name: str) -> bool:
    # What a hash that was cut off makes paramiko raise.
    with suppress(ValueError, AssertionError):
        return paramiko.HostKeys.hash_host(name, known) == known
    return False
