"""A first inventory file, from words or from Vagrant; its schema; addresses."""

from __future__ import annotations

import os
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from swarmkit.errors import Problems, UsageError
from swarmkit.inventory import Host, Role, load
from swarmkit.inventory.addresses import interfaces, on_common_network, swarm_address
from swarmkit.inventory.create import Draft, write
from swarmkit.inventory.generate import Entry, from_vagrant, from_words, text
from swarmkit.inventory.schema import schema
from swarmkit.resources import folder
from tests.conftest import Swarmkit

VAGRANT = """\
Host m1
  HostName 127.0.0.1
  User vagrant
  Port 2222
  UserKnownHostsFile /dev/null
  StrictHostKeyChecking no
  PasswordAuthentication no
  IdentityFile "/home/me/my lab/.vagrant/machines/m1/virtualbox/private_key"
  IdentitiesOnly yes
  LogLevel FATAL

Host w1
  HostName 127.0.0.1
  User vagrant
  Port 2200
  IdentityFile /home/me/insecure
  IdentitiesOnly yes
"""


def test_the_first_machines_are_managers_and_each_has_a_name(tmp_path: Path) -> None:
    entries = from_words(
        ["debian@203.0.113.5", "gpu.example.org:2222", "gpu.example.net", "root@[fd00::7]", "w1"], managers=2
    )
    assert [(one.name, one.role.value, one.address, one.user, one.port) for one in entries] == [
        ("m1", "manager", "203.0.113.5", "debian", None),
        ("gpu.example.org", "manager", "gpu.example.org", None, 2222),
        ("gpu.example.net", "worker", "gpu.example.net", None, None),
        ("w2", "worker", "fd00::7", "root", None),
        ("w1", "worker", "w1", None, None),
    ]


@pytest.mark.parametrize("managers", [0, 3])
def test_there_are_as_many_managers_as_machines_at_most(managers: int) -> None:
    with pytest.raises(UsageError, match="--managers is from 1 to 2"):
        from_words(["a", "b"], managers=managers)


def test_all_bad_words_are_reported_at_once() -> None:
    with pytest.raises(Problems) as raised:
        from_words(["a b", "x:99999", "me@c", "you@c"], managers=1)
    assert [str(error) for error in raised.value.errors] == [
        'expected USER@HOST[:PORT], got "a b"',
        'expected USER@HOST[:PORT], got "x:99999"',
        "you@c is the same machine as another",
    ]


def test_what_machines_have_in_common_stands_once(tmp_path: Path) -> None:
    path = tmp_path / "inventory.yml"
    write(Draft("physics", str(path), from_words(["me@10.0.0.1", "me@10.0.0.2"], managers=1)), force=False)
    assert "defaults: {user: me}" in path.read_text()
    inventory = load(path)
    assert inventory.cluster == "physics"
    assert [(host.name, host.user, host.private_address) for host in inventory.hosts] == [
        ("m1", "me", "10.0.0.1"),
        ("w1", "me", "10.0.0.2"),
    ]


def test_a_file_that_is_there_is_written_over_only_by_force(tmp_path: Path) -> None:
    path = tmp_path / "inventory.yml"
    path.write_text("mine")
    draft = Draft("swarm", str(path), from_words(["10.0.0.1"], managers=1))
    with pytest.raises(UsageError, match="there is a file already"):
        write(draft, force=False)
    assert path.read_text() == "mine"
    write(draft, force=True)
    assert load(path).hosts[0].address == "10.0.0.1"


def test_what_would_not_be_valid_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "inventory.yml"
    entries = from_words(["10.0.0.1"], managers=1, key=str(tmp_path / "none"))
    with pytest.raises(UsageError, match="cannot be read"):
        write(Draft("swarm", str(path), entries), force=False)
    assert not path.exists()


def test_vagrant_s_machines_keep_their_names_ports_and_keys() -> None:
    assert from_vagrant(VAGRANT, managers=1) == [
        Entry(
            "m1",
            "127.0.0.1",
            Role.MANAGER,
            "vagrant",
            2222,
            "/home/me/my lab/.vagrant/machines/m1/virtualbox/private_key",
        ),
        Entry("w1", "127.0.0.1", Role.WORKER, "vagrant", 2200, "/home/me/insecure"),
    ]


@pytest.mark.parametrize("output", ["", "not a config", "Host *\n  User me\n"])
def test_what_is_not_vagrant_s_is_refused(output: str) -> None:
    with pytest.raises(UsageError, match="vagrant ssh-config"):
        from_vagrant(output, managers=1)


def test_vagrant_is_asked_where_the_command_runs(tmp_path: Path, swarmkit: Swarmkit) -> None:
    vagrant = tmp_path / "vagrant"
    vagrant.write_text(f'#!/bin/sh\n[ "$*" = ssh-config ] && cat <<"E"\n{VAGRANT}E\n')
    vagrant.chmod(0o700)
    here = Swarmkit({**swarmkit.environment, "PATH": f"{tmp_path}:{os.environ['PATH']}"}, folder=tmp_path)
    here("inventory", "init", "--from-vagrant", "--no-probe", "--cluster", "boxes")
    assert yaml.safe_load((tmp_path / "inventory.yml").read_text())["cluster"] == "boxes"

    vagrant.write_text("#!/bin/sh\necho 'no Vagrantfile' >&2; exit 1\n")
    failed = here("inventory", "init", "--from-vagrant", "--file", "-", code=1).error
    assert "vagrant ssh-config failed with status 1" in failed
    assert "no Vagrantfile" in failed


def test_machines_on_the_loopback_are_said_to_need_private_addresses(
    tmp_path: Path, swarmkit: Swarmkit
) -> None:
    (tmp_path / "config").write_text(VAGRANT)
    done = swarmkit(
        "inventory",
        "init",
        "--vagrant-config",
        str(tmp_path / "config"),
        "--no-probe",
        "--file",
        "-",
    )
    assert "every machine needs a `private_address:`" in done.stderr
    assert yaml.safe_load(done.stdout)["workers"][0]["port"] == 2200


@given(st.text(min_size=1, max_size=40).filter(lambda key: key.isprintable()))
def test_any_key_s_path_is_read_back_as_it_is(key: str) -> None:
    made = text("c", [Entry("m", "a", Role.MANAGER, key=key)])
    assert yaml.safe_load(made)["managers"][0]["key"] == key.replace("$", "$$")


def test_the_network_that_all_share_is_chosen() -> None:
    found = {
        name: interfaces(
            f"eth0 10.0.2.15/24\ndocker0 172.17.0.1/16\nbr-1234 172.18.0.1/16\n"
            f"eth1 192.168.56.{last}/24\neth2 10.9.{last}.1/24\n"
        )
        for name, last in (("m1", 11), ("w1", 12))
    }
    assert on_common_network(found) == {"m1": "192.168.56.11", "w1": "192.168.56.12"}
    assert on_common_network({"m1": [IPv4Interface("10.0.0.1/24")], "w1": []}) == {}
    assert on_common_network({}) == {}


def test_vagrant_s_own_network_is_not_chosen_where_another_is_shared() -> None:
    found = {
        name: interfaces(f"eth0 172.17.0.{last}/16\neth1 192.168.56.{last}/24\n")
        for name, last in (("m1", 11), ("w1", 12))
    }
    assert on_common_network(found) == {"m1": "192.168.56.11", "w1": "192.168.56.12"}


def test_the_swarm_s_address_is_the_inventory_s_or_that_of_the_name() -> None:
    host = Host("m", "m.lan", "me", private_address="m.lan")
    assert swarm_address(Host("m", "a", "me", private_address="10.0.0.1"), []) == "10.0.0.1"
    own = ["127.0.0.1", "10.0.0.5", "192.0.2.5"]
    assert swarm_address(host, own, lambda _: ["192.0.2.5"]) == "192.0.2.5"
    assert swarm_address(host, own[:2], lambda _: ["203.0.113.1"]) == "10.0.0.5"
    with pytest.raises(UsageError, match=r"m\.lan stands for 203\.0\.113\.1, and the machine has 127"):
        swarm_address(host, own, lambda _: ["203.0.113.1"])


@pytest.fixture
def validator() -> Any:
    jsonschema = pytest.importorskip("jsonschema")
    made = schema()
    jsonschema.Draft202012Validator.check_schema(made)
    return jsonschema.Draft202012Validator(made)


@pytest.mark.parametrize("path", sorted(folder("inventories").glob("*.yml")), ids=lambda path: path.name)
def test_the_examples_are_valid_by_the_schema_and_by_the_loader(
    path: Path, validator: Any, tmp_path: Path
) -> None:
    assert list(validator.iter_errors(yaml.safe_load(path.read_text()))) == []
    for name in ("m1", "wn1", "wn2"):
        key = tmp_path / "machines" / name / "virtualbox" / "private_key"
        key.parent.mkdir(parents=True)
        key.touch(mode=0o600)
    assert load(path, environment={"VAGRANT_DOTFILE_PATH": str(tmp_path)}).managers


@pytest.mark.parametrize(
    ("document", "is_valid"),
    [
        ({"managers": [{"name": "m", "address": "a", "port": "${PORT:-22}", "labels": {"x": 1}}]}, True),
        ({"managers": [{"name": "m", "address": "a", "connection": "local"}], "workers": None}, True),
        ({"managers": [{"name": "m", "address": "a", "port": "ssh"}]}, False),
        ({"managers": [{"name": "m", "address": "a", "adress": "b"}]}, False),
        ({"managers": []}, False),
        ({}, False),
    ],
)
def test_the_schema_tells_right_from_wrong(document: object, is_valid: bool, validator: Any) -> None:
    assert validator.is_valid(document) is is_valid


def test_every_key_of_the_schema_is_explained() -> None:
    made = schema()
    for part in [made, *made["$defs"].values()]:
        for name, each in part["properties"].items():
            assert each.get("description"), name
