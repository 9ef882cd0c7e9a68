"""The inventory's way to a machine as blocks of ssh_config, for programs that run `ssh` themselves."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from swarmkit.inventory import Inventory, Login
from swarmkit.inventory.logins import Logins, Said
from swarmkit.inventory.sshconfig import SshConfig


def goes_without(inventory: Inventory, machine: Login, config: SshConfig) -> bool:
    """Whether `ssh USER@ADDRESS -p PORT` takes the same way with the same keys, by ssh_config alone."""
    if inventory.known_hosts is not None:
        return False
    logins = Logins(config)
    plain = logins.login(machine.name, machine.address, Said(machine.user, machine.port))
    return _way(machine, inventory.login) == _way(plain, logins.jumps.__getitem__)


def _way(machine: Login, find: Callable[[str], Login]) -> list[tuple[object, ...]]:
    own = (machine.destination, machine.keys, machine.only_identities, machine.proxy_command)
    return [*(_way(find(machine.gateway), find) if machine.gateway else []), own]


def knows(config: SshConfig, alias: str, machine: Login) -> bool:
    """Whether ssh_config has a Host of that name which is this machine."""
    found = Logins(config).login(alias, alias, Said())
    return found.address != alias and found.destination == machine.destination


def blocks(inventory: Inventory, machine: Login, alias: str) -> str:
    """A block for `machine`, called `alias`, and one for each machine on the way to it."""
    lines = [
        f"Host {alias}",
        f"  HostName {machine.address}",
        f"  User {machine.user}",
        f"  Port {machine.port}",
        *(f"  IdentityFile {_path(key)}" for key in machine.keys),
    ]
    if machine.key is not None or machine.only_identities:
        lines.append("  IdentitiesOnly yes")
    if inventory.known_hosts is not None:
        lines.append(f"  UserKnownHostsFile {_path(inventory.known_hosts)} ~/.ssh/known_hosts")
    # Nobody is there to be asked.
    lines.append("  StrictHostKeyChecking yes")
    gateway = inventory.login(machine.gateway) if machine.gateway else None
    before = ""
    if gateway is not None and not gateway.is_local:
        jump = f"{alias}-via"
        lines.append(f"  ProxyJump {jump}")
        before = "\n" + blocks(inventory, gateway, jump)
    elif machine.proxy_command is not None:
        lines.append(f"  ProxyCommand {machine.proxy_command.replace('%', '%%')}")
    else:
        lines.append("  ProxyJump none")
    return "\n".join(lines) + "\n" + before


def _path(path: Path) -> str:
    return '"' + os.fspath(path).replace("%", "%%") + '"'


def install(text: str, alias: str) -> Path:
    """Put blocks into a file of their own, which ~/.ssh/config is made to include; that file's path."""
    ssh = Path("~/.ssh").expanduser()
    folder = ssh / "swarmkit"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = folder / f"{alias}.conf"
    _replace(file, f"# Written by `swarmkit context export`.\n{text}")
    config = ssh / "config"
    include = f'Include "{folder}/*.conf"'
    before = config.read_text(encoding="utf-8") if config.exists() else ""
    if include not in before.splitlines():
        # At the very top: further down it would belong to the Host above it.
        _replace(config, f"{include}\n\n{before}" if before else f"{include}\n")
    return file


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all; its permissions stay, a new one is its owner's alone."""
    target = path.resolve()
    mode = target.stat().st_mode & 0o777 if target.exists() else 0o600
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write(text)
    Path(name).chmod(mode)
    Path(name).replace(target)
