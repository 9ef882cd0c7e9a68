"""What the parts of a Compose file say of each other: names, profiles, dependencies, folders."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from swarmkit.compose.models import ComposeFile, Service
from swarmkit.compose.paths import is_remote, remote, resolved
from swarmkit.errors import SwarmkitError, UsageError
from swarmkit.yamlfile import Loc, YamlFile, dotted


def switched_on(service: Service, key: str, profiles: Collection[str], asked: Collection[str]) -> bool:
    """Whether a service takes part: it has no profiles, an active one, or was asked for by name.

    The Compose Specification ("Profiles"); the profile `*` stands for all of them.
    """
    return (
        not service.profiles
        or key in asked
        or "*" in profiles
        or not set(service.profiles).isdisjoint(profiles)
    )


def mistakes(file: YamlFile, compose: ComposeFile, folder: Path) -> Iterator[SwarmkitError]:
    """References to what is not there; the names are those in the file, whether right otherwise or not.

    `compose` has the services that are switched on, and no more.
    """
    if not file.data.get("services"):
        yield file.error(("services",), "at least one service is needed")
    for key, service in compose.services.items():
        here: Loc = ("services", key)
        written = file.data["services"][key] or {}
        if not written.get("image") and written.get("build") is None:
            yield file.error(here, "needs an image, or a build to make one from")
        for name in service.networks:
            if name != "default" and not _defined(file, "networks", name):
                at = _list_place(file, (*here, "networks"), name)
                yield file.error(
                    at, f'no network is called "{name}"', "define it under `networks:` of the file"
                )
        for index, mount in enumerate(service.volumes):
            source = mount.source or ""
            named = mount.type == "volume" or (mount.type == "cluster" and not source.startswith("group:"))
            if named and source and not _defined(file, "volumes", source):
                yield file.error(
                    (*here, "volumes", index),
                    f'no volume is called "{source}"',
                    f"define it under `volumes:` of the file, or write ./{source} for a folder",
                )
        uses: list[tuple[str, Loc, str]] = [
            (kind, (*here, f"{kind}s", index), use.source)
            for kind, entries in (("config", service.configs), ("secret", service.secrets))
            for index, use in enumerate(entries)
        ]
        if service.credential_spec and service.credential_spec.config:
            uses.append(("config", (*here, "credential_spec", "config"), service.credential_spec.config))
        for kind, at, name in uses:
            if not _defined(file, f"{kind}s", name):
                hint = f"define it under `{kind}s:` of the file"
                yield file.error(at, f'no {kind} is called "{name}"', hint)
        yield from _build_mistakes(file, here, service, folder)
    yield from _circles(file, compose)


def _defined(file: YamlFile, kind: str, name: str) -> bool:
    """Whether the section has the name. One that is no mapping is a mistake of its own, told elsewhere."""
    section = file.data.get(kind) or {}
    return not isinstance(section, dict) or name in section


def _list_place(file: YamlFile, loc: Loc, name: str) -> Loc:
    """Where `name` stands at `loc`, which is a list of names or a mapping by name."""
    value: Any = file.data
    for part in loc:
        value = value[part]
    return (*loc, value.index(name)) if isinstance(value, list) else (*loc, name)


def _build_mistakes(file: YamlFile, here: Loc, service: Service, folder: Path) -> Iterator[SwarmkitError]:
    if service.build is None:
        return
    at: Loc = (*here, "build", "context")
    at = at if at in file.positions else at[:-1]
    context = service.build.context
    if is_remote(context):
        yield file.error(at, *remote(context))
        return
    path = resolved(folder, context)
    if not path.is_dir():
        yield file.error(at, f'there is no folder "{context}" (a path starts from that of the Compose file)')
    elif not (path / service.build.dockerfile).is_file():
        yield file.error(at, f'there is no file "{service.build.dockerfile}" in the folder "{context}"')


def dependencies(
    file: YamlFile, compose: ComposeFile, every: Mapping[str, Service], errors: list[SwarmkitError]
) -> tuple[ComposeFile, list[str]]:
    """`compose` with dependencies on services that are switched on only, and the warnings for others.

    `every` has all the services. What a service cannot do without and is not there goes into `errors`.
    """
    warnings: list[str] = []
    services = {}
    for key, service in compose.services.items():
        kept = {}
        for name, dependency in service.depends_on.items():
            if name in compose.services:
                kept[name] = dependency
                continue
            at = _list_place(file, ("services", key, "depends_on"), name)
            message, hint = _why_missing(file, name, every)
            if dependency.required:
                errors.append(file.error(at, message, hint))
            else:
                warnings.append(f"{file.where(at)}: {dotted(at)}: {message}; it is not waited for")
        services[key] = service.model_copy(update={"depends_on": kept})
    return compose.model_copy(update={"services": services}), warnings


def _why_missing(file: YamlFile, name: str, every: Mapping[str, Service]) -> tuple[str, str]:
    if name in every and (profiles := every[name].profiles):
        return (
            f'the service "{name}" is switched off: it has the profiles {", ".join(profiles)}',
            f"switch it on with --profile {profiles[0]}, or write `required: false`",
        )
    return f'no service is called "{name}"', f"the services are: {', '.join(file.data['services'])}"


def _circles(file: YamlFile, compose: ComposeFile) -> Iterator[UsageError]:
    """An error for each circle of dependencies, at the dependency that closes it."""
    waits = {
        key: [name for name in service.depends_on if name in compose.services]
        for key, service in compose.services.items()
    }
    while True:
        try:
            TopologicalSorter(waits).prepare()
        except CycleError as error:
            circle = list(reversed(error.args[1]))
            last = circle[-2]
            at = _list_place(file, ("services", last, "depends_on"), circle[-1])
            yield file.error(at, f"the services depend on each other: {' → '.join(circle)}")
            waits[last].remove(circle[-1])
        else:
            return
