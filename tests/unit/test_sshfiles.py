"""The way to a machine as blocks of ssh_config."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from swarmkit.context import context_name
from swarmkit.errors import UsageError
from swarmkit.inventory import Gateway, Host, Inventory
from swarmkit.inventory.sshconfig import SshConfig
from swarmkit.remote.sshfiles import blocks, goes_without, install, knows

GATE = Gateway("gate", "203.0.113.1", "jump", 2200, Path("/keys/100% jump"))
M1 = Host("m1", "10.0.0.5", "debian", gateway="gate", identities=(Path("/a"), Path("/b")))
INVENTORY = Inventory("physics", (M1,), (GATE,), Path("/my hosts"))


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no OpenSSH on this machine")
def test_every_machine_on_the_way_has_a_block_that_ssh_reads_back(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(blocks(INVENTORY, M1, "swarmkit-physics"))
    config = SshConfig((file,))
    settings = config.settings("swarmkit-physics")
    assert (settings.host_name, settings.user, settings.port) == ("10.0.0.5", "debian", 22)
    assert settings.identities == (Path("/a"), Path("/b"))
    assert settings.jumps == ("swarmkit-physics-via",)
    assert knows(config, "swarmkit-physics", M1)
    assert not knows(config, "another", M1)

    read = subprocess.run(
        ["ssh", "-G", "-F", str(file), "swarmkit-physics-via"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert {"hostname 203.0.113.1", "port 2200", "user jump", "identitiesonly yes"} <= set(read)
    assert "stricthostkeychecking true" in read
    assert "identityfile /keys/100%% jump" in read or "identityfile /keys/100% jump" in read


def test_blocks_are_needed_only_where_the_inventory_says_more_than_ssh_config(tmp_path: Path) -> None:
    plain = Host("m1", "10.0.0.5", "debian", 2222)
    nothing = SshConfig((tmp_path / "none",))
    assert goes_without(Inventory("c", (plain,)), plain, nothing)
    assert not goes_without(Inventory("c", (plain,), (), Path("/known")), plain, nothing)
    keyed = Host("m1", "10.0.0.5", "debian", key=Path("/k"))
    assert not goes_without(Inventory("c", (keyed,)), keyed, nothing)
    assert not goes_without(Inventory("c", (M1,), (GATE,)), M1, nothing)
    file = tmp_path / "config"
    file.write_text("Host 10.0.0.5\n  ProxyJump jump@203.0.113.1:2200\n")
    behind = Host("m1", "10.0.0.5", "debian", gateway="gate")
    gate = Gateway("gate", "203.0.113.1", "jump", 2200)
    assert goes_without(Inventory("c", (behind,), (gate,)), behind, SshConfig((file,)))


def test_the_user_s_own_ssh_config_is_kept_and_extended_once() -> None:
    own = Path("~/.ssh/config").expanduser()
    own.parent.mkdir()
    own.write_text("Host a\n  User b\n")
    own.chmod(0o644)
    file = install("Host x\n  HostName 10.0.0.1\n", "x")
    install("Host x\n  HostName 10.0.0.2\n", "x")
    assert own.read_text() == f'Include "{file.parent}/*.conf"\n\nHost a\n  User b\n'
    assert own.stat().st_mode & 0o777 == 0o644
    assert file.stat().st_mode & 0o777 == 0o600
    assert SshConfig().settings("x").host_name == "10.0.0.2"
    assert SshConfig().settings("a").user == "b"


@pytest.mark.parametrize("name", ["x", "default", "a b", "-a"])
def test_a_name_that_docker_does_not_take_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="docker takes no context"):
        context_name(INVENTORY, name)
    assert context_name(INVENTORY, None) == "physics"
