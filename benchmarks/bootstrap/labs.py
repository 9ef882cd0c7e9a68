"""The machines of one run: a lab of bare nodes, and how each candidate is told of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from swarmkit.inventory import Host, load

LAB_SECONDS = 600
READY_SECONDS = 60
SETTLE_SECONDS = 30
# A machine is at rest when its cores have been this idle for so many seconds.
IDLE = 0.85
IDLE_SECONDS = 2


class Failed(Exception):
    """A command of the benchmark did not do what it is there for."""


@dataclass(frozen=True)
class Lab:
    """Bare nodes; `folder` has the files that describe them: an ssh_config and two inventories."""

    inventory: Path
    folder: Path
    hosts: tuple[Host, ...]

    @property
    def ssh_config(self) -> Path:
        return self.folder / "ssh_config"

    def describe(self) -> None:
        """Write the files for those who cannot read swarmkit's inventory."""
        known_hosts = self.inventory.parent / "known_hosts"
        stanzas = [
            f"Host {host.name}\n  HostName {host.address}\n  Port {host.port}\n  User {host.user}\n"
            f"  IdentityFile {host.key}\n  IdentitiesOnly yes\n  UserKnownHostsFile {known_hosts}\n"
            "  BatchMode yes\n"
            for host in self.hosts
        ]
        self.ssh_config.write_text("".join(stanzas))
        managers = [host for host in self.hosts if host.is_manager]
        workers = [host for host in self.hosts if not host.is_manager]
        groups = {"managers": managers, "workers": workers}
        (self.folder / "ansible.json").write_text(
            json.dumps({name: {"hosts": self._ansible_hosts(group)} for name, group in groups.items()})
        )
        lines = [
            f"{name} = {[(host.name, self._pyinfra_data(host)) for host in group]!r}"
            for name, group in groups.items()
        ]
        (self.folder / "pyinfra_inventory.py").write_text("\n".join(lines) + "\n")

    def _ansible_hosts(self, group: Sequence[Host]) -> dict[str, dict[str, str]]:
        options = f"-F {self.ssh_config}"
        return {
            host.name: {"private_address": host.private_address, "ansible_ssh_common_args": options}
            for host in group
        }

    def _pyinfra_data(self, host: Host) -> dict[str, str]:
        return {"private_address": host.private_address, "ssh_config_file": str(self.ssh_config)}

    def has_formed(self) -> None:
        """Wait until every host is a node that is ready; raises Failed where that does not come true."""
        manager = next(host.name for host in self.hosts if host.is_manager)
        command = ["ssh", "-F", str(self.ssh_config), manager]
        command.append("sudo docker node ls --format '{{.Status}}'")
        deadline = time.monotonic() + READY_SECONDS
        while True:
            done = subprocess.run(command, capture_output=True, text=True, timeout=READY_SECONDS, check=False)
            if done.stdout.split() == ["Ready"] * len(self.hosts):
                return
            if time.monotonic() > deadline:
                raise Failed(f"not all of {len(self.hosts)} nodes are ready:\n{done.stdout}{done.stderr}")
            time.sleep(0.2)


@contextmanager
def lab(name: str, nodes: int, home: Path) -> Iterator[Lab]:
    """Fresh bare nodes, removed at the end whatever happens. `home` is swarmkit's folder for it."""
    environment = {**os.environ, "SWARMKIT_HOME": str(home)}
    swarmkit = [sys.executable, "-W", "ignore", "-m", "swarmkit", "-o", "json", "lab"]

    def run(*arguments: str) -> str:
        # A session of its own: Ctrl-C must not cut off the clearing away.
        done = subprocess.run(
            [*swarmkit, *arguments, "--name", name],
            capture_output=True,
            text=True,
            env=environment,
            timeout=LAB_SECONDS,
            start_new_session=True,
            check=False,
        )
        if done.returncode:
            raise Failed(f"swarmkit lab {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    try:
        made = json.loads(run("up", "--bare", "--nodes", str(nodes)))
        inventory = Path(made["inventory"])
        found = Lab(inventory, inventory.parent, load(inventory).hosts)
        found.describe()
        yield found
    finally:
        run("down")


def settle() -> None:
    """Wait until this machine is at rest, as far as it comes to rest."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        before = _ticks()
        time.sleep(IDLE_SECONDS)
        after = _ticks()
        spent = {name: after[name] - before[name] for name in after}
        if spent["idle"] >= IDLE * sum(spent.values()):
            return


def _ticks() -> Mapping[str, int]:
    """The time that all cores together have been idle and busy (proc_stat(5))."""
    _, *numbers = Path("/proc/stat").read_text().splitlines()[0].split()
    user, nice, system, idle, waiting, *_ = map(int, numbers)
    return {"idle": idle + waiting, "busy": user + nice + system}
