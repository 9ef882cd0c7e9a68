"""When the controller reads the swarm again, and when proxies get a new configuration. Pure.

Swarm tells of changes to services and nodes, never of tasks (moby, daemon/cluster/events.go): those have to
be asked for. That is done often where something is on its way, and never so often that it would cost the
manager more than a fraction of its time.
"""

from __future__ import annotations

from collections.abc import Sequence

from swarmkit.swarm import Service, Task

# Seconds between two readings: of services whose tasks are changing, and of all.
HURRIED_SECONDS = 0.1
CALM_SECONDS = 1.0
# The same as multiples of what a reading takes: a fifth of the time at most, and a tenth.
_HURRIED_SHARE, _CALM_SHARE = 5, 10
# An order to the swarm shows in its tasks within so long.
ORDER_SECONDS = 5.0
# What has not changed for so long, though it should, waits for something else: an image, or room on a node.
_STUCK_SECONDS = 60.0
# Between two configurations, and from the first of several changes to the configuration with all of them.
_APART_SECONDS = 0.2
_GATHER_SECONDS = 0.05

_CHANGING = ("updating", "rollback_started")


def pause(cost: float, *, hurried: bool) -> float:
    """Seconds from one reading, which took `cost` seconds, until the next."""
    if hurried:
        return max(HURRIED_SECONDS, cost * _HURRIED_SHARE)
    return max(CALM_SECONDS, cost * _CALM_SHARE)


def is_settled(service: Service, tasks: Sequence[Task]) -> bool:
    """Whether the service has the tasks that it should; `tasks` are those that are to run."""
    if service.update_state in _CHANGING:
        return False
    if not all(task.is_up for task in tasks):
        return False
    return service.replicas is None or len(tasks) == service.replicas


def is_hurried(*, settled: bool, unchanged: float, ordered: float) -> bool:
    """Whether a service's tasks are to be read often.

    `unchanged` and `ordered` are the seconds since its tasks were last found changed, and since somebody
    changed the service or a node.
    """
    return ordered < ORDER_SECONDS or (not settled and unchanged < _STUCK_SECONDS)


def hold_back(*, leaves: bool, since_last: float) -> float:
    """Seconds to wait with a new configuration, for more changes to come; `since_last` since the one before.

    An address that `leaves` may not be sent to any more, and waits for nothing.
    """
    return 0.0 if leaves else max(_GATHER_SECONDS, _APART_SECONDS - since_last)
