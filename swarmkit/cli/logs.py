"""What `service logs` and `stack logs` share: their options, and the showing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from swarmkit.cli.common import Globals
from swarmkit.errors import Exit, UsageError

if TYPE_CHECKING:
    from swarmkit.swarm import Service
    from swarmkit.target import Swarm

Follow = Annotated[bool, typer.Option("-f", "--follow", help="Go on with what is written, until Ctrl-C.")]
Since = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="From then on: 10m ago, or RFC 3339.")
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Up to then: 10m ago, or RFC 3339.")
]
Tail = Annotated[
    str | None,
    typer.Option(
        "--tail",
        metavar="N|all",
        help="The last lines of each task; 100 by default, all with --since or --until.",
    ),
]
Timestamps = Annotated[bool, typer.Option("-t", "--timestamps", help="With the time of each line.")]

_TAIL = 100


def show_logs(
    given: Globals,
    find: Callable[[Swarm], Sequence[Service]],
    follow: bool,
    since: str | None,
    until: str | None,
    tail: str | None,
    timestamps: bool,
    joins: Callable[[Service], bool] = lambda _: False,
) -> None:
    """Print the logs of the services that `find` gives; following, until they are gone or on Ctrl-C.

    Following, services that are added later are shown too if each `joins`.
    """
    from swarmkit.remote import Secrets
    from swarmkit.services import logs
    from swarmkit.swarm import moment
    from swarmkit.target import opened, resolve

    if follow and until is not None:
        raise UsageError("to follow has no end; leave one of them out", where="--follow, --until")
    lines = _tail(tail, whole=since is not None or until is not None)
    target, ui, secrets = resolve(given.inventory, given.engine), given.ui, Secrets()
    with opened(target, ui, secrets=secrets) as swarm:
        # The nodes' clocks count, and the manager's is more likely to be theirs than ours is.
        now = moment(swarm.engine.get("/info")["SystemTime"])
        wanted = logs.Range(
            lines,
            since=logs.when(since, now, "--since") if since is not None else None,
            until=logs.when(until, now, "--until") if until is not None else None,
        )
        services = find(swarm)
        if not follow:
            logs.show(
                ui, logs.past(swarm.engine, services, wanted, ui.warn), follow=False, timestamps=timestamps
            )
            return

        try:
            coming = logs.follow(
                swarm, lambda: opened(target, ui, secrets=secrets), services, wanted, ui.warn, joins
            )
            logs.show(ui, coming, follow=True, timestamps=timestamps)
        except KeyboardInterrupt:
            # It has done what was asked for: there is nothing to say.
            sys.exit(Exit.INTERRUPTED)


def _tail(text: str | None, *, whole: bool) -> int | None:
    """A number of lines, None for all; raises UsageError for anything else."""
    if text is None:
        return None if whole else _TAIL
    if text == "all":
        return None
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f'expected a number of lines, or all, got "{text}"', where="--tail")
    return int(text)
