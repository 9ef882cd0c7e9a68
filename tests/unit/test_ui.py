"""What people see on a terminal."""

from __future__ import annotations

import io
import json

from swarmkit.errors import NotConverged
from swarmkit.ui import Output, Ui


class Terminal(io.StringIO):
    """A stream that takes itself for a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_takes_brackets_for_what_they_are() -> None:
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


def test_progress_on_a_terminal_may_have_several_lines() -> None:
    screen = Terminal()
    with Ui(Output.TEXT, stderr=screen).progress() as shown:
        assert shown.is_live
        shown.update("web  1 of 3 tasks run\n  db   1 of 1 tasks run: there")
    assert "web  1 of 3 tasks run" in screen.getvalue()
    assert "db   1 of 1 tasks run: there" in screen.getvalue()


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
