"""Many machines at once: real SSH to a process that plays them (tests.simulation)."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from swarmkit.cluster import bootstrap
from swarmkit.errors import Exit
from swarmkit.inventory import load
from swarmkit.remote import Fleet
from swarmkit.ui import Output, Ui
from tests.conftest import Swarmkit
from tests.simulation import Fault, simulated

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux answers on all of 127.0.0.0/8")

LATENCY = 0.01


def open_files() -> list[str]:
    """What this process has open: the targets of its file descriptors."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(entry.readlink()))
        except FileNotFoundError:
            # The one that was open to list them.
            continue
    return found


def sockets() -> set[str]:
    return {target for target in open_files() if target.startswith("socket:")}


def becomes(wanted: int, measure: Callable[[], int], seconds: float = 10) -> bool:
    """Whether a number falls to `wanted`: threads that were told to end take a moment."""
    deadline = time.monotonic() + seconds
    while measure() > wanted:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def init(inventory: Path) -> tuple[bootstrap.Report, set[str]]:
    """`init` within this process; its report, and the sockets that were open at its end."""
    with Fleet(load(inventory)) as fleet:
        report = bootstrap.init(fleet, Ui(Output.JSON, verbose=False), bootstrap.Options())
        return report, sockets()


def forms_and_leaves_nothing_behind(folder: Path, hosts: int) -> None:
    with simulated(folder, hosts, LATENCY) as inventory:
        threads, descriptors, before = threading.active_count(), len(open_files()), sockets()
        report, _ = init(inventory)
        assert {action.host for action in report.actions} == {host.name for host in load(inventory).hosts}
        again, during = init(inventory)
        assert again.changed == 0
        # One connection a host, whatever runs over it. One of an earlier test may close meanwhile.
        assert len(during - before) == hosts
        assert becomes(threads, threading.active_count), threading.enumerate()
        assert becomes(descriptors, lambda: len(open_files())), open_files()


def test_fifty_hosts_become_a_swarm_over_one_connection_each_and_nothing_is_left_open(tmp_path: Path) -> None:
    forms_and_leaves_nothing_behind(tmp_path, 50)


@pytest.mark.soak
def test_five_hundred_hosts_become_a_swarm_and_nothing_is_left_open(tmp_path: Path) -> None:
    forms_and_leaves_nothing_behind(tmp_path, 500)


def test_hosts_that_fail_are_all_named_at_once_and_nothing_is_left_open(
    swarmkit: Swarmkit, tmp_path: Path
) -> None:
    faults = {"w3": Fault.REFUSE, "w7": Fault.HANG, "w11": Fault.CUT, "w13": Fault.DENY, "w17": Fault.CUT}
    with simulated(tmp_path, 20, LATENCY, faults) as inventory:
        start = time.monotonic()
        error = swarmkit("init", inventory=inventory, code=Exit.UNREACHABLE).error
        # Those that hang do so together.
        assert time.monotonic() - start < 20
        said = {line.split(": ")[1]: line for line in error.splitlines() if line.startswith("error: ")}
        assert set(said) == set(faults)
        assert "connection refused" in said["w3"]
        assert "no SSH server" in said["w7"]
        assert "broke" in said["w11"]
        assert "permission denied" in said["w13"]


def test_connections_that_could_not_be_made_leave_no_thread_and_no_socket(tmp_path: Path) -> None:
    faults = {"w1": Fault.DENY, "w2": Fault.CUT}
    with simulated(tmp_path, 4, LATENCY, faults) as inventory:
        threads, before = threading.active_count(), len(sockets())
        with Fleet(load(inventory)) as fleet:
            outcomes = fleet.map(lambda host: fleet.connection(host).run("true"))
        assert sorted(outcomes.errors) == ["w1", "w2"]
        assert sorted(outcomes.values) == ["m1", "w3"]
        assert becomes(threads, threading.active_count), threading.enumerate()
        assert becomes(before, lambda: len(sockets()))
