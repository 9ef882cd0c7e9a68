"""Commands in a container of a real engine: over its socket, over SSH, and through a command here."""

from __future__ import annotations

import io
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from swarmkit.errors import OperationFailed, Unreachable, UsageError
from swarmkit.images.base import ensure_base
from swarmkit.inventory import load
from swarmkit.remote import Engine, EngineError, Fleet
from swarmkit.services.exec import Command, execute, output
from tests import sshd

SOCKET = "unix:///var/run/docker.sock"


@pytest.fixture(scope="module")
def container(docker_engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A container that waits."""
    with local(tmp_path_factory.mktemp("here")) as fleet:
        (host,) = fleet.inventory.hosts
        engine = fleet.engine(host)
        image = ensure_base(engine, fleet.connection(host)).tag
        body = {"Image": image, "Cmd": ["sleep", "600"], "HostConfig": {"NetworkMode": "none", "Init": True}}
        made = str(engine.post("/containers/create", body)["Id"])
        try:
            engine.post(f"/containers/{made}/start")
            yield made
        finally:
            engine.delete(f"/containers/{made}", {"force": True})


def fleet_of(folder: Path, machine: str) -> Fleet:
    (folder / "inventory.yml").write_text(
        f"known_hosts: known_hosts\nmanagers: [{{name: here, {machine}}}]\n"
    )
    return Fleet(load(folder / "inventory.yml"))


def local(folder: Path) -> Fleet:
    return fleet_of(folder, "address: 192.0.2.5, connection: local")


@contextmanager
def over_ssh(folder: Path) -> Iterator[Fleet]:
    key = sshd.keygen(folder / "key")
    server = sshd.start(folder, "here", [key])
    try:
        (folder / "known_hosts").write_text(server.known)
        with fleet_of(
            folder, f"address: 127.0.0.1, port: {server.port}, user: {sshd.USER}, key: {key}"
        ) as fleet:
            yield fleet
    finally:
        server.stop()


@pytest.fixture(params=["unix", "local", "ssh"])
def engine(request: pytest.FixtureRequest, docker_engine: None, tmp_path: Path) -> Iterator[Engine]:
    """The same engine by each way to it."""
    with ExitStack() as stack:
        if request.param == "unix":
            found = Engine.at(SOCKET)
            stack.callback(found.close)
        else:
            if request.param == "ssh" and sshd.SSHD is None:
                pytest.skip("no OpenSSH server on this machine")
            fleet = stack.enter_context(local(tmp_path) if request.param == "local" else over_ssh(tmp_path))
            found = fleet.engine(fleet.inventory.hosts[0])
        yield found


def run(engine: Engine, container: str, script: str, given: bytes | None = None) -> tuple[int, bytes, bytes]:
    """A shell script in the container, with something on its standard input; code, output and errors."""
    ours, theirs = os.pipe()
    out, err = io.BytesIO(), io.BytesIO()

    def feed() -> None:
        # The command may not want it all.
        with suppress(BrokenPipeError), os.fdopen(theirs, "wb") as file:
            file.write(given or b"")

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        what = Command(["sh", "-c", script], tty=False, stdin=given is not None)
        code = execute(engine, container, what, stdin=ours, stdout=out, stderr=err)
    finally:
        os.close(ours)
        feeder.join()
    return code, out.getvalue(), err.getvalue()


def test_input_ends_and_output_errors_and_code_come_back(engine: Engine, container: str) -> None:
    assert run(engine, container, "cat; echo err >&2; exit 7", b"to the end") == (7, b"to the end", b"err\n")


def test_much_passes_both_ways_at_once(engine: Engine, container: str) -> None:
    data = os.urandom(3_000_000)
    assert run(engine, container, "cat", data) == (0, data, b"")


def test_a_command_that_reads_nothing_ends_by_itself(engine: Engine, container: str) -> None:
    assert run(engine, container, "exit 3", b"x" * 1_000_000)[0] == 3


def test_user_folder_and_variables_are_those_asked_for(docker_engine: None, container: str) -> None:
    found, out = Engine.at(SOCKET), io.BytesIO()
    what = Command(
        ["sh", "-c", 'echo "$(id -u) $PWD $A"'],
        tty=False,
        stdin=False,
        user="65534",
        workdir="/usr",
        environment=["A=b c"],
    )
    assert execute(found, container, what, stdout=out, stderr=io.BytesIO()) == 0
    assert out.getvalue() == b"65534 /usr b c\n"
    found.close()


def test_output_that_cannot_be_written_is_no_fault_of_the_connection(
    docker_engine: None, container: str
) -> None:
    found, ended = Engine.at(SOCKET), []
    what = Command(["sh", "-c", "echo a dump; exec sleep 60"], tty=False, stdin=False)
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(OSError, match="No space left"):
        execute(
            found,
            container,
            what,
            kill=lambda _pid, number: ended.append(number),
            stdout=cast("BinaryIO", full),
            stderr=io.BytesIO(),
        )
    assert ended == [signal.SIGPIPE]
    found.close()


def test_input_that_could_not_end_is_refused_before_anything_runs() -> None:
    class Tls:
        can_end_input = False

    with pytest.raises(UsageError, match="over TLS"):
        execute(
            cast("Engine", Tls()),
            "c",
            Command(["cat"], tty=False),
            stdout=io.BytesIO(),
            stderr=io.BytesIO(),
        )


def test_a_container_that_is_not_there_is_the_engine_s_error(engine: Engine) -> None:
    with pytest.raises(EngineError, match="No such container"):
        run(engine, "no-such-container", "true")


def test_a_stream_that_the_engine_refuses_is_an_error_with_its_words(engine: Engine) -> None:
    with pytest.raises(EngineError, match="No such exec instance") as raised:
        engine.upgrade("/exec/none/start", {"Detach": False})
    assert raised.value.status == 404


def test_a_connection_that_breaks_is_an_error_and_no_exit_code(
    container: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarmkit.services.exec._END_SECONDS", 0.5)
    with over_ssh(tmp_path) as fleet:
        found = fleet.engine(fleet.inventory.hosts[0])
        out = io.BytesIO()

        class Cuts(io.BytesIO):
            def write(self, data: object) -> int:
                fleet.connection(fleet.inventory.hosts[0]).close()
                return out.write(data)  # type: ignore[arg-type]

        what = Command(["sh", "-c", "echo ready; exec sleep 60"], tty=False, stdin=False)
        with pytest.raises(Unreachable, match="before the command did"):
            execute(found, container, what, stdout=Cuts(), stderr=io.BytesIO())
    assert out.getvalue() == b"ready\n"


def test_the_output_of_a_command_is_had_in_any_thread(engine: Engine, container: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        words = [["sh", "-c", f"echo {number}; echo noise >&2"] for number in range(4)]
        assert list(pool.map(lambda each: output(engine, container, each), words)) == [
            f"{number}\n" for number in range(4)
        ]


def test_a_command_that_fails_says_why_in_its_own_words(engine: Engine, container: str) -> None:
    with pytest.raises(OperationFailed, match="it is broken"):
        output(engine, container, ["sh", "-c", "echo it is broken >&2; exit 3"])
    with pytest.raises(OperationFailed, match="exit status 4"):
        output(engine, container, ["sh", "-c", "exit 4"])
