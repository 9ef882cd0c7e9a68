"""One operator at a time: a lock that lies in the swarm itself, for all to see from anywhere.

It is a config object: its name can exist only once, so making it is taking it. Whoever holds it renews
it every few seconds, by the managers' own clock; one that is not renewed, or whose process is seen to be
gone, is stale and is broken by the next who wants it.
"""

from __future__ import annotations

import base64
import getpass
import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from swarmkit.errors import OperationFailed, SwarmkitError
from swarmkit.remote import Engine, EngineError
from swarmkit.swarm import filters, moment
from swarmkit.ui import Ui

NAME = "swarmkit-lock"
_LABEL = "swarmkit.lock."
RENEW_SECONDS = 10.0
STALE_SECONDS = 60.0
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Holder:
    """Who works on the cluster: `who` is user@host; `machine` tells this boot of that host from others."""

    who: str
    machine: str
    process: str
    doing: str

    @classmethod
    def us(cls, doing: str) -> Self:
        """This process."""
        who = f"{getpass.getuser()}@{socket.gethostname()}"
        return cls(who, _machine(), _process(os.getpid()), doing)

    @classmethod
    def of(cls, labels: Mapping[str, str]) -> Self:
        """From the lock's labels."""
        return cls(*(labels.get(f"{_LABEL}{key}", "") for key in ("who", "machine", "process", "doing")))

    def labels(self) -> dict[str, str]:
        return {f"{_LABEL}{key}": value for key, value in vars(self).items()}

    @property
    def is_gone(self) -> bool:
        """Whether it was a process of this very machine that has ended."""
        pid = self.process.split(":")[0]
        return self.machine == _machine() and pid.isdigit() and _process(int(pid)) != self.process


@dataclass(frozen=True)
class Held:
    """The lock as found: taken at `since`, last renewed at `seen`; `now` is by the same clock."""

    id: str
    holder: Holder
    since: datetime
    seen: datetime
    now: datetime

    @property
    def silence(self) -> float:
        """Seconds since it was renewed."""
        return (self.now - self.seen).total_seconds()

    @property
    def stale(self) -> str:
        """Why nobody holds it any more; empty where somebody does."""
        if self.holder.is_gone:
            return "its process has ended"
        return f"not renewed for {self.silence:.0f} s" if self.silence > STALE_SECONDS else ""

    def __str__(self) -> str:
        since = self.since.strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"{self.holder.who} has been at it since {since} (swarmkit {self.holder.doing})"


def find(engine: Engine, name: str = NAME) -> Held | None:
    """The lock of that name in the engine's swarm, if anyone has it."""
    for raw in engine.get("/configs", filters(name=name)):
        if raw["Spec"]["Name"] == name:
            now = moment(engine.get("/info")["SystemTime"])
            return Held(
                raw["ID"],
                Holder.of(raw["Spec"].get("Labels") or {}),
                moment(raw["CreatedAt"]),
                moment(raw["UpdatedAt"]),
                now,
            )
    return None


def break_lock(engine: Engine, held: Held) -> None:
    """Take the lock away from whoever has it; somebody else may have done so already."""
    try:
        engine.delete(f"/configs/{held.id}")
    except EngineError as error:
        if error.status != 404:
            raise


def break_stale(engine: Engine, ui: Ui) -> None:
    """Remove a lock that nobody holds any more; one that is held stays."""
    held = find(engine)
    if held is not None and held.stale:
        ui.warn(f"breaking the lock of {held.holder.who}: {held.stale}")
        break_lock(engine, held)


class Lock:
    """A lock that we hold. Once somebody has broken it, `check` says so."""

    def __init__(self, engine: Engine, identity: str) -> None:
        self._engine = engine
        self._id = identity
        self._done = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._renew, name="swarmkit-lock", daemon=True)
        self._thread.start()

    def _renew(self) -> None:
        while not self._done.wait(RENEW_SECONDS):
            try:
                raw = self._engine.get(f"/configs/{self._id}")
                version = {"version": raw["Version"]["Index"]}
                self._engine.post(f"/configs/{self._id}/update", raw["Spec"], version)
            except EngineError as error:
                self._lost = self._lost or error.status == 404
            except SwarmkitError:
                # The manager does not answer now: it may again, and the next time it is renewed.
                continue

    def check(self) -> None:
        """Raises OperationFailed where somebody has broken the lock: two may be at work."""
        if self._lost:
            raise OperationFailed(
                "somebody has broken the lock that this command held, and may be at work too",
                hint="stopped before the next step; run it again to complete it",
            )

    def release(self) -> None:
        """Give it back. Where no manager answers any more it stays, and becomes stale."""
        self._done.set()
        self._thread.join()
        try:
            self._engine.delete(f"/configs/{self._id}")
        except SwarmkitError:
            # Gone with its swarm, or broken; or nobody answers, and others will find it stale.
            return


@contextmanager
def locked(
    engine: Engine,
    ui: Ui,
    doing: str,
    *,
    wait: float = 0,
    break_it: bool = False,
    name: str = NAME,
    what: str = "the cluster",
) -> Iterator[Lock]:
    """Hold a lock of the swarm's. Waits `wait` seconds for whoever has it, unless told to break it.

    There is one of each `name` (at most 64 characters); `what` says in errors what it locks. Raises
    OperationFailed, saying who has it and since when.
    """
    lock = Lock(engine, _take(engine, ui, Holder.us(doing), wait, break_it, name, what))
    try:
        yield lock
    finally:
        lock.release()


def _take(engine: Engine, ui: Ui, holder: Holder, wait: float, break_it: bool, name: str, what: str) -> str:
    deadline = time.monotonic() + wait
    said = False
    while (identity := _create(engine, holder, name, what)) is None:
        held = find(engine, name)
        if held is None:
            continue
        if held.stale or break_it:
            ui.warn(f"breaking the lock of {held.holder.who}: {held.stale or 'as you said'}")
            break_lock(engine, held)
            break_it = False
        elif time.monotonic() >= deadline:
            raise OperationFailed(
                f"{what} is locked: {held}",
                hint="--lock-wait SECONDS waits for it; --break-lock takes it away, if nobody is at work",
            )
        else:
            if not said:
                ui.say(f"waiting: {held}")
                said = True
            time.sleep(POLL_SECONDS)
    return identity


def _create(engine: Engine, holder: Holder, name: str, what: str) -> str | None:
    """Make the config; its ID, or None where there is one already."""
    body: dict[str, Any] = {
        "Name": name,
        "Labels": holder.labels(),
        "Data": base64.b64encode(f"a command of swarmkit is changing {what}\n".encode()).decode(),
    }
    try:
        return str(engine.post("/configs/create", body)["ID"])
    except EngineError as error:
        if error.status == 409:
            return None
        raise


def _machine() -> str:
    """This boot of this machine, told apart from all others; not readable back."""
    parts = [socket.gethostname()]
    for file in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        try:
            parts.append(Path(file).read_text(encoding="ascii").strip())
        except OSError:
            continue
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _process(pid: int) -> str:
    """`pid:start` of a living process, empty for one that has ended; the start guards against reuse."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "" if Path("/proc/self/stat").exists() or not _answers(pid) else f"{pid}:"
    state, *fields = stat.rpartition(")")[2].split()
    # proc(5): the state is the 3rd field, the start time the 22nd.
    return "" if state == "Z" else f"{pid}:{fields[18]}"


def _answers(pid: int) -> bool:
    """Whether there is such a process, where there is no /proc to ask (macOS)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
