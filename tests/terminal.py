"""A command as a person runs it, on a terminal."""

from __future__ import annotations

import os
import pty
import select
import time
from collections.abc import Mapping


def typed(command: list[str], environment: Mapping[str, str], answers: Mapping[str, str]) -> str:
    """Run a command on a terminal, answer its questions; all that the terminal showed."""
    child, terminal = pty.fork()
    if child == 0:
        os.execvpe(command[0], command, {**environment, "TERM": "dumb"})
    shown, unanswered = "", dict(answers)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                more = os.read(terminal, 4096)
            except OSError:
                break
            if not more:
                break
            shown += more.decode(errors="replace")
        for question, answer in list(unanswered.items()):
            if question in shown:
                del unanswered[question]
                os.write(terminal, f"{answer}\n".encode())
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    return f"{shown}\nexit {os.waitstatus_to_exitcode(status)}"
