"""A docker context for a cluster, so that plain `docker` works against it through SSH.

docker logs in with the user's own `ssh` and runs `docker system dial-stdio` there as that user: there is
no sudo on this way, so the user must be one who may use the engine's socket.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarmkit.cluster.managers import manager_engine
from swarmkit.errors import OperationFailed, UsageError
from swarmkit.inventory import Host, Inventory
from swarmkit.inventory.sshconfig import SshConfig
from swarmkit.remote import Fleet, sshfiles

_SOCKET = "/var/run/docker.sock"
# docker/cli, cli/context/store.
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.+-]+")
_CHECK_SECONDS = 60


@dataclass(frozen=True)
class Exported:
    """A context as it was written; `ssh_config` is the file that its way in was written to, if any."""

    name: str
    url: str
    manager: str
    is_checked: bool
    ssh_config: Path | None = None

    def json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "host": self.url,
            "manager": self.manager,
            "checked": self.is_checked,
            "ssh_config": str(self.ssh_config) if self.ssh_config else None,
        }


def alias_of(name: str) -> str:
    """The Host of ssh_config for the context called `name`."""
    return f"swarmkit-{name.lower()}"


def context_name(inventory: Inventory, name: str | None) -> str:
    """The name to use, the cluster's by default; raises UsageError where docker does not take it."""
    chosen = name or inventory.cluster
    if not _NAME.fullmatch(chosen) or chosen == "default":
        raise UsageError(f'docker takes no context called "{chosen}"', hint="give another: --name NAME")
    return chosen


def ssh_config(fleet: Fleet, name: str) -> str:
    """The blocks of ssh_config that lead to the cluster's manager."""
    return sshfiles.blocks(fleet.inventory, _manager(fleet), alias_of(name))


def export(fleet: Fleet, name: str, *, force: bool = False, write_ssh_config: bool = False) -> Exported:
    """Write the context `name` for the first manager that answers, and try it where docker is here.

    Raises UsageError for a context that is there (without `force`), and where ssh would not find its way
    (without `write_ssh_config`); OperationFailed where the user may not use the engine's socket.
    """
    host = _manager(fleet)
    _check_socket(fleet, host)
    url, file = _way_in(fleet.inventory, host, name, write_ssh_config)
    meta = _meta_file(name)
    other = _url_in(meta)
    if other not in (None, url) and not force:
        raise UsageError(
            f"there is a docker context {name} already, for {other}",
            hint="--force writes over it; --name gives this one another name",
        )
    _write(meta, name, url, f"the swarm {fleet.inventory.cluster}, through {host.name}")
    return Exported(name, url, host.name, _try(name, url), file)


def _manager(fleet: Fleet) -> Host:
    host = fleet.inventory.host(manager_engine(fleet).name)
    assert host is not None, "an engine is called as its host"
    return host


def _check_socket(fleet: Fleet, host: Host) -> None:
    """Ask the engine as the user who logs in, with the groups of a new login."""
    shell = fleet.connection(host)
    ask = shlex.quote("exec docker version --format '{{.Server.Version}}' </dev/null")
    done = shell.run(f"su -s /bin/sh -c {ask} -- {shlex.quote(shell.user)}")
    if done.status == 0:
        return
    command = f"usermod -aG docker {shell.user}"
    raise OperationFailed(
        f"{shell.user} may not use the Docker Engine there without sudo, and docker uses none",
        where=host.name,
        hint=f"to allow it: swarmkit ssh {host.name} -- {shlex.quote(f'sudo {command}')}. Whoever is in "
        "the group docker is as good as root on that machine; swarmkit itself does not need it",
    )


def _way_in(inventory: Inventory, host: Host, name: str, may_write: bool) -> tuple[str, Path | None]:
    """The context's URL, and the file of ssh_config that was written for it."""
    if host.is_local:
        return f"unix://{_SOCKET}", None
    config, alias = SshConfig(), alias_of(name)
    if sshfiles.goes_without(inventory, host, config):
        address = f"[{host.address}]" if ":" in host.address else host.address
        return f"ssh://{host.user}@{address}{'' if host.port == 22 else f':{host.port}'}", None
    if may_write:
        return f"ssh://{alias}", sshfiles.install(sshfiles.blocks(inventory, host, alias), alias)
    if sshfiles.knows(config, alias, host):
        return f"ssh://{alias}", None
    raise UsageError(
        f"the inventory has settings for {host.name} (keys, gateways, known hosts) that your ssh, which "
        "docker uses, does not know",
        hint=f"--write-ssh-config writes them to ~/.ssh/swarmkit/{alias}.conf, and lets ~/.ssh/config "
        "include that; --print-ssh-config prints them, to be put there by you",
    )


def _meta_file(name: str) -> Path:
    """Where docker keeps a context (docker/cli, cli/context/store)."""
    # The Docker SDK, which could do this, takes the current folder where there is no config.json.
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path("~/.docker").expanduser())
    return folder / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest() / "meta.json"


def _url_in(meta: Path) -> str | None:
    """The engine of the context that is there, or None for no context."""
    try:
        return str(json.loads(meta.read_text(encoding="utf-8"))["Endpoints"]["docker"]["Host"])
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError):
        return "something else"


def _write(meta: Path, name: str, url: str, description: str) -> None:
    document = {
        "Name": name,
        "Metadata": {"Description": description},
        "Endpoints": {"docker": {"Host": url, "SkipTLSVerify": False}},
    }
    meta.parent.mkdir(parents=True, exist_ok=True)
    meta.write_text(json.dumps(document), encoding="utf-8")


def _try(name: str, url: str) -> bool:
    """Whether docker got through to a manager; False where there is no docker here to try with.

    Raises OperationFailed, with what docker says, where it did not.
    """
    if shutil.which("docker") is None:
        return False
    command = ["docker", "--context", name, "info", "--format", "{{.Swarm.ControlAvailable}}"]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=_CHECK_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        said = f"no answer within {_CHECK_SECONDS} s"
    else:
        if done.returncode == 0 and done.stdout.strip() == "true":
            return True
        said = (done.stderr.strip() or "it is no manager of a swarm").splitlines()[-1]
    raise OperationFailed(
        f"the context is written, but docker does not get through {url}: {said}",
        where=name,
        hint=f"try it: {shlex.join(command[:4])}",
    )
