"""Facts of a host: everything that planning and preflight need to know of it, in one round trip."""

from __future__ import annotations

import base64
import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, ip_address, ip_interface
from typing import Any

from swarmkit.cluster.ports import GOSSIP_PORT, MANAGER_PORT
from swarmkit.cluster.settings import FACTS as SETTINGS_FACTS
from swarmkit.cluster.settings import DaemonFacts
from swarmkit.images.trust import FACTS as TRUST_FACTS
from swarmkit.images.trust import TrustFacts
from swarmkit.inventory.addresses import DOCKER_INTERFACES
from swarmkit.inventory.models import DATA_PATH_PORT
from swarmkit.remote import RootShell

# There while swarmkit forms a swarm on this machine, until that carries its mark.
FORMING_FILE = "/var/lib/swarmkit/forming"
# The node's own certificate: it names the node and the swarm that it is of.
NODE_CERTIFICATE = "/var/lib/docker/swarm/certificates/swarm-node.crt"

# What Swarm needs of a kernel: images, overlay networks, the routing mesh, filtering in bridges.
MODULES = ("overlay", "vxlan", "ip_vs", "br_netfilter")
# The ports of which is told who listens there.
_PORTS = (MANAGER_PORT, GOSSIP_PORT, DATA_PATH_PORT)
# Any of these locks keeps apt from installing.
_LOCKS = "/var/lib/dpkg/lock-frontend /var/lib/dpkg/lock /var/lib/apt/lists/lock"

# Prints `key=value` lines; a value has no newline. `docker info` prints its JSON on one line. What
# the shell can read by itself it reads: each process more is paid on every host, also by an `init` that
# finds nothing to do.
SCRIPT = f"""
fact() {{ printf '%s=%s\\n' "$1" "$2"; }}
first() {{ line=; read -r line 2>/dev/null <"$1" || [ -n "$line" ]; }}
fact clock "$(date +%s.%N)"
if [ -r /etc/os-release ]; then . /etc/os-release; fi
fact os.id "$ID"
fact os.like "$ID_LIKE"
fact os.name "$PRETTY_NAME"
first /proc/sys/kernel/hostname && fact hostname "$line"
[ -r /etc/machine-id ] && first /etc/machine-id && fact machine-id "$line"
first /proc/sys/kernel/osrelease && release=$line && fact kernel "$line"
fact arch "$(uname -m)"
if [ -d /run/systemd/system ]; then fact systemd yes; fi
# The shell reads byte by byte: no further than needed.
while read -r key value unit; do
  case $key in
    MemTotal:) fact memory "MemTotal $value" ;;
    MemAvailable:) fact memory "MemAvailable $value"; break ;;
  esac
done </proc/meminfo
ip -o -4 route show 2>/dev/null | while read -r line; do fact route "$line"; done
ip -o addr show 2>/dev/null | while read -r n dev family addr rest; do fact address "$dev $addr"; done
for nic in /sys/class/net/*; do
  name=${{nic##*/}} driver=
  case $name in lo|veth*) continue ;; esac
  first "$nic/mtu" || continue
  if [ -e "$nic/device/driver" ]; then driver=$(cd -P "$nic/device/driver" && pwd -P); fi
  fact nic "$name $line ${{driver##*/}}"
  if [ "${{driver##*/}}" = vmxnet3 ] && command -v ethtool >/dev/null; then
    ethtool -k "$name" 2>/dev/null | while read -r key value rest; do
      if [ "$key" = tx-checksum-ip-generic: ]; then fact checksum "$name $value"; fi
    done
  fi
done
absent=
for module in {" ".join(MODULES)}; do
  if [ -d /sys/module/$module ]; then fact module $module; else absent="$absent $module"; fi
done
if [ -e /proc/net/ip_vs ]; then fact module ip_vs; fi
if [ -d /proc/sys/net/bridge ]; then fact module br_netfilter; fi
case $absent in
  *overlay*) while read -r nodev name; do
    if [ "$name" = overlay ]; then fact module overlay; fi
  done </proc/filesystems ;;
esac
if [ -n "$absent" ] && [ -d "/lib/modules/$release" ]; then
  grep -shoE '/({"|".join(MODULES)})\\.ko' "/lib/modules/$release/modules.dep" \\
    "/lib/modules/$release/modules.builtin" | sort -u | while read -r line; do
      line=${{line#/}}; fact module "${{line%.ko}}"
    done
fi
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  first /sys/fs/cgroup/cgroup.controllers
  case " $line " in *' memory '*) fact cgroup.memory yes ;; esac
elif [ -d /sys/fs/cgroup/memory ]; then
  fact cgroup.memory yes
fi
for package in docker.io docker-ce podman-docker; do
  if [ -e /var/lib/dpkg/info/$package.list ]; then fact package $package; fi
done
if [ -e /snap/bin/docker ]; then fact package snap; fi
if [ -r /etc/ufw/ufw.conf ]; then
  while read -r line; do if [ "$line" = ENABLED=yes ]; then fact firewall ufw; fi; done </etc/ufw/ufw.conf
fi
if [ -L /run/systemd/units/invocation:firewalld.service ]; then fact firewall firewalld; fi
if command -v iptables >/dev/null; then fact firewall iptables; fi
if command -v nft >/dev/null; then fact firewall nft; fi
locks=
while read -r n class kind mode pid file rest; do
  if [ "$class $mode" = 'POSIX WRITE' ]; then locks="$locks $pid:${{file##*:}}"; fi
done </proc/locks
if [ -n "$locks" ]; then
  stat -c '%i %n' {_LOCKS} 2>/dev/null | while read -r inode path; do
    for lock in $locks; do
      pid=${{lock%%:*}}
      # Another file system may have a file of the same number.
      if [ "${{lock##*:}}" = "$inode" ] && ls -l "/proc/$pid/fd" 2>/dev/null | grep -qF "$path"; then
        first "/proc/$pid/comm" && fact apt.lock "$pid $line"
      fi
    done
  done
fi
if command -v dockerd >/dev/null; then fact engine yes; fi
info=
if command -v docker >/dev/null; then
  fact cli yes
  info=$(docker info --format '{{{{json .}}}}' 2>/dev/null)
  fact info "$info"
fi
if [ -e {FORMING_FILE} ]; then fact swarm.forming yes; fi
if [ -s {NODE_CERTIFICATE} ]; then fact swarm.certificate "$(base64 -w 0 {NODE_CERTIFICATE})"; fi
{SETTINGS_FACTS}
data=${{info#*'"DockerRootDir":"'}}
if [ "$data" = "$info" ]; then data=/var/lib/docker; else data=${{data%%\\"*}}; fi
for place in "$data" /var/lib/swarmkit; do
  while [ ! -d "$place" ]; do place=${{place%/*}}; [ -n "$place" ] || place=/; done
  places="$places $place"
done
stat -f -c '%S %b %a %c %d %n' $places 2>/dev/null | while read -r line; do fact disk "$line"; done
case $info in
  *'"LocalNodeState":"active"'*) ;;
  *) ss -Hlntup '( {" or ".join(f"sport = :{port}" for port in _PORTS)} )' 2>/dev/null |
    while read -r proto state in out local peer users; do
      pid=${{users#*pid=}}
      # A check of ours that was interrupted: it ends by itself, and another one shares its ports.
      grep -qs swarmkit-links "/proc/${{pid%%,*}}/cmdline" && continue
      fact listener "$proto ${{local##*:}} $users"
    done ;;
esac
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
    def of(cls, info: Mapping[str, Any], certificate: str = "") -> SwarmMembership:
        """From the engine's `/info`, and the node's certificate."""
        swarm = _object(info.get("Swarm"))
        return cls(
            state=swarm.get("LocalNodeState") or "inactive",
            node_id=swarm.get("NodeID") or "",
            cluster_id=_object(swarm.get("Cluster")).get("ID") or "",
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
class InterfaceAddress:
    """An address of the host, with its prefix, and the interface that has it."""

    interface: str
    address: IPv4Interface | IPv6Interface

    @property
    def is_dockers(self) -> bool:
        """Whether it is of one of Docker's own networks."""
        return self.interface.startswith(DOCKER_INTERFACES)

    def __str__(self) -> str:
        return f"{self.address} on {self.interface}"


@dataclass(frozen=True)
class Nic:
    """A network interface. `tx_checksum` is whether it computes checksums itself; None: not known."""

    name: str
    mtu: int
    driver: str = ""
    tx_checksum: bool | None = None


@dataclass(frozen=True)
class Disk:
    """A file system, by a folder on it that matters to us. Sizes in bytes."""

    path: str
    size: int
    free: int
    inodes: int = 0
    inodes_free: int = 0


@dataclass(frozen=True)
class Listener:
    """Something that listens on one of Swarm's ports. `user` may be unknown, as of the kernel itself."""

    protocol: str
    port: int
    user: str = ""


@dataclass(frozen=True)
class Clock:
    """How far the host's clock is ahead of ours, in seconds: somewhere from `least` to `most`.

    Its time was read at some moment between our asking and its answer: no measurement over a network
    can tell more.
    """

    least: float
    most: float

    @property
    def middle(self) -> float:
        return (self.least + self.most) / 2

    @property
    def uncertainty(self) -> float:
        return (self.most - self.least) / 2


@dataclass(frozen=True)
class HostFacts:
    """A host as found. `engine_version` is empty where no engine answers.

    `modules` are those of MODULES that the kernel has or can load; memory in bytes; `apt_lock` says who
    keeps apt from working; `firewalls` are the tools that can open a port there, the one that is in charge
    first; `containers` is how many run.
    """

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
    addresses: tuple[InterfaceAddress, ...]
    routes: tuple[IPv4Network, ...]
    swarm: SwarmMembership
    trust: TrustFacts
    settings: DaemonFacts = field(default_factory=DaemonFacts)
    is_forming: bool = False
    machine_id: str = ""
    kernel: str = ""
    modules: frozenset[str] = frozenset(MODULES)
    has_memory_cgroup: bool = True
    memory: int = 0
    memory_available: int = 0
    clock: Clock | None = None
    nics: tuple[Nic, ...] = ()
    default_interface: str = ""
    disks: tuple[Disk, ...] = ()
    packages: frozenset[str] = frozenset()
    is_rootless: bool = False
    apt_lock: str = ""
    firewalls: tuple[str, ...] = ()
    listeners: tuple[Listener, ...] = ()
    containers: int = 0

    @property
    def has_apt(self) -> bool:
        """Whether swarmkit knows how to install an engine here: Debian and Ubuntu (and their kin)."""
        return bool({"debian", "ubuntu"} & {self.os_id, *self.os_like})

    @property
    def keeps_gossip(self) -> bool:
        """Whether its engine keeps the gossip port of a swarm that it has left: see `gossip`."""
        return not self.swarm.is_member and any(
            one.user == "dockerd" and one.port == GOSSIP_PORT for one in self.listeners
        )

    def nic_of(self, address: str) -> Nic | None:
        """The interface that has an IP address."""
        own = self.own_address(address)
        return next((nic for nic in self.nics if own is not None and nic.name == own.interface), None)

    def own_address(self, address: str) -> InterfaceAddress | None:
        """The host's own address that is `address`, however that is written; None where it has none."""
        try:
            wanted = ip_address(address)
        except ValueError:
            return None
        return next((one for one in self.addresses if one.address.ip == wanted), None)

    @classmethod
    def parse(cls, output: str, sent: float | None = None, received: float | None = None) -> HostFacts:
        """From what SCRIPT printed; `sent` and `received` are our own time before and after.

        A line that cannot be understood is passed over: what a machine prints must not stop us.
        """
        single: dict[str, str] = {}
        many: dict[str, list[str]] = {}
        for line in output.split("\n"):
            key, _, value = line.partition("=")
            single[key] = value
            many.setdefault(key, []).append(value)
        info = _json_object(single.get("info", ""))
        networks, default_interface = _routes(many.get("route", []))
        memory = dict(_pairs(many.get("memory", [])))
        modules = frozenset(many.get("module", [])) & frozenset(MODULES)
        version, security = info.get("ServerVersion"), info.get("SecurityOptions")
        running = info.get("ContainersRunning")
        return cls(
            os_id=single.get("os.id", ""),
            os_like=tuple(single.get("os.like", "").split()),
            os_name=single.get("os.name", "an unknown system"),
            hostname=single.get("hostname", ""),
            arch=single.get("arch", ""),
            has_systemd="systemd" in single,
            has_ipvs="ip_vs" in modules,
            has_engine="engine" in single,
            has_cli="cli" in single,
            engine_version=version if isinstance(version, str) else "",
            addresses=tuple(_addresses(many.get("address", []))),
            routes=networks,
            swarm=SwarmMembership.of(info, single.get("swarm.certificate", "")),
            trust=TrustFacts.parse(single),
            settings=DaemonFacts.parse(single),
            is_forming="swarm.forming" in single,
            machine_id=single.get("machine-id", ""),
            kernel=single.get("kernel", ""),
            modules=modules,
            has_memory_cgroup="cgroup.memory" in single,
            memory=1024 * (_number(memory.get("MemTotal", "")) or 0),
            memory_available=1024 * (_number(memory.get("MemAvailable", "")) or 0),
            clock=_clock(single.get("clock", ""), sent, received),
            nics=tuple(_nics(many.get("nic", []), dict(_pairs(many.get("checksum", []))))),
            default_interface=default_interface,
            disks=tuple(dict.fromkeys(_disks(many.get("disk", [])))),
            packages=frozenset(many.get("package", [])),
            is_rootless=isinstance(security, list) and "name=rootless" in security,
            apt_lock=_holder(single.get("apt.lock", "")),
            firewalls=tuple(many.get("firewall", [])),
            listeners=tuple(_listeners(many.get("listener", []))),
            containers=running if isinstance(running, int) else 0,
        )


def look(connection: RootShell, more: str = "") -> tuple[HostFacts, str]:
    """The facts of one host, in one round trip, and all that was printed.

    `more` is a script that runs after SCRIPT. Raises what the connection raises, and OperationFailed
    where SCRIPT itself fails.
    """
    # The time that logging in takes must not count as uncertainty of the clock.
    connection.open()
    sent = time.time()
    output = connection.run(f"{SCRIPT}\n{more}").checked("looking at the machine")
    return HostFacts.parse(output, sent, time.time()), output


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _json_object(text: str) -> Mapping[str, Any]:
    try:
        return _object(json.loads(text))
    except (ValueError, RecursionError):
        return {}


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _pairs(lines: Iterable[str]) -> Iterable[tuple[str, str]]:
    for line in lines:
        key, _, value = line.partition(" ")
        yield key, value


def _routes(lines: Iterable[str]) -> tuple[tuple[IPv4Network, ...], str]:
    """Networks that the host routes, and the interface of its default route.

    A line is `[TYPE] DESTINATION [KEY VALUE]…` (ip-route(8)); the type, such as `blackhole`, is left out
    where it is `unicast`.
    """
    networks: list[IPv4Network] = []
    default = ""
    for line in lines:
        words = line.split()
        for word in words[:2]:
            if word == "default":
                if "dev" in words[:-1] and not default:
                    default = words[words.index("dev") + 1]
                break
            try:
                networks.append(IPv4Network(word, strict=False))
                break
            except ValueError:
                continue
    return tuple(networks), default


def _addresses(lines: Iterable[str]) -> Iterable[InterfaceAddress]:
    for interface, address in _pairs(lines):
        try:
            # A container's interface is shown with its peer: eth0@if12.
            yield InterfaceAddress(interface.partition("@")[0], ip_interface(address))
        except ValueError:
            continue


def _nics(lines: Iterable[str], checksums: Mapping[str, str]) -> Iterable[Nic]:
    for line in lines:
        match line.split():
            case [name, mtu, *driver] if (size := _number(mtu)) is not None:
                checksum = {"on": True, "off": False}.get(checksums.get(name, ""))
                yield Nic(name, size, driver[0] if driver else "", checksum)


def _disks(lines: Iterable[str]) -> Iterable[Disk]:
    for line in lines:
        words = line.split(" ", 5)
        numbers = [_number(word) for word in words[:5]]
        if len(words) == 6 and None not in numbers:
            block, blocks, free, inodes, inodes_free = (number or 0 for number in numbers)
            yield Disk(words[5], block * blocks, block * free, inodes, inodes_free)


def _listeners(lines: Iterable[str]) -> Iterable[Listener]:
    for line in lines:
        words = line.split(" ", 2)
        if len(words) >= 2 and (port := _number(words[1])) is not None:
            # users:(("dockerd",pid=71,fd=3))
            parts = words[2].split('"') if len(words) == 3 else []
            yield Listener(words[0], port, parts[1] if len(parts) > 1 else "")


def _holder(text: str) -> str:
    pid, _, name = text.partition(" ")
    return f"{name} (process {pid})" if name and _number(pid) is not None else ""


def _clock(text: str, sent: float | None, received: float | None) -> Clock | None:
    try:
        # A date command that knows no fractions (busybox) prints the seconds and its own letters.
        seconds = float(text.partition(".")[0]) if not text.replace(".", "").isdigit() else float(text)
    except ValueError:
        return None
    if sent is None or received is None or not math.isfinite(seconds):
        return None
    return Clock(seconds - received, seconds - sent)
