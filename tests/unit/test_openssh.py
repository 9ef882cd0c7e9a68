"""The `ssh` command line that `swarmkit ssh` runs."""

from __future__ import annotations

from pathlib import Path

from swarmkit.inventory import Gateway, Host, Inventory
from swarmkit.remote.openssh import command

BASTION = Gateway("bastion", "gate.example.org", "jump", key=Path("/keys/jump"))
M1 = Host("m1", "10.0.0.5", "debian", port=2222, key=Path("/keys/id"))
W1 = Host("w1", "10.0.0.6", "debian", gateway="bastion")


def inventory(known_hosts: Path | None = None) -> Inventory:
    return Inventory("test", (M1, W1), (BASTION,), known_hosts)


def test_the_key_and_the_port_of_the_machine_are_used() -> None:
    assert command(inventory(), M1) == [
        *("ssh", "-i", "/keys/id", "-o", "IdentitiesOnly=yes", "-p", "2222", "debian@10.0.0.5")
    ]


def test_a_path_with_a_space_stays_one_path() -> None:
    words = command(inventory(Path("/a b/known_hosts")), M1)
    assert 'UserKnownHostsFile="/a b/known_hosts" ~/.ssh/known_hosts' in words


def test_a_gateway_is_jumped_through_with_its_own_key() -> None:
    words = command(inventory(), W1)
    assert (
        "ProxyCommand=ssh -i /keys/jump -o IdentitiesOnly=yes -p 22 -W %h:%p jump@gate.example.org" in words
    )


def test_one_argument_is_shell_text_and_several_are_words() -> None:
    assert command(inventory(), M1, ["ps aux | head"])[-2:] == ["--", "ps aux | head"]
    assert command(inventory(), M1, ["ls", "a b"])[-2:] == ["--", "ls 'a b'"]
