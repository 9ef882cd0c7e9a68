"""The `ssh` command line that `swarmkit ssh` runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmkit.inventory import Gateway, Host, Inventory
from swarmkit.remote.openssh import command

BASTION = Gateway("bastion", "gate.example.org", "jump", key=Path("/keys/jump"))
M1 = Host("m1", "10.0.0.5", "debian", port=2222, key=Path("/keys/id"))
W1 = Host("w1", "10.0.0.6", "debian", gateway="bastion")


def inventory(known_hosts: Path | None = None) -> Inventory:
    return Inventory("test", (M1, W1), (BASTION,), known_hosts)


def test_the_key_and_the_port_of_the_machine_are_used() -> None:
    assert command(inventory(), M1) == [
        *("ssh", "-F", "none", "-i", "/keys/id", "-o", "IdentitiesOnly=yes", "-p", "2222", "debian@10.0.0.5")
    ]


def test_a_path_with_a_space_stays_one_path() -> None:
    words = command(inventory(Path("/a b/known_hosts")), M1)
    assert 'UserKnownHostsFile="/a b/known_hosts" ~/.ssh/known_hosts' in words


def test_a_gateway_is_jumped_through_with_its_own_key() -> None:
    words = command(inventory(), W1)
    assert (
        "ProxyCommand=ssh -F none -i /keys/jump -o IdentitiesOnly=yes -p 22 -W '[%h]:%p' "
        "jump@gate.example.org" in words
    )


def test_tokens_of_an_inner_jump_are_left_to_the_inner_ssh() -> None:
    outer = Gateway("outer", "203.0.113.1", "me")
    inner = Gateway("inner", "10.0.0.1", "me", gateway="outer")
    deep = Host("deep", "10.1.0.1", "me", key=Path("/100%/id"), gateway="inner")
    words = command(Inventory("test", (deep,), (outer, inner)), deep)
    assert "/100%%/id" in words
    proxy = next(word for word in words if word.startswith("ProxyCommand="))
    assert proxy.count("-W '[%h]:%p'") == 1
    assert proxy.count("[%%h]:%%p") == 1


def test_this_machine_needs_no_ssh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/zsh")
    here = Host("m1", "10.0.0.5", "me", is_local=True)
    assert command(inventory(), here) == ["/bin/zsh"]
    assert command(inventory(), here, ["ls", "a b"]) == ["/bin/zsh", "-c", "ls 'a b'"]


def test_one_argument_is_shell_text_and_several_are_words() -> None:
    assert command(inventory(), M1, ["ps aux | head"])[-2:] == ["--", "ps aux | head"]
    assert command(inventory(), M1, ["ls", "a b"])[-2:] == ["--", "ls 'a b'"]
