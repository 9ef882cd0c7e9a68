"""Counts: `python -m tests.conformance [GENERATED]` prints how many files come out equal."""

from __future__ import annotations

import os
import sys
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.conformance import run
from tests.conformance.generate import compose_files
from tests.conformance.oracle import NoClient, Oracle, client, version

BATCH = 8


def main() -> int:
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 320
    try:
        client()
    except NoClient as error:
        print(error, file=sys.stderr)
        return 1
    os.environ["HOME"] = run.ENVIRONMENT["HOME"]
    with Oracle() as oracle:
        found = {
            file: run.unlike(file, stack, answer) for file, stack, answer in run.answers(oracle, run.WRITTEN)
        }
        counts = {"equal": 0, "unlike": 0}

        @settings(
            max_examples=-(-wanted // BATCH),
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        @given(st.lists(compose_files(), min_size=BATCH, max_size=BATCH))
        def compared(batch: list[dict[str, Any]]) -> None:
            problems = run.generated(oracle, batch)
            counts["unlike"] += len(problems)
            counts["equal"] += BATCH - len(problems)
            for problem in problems:
                print(problem)

        compared()
    for file, lines in found.items():
        for line in lines:
            print(f"{file.name}: {line}")
    equal = sum(not lines for lines in found.values())
    total = sum(counts.values())
    print(
        f"{equal} of {len(found)} written files equal, {counts['equal']} of {total} generated"
        f" (docker {version()})"
    )
    return int(equal < len(found) or bool(counts["unlike"]))


if __name__ == "__main__":
    sys.exit(main())
