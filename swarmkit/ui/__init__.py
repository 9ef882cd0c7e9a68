"""What the user sees: results on standard output, progress and errors on standard error.

With `--output json` standard output holds exactly one JSON document. Colour and live lines appear on
a terminal only. rich is imported where it is used: it costs more than most commands' own work.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TextIO

from swarmkit.errors import NotConverged, Problems, SwarmkitError

if TYPE_CHECKING:
    from rich.console import Console


class Output(StrEnum):
    """The form of results."""

    TEXT = "text"
    JSON = "json"


class Ui:
    """Prints for people or for programs; the one place that writes to the standard streams."""

    def __init__(
        self,
        output: Output = Output.TEXT,
        verbose: bool = False,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
    ) -> None:
        self.output = output
        self.verbose = verbose
        self._stdout = stdout or sys.stdout
        self._stderr = stderr or sys.stderr
        self._live: Console | None = None

    @property
    def is_json(self) -> bool:
        return self.output is Output.JSON

    @property
    def has_colour(self) -> bool:
        """Whether results may be coloured: on a terminal that can, unless NO_COLOR says not to."""
        return (
            self._stdout.isatty()
            and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM", "dumb") != "dumb"
        )

    def say(self, text: str) -> None:
        """A line of progress."""
        if self._live is not None:
            # Above the line that changes; printed past it, the two would be mixed up.
            self._live.print(text, markup=False, soft_wrap=True)
        else:
            print(text, file=self._stderr, flush=True)

    def warn(self, text: str) -> None:
        """A line that must not be overlooked."""
        self.say(f"warning: {text}")

    def debug(self, text: str) -> None:
        """A line for those who asked with `-v`."""
        if self.verbose:
            self.say(text)

    def result(self, document: Any, text: Callable[[], None] | str | None = None) -> None:
        """The command's result: `document` as JSON, or `text` (a line, or what prints it)."""
        if self.is_json:
            print(json.dumps(document, indent=2, ensure_ascii=False), file=self._stdout, flush=True)
        elif callable(text):
            text()
        elif text is not None:
            self.line(text)

    def line(self, text: str = "") -> None:
        """A line of a result."""
        print(text, file=self._stdout, flush=True)

    def raw(self, text: str) -> None:
        """Text of a result exactly as it is, such as a container's own log."""
        self._stdout.write(text)
        self._stdout.flush()

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str = "none") -> None:
        """A table without borders; `empty` where there are no rows."""
        if not rows:
            self.line(empty)
            return
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, no_wrap=True, overflow="ignore")
        for row in rows:
            table.add_row(*(Text(str(cell)) for cell in row))
        self._console(self._stdout, wide=True).print(table)

    def error(self, error: SwarmkitError) -> None:
        """An error: JSON on standard output where that was asked for, and lines on standard error."""
        errors = error.errors if isinstance(error, Problems) else [error]
        if self.is_json:
            documents = [
                {"code": int(each.exit), "message": each.message, "where": each.where, "hint": each.hint}
                | (
                    {"rolled_back": each.rolled_back, "details": list(each.details)}
                    if isinstance(each, NotConverged)
                    else {}
                )
                for each in errors
            ]
            self.result({"error": {**documents[0], "code": int(error.exit)}, "errors": documents})
        seen_hints: set[str] = set()
        for each in errors:
            self.say(f"error: {each}")
            for line in each.details if isinstance(each, NotConverged) else ():
                self.say(f"  | {line}")
            if each.hint and each.hint not in seen_hints:
                self.say(f"  {each.hint}")
                seen_hints.add(each.hint)

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Lines that change as work goes on; on anything but a terminal that can, a line a change."""
        # rich is not imported for a terminal that there is not.
        console = self._console(self._stderr) if self._stderr.isatty() and self._live is None else None
        if console is None or not console.is_interactive:
            yield Progress(self.say, self.debug)
            return
        from rich.console import Group
        from rich.text import Text

        self._live = console
        try:
            with console.status("") as status:

                def draw(text: str) -> None:
                    lines = "\n".join(line.removeprefix("  ") for line in text.splitlines())
                    # As text, or brackets in it would be taken for rich's markup; in a group, or the lines
                    # would be joined with the spinner's, and wrapped.
                    status.update(Group(Text(lines, no_wrap=True, overflow="ellipsis")))

                yield Progress(draw, draw, rows=lambda: console.size.height)
        finally:
            self._live = None

    @contextmanager
    def timed(self) -> Iterator[Callable[[], float]]:
        """Gives a function that tells the seconds since the block began, to a hundredth."""
        start = time.monotonic()
        yield lambda: round(time.monotonic() - start, 2)

    @staticmethod
    def _console(stream: TextIO, wide: bool = False) -> Console:
        from rich.console import Console

        console = Console(file=stream, highlight=False, markup=False)
        # A table in a pipe or a file must not be cut at 80 columns.
        return (
            console if console.is_terminal or not wide else Console(file=stream, highlight=False, width=400)
        )


class Progress:
    """Shows the latest state of something long; equal states are shown once.

    On a terminal of so many `rows` a state is drawn over the one before, and may have several lines.
    """

    def __init__(
        self,
        show: Callable[[str], None],
        show_detail: Callable[[str], None],
        *,
        rows: Callable[[], int] | None = None,
    ) -> None:
        self.rows = rows
        self._show = show
        self._show_detail = show_detail
        self._last = ""

    def update(self, text: str) -> None:
        """A state that everyone sees."""
        if text != self._last:
            self._last = text
            self._show(text)

    def detail(self, text: str) -> None:
        """A state that passes by on a terminal, and is kept only for those who asked with `-v`."""
        self._show_detail(text)


def key_values(values: Mapping[str, str]) -> str:
    """`{"a": "1", "b": "2"}` as `a=1 b=2`, for a cell of a table."""
    return " ".join(f"{key}={value}" for key, value in sorted(values.items()))
