"""A lab's key, known hosts and inventory."""

from __future__ import annotations

import stat
from pathlib import Path

import paramiko
import pytest

from swarmkit.errors import OperationFailed
from swarmkit.inventory import Role, load
from swarmkit.lab.folder import Folder
from swarmkit.lab.models import Node

NODES = [
    Node("m1", Role.MANAGER, "172.16.5.11", 22001, 8081),
    Node("wn1", Role.WORKER, "172.16.5.12", 22002),
]
THIRD = Node("wn2", Role.WORKER, "172.16.5.13", 22003)
KEYS = {"m1": "ssh-ed25519 AAAA1", "wn1": "ssh-ed25519 AAAA2"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.setenv("SWARMKIT_HOME", str(tmp_path / "home"))
    made = Folder("test")
    made.public_key(may_create=True)
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_key_is_openssh_s_and_nobody_else_s(folder: Folder) -> None:
    key = paramiko.Ed25519Key.from_private_key_file(str(folder.key))
    line = folder.public_key(may_create=False)
    assert line.split()[:2] == ["ssh-ed25519", key.get_base64()]
    assert folder.key.with_suffix(".pub").read_text() == f"{line}\n"
    assert (mode(folder.key), mode(folder.path)) == (0o600, 0o700)


def test_a_lost_public_key_is_written_again_and_a_lost_private_key_is_an_error(folder: Folder) -> None:
    folder.key.with_suffix(".pub").unlink()
    folder.public_key(may_create=False)
    assert folder.key.with_suffix(".pub").exists()
    folder.key.unlink()
    with pytest.raises(OperationFailed) as caught:
        folder.public_key(may_create=False)
    assert "lab down" in caught.value.hint
    assert not folder.key.exists()


def test_a_broken_key_is_an_error_that_names_it(folder: Folder) -> None:
    folder.key.write_text("nonsense")
    with pytest.raises(OperationFailed) as caught:
        folder.public_key(may_create=True)
    assert caught.value.where == str(folder.key)


def test_the_inventory_describes_every_node(folder: Folder) -> None:
    folder.record(NODES, KEYS)
    inventory = load(folder.inventory)
    assert inventory.cluster == "test"
    assert inventory.entry == "http://127.0.0.1:8081"
    assert inventory.known_hosts == folder.known_hosts
    assert [host.name for host in inventory.managers] == ["m1"]
    for node, host in zip(NODES, inventory.hosts, strict=True):
        assert (host.name, host.role, host.private_address) == (node.name, node.role, node.address)
        assert (host.user, host.address, host.port) == ("swarmkit", "127.0.0.1", node.ssh_port)
        assert host.key == folder.key


@pytest.mark.parametrize("name", ["no", "123", "1e3", "null"])
def test_a_name_that_yaml_would_take_for_something_else_stays_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("SWARMKIT_HOME", str(tmp_path))
    folder = Folder(name)
    folder.public_key(may_create=True)
    folder.record(NODES, KEYS)
    assert load(folder.inventory).cluster == name


def test_a_lab_of_managers_alone_has_an_inventory(folder: Folder) -> None:
    folder.record(NODES[:1], KEYS)
    assert [host.name for host in load(folder.inventory).hosts] == ["m1"]
    folder.record(NODES, {"wn1": KEYS["wn1"]})
    assert [host.name for host in load(folder.inventory).hosts] == ["m1", "wn1"]


def test_a_new_node_is_added_and_what_the_user_wrote_stays(folder: Folder) -> None:
    folder.record(NODES, KEYS)
    text = folder.inventory.read_text().replace("22002,", "22002, labels: {disk: ssd},")
    folder.inventory.write_text(f"{text}  # my own words\n")
    folder.record([*NODES, THIRD], {"wn2": "ssh-ed25519 AAAA3"})
    changed = folder.inventory.read_text()
    assert changed.startswith(text.splitlines()[0])
    assert "# my own words" in changed
    inventory = load(folder.inventory)
    assert [host.name for host in inventory.hosts] == ["m1", "wn1", "wn2"]
    assert inventory.hosts[1].labels == {"disk": "ssd"}


def test_a_node_that_was_taken_out_of_the_inventory_stays_out(folder: Folder) -> None:
    folder.record([*NODES, THIRD], {**KEYS, "wn2": "ssh-ed25519 AAAA3"})
    lines = folder.inventory.read_text().splitlines(keepends=True)
    folder.inventory.write_text("".join(line for line in lines if "wn1" not in line))
    fourth = Node("wn3", Role.WORKER, "172.16.5.14", 22004)
    folder.record([*NODES, THIRD, fourth], {"wn3": "ssh-ed25519 AAAA4"})
    assert [host.name for host in load(folder.inventory).hosts] == ["m1", "wn2", "wn3"]


def test_a_node_made_anew_on_another_port_takes_the_place_of_the_old(folder: Folder) -> None:
    folder.record(NODES, KEYS)
    again = Node("wn1", Role.WORKER, "172.16.5.12", 22009)
    folder.record([NODES[0], again], {"wn1": "ssh-ed25519 AAAA9"})
    assert [(host.name, host.port) for host in load(folder.inventory).hosts] == [
        ("m1", 22001),
        ("wn1", 22009),
    ]


def test_known_hosts_hold_one_line_a_node(folder: Folder) -> None:
    folder.record(NODES, KEYS)
    assert folder.known_hosts.read_text() == (
        "[127.0.0.1]:22001 ssh-ed25519 AAAA1\n[127.0.0.1]:22002 ssh-ed25519 AAAA2\n"
    )
    assert folder.knows(NODES[0])
    assert not folder.knows(THIRD)
    folder.forget_others(NODES[:1])
    assert folder.known_hosts.read_text() == "[127.0.0.1]:22001 ssh-ed25519 AAAA1\n"


def test_a_removed_folder_leaves_nothing(folder: Folder) -> None:
    folder.record(NODES, KEYS)
    assert Folder.names() == ["test"]
    assert folder.remove()
    assert not folder.remove()
    assert Folder.names() == []
