"""A terminal on a machine: the user's own OpenSSH client, with the inventory's settings."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence

from swarmkit.errors import OperationFailed
from swarmkit.inventory import Inventory, Login


def command(inventory: Inventory, machine: Login, arguments: Sequence[str] = ()) -> list[str]:
    """The `ssh` command line that logs in on `machine`, through its gateways; a shell for this machine.

    One argument is text for the shell there (`'ps aux | head'`); several are a command's words, and
    arrive as they are. What counts of ssh_config is in `machine` already, so ssh does not read it again.
    """
    remote = arguments[0] if len(arguments) == 1 else shlex.join(arguments)
    if machine.is_local:
        shell = os.environ.get("SHELL") or "sh"
        return [shell, "-c", remote] if arguments else [shell]
    return [
        "ssh",
        *_options(inventory, machine),
        "-p",
        str(machine.port),
        f"{machine.user}@{machine.address}",
        *(["--", remote] if arguments else []),
    ]


def _options(inventory: Inventory, machine: Login) -> list[str]:
    options = ["-F", "none"]
    for key in machine.keys:
        options += ["-i", _literal(str(key))]
    if machine.key is not None or machine.only_identities:
        options += ["-o", "IdentitiesOnly=yes"]
    if inventory.known_hosts is not None:
        options += ["-o", f'UserKnownHostsFile="{_literal(str(inventory.known_hosts))}" ~/.ssh/known_hosts']
    if machine.gateway is not None:
        gateway = inventory.login(machine.gateway)
        if not gateway.is_local:
            options += ["-o", f"ProxyCommand={_jump(inventory, gateway)}"]
    elif machine.proxy_command is not None:
        options += ["-o", f"ProxyCommand={_literal(machine.proxy_command)}"]
    return options


def _jump(inventory: Inventory, gateway: Login) -> str:
    """A jump of our own: -J would not give the gateway its key and known_hosts.

    ssh replaces `%h` and `%p` in the whole of it, so those of the jumps inside it, which stand for other
    machines, are doubled once a level.
    """
    before = ["ssh", *_options(inventory, gateway), "-p", str(gateway.port)]
    target = f"{gateway.user}@{gateway.address}"
    return f"{_literal(shlex.join(before))} -W '[%h]:%p' {_literal(shlex.quote(target))}"


def _literal(text: str) -> str:
    """Text in which ssh replaces nothing (ssh_config(5), TOKENS)."""
    return text.replace("%", "%%")


def login(inventory: Inventory, machine: Login, arguments: Sequence[str] = ()) -> int:
    """Run `ssh` with the terminal that we have; returns its exit status.

    Raises OperationFailed where there is no `ssh` on this machine.
    """
    if not machine.is_local and shutil.which("ssh") is None:
        raise OperationFailed("the ssh command is not installed here", hint="install openssh-client")
    return subprocess.run(command(inventory, machine, arguments), check=False).returncode
