"""Facts of a host: read from what the script prints, whatever that is."""

from __future__ import annotations

import json
import subprocess
from ipaddress import IPv4Network, ip_interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkit.cluster.facts import (
    MODULES,
    SCRIPT,
    Clock,
    Disk,
    HostFacts,
    InterfaceAddress,
    Listener,
    Nic,
    SwarmMembership,
)

PRINTED = """\
clock=1000.500000000
os.id=ubuntu
os.like=debian
os.name=Ubuntu 24.04
hostname=w1
machine-id=8e4f
kernel=6.8.0-45-generic
arch=x86_64
memory=MemTotal 2048
memory=MemAvailable 1024
route=default via 10.1.0.1 dev ens3 proto dhcp
route=10.1.0.0/16 dev ens3 proto kernel scope link src 10.1.2.3
address=lo 127.0.0.1/8
address=ens3 10.1.2.3/16
address=ens3 fe80::1/64
nic=ens3 1500 vmxnet3
nic=docker0 1500 \n\
checksum=ens3 on
module=overlay
module=vxlan
module=snd_hda
cgroup.memory=yes
package=docker.io
firewall=ufw
firewall=iptables
apt.lock=812 unattended-upgr
disk=4096 1000 500 100 50 /var/lib/docker
disk=4096 1000 500 100 50 /a folder
listener=udp 4789 \n\
listener=tcp 7946 users:(("consul",pid=71,fd=3))
"""


def test_all_of_a_host_is_read() -> None:
    facts = HostFacts.parse(PRINTED, sent=1000.0, received=1000.8)
    assert (facts.hostname, facts.machine_id, facts.kernel) == ("w1", "8e4f", "6.8.0-45-generic")
    assert facts.has_apt
    assert (facts.memory, facts.memory_available) == (2048 * 1024, 1024 * 1024)
    assert facts.default_interface == "ens3"
    assert facts.routes == (IPv4Network("10.1.0.0/16"),)
    assert facts.addresses[1] == InterfaceAddress("ens3", ip_interface("10.1.2.3/16"))
    assert facts.nics == (Nic("ens3", 1500, "vmxnet3", True), Nic("docker0", 1500))
    assert facts.nic_of("10.1.2.3") == facts.nics[0]
    assert facts.nic_of("10.1.2.4") is None
    assert facts.modules == {"overlay", "vxlan"}
    assert not facts.has_ipvs
    assert facts.has_memory_cgroup
    assert facts.firewalls == ("ufw", "iptables")
    assert facts.apt_lock == "unattended-upgr (process 812)"
    assert facts.disks == (
        Disk("/var/lib/docker", 4096_000, 2048_000, 100, 50),
        Disk("/a folder", 4096_000, 2048_000, 100, 50),
    )
    assert facts.listeners == (Listener("udp", 4789), Listener("tcp", 7946, "consul"))


def test_the_clock_is_known_as_well_as_the_round_trip_allows() -> None:
    clock = HostFacts.parse("clock=1000.5\n", sent=1000.0, received=1000.8).clock
    assert clock is not None
    assert clock.least == pytest.approx(-0.3)
    assert clock.most == pytest.approx(0.5)
    assert clock.middle == pytest.approx(0.1)
    assert clock.uncertainty == pytest.approx(0.4)
    # busybox knows no fractions.
    assert HostFacts.parse("clock=1000.%N\n", sent=1000.0, received=1001.0).clock == Clock(-1.0, 0.0)
    assert HostFacts.parse("clock=\n", sent=1000.0, received=1001.0).clock is None


@pytest.mark.parametrize(
    "line",
    [
        "blackhole 10.8.0.0/16",
        "unreachable 10.8.0.0/16 metric 1024",
        "prohibit 10.8.0.0/16",
        "throw 10.8.0.0/16",
        "local 10.8.0.0/16 dev lo",
        "10.8.0.0/16 dev eth0",
    ],
)
def test_a_route_of_any_type_is_a_network_that_is_taken(line: str) -> None:
    assert HostFacts.parse(f"route={line}\n").routes == (IPv4Network("10.8.0.0/16"),)


def test_a_default_that_leads_nowhere_is_no_network() -> None:
    facts = HostFacts.parse("route=unreachable default metric 4278198272\nroute=default dev\n")
    assert (facts.routes, facts.default_interface) == ((), "")


KEYS = (
    *("route", "address", "nic", "disk", "info", "clock", "memory", "listener", "apt.lock", "checksum"),
    *("os.id", "module", "trust.ca", "", "unheard of"),
)
LINES = st.lists(st.tuples(st.sampled_from(KEYS), st.text(max_size=40)))


@given(LINES, st.text(max_size=200))
def test_no_output_stops_the_reading(lines: list[tuple[str, str]], noise: str) -> None:
    printed = "\n".join(f"{key}={value}" for key, value in lines)
    HostFacts.parse(f"{printed}\n{noise}", sent=1.0, received=2.0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda some: (
        st.lists(some, max_size=3)
        | st.dictionaries(
            st.sampled_from(("Swarm", "Cluster", "ServerVersion", "SecurityOptions", "x")), some, max_size=4
        )
    ),
    max_leaves=6,
)


@given(JSON)
def test_whatever_calls_itself_docker_does_not_stop_the_reading(answer: object) -> None:
    facts = HostFacts.parse(f"info={json.dumps(answer)}\n")
    assert isinstance(facts.engine_version, str)


def test_the_engine_tells_of_its_swarm() -> None:
    info = {
        "ServerVersion": "26.1.5",
        "SecurityOptions": ["name=rootless"],
        "Swarm": {
            "NodeID": "n",
            "LocalNodeState": "active",
            "ControlAvailable": True,
            "Cluster": {"ID": "c"},
        },
    }
    facts = HostFacts.parse(f"info={json.dumps(info)}\n")
    assert facts.engine_version == "26.1.5"
    assert facts.is_rootless
    assert facts.swarm == SwarmMembership("active", "n", "c", True)


def test_the_script_is_understood_by_a_shell_and_by_us() -> None:
    done = subprocess.run(["sh", "-s"], input=SCRIPT, capture_output=True, text=True, check=False)
    facts = HostFacts.parse(done.stdout, sent=0.0, received=1.0)
    assert done.returncode == 0, done.stderr
    assert facts.hostname
    assert facts.kernel
    assert facts.memory > 0
    assert facts.disks
    assert facts.clock is not None
    assert facts.modules <= set(MODULES)
