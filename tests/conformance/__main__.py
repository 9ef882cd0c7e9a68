"""Counts: `python -m tests.conformance [GENERATED]` prints how many files come out equal."""

from __future__ import annotations

import os
import sys

from tests.conformance import run
from tests.conformance.oracle import NoClient, Oracle, client, version


def main() -> int:
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 320
    try:
        client()
    except NoClient as error:
        print(error, file=sys.stderr)
        return 1
    os.environ["HOME"] = run.ENVIRONMENT["HOME"]
    with Oracle() as oracle:
        written = {
            file.name: run.unlike(file, stack, answer)
            for file, stack, answer in run.answers(oracle, run.WRITTEN)
        }
        generated = run.compare_generated(oracle, wanted)
    for problem in generated.problems:
        print(problem)
    for name, lines in written.items():
        for line in lines:
            print(f"{name}: {line}")
    equal = sum(not lines for lines in written.values())
    print(
        f"{equal} of {len(written)} written files equal,"
        f" {generated.count - len(generated.problems)} of {generated.count} generated (docker {version()})"
    )
    return int(equal < len(written) or bool(generated.problems))


if __name__ == "__main__":
    sys.exit(main())
