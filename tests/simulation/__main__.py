"""`python -m tests.simulation`: machines to try things on, until standard input ends (Ctrl-D)."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import tempfile
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address
from pathlib import Path

import asyncssh

from tests.simulation import Fault
from tests.simulation.machine import Machine
from tests.simulation.server import Server
from tests.simulation.swarm import Swarm

_FIRST_ADDRESS = IPv4Address("127.77.0.1")
_FIRST_PRIVATE_ADDRESS = IPv4Address("10.99.0.1")


def machines(count: int) -> list[Machine]:
    """Bare machines, the first of them to be the manager, of one swarm to be."""
    swarm = Swarm()
    names = ["m1", *(f"w{number}" for number in range(1, count))]
    return [
        Machine(name, str(_FIRST_ADDRESS + index), str(_FIRST_PRIVATE_ADDRESS + index), swarm)
        for index, name in enumerate(names)
    ]


async def start(folder: Path, played: Sequence[Machine], latency: float, faults: Mapping[str, Fault]) -> Path:
    """Let all machines listen, on one port; writes what is needed to log in; returns the inventory."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    key_file = folder / "id_ed25519"
    key_file.touch(mode=0o600)
    key_file.write_bytes(key.export_private_key())
    servers = [Server(machine, key, latency, faults.get(machine.name)) for machine in played]
    port = 0
    for server in servers:
        port = await server.listen(port)
    known = (
        f"[{server.machine.address}]:{port} {server.host_key.export_public_key().decode()}"
        for server in servers
    )
    (folder / "known_hosts").write_text("".join(known))
    inventory = folder / "inventory.yml"
    entries = [
        f"  - {{name: {machine.name}, address: {machine.address}, "
        f"private_address: {machine.private_address}}}\n"
        for machine in played
    ]
    inventory.write_text(
        "cluster: simulated\nknown_hosts: known_hosts\n"
        f"defaults: {{user: root, key: id_ed25519, port: {port}}}\n"
        f"managers:\n{entries[0]}workers:\n{''.join(entries[1:])}"
    )
    return inventory


async def run(options: argparse.Namespace, folder: Path) -> None:
    """Play until standard input ends."""
    inventory = await start(folder, machines(options.hosts), options.latency, dict(options.fault))
    print(json.dumps({"inventory": str(inventory)}), flush=True)
    await asyncio.to_thread(sys.stdin.read)


def _fault(text: str) -> tuple[str, Fault]:
    name, _, fault = text.partition("=")
    return name, Fault(fault)


def main() -> None:
    """Parse, play, and leave nothing behind."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--hosts", type=int, default=50)
    parser.add_argument("--latency", type=float, default=0.0, help="of a round trip, in seconds")
    parser.add_argument(
        "--fault", type=_fault, action="append", default=[], metavar="NAME=FAULT", help=", ".join(Fault)
    )
    parser.add_argument(
        "--folder", type=Path, help="for the inventory and its keys; a temporary one if left out"
    )
    options = parser.parse_args()
    # A client that hangs up in the middle of an answer is nothing to warn of here.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    try:
        if options.folder is not None:
            asyncio.run(run(options, options.folder))
        else:
            with tempfile.TemporaryDirectory(prefix="swarmkit-simulation-") as folder:
                asyncio.run(run(options, Path(folder)))
    except KeyboardInterrupt:
        print(file=sys.stderr)


main()
