"""Finding out why tasks do not run: what the node, the log and the registry know beside the managers.

Nothing here waits long: an explanation with a part missing is better than none.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from swarmkit.errors import SwarmkitError
from swarmkit.images.credentials import Credentials
from swarmkit.remote import Engine, EngineError, Fleet
from swarmkit.services.explain import LOG_LINES, Evidence, Explanation, View, explain, halted, troubled
from swarmkit.services.placement import rooms
from swarmkit.swarm import Node, Service, Task, find_service, nodes, services, tasks
from swarmkit.ui import Ui

# How long all the questions about one service may take together.
PATIENCE_SECONDS = 6.0
# So many tasks of a service are looked at; more of them say the same.
EXAMINED = 3


class Examiner:
    """Explains what does not run, asking the managers' `engine` and, where there is one, the `fleet`."""

    def __init__(self, engine: Engine, fleet: Fleet | None = None) -> None:
        self._engine = engine
        self._fleet = fleet

    def view(self) -> View:
        """The swarm as it is now."""
        known, every = nodes(self._engine), services(self._engine)
        running = [Task.of(raw) for raw in self._engine.get("/tasks")]
        return View(known, rooms(known, running, every), every)

    def explain(self, service: Service, current: Sequence[Task], view: View) -> list[Explanation]:
        """Why tasks of a service do not run, the newest trouble first, each reason once.

        `current` are the tasks of its present spec. Empty where nothing is wrong.
        """
        newest_first = sorted(troubled(service, current), key=lambda task: task.changed, reverse=True)
        found: dict[str, Explanation] = {}
        examined = newest_first[:EXAMINED]
        evidence = self._gather(service, examined, view)
        for task in newest_first:
            one = explain(service, task, view, evidence.get(task.id))
            found.setdefault(one.reason, one)
        return list(found.values())

    def _gather(self, service: Service, some: Sequence[Task], view: View) -> dict[str, Evidence]:
        """What is found out of each task (by id) within PATIENCE_SECONDS, all at the same time."""
        found = {
            task.id: Evidence(unread="its node did not answer in time" if task.container_id else "")
            for task in some
        }
        lock = threading.Lock()

        def learn(task: Task, question: Callable[[], dict[str, object]]) -> None:
            with suppress(SwarmkitError):
                answer = question()
                with lock:
                    found[task.id] = replace(found[task.id], **answer)  # type: ignore[arg-type]

        threads = [
            threading.Thread(target=learn, args=(task, question), daemon=True)
            for task in some
            for question in self._questions(service, task, view)
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + PATIENCE_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        with lock:
            return dict(found)

    def _questions(self, service: Service, task: Task, view: View) -> list[Callable[[], dict[str, object]]]:
        questions: list[Callable[[], dict[str, object]]] = []
        if task.container_id:
            node = next((node for node in view.nodes if node.id == task.node_id), None)
            questions.append(lambda: self._state(task, node))
            # A terminal's output comes without the frames that the others have.
            if not service.spec["TaskTemplate"]["ContainerSpec"].get("TTY"):
                questions.append(lambda: {"log": self._log(task)})
        if "no such image" in task.error.lower():
            questions.append(lambda: self._registry(task.image))
        return questions

    def _state(self, task: Task, node: Node | None) -> dict[str, object]:
        try:
            engine = self._engine_of(node)
            return {"state": engine.get(f"/containers/{task.container_id}/json")["State"]}
        except EngineError as error:
            gone = "its container is gone" if error.status == 404 else error.message
            return {"unread": gone}
        except SwarmkitError as error:
            return {"unread": error.message}

    def _engine_of(self, node: Node | None) -> Engine:
        """The engine of a node; raises SwarmkitError where there is no way to it."""
        if node is None:
            raise SwarmkitError("its node is no longer in the swarm")
        if self._fleet is not None:
            host = next((host for host in self._fleet.inventory.hosts if host.name == node.name), None)
            if host is not None:
                return self._fleet.engine(host)
        if self._engine.get("/info")["Swarm"].get("NodeID") == node.id:
            return self._engine
        raise SwarmkitError(f"{node.name} cannot be reached from here (an inventory names the way)")

    def _log(self, task: Task) -> list[str]:
        wanted = {"stdout": True, "stderr": True, "tail": LOG_LINES}
        frames = self._engine.frames(f"/tasks/{task.id}/logs", wanted)
        text = b"".join(payload for _, payload in frames).decode(errors="replace")
        return [line.rstrip() for line in text.split("\n") if line.strip()][-LOG_LINES:]

    def _registry(self, image: str) -> dict[str, object]:
        """What the registry says that the managers' engine asks for the image, as `stack up` would."""
        headers = Credentials.read(os.environ).headers(image)
        said = ""
        try:
            self._engine.get(f"/distribution/{image}/json", headers=headers)
        except EngineError as error:
            said = error.message
        return {"registry": said, "logged_in": bool(headers)}


@dataclass(frozen=True)
class Standing:
    """Where a service stands: how many of the `desired` tasks run, and have completed; what is wrong."""

    service: str
    running: int
    completed: int
    desired: int
    problems: Sequence[Explanation]

    def json(self) -> dict[str, Any]:
        """As `service explain -o json` shows it."""
        counts = {"running": self.running, "completed": self.completed, "desired": self.desired}
        return {"service": self.service, **counts, "problems": [one.json() for one in self.problems]}

    def show(self, ui: Ui) -> None:
        """In words."""
        done = f"{self.completed} of {self.desired} completed" if self.completed else ""
        counts = ", ".join(filter(None, [f"{self.running} of {self.desired} run", done]))
        if not self.problems:
            ui.line(f"{self.service}: nothing wrong: {done or counts}")
            return
        ui.line(f"{self.service}: {counts}")
        for one in self.problems:
            ui.line(f"{one.task}: {one.reason}")
            for line in one.details:
                ui.line(f"  | {line}")
            if one.hint:
                ui.line(f"  {one.hint}")


def explain_service(engine: Engine, fleet: Fleet | None, name: str) -> Standing:
    """Where a service, or one task of it (`NAME.SLOT`), stands right now.

    Raises UsageError where no service is called so.
    """
    examiner = Examiner(engine, fleet)
    view = examiner.view()
    service, slot = _meant(view.services, name)
    current = [task for task in present(engine, service) if slot is None or service.place(task) == slot]
    ended = {service.place(task) for task in current if task.state == "complete"}
    desired = service.completions or max(service.desired, len(ended)) if service.is_job else service.desired
    desired = desired if slot is None else 1
    running = sum(task.state == "running" and task.desired in ("running", "complete") for task in current)
    problems = examiner.explain(service, current, view)
    if running < desired and (halt := halted(service)):
        problems.append(halt)
    return Standing(
        name if slot is not None else service.name,
        running,
        0 if service.restarts_always else len(ended),
        desired,
        problems,
    )


def _meant(known: Sequence[Service], name: str) -> tuple[Service, int | None]:
    """The service of `web`, or the service and slot of `web.2`."""
    whole, dot, number = name.rpartition(".")
    if dot and number.isascii() and number.isdigit() and not any(one.name == name for one in known):
        return find_service(known, whole), int(number)
    return find_service(known, name), None


def present(engine: Engine, service: Service) -> list[Task]:
    """The tasks of a service's present spec; of a job, those of its present run."""
    if service.is_job:
        return [one for one in tasks(engine, [service.id]) if one.iteration == service.iteration]
    return tasks(engine, [service.id], up_to_date=True)
