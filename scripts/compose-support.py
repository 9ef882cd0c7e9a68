"""Writes docs/compose-support.md from the models and from the conformance tests' table of differences."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

from swarmkit.compose.matrix import Key, keys
from tests.conformance.differences import ACCEPTED, REFUSED, SENT, Difference
from tests.conformance.run import WRITTEN

PATH = Path(__file__).parents[1] / "docs" / "compose-support.md"

_HEAD = """\
# What of Compose works

This file is made by `scripts/compose-support.py` from swarmkit's own models of a Compose file and from the
table of the conformance tests; change those, not this.

swarmkit reads the [Compose Specification](https://compose-spec.io) and turns it into the requests that
`docker stack deploy` sends. The tests put {files} written files, which cover the Compose file format 3.13,
and as many generated ones as wanted through both, the genuine docker client 28 and swarmkit, and compare the
requests: `make conformance` prints how many come out equal. What is meant to differ stands at the end of
this page.

A key that Swarm cannot honour is ignored with a warning that names it, its place and what happens instead.
A key that swarmkit does not take yet is an error, and so is one that nobody knows. `version` and `x-…` keys
mean nothing."""


def text() -> str:
    """The whole page."""
    parts = [_HEAD.format(files=len(WRITTEN)), "\n## Keys"]
    for section, found in itertools.groupby(keys(), key=lambda key: key.section):
        parts += ["", *_section(section, list(found))]
    parts += [
        "\n## Where swarmkit differs from docker stack deploy\n",
        "### In what is sent\n",
        *_differences(SENT, "| What | Why |"),
        "\n### What swarmkit takes and docker refuses\n",
        *_differences(ACCEPTED, "| What | Why |"),
        "\n### What swarmkit refuses and docker sends\n",
        *_differences(REFUSED, "| What | Why |"),
    ]
    return "\n".join(parts) + "\n"


def _section(section: str, found: list[Key]) -> Iterator[str]:
    yield f"### {f'`{section}`' if section else 'The top of the file'}\n"
    if not found:
        yield "It has no keys."
        return
    yield "| Key | swarmkit |"
    yield "|-----|----------|"
    for key in found:
        what = {"supported": "yes", "ignored": "ignored", "not yet": "not yet: an error"}[key.status]
        yield f"| `{key.name}` | {what}{f': {key.note}' if key.note else ''} |"


def _differences(differences: Iterable[Difference], head: str) -> Iterator[str]:
    yield head
    yield "|------|-----|"
    for each in differences:
        yield f"| {_cell(each.what)} | {_cell(each.reason)} |"


def _cell(text: str) -> str:
    return (text[:1].upper() + text[1:].removesuffix(".")).replace("|", "\\|")


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
