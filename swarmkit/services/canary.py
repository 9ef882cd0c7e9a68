"""Canaries: a second service with the new spec, which has a share of the requests of the first one.

`SERVICE-canary` is in the same stack and on the same networks, without their aliases: asked for by the
name of the first service, only that answers. It publishes no ports. The balancer sends it as many percent
of the requests as its label `swarmkit.lb.weight` says, by the routes of the service that its label
`swarmkit.lb.canary` names. Then the first service gets its spec, or it goes. Planning is pure.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from swarmkit.compose.convert import Spec
from swarmkit.deploy.plan import Change, LiveStack, Plan, fingerprint, name_of, portable, removal
from swarmkit.deploy.plan.differences import differences, readable
from swarmkit.deploy.plan.services import MARKS
from swarmkit.errors import NotConverged, OperationFailed, UsageError
from swarmkit.names import (
    CANARY_BASE_LABEL,
    CANARY_LABEL,
    REPLICAS_LABEL,
    ROUTE_PREFIX,
    SPEC_LABEL,
    STACK_LABEL,
    WEIGHT_LABEL,
)
from swarmkit.remote import Engine, EngineError, while_stale
from swarmkit.services.update import held, marked, plan_spec
from swarmkit.swarm import ACTIVE_STATES, Service, inspect, nodes, tasks
from swarmkit.waiting import wait_for

_SUFFIX = "-canary"
# Names of services are those of hosts (RFC 1123).
_NAME_LIMIT = 63
# How long the balancer may take to hear of a weight and put it to use.
PROXY_SECONDS = 2.0
_OWN_LABELS = (*MARKS, STACK_LABEL, CANARY_LABEL, CANARY_BASE_LABEL)


def percentage(text: str) -> int:
    """`10%` (or `10`) as 10. Raises UsageError for what is no share from 1 to 99 percent."""
    match = re.fullmatch(r"([1-9][0-9]?)%?", text.strip(), re.ASCII)
    if match is None:
        raise UsageError(
            f'expected a share of the requests from 1% to 99%, got "{text}"',
            where="--canary",
            hint="for example: --canary 10%",
        )
    return int(match[1])


def canary_of(live: LiveStack, name: str) -> Mapping[str, Any] | None:
    """The canary of a service, as the API gives it; None where there is none."""
    for one in live.services:
        if (one["Spec"].get("Labels") or {}).get(CANARY_LABEL) == name:
            return one
    return None


def has_route(labels: Mapping[str, str]) -> bool:
    """Whether a service with these labels asks the balancer for a route, or has a part of one."""
    return CANARY_LABEL in labels or any(
        key.startswith(ROUTE_PREFIX) and key.rpartition(".")[2] == "port" for key in labels
    )


def plan_canary(live: LiveStack, name: str, new: Spec, percent: int) -> Plan:
    """What makes a canary of a service, which is to have the spec `new` in the end.

    Raises UsageError where there cannot be one.
    """
    spec = held(live, name)
    _refuse(live, name, spec, new)
    count = max(1, round(spec["Mode"]["Replicated"].get("Replicas", 1) * percent / 100))
    body = canary_spec(spec, new, percent, count)
    fields = {
        "image": {"from": None, "to": body["TaskTemplate"]["ContainerSpec"]["Image"]},
        "replicas": {"from": None, "to": count},
        "share": {"from": None, "to": f"{percent}% of the requests to {name}"},
    }
    return Plan([Change("service", body["Name"], "create", fields, body)])


def _refuse(live: LiveStack, name: str, spec: Spec, new: Spec) -> None:
    labels = spec.get("Labels") or {}
    if CANARY_LABEL in labels:
        raise UsageError("it is a canary itself", where=name)
    if (there := canary_of(live, name)) is not None:
        raise busy(name, name_of(there))
    if not has_route(labels):
        raise UsageError(
            "it has no route, so that there are no requests to share",
            where=name,
            hint=f"give it the label {ROUTE_PREFIX}port, or update all of it, without --canary",
        )
    if "Replicated" not in spec["Mode"]:
        raise UsageError(
            "only a replicated service can have a canary", where=name, hint="update it without --canary"
        )
    if route_labels(labels) != route_labels(new.get("Labels") or {}):
        raise UsageError(
            "a canary has the routes of its service, and cannot change them",
            where=name,
            hint="change the labels in an update of their own",
        )
    if not differs(spec, new):
        raise UsageError("it is so already: there is nothing to try", where=name)
    if spec["Mode"]["Replicated"].get("Replicas", 1) <= 1 and (writable := _writable(new)):
        raise UsageError(
            f"a canary would write to {', '.join(writable)} beside its one task",
            where=name,
            hint="update it without --canary",
        )
    if len(name) + len(_SUFFIX) > _NAME_LIMIT:
        raise UsageError(f"its name is too long for that of a canary, {name}{_SUFFIX}", where=name)


def busy(name: str, canary: str) -> UsageError:
    """That a service has a canary, which has to be decided on first."""
    return UsageError(
        f"it has a canary, {canary}",
        where=name,
        hint=f"go on with it: swarmkit update {name} --continue; or: swarmkit update {name} --abort",
    )


def differs(one: Spec, other: Spec) -> bool:
    """Whether two portable specs differ in more than marks."""
    found = differences(readable(other, {}), readable(one, {}), extra=True)
    return not set(found) <= set(MARKS)


def route_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Those of a service's labels that ask the balancer for something."""
    return {key: value for key, value in labels.items() if key.startswith(ROUTE_PREFIX)}


def _writable(spec: Spec) -> list[str]:
    """The storage that outlives a task, and that it can write to."""
    return [
        str(mount.get("Source"))
        for mount in spec["TaskTemplate"]["ContainerSpec"].get("Mounts") or ()
        if mount.get("Source") and mount.get("Type") != "tmpfs" and not mount.get("ReadOnly")
    ]


def canary_spec(spec: Spec, new: Spec, percent: int, count: int) -> Spec:
    """The canary of a service with `spec` that is to become `new`: with `count` tasks and so many percent."""
    name, labels = spec["Name"], new.get("Labels") or {}
    kept = {key: value for key, value in labels.items() if not key.startswith(ROUTE_PREFIX)}
    task = dict(new["TaskTemplate"])
    if task.get("Networks"):
        task["Networks"] = [
            {key: value for key, value in network.items() if key != "Aliases"} for network in task["Networks"]
        ]
    endpoint = {key: value for key, value in (new.get("EndpointSpec") or {}).items() if key != "Ports"}
    body: Spec = {
        **{key: value for key, value in new.items() if key != "EndpointSpec"},
        "Name": f"{name}{_SUFFIX}",
        "Labels": {
            **kept,
            CANARY_LABEL: name,
            WEIGHT_LABEL: str(percent),
            CANARY_BASE_LABEL: _base(spec),
            REPLICAS_LABEL: str(count),
        },
        "TaskTemplate": task,
        "Mode": {"Replicated": {"Replicas": count}},
    }
    if endpoint:
        body["EndpointSpec"] = endpoint
    return marked(body)


def _base(spec: Spec) -> str:
    """What a service is, whatever its scale, and how often it was started again."""
    task = {key: value for key, value in spec["TaskTemplate"].items() if key != "ForceUpdate"}
    labels = {key: value for key, value in (spec.get("Labels") or {}).items() if key != SPEC_LABEL}
    return fingerprint({**spec, "Mode": {}, "TaskTemplate": task, "Labels": labels})


def promoted(spec: Spec, canary: Spec) -> Spec:
    """A service's spec once it has all of its canary's but the name, the routes, the scale and the ports."""
    task = {key: value for key, value in canary["TaskTemplate"].items() if key != "ForceUpdate"}
    if "ForceUpdate" in spec["TaskTemplate"]:
        task["ForceUpdate"] = spec["TaskTemplate"]["ForceUpdate"]
    if spec["TaskTemplate"].get("Networks"):
        task["Networks"] = spec["TaskTemplate"]["Networks"]
    held, new = spec.get("Labels") or {}, canary["Labels"]
    own = {SPEC_LABEL, REPLICAS_LABEL, STACK_LABEL}
    labels = {key: value for key, value in held.items() if key.startswith(ROUTE_PREFIX) or key in own}
    labels |= {
        key: value
        for key, value in new.items()
        if not key.startswith(ROUTE_PREFIX) and key not in {*own, CANARY_BASE_LABEL}
    }
    rest = {
        key: value for key, value in canary.items() if key not in ("Name", "Labels", "Mode", "EndpointSpec")
    }
    kept = {key: value for key, value in spec.items() if key in ("Name", "Mode", "EndpointSpec")}
    return marked({**rest, **kept, "TaskTemplate": task, "Labels": labels})


def plan_continue(live: LiveStack, name: str) -> Plan:
    """What gives a service the spec of its canary, and removes that one then.

    Raises UsageError where there is no canary, OperationFailed where the service has changed since.
    """
    canary = _canary(live, name)
    spec, tried = held(live, name), portable(canary["Spec"], live.network_names())
    new = promoted(spec, tried)
    if differs(spec, new) and tried["Labels"].get(CANARY_BASE_LABEL) != _base(spec):
        raise OperationFailed(
            "it has changed since its canary was made",
            where=name,
            hint=f"begin again: swarmkit update {name} --abort",
        )
    plan = plan_spec(live, new)
    return replace(plan, changes=[*plan.changes, removal("service", canary)])


def plan_abort(live: LiveStack, name: str) -> Plan:
    """What removes the canary of a service. Raises UsageError where there is none."""
    return Plan([removal("service", _canary(live, name))])


def _canary(live: LiveStack, name: str) -> Mapping[str, Any]:
    found = canary_of(live, name)
    if found is None:
        raise UsageError(
            "it has no canary", where=name, hint=f"make one: swarmkit update {name} --image … --canary 10%"
        )
    return found


def retire(
    engine: Engine,
    service_id: str,
    timeout: float,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Take a canary out of service so that no request is lost: no share, then no tasks.

    One that has gone is fine. Raises NotConverged where tasks do not end within
    `timeout` seconds.
    """
    try:
        service = inspect(engine, service_id)
        _change(engine, service_id, lambda spec: {**spec, "Labels": {**spec["Labels"], WEIGHT_LABEL: "0"}})
        sleep(PROXY_SECONDS)
        _change(engine, service_id, lambda spec: {**spec, "Mode": {"Replicated": {"Replicas": 0}}})
        wait_for(
            lambda: not _left(engine, service_id),
            timeout,
            lambda: NotConverged(f"its tasks still run after {timeout:.0f} s", where=service.name),
        )
    except EngineError as error:
        if error.status != 404:
            raise


@while_stale
def _change(engine: Engine, service_id: str, change: Callable[[Spec], Spec]) -> None:
    service = inspect(engine, service_id)
    engine.post(
        f"/services/{service_id}/update",
        change(dict(service.spec)),
        {"version": service.raw["Version"]["Index"]},
    )


def _left(engine: Engine, service_id: str) -> bool:
    alive = {node.id for node in nodes(engine) if node.state != "down"}
    return any(task.state in ACTIVE_STATES and task.node_id in alive for task in tasks(engine, [service_id]))


def explanation(service: Service) -> str:
    """`a canary of web_web, 10% of its requests`; empty for any other service."""
    name = service.labels.get(CANARY_LABEL)
    return f"a canary of {name}, {service.labels.get(WEIGHT_LABEL, '0')}% of its requests" if name else ""
