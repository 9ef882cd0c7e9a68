"""How a command changes a stack, and the lock that it does so under."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

from swarmkit.cluster.lock import Lock, locked
from swarmkit.deploy import history
from swarmkit.deploy.scope import told
from swarmkit.remote import Engine
from swarmkit.ui import Ui


@dataclass(frozen=True)
class Options:
    """How a plan is carried out.

    `timeout` are the seconds for all of it to come true. `rollback` returns to what was there where it
    does not. `recreate` allows what the plan says it has to make again. `lock_wait` are seconds.
    """

    timeout: float
    doing: str
    rollback: bool = True
    recreate: bool = False
    lock_wait: float = 0
    break_lock: bool = False


def locked_stack(engine: Engine, ui: Ui, stack: str, options: Options) -> AbstractContextManager[Lock]:
    """Hold the lock of a stack, or of another scope; raises OperationFailed where somebody else has it."""
    return locked(
        engine,
        ui,
        options.doing,
        wait=options.lock_wait,
        break_it=options.break_lock,
        name=history.short("swarmkit-lock-", stack),
        what=told(stack),
    )
