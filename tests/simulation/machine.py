"""What a played machine answers to the scripts that swarmkit runs on it, and what it remembers of them.

The scripts are known by what they contain, not by their whole text: a fact more, or another option of
apt, changes nothing here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field

from swarmkit.cluster.facts import MODULES
from swarmkit.images import CA_DIR, CERTS_DIR, REGISTRY_DIR
from tests.simulation.swarm import Engine, Swarm

_PUT = re.compile(r"^put '([^']+)' \S+ \S+ <<'END'\n(.*?)\nEND$", re.MULTILINE | re.DOTALL)
_REMOVE = re.compile(r"^rm -r?f (.+)$", re.MULTILINE)
_MAP_NAME = re.compile(r"^map_name ([0-9a-f.:]+)$", re.MULTILINE)


@dataclass
class Machine:
    """One machine: bare at first, then as it was told."""

    name: str
    address: str
    private_address: str
    swarm: Swarm
    has_engine: bool = False
    registry_address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.engine = Engine(self.name, self.private_address, self.swarm)

    def run(self, script: str) -> tuple[str, int]:
        """The output and the exit status of a script that is run as root."""
        if "fact os.id" in script:
            return "".join(f"{key}={value}\n" for key, value in self._facts()), 0
        if "systemctl start docker" in script:
            self.has_engine = True
        elif "command -v perl" in script:
            # Packets cannot be played: the ports between the machines are not tried.
            return "no-perl\n", 0
        elif f"base64 -w 0 {CA_DIR}" in script:
            kept = (self.files.get(f"{CA_DIR}/{name}", b"") for name in ("ca.crt", "ca.key"))
            return "".join(f"{base64.b64encode(content).decode()}\n" for content in kept), 0
        else:
            self._trust(script)
        return "", 0

    def _trust(self, script: str) -> None:
        for removed in _REMOVE.findall(script):
            paths = re.findall(r"[^\s']+", removed)
            self.files = {
                path: content for path, content in self.files.items() if not path.startswith(tuple(paths))
            }
        for path, content in _PUT.findall(script):
            self.files[path] = base64.b64decode(content)
        if mapped := _MAP_NAME.search(script):
            self.registry_address = mapped[1]

    def _facts(self) -> list[tuple[str, str]]:
        facts = [
            ("os.id", "debian"),
            ("os.like", ""),
            ("os.name", "Debian GNU/Linux 13 (trixie)"),
            ("hostname", self.name),
            ("arch", "x86_64"),
            ("route", "default"),
            ("route", "10.99.0.0/16"),
            ("address", "lo 127.0.0.1/8"),
            ("address", f"eth0 {self.private_address}/16"),
            ("nic", "eth0 1500 virtio_net"),
            ("memory", "MemTotal 4000000"),
            ("memory", "MemAvailable 3000000"),
            ("cgroup.memory", "yes"),
            ("disk", "4096 10000000 8000000 2000000 1900000 /var/lib/docker"),
            ("systemd", "yes"),
            *(("module", module) for module in MODULES),
        ]
        if self.has_engine:
            facts += [("engine", "yes"), ("cli", "yes"), ("info", json.dumps(self.engine.info()))]
        return facts + self._trust_facts()

    def _trust_facts(self) -> list[tuple[str, str]]:
        def digest(path: str) -> str:
            return hashlib.sha256(self.files[path]).hexdigest() if path in self.files else ""

        def line(path: str) -> str:
            return self.files.get(path, b"").decode().strip()

        return [
            ("trust.hosts_ip", self.registry_address),
            ("trust.node_ca", digest(f"{CERTS_DIR}/ca.crt")),
            ("trust.client", line(f"{CERTS_DIR}/client.issuer")),
            ("trust.ca", digest(f"{CA_DIR}/ca.crt")),
            ("trust.ca_key", "yes" if f"{CA_DIR}/ca.key" in self.files else ""),
            ("trust.server", line(f"{REGISTRY_DIR}/server.issuer")),
        ]
