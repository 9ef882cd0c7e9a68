"""Machines that are not as they should be: each is named, with what to do, and hides no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from swarmkit.cluster import links
from swarmkit.cluster.ports import release
from swarmkit.inventory import load
from swarmkit.remote import Fleet
from tests.conftest import Swarmkit
from tests.e2e.conftest import Lab


@pytest.fixture(scope="module")
def lab(machines: Callable[[int], Lab]) -> Lab:
    # The fifth has never been touched by another test.
    return machines(5)


@pytest.fixture
def sk(lab: Lab) -> Swarmkit:
    return lab.swarmkit


def private_key(folder: Path) -> Path:
    """A key that no machine knows."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    path = folder / "stranger"
    path.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    )
    path.chmod(0o600)
    return path


def test_every_host_that_cannot_be_entered_is_named_with_its_reason(
    lab: Lab, sk: Swarmkit, inventory: Callable[..., Path], tmp_path: Path
) -> None:
    path = inventory(
        m1={}, wn1={"port": 1}, wn2={"key": str(private_key(tmp_path))}, wn3={"key": None, "user": "nobody"}
    )
    no_keys = {"HOME": str(tmp_path), "SSH_AUTH_SOCK": ""}
    error = sk("init", inventory=path, code=3, environment=no_keys).error
    assert "wn1: swarmkit@127.0.0.1:1: connection refused" in error
    assert "wn2: swarmkit@127.0.0.1" in error
    assert "permission denied with the key" in error
    assert "wn3: nobody@127.0.0.1" in error
    assert "permission denied with the keys of your agent and ~/.ssh" in error
    document = sk("init", "-o", "json", inventory=path, code=3).json
    assert {each["where"] for each in document["errors"]} == {"wn1", "wn2", "wn3"}


def test_an_unknown_host_key_is_shown_and_can_be_accepted(
    lab: Lab, sk: Swarmkit, inventory: Callable[..., Path], tmp_path: Path
) -> None:
    known_hosts = tmp_path / "known_hosts"
    path = inventory(known_hosts, m1={}, wn1={})
    fingerprint = lab.shell("wn1", "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub").split()[1]
    error = sk("init", "--dry-run", inventory=path, code=3).error
    assert f"unknown host key ssh-ed25519 {fingerprint}" in error
    assert "--accept-host-keys" in error
    sk("init", "--dry-run", "--accept-host-keys", inventory=path)
    assert len(known_hosts.read_text().splitlines()) == 2
    sk("init", "--dry-run", inventory=path)


def test_a_host_key_that_has_changed_is_refused_whatever_the_user_accepts(
    lab: Lab, sk: Swarmkit, inventory: Callable[..., Path], tmp_path: Path
) -> None:
    lines = (lab.inventory.parent / "known_hosts").read_text().splitlines()
    ports = {name: f"[127.0.0.1]:{node['ssh_port']}" for name, node in lab.nodes.items()}
    keys = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines if line.strip()}
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(f"{ports['m1']} {keys[ports['m1']]}\n{ports['wn1']} {keys[ports['wn2']]}\n")
    path = inventory(known_hosts, m1={}, wn1={})
    error = sk("init", "--accept-host-keys", inventory=path, code=3).error
    assert "the host key has changed" in error
    assert f"ssh-keygen -R '{ports['wn1']}'" in error


@pytest.fixture
def logins(lab: Lab) -> Iterator[None]:
    """Users on the first machine: one that may not become root, one that needs a password for it."""
    lab.shell(
        "m1",
        """set -e
        for user in outsider typist; do
          id $user >/dev/null 2>&1 || useradd -m -s /bin/bash $user
          install -d -m 700 -o $user /home/$user/.ssh
          install -m 600 -o $user ~swarmkit/.ssh/authorized_keys /home/$user/.ssh/authorized_keys
        done
        echo 'typist:correct horse' | chpasswd
        echo 'typist ALL=(ALL) ALL' >/etc/sudoers.d/typist""",
    )
    yield
    lab.shell(
        "m1", "rm /etc/sudoers.d/typist; userdel -r outsider 2>/dev/null; userdel -r typist 2>/dev/null; true"
    )


def test_a_user_who_may_not_become_root_is_told_how_to_allow_it(
    sk: Swarmkit, inventory: Callable[..., Path], logins: None
) -> None:
    error = sk("init", inventory=inventory(m1={"user": "outsider"}), code=3).error
    assert "m1: outsider may not become root" in error
    assert "/etc/sudoers.d/swarmkit" in error


def test_a_user_who_needs_a_password_for_sudo_forms_a_swarm_too(
    lab: Lab, sk: Swarmkit, inventory: Callable[..., Path], logins: None
) -> None:
    path = inventory(m1={"user": "typist"})
    assert "a password is required" in sk("init", inventory=path, code=3).error
    wrong = sk("init", inventory=path, environment={"SWARMKIT_SUDO_PASSWORD": "wrong"}, code=3)
    assert "sudo does not accept the password" in wrong.error
    failures = lab.shell("m1", "journalctl -o cat | grep -c 'authentication failure.*typist' || true")
    assert failures.strip() == "1"
    right = {"SWARMKIT_SUDO_PASSWORD": "correct horse"}
    assert "1 node is ready" in sk("init", inventory=path, environment=right).stdout
    assert "m1" in sk("status", inventory=path, environment=right).stdout
    sk("reset", inventory=path, environment=right)
    assert "correct horse" not in lab.shell("m1", "journalctl -o cat")


def test_a_system_that_swarmkit_cannot_install_on_is_named(
    lab: Lab, sk: Swarmkit, inventory: Callable[..., Path]
) -> None:
    name = "wn4"
    lab.shell(
        name,
        "cp --remove-destination /etc/os-release /etc/os-release.real\n"
        "printf 'ID=alpine\\nPRETTY_NAME=\"Alpine Linux v3.22\"\\n' >/etc/os-release.new\n"
        "mv /etc/os-release.new /etc/os-release",
    )
    try:
        error = sk("init", inventory=inventory(m1={}, **{name: {}}), code=2).error
    finally:
        lab.shell(name, "mv /etc/os-release.real /etc/os-release")
    assert "wn4: Alpine Linux v3.22 is not a system that swarmkit can install Docker on" in error
    assert "install the Docker Engine" in error


def test_a_machine_in_another_swarm_is_left_alone_unless_it_is_taken_over(
    lab: Lab, sk: Swarmkit, inventory: Callable[..., Path]
) -> None:
    sk("init", inventory=inventory(wn1={}))
    path = inventory(m1={}, wn1={})
    error = sk("init", inventory=path, code=2).error
    assert "wn1: Docker there is already in another swarm" in error
    assert "inactive" in lab.shell("m1", "docker info --format '{{.Swarm.LocalNodeState}}' || echo inactive")
    sk("init", "--take-over", inventory=path)
    assert {node["name"] for node in sk.json("node", "ls", inventory=path)} == {"m1", "wn1"}
    sk("reset", inventory=path)


def test_managers_join_in_parallel(lab: Lab, sk: Swarmkit, inventory: Callable[..., Path]) -> None:
    path = inventory(m1={}, wn1={}, wn2={})
    document = yaml.safe_load(path.read_text())
    document["managers"] += document.pop("workers")
    path.write_text(yaml.safe_dump(document))
    sk("init", inventory=path)
    assert {node["role"] for node in sk.json("node", "ls", inventory=path)} == {"manager"}
    sk("leave", "wn2", inventory=path)
    assert {node["name"] for node in sk.json("node", "ls", inventory=path)} == {"m1", "wn1"}
    assert "wn2" not in path.read_text()
    sk("reset", inventory=path)


@pytest.fixture
def kept_gossip(lab: Lab, sk: Swarmkit, inventory: Callable[..., Path]) -> Iterator[None]:
    """An engine, in no swarm, whose port 7946 is open until it is restarted.

    The true fault comes about once in forty leavings, by chance (see swarmkit.cluster.ports): here
    another program of the engine's name has the port, and the engine's unit ends it.
    """
    path = inventory(m1={}, wn1={})
    sk("init", inventory=path)
    sk("reset", inventory=path)
    lab.shell(
        "wn1",
        """set -e
        mkdir -p /etc/systemd/system/docker.service.d
        printf '[Service]\\nExecStartPre=-/usr/bin/pkill -f keeps-gossi[p]\\n' \\
          >/etc/systemd/system/docker.service.d/gossip.conf
        systemctl daemon-reload
        cp "$(command -v perl)" /usr/local/lib/dockerd
        setsid /usr/local/lib/dockerd -MIO::Socket::INET -e \\
          'my $port = IO::Socket::INET->new(Listen => 1, LocalPort => 7946, ReuseAddr => 1)
            or die; sleep 300' keeps-gossip \\
          >/dev/null 2>&1 &
        for i in $(seq 50); do ss -Hlnt 'sport = :7946' | grep -q . && exit 0; sleep 0.1; done; exit 1""",
    )
    yield
    lab.shell(
        "wn1",
        "pkill -f keeps-gossi[p]; rm /usr/local/lib/dockerd; "
        "rm /etc/systemd/system/docker.service.d/gossip.conf; "
        "systemctl daemon-reload",
    )


def test_a_check_of_ports_that_was_interrupted_stops_no_command(
    lab: Lab, sk: Swarmkit, inventory: Callable[..., Path]
) -> None:
    program = Path(links.__file__).with_name("links.pl").read_text()
    script = f"perl - listen /run/swarmkit-links.test 60 test 7946 <<'END'\n{program}\nEND"
    with Fleet(load(lab.inventory)) as fleet:
        # It ends with this connection.
        host = next(host for host in fleet.inventory.hosts if host.name == "wn1")
        assert fleet.connection(host).run(script).checked("listening").strip() == "ready"
        assert "perl" in lab.shell("wn1", "ss -Hlntp 'sport = :7946'")
        sk("init", "--dry-run", inventory=inventory(m1={}, wn1={}))


def test_a_leaving_ends_when_the_port_of_overlay_traffic_is_free(lab: Lab) -> None:
    # The engine lets go of it within a second or two, which none can be made to prolong: here perl has it.
    lab.shell(
        "wn1",
        f"""set -e
        perl -MIO::Socket::INET -e 'my $port = IO::Socket::INET->new(Proto => "udp", LocalPort => 4799)
          or die; sleep 2' & holder=$!
        for i in $(seq 50); do ss -Hlnu 'sport = :4799' | grep -q . && break; sleep 0.1; done
        ( {release(4799)} )
        ! kill -0 $holder""",
    )


def test_an_engine_that_keeps_the_gossip_of_a_swarm_it_left_is_restarted(
    lab: Lab, sk: Swarmkit, inventory: Callable[..., Path], kept_gossip: None
) -> None:
    path = inventory(m1={}, wn1={})
    steps = sk.json("init", "--dry-run", inventory=path)["actions"]
    assert [each["host"] for each in steps if "keeps port 7946" in each["action"]] == ["wn1"]
    sk("init", inventory=path)
    assert {node["name"] for node in sk.json("node", "ls", inventory=path)} == {"m1", "wn1"}
    assert "dockerd" in lab.shell("wn1", "ss -Hlntp 'sport = :7946'")
    sk("reset", inventory=path)
