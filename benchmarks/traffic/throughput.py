"""The proxy as it stands beside the same nginx image with a configuration by hand."""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.bootstrap.labs import Failed, settle
from benchmarks.traffic.drive import milliseconds, table
from benchmarks.traffic.operations import SETTLED_SECONDS
from benchmarks.traffic.site import Site, eventually, lab_site

STACK = "fast"
STATIC = "by-hand"
STATIC_PORT = 8090
TASKS = 2
_FOLDER = Path(__file__).parent / STACK
# What a person would write for this one service; the access log is that of the balancer.
_CONFIGURATION = """\
worker_processes auto;
pid /tmp/by-hand.pid;
error_log /dev/stderr warn;
events {{ worker_connections 4096; }}
http {{
    client_body_temp_path /tmp/by-hand-body;
    proxy_temp_path /tmp/by-hand-proxy;
    fastcgi_temp_path /tmp/by-hand-fastcgi;
    uwsgi_temp_path /tmp/by-hand-uwsgi;
    scgi_temp_path /tmp/by-hand-scgi;
    log_format tutorial '[$time_local] "$request" $status $body_bytes_sent ${{request_time}}s '
                        'from $remote_addr to $upstream_addr';
    access_log /dev/stdout tutorial buffer=4k flush=1s;
    upstream fast {{
        least_conn;
        keepalive 64;
        {servers}
    }}
    server {{
        listen {port} backlog=1024;
        location / {{
            proxy_pass http://fast;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
}}
"""
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


@dataclass(frozen=True)
class Measured:
    """One run of wrk: requests a second, and latencies in seconds."""

    rate: float
    p50: float
    p99: float


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=7, help="runs each, of which the median counts (7)")
    parser.add_argument("--seconds", type=int, default=8, help="length of a run (8)")
    parser.add_argument("--connections", type=int, default=32, help="at the same time (32)")


def run(options: argparse.Namespace, work: Path) -> tuple[str, Mapping[str, Any], bool]:
    """Requests a second and p99 beside nginx with a configuration by hand, runs in turn, medians."""
    if shutil.which("wrk") is None:
        raise Failed("wrk is missing: sudo apt-get install wrk")
    runs: dict[str, list[Measured]] = {}
    with lab_site(options.lab, 3, work) as site:
        site.swarmkit("stack", "up", str(_FOLDER), "--name", STACK)
        by_hand(site)
        address = site.addresses[site.manager]
        places = {"swarmkit": f"http://{address}:8080/", "by hand": f"http://{address}:{STATIC_PORT}/"}
        # Not counted: the first requests open connections and fill caches.
        for url in places.values():
            wrk(url, 2, options.connections, keep_alive=True)
        for turn in range(options.rounds):
            for keep_alive in (True, False):
                for name in list(places)[:: -1 if turn % 2 else 1]:
                    settle()
                    kind = "kept alive" if keep_alive else "one request each"
                    found = wrk(places[name], options.seconds, options.connections, keep_alive=keep_alive)
                    runs.setdefault(f"{name}, {kind}", []).append(found)
                    print(f"{name}, {kind}: {found}", file=sys.stderr, flush=True)
    document = {name: [asdict(one) for one in some] for name, some in runs.items()}
    return text(runs), document, True


def by_hand(site: Site) -> None:
    """Start the balancer's own nginx image with a configuration that names the tasks."""
    services = site.json("status")["services"]
    image = next(
        str(one["image"])
        for one in services
        if one["stack"] == "swarmkit-lb" and not str(one["name"]).endswith("_controller")
    )
    servers = " ".join(f"server {address}:80;" for address in sorted(site.edge_addresses(f"{STACK}_web")))
    configuration = _CONFIGURATION.format(servers=servers, port=STATIC_PORT)
    site.shell(
        site.manager,
        f"docker config create {STATIC} - <<'END' >/dev/null\n{configuration}END\n"
        f"docker service create -q --detach --no-resolve-image --name {STATIC} --network swarmkit-edge "
        f"--endpoint-mode dnsrr --constraint node.role==manager "
        f"--publish mode=host,published={STATIC_PORT},target={STATIC_PORT} --mount type=tmpfs,target=/tmp "
        f"--config source={STATIC},target=/etc/by-hand.conf --entrypoint nginx "
        f"{image} -c /etc/by-hand.conf -g 'daemon off;'",
    )
    eventually(
        lambda: [task["state"] for task in site.tasks(STATIC)] == ["running"],
        SETTLED_SECONDS,
        "nginx runs with the configuration by hand",
    )


def wrk(url: str, seconds: int, connections: int, *, keep_alive: bool) -> Measured:
    """One run; raises Failed where an answer was not what it should be."""
    command = ["wrk", "-t", "2", "-c", str(connections), "-d", f"{seconds}s", "--latency", url]
    if not keep_alive:
        command += ["-H", "Connection: close"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    said = done.stdout
    # Where a connection is closed after each answer, wrk counts the closing as an error of reading.
    if done.returncode or "Non-2xx" in said or (keep_alive and "Socket errors" in said):
        raise Failed(f"wrk {url}:\n{said}{done.stderr}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    latencies = dict(re.findall(r"^\s+(50|99)%\s+(\S+)$", said, re.MULTILINE))
    if rate is None or len(latencies) != 2:
        raise Failed(f"wrk {url} says nothing that is known:\n{said}")
    return Measured(float(rate[1]), _seconds(latencies["50"]), _seconds(latencies["99"]))


def _seconds(text: str) -> float:
    found = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text)
    if found is None:
        raise Failed(f"wrk: {text} is no time")
    return float(found[1]) * _UNITS[found[2]]


def text(runs: Mapping[str, Sequence[Measured]]) -> str:
    """Medians and their ratios, as Markdown."""
    rows = []
    for kind in dict.fromkeys(name.partition(", ")[2] for name in runs):
        medians = {
            name: [
                statistics.median(getattr(one, what) for one in runs[f"{name}, {kind}"])
                for what in ("rate", "p50", "p99")
            ]
            for name in ("by hand", "swarmkit")
        }
        for name, (rate, p50, p99) in medians.items():
            ratios = [
                f"{ours / theirs:.2f}"
                for ours, theirs in zip((rate, p99), medians["by hand"][::2], strict=True)
            ]
            rows.append([kind, name, f"{rate:,.0f}", milliseconds(p50), milliseconds(p99), *ratios])
    heads = ["connections", "nginx", "requests/s", "p50", "p99", "ratio of requests/s", "ratio of p99"]
    count = min(len(some) for some in runs.values())
    return f"{table(heads, rows)}\n\nMedians of {count} runs each, in turn."
