"""Commands that die in the middle, and machines that do: the next run ends where one whole run would.

What `make test` runs of it is a slice; `make soak` runs all.
"""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from swarmkit.cluster.ports import release
from swarmkit.inventory.models import DATA_PATH_PORT
from tests.conftest import Swarmkit, eventually
from tests.e2e.conftest import BOX, LAB, Lab, bring_box

NAMES = ("m1", "wn1", "wn2")
# The phases that forming a swarm goes through, on machines that have an engine.
PHASES = ("swarm", "registry trust", "join", "nodes", "network")
SETTINGS = {"engine": {"log": {"driver": "local", "max_size": "5m"}}}
ALL_OF_IT = pytest.mark.soak


@pytest.fixture(scope="module")
def lab(machines: Callable[[int], Lab]) -> Lab:
    return machines(3)


@pytest.fixture
def sk(lab: Lab, inventory: Callable[..., Path]) -> Swarmkit:
    path = inventory(
        managers=1, top=SETTINGS, m1={"labels": {"zone": "a"}}, wn1={"labels": {"zone": "b"}}, wn2={}
    )
    return Swarmkit(lab.swarmkit.environment, path, folder=lab.swarmkit.folder)


@pytest.fixture(autouse=True)
def apart(lab: Lab) -> Iterator[None]:
    """Each test begins and ends with machines in no swarm, with their engines as they were made."""
    yield
    script = (
        "docker swarm leave --force >/dev/null 2>&1; rm -rf /etc/docker/daemon.json* /etc/docker/certs.d\n"
        "rm -rf /var/lib/swarmkit/ca /var/lib/swarmkit/registry; sed -i /swarmkit/d /etc/hosts 2>/dev/null\n"
        "if command -v docker >/dev/null; then\n"
        "  systemctl reset-failed docker; systemctl is-active -q docker || systemctl start docker\nfi\n"
        + release(DATA_PATH_PORT)
    )
    for name in NAMES:
        lab.power("on", name)
        lab.shell(name, script)


@pytest.fixture(scope="module", autouse=True)
def engines(lab: Lab) -> None:
    """Installing takes most of the time of an `init`, and is not what is cut short here."""
    sk = lab.swarmkit
    if any("none" in lab.shell(name, "command -v dockerd || echo none") for name in NAMES):
        sk("init")
        sk("reset")


def final_state(lab: Lab, sk: Swarmkit) -> dict[str, Any]:
    """All that `init` is answerable for, without what differs by its nature (ids, keys, times)."""
    nodes = {
        node["name"]: {key: node[key] for key in ("role", "status", "availability", "address", "labels")}
        for node in sk.json("node", "ls")
    }
    script = """
    docker info --format '{{.Swarm.LocalNodeState}} {{.Swarm.NodeAddr}} {{.LoggingDriver}}'
    cat /etc/docker/daemon.json; ls /etc/docker
    grep swarmkit /etc/hosts
    sha256sum </etc/docker/certs.d/*/ca.crt | cut -c 1-64 >/tmp/ca
    for file in $(find /etc/docker/certs.d /var/lib/swarmkit/ca /var/lib/swarmkit/registry -type f | sort); do
      stat -c '%n %a %u' "$file"
      case "$file" in *.issuer) cmp -s "$file" /tmp/ca && echo ours ;; esac
    done"""
    machines = {name: lab.shell(name, script) for name in NAMES}
    manager = lab.shell(
        "m1",
        """docker network ls --filter driver=overlay --format '{{.Name}}' | sort
        docker network inspect swarmkit-edge --format '{{json .IPAM.Config}}'
        docker config ls -q; docker node ls --format '{{.Hostname}} {{.Status}} {{.ManagerStatus}}' | sort
        docker info --format '{{json .Swarm.Cluster.Spec.Labels}}'""",
    )
    return {"nodes": nodes, "machines": machines, "manager": manager}


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """What one whole run leaves: found out once, by the first test that asks."""
    return {}


def expected(whole: dict[str, Any], lab: Lab, sk: Swarmkit) -> dict[str, Any]:
    if not whole:
        sk("init")
        whole.update(final_state(lab, sk))
        sk("reset")
    return whole


class Run:
    """A command under way, whose lines can be waited for."""

    def __init__(self, sk: Swarmkit, *arguments: str) -> None:
        self.process = subprocess.Popen(
            sk.command(*arguments),
            env=sk.environment,
            cwd=sk.folder,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(line.rstrip() for line in self.process.stderr)

    def wait_for(self, begins: str, *, or_end: bool = False, seconds: float = 60) -> None:
        """Until a line begins so."""

        def is_there() -> bool:
            ended = or_end and self.process.poll() is not None
            return ended or any(line.startswith(begins) for line in self.lines)

        eventually(is_there, seconds, f"a line that begins with {begins!r}")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=30)


def cut_short(sk: Swarmkit, phase: str, delay: float) -> None:
    """Begin an `init`, and kill it `delay` seconds into a phase."""
    run = Run(sk, "init")
    # A run before it may have got through more than it could say.
    run.wait_for(f"  {phase}: ", or_end=True)
    time.sleep(delay)
    run.kill()


# At the boundary of each phase and the one before, and once inside it.
SLICE = [("swarm", 0.0), ("join", 0.3)]
MATRIX = [(phase, delay) for phase in PHASES for delay in (0.0, 0.15, 0.5) if (phase, delay) not in SLICE]


@pytest.mark.parametrize(
    ("phase", "delay"), [*SLICE, *(pytest.param(*case, marks=ALL_OF_IT) for case in MATRIX)]
)
def test_a_run_that_is_killed_is_completed_by_the_next(
    lab: Lab, sk: Swarmkit, whole: dict[str, Any], phase: str, delay: float
) -> None:
    wanted = expected(whole, lab, sk)
    cut_short(sk, phase, delay)
    sk("init")
    assert final_state(lab, sk) == wanted
    assert sk.json("init")["changed"] == 0


def test_runs_that_are_killed_one_after_the_other_are_completed_in_the_end(
    lab: Lab, sk: Swarmkit, whole: dict[str, Any]
) -> None:
    wanted = expected(whole, lab, sk)
    for phase in PHASES:
        cut_short(sk, phase, 0.0)
    sk("init")
    assert final_state(lab, sk) == wanted


@pytest.mark.parametrize(
    "phase", ["join", *(pytest.param(one, marks=ALL_OF_IT) for one in PHASES if one != "join")]
)
def test_a_machine_that_loses_its_power_is_named_and_completed_when_it_is_back(
    lab: Lab, sk: Swarmkit, whole: dict[str, Any], phase: str
) -> None:
    wanted = expected(whole, lab, sk)
    victim = "wn2" if phase in ("registry trust", "join", "nodes") else "m1"
    run = Run(sk, "init")
    run.wait_for(f"  {phase}: ")
    lab.power("off", victim)
    assert run.process.wait(timeout=200) in (0, 1, 3, 4), run.lines
    assert not any("Traceback" in line for line in run.lines)
    if run.process.returncode:
        assert any(line.startswith("error: ") and victim in line for line in run.lines), run.lines
    lab.power("on", victim)
    sk("init")
    eventually(lambda: final_state(lab, sk) == wanted, 30, "the state of a whole run")


def test_a_connection_that_is_cut_in_the_middle_of_a_command_is_named(
    lab: Lab, sk: Swarmkit, whole: dict[str, Any]
) -> None:
    wanted = expected(whole, lab, sk)
    run = Run(sk, "init")
    run.wait_for("  registry trust: ")
    # The session's processes, not the server; from outside, for a login would be cut as well.
    cut = ["docker", "exec", f"swarmkit-{LAB}-wn1", "pkill", "-KILL", "-f", "^sshd(-session)?: swarmkit"]
    assert subprocess.run(cut, check=False, capture_output=True).returncode == 0
    # It may just have been between two commands, and goes on with a new connection.
    assert run.process.wait(timeout=120) in (0, 3), run.lines
    assert not any("Traceback" in line for line in run.lines)
    sk("init")
    assert final_state(lab, sk) == wanted


def test_a_disk_that_is_full_stops_its_machine_and_no_other(lab: Lab, sk: Swarmkit) -> None:
    lab.shell(
        "wn2",
        "mkdir -p /etc/docker; mount -t tmpfs -o size=16k none /etc/docker\n"
        "head -c 16k /dev/zero >/etc/docker/filler || true",
    )
    try:
        done = sk("init", code=1)
        assert "wn2" in done.error
        assert "No space left on device" in done.error
        others = {node["name"]: node["status"] for node in sk.json("node", "ls")}
        assert {name: others[name] for name in ("m1", "wn1")} == {"m1": "ready", "wn1": "ready"}
    finally:
        lab.shell("wn2", "umount /etc/docker")
    sk("init")
    assert sk.json("init")["changed"] == 0


def test_a_clock_that_is_wrong_and_a_port_that_is_blocked_keep_everything_as_it_was(
    lab: Lab, sk: Swarmkit
) -> None:
    # What a node's own clock says: that of a container is the machine's, and is not ours to change.
    ahead = "#!/bin/sh\nexec /bin/date -d '+90 seconds' \"$@\"\n"
    lab.shell("wn1", f"printf %s {shlex.quote(ahead)} >/usr/local/bin/date; chmod 755 /usr/local/bin/date")
    try:
        error = sk("init", code=1).error
        assert "wn1: clock-skew: the clock is 90 s ahead of the other hosts'" in error
        assert "let NTP keep it" in error
    finally:
        lab.shell("wn1", "rm /usr/local/bin/date")
    rule = f"INPUT -p udp -s {lab.nodes['m1']['address']} --dport 7946 -j DROP"
    lab.shell("wn2", f"iptables -I {rule}")
    try:
        error = sk("init", code=1).error
        assert "m1 → wn2: gossip-blocked: 7946/udp: blocked" in error
        assert "on wn2: iptables -I INPUT -p udp" in error
    finally:
        lab.shell("wn2", f"iptables -D {rule}")
    for name in NAMES:
        assert "inactive" in lab.shell(name, "docker info --format '{{.Swarm.LocalNodeState}}'")


def test_the_lock_of_a_command_that_was_killed_is_broken_by_the_next(lab: Lab, sk: Swarmkit) -> None:
    cut_short(sk, "join", 0.1)
    assert "breaking the lock of" in sk("init").stderr
    assert lab.shell("m1", "docker config ls -q").strip() == ""


@ALL_OF_IT
def test_a_leader_that_dies_while_another_manager_joins_is_outlived(
    lab: Lab, sk: Swarmkit, inventory: Callable[..., Path]
) -> None:
    assert sk.inventory is not None
    three = inventory(managers=3, m1={}, wn1={}, wn2={})
    two = three.with_name("two.yml")
    two.write_text(inventory(managers=2, m1={}, wn1={}).read_text())
    inventory(managers=3, m1={}, wn1={}, wn2={})
    grown = Swarmkit(sk.environment, three, folder=sk.folder)
    Swarmkit(sk.environment, two, folder=sk.folder)("init")
    run = Run(grown, "init")
    run.wait_for("  join: ")
    lab.power("off", "m1")
    assert run.process.wait(timeout=300) in (0, 1, 3, 4), run.lines
    lab.power("on", "m1")
    grown("init")
    found = {node["name"]: (node["role"], node["status"]) for node in grown.json("node", "ls")}
    assert found == dict.fromkeys(NAMES, ("manager", "ready"))


# ---------------------------------------------------------------- a stack, when managers are lost


@pytest.fixture
def three(lab: Lab, sk: Swarmkit, inventory: Callable[..., Path]) -> Swarmkit:
    """A swarm of three managers, which is spoken to through m1, its leader."""
    zones = {name: {"labels": {"zone": "a" if name == "m1" else "b"}} for name in NAMES}
    found = Swarmkit(sk.environment, inventory(managers=3, **zones), folder=sk.folder)
    found("init")
    bring_box(lab, *NAMES)
    return found


CHAIN = ("a", "b", "c")


def chain(folder: Path, level: int, *, anywhere: bool = False) -> tuple[str, ...]:
    """The command that deploys services, of which each waits for the one before it to be updated."""
    services: dict[str, Any] = {}
    for name, before in zip(CHAIN, (None, *CHAIN), strict=False):
        services[name] = {
            "image": BOX,
            "command": ["sleep", "3600"],
            "stop_grace_period": "0s",
            "environment": {"LEVEL": str(level)},
            "depends_on": {before: {"condition": "service_healthy"}} if before and level > 1 else {},
            "deploy": {
                "replicas": 2,
                "update_config": {"monitor": "1s", "parallelism": 0},
                "placement": {} if anywhere else {"constraints": ["node.labels.zone == b"]},
            },
        }
    file = folder / f"chain-{level}.yml"
    file.write_text(yaml.safe_dump({"services": services}))
    return ("stack", "up", str(file), "--name", "t")


def begun(
    three: Swarmkit, folder: Path, moment: str = "  update service t_b", *, anywhere: bool = False
) -> tuple[tuple[str, ...], Run]:
    """The command of the second level, and a run of it that has come to a moment."""
    command = chain(folder, 2, anywhere=anywhere)
    run = Run(three, *command)
    run.wait_for(moment)
    return command, run


def levels(lab: Lab, on: str) -> set[str]:
    """The LEVEL of the services, and of the tasks that run."""
    script = """
    named='--quiet --filter name=t_'
    docker service inspect -f '{{.Spec.TaskTemplate.ContainerSpec.Env}}' $(docker service ls $named)
    docker inspect -f '{{.Config.Env}}' $(docker ps $named)"""
    return set(re.findall(r"LEVEL=(\d+)", lab.shell(on, script)))


def leader(lab: Lab, on: str) -> str:
    """The manager that leads, by its name in the inventory; empty where there is none at the moment."""
    script = "docker node ls --format '{{.Hostname}} {{.ManagerStatus}}' 2>/dev/null || true"
    lines = [line.split() for line in lab.shell(on, script).splitlines()]
    return next((words[0].rpartition("-")[2] for words in lines if words[1:] == ["Leader"]), "")


def lead_elsewhere(lab: Lab) -> str:
    """Make another manager than m1 lead, and tell which; m1 is a manager again at the end.

    A leader that is only stopped for a moment may lead again; one that is demoted hands the lead over.
    """
    node = lab.shell("m1", "docker info --format '{{.Swarm.NodeID}}'").strip()

    def is_manager() -> bool:
        return "true" in lab.shell("m1", "docker info --format '{{.Swarm.ControlAvailable}}'")

    def through_wn1(command: str) -> str:
        # A manager refuses while another one takes the lead.
        return lab.shell("wn1", f"docker node {command} {node} 2>/dev/null || true")

    def is_reachable() -> bool:
        status = through_wn1("inspect --format '{{with .ManagerStatus}}{{.Reachability}}{{end}}'")
        return "reachable" in status.split()

    eventually(lambda: through_wn1("demote") != "", 30, "m1 is to be a worker")
    eventually(lambda: not is_manager() and leader(lab, "wn1") in ("wn1", "wn2"), 60, "another one leads")
    eventually(lambda: through_wn1("promote") != "", 30, "m1 is to be a manager")
    eventually(lambda: is_manager() and is_reachable(), 60, "m1 is a manager again")
    leads = leader(lab, "wn1")
    assert leads in ("wn1", "wn2")
    return leads


def check_new(lab: Lab, three: Swarmkit, command: tuple[str, ...], on: str) -> None:
    """All is as the deployment says, and a second one finds nothing to do."""
    assert levels(lab, on) == {"2"}
    assert three.json(*command)["changed"] == 0
    assert {one["state"] for one in three.json("stack", "history", "t")} == {"done"}


def test_a_manager_that_is_lost_while_it_leads_a_deployment_is_replaced_by_another(
    lab: Lab, three: Swarmkit, tmp_path: Path
) -> None:
    three(*chain(tmp_path, 1))
    command, run = begun(three, tmp_path)
    lab.power("off", "m1")
    assert run.process.wait(timeout=120) == 0, run.lines
    assert any("m1 is lost; going on through wn" in line for line in run.lines), run.lines
    check_new(lab, three, command, on="wn1")


@ALL_OF_IT
@pytest.mark.parametrize("lost", ["the leader", "the one that is spoken to"])
@pytest.mark.parametrize("moment", ["  update service t_a", "  update service t_c", "  t_a: 2 of 2"])
@pytest.mark.parametrize("anywhere", [False, True])
def test_either_of_two_managers_may_be_lost_at_any_moment(
    lab: Lab, three: Swarmkit, tmp_path: Path, lost: str, moment: str, anywhere: bool
) -> None:
    three(*chain(tmp_path, 1, anywhere=anywhere))
    leads = lead_elsewhere(lab)
    victim = leads if lost == "the leader" else "m1"
    command, run = begun(three, tmp_path, moment, anywhere=anywhere)
    lab.power("off", victim)
    assert run.process.wait(timeout=200) == 0, run.lines
    assert any("is lost; going on" in line for line in run.lines) is (victim == "m1"), run.lines
    check_new(lab, three, command, on="wn1" if victim != "wn1" else "wn2")


@ALL_OF_IT
def test_without_a_majority_the_stack_is_left_half_done_and_completed_later(
    lab: Lab, three: Swarmkit, tmp_path: Path
) -> None:
    three(*chain(tmp_path, 1))
    command, run = begun(three, tmp_path)
    for name in ("m1", "wn1"):
        lab.power("off", name)
    assert run.process.wait(timeout=200) in (1, 3), run.lines
    assert any("left half-done: run it again to complete it" in line for line in run.lines), run.lines
    assert not any("Traceback" in line for line in run.lines)
    for name in ("m1", "wn1"):
        lab.power("on", name)
    eventually(lambda: leader(lab, "wn2") != "", 60, "there is a leader again")
    three(*command)
    check_new(lab, three, command, on="wn2")


@ALL_OF_IT
def test_a_partition_between_two_nodes_is_survived_and_heals(lab: Lab, sk: Swarmkit) -> None:
    address = {name: lab.nodes[name]["address"] for name in NAMES}
    rule = f"-s {address['m1']} -j DROP"
    lab.shell("wn1", "command -v iptables >/dev/null")
    lab.shell("wn1", f"iptables -I INPUT {rule}")
    try:
        assert "m1 → wn1: no-path" in sk("init", code=1).error
        done = sk("init", "--skip-checks", code=1)
        assert "wn1" in done.error
        others = {node["name"]: node["status"] for node in sk.json("node", "ls")}
        assert others["wn2"] == "ready"
    finally:
        lab.shell("wn1", f"iptables -D INPUT {rule}")
    sk("init")
    assert {node["status"] for node in sk.json("node", "ls")} == {"ready"}


@ALL_OF_IT
def test_a_package_manager_that_is_busy_is_waited_for(
    sk: Swarmkit, machines: Callable[[int], Lab], inventory: Callable[..., Path]
) -> None:
    grown = machines(6)
    path = inventory(m1={})
    document = yaml.safe_load(path.read_text())
    node = grown.nodes["wn5"]
    reached = {"name": "wn5", "port": node["ssh_port"], "private_address": node["address"]}
    document["workers"] = [document["managers"][0] | reached]
    path.write_text(yaml.safe_dump(document))
    # As dpkg itself locks it (fcntl); on a machine that has no engine yet.
    hold = (
        'open(F, ">>", "/var/lib/dpkg/lock-frontend"); '
        'my $lock = pack("s s x![l!] l! l! i x4", 1, 0, 0, 0, 0); fcntl(F, 6, $lock) or die "$!"; sleep 20'
    )
    grown.shell("wn5", f"command -v dockerd && exit 1; systemd-run -q perl -e '{hold}'")
    begun = time.monotonic()
    assert "holds apt's lock; installing will wait for it" in sk("init").stderr
    assert time.monotonic() - begun > 15
    assert sk.json("init")["changed"] == 0
    sk("reset")
