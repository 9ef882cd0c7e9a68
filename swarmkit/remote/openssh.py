"""A terminal on a machine: the user's own OpenSSH client, with the inventory's settings."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Sequence

from swarmkit.errors import OperationFailed
from swarmkit.inventory import Inventory, Login


def command(inventory: Inventory, machine: Login, arguments: Sequence[str] = ()) -> list[str]:
    """The `ssh` command line that logs in on `machine`, through its gateways.

    One argument is text for the shell there (`'ps aux | head'`); several are a command's words, and
    arrive as they are.
    """
    remote = arguments[0] if len(arguments) == 1 else shlex.join(arguments)
    return [
        "ssh",
        *_options(inventory, machine),
        "-p",
        str(machine.port),
        f"{machine.user}@{machine.address}",
        *(["--", remote] if arguments else []),
    ]


def _options(inventory: Inventory, machine: Login) -> list[str]:
    options: list[str] = []
    if machine.key is not None:
        options += ["-i", str(machine.key), "-o", "IdentitiesOnly=yes"]
    if inventory.known_hosts is not None:
        options += ["-o", f'UserKnownHostsFile="{inventory.known_hosts}" ~/.ssh/known_hosts']
    if machine.gateway is not None:
        gateway = inventory.login(machine.gateway)
        # A jump of our own: -J would not give the gateway its key and known_hosts.
        jump = ["ssh", *_options(inventory, gateway), "-p", str(gateway.port), "-W", "%h:%p"]
        jump.append(f"{gateway.user}@{gateway.address}")
        options += ["-o", f"ProxyCommand={shlex.join(jump)}"]
    return options


def login(inventory: Inventory, machine: Login, arguments: Sequence[str] = ()) -> int:
    """Run `ssh` with the terminal that we have; returns its exit status.

    Raises OperationFailed where there is no `ssh` on this machine.
    """
    if shutil.which("ssh") is None:
        raise OperationFailed("the ssh command is not installed here", hint="install openssh-client")
    return subprocess.run(command(inventory, machine, arguments), check=False).returncode
