"""Networks: Swarm cannot change one, so another one takes its place, and what is on it starts again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from swarmkit.compose.convert import DesiredNetwork, DesiredStack
from swarmkit.deploy.plan.model import Change, Fields, LiveStack, name_of, removal, targets
from swarmkit.errors import OperationFailed, SwarmkitError, raise_all


@dataclass(frozen=True)
class NetworkChanges:
    """`removals` come first, when the services `restarted` (by name) are gone."""

    removals: tuple[Change, ...] = ()
    creations: tuple[Change, ...] = ()
    restarted: frozenset[str] = frozenset()


def network_changes(desired: DesiredStack, live: LiveStack, *, recreate: bool = True) -> NetworkChanges:
    """What has to be made, or with `recreate` made again where it has other settings than the file says.

    Raises OperationFailed (or Problems) for a network that other stacks' services are on.
    """
    by_name = {name_of(network): network for network in live.networks}
    errors: list[SwarmkitError] = []
    removals: list[Change] = []
    creations: list[Change] = []
    restarted: set[str] = set()
    for network in desired.networks:
        found = by_name.get(network.name)
        if found is None:
            # As docker does, a network that somebody made under this very name is used as it is.
            if network.name not in live.network_ids:
                fields: Fields = {"driver": {"from": None, "to": network.spec["Driver"]}}
                creations.append(Change("network", network.name, "create", fields, network.spec))
            continue
        differences = dict(_differences(network, found)) if recreate else {}
        if not differences:
            continue
        if others := live.users.get(found["Id"]):
            errors.append(_in_use(network.name, differences, others))
            continue
        on_it = sorted(name_of(one) for one in live.services if found["Id"] in targets(one["Spec"]))
        restarted |= set(on_it)
        note = "Swarm cannot change a network: it is removed and made again, which cannot be undone"
        if on_it:
            note += f"; all tasks of {', '.join(on_it)} stop meanwhile"
        again = replace(removal("network", found), fields=differences, note=note, early=True, recreates=True)
        removals.append(again)
        creations.append(Change("network", network.name, "create", differences, network.spec))
    raise_all(errors)
    return NetworkChanges(tuple(removals), tuple(creations), frozenset(restarted))


def network_removals(desired: DesiredStack, live: LiveStack) -> list[Change]:
    """The stack's networks that nothing uses any more, of other stacks neither."""
    kept = {network.name for network in desired.networks}
    for service in desired.services:
        kept |= set(targets(service.spec))
    return [
        removal("network", network)
        for network in sorted(live.networks, key=name_of)
        if name_of(network) not in kept and network["Id"] not in live.users
    ]


def _differences(network: DesiredNetwork, found: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    options = network.spec.get("Options", {})
    subnets = _subnets(network.spec)
    sides = [
        ("driver", found.get("Driver"), network.spec["Driver"]),
        ("internal", bool(found.get("Internal")), network.spec["Internal"]),
        ("attachable", bool(found.get("Attachable")), network.spec["Attachable"]),
        ("subnets", _subnets(found) if subnets else [], subnets),
        # The engine adds options of its own.
        ("driver_opts", {key: (found.get("Options") or {}).get(key) for key in options}, options),
    ]
    for what, old, new in sides:
        if old != new:
            yield what, {"from": old, "to": new}


def _in_use(name: str, differences: Fields, others: Any) -> SwarmkitError:
    what = ", ".join(
        f"{key} {json.dumps(value['from'])} → {json.dumps(value['to'])}" for key, value in differences.items()
    )
    return OperationFailed(
        f"the network would have to be made again ({what}), and services of other stacks are on it:"
        f" {', '.join(others)}",
        where=name,
        hint="give the network another name, or take those stacks down first",
    )


def _subnets(spec: Mapping[str, Any]) -> list[str]:
    config = (spec.get("IPAM") or {}).get("Config") or ()
    return sorted(entry["Subnet"] for entry in config if "Subnet" in entry)
