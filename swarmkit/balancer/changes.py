"""What differs between two configurations, in words for a log. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from swarmkit.balancer.bundle import Bundle
from swarmkit.balancer.nginx import Configuration


def loses(old: Bundle, new: Bundle) -> bool:
    """Whether there is an address that requests were sent to and are not any more."""
    return any(
        addresses.keys() - new.upstreams.get(name, {}).keys() for name, addresses in old.upstreams.items()
    )


def changes(old: Configuration | None, new: Configuration) -> Iterator[str]:
    """A line for each route, address and error that came or went."""
    routes_before = {one.route.name: one.route for one in old.routes} if old else {}
    routes_after = {one.route.name: one.route for one in new.routes}
    for name in sorted({*routes_before, *routes_after}):
        before, after = routes_before.get(name), routes_after.get(name)
        if after is None:
            yield f"route {name}: gone"
        elif before is None:
            yield f"route {name}: {', '.join(after.places)}"
        elif before != after:
            yield f"route {name}: changed ({', '.join(after.places)})"
    addresses_before = old.bundle.upstreams if old else {}
    addresses_after = new.bundle.upstreams
    for name in sorted({*addresses_before, *addresses_after}):
        was, now = addresses_before.get(name, {}), addresses_after.get(name, {})
        for address in sorted(was.keys() - now.keys()):
            yield f"{name}: without {was[address]} ({address})"
        for address in sorted(now.keys() - was.keys()):
            yield f"{name}: with {now[address]} ({address})"
    errors_before = {str(error) for error in old.errors} if old else set()
    for error in new.errors:
        if str(error) not in errors_before:
            yield f"cannot be done: {error}"
    # What a route lacks is said when it begins, not again with each configuration.
    lacks_before = {one.route.name: one.unreachable for one in old.routes} if old else {}
    for one in new.routes:
        if one.unreachable and lacks_before.get(one.route.name) != one.unreachable:
            yield f"route {one.route.name}: unreachable: {one.unreachable}"
