"""Whether machines can be a swarm: pure judgement of their facts, all hosts and all problems at once.

`swarmkit init` asks it before it changes anything, `swarmkit doctor` on a swarm that lives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import median_low

from swarmkit.cluster.facts import Disk, HostFacts
from swarmkit.cluster.findings import Finding, Severity, in_order
from swarmkit.cluster.ports import GOSSIP_PORT, MANAGER_PORT
from swarmkit.inventory import Host
from swarmkit.inventory.models import DATA_PATH_PORT

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE

MIB, GIB = 2**20, 2**30

# k0sctl refuses hosts whose clocks differ by more (from the median). TLS and Swarm's own certificates
# bear an hour (moby/swarmkit dates them back so far: ca.CertBackdate), but tokens of registries, logs
# and time-outs of applications do not. A clock that is kept by NTP is right to fractions of a second:
# one that is 5 s off is kept by nobody.
CLOCK_ERROR_SECONDS = 30.0
CLOCK_WARNING_SECONDS = 5.0
# The engine and its first images do not fit into less.
DISK_ERROR_BYTES = 1 * GIB
DISK_WARNING_BYTES = 3 * GIB
# Of a large disk the last tenth is much; of a small one it is soon gone.
DISK_WARNING_SHARE = 0.1
DISK_WARNING_BELOW = 20 * GIB
INODES_WARNING_SHARE = 0.05
# An idle engine in a swarm takes some 150 MiB, and systemd and sshd want theirs.
MEMORY_ERROR_BYTES = 400 * MIB
MEMORY_WARNING_BYTES = 900 * MIB
# Debian and Ubuntu build docker.io for these.
ARCHITECTURES = frozenset({"x86_64", "aarch64", "armv7l", "ppc64le", "s390x", "riscv64"})
OLDEST_ENGINE = (20, 10)
# The largest packet that overlay networks send between nodes, in bytes. Their option
# com.docker.network.driver.mtu is this size, and not what a container sees: that is 50 bytes less, for
# VXLAN's headers (moby, libnetwork/drivers/overlay; RFC 7348, 5).
PACKET_SIZE = 1500

Facts = Mapping[str, HostFacts]


def preflight(
    hosts: Sequence[Host],
    facts: Facts,
    *,
    packet_size: int = PACKET_SIZE,
    data_path_port: int = DATA_PATH_PORT,
) -> list[Finding]:
    """What speaks against making one swarm of `hosts`, or is wrong with hosts of a swarm.

    `facts` holds those of `hosts` that were looked at, by name. `packet_size` is that of the largest
    packet that the swarm's overlay networks send, in bytes. An error must be put right first; what only
    hurts some services is a warning.
    """
    seen = [host for host in hosts if host.name in facts]
    found: list[Finding] = []
    for host in seen:
        one = facts[host.name]
        for judge in _HOST:
            found += judge(host, one)
        found += _ports(host, one, data_path_port)
    found += _duplicates(seen, facts)
    found += _clocks(seen, facts)
    found += _mtus(seen, facts, packet_size)
    return in_order(found)


def _address(host: Host, found: HostFacts) -> Iterator[Finding]:
    own = [one for one in found.addresses if not one.address.ip.is_loopback]
    if own and found.own_address(host.private_address) is None:
        usable = [str(one) for one in own if not one.address.ip.is_link_local]
        yield Finding(
            "private-address-missing",
            ERROR,
            host.name,
            f"no interface has the private address {host.private_address}; "
            f"there are {', '.join(usable) or 'none'}",
            "set `private_address:` of this host in the inventory to the one that the other nodes reach",
        )


def _machine(host: Host, found: HostFacts) -> Iterator[Finding]:
    if found.arch not in ARCHITECTURES and not found.engine_version:
        yield Finding(
            "unsupported-arch",
            ERROR,
            host.name,
            f"there is no Docker Engine to install for the architecture {found.arch or 'unknown'}",
            f"swarmkit can install it on {', '.join(sorted(ARCHITECTURES))}",
        )
    total = found.memory
    if 0 < total < MEMORY_ERROR_BYTES:
        yield Finding(
            "memory-low",
            ERROR,
            host.name,
            f"{total // MIB} MiB of memory; a node needs {MEMORY_ERROR_BYTES // MIB}",
            "give the machine more memory",
        )
    elif 0 < total < MEMORY_WARNING_BYTES:
        yield Finding(
            "memory-low",
            WARNING,
            host.name,
            f"{total // MIB} MiB of memory: enough for a node, little for services",
            "set memory limits for services (deploy.resources.limits.memory)",
        )
    elif total and found.memory_available < total / 20:
        yield Finding(
            "memory-low",
            WARNING,
            host.name,
            f"{found.memory_available // MIB} of {total // MIB} MiB of memory are left",
            f"see who has it: swarmkit ssh {host.name} -- ps aux --sort -rss; set limits for services",
        )


def _disks(host: Host, found: HostFacts) -> Iterator[Finding]:
    # Folders on one file system tell of one thing.
    for disk in {(one.size, one.free): one for one in reversed(found.disks)}.values():
        hint = (
            f"see what takes it: swarmkit ssh {host.name} -- du -xhd1 {disk.path}; "
            "docker system prune removes what no container uses"
        )
        if disk.free < DISK_ERROR_BYTES:
            yield Finding("disk-full", ERROR, host.name, _left(disk), hint)
        elif disk.free < DISK_WARNING_BYTES or (
            disk.free < disk.size * DISK_WARNING_SHARE and disk.free < DISK_WARNING_BELOW
        ):
            yield Finding("disk-full", WARNING, host.name, _left(disk), hint)
        elif disk.inodes and disk.inodes_free < disk.inodes * INODES_WARNING_SHARE:
            message = f"{disk.inodes_free} of {disk.inodes} files more fit on the disk of {disk.path}"
            yield Finding("disk-full", WARNING, host.name, message, hint)


def _left(disk: Disk) -> str:
    return f"{disk.free / GIB:.1f} of {disk.size / GIB:.1f} GiB are left on the disk of {disk.path}"


def _kernel(host: Host, found: HostFacts) -> Iterator[Finding]:
    kernel = f"the kernel {found.kernel}".strip()
    fix = (
        "load it: modprobe {0}; where there is none, install the distribution's own kernel "
        "(Debian: linux-image-amd64, Ubuntu: linux-modules-extra-$(uname -r))"
    )
    for module, code, severity, without in (
        ("overlay", "no-overlay", WARNING, "without it the engine stores a whole copy of each layer"),
        ("vxlan", "no-vxlan", ERROR, "overlay networks between nodes cannot work"),
        (
            "ip_vs",
            "no-ipvs",
            NOTE,
            "ports published in `ingress` mode and virtual IPs will not answer; "
            "swarmkit's own stacks do without them",
        ),
        ("br_netfilter", "no-br-netfilter", NOTE, "traffic within a bridge passes by the host's firewall"),
    ):
        if module not in found.modules:
            message = f"{kernel} has no {module}: {without}"
            yield Finding(code, severity, host.name, message, fix.format(module))
    if not found.has_memory_cgroup:
        yield Finding(
            "no-memory-cgroup",
            WARNING,
            host.name,
            f"{kernel} does not count memory by cgroup: memory limits of services do not hold",
            "boot it with cgroup_enable=memory (on a Raspberry Pi in /boot/firmware/cmdline.txt)",
        )


def _docker(host: Host, found: HostFacts) -> Iterator[Finding]:
    version = _version(found.engine_version)
    if version and version < OLDEST_ENGINE:
        yield Finding(
            "old-engine",
            ERROR,
            host.name,
            f"the Docker Engine is {found.engine_version}; swarmkit needs 20.10 or newer",
            "upgrade it, on Debian and Ubuntu with: apt-get install docker.io",
        )
    if "snap" in found.packages:
        yield Finding(
            "foreign-docker",
            ERROR,
            host.name,
            "Docker is a snap: it sees neither /etc/docker nor the registry's certificates, "
            "and updates itself while services run",
            "remove it (its containers go with it): snap remove docker; then swarmkit installs docker.io",
        )
    if "podman-docker" in found.packages:
        yield Finding(
            "foreign-docker",
            ERROR,
            host.name,
            "the docker command is podman's, which has no Swarm",
            "remove it: apt-get remove podman-docker; then swarmkit installs docker.io",
        )
    if found.is_rootless:
        yield Finding(
            "foreign-docker",
            ERROR,
            host.name,
            "the Docker Engine runs rootless: overlay networks do not work there",
            "use the system's engine: unset DOCKER_HOST and `docker context use default` for root",
        )
    if not found.engine_version and found.apt_lock:
        yield Finding(
            "apt-locked",
            WARNING,
            host.name,
            f"{found.apt_lock} holds apt's lock; installing will wait for it",
            f"see what it does: swarmkit ssh {host.name} -- ps -ef",
        )


def _version(text: str) -> tuple[int, ...]:
    numbers = text.split("-")[0].split(".")[:2]
    return tuple(int(number) for number in numbers) if all(map(str.isdigit, numbers)) else ()


def _checksums(host: Host, found: HostFacts) -> Iterator[Finding]:
    """VMware's vmxnet3 may send VXLAN packets with wrong checksums, which the other side drops.

    Large packets vanish while ping works: moby/moby 41775, coreos/fedora-coreos-tracker 1372; on VMware
    with NSX only for its own port 4789 (projectcalico/calico 9433).
    """
    nic = found.nic_of(host.private_address)
    if nic is None or nic.driver != "vmxnet3" or nic.tx_checksum is False:
        return
    state = "is on" if nic.tx_checksum else "may be on (ethtool is not installed there)"
    yield Finding(
        "checksum-offload",
        WARNING,
        host.name,
        f"checksum offload {state} for {nic.name} (vmxnet3), which is known to break overlay networks",
        f"ethtool -K {nic.name} tx-checksum-ip-generic off (and in the network's configuration, for good)",
    )


_HOST: Sequence[Callable[[Host, HostFacts], Iterable[Finding]]] = (
    _address,
    _machine,
    _disks,
    _kernel,
    _docker,
    _checksums,
)


def _ports(host: Host, found: HostFacts, data_path_port: int) -> Iterator[Finding]:
    if found.swarm.is_member:
        return
    wanted = {("tcp", GOSSIP_PORT), ("udp", GOSSIP_PORT), ("udp", data_path_port)}
    if host.is_manager:
        wanted.add(("tcp", MANAGER_PORT))
    if found.keeps_gossip:
        # Without containers the plan has its restart.
        wanted -= {("tcp", GOSSIP_PORT), ("udp", GOSSIP_PORT)}
        if found.containers:
            yield Finding(
                "port-taken",
                ERROR,
                host.name,
                f"the engine keeps port {GOSSIP_PORT} of a swarm that it has left, until it is restarted",
                "containers run there, so that is left to you: systemctl restart docker",
            )
    for one in dict.fromkeys(found.listeners):
        if (one.protocol, one.port) in wanted:
            yield Finding(
                "port-taken",
                ERROR,
                host.name,
                f"{one.user or 'something in the kernel'} is on port {one.port}/{one.protocol}, "
                "which Swarm needs",
                f"stop it; see: swarmkit ssh {host.name} -- ss -lntup 'sport = :{one.port}'",
            )


def _duplicates(hosts: Sequence[Host], facts: Facts) -> Iterator[Finding]:
    """What must be different on each host. A machine cloned with its identity has others' addresses."""
    kinds: Sequence[tuple[str, Severity, str, Callable[[Host], str], str]] = (
        (
            "duplicate-machine-id",
            ERROR,
            "machine-id",
            lambda host: facts[host.name].machine_id,
            "give each clone its own: rm -f /etc/machine-id /var/lib/dbus/machine-id; "
            "systemd-machine-id-setup; reboot",
        ),
        (
            "duplicate-hostname",
            ERROR,
            "hostname",
            lambda host: facts[host.name].hostname,
            "name them apart: hostnamectl set-hostname NAME",
        ),
        (
            "duplicate-address",
            ERROR,
            "private address",
            lambda host: host.private_address,
            "correct `private_address:` in the inventory",
        ),
    )
    for code, severity, what, value_of, hint in kinds:
        groups: dict[str, list[str]] = {}
        for host in hosts:
            groups.setdefault(value_of(host), []).append(host.name)
        for value, names in groups.items():
            for name in names if value and len(names) > 1 else ():
                others = ", ".join(other for other in names if other != name)
                message = f"the {what} {value} is also that of {others}"
                yield Finding(code, severity, name, message, hint)


def _clocks(hosts: Sequence[Host], facts: Facts) -> Iterator[Finding]:
    """Clocks that differ from the others', by the median: one that is wrong does not accuse the rest."""
    clocks = {host.name: clock for host in hosts if (clock := facts[host.name].clock) is not None}
    if len(clocks) < 2:
        return
    usual = median_low(clock.middle for clock in clocks.values())
    for name, clock in clocks.items():
        ahead = clock.middle - usual
        certain = abs(ahead) - clock.uncertainty
        if certain <= CLOCK_WARNING_SECONDS:
            continue
        yield Finding(
            "clock-skew",
            ERROR if certain > CLOCK_ERROR_SECONDS else WARNING,
            name,
            f"the clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the other hosts'",
            "let NTP keep it: apt-get install systemd-timesyncd && timedatectl set-ntp true",
        )


def _mtus(hosts: Sequence[Host], facts: Facts, packet_size: int) -> Iterator[Finding]:
    nics = {
        host.name: nic for host in hosts if (nic := facts[host.name].nic_of(host.private_address)) is not None
    }
    if not nics:
        return
    usual = Counter(nic.mtu for nic in nics.values()).most_common(1)[0][0]
    for name, nic in nics.items():
        if nic.mtu != usual:
            yield Finding(
                "mtu-mismatch",
                ERROR if nic.mtu < packet_size else WARNING,
                name,
                f"{nic.name} has MTU {nic.mtu}, those of the other hosts {usual}: large packets may be lost",
                f"ip link set {nic.name} mtu {usual} (and in the network's configuration, for good)",
            )
        elif nic.mtu < packet_size:
            yield Finding(
                "mtu-overlay",
                WARNING,
                name,
                f"{nic.name} has MTU {nic.mtu}, and overlay networks send packets of {packet_size} bytes: "
                "large ones are cut up or lost",
                "make overlay networks for it: "
                f"docker network create -d overlay -o com.docker.network.driver.mtu={nic.mtu} …",
            )
