"""Carrying out a stack's plan, the waiting for it, and the way back where it does not come true."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from swarmkit.cluster.lock import Holder, Lock
from swarmkit.deploy import history
from swarmkit.deploy.down import remove
from swarmkit.deploy.history import Revision
from swarmkit.deploy.observe import observe
from swarmkit.deploy.options import Options, locked_stack
from swarmkit.deploy.plan import (
    Change,
    Dependencies,
    LiveStack,
    Plan,
    before_it,
    name_of,
    plan_return,
    result,
)
from swarmkit.deploy.prepare import Prepared
from swarmkit.deploy.report import describe
from swarmkit.deploy.scope import services_in, title, way_back
from swarmkit.deploy.send import Sender
from swarmkit.errors import NotConverged, OperationFailed, Problems, SwarmkitError, raise_all
from swarmkit.remote import Engine, Fleet, is_cut_off, while_stale
from swarmkit.services.converge import Watch, baseline, converge, pace_seconds
from swarmkit.services.drain import settle
from swarmkit.swarm import Service
from swarmkit.ui import Ui
from swarmkit.waiting import wait_for

Hook = Callable[[Sequence[Change]], object]


def _nothing(_: Sequence[Change]) -> None:
    """Where nothing else has to be done."""


def carry_out(
    engine: Engine,
    ui: Ui,
    prepared: Prepared,
    options: Options,
    fleet: Fleet | None = None,
    *,
    before_services: Hook = _nothing,
) -> Plan:
    """Make the changes; ends when every service of the stack runs and is healthy.

    Where that fails the stack returns to what it was, unless told not to. Returns the plan that was
    carried out: another command may have changed the stack since it was prepared. `fleet` lets reasons
    for failures be looked up on the nodes. `before_services` is called with the changes of services before
    the first of them is sent, once the secrets that they need are made; but not on the way back. Moves of
    tasks that were cut off are undone first, each in a moment in which no slot loses the task that runs.

    Raises OperationFailed where somebody else is at work on the stack, or the plan has to make something
    again and may not; NotConverged (or Problems) where services do not come up in time, or a step fails.
    """
    if not prepared.plan.changes and prepared.live.unfinished() is None:
        ids = [one.id for one in services_in(engine, prepared.stack) if one.name in prepared.services]
        converge(engine, ids, ui, timeout=options.timeout, before=baseline(engine), fleet=fleet)
        return prepared.plan
    with locked_stack(engine, ui, prepared.stack, options) as lock:
        live = observe(engine, prepared.stack)
        if live.moved:
            ui.say(f"  undoing what was cut off: {', '.join(sorted(live.moved))}")
            settle(engine, [one["ID"] for one in live.services if name_of(one) in live.moved])
            live = observe(engine, prepared.stack)
        plan = prepared.planner(live)
        if plan.recreates and not options.recreate:
            raise OperationFailed(
                "the stack has changed meanwhile, and the plan has to make something again",
                where=title(prepared.stack),
                hint="look at it with --dry-run",
            )
        _Run(engine, ui, prepared, options, lock, fleet, before_services).deploy(live, plan)
        return plan


@dataclass(frozen=True)
class _Run:
    """One deployment under its lock."""

    engine: Engine
    ui: Ui
    prepared: Prepared
    options: Options
    lock: Lock
    fleet: Fleet | None
    before_services: Hook

    def deploy(self, live: LiveStack, plan: Plan) -> None:
        stack = self.prepared.stack
        # What was left half-done is now part of this deployment, and returns to where that one began.
        left = [revision for revision in live.revisions if revision.is_open]
        revision = None
        if left or plan.makes_revision:
            revision = history.begin(self.engine, stack, self._revision(live, plan))
            history.forget(self.engine, left)
        try:
            self._reach(plan, revision)
        except KeyboardInterrupt:
            self._left_half_done()
            raise
        if revision is not None:
            history.close(self.engine, stack, revision)
            done = [one for one in live.revisions if not one.is_open]
            history.forget(self.engine, done[: -history.REVISIONS_KEPT + 1])
        self._remove(plan, early=False)

    def _reach(self, plan: Plan, revision: Revision | None) -> None:
        """Ends when the stack is what the plan says; where it is again what it was, raises."""
        try:
            sender = self._sender(self.prepared.wanted, self.prepared.services)
            self._make(plan, sender, self.before_services)
            self._converge(sender)
        except SwarmkitError as error:
            # Somebody who has broken our lock is at work now.
            self.lock.check()
            if is_cut_off(error):
                self._left_half_done()
                raise
            if revision is None or not self.options.rollback:
                raise
            self._return(revision, error)

    def _left_half_done(self) -> None:
        self.ui.warn(f"left half-done: run it again to complete it, or: {way_back(self.prepared.stack)}")

    def _revision(self, live: LiveStack, plan: Plan) -> Revision:
        return Revision(
            number=live.revisions[-1].number + 1 if live.revisions else 1,
            who=Holder.us("").who,
            doing=self.options.doing,
            changes=[describe(change) for change in plan.changes],
            before=live.before(),
            after=result(live, plan, self.prepared.wanted),
            is_open=True,
        )

    def _sender(self, wanted: Dependencies, names: frozenset[str], *, insist: bool = False) -> Sender:
        return Sender(
            self.engine,
            self.ui,
            self.lock,
            self.prepared.credentials,
            self.fleet,
            self.prepared.stack,
            wanted,
            names,
            Watch(baseline(self.engine)),
            self.options.timeout,
            insist,
        )

    def _make(
        self,
        plan: Plan,
        sender: Sender,
        before_services: Hook = _nothing,
    ) -> None:
        """All but the removals at the end."""
        self._remove(plan, early=True)
        sent = [change for change in plan.changes if change.action != "remove"]
        sender.things([change for change in sent if change.kind != "service"])
        changed = [change for change in sent if change.kind == "service"]
        before_services(changed)
        sender.services(changed)

    def _converge(self, sender: Sender, started: float | None = None) -> None:
        """Ends when the services that are to run do, within the time that began then, or with the sending."""
        ids = [one.id for one in services_in(self.engine, self.prepared.stack) if one.name in sender.names]
        converge(
            self.engine,
            ids,
            self.ui,
            timeout=self.options.timeout,
            before=sender.watch.before,
            fleet=self.fleet,
            started=sender.started if started is None else started,
            is_paced=True,
        )

    def _remove(self, plan: Plan, *, early: bool) -> None:
        gone = [change for change in plan.changes if change.action == "remove" and change.early is early]
        remove(self.engine, self.ui, self.lock, gone, self.options.timeout)

    def _return(self, revision: Revision, error: SwarmkitError) -> None:
        """Put back what was there; always raises, with what has gone wrong first."""
        stack = self.prepared.stack
        for each in _each(error):
            self.ui.say(f"  failed: {each}")
        self.ui.say(f"returning {title(stack)} to what it was")
        try:
            sender = self._restore(revision)
            history.forget(self.engine, [one for one in observe(self.engine, stack).revisions if one.is_open])
        except SwarmkitError as second:
            hint = f"{way_back(stack)} tries again"
            failure = OperationFailed(
                f"could not be returned to what it was: {second}", where=title(stack), hint=hint
            )
            raise Problems([error, failure]) from None
        errors = list(_rolled_back(error))
        try:
            self._converge(sender, time.monotonic())
        except SwarmkitError as second:
            errors.append(
                NotConverged(
                    f"it is what it was, and that does not run either: {second}",
                    where=title(stack),
                    rolled_back=True,
                )
            )
        raise_all(errors)

    @while_stale
    def _restore(self, revision: Revision) -> Sender:
        """Make the stack what it was before the revision; whether that runs is another question."""
        stack = self.prepared.stack

        def rolling() -> list[Service]:
            found = services_in(self.engine, stack)
            return [one for one in found if one.update_state == "rollback_started"]

        # What the swarm rolls back by itself comes to its end first, or that would look like a failure.
        wait_for(
            lambda: not rolling(),
            self.options.timeout + max((pace_seconds(one, one.desired) for one in rolling()), default=0.0),
            lambda: NotConverged("the swarm still rolls back services", where=title(stack)),
        )
        live = observe(self.engine, stack)
        to = before_it(revision, live)
        plan = plan_return(stack, to, live)
        sender = self._sender(to.depends_on, frozenset(to.services), insist=True)
        self._make(plan, sender)
        self._remove(plan, early=False)
        return sender


def _each(error: SwarmkitError) -> Sequence[SwarmkitError]:
    return error.errors if isinstance(error, Problems) else [error]


def _rolled_back(error: SwarmkitError) -> Iterator[NotConverged]:
    """The errors of a deployment that was taken back, each saying so."""
    for each in _each(error):
        found = (
            each
            if isinstance(each, NotConverged)
            else NotConverged(each.message, where=each.where, hint=each.hint)
        )
        found.rolled_back = True
        yield found
