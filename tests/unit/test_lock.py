"""The lock that lies in the swarm: who has it, and when nobody has it any more."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from swarmkit.cluster.lock import STALE_SECONDS, Held, Holder

SINCE = datetime(2026, 1, 1, 10, 0, tzinfo=UTC)


def held(holder: Holder, silence: float = 0) -> Held:
    seen = SINCE + timedelta(minutes=5)
    return Held("id", holder, SINCE, seen, seen + timedelta(seconds=silence))


def test_a_lock_of_a_living_process_is_held_however_it_is_written() -> None:
    us = Holder.us("init")
    assert Holder.of(us.labels()) == us
    assert held(us).stale == ""
    assert "has been at it since 2026-01-01 10:00:00 UTC (swarmkit init)" in str(held(us))


def test_a_lock_of_a_process_of_this_machine_that_has_ended_is_stale_at_once() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = replace(Holder.us("init"), process=process_of(process.pid))
    assert held(identity).stale == ""
    process.communicate(b"\n")
    assert held(identity).stale == "its process has ended"


def process_of(pid: int) -> str:
    return f"{pid}:{Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"


def test_a_process_of_another_machine_cannot_be_seen_but_its_silence_can() -> None:
    elsewhere = replace(Holder.us("init"), machine="another", process="1:1")
    assert held(elsewhere, silence=STALE_SECONDS).stale == ""
    assert held(elsewhere, silence=STALE_SECONDS + 1).stale == "not renewed for 61 s"


def test_labels_that_say_nothing_make_no_holder_that_is_gone() -> None:
    assert not Holder.of({}).is_gone
