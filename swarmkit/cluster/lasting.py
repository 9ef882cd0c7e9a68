"""An engine for an operation of many requests, which outlives the manager it began with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from swarmkit.errors import SwarmkitError, Unreachable
from swarmkit.remote import Engine, EngineError
from swarmkit.remote.engine import Params
from swarmkit.swarm import filters
from swarmkit.waiting import POLL_SECONDS

T = TypeVar("T")

# How long a request is made again. The managers that are left choose a leader 10 to 20 s after they have
# lost theirs (moby/swarmkit, manager/state/raft, ElectionTick), and it takes some seconds to be one.
PATIENCE_SECONDS = 45.0


class LastingEngine(Engine):
    """A manager's engine for an operation of many requests, which outlives the manager.

    A request that finds the managers without a leader is made again for PATIENCE_SECONDS, and so is one that
    gets no answer, through the engine that `another` gives; after that, none is. It may have been carried out
    the first time. So what was to be created is looked for by its name and labels, an update may be
    `is_stale`, and what was to be removed may be gone (404).
    """

    def __init__(
        self,
        first: Engine,
        another: Callable[[], Engine],
        warn: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(first.api, first.name)
        self._another = another
        self._warn = warn
        self._clock = clock
        self._sleep = sleep
        self._changing = threading.Lock()
        self._has_given_up = False

    def get(
        self, path: str, params: Params | None = None, *, headers: Mapping[str, str] | None = None
    ) -> Any:
        return self._lasting(lambda _again: Engine.get(self, path, params, headers=headers))

    def post(
        self,
        path: str,
        body: object = None,
        params: Params | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        def send(again: bool) -> Any:
            try:
                return Engine.post(self, path, body, params, headers=headers)
            except EngineError as error:
                kind, _, verb = path.rpartition("/")
                if not again or error.status != 409 or verb != "create" or not isinstance(body, Mapping):
                    raise
                if (made := self._found(kind, body)) is None:
                    raise
                return made

        return self._lasting(send)

    def delete(self, path: str, params: Params | None = None) -> None:
        self._lasting(lambda _again: Engine.delete(self, path, params))

    def _lasting(self, request: Callable[[bool], T]) -> T:
        since: float | None = None
        while True:
            api = self.api
            try:
                return request(since is not None)
            except (EngineError, Unreachable) as error:
                if isinstance(error, EngineError) and not error.is_leaderless:
                    raise
                now = self._clock()
                since = now if since is None else since
                self._has_given_up = self._has_given_up or now - since > PATIENCE_SECONDS
                if self._has_given_up:
                    raise
                is_lost = isinstance(error, Unreachable)
            self._sleep(POLL_SECONDS)
            if is_lost:
                self._change(api)

    def _change(self, lost: object) -> None:
        """Go on through another manager, unless another thread has seen to it, or none answers yet."""
        with self._changing:
            if self.api is not lost:
                return
            try:
                found = self._another()
            except SwarmkitError:
                return
            if found.api is not lost:
                self._warn(f"{self.name} is lost; going on through {found.name}")
                self.api, self.name = found.api, found.name

    def _found(self, kind: str, body: Mapping[str, Any]) -> Any:
        """What was made of a body: the thing of its name, if it has its labels too."""
        for one in Engine.get(self, kind, filters(name=body["Name"])):
            held = one.get("Spec", one)
            if held["Name"] == body["Name"] and (held.get("Labels") or {}) == (body.get("Labels") or {}):
                return one
        return None
