"""Which cluster a command is about, and the way in.

Order: `--engine`, `--inventory` (or SWARMKIT_INVENTORY), ./inventory.yml, DOCKER_HOST, the lab that
runs on this machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from swarmkit.errors import UsageError
from swarmkit.inventory import Host, Inventory, Role, load
from swarmkit.inventory.destination import parse
from swarmkit.inventory.logins import Logins, Said
from swarmkit.inventory.sshconfig import SshConfig
from swarmkit.remote import Engine, Fleet, Secrets
from swarmkit.ui import Ui

LOCAL_FILE = Path("inventory.yml")


@dataclass(frozen=True)
class Target:
    """A cluster: an inventory, or an engine's URL. `named` is false where it was guessed."""

    name: str
    origin: str
    named: bool
    inventory: Inventory | None = None
    engine_url: str = ""


@dataclass(frozen=True)
class Swarm:
    """A way into a cluster: its manager's engine and, where an inventory is known, all its hosts."""

    target: Target
    engine: Engine
    fleet: Fleet | None = None

    def reopened(self) -> Engine:
        """The engine of a manager that answers now, after the one that was used has broken off.

        Raises Unreachable where none does.
        """
        from swarmkit.cluster.managers import manager_engine

        if self.fleet is not None:
            return manager_engine(self.fleet)
        self.engine.get("/info")
        return self.engine


def resolve(inventory: Path | None, engine: str | None, *, hosts_needed: bool = False) -> Target:
    """The target by the order above. With `hosts_needed` only an inventory will do.

    Raises UsageError where there is none, or an inventory cannot be used.
    """
    if engine is not None:
        if hosts_needed:
            raise UsageError(
                "this command works on machines and needs an inventory, not an engine", hint=_HINT
            )
        return Target(name=engine, origin="--engine", named=True, engine_url=engine)
    if inventory is not None:
        return _from_file(inventory, named=True)
    if LOCAL_FILE.is_file():
        return _from_file(LOCAL_FILE, named=False)
    if (url := os.environ.get("DOCKER_HOST")) and not hosts_needed:
        return Target(name=url, origin="DOCKER_HOST", named=True, engine_url=url)
    from swarmkit.lab.find import running

    labs = running()
    if len(labs) == 1:
        return _from_file(labs[0].inventory, named=False)
    if labs:
        names = ", ".join(str(lab.inventory) for lab in labs)
        raise UsageError("several labs run here, and none is named", hint=f"choose one with -i: {names}")
    raise UsageError("no cluster is named, and there is none to guess", hint=_HINT)


_HINT = "name one with -i inventory.yml (examples in inventories/), or make a lab here: swarmkit lab up"


def _from_file(path: Path, *, named: bool) -> Target:
    inventory = load(path)
    return Target(name=inventory.cluster, origin=str(path), named=named, inventory=inventory)


def fleet_of(target: Target, *, accept_host_keys: bool = False) -> Fleet:
    """The connections to the target's hosts."""
    assert target.inventory is not None, "resolved with hosts_needed"
    return Fleet(target.inventory, accept_host_keys=accept_host_keys)


@contextmanager
def opened(
    target: Target, ui: Ui, *, mutates: bool = False, secrets: Secrets | None = None
) -> Iterator[Swarm]:
    """Open a way into the cluster, said first where the command will change something.

    What such a command has begun goes on through another manager where one is lost. `secrets` may be such
    as ask nobody. Raises Unreachable where no manager answers.
    """
    from swarmkit.cluster.lasting import LastingEngine
    from swarmkit.cluster.managers import manager_engine

    if mutates:
        announce(target, ui)
    if target.inventory is None:
        with _engine_at(target.engine_url, secrets) as engine:
            yield Swarm(target, LastingEngine(engine, lambda: engine, ui.warn) if mutates else engine)
        return
    with Fleet(target.inventory, secrets=secrets) as fleet:
        engine = manager_engine(fleet)
        if mutates:
            engine = LastingEngine(engine, lambda: manager_engine(fleet), ui.warn)
        yield Swarm(target, engine, fleet)


@contextmanager
def _engine_at(url: str, secrets: Secrets | None) -> Iterator[Engine]:
    """An engine by its URL; over SSH it is spoken to as every machine's is, host keys checked."""
    if not url.startswith("ssh://"):
        engine = Engine.at(url)
        try:
            yield engine
        finally:
            engine.close()
        return
    machines = _machine_at(url)
    with Fleet(machines, secrets=secrets) as fleet:
        yield fleet.engine(machines.hosts[0])


def _machine_at(url: str) -> Inventory:
    """The machine at `ssh://[USER@]HOST[:PORT]`, with what ssh_config says of it, and the way there.

    Raises UsageError for a URL of another form.
    """
    found = parse(url.removeprefix("ssh://").removesuffix("/"))
    if found is None:
        raise UsageError(f"expected ssh://USER@HOST[:PORT], got {url}", where="--engine")
    logins = Logins(SshConfig())
    login = logins.login(found.address, found.address, Said(found.user, found.port))
    host = Host(**vars(login), role=Role.MANAGER)
    return Inventory(found.address, (host,), tuple(logins.jumps.values()))


def announce(target: Target, ui: Ui) -> None:
    """Say which cluster is about to be changed."""
    ui.say(f"cluster {target.name} ({target.origin})")
