"""Facts of a host: everything that planning needs to know of it, in one round trip."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Any

from swarmkit.cluster.settings import FACTS as SETTINGS_FACTS
from swarmkit.cluster.settings import DaemonFacts
from swarmkit.images.trust import FACTS as TRUST_FACTS
from swarmkit.images.trust import TrustFacts

# The node's own certificate: it names the node and the swarm that it is of.
NODE_CERTIFICATE = "/var/lib/docker/swarm/certificates/swarm-node.crt"

# Prints `key=value` lines; a value has no newline. `docker info` prints its JSON on one line.
SCRIPT = f"""
fact() {{ printf '%s=%s\\n' "$1" "$2"; }}
. /etc/os-release
fact os.id "$ID"
fact os.like "$ID_LIKE"
fact os.name "$PRETTY_NAME"
fact hostname "$(hostname)"
fact arch "$(uname -m)"
ip -o -4 route show 2>/dev/null | while read -r to rest; do fact route "$to"; done
ip -o -4 addr show 2>/dev/null | while read -r n dev fam addr rest; do fact address "${{addr%/*}}"; done
if [ -d /run/systemd/system ]; then fact systemd yes; fi
if grep -qs . /proc/net/ip_vs || modprobe -n ip_vs 2>/dev/null; then fact ipvs yes; fi
if command -v dockerd >/dev/null; then fact engine yes; fi
if command -v docker >/dev/null; then
  fact cli yes
  fact info "$(docker info --format '{{{{json .}}}}' 2>/dev/null)"
fi
if [ -s {NODE_CERTIFICATE} ]; then fact swarm.certificate "$(base64 -w 0 {NODE_CERTIFICATE})"; fi
{SETTINGS_FACTS}
{TRUST_FACTS}
"""


@dataclass(frozen=True)
class SwarmMembership:
    """What the host's engine says of its own place in a swarm.

    `state` is inactive, pending, active, error or locked; `cluster_id` is known to managers only.
    `address` is the one it has in the swarm, `certificate` its certificate there (PEM, in base64).
    """

    state: str = "inactive"
    node_id: str = ""
    cluster_id: str = ""
    is_manager: bool = False
    error: str = ""
    address: str = ""
    certificate: str = field(default="", repr=False)

    @property
    def is_member(self) -> bool:
        return self.state != "inactive"

    @property
    def swarm_id(self) -> str:
        """The swarm's ID, also on a worker; empty where nothing tells it."""
        return self.cluster_id or _organisation(self.certificate)

    @classmethod
    def of(cls, info: dict[str, Any], certificate: str = "") -> SwarmMembership:
        """From the engine's `/info`, and the node's certificate."""
        swarm = info.get("Swarm") or {}
        return cls(
            state=swarm.get("LocalNodeState") or "inactive",
            node_id=swarm.get("NodeID") or "",
            cluster_id=(swarm.get("Cluster") or {}).get("ID") or "",
            is_manager=bool(swarm.get("ControlAvailable")),
            error=swarm.get("Error") or "",
            address=swarm.get("NodeAddr") or "",
            certificate=certificate,
        )


def _organisation(certificate: str) -> str:
    """The swarm that a node's certificate (PEM in base64) is of: its subject's organisation (moby, ca)."""
    from cryptography import x509

    try:
        names = x509.load_pem_x509_certificate(base64.b64decode(certificate)).subject
        return str(names.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)[0].value)
    except (ValueError, IndexError):
        return ""


@dataclass(frozen=True)
class HostFacts:
    """A host as found. `engine_version` is empty where no engine answers."""

    os_id: str
    os_like: tuple[str, ...]
    os_name: str
    hostname: str
    arch: str
    has_systemd: bool
    has_ipvs: bool
    has_engine: bool
    has_cli: bool
    engine_version: str
    addresses: tuple[str, ...]
    routes: tuple[IPv4Network, ...]
    swarm: SwarmMembership
    trust: TrustFacts
    settings: DaemonFacts = field(default_factory=DaemonFacts)

    @property
    def has_apt(self) -> bool:
        """Whether swarmkit knows how to install an engine here: Debian and Ubuntu (and their kin)."""
        return bool({"debian", "ubuntu"} & {self.os_id, *self.os_like})

    @classmethod
    def parse(cls, output: str) -> HostFacts:
        """From what SCRIPT printed."""
        single: dict[str, str] = {}
        addresses: list[str] = []
        routes: list[IPv4Network] = []
        for line in output.split("\n"):
            key, _, value = line.partition("=")
            if key == "address":
                addresses.append(value)
            elif key == "route":
                if value != "default":
                    routes.append(IPv4Network(value, strict=False))
            else:
                single[key] = value
        info: dict[str, Any] = json.loads(single.get("info") or "{}")
        return cls(
            os_id=single.get("os.id", ""),
            os_like=tuple(single.get("os.like", "").split()),
            os_name=single.get("os.name", "an unknown system"),
            hostname=single.get("hostname", ""),
            arch=single.get("arch", ""),
            has_systemd="systemd" in single,
            has_ipvs="ipvs" in single,
            has_engine="engine" in single,
            has_cli="cli" in single,
            engine_version=info.get("ServerVersion") or "",
            addresses=tuple(addresses),
            routes=tuple(routes),
            swarm=SwarmMembership.of(info, single.get("swarm.certificate", "")),
            trust=TrustFacts.parse(single),
            settings=DaemonFacts.parse(single),
        )
