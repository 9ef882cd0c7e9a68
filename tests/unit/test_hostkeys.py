"""Which host keys are believed: those of the known_hosts files, in OpenSSH's format."""

from __future__ import annotations

from pathlib import Path

import paramiko
import pytest

from swarmkit.remote.hostkeys import HostKeys, UnknownHostKey

NAME = "[127.0.0.1]:2222"


def key() -> paramiko.PKey:
    return paramiko.ECDSAKey.generate()


def line(name: str, known: paramiko.PKey) -> str:
    return f"{name} {known.get_name()} {known.get_base64()}\n"


@pytest.fixture
def user_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / ".ssh/known_hosts"
    file.parent.mkdir()
    return file


def believed(host_keys: HostKeys, name: str = NAME) -> list[paramiko.PKey]:
    """The keys that a client is told to expect from the host."""
    client = paramiko.SSHClient()
    host_keys.apply(client, name)
    return list((client.get_host_keys().lookup(name) or {}).values())


def test_a_key_of_the_user_s_file_is_known(user_file: Path) -> None:
    mine, other = key(), key()
    user_file.write_text(line("elsewhere", other) + line(f"somewhere,{NAME}", mine))
    assert believed(HostKeys()) == [mine]


def test_a_hashed_name_is_known(user_file: Path) -> None:
    mine = key()
    cut_off = line(paramiko.HostKeys.hash_host(NAME)[:10], key())
    user_file.write_text(cut_off + line(paramiko.HostKeys.hash_host(NAME), mine))
    assert believed(HostKeys()) == [mine]
    assert believed(HostKeys(), "127.0.0.1") == []


def test_the_inventory_s_own_file_comes_first(user_file: Path, tmp_path: Path) -> None:
    stale, fresh = key(), key()
    user_file.write_text(line(NAME, stale))
    own = tmp_path / "known_hosts"
    own.write_text(line(NAME, fresh))
    assert believed(HostKeys(own)) == [fresh]


def test_lines_that_cannot_be_read_are_passed_over(user_file: Path) -> None:
    mine = key()
    bad = (
        f"# comment\n\n{NAME}\n{NAME} ssh-ed25519 !!!\n{NAME} no-such-type AAAA\n@revoked {NAME} ssh-rsa A\n"
    )
    user_file.write_text(bad + line(NAME, mine))
    assert believed(HostKeys()) == [mine]


def test_without_files_no_key_is_known_and_an_unknown_one_is_refused(user_file: Path) -> None:
    host_keys = HostKeys()
    assert believed(host_keys) == []
    with pytest.raises(UnknownHostKey):
        host_keys.missing_host_key(paramiko.SSHClient(), NAME, key())


def test_an_accepted_key_is_recorded_and_then_known(user_file: Path, tmp_path: Path) -> None:
    mine = key()
    own = tmp_path / "known_hosts"
    host_keys = HostKeys(own, accept_new=True)
    assert believed(host_keys) == []
    host_keys.missing_host_key(paramiko.SSHClient(), NAME, mine)
    assert own.read_text() == line(NAME, mine)
    assert believed(host_keys) == [mine]
