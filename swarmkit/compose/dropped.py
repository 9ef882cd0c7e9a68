"""What engines drop without a word, and a stack without it.

An engine takes a body with fields that it, or the swarm behind it, does not know, and keeps the rest. A
service that was sent with such a field would differ from the file for ever, and whoever wrote the field
would never hear of it. So what an engine drops is not sent, and that is said. The sources of the table are
adjustForAPIVersion and the conversions of moby (daemon/server/router/swarm, daemon/cluster/convert).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from swarmkit.compose.convert import DesiredStack, Spec

_EACH = "[]"


@dataclass(frozen=True)
class Part:
    """A part of a body of the Engine API, at `path` (`[]` is each item of a list).

    `key` is what a Compose file has for it, and `value` the one of its values that is meant, if not all.
    `since` is the version of the API that brought it, empty where there is none yet; `instead` says what
    happens.
    """

    key: str
    path: str
    since: str = ""
    value: str = ""
    instead: str = "Swarm keeps no such setting"

    def taken(self, version: str) -> bool:
        """Whether an engine that speaks `version` of the API keeps it."""
        return bool(self.since) and _number(version) >= _number(self.since)

    def reason(self) -> str:
        """Why it is not sent."""
        return f"the Engine API has it from version {self.since} on" if self.since else self.instead


_CONTAINER = "TaskTemplate.ContainerSpec"
_MOUNT = f"{_CONTAINER}.Mounts.[]"
_BIND = f"{_MOUNT}.BindOptions"
START_INTERVAL = Part("healthcheck.start_interval", f"{_CONTAINER}.Healthcheck.StartInterval", "1.44")
OF_SERVICES = (
    START_INTERVAL,
    Part("oom_score_adj", f"{_CONTAINER}.OomScoreAdj", "1.46"),
    Part("volumes[].consistency", f"{_MOUNT}.Consistency"),
    Part("volumes[].volume.subpath", f"{_MOUNT}.VolumeOptions.Subpath", "1.45"),
    Part(
        "volumes[].bind.create_host_path",
        f"{_BIND}.CreateMountpoint",
        instead="the folder must be there on each node",
    ),
    Part("volumes[].bind.recursive", f"{_BIND}.ReadOnlyNonRecursive", value="writable"),
    Part("volumes[].bind.recursive", f"{_BIND}.ReadOnlyForceRecursive", value="readonly"),
)
OF_NETWORKS = (
    Part("enable_ipv4", "EnableIPv4"),
    Part("ipam.config[].aux_addresses", "IPAM.Config.[].AuxiliaryAddresses"),
)


def without_dropped(stack: DesiredStack, version: str) -> tuple[DesiredStack, list[str]]:
    """The stack without what an engine that speaks `version` of the API would drop, and a line for each."""
    lines: list[str] = []

    def kept(body: Spec, name: str, parts: tuple[Part, ...]) -> Spec:
        for part in parts:
            if part.taken(version):
                continue
            body, found = _without(body, part.path.split("."))
            what = f"{part.key}: {part.value}" if part.value else part.key
            line = f"{name}: {what}: ignored: {part.reason()}"
            if found and line not in lines:
                lines.append(line)
        return body

    return replace(
        stack,
        services=tuple(
            replace(one, spec=kept(one.spec, f"service {one.short_name}", OF_SERVICES))
            for one in stack.services
        ),
        networks=tuple(
            replace(one, spec=kept(one.spec, f"network {one.name}", OF_NETWORKS)) for one in stack.networks
        ),
    ), lines


def _without(body: Any, path: list[str]) -> tuple[Any, bool]:
    """`body` without what is at `path`, and whether anything was there."""
    head, *rest = path
    if head == _EACH:
        items = [_without(item, rest) for item in body]
        return [item for item, _ in items], any(found for _, found in items)
    if head not in body:
        return body, False
    if not rest:
        return {key: value for key, value in body.items() if key != head}, True
    inner, found = _without(body[head], rest)
    return {**body, head: inner}, found


def parts() -> Iterator[tuple[str, Part]]:
    """All of them, by the full path of the key in a Compose file (`services.NAME.oom_score_adj`)."""
    for section, some in (("services.NAME", OF_SERVICES), ("networks.NAME", OF_NETWORKS)):
        yield from ((f"{section}.{part.key}", part) for part in some)


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
