"""Logs of services, from whichever nodes their tasks are on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from swarmkit.remote import Engine
from swarmkit.swarm import Service, nodes, tasks
from swarmkit.ui import Ui


@dataclass(frozen=True)
class LogLine:
    """One line of a task's log; `time` is RFC 3339 as the engine gives it."""

    time: str
    source: str
    node: str
    text: str


def log_lines(engine: Engine, services: Sequence[Service], tail: int) -> list[LogLine]:
    """The last `tail` lines of each task of the services, by time."""
    names = {node.id: node.name for node in nodes(engine)}
    by_id = {task.id: task for task in tasks(engine, [service.id for service in services])}
    wanted = {"stdout": True, "stderr": True, "timestamps": True, "details": True, "tail": tail}
    lines: list[LogLine] = []
    for service in services:
        for frame in engine.frames(f"/services/{service.id}/logs", wanted):
            # Only the end of a line ends it: a progress bar's carriage returns are its own.
            for raw in frame.decode(errors="replace").removesuffix("\n").split("\n"):
                time, _, rest = raw.partition(" ")
                details, _, text = rest.partition(" ")
                task = by_id.get(_detail(details, "task.id"))
                place = task.slot if task and task.slot is not None else _detail(details, "task.id")[:8]
                node = names.get(_detail(details, "node.id"), "")
                lines.append(LogLine(time, f"{service.name}.{place}", node, text))
    return sorted(lines, key=lambda line: line.time)


def _detail(details: str, key: str) -> str:
    """A value of `com.docker.swarm.KEY=value,…`, which the engine puts before each line."""
    for pair in details.split(","):
        name, _, value = pair.partition("=")
        if name == f"com.docker.swarm.{key}":
            return value
    return ""


def show_logs(ui: Ui, lines: Sequence[LogLine]) -> None:
    """Print lines with the task and node that they come from; in JSON, a list."""

    def text() -> None:
        for line in lines:
            ui.line(f"{line.source}@{line.node} | {line.text}")

    ui.result([asdict(line) for line in lines], text)
