"""Files through the genuine client and through swarmkit, and what of the two is unlike."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from swarmkit.errors import SwarmkitError
from tests.conformance import compare
from tests.conformance.generate import compose_files, keys_of
from tests.conformance.oracle import Answer, Oracle

FOLDER = Path(__file__).parent
WRITTEN = sorted((FOLDER / "files").glob("*.yml"))
# All that a file's variables are filled in from, on both sides.
ENVIRONMENT: Mapping[str, str] = {
    "HOME": "/home/someone",
    "SET": "value",
    "EMPTY": "",
    "NUMBER": "4",
    "YES": "yes",
    "NO": "no",
    "RATIO": "0.25",
    "MODE": "0444",
}
# Files that go through clients side by side.
BATCH = 8
# More than the cores of a machine: a client waits for the server most of its time.
THREADS = 4

_stacks = itertools.count()


def answers(oracle: Oracle, files: Iterable[Path]) -> list[tuple[Path, str, Answer]]:
    """What docker does with each file, under a stack's name of its own."""
    named = [(file, f"s{next(_stacks)}") for file in files]
    with ThreadPoolExecutor(THREADS) as pool:
        done = pool.map(lambda each: oracle.deploy(each[0], each[1], ENVIRONMENT), named)
        return [(file, stack, answer) for (file, stack), answer in zip(named, done, strict=True)]


def unlike(file: Path, stack: str, answer: Answer) -> list[str]:
    """Each place where swarmkit would send something else than docker sent; lines for people."""
    if answer.refused:
        return [f"docker refuses it: {answer.said}"]
    try:
        ours, _ = compare.ours(file, stack, ENVIRONMENT)
    except SwarmkitError as error:
        return [f"swarmkit refuses it: {error}"]
    return compare.unlike(compare.normal(answer.bodies), compare.normal(ours))


@dataclass
class Compared:
    """Generated files that went through both: how many, where some are unlike, and the keys they had."""

    count: int = 0
    problems: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)


def compare_generated(oracle: Oracle, count: int, *, derandomize: bool = False) -> Compared:
    """Compare `count` files, or a few more; with `derandomize` they are the same ones each time."""
    done = Compared()

    @settings(
        max_examples=-(-count // BATCH),
        deadline=None,
        derandomize=derandomize,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(st.lists(compose_files(), min_size=BATCH, max_size=BATCH))
    def compare_batch(batch: list[dict[str, Any]]) -> None:
        done.count += len(batch)
        done.problems += generated(oracle, batch)
        done.keys.update(*(keys_of(data) for data in batch))

    compare_batch()
    return done


def generated(oracle: Oracle, batch: Iterable[dict[str, Any]]) -> list[str]:
    """For each generated file that is unlike, where, and the file."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "data").symlink_to(FOLDER / "files" / "data")
        paths = []
        for number, data in enumerate(batch):
            path = Path(folder) / f"{number}.yml"
            # As JSON, where no name looks like a number.
            path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
            paths.append(path)
        return [
            "\n".join([*lines, file.read_text(encoding="utf-8")])
            for file, stack, answer in answers(oracle, paths)
            if (lines := unlike(file, stack, answer))
        ]
