"""Writing a first inventory: from `USER@HOST:PORT` words, or from what Vagrant says of its machines."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from swarmkit.errors import OperationFailed, SwarmkitError, UsageError, raise_all
from swarmkit.inventory.addresses import is_ip
from swarmkit.inventory.destination import parse
from swarmkit.inventory.models import Role

_LISTS = {"managers": Role.MANAGER, "workers": Role.WORKER}


@dataclass(frozen=True)
class Entry:
    """A machine as it will stand in the file; None for what is left to the defaults."""

    name: str
    address: str
    role: Role = Role.WORKER
    user: str | None = None
    port: int | None = None
    key: str | None = None
    private_address: str | None = None


def from_words(words: Sequence[str], *, managers: int, key: str | None = None) -> list[Entry]:
    """From `USER@HOST:PORT` words (or Hosts of ssh_config); the first `managers` become managers.

    Each gets a name of its own: the host name's first part, or `m1`, `w1` for an IP address. Raises
    UsageError, or Problems, for words of another form and machines named twice.
    """
    errors: list[SwarmkitError] = []
    entries: list[Entry] = []
    for word in words:
        found = parse(word)
        if found is None:
            errors.append(UsageError(f'expected USER@HOST[:PORT], got "{word}"'))
        elif any((one.address, one.port) == (found.address, found.port) for one in entries):
            errors.append(UsageError(f"{word} is the same machine as another"))
        else:
            entries.append(Entry("", found.address, user=found.user, port=found.port, key=key))
    raise_all(errors)
    return _named(_with_roles(entries, managers))


def from_vagrant(text: str, *, managers: int) -> list[Entry]:
    """From the output of `vagrant ssh-config`; names are Vagrant's. Raises UsageError where it has none."""
    import paramiko

    try:
        config = paramiko.SSHConfig.from_text(text)
        names = [name for block in text.splitlines() if (name := _host_of(block))]
        entries = [_vagrant_entry(name, config.lookup(name)) for name in names]
    except (paramiko.SSHException, ValueError) as error:
        raise UsageError(f"not the output of vagrant ssh-config: {error}") from None
    if not entries:
        raise UsageError("vagrant ssh-config names no machine", hint="start them first: vagrant up")
    return _with_roles(entries, managers)


def _host_of(line: str) -> str:
    words = line.split()
    return words[1] if len(words) == 2 and words[0] == "Host" and words[1] != "*" else ""


def _vagrant_entry(name: str, found: Mapping[str, Any]) -> Entry:
    return Entry(
        name,
        found["hostname"],
        user=found.get("user"),
        port=int(found.get("port", 22)),
        key=next(iter(found.get("identityfile", [])), None),
    )


def vagrant_ssh_config(folder: Path) -> str:
    """What `vagrant ssh-config` prints in `folder`; raises OperationFailed where it cannot be run."""
    try:
        done = subprocess.run(
            ["vagrant", "ssh-config"],
            cwd=folder,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except FileNotFoundError:
        raise OperationFailed(
            "the vagrant command is not installed here",
            hint="run `vagrant ssh-config` where it is, and give its output with --vagrant-config FILE",
        ) from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-4:]
        raise OperationFailed(
            f"vagrant ssh-config failed with status {done.returncode}",
            where=str(folder),
            hint="\n  ".join([*said, "are the machines up? vagrant up"]),
        )
    return done.stdout


def _with_roles(entries: Sequence[Entry], managers: int) -> list[Entry]:
    if not 1 <= managers <= len(entries):
        raise UsageError(f"--managers is from 1 to {len(entries)}, the number of machines; got {managers}")
    return [
        replace(one, role=Role.MANAGER if index < managers else Role.WORKER)
        for index, one in enumerate(entries)
    ]


def _named(entries: Sequence[Entry]) -> list[Entry]:
    short = [None if is_ip(one.address) else one.address.split(".")[0] for one in entries]
    taken: set[str] = set()
    named: list[Entry] = []
    count = dict.fromkeys(Role, 0)
    for index, one in enumerate(entries):
        name = short[index]
        if name is not None and short.count(name) > 1:
            name = one.address
        while name is None or name in taken or (name in short and name != short[index]):
            count[one.role] += 1
            name = f"{'m' if one.role is Role.MANAGER else 'w'}{count[one.role]}"
        taken.add(name)
        named.append(replace(one, name=name))
    return named


def text(
    cluster: str, entries: Sequence[Entry], *, known_hosts: str | None = None, unknown_private: bool = False
) -> str:
    """The inventory file. What all machines have in common stands once, under `defaults`.

    With `unknown_private` the machines need a private address that is not known yet: it says so.
    """
    common = {
        key: getattr(entries[0], key)
        for key in ("user", "port", "key")
        if getattr(entries[0], key) is not None
        and len({getattr(one, key) for one in entries}) == 1
        and len(entries) > 1
    }
    lines = [
        "# The machines of a swarm; docs/inventory.md explains every key. Look at what would be done with",
        "#   swarmkit init --dry-run",
        f"cluster: {_flow(cluster)}",
    ]
    if known_hosts is not None:
        lines.append(f"known_hosts: {_flow(known_hosts)}")
    if common:
        lines.append(f"defaults: {_flow(common)}")
    else:
        lines.append("# defaults: {user: debian, key: ~/.ssh/id_ed25519}")
    if unknown_private:
        lines += [
            "# Each machine still needs its address on the network that all of them share, such as:",
            "#   private_address: 10.0.0.5",
        ]
    for section, role in _LISTS.items():
        chosen = [one for one in entries if one.role is role]
        lines += ["", f"{section}:" if chosen else f"{section}: []"]
        lines += [f"  - {_flow(_entry(one, common))}" for one in chosen]
    return "\n".join(lines) + "\n"


def _entry(one: Entry, common: Mapping[str, Any]) -> dict[str, Any]:
    values = {
        "name": one.name,
        "address": one.address,
        "private_address": one.private_address,
        "user": one.user,
        "port": one.port,
        "key": one.key,
    }
    return {key: value for key, value in values.items() if value is not None and key not in common}


def _flow(value: Any) -> str:
    """As YAML on one line, read back as the same whatever it holds."""
    import yaml

    def plain(each: Any) -> Any:
        return each.replace("$", "$$") if isinstance(each, str) else each

    value = {key: plain(each) for key, each in value.items()} if isinstance(value, dict) else plain(value)
    made = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    return made.removesuffix("\n").removesuffix("\n...")


def relative(path: str, folder: Path) -> str:
    """A path as the user gave it, as it must stand in a file in `folder`."""
    if path.startswith("~"):
        return path
    full = Path(path).absolute()
    return os.fspath(full.relative_to(folder)) if full.is_relative_to(folder) else os.fspath(full)
