"""What the user's ssh_config adds to an inventory, and what wins where both speak."""

from __future__ import annotations

import getpass
from pathlib import Path
from textwrap import dedent

import pytest

from swarmkit.errors import UsageError
from swarmkit.inventory import Inventory, load
from swarmkit.inventory.sshconfig import SshConfig


def loaded(tmp_path: Path, config: str, inventory: str) -> Inventory:
    ssh = tmp_path / "ssh_config"
    ssh.write_text(dedent(config))
    path = tmp_path / "inventory.yml"
    path.write_text(dedent(inventory))
    return load(path, ssh_config=SshConfig((ssh,)))


def route(inventory: Inventory, name: str) -> list[str]:
    """The machines on the way to `name`, the first that is connected to first."""
    machine = inventory.login(name)
    before = route(inventory, machine.gateway) if machine.gateway else []
    return [*before, machine.destination]


def test_a_host_of_ssh_config_is_an_address(tmp_path: Path) -> None:
    inventory = loaded(
        tmp_path,
        """\
        Host node*
          HostName %h.example.org
          User debian
          Port 2222
          IdentityFile ~/.ssh/one
          IdentityFile "/keys/the other"
          IdentitiesOnly yes
        """,
        "managers: [{name: m, address: node1}]",
    )
    (host,) = inventory.hosts
    assert host.destination == "debian@node1.example.org:2222"
    assert host.keys == (Path("~/.ssh/one").expanduser(), Path("/keys/the other"))
    assert host.only_identities
    assert host.private_address == "node1.example.org"


def test_the_inventory_wins_then_its_defaults_then_ssh_config(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("")
    key.chmod(0o600)
    inventory = loaded(
        tmp_path,
        "Host *\n  User config\n  Port 1\n  IdentityFile /config\n",
        f"""\
        defaults: {{user: default, key: {key}}}
        managers: [{{name: m, address: a, user: own}}, {{name: n, address: b}}]
        """,
    )
    assert [host.destination for host in inventory.hosts] == ["own@a:1", "default@b:1"]
    assert [host.keys for host in inventory.hosts] == [(key,), (key,)]


def test_without_ssh_config_it_is_oneself_on_port_22(tmp_path: Path) -> None:
    inventory = loaded(tmp_path, "# nothing\n", "managers: [{name: m, address: a}]")
    assert inventory.hosts[0].destination == f"{getpass.getuser()}@a:22"


def test_a_proxyjump_becomes_a_chain_of_gateways(tmp_path: Path) -> None:
    inventory = loaded(
        tmp_path,
        """\
        Host deep
          User me
          ProxyJump jump@first:2201,second
        Host second
          HostName 10.9.9.9
          User two
          ProxyJump nowhere
        Host first
          ProxyJump zero
        Host zero
          User nought
        """,
        "managers: [{name: m, address: deep}]",
    )
    assert route(inventory, "m") == ["nought@zero:22", "jump@first:2201", "two@10.9.9.9:22", "me@deep:22"]


def test_a_proxyjump_for_all_does_not_jump_through_itself(tmp_path: Path) -> None:
    inventory = loaded(
        tmp_path,
        "Host *\n  User me\n  ProxyJump bastion\n",
        "managers: [{name: m, address: a}]",
    )
    assert route(inventory, "m") == ["me@bastion:22", "me@a:22"]


def test_a_proxyjump_in_a_circle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ProxyJump goes in a circle: a → b → c → b"):
        loaded(
            tmp_path,
            "Host a\n  ProxyJump b\nHost b\n  ProxyJump c\nHost c\n  ProxyJump b\n",
            "managers: [{name: m, address: a}]",
        )


def test_a_jump_that_is_a_machine_of_the_inventory_is_that_machine(tmp_path: Path) -> None:
    inventory = loaded(
        tmp_path,
        "Host *\n  User me\nHost inner\n  ProxyJump outer\nHost outer\n  HostName 192.0.2.1\n",
        "managers: [{name: m, address: outer}]\nworkers: [{name: w, address: inner}]",
    )
    assert inventory.hosts[1].gateway == "m"
    assert inventory.gateways == ()


def test_a_gateway_of_the_inventory_wins_over_a_proxyjump_and_null_over_both(tmp_path: Path) -> None:
    inventory = loaded(
        tmp_path,
        "Host *\n  User me\nHost a b c\n  ProxyJump other\n",
        """\
        defaults: {gateway: gate}
        gateways: [{name: gate, address: g}]
        managers: [{name: a, address: a}, {name: b, address: b, gateway: null}]
        workers: [{name: c, address: c, gateway: a}]
        """,
    )
    assert route(inventory, "a") == ["me@g:22", "me@a:22"]
    assert route(inventory, "b") == ["me@b:22"]
    assert route(inventory, "c") == ["me@g:22", "me@a:22", "me@c:22"]


def test_a_proxycommand_is_filled_in_with_what_the_inventory_says(tmp_path: Path) -> None:
    inventory = loaded(
        tmp_path,
        "Host a\n  HostName 10.0.0.1\n  Port 1\n  ProxyCommand nc -X connect %h %p %r 100%%\n",
        "managers: [{name: m, address: a, port: 2, user: u}]",
    )
    assert inventory.hosts[0].proxy_command == "nc -X connect 10.0.0.1 2 u 100%"


def test_included_files_are_read_where_they_are_included(tmp_path: Path) -> None:
    (tmp_path / "a.conf").write_text("Host m1\n  User first\n")
    (tmp_path / "b.conf").write_text("User second\n")
    inventory = loaded(
        tmp_path,
        f"Include {tmp_path}/*.conf\nPort 7\nHost m1\n  User late\n  HostName 10.0.0.1\n",
        "managers: [{name: m1, address: m1}, {name: m2, address: m2}]",
    )
    assert [host.destination for host in inventory.hosts] == ["first@10.0.0.1:7", "second@m2:7"]


def test_files_that_include_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="without end"):
        loaded(tmp_path, f"Include {tmp_path}/ssh_config\n", "managers: [{name: m, address: a}]")


@pytest.mark.parametrize("config", ["Host a\n  Port ssh\n", "Nonsense\n", "Host 'a\n"])
def test_a_broken_ssh_config_is_named(tmp_path: Path, config: str) -> None:
    with pytest.raises(UsageError) as raised:
        loaded(tmp_path, config, "managers: [{name: m, address: a}]")
    assert raised.value.where == str(tmp_path / "ssh_config")
