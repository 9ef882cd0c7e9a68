"""`doctor` on real machines: each fault is made for real, found by its name, and taken back.

Faults that do not hide each other share one run.
"""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from swarmkit.cluster.facts import SCRIPT, HostFacts
from swarmkit.images import CERTS_DIR
from swarmkit.images.ca import LIFETIME, Authority
from tests.conftest import Swarmkit, eventually
from tests.e2e.conftest import Lab

NAMES = ("m1", "wn1", "wn2")


@pytest.fixture(scope="module")
def lab(machines: Callable[[int], Lab]) -> Lab:
    return machines(len(NAMES))


@pytest.fixture(scope="module")
def sk(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarmkit]:
    """The command, on a swarm of three that no other test has grown."""
    folder = lab.inventory.parent
    entries = [
        {
            "name": name,
            "address": "127.0.0.1",
            "port": lab.nodes[name]["ssh_port"],
            "private_address": lab.nodes[name]["address"],
            "user": "swarmkit",
            "key": str(folder / "id_ed25519"),
        }
        for name in NAMES
    ]
    path = tmp_path_factory.mktemp("doctor") / "inventory.yml"
    known = str(folder / "known_hosts")
    path.write_text(
        yaml.safe_dump(
            {"cluster": "patient", "known_hosts": known, "managers": entries[:1], "workers": entries[1:]}
        )
    )
    command = Swarmkit(lab.swarmkit.environment, path, folder=lab.swarmkit.folder)
    command("init")
    yield command
    command("reset")


@contextmanager
def fault(lab: Lab, node: str, make: str, undo: str) -> Iterator[None]:
    """A fault on a node for as long as the block lasts."""
    lab.shell(node, make)
    try:
        yield
    finally:
        lab.shell(node, undo)


def named(findings: Sequence[dict[str, Any]], code: str) -> dict[str, dict[str, Any]]:
    """The findings of one name, by where they are."""
    return {one["host"]: one for one in findings if one["code"] == code}


def examined(sk: Swarmkit, code: int = 1) -> list[dict[str, Any]]:
    document = sk("doctor", "-o", "json", code=code).json
    assert document["healthy"] is (code == 0)
    findings: list[dict[str, Any]] = document["findings"]
    return findings


def test_a_healthy_swarm_is_told_so_in_a_few_lines(lab: Lab, sk: Swarmkit) -> None:
    done = sk("doctor")
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("healthy (")
    assert len(lines) < 12
    assert any("3 of 3 machines" in line for line in lines)
    assert any("6 ways between 3 machines" in line for line in lines)
    assert "1 manager, 1 reachable: none may fail" in done.stdout
    assert not [line for line in lines if line.startswith(("error", "warning"))]
    for name in NAMES:
        left = lab.shell(name, "ls /run/swarmkit-links.* 2>/dev/null; pgrep -x perl; true")
        assert left.strip() == ""


def test_who_holds_apts_lock_is_told_by_name(lab: Lab) -> None:
    lock = (
        'open(F, ">>", "/var/lib/dpkg/lock-frontend");'
        'my $lock = pack("s s x![l!] l! l! i x4", 1, 0, 0, 0, 0);'
        'fcntl(F, 6, $lock) or die "$!"; system("sh /run/facts.sh")'
    )
    script = f"cat >/run/facts.sh <<'END'\n{SCRIPT}\nEND\nperl -e '{lock}'; rm /run/facts.sh"
    assert re.fullmatch(r"perl \(process \d+\)", HostFacts.parse(lab.shell("wn1", script)).apt_lock)
    assert HostFacts.parse(lab.shell("wn1", SCRIPT)).apt_lock == ""


def test_the_listener_on_a_node_ends_with_the_connection(lab: Lab) -> None:
    from swarmkit.cluster import links
    from swarmkit.inventory import Host

    program = (Path(links.__file__).parent / "links.pl").read_text()
    host = Host("wn1", "127.0.0.1", "swarmkit", private_address=lab.nodes["wn1"]["address"])
    # `shell` closes its connection when the script has ended.
    assert "ready" in lab.shell("wn1", links._listen(program, "feed", 300, host))
    gone = "pgrep -x perl >/dev/null && echo there; ls /run/swarmkit-links.feed 2>/dev/null; true"
    eventually(lambda: lab.shell("wn1", gone).strip() == "", 10, "the listener and its file are gone")


def test_faults_of_machines_and_of_the_network_are_found_by_name(lab: Lab, sk: Swarmkit) -> None:
    with ExitStack() as faults:

        def broken(node: str, make: str, undo: str) -> None:
            faults.enter_context(fault(lab, node, make, undo))

        for node, port in (("wn1", 7946), ("wn2", 4789)):
            rule = f"INPUT -p udp --dport {port} -j DROP"
            broken(node, f"iptables -I {rule}", f"iptables -D {rule}")
        broken("m1", "ip link set eth0 mtu 1400", "ip link set eth0 mtu 1500")
        # Containers share the clock of the machine that they run on, which is not ours to set: what
        # reads it on this node is told another time.
        wrapper = "#!/bin/sh\nexec /usr/bin/date -d '+45 seconds' \"$@\"\n"
        broken(
            "wn2",
            f"printf %s {base64.b64encode(wrapper.encode()).decode()} | base64 -d >/usr/local/bin/date && "
            "chmod 755 /usr/local/bin/date",
            "rm /usr/local/bin/date",
        )
        twin = lab.shell("wn1", "cat /etc/machine-id").strip()
        own = lab.shell("wn2", "cat /etc/machine-id").strip()
        broken("wn2", f"echo {twin} >/etc/machine-id", f"echo {own} >/etc/machine-id")
        broken(
            "wn1",
            "mount -t tmpfs -o size=16m none /var/lib/swarmkit && "
            "dd if=/dev/zero of=/var/lib/swarmkit/filler bs=1M 2>/dev/null; true",
            "umount /var/lib/swarmkit",
        )
        done = sk("doctor", code=1)
        findings = examined(sk)

    gossip = named(findings, "gossip-blocked")
    assert set(gossip) == {"m1 → wn1", "wn2 → wn1"}
    assert gossip["m1 → wn1"]["message"] == "7946/udp: blocked"
    assert "on wn1: iptables -I INPUT -p udp" in gossip["m1 → wn1"]["hint"]
    assert set(named(findings, "vxlan-blocked")) == {"m1 → wn2", "wn1 → wn2"}
    assert "MTU 1400, those of the other hosts 1500" in named(findings, "mtu-mismatch")["m1"]["message"]
    assert set(named(findings, "mtu-path")) == {"wn1 → m1", "wn2 → m1"}
    assert "45 s ahead of" in named(findings, "clock-skew")["wn2"]["message"]
    assert set(named(findings, "duplicate-machine-id")) == {"wn1", "wn2"}
    assert "/var/lib/swarmkit" in named(findings, "disk-full")["wn1"]["message"]
    assert {one["code"] for one in findings if one["severity"] == "error"} == {
        *("gossip-blocked", "vxlan-blocked", "mtu-mismatch", "mtu-path", "clock-skew"),
        *("duplicate-machine-id", "disk-full"),
    }
    # People read of one fault once, whoever it was seen from.
    assert "error: gossip-blocked: m1 → wn1, wn2 → wn1: 7946/udp: blocked\n" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("9 problems (")
    assert examined(sk, code=0) is not None


def soon_ended() -> str:
    """A client's certificate of another authority, which ends in three days."""
    begun = datetime.now(UTC) - LIFETIME + timedelta(days=3)
    return Authority.make(begun).issue_client("wn1", begun).certificate


def test_faults_of_services_and_certificates_are_found_by_name(lab: Lab, sk: Swarmkit) -> None:
    create = "docker service create -d -q --no-resolve-image --constraint node.hostname==m1"
    put = f"base64 -d >'{CERTS_DIR}/client.cert'"
    encoded = base64.b64encode(soon_ended().encode()).decode()
    with ExitStack() as faults:
        faults.enter_context(
            fault(
                lab,
                "wn1",
                f"cd '{CERTS_DIR}' && cp -p client.cert /run/kept && echo {encoded} | {put}",
                f"mv /run/kept '{CERTS_DIR}/client.cert'",
            )
        )
        faults.enter_context(
            fault(
                lab,
                "m1",
                "docker load -q </var/lib/swarmkit/images/base.tar\n"
                f"{create} --name loop --restart-delay 100ms swarmkit/base:13 sh -c 'exit 3'\n"
                f"{create} --name mesh -p 8099:80 swarmkit/base:13 sleep 1000\n"
                f"{create} --name stuck --constraint node.labels.no==1 swarmkit/base:13 true",
                "docker service rm loop mesh stuck",
            )
        )
        count = "docker service ps -q --filter desired-state=shutdown loop | wc -l"
        eventually(lambda: int(lab.shell("m1", count)) >= 3, 30, "the service has failed three times")
        findings = examined(sk)
        engine = over_engine(lab, sk)

    stuck = named(findings, "unplaceable")["stuck"]
    assert stuck["message"].startswith("1 task cannot be placed: no suitable node")
    assert "node.labels.no==1" in stuck["message"]
    loop = named(findings, "crash-loop")["loop"]
    assert "non-zero exit (3)" in loop["message"]
    assert "swarmkit service logs loop" in loop["hint"]
    assert named(findings, "certificate-expiring")["wn1"]["message"].startswith(
        "the node's certificate for the registry ends in 2 days"
    )
    if lab.shell("m1", "ls -d /proc/net/ip_vs 2>/dev/null || true").strip() == "":
        mesh = named(findings, "no-ipvs")["mesh"]
        assert mesh["severity"] == "error"
        assert "8099" in mesh["message"]
    # Without an inventory the swarm's own side is looked at.
    assert {"unplaceable", "crash-loop"} <= {one["code"] for one in engine}


def over_engine(lab: Lab, sk: Swarmkit) -> list[dict[str, Any]]:
    """What doctor finds with nothing but the address of a manager."""
    home = sk.folder / "doctor-home"
    (home / ".ssh").mkdir(mode=0o700, parents=True)
    for name in ("id_ed25519", "known_hosts"):
        shutil.copy(lab.inventory.parent / name, home / ".ssh" / name)
    plain = Swarmkit({**sk.environment, "HOME": str(home)}, folder=home)
    url = f"ssh://swarmkit@127.0.0.1:{lab.nodes['m1']['ssh_port']}"
    document = plain("--engine", url, "doctor", "-o", "json", code=1).json
    assert any("not the machines" in text for text in document["checked"])
    findings: list[dict[str, Any]] = document["findings"]
    return findings


@contextmanager
def three_managers(lab: Lab) -> Iterator[None]:
    """Makes managers of all for as long as the block lasts, which may switch them off."""
    lab.shell("m1", "docker node promote wn1 wn2")
    roles = "docker node ls --format '{{.ManagerStatus}}'"
    eventually(lambda: lab.shell("m1", roles).split().count("Reachable") == 2, 90, "all three are managers")
    try:
        yield
    finally:
        for name in NAMES:
            lab.power("on", name)
        demote = "docker node demote wn1 wn2 >/dev/null 2>&1 && echo done || true"
        eventually(lambda: "done" in lab.shell("m1", demote), 90, "the swarm has them as workers")
        role = "docker info --format '{{.Swarm.ControlAvailable}}'"
        eventually(
            lambda: all("false" in lab.shell(name, role) for name in ("wn1", "wn2")), 90, "they are workers"
        )


def test_lost_managers_are_found_and_what_that_means(lab: Lab, sk: Swarmkit) -> None:
    with three_managers(lab):
        assert "3 managers, 3 reachable: 1 may fail" in sk("doctor").stdout
        lab.power("off", "wn2")
        states = "docker node ls --format '{{.Status}}'"
        eventually(lambda: "Down" in lab.shell("m1", states), 60, "wn2 is missed")
        findings = examined(sk)
        assert set(named(findings, "host-unreachable")) == {"wn2"}
        assert "the node is down, for " in named(findings, "node-down")["wn2"]["message"]
        edge = named(findings, "quorum-at-edge")[""]
        assert edge["message"].startswith("2 of 3 managers reachable (not wn2): quorum at its edge")

        lab.power("off", "wn1")
        # The leader that is left alone needs some seconds to miss the other.
        eventually(lambda: named(examined(sk), "quorum-lost") != {}, 30, "quorum is called lost")

        lab.power("off", "m1")
        document = sk("doctor", "-o", "json", code=3).json
        assert set(named(document["findings"], "host-unreachable")) == set(NAMES)


@pytest.mark.soak
def test_a_manager_without_a_leader_tells_that_quorum_is_lost(lab: Lab, sk: Swarmkit) -> None:
    with three_managers(lab):
        for name in ("wn1", "wn2"):
            lab.power("off", name)

        def is_leaderless() -> bool:
            lost = named(examined(sk), "quorum-lost")
            return "" in lost and "have no leader" in lost[""]["message"]

        eventually(is_leaderless, 120, "the leader has stepped down")
