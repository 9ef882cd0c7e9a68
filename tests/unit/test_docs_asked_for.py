"""The page of what people have asked for: each row has a test, named after a thread of the row."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_what_people_asked_for_has_tests_that_are_named_after_it() -> None:
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
    }
    rows = [line for line in (ROOT / "docs/asked-for.md").read_text().splitlines() if "#" in line[1:]]
    assert len(rows) > 10
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row)
        assert set(named) <= defined, row
        assert any(f"_{number}_" in name for number in re.findall(r"#(\d+)\]", row) for name in named), row
