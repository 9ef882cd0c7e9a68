"""What people see on a terminal."""

from __future__ import annotations

import io

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
