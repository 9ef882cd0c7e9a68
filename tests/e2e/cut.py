"""The command, cut off: `python -m tests.e2e.cut N ARGUMENTS` dies, as by SIGKILL, after its Nth write."""

from __future__ import annotations

import itertools
import os
import sys
from typing import Any

from swarmkit.cli.main import main
from swarmkit.remote import Engine

DEAD = 137


def _die_after(writes: int) -> None:
    count = itertools.count(1)
    post = Engine.post

    def counted(self: Engine, path: str, *arguments: Any, **options: Any) -> Any:
        answer = post(self, path, *arguments, **options)
        if next(count) == writes:
            os._exit(DEAD)
        return answer

    Engine.post = counted  # type: ignore[method-assign]


if __name__ == "__main__":
    _die_after(int(sys.argv.pop(1)))
    main()
