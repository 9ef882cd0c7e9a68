"""Logging in on real SSH servers: keys, agents, gateways, host keys, and what runs there."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import paramiko
import pytest

from swarmkit.cluster.alone import alone
from swarmkit.errors import OperationFailed, SwarmkitError, Unreachable
from swarmkit.inventory import Inventory, load
from swarmkit.inventory.sshconfig import SshConfig
from swarmkit.remote import Connection, Finished, Fleet, openssh
from tests import sshd
from tests.conftest import Swarmkit, eventually
from tests.sshd import USER, Sshd
from tests.terminal import typed

pytestmark = pytest.mark.skipif(
    sshd.SSHD is None or shutil.which("ssh") is None, reason="no OpenSSH on this machine"
)


@pytest.fixture(autouse=True)
def user_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without the user's own keys, configuration and agent."""
    (tmp_path / ".ssh").mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in list(os.environ):
        if name.startswith("SWARMKIT_") or name == "SSH_AUTH_SOCK":
            monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def key(user_home: Path) -> Path:
    return sshd.keygen(user_home / "key")


@pytest.fixture
def serve(user_home: Path) -> Iterator[Callable[..., Sshd]]:
    """Starts a server by its name, which lets in the given keys; it is known to ~/.ssh/known_hosts."""
    running: list[Sshd] = []

    def start(name: str, *authorized: Path, known: bool = True, options: tuple[str, ...] = ()) -> Sshd:
        server = sshd.start(user_home, name, authorized, *options)
        running.append(server)
        if known:
            with (user_home / ".ssh/known_hosts").open("a") as out:
                out.write(server.known)
        return server

    yield start
    for server in running:
        server.stop()


def cluster(user_home: Path, text: str, config: str = "") -> Inventory:
    (user_home / ".ssh/config").write_text(config)
    path = user_home / "inventory.yml"
    # OpenSSH itself finds the user's home without $HOME.
    path.write_text(f"known_hosts: .ssh/known_hosts\n{dedent(text)}")
    return load(path, ssh_config=SshConfig((user_home / ".ssh/config",)))


def said(
    inventory: Inventory, script: str = "echo hello", *, accept_host_keys: bool = False
) -> dict[str, str]:
    """What a script prints on each host."""
    with Fleet(inventory, accept_host_keys=accept_host_keys) as fleet:
        return fleet.map(lambda host: fleet.connection(host).run(script).checked("a test")).all()


def problem(inventory: Inventory) -> SwarmkitError:
    with pytest.raises(SwarmkitError) as raised:
        said(inventory)
    return raised.value


def one(server: Sshd, **values: object) -> str:
    """An inventory of one machine."""
    entry = {"name": "m1", "address": "127.0.0.1", "port": server.port, **values}
    return f"managers: [{{{', '.join(f'{name}: {value}' for name, value in entry.items())}}}]\n"


def test_ssh_config_says_where_a_machine_is_and_with_which_keys(
    user_home: Path, key: Path, serve: Callable[..., Sshd]
) -> None:
    server = serve("m1", key)
    other = sshd.keygen(user_home / "other")
    inventory = cluster(
        user_home,
        "managers: [{name: m1, address: alias}]",
        f"Host alias\n  HostName 127.0.0.1\n  Port {server.port}\n  User {USER}\n"
        f"  IdentityFile {other}\n  IdentityFile {key}\n  StrictHostKeyChecking no\n",
    )
    assert said(inventory) == {"m1": "hello\n"}
    assert server.failures + server.log.count("Postponed") <= 2
    assert openssh.login(inventory, inventory.hosts[0], ["true"]) == 0


@pytest.mark.parametrize("how", ["inventory", "ssh_config"])
def test_every_machine_of_a_chain_of_gateways_is_reached_and_checked(
    user_home: Path, key: Path, serve: Callable[..., Sshd], how: str, capfd: pytest.CaptureFixture[str]
) -> None:
    outer, inner, target = serve("outer", key), serve("inner", key), serve("target", key)
    if how == "inventory":
        inventory = cluster(
            user_home,
            f"""\
            defaults: {{key: {key}}}
            gateways: [{{name: outer, address: 127.0.0.1, port: {outer.port}}}]
            managers: [{{name: inner, address: 127.0.0.1, port: {inner.port}, gateway: outer,
                         private_address: 10.0.0.1}}]
            workers: [{{name: target, address: 127.0.0.1, port: {target.port}, gateway: inner,
                        private_address: 10.0.0.2}}]
            """,
        )
    else:
        inventory = cluster(
            user_home,
            "managers: [{name: target, address: target}]",
            f"Host *\n  IdentityFile {key}\nHost target inner outer\n  HostName 127.0.0.1\n"
            f"Host target\n  Port {target.port}\n  ProxyJump 127.0.0.1:{outer.port},inner\n"
            f"Host inner\n  Port {inner.port}\n",
        )
    assert said(inventory)["target"] == "hello\n"
    assert (outer.logins, inner.logins, target.logins) == (1, 1, 1)
    machine = inventory.login("target")
    assert openssh.login(inventory, machine, ["echo", "by", "ssh  itself"]) == 0
    assert capfd.readouterr().out == "by ssh  itself\n"
    assert (outer.logins, inner.logins, target.logins) == (2, 2, 2)

    known = user_home / ".ssh/known_hosts"
    known.write_text(known.read_text().replace(inner.known, ""))
    error = problem(inventory)
    assert "unknown host key" in str(error)
    assert f"127.0.0.1:{inner.port}" in str(error)


def test_a_gateway_that_reaches_nothing_says_so_at_once(
    user_home: Path, key: Path, serve: Callable[..., Sshd]
) -> None:
    gate = serve("gate", key)
    inventory = cluster(
        user_home,
        f"defaults: {{key: {key}}}\ngateways: [{{name: gate, address: 127.0.0.1, port: {gate.port}}}]\n"
        "managers: [{name: m1, address: 127.0.0.1, port: 1, gateway: gate}]\n",
    )
    error = problem(inventory)
    assert str(error) == f"m1: {USER}@127.0.0.1:1: connect failed"
    assert error.hint.startswith("can gate reach 127.0.0.1:1?")


def test_a_gateway_that_cannot_be_entered_is_what_the_error_names(
    user_home: Path, key: Path, serve: Callable[..., Sshd]
) -> None:
    gate = serve("gate")
    inventory = cluster(
        user_home,
        f"defaults: {{key: {key}}}\ngateways: [{{name: gate, address: 127.0.0.1, port: {gate.port}}}]\n"
        "managers: [{name: m1, address: 127.0.0.1, port: 1, gateway: gate}]\n",
    )
    assert str(problem(inventory)).startswith(f"gate: {USER}@127.0.0.1:{gate.port}: permission denied")


def test_a_gateway_that_refuses_is_tried_once_for_all_behind_it(
    user_home: Path, key: Path, serve: Callable[..., Sshd]
) -> None:
    gate = serve("gate")
    workers = ", ".join(
        f"{{name: w{index}, address: 10.9.9.{index}, gateway: gate}}" for index in range(1, 9)
    )
    inventory = cluster(
        user_home,
        f"defaults: {{key: {key}}}\ngateways: [{{name: gate, address: 127.0.0.1, port: {gate.port}}}]\n"
        f"managers: [{{name: m1, address: 10.9.9.9, gateway: gate}}]\nworkers: [{workers}]\n",
    )
    start = threading.Barrier(9)
    with Fleet(inventory) as fleet:
        outcomes = fleet.map(lambda host: (start.wait(), fleet.connection(host).run("true")))
    assert len(outcomes.errors) == 9
    with pytest.raises(Unreachable, match=r"gate: .*permission denied"):
        outcomes.all()
    assert gate.log.count("Connection from") == 1
    for thread in threading.enumerate():
        if isinstance(thread, paramiko.Transport):
            thread.join(5)
            assert not thread.is_alive()


def test_a_proxycommand_of_ssh_config_is_used(user_home: Path, key: Path, serve: Callable[..., Sshd]) -> None:
    gate, target = serve("gate", key), serve("m1", key)
    inventory = cluster(
        user_home,
        one(target, key=key),
        f"Host 127.0.0.1\n  ProxyCommand ssh -F none -i {key} -p {gate.port} "
        f"-o UserKnownHostsFile={user_home}/.ssh/known_hosts -W %h:%p 127.0.0.1\n",
    )
    assert said(inventory) == {"m1": "hello\n"}
    assert gate.logins == 1
    assert openssh.login(inventory, inventory.hosts[0], ["true"]) == 0


@pytest.fixture
def agent(user_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path, str], None]]:
    """An agent; gives what adds a key with its passphrase to it."""
    started = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True).stdout
    values = dict(re.findall(r"(SSH_\w+)=([^;]+)", started))
    monkeypatch.setenv("SSH_AUTH_SOCK", values["SSH_AUTH_SOCK"])
    helper = user_home / "askpass"
    helper.write_text('#!/bin/sh\necho "$PASSPHRASE"\n')
    helper.chmod(0o700)

    def add(path: Path, passphrase: str) -> None:
        asking = {"SSH_ASKPASS": str(helper), "SSH_ASKPASS_REQUIRE": "force", "PASSPHRASE": passphrase}
        subprocess.run(["ssh-add", "-q", str(path)], check=True, env={**os.environ, **asking})

    yield add
    subprocess.run(["kill", values["SSH_AGENT_PID"]], check=True)


def test_an_encrypted_key_is_used_by_the_agent_that_holds_it(
    user_home: Path, serve: Callable[..., Sshd], agent: Callable[[Path, str], None]
) -> None:
    locked = sshd.keygen(user_home / "locked", "a passphrase")
    for index in range(7):
        agent(sshd.keygen(user_home / f"other{index}"), "")
    agent(locked, "a passphrase")
    # One attempt is allowed: only the key that was named is tried.
    server = serve("m1", locked, options=("MaxAuthTries 1",))
    assert said(cluster(user_home, one(server, key=locked))) == {"m1": "hello\n"}
    Path(f"{locked}.pub").unlink()
    assert said(cluster(user_home, one(server, key=locked))) == {"m1": "hello\n"}


def test_keys_of_the_agent_are_tried_where_none_is_named(
    user_home: Path, key: Path, serve: Callable[..., Sshd], agent: Callable[[Path, str], None]
) -> None:
    server = serve("m1", key)
    agent(key, "")
    assert said(cluster(user_home, one(server))) == {"m1": "hello\n"}


def test_the_passphrase_of_a_key_comes_from_the_environment_or_a_file(
    user_home: Path, serve: Callable[..., Sshd], monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = sshd.keygen(user_home / "locked", "a passphrase")
    inventory = cluster(user_home, one(serve("m1", locked), key=locked))
    error = problem(inventory)
    assert f"the SSH key {locked} is encrypted, and its passphrase is not known" in str(error)
    assert f"ssh-add {locked}" in error.hint

    monkeypatch.setenv("SWARMKIT_KEY_PASSPHRASE", "wrong")
    assert "the passphrase in SWARMKIT_KEY_PASSPHRASE does not open it" in str(problem(inventory))
    monkeypatch.setenv("SWARMKIT_KEY_PASSPHRASE", "a passphrase")
    assert said(inventory) == {"m1": "hello\n"}

    monkeypatch.delenv("SWARMKIT_KEY_PASSPHRASE")
    file = user_home / "passphrase"
    file.write_text("a passphrase\n")
    file.chmod(0o644)
    monkeypatch.setenv("SWARMKIT_KEY_PASSPHRASE_FILE", str(file))
    assert "can be read by others" in str(problem(inventory))
    file.chmod(0o600)
    assert said(inventory) == {"m1": "hello\n"}


def test_a_locked_default_key_is_named_where_nothing_else_opens_the_machine(
    user_home: Path, serve: Callable[..., Sshd]
) -> None:
    locked = sshd.keygen(user_home / ".ssh/id_ed25519", "a passphrase")
    error = problem(cluster(user_home, one(serve("m1", locked))))
    assert "permission denied with the keys of your agent and ~/.ssh" in str(error)
    assert f"{locked} is encrypted" in str(error)


def test_a_passphrase_is_asked_for_once_for_all_machines(
    user_home: Path, serve: Callable[..., Sshd], swarmkit: Swarmkit
) -> None:
    locked = sshd.keygen(user_home / "locked", "a passphrase")
    servers = [serve(name, locked) for name in ("m1", "w1", "w2")]
    entries = [
        f"{{name: {each.name}, address: 127.0.0.1, port: {each.port}, private_address: 10.0.0.{index + 1}}}"
        for index, each in enumerate(servers)
    ]
    inventory = cluster(
        user_home,
        f"defaults: {{key: {locked}}}\nmanagers: [{entries[0]}]\nworkers: [{', '.join(entries[1:])}]\n",
    )
    assert inventory.source is not None
    shown = typed(
        swarmkit.command("init", "--dry-run", inventory=inventory.source),
        {**swarmkit.environment, "HOME": str(user_home)},
        {"Passphrase for": "a passphrase"},
    )
    assert shown.count("Passphrase for") == 1, shown
    assert "a passphrase" not in shown
    assert [server.logins for server in servers] == [1, 1, 1], shown


def test_a_question_can_be_broken_off(
    user_home: Path, serve: Callable[..., Sshd], swarmkit: Swarmkit
) -> None:
    locked = sshd.keygen(user_home / "locked", "a passphrase")
    inventory = cluster(user_home, one(serve("m1", locked), key=locked))
    assert inventory.source is not None
    shown = typed(
        swarmkit.command("init", "--dry-run", inventory=inventory.source),
        {**swarmkit.environment, "HOME": str(user_home)},
        {"Passphrase for": "\x03"},
    )
    assert shown.endswith("exit 130"), shown


def test_what_is_no_ssh_server_is_called_so(user_home: Path, swarmkit: Swarmkit) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            server.accept()[0].close()

        threading.Thread(target=greet).start()
        path = user_home / "inventory.yml"
        path.write_text(f"managers: [{{name: m1, address: 127.0.0.1, port: {server.getsockname()[1]}}}]\n")
        # The fixture refuses a traceback, such as paramiko's log has.
        error = swarmkit("init", inventory=path, code=3).error
    assert "what answers there is no SSH server" in error


def test_both_outputs_of_a_script_arrive_however_much_there_is(
    user_home: Path, key: Path, serve: Callable[..., Sshd]
) -> None:
    inventory = cluster(user_home, one(serve("m1", key), key=key))
    # More than the window of an SSH channel (2 MiB) on the one while the other is still open.
    script = "head -c 6000000 /dev/zero >&2; echo done; exit 3"
    with Fleet(inventory) as fleet:
        finished = fleet.connection(inventory.hosts[0]).run(script, timeout=30)
    assert (finished.stdout, len(finished.stderr), finished.status) == ("done\n", 6000000, 3)


def test_silence_ends_a_script_and_any_output_does_not(
    user_home: Path, key: Path, serve: Callable[..., Sshd]
) -> None:
    inventory = cluster(user_home, one(serve("m1", key), key=key))
    with Fleet(inventory) as fleet:
        connection = fleet.connection(inventory.hosts[0])
        assert connection.run("for i in 1 2 3 4; do sleep 0.4; echo . >&2; done", timeout=1).status == 0
        with pytest.raises(OperationFailed, match="no output for"):
            connection.run("sleep 60", timeout=0.5)


def test_a_connection_that_is_dead_but_looks_open_is_made_again(
    user_home: Path, key: Path, serve: Callable[..., Sshd], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve("m1", key)
    inventory = cluster(user_home, one(server, key=key))
    with Fleet(inventory) as fleet:
        connection = fleet.connection(inventory.hosts[0])
        assert connection.run("true").status == 0
        # As where a laptop slept, or the machine's power was cut: nothing is closed, and nothing comes.
        listed = ["pgrep", "-P", str(server.process.pid)]
        sessions = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()
        try:
            for session in sessions:
                os.kill(int(session), signal.SIGSTOP)
            with monkeypatch.context() as patch:
                patch.setattr("swarmkit.remote.connection.CONNECT_SECONDS", 0.5)
                with pytest.raises(Unreachable, match="the connection broke"):
                    connection.run("true")
            assert connection.run("true").status == 0
            assert server.logins == 2
        finally:
            for session in sessions:
                os.kill(int(session), signal.SIGCONT)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="not a socket option of this system")
def test_the_kernel_gives_up_a_machine_that_confirms_nothing_any_more(
    user_home: Path, key: Path, serve: Callable[..., Sshd]
) -> None:
    inventory = cluster(user_home, one(serve("m1", key), key=key))
    with Fleet(inventory) as fleet:
        connection = fleet.connection(inventory.hosts[0])
        assert isinstance(connection, Connection)
        sock = connection.open().transport.sock
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000


def test_an_unknown_host_key_is_refused_or_recorded(
    user_home: Path, key: Path, serve: Callable[..., Sshd]
) -> None:
    server = serve("m1", key, known=False)
    known = user_home / ".ssh/known_hosts"
    # No end of its last line, a broken one, one that is no text, and a marker.
    known.write_bytes(b"@revoked * x y\nhost ssh-ed25519 AAAA!\nhost ssh-ed25519 \xff\nother ssh-rsa AAAA")
    inventory = cluster(user_home, one(server, key=key))
    assert isinstance(problem(inventory), Unreachable)
    assert said(inventory, accept_host_keys=True) == {"m1": "hello\n"}
    assert known.read_bytes().endswith(b"AAAA\n" + server.known.encode())
    assert said(inventory) == {"m1": "hello\n"}


def test_a_revoked_host_key_is_refused_though_it_is_known(
    user_home: Path, key: Path, serve: Callable[..., Sshd]
) -> None:
    server = serve("m1", key)
    with (user_home / ".ssh/known_hosts").open("a") as known:
        known.write(f"@revoked * {server.known.split(maxsplit=1)[1]}")
    inventory = cluster(user_home, one(server, key=key))
    with pytest.raises(Unreachable, match="is marked as revoked"):
        said(inventory, accept_host_keys=True)


def test_a_changed_host_key_is_refused(user_home: Path, key: Path, serve: Callable[..., Sshd]) -> None:
    server, other = serve("m1", key, known=False), serve("other", key, known=False)
    (user_home / ".ssh/known_hosts").write_text(other.known.replace(str(other.port), str(server.port)))
    inventory = cluster(user_home, one(server, key=key))
    with pytest.raises(Unreachable, match="the host key has changed"):
        said(inventory, accept_host_keys=True)


def test_work_on_a_machine_goes_on_when_its_caller_is_gone_and_the_next_waits_for_it(
    user_home: Path, key: Path, serve: Callable[..., Sshd]
) -> None:
    inventory = cluster(user_home, one(serve("m1", key), key=key, user=USER))
    trace, lock, go = user_home / "trace", str(user_home / "lock"), user_home / "go"
    # Talks while its caller is already gone, which must not end it.
    first = f"echo begun >>{trace}\nuntil [ -e {go} ]; do echo at work; sleep 0.05; done\necho done >>{trace}"
    with Fleet(inventory) as cut:
        caller = threading.Thread(
            target=lambda: cut.map(lambda host: cut.connection(host).run(alone(first, lock)))
        )
        caller.start()
        eventually(trace.exists, 20, "the first has begun")
    caller.join(20)
    with Fleet(inventory) as fleet:
        second = alone(f"echo second >>{trace}\necho out\necho err >&2\nexit 3", lock)
        found: list[Finished] = []
        waiting = threading.Thread(
            target=lambda: found.extend(
                fleet.map(lambda host: fleet.connection(host).run(second)).all().values()
            )
        )
        waiting.start()
        eventually(lambda: "flock" in processes(), 20, "the second waits")
        assert trace.read_text() == "begun\n"
        go.touch()
        waiting.join(20)
    assert trace.read_text() == "begun\ndone\nsecond\n"
    assert [(one.stdout, one.stderr, one.status) for one in found] == [("out\n", "err\n", 3)]


def processes() -> str:
    """The names of all processes."""
    return subprocess.run(["ps", "-eo", "comm="], capture_output=True, text=True, check=True).stdout
