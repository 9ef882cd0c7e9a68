"""Becoming root through sudo, on this machine with a sudo that a test plays."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from swarmkit.errors import OperationFailed, SwarmkitError, Unreachable, UsageError
from swarmkit.inventory import Login
from swarmkit.remote import LocalConnection, Secrets
from swarmkit.remote.secrets import Refused, given

# Asks as sudo does, and writes down what it was called with and which passwords it was given.
SUDO = """\
#!/bin/sh
echo "called $*" >>{log}
case "$1" in
-n) [ "{password}" = none ] || {{ echo 'sudo: a password is required' >&2; exit 1; }}; shift 2 ;;
-k)
  printf %s "$4" >&2; IFS= read -r given; echo "given $given" >>{log}
  [ "$given" = "{password}" ] || {{ printf 'Sorry, try again.\\n%s' "$4" >&2; read -r again; exit 1; }}
  shift 5 ;;
esac
exec "$@"
"""


class Machine:
    """This machine as one where the user is not root."""

    def __init__(self, folder: Path, password: str) -> None:
        self.log = folder / "log"
        self.log.touch()
        for name, text in (
            ("id", "#!/bin/sh\necho 1000\n"),
            ("sudo", SUDO.format(log=self.log, password=password)),
        ):
            (folder / name).write_text(text)
            (folder / name).chmod(0o700)

    @property
    def tried(self) -> list[str]:
        return [
            line.removeprefix("given ")
            for line in self.log.read_text().split("\n")
            if line.startswith("given")
        ]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Machine]:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return lambda password: Machine(folder, password)


def shell(secrets: Secrets, name: str = "m1") -> LocalConnection:
    return LocalConnection(Login(name, "127.0.0.1", "me", is_local=True), secrets)


def unasked(_question: str) -> None:
    pytest.fail("nobody is to be asked")


def test_no_password_is_asked_for_where_sudo_wants_none(machine: Callable[[str], Machine]) -> None:
    found = machine("none")
    assert shell(Secrets({}, unasked)).run("echo hello; exit 3").status == 3
    assert found.tried == []


def test_a_password_is_asked_for_once_for_all_machines(machine: Callable[[str], Machine]) -> None:
    found = machine("secret")
    questions: list[str] = []

    def answer(question: str) -> str:
        questions.append(question)
        return "secret"

    secrets = Secrets({}, answer)
    shells = [shell(secrets, f"w{index}") for index in range(6)]
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda one: (one.run("cat; echo ok"), one.run("echo again")), shells))
    # What the scripts read is empty: the password went to sudo alone.
    assert [(first.stdout, then.stdout) for first, then in done] == [("ok\n", "again\n")] * 6
    assert len(questions) == 1
    assert found.tried == ["secret"] * 12
    assert "secret" not in "".join(line for line in found.log.read_text().split("\n") if "called" in line)


def test_a_wrong_password_is_tried_once_on_one_machine(machine: Callable[[str], Machine]) -> None:
    found = machine("secret")
    secrets = Secrets({"SWARMKIT_SUDO_PASSWORD": "wrong"}, unasked)
    shells = [shell(secrets, f"w{index}") for index in range(6)]
    start = threading.Barrier(6)
    errors: list[str] = []

    def attempt(one: LocalConnection) -> None:
        start.wait()
        for _ in range(2):
            with pytest.raises(SwarmkitError) as raised:
                one.run("echo never")
            errors.append(str(raised.value))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(attempt, shells))
    assert found.tried == ["wrong"]
    assert sum("sudo does not accept the password" in error for error in errors) == 2
    assert sum("was not tried" in error for error in errors) == 10


def test_without_a_terminal_it_is_said_where_the_password_may_come_from(
    machine: Callable[[str], Machine],
) -> None:
    machine("secret")
    with pytest.raises(Unreachable, match="a password is required, and there is no terminal") as raised:
        shell(Secrets({}, lambda _question: None)).run("true")
    assert "SWARMKIT_SUDO_PASSWORD_FILE" in raised.value.hint


def test_the_password_may_lie_in_a_file_of_one_s_own(
    machine: Callable[[str], Machine], tmp_path: Path
) -> None:
    machine("secret")
    file = tmp_path / "password"
    file.write_text("secret\n")
    file.chmod(0o640)
    secrets = Secrets({"SWARMKIT_SUDO_PASSWORD_FILE": str(file)}, unasked)
    with pytest.raises(UsageError, match="can be read by others") as raised:
        shell(secrets).run("true")
    assert raised.value.hint == f"chmod 600 {file}"
    file.chmod(0o600)
    assert shell(secrets).run("echo ok").stdout == "ok\n"


def test_a_secret_s_file_that_is_missing_is_named() -> None:
    with pytest.raises(UsageError, match="/nowhere cannot be read: No such file"):
        given("X", {"X_FILE": "/nowhere"})


def test_a_user_whom_sudo_does_not_know_is_told_how_to_allow_it(
    machine: Callable[[str], Machine], tmp_path: Path
) -> None:
    machine("none")
    (tmp_path / "bin/sudo").write_text("#!/bin/sh\necho 'me is not in the sudoers file.' >&2; exit 1\n")
    with pytest.raises(Unreachable, match=r"may not become root: me is not in the sudoers file\.") as raised:
        shell(Secrets({}, unasked)).run("true")
    assert "NOPASSWD" in raised.value.hint


def test_both_outputs_of_a_local_script_arrive(machine: Callable[[str], Machine]) -> None:
    machine("none")
    finished = shell(Secrets({}, unasked)).run("head -c 300000 /dev/zero >&2; echo out; kill -9 $$")
    assert (finished.stdout, finished.status) == ("out\n", 137)
    assert finished.stderr.startswith("\0" * 300000)


def test_a_silent_local_script_is_given_up(machine: Callable[[str], Machine]) -> None:
    machine("none")
    with pytest.raises(OperationFailed, match="no output"):
        shell(Secrets({}, unasked)).run("exec sleep 1", timeout=0.2)


def test_a_password_that_a_machine_has_refused_is_tried_on_no_machine_again() -> None:
    secrets = Secrets({"SWARMKIT_SUDO_PASSWORD": "wrong"}, unasked)

    def tried(host: str) -> str:
        try:
            with secrets.sudo_password(host, "me"):
                raise Refused("sudo does not accept the password", where=host)
        except Refused as error:
            return str(error)

    assert tried("m1") == "m1: sudo does not accept the password"
    # Another thread of the same machine may have waited for its turn.
    assert tried("m1") == "m1: sudo does not accept the password"
    assert tried("w1") == "w1: sudo needs a password; the one that m1 refused was not tried"
