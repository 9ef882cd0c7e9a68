"""What people see on a terminal."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Sequence

import pytest

from swarmkit.errors import NotConverged
from swarmkit.ui import Output, Ui


class Terminal(io.StringIO):
    """A stream that takes itself for a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_takes_brackets_for_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    ui = Ui(Output.TEXT, stderr=screen)
    with ui.progress() as shown:
        shown.update("waiting: no such image [/nowhere] [red]")
        ui.say("a line [/b] meanwhile")
    ui.say("and one after")
    said = screen.getvalue()
    assert "a line [/b] meanwhile" in said
    assert "and one after" in said


def test_progress_within_progress_is_said_and_not_drawn() -> None:
    screen = Terminal()
    ui = Ui(Output.TEXT, stderr=screen)
    with ui.progress(), ui.progress() as inner:
        inner.update("inner state")
    assert "inner state" in screen.getvalue()


class Screen(Terminal):
    """What a terminal of a few rows shows; `history` are the lines that have scrolled away."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns
        self.lines, self.history = [""], list[str]()
        self.row = self.column = 0

    def write(self, text: str) -> int:
        for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|.", text, re.DOTALL):
            match part:
                case "\n":
                    self._down()
                case "\r":
                    self.column = 0
                case "\x1b[2K":
                    self.lines[self.row] = ""
                case _ if part.endswith("A") and part.startswith("\x1b"):
                    up = int(part[2:-1] or 1)
                    assert up <= self.row, "drawn over what is above the screen"
                    self.row -= up
                case _ if not part.startswith("\x1b"):
                    if self.column == self.columns:
                        self._down()
                    line = self.lines[self.row].ljust(self.column)
                    self.lines[self.row] = line[: self.column] + part + line[self.column + 1 :]
                    self.column += 1
        return len(text)

    def _down(self) -> None:
        self.row, self.column = self.row + 1, 0
        if self.row == len(self.lines):
            self.lines.append("")
        if len(self.lines) > self.rows:
            self.history.append(self.lines.pop(0))
            self.row -= 1


@pytest.mark.parametrize(("rows", "columns"), [(24, 80), (10, 40)])
def test_what_is_drawn_stays_in_its_place_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, rows: int, columns: int
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", str(rows))
    screen = Screen(rows, columns)
    ui = Ui(Output.TEXT, stderr=screen)

    def shows(state: Sequence[str]) -> bool:
        return all(any(line[2:] == one for line in list(screen.lines)) for one in state)

    with ui.progress() as shown:
        assert shown.rows is not None
        assert shown.rows() == rows
        for turn in range(3):
            lines = [f"  web{n}  {turn} of 3 tasks run: {'preparing on wn1 ' * 5}" for n in range(rows - 1)]
            shown.update("\n".join(lines))
            expected = [f"{line[2:][: columns - 3]}…" for line in lines]
            deadline = time.monotonic() + 10
            while not shows(expected):
                assert time.monotonic() < deadline, screen.lines
                time.sleep(0.01)
            ui.say(f"said {turn}")
    ui.say("done")
    assert [line for line in screen.history + screen.lines if line.strip()] == [
        "said 0",
        "said 1",
        "said 2",
        "done",
    ]


def test_a_terminal_on_which_nothing_can_be_drawn_is_told_in_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    screen = Terminal()
    with Ui(Output.TEXT, stderr=screen).progress() as shown:
        assert shown.rows is None
        shown.update("  web: 1 of 1 tasks run")
    assert screen.getvalue() == "  web: 1 of 1 tasks run\n"


def test_the_details_of_a_failure_are_lines_and_a_list() -> None:
    failed = NotConverged(
        "0 of 1 tasks run: exit 3", where="web", hint="look", details=["its log:", "  oops"]
    )
    screen, out = io.StringIO(), io.StringIO()
    Ui(Output.JSON, stdout=out, stderr=screen).error(failed)
    assert screen.getvalue().splitlines() == [
        "error: web: 0 of 1 tasks run: exit 3",
        "  | its log:",
        "  |   oops",
        "  look",
    ]
    assert json.loads(out.getvalue())["errors"][0]["details"] == ["its log:", "  oops"]
