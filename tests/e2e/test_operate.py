"""Looking at what runs and entering it, on nodes that are not the manager: logs and exec."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import shlex
import signal
import struct
import subprocess
import termios
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Swarmkit, eventually
from tests.e2e.conftest import BOX as IMAGE
from tests.e2e.conftest import Lab, bring_box

CREATE = "docker service create -q --detach --no-resolve-image --stop-signal KILL"
WORKER = "--constraint node.role==worker"
STACK = "com.docker.stack.namespace=shop"
# Numbers its lines, so that one that is missing or comes twice is seen.
TALK = "n=0; while :; do n=$((n+1)); echo line $n; echo odd $n >&2; sleep 0.2; done"


@pytest.fixture(scope="module")
def lab(machines: Callable[[int], Lab]) -> Iterator[Lab]:
    """A swarm with a service that talks, one task on each of its workers, and one that cannot start."""
    found = machines(3)
    found.swarmkit("init")
    bring_box(found, "wn1", "wn2", programs="sh cat grep id sleep stty true wc yes")
    found.shell(
        "m1",
        f"{CREATE} --name talk --label {STACK} --replicas 2 --replicas-max-per-node 1 {WORKER} "
        f"{IMAGE} sh -c '{TALK}'\n"
        f"{CREATE} --name none --restart-condition none {WORKER} {IMAGE} no-such\n"
        f"{CREATE} --name away --mode global {WORKER} {IMAGE} sleep 10000",
    )
    sk = found.swarmkit
    eventually(lambda: running(sk, "talk") == running(sk, "away") == 2, 60, "tasks run on both workers")
    yield found
    found.swarmkit("reset")


@pytest.fixture
def sk(lab: Lab) -> Swarmkit:
    return lab.swarmkit


def running(sk: Swarmkit, service: str) -> int:
    return sum(task["state"] == "running" for task in sk.json("service", "ps", service))


def node_of(sk: Swarmkit, slot: int) -> str:
    return next(str(task["node"]) for task in sk.json("service", "ps", "talk") if task["slot"] == slot)


def run(sk: Swarmkit, *arguments: str, given: bytes = b"", **environment: str) -> tuple[int, bytes, bytes]:
    """A command with something on its standard input; its code, output and errors."""
    done = subprocess.run(
        sk.command(*arguments),
        input=given,
        capture_output=True,
        timeout=60,
        env=sk.environment | environment,
        cwd=sk.folder,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_moby_27552_a_command_runs_in_the_task_that_is_meant_on_whichever_node(
    lab: Lab, sk: Swarmkit
) -> None:
    for slot in (1, 2):
        container = run(sk, "exec", f"talk.{slot}", "--", "cat", "/etc/hostname")[1].decode().strip()
        assert lab.shell(node_of(sk, slot), "docker ps -q --filter name=talk").strip() == container
    code, out, said = run(sk, "exec", "away.wn2", "-u", "65534", "-w", "/tmp", "--", "sh", "-c", "id -u; pwd")
    assert (code, out, said) == (0, b"65534\n/tmp\n", b"")
    # Without a slot one is chosen, and said.
    code, out, said = run(sk, "exec", "talk", "--", "true")
    assert (code, said) == (0, f"talk.1 on {node_of(sk, 1)}\n".encode())


def test_output_errors_and_the_exit_code_are_the_command_s_own(sk: Swarmkit) -> None:
    assert run(sk, "exec", "talk.2", "--", "sh", "-c", "echo out; echo err >&2; exit 130") == (
        130,
        b"out\n",
        b"err\n",
    )
    code, out, _ = run(sk, "exec", "talk.2", "--", "no-such-command")
    assert code in (126, 127)
    assert b"no-such-command" in out


def test_input_passes_through_to_its_end_byte_by_byte(sk: Swarmkit) -> None:
    data = bytes(range(256)) * 8000
    assert run(sk, "exec", "talk.1", "--", "sh", "-c", "cat >/tmp/x; wc -c </tmp/x", given=data) == (
        0,
        b"2048000\n",
        b"",
    )
    assert run(sk, "exec", "talk.1", "--", "cat", "/tmp/x")[1] == data


def test_a_variable_s_value_is_in_no_argument_list(sk: Swarmkit) -> None:
    command = ("exec", "talk.1", "-e", "TOKEN", "-e", "PLAIN=1", "--", "sh", "-c", 'echo "$TOKEN $PLAIN"')
    assert run(sk, *command, TOKEN="a secret")[1] == b"a secret 1\n"
    assert "TOKEN is not set" in sk(*command, code=2).error


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("exec", "nothing", "--", "true"), 2, 'no service is called "nothing"'),
        (("exec", "talk.7", "--", "true"), 2, 'talk: no running task is "7"'),
        (("exec", "talk.7", "--", "true"), 2, "talk.1 on wn"),
        (("exec", "none", "--", "true"), 1, "none: no task of it runs: the newest is failed"),
        (("exec", "talk.1"), 2, "no command is given"),
        (("exec", "-it", "talk.1", "--", "sh"), 2, "standard input is no terminal"),
        (("service", "logs", "nothing"), 2, 'no service is called "nothing"'),
        (("service", "logs", "talk", "--since", "soon"), 2, '--since: expected a duration such as "10m"'),
        (("service", "logs", "talk", "--tail", "-1"), 2, "--tail: expected a number of lines"),
        (("service", "logs", "talk", "-f", "--until", "1m"), 2, "leave one of them out"),
    ],
)
def test_what_cannot_be_entered_or_shown_is_said(
    sk: Swarmkit, arguments: tuple[str, ...], code: int, words: str
) -> None:
    assert words in sk(*arguments, code=code).error


def test_a_node_that_cannot_be_reached_is_named(
    lab: Lab, sk: Swarmkit, inventory: Callable[..., Path]
) -> None:
    path = inventory(m1={}, wn1={}, wn2={"port": 1})
    assert (
        "error: wn2: swarmkit@127.0.0.1:1"
        in sk("exec", "away.wn2", "--", "true", code=3, inventory=path).error
    )


def test_an_engine_alone_leads_only_to_its_own_tasks(lab: Lab, sk: Swarmkit, tmp_path: Path) -> None:
    ssh = tmp_path / ".ssh"
    ssh.mkdir(mode=0o700)
    for name in ("id_ed25519", "known_hosts"):
        (ssh / name).write_bytes((lab.inventory.parent / name).read_bytes())
    (ssh / "id_ed25519").chmod(0o600)
    plain = Swarmkit({**sk.environment, "HOME": str(tmp_path)}, folder=tmp_path)
    engine = f"ssh://swarmkit@127.0.0.1:{lab.nodes['m1']['ssh_port']}"
    error = plain("--engine", engine, "exec", "away", "--", "true", code=2).error
    assert "away: it runs on wn1, wn2, and --engine leads to another node alone" in error
    assert plain.json("--engine", engine, "service", "logs", "talk", "--tail", "1")


class Terminal:
    """A command on a terminal of a given size."""

    def __init__(self, sk: Swarmkit, *arguments: str, rows: int, columns: int) -> None:
        self._ours, theirs = pty.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self._ours)
        self.process = subprocess.Popen(
            sk.command(*arguments),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=sk.environment | {"TERM": "xterm"},
            cwd=sk.folder,
            start_new_session=True,
        )
        os.close(theirs)
        self.shown = ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def shows(self, words: str, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while words not in self.shown:
            assert time.monotonic() < deadline, f"no {words!r} in {self.shown!r}"
            if select.select([self._ours], [], [], 0.1)[0]:
                self.shown += os.read(self._ours, 4096).decode(errors="replace")

    def ended(self) -> int:
        code = self.process.wait(30)
        assert termios.tcgetattr(self._ours) == self.before, "the terminal is as it was"
        os.close(self._ours)
        return code


def test_a_terminal_is_passed_through_with_its_size_and_restored(sk: Swarmkit) -> None:
    at = Terminal(sk, "exec", "away.wn2", "--", "sh", rows=33, columns=101)
    # A shell that asks is there; its terminal's size may come a moment after it.
    at.shows("# ")
    at.type(b"until stty size | grep -q '33 101'; do sleep 0.1; done; stty size\r")
    at.shows("33 101\r\n")
    at.resize(20, 77)
    at.process.send_signal(signal.SIGWINCH)
    at.type(b"until stty size | grep -q '20 77'; do sleep 0.1; done; stty size\r")
    at.shows("20 77\r\n")
    # Ctrl-C is the command's.
    at.type(b"sleep 1000\r")
    at.shows("sleep 1000\r\n")
    at.type(b"\x03")
    at.type(b"echo still $((6*7)) here; exit 9\r")
    at.shows("still 42 here")
    assert at.ended() == 9


def test_a_terminal_is_restored_when_the_command_is_ended_from_outside(lab: Lab, sk: Swarmkit) -> None:
    at = Terminal(
        sk, "exec", "away.wn2", "--", "sh", "-c", "echo ready; exec sleep 4711", rows=24, columns=80
    )
    at.shows("ready")
    at.process.terminate()
    assert at.ended() == 143
    eventually(lambda: not processes(lab, "wn2", "sleep 4711"), 10, "the command has ended in the container")


def processes(lab: Lab, node: str, command: str) -> str:
    return lab.shell(node, f"pgrep -x -f '{command}' || true").strip()


def test_an_interruption_is_the_command_s_to_answer(lab: Lab, sk: Swarmkit) -> None:
    script = "trap 'echo bye; exit 5' INT; echo ready; while :; do sleep 0.1; done"
    process = subprocess.Popen(
        sk.command("exec", "away.wn1", "-n", "--", "sh", "-c", script),
        stdout=subprocess.PIPE,
        env=sk.environment,
        cwd=sk.folder,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[0] == "bye\n"
    assert process.returncode == 5


def test_a_command_whose_output_nobody_reads_any_more_ends(lab: Lab, sk: Swarmkit) -> None:
    command = shlex.join(sk.command("exec", "away.wn1", "-n", "--", "yes", "4712"))
    done = subprocess.run(
        f"{command} | head -n 1",
        shell=True,
        stdout=subprocess.PIPE,
        timeout=30,
        env=sk.environment,
        check=False,
    )
    assert done.stdout == b"4712\n"
    eventually(lambda: not processes(lab, "wn1", "yes 4712"), 10, "the command has ended in the container")


def test_moby_27552_lines_of_several_nodes_are_shown_in_the_order_of_time(sk: Swarmkit) -> None:
    lines = sk.json("service", "logs", "talk", "--tail", "20")
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
    assert {line["node"] for line in lines} == {"wn1", "wn2"}
    assert {line["stream"] for line in lines} == {"stdout", "stderr"}
    shown = sk("service", "logs", "talk", "away", "--since", "1m", "-t", "--tail", "3").stdout.splitlines()
    assert {line.partition(" | ")[0] for line in shown} == {
        f"talk.{slot}@{node_of(sk, slot)}" for slot in (1, 2)
    }
    assert all(line.partition(" | ")[2].startswith("20") for line in shown)
    # What was written within a past range stays that.
    first, last = lines[5]["time"], lines[10]["time"]
    part = sk.json("service", "logs", "talk", "--since", first, "--until", last)
    assert {first, last} <= {line["time"] for line in part}
    assert all(first[:23] <= line["time"] <= last for line in part)


class Followed:
    """`logs --follow` under way."""

    def __init__(self, sk: Swarmkit, *arguments: str) -> None:
        self.lines: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            sk.command(*arguments, "-f", "-o", "json"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=sk.environment,
            cwd=sk.folder,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    @property
    def tasks(self) -> dict[str, list[str]]:
        """What each task wrote to its standard output."""
        by_task = defaultdict(list)
        for line in list(self.lines):
            if line["stream"] == "stdout":
                by_task[line["task"]].append(line["text"])
        return by_task

    def interrupted(self) -> str:
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(30)
        assert self.process.stderr is not None
        said = self.process.stderr.read()
        assert code == 130, said
        return said


@contextmanager
def followed(sk: Swarmkit, *arguments: str) -> Iterator[Followed]:
    found = Followed(sk, *arguments)
    try:
        yield found
    finally:
        found.process.kill()
        found.process.communicate()


def test_following_outlives_tasks_that_are_replaced_and_streams_that_break(lab: Lab, sk: Swarmkit) -> None:
    with followed(sk, "service", "logs", "talk", "away", "--tail", "5") as log:
        eventually(lambda: len(log.tasks) == 2, 30, "lines of both nodes come")
        before = set(log.tasks)
        lab.shell("m1", "docker service update -q --force --detach --update-parallelism 0 talk")
        eventually(lambda: len(set(log.tasks) - before) == 2, 60, "lines of the new tasks come")
        counts = {task: len(texts) for task, texts in log.tasks.items() if task not in before}
        # All that is between swarmkit and the manager's engine, in the middle of lines.
        lab.shell("m1", "pkill -f 'docker system dial-stdi[o]'")
        eventually(
            lambda: all(len(log.tasks[task]) > count + 10 for task, count in counts.items()),
            60,
            "lines come again after the stream broke",
        )
        assert log.interrupted() == ""
    for task, texts in log.tasks.items():
        first = int(texts[0].split()[1])
        assert texts == [f"line {number}" for number in range(first, first + len(texts))], task
    assert {line["node"] for line in log.lines} == {"wn1", "wn2"}


def test_following_a_stack_takes_up_what_is_added_and_ends_when_all_is_removed(
    lab: Lab, sk: Swarmkit
) -> None:
    with followed(sk, "stack", "logs", "shop", "--tail", "1") as log:
        # Those of tasks that have gone come too.
        eventually(lambda: len(log.tasks) >= 2, 30, "lines come")
        lab.shell(
            "m1", f"{CREATE} --name late --label {STACK} {WORKER} {IMAGE} sh -c 'echo late; sleep 10000'"
        )
        eventually(lambda: ["late"] in log.tasks.values(), 30, "the line of the new service comes")
        lab.shell("m1", "docker service rm talk late")
        assert log.process.wait(30) == 0
