"""What `update` is asked to change of a service: its options, checked, and what they make of a spec. Pure.

The forms are those of docker service create and update (docker/cli, cli/command/service): `K=V`,
`source=…,target=…`, `type=…,source=…,target=…`. To set what is set already, or take away what is not
there, changes nothing, so that the same command can be given again.
"""

from __future__ import annotations

import csv
import re
import shlex
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from swarmkit.compose.convert import Spec
from swarmkit.compose.units import duration, nano_cpus, size
from swarmkit.deploy.history import Stored
from swarmkit.deploy.plan.model import REFERENCES
from swarmkit.errors import SwarmkitError, UsageError, raise_all
from swarmkit.names import CANARY_LABEL, RESERVED_PREFIX, ROUTE_PREFIX, STACK_LABEL, is_version
from swarmkit.swarm import SECOND

T = TypeVar("T")
ORDERS = ("start-first", "stop-first")
FAILURE_ACTIONS = ("rollback", "pause", "continue")

# What the engine does where a service says nothing of updates, or of rollbacks. Sent in part, the rest would
# be zero, which for the parallelism means all tasks at once (docker/cli, updateConfigFromDefaults).
_UPDATE_DEFAULTS: Mapping[str, Any] = {
    "Parallelism": 1,
    "FailureAction": "pause",
    "Monitor": 5 * SECOND,
    "MaxFailureRatio": 0,
    "Order": "stop-first",
}
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*", re.ASCII)
_CONSTRAINT = re.compile(r"\s*(node|engine)\.[A-Za-z0-9._/-]+\s*(==|!=)\s*\S.*", re.ASCII)
_MEMORY_LEAST = 4 * 1024 * 1024


@dataclass(frozen=True)
class Asked:
    """The options as they were typed; None and empty where one was not given."""

    image: str | None = None
    env: Sequence[str] = ()
    env_rm: Sequence[str] = ()
    label: Sequence[str] = ()
    label_rm: Sequence[str] = ()
    container_label: Sequence[str] = ()
    container_label_rm: Sequence[str] = ()
    limit_cpu: str | None = None
    limit_memory: str | None = None
    reserve_cpu: str | None = None
    reserve_memory: str | None = None
    constraint: Sequence[str] = ()
    constraint_rm: Sequence[str] = ()
    secret: Sequence[str] = ()
    secret_rm: Sequence[str] = ()
    config: Sequence[str] = ()
    config_rm: Sequence[str] = ()
    mount: Sequence[str] = ()
    mount_rm: Sequence[str] = ()
    command: str | None = None
    parallelism: int | None = None
    delay: str | None = None
    order: str | None = None
    monitor: str | None = None
    max_failure_ratio: float | None = None
    failure_action: str | None = None
    stop_grace_period: str | None = None
    stop_signal: str | None = None
    force: bool = False


@dataclass(frozen=True)
class Reference:
    """A secret or config for a service: its name as the user says it, and the file that it becomes."""

    source: str
    target: str
    uid: str = "0"
    gid: str = "0"
    mode: int = 0o444

    def of(self, kind: Stored, name: str) -> Spec:
        """As a service's spec has it, `name` being that in the swarm."""
        file = {"Name": self.target, "UID": self.uid, "GID": self.gid, "Mode": self.mode}
        return {"File": file, REFERENCES[kind][1]: name}


@dataclass(frozen=True)
class Edits:
    """The options, checked. Sizes are bytes, CPUs billionths, durations nanoseconds.

    `resources` and `update` have values by the API's own names, the former under `Limits` and
    `Reservations`; 0 takes a limit away. `command` are the arguments, none to go back to the image's.
    """

    image: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    env_rm: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    label_rm: Sequence[str] = ()
    container_labels: Mapping[str, str] = field(default_factory=dict)
    container_label_rm: Sequence[str] = ()
    resources: Mapping[tuple[str, str], int] = field(default_factory=dict)
    constraints: Sequence[str] = ()
    constraint_rm: Sequence[str] = ()
    references: Mapping[Stored, Sequence[Reference]] = field(default_factory=dict)
    reference_rm: Mapping[Stored, Sequence[str]] = field(default_factory=dict)
    mounts: Sequence[Spec] = ()
    mount_rm: Sequence[str] = ()
    command: Sequence[str] | None = None
    update: Mapping[str, Any] = field(default_factory=dict)
    stop_grace_period: int | None = None
    stop_signal: str | None = None
    force: bool = False

    @property
    def is_nothing(self) -> bool:
        """Whether nothing was asked for."""
        return self == Edits()

    @property
    def changes_routes(self) -> bool:
        """Whether labels that ask for routes are among them."""
        return any(key.startswith(ROUTE_PREFIX) for key in [*self.labels, *self.label_rm])


class _Reader:
    """Reads options one by one, and keeps what is wrong with them."""

    def __init__(self) -> None:
        self.errors: list[SwarmkitError] = []

    def wrong(self, option: str, message: str, hint: str = "") -> None:
        self.errors.append(UsageError(message, where=f"--{option}", hint=hint))

    def one(self, option: str, text: str | None, read: Callable[[str], T]) -> T | None:
        if text is None:
            return None
        try:
            return read(text)
        except ValueError as error:
            self.wrong(option, str(error))
            return None

    def many(self, option: str, texts: Sequence[str], read: Callable[[str], T]) -> list[T]:
        return [found for text in texts if (found := self.one(option, text, read)) is not None]

    def pairs(
        self,
        option: str,
        texts: Sequence[str],
        removed: Sequence[str],
        given: Mapping[str, str] | None = None,
    ) -> dict[str, str]:
        """`K=V`; with `given`, `K` alone has its value from there."""
        found: dict[str, str] = {}
        for text in texts:
            key, equals, value = text.partition("=")
            if not key or (not equals and given is None):
                # The value may be one that nobody else is to read.
                self.wrong(option, f'expected NAME=VALUE, got "{key if equals else text}"')
            elif not equals and given is not None and key not in given:
                self.wrong(option, f"{key} is not set here", hint=f"give it a value: --{option} {key}=…")
            elif key in removed:
                self.wrong(option, f"{key} is to be set and taken away", hint="leave one of the two out")
            else:
                found[key] = value if equals or given is None else given[key]
        return found


def check(asked: Asked, environment: Mapping[str, str]) -> Edits:
    """The options, checked. `environment` gives the values of variables that are named alone.

    Raises UsageError (Problems for several) for all that is wrong with them.
    """
    read = _Reader()
    for name in (each.partition("=")[0] for each in [*asked.label, *asked.label_rm]):
        if name == CANARY_LABEL:
            read.wrong("label", f"{name} is given by --canary alone")
        elif name.startswith(RESERVED_PREFIX) and not name.startswith(ROUTE_PREFIX):
            read.wrong("label", f"{name} is swarmkit's own")
        elif name.startswith("com.docker.stack."):
            read.wrong("label", f"{name} is docker's own, and says which stack it belongs to")
    resources = {
        ("Limits", "NanoCPUs"): read.one("limit-cpu", asked.limit_cpu, nano_cpus),
        ("Limits", "MemoryBytes"): read.one("limit-memory", asked.limit_memory, _memory),
        ("Reservations", "NanoCPUs"): read.one("reserve-cpu", asked.reserve_cpu, nano_cpus),
        ("Reservations", "MemoryBytes"): read.one("reserve-memory", asked.reserve_memory, _memory),
    }
    update = {
        "Parallelism": asked.parallelism,
        "Delay": read.one("delay", asked.delay, duration),
        "Order": read.one("order", asked.order, _one_of(ORDERS)),
        "Monitor": read.one("monitor", asked.monitor, duration),
        "MaxFailureRatio": asked.max_failure_ratio,
        "FailureAction": read.one("failure-action", asked.failure_action, _one_of(FAILURE_ACTIONS)),
    }
    if asked.parallelism is not None and asked.parallelism < 0:
        read.wrong("parallelism", f"expected a whole number, 0 for all at once, got {asked.parallelism}")
    if asked.max_failure_ratio is not None and not 0 <= asked.max_failure_ratio <= 1:
        read.wrong("max-failure-ratio", f"expected a share from 0 to 1, got {asked.max_failure_ratio}")
    constraints = read.many("constraint", asked.constraint, _constraint)
    for name in {*constraints} & {_spaced(each) for each in asked.constraint_rm}:
        read.wrong("constraint", f"{name} is to be set and taken away", hint="leave one of the two out")
    mounts = read.many("mount", asked.mount, _mount)
    for name in {mount["Target"] for mount in mounts} & set(asked.mount_rm):
        read.wrong("mount", f"{name} is to be mounted and taken away", hint="leave one of the two out")
    edits = Edits(
        image=read.one("image", asked.image, _image) or "",
        env=read.pairs("env", asked.env, asked.env_rm, environment),
        env_rm=asked.env_rm,
        labels=read.pairs("label", asked.label, asked.label_rm),
        label_rm=asked.label_rm,
        container_labels=read.pairs("container-label", asked.container_label, asked.container_label_rm),
        container_label_rm=asked.container_label_rm,
        resources={key: value for key, value in resources.items() if value is not None},
        constraints=tuple(constraints),
        constraint_rm=tuple(_spaced(each) for each in asked.constraint_rm),
        references={
            "secret": read.many("secret", asked.secret, lambda text: _reference(text, "secret")),
            "config": read.many("config", asked.config, lambda text: _reference(text, "config")),
        }
        if asked.secret or asked.config
        else {},
        reference_rm={"secret": asked.secret_rm, "config": asked.config_rm}
        if asked.secret_rm or asked.config_rm
        else {},
        mounts=tuple(mounts),
        mount_rm=asked.mount_rm,
        command=read.one("command", asked.command, shlex.split),
        update={key: value for key, value in update.items() if value is not None},
        stop_grace_period=read.one("stop-grace-period", asked.stop_grace_period, duration),
        stop_signal=read.one("stop-signal", asked.stop_signal, _signal),
        force=asked.force,
    )
    raise_all(read.errors)
    return edits


def _one_of(words: Sequence[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f'expected {", ".join(words[:-1])} or {words[-1]}, got "{text}"')
        return text

    return read


def _image(text: str) -> str:
    if not _REFERENCE.fullmatch(text):
        raise ValueError(f'expected an image such as web:2 or registry.example/web@sha256:…, got "{text}"')
    return text


def _memory(text: str) -> int:
    found = size(text)
    if 0 < found < _MEMORY_LEAST:
        raise ValueError(f'a task needs 4M of memory at least (moby, daemon), got "{text}"')
    return found


def _signal(text: str) -> str:
    name = text.upper().removeprefix("SIG")
    known = {each.name.removeprefix("SIG") for each in signal.Signals}
    if name not in known and not (text.isascii() and text.isdigit() and 0 < int(text) < 65):
        raise ValueError(f'expected a signal such as SIGQUIT, got "{text}"')
    return text if text.isdigit() else f"SIG{name}"


def _constraint(text: str) -> str:
    if not _CONSTRAINT.fullmatch(text):
        raise ValueError(
            f'expected a constraint such as node.role==worker or node.labels.disk!=hdd, got "{text}"'
        )
    return _spaced(text)


def _spaced(text: str) -> str:
    """A constraint without the spaces that mean nothing."""
    key, sign, value = re.split("(==|!=)", text, maxsplit=1) if re.search("==|!=", text) else (text, "", "")
    return f"{key.strip()}{sign}{value.strip()}"


def _parts(text: str, names: Mapping[str, str], flags: frozenset[str] = frozenset()) -> dict[str, str]:
    """`source=a,target=b,readonly` by their first names; `names` has also other ways to say them."""
    found: dict[str, str] = {}
    for part in next(csv.reader([text]), []):
        key, equals, value = part.partition("=")
        name = names.get(key.strip().lower())
        if name is None:
            raise ValueError(f'it has no "{key}"; known: {", ".join(sorted(set(names.values())))}')
        if not equals and name not in flags:
            raise ValueError(f'expected {key}=…, got "{part}"')
        found[name] = value if equals else "true"
    return found


_REFERENCE_NAMES = {"source": "source", "src": "source", "target": "target"} | {
    name: name for name in ("uid", "gid", "mode")
}


def _reference(text: str, kind: Stored) -> Reference:
    parts = _parts(text, _REFERENCE_NAMES) if "=" in text else {"source": text}
    source = parts.get("source", "")
    if not source:
        raise ValueError(f'expected a {kind} such as source=NAME,target=FILE, got "{text}"')
    mode = parts.get("mode", "0444")
    if not re.fullmatch(r"0?o?[0-7]{1,4}", mode):
        raise ValueError(f'expected a mode in octal such as 0444, got "{mode}"')
    return Reference(
        source,
        parts.get("target") or source,
        parts.get("uid", "0"),
        parts.get("gid", "0"),
        int(mode.replace("o", ""), 8),
    )


_MOUNT_NAMES = {
    "type": "type",
    "source": "source",
    "src": "source",
    "target": "target",
    "dst": "target",
    "destination": "target",
    "readonly": "readonly",
    "ro": "readonly",
    "volume-nocopy": "volume-nocopy",
    "bind-propagation": "bind-propagation",
    "tmpfs-size": "tmpfs-size",
}


def _mount(text: str) -> Spec:
    parts = _parts(text, _MOUNT_NAMES, frozenset({"readonly", "volume-nocopy"}))
    kind = _one_of(("volume", "bind", "tmpfs"))(parts.get("type", "volume"))
    source, target = parts.get("source", ""), parts.get("target", "")
    if not target.startswith("/"):
        raise ValueError(f'expected a target that starts with /, got "{target}"')
    if kind == "bind" and not source.startswith("/"):
        raise ValueError("a bind mount needs a source: the folder of the node, with its whole path")
    if kind == "tmpfs" and source:
        raise ValueError("a tmpfs has no source")
    mount: Spec = {"Type": kind, "Target": target} | ({"Source": source} if source else {})
    if _is_true(parts.get("readonly")):
        mount["ReadOnly"] = True
    for key, owner in (("volume-nocopy", "volume"), ("bind-propagation", "bind"), ("tmpfs-size", "tmpfs")):
        if key in parts and kind != owner:
            raise ValueError(f"{key} is for mounts of type {owner}; this one is of type {kind}")
    if _is_true(parts.get("volume-nocopy")):
        mount["VolumeOptions"] = {"NoCopy": True}
    if "bind-propagation" in parts:
        mount["BindOptions"] = {"Propagation": parts["bind-propagation"]}
    if "tmpfs-size" in parts:
        mount["TmpfsOptions"] = {"SizeBytes": size(parts["tmpfs-size"])}
    return mount


def _is_true(text: str | None) -> bool:
    if text not in (None, "true", "1", "false", "0"):
        raise ValueError(f'expected true or false, got "{text}"')
    return text in ("true", "1")


# The names of what a swarm keeps, the oldest first.
Known = Mapping[Stored, Sequence[str]]


def edited(spec: Spec, edits: Edits, known: Known) -> Spec:
    """A service's spec, with names for the ids of secrets and configs, as the options want it.

    The image is not set here: it is looked up first. Raises UsageError (or Problems) where there is no
    such secret or config, or two files of the container would have one name.
    """
    task, container = dict(spec["TaskTemplate"]), dict(spec["TaskTemplate"]["ContainerSpec"])
    stack = (spec.get("Labels") or {}).get(STACK_LABEL, "")
    errors: list[SwarmkitError] = []
    if edits.env or edits.env_rm:
        _put(container, "Env", _environment(container.get("Env") or (), edits))
    if edits.container_labels or edits.container_label_rm:
        labels = _mapping(container.get("Labels"), edits.container_labels, edits.container_label_rm)
        _put(container, "Labels", labels)
    for kind, (entries, _, _) in REFERENCES.items():
        added, removed = edits.references.get(kind, ()), edits.reference_rm.get(kind, ())
        if added or removed:
            references = _references(container.get(entries) or (), kind, added, removed, stack, known, errors)
            _put(container, entries, references)
    if edits.mounts or edits.mount_rm:
        changed = {mount["Target"]: mount for mount in edits.mounts}
        kept = [
            changed.pop(mount["Target"], mount)
            for mount in container.get("Mounts") or ()
            if mount["Target"] not in edits.mount_rm
        ]
        _put(container, "Mounts", [*kept, *changed.values()])
    if edits.command is not None:
        _put(container, "Args", list(edits.command))
    if edits.stop_grace_period is not None:
        container["StopGracePeriod"] = edits.stop_grace_period
    if edits.stop_signal is not None:
        container["StopSignal"] = edits.stop_signal
    if edits.constraints or edits.constraint_rm:
        placement = dict(task.get("Placement") or {})
        held = placement.get("Constraints") or ()
        kept = [one for one in held if _spaced(one) not in edits.constraint_rm]
        there = {_spaced(one) for one in kept}
        new = [one for one in dict.fromkeys(edits.constraints) if one not in there]
        _put(placement, "Constraints", [*kept, *new])
        _put(task, "Placement", placement)
    if edits.resources:
        _put(task, "Resources", _resources(task.get("Resources") or {}, edits.resources))
    raise_all(errors)
    result: Spec = {**spec, "TaskTemplate": {**task, "ContainerSpec": container}}
    if edits.labels or edits.label_rm:
        # Every service has labels, if only swarmkit's marks.
        result["Labels"] = _mapping(spec.get("Labels"), edits.labels, edits.label_rm)
    if edits.update:
        result["UpdateConfig"] = {**(spec.get("UpdateConfig") or _UPDATE_DEFAULTS), **edits.update}
    if order := edits.update.get("Order"):
        # The swarm's own way back goes by another setting, and is to have no gap either.
        result["RollbackConfig"] = {**(spec.get("RollbackConfig") or _UPDATE_DEFAULTS), "Order": order}
    return result


def _put(into: Spec, key: str, value: Any) -> None:
    """Set a part of a spec; what is empty is left out, as the engine itself does."""
    if value:
        into[key] = value
    else:
        into.pop(key, None)


def _mapping(held: Mapping[str, str] | None, new: Mapping[str, str], gone: Sequence[str]) -> dict[str, str]:
    return {key: value for key, value in {**(held or {}), **new}.items() if key not in gone}


def _environment(held: Sequence[str], edits: Edits) -> list[str]:
    """Each variable where it was; the last line of one counts, and it stays alone."""
    names = [line.partition("=")[0] for line in held]
    new = dict(edits.env)
    kept = []
    for index, (name, line) in enumerate(zip(names, held, strict=True)):
        if name in edits.env_rm or (name in edits.env and name in names[index + 1 :]):
            continue
        kept.append(f"{name}={new.pop(name)}" if name in new else line)
    return [*kept, *(f"{name}={value}" for name, value in new.items())]


def _resources(held: Mapping[str, Any], wanted: Mapping[tuple[str, str], int]) -> Spec:
    found = {key: dict(value) if isinstance(value, Mapping) else value for key, value in held.items()}
    for (part, key), value in wanted.items():
        inside = found.get(part) or {}
        _put(inside, key, value)
        _put(found, part, inside)
    return found


def _references(
    held: Sequence[Spec],
    kind: Stored,
    added: Sequence[Reference],
    removed: Sequence[str],
    stack: str,
    known: Known,
    errors: list[SwarmkitError],
) -> list[Spec]:
    """Secrets, or configs, of a container; a new one takes the place of what has its file."""
    key = REFERENCES[kind][1]
    found: list[Spec] = [one for one in held if not any(is_called(one[key], name, stack) for name in removed)]
    files: dict[str, int] = {
        (one.get("File") or {}).get("Name", ""): index for index, one in enumerate(found)
    }
    said: set[str] = set()
    for reference in added:
        name = named(reference.source, stack, known[kind])
        if name is None:
            errors.append(
                UsageError(
                    f'there is no {kind} "{reference.source}" in the swarm',
                    where=f"--{kind}",
                    hint=f"make it first: docker {kind} create {reference.source} FILE",
                )
            )
            continue
        if reference.target in said:
            errors.append(UsageError(f"two are to be the file {reference.target}", where=f"--{kind}"))
        said.add(reference.target)
        spec = reference.of(kind, name)
        if reference.target in files:
            found[files[reference.target]] = spec
        else:
            found.append(spec)
    return found


def named(source: str, stack: str, known: Sequence[str]) -> str | None:
    """The name in the swarm of the secret, or config, that a user calls so; None where there is none.

    In a stack that is the newest version of its own, else the one of the very name.
    """
    own = [name for name in known if stack and is_version(name, f"{stack}_{source}")]
    return own[-1] if own else source if source in known else None


def is_called(name: str, said: str, stack: str) -> bool:
    """Whether a secret, or config, is what a user calls so."""
    return name == said or (bool(stack) and is_version(name, f"{stack}_{said}"))


def unknown(spec: Spec, edits: Edits) -> Iterator[str]:
    """A line for each thing that was to be taken away and is not there: most likely mistyped."""
    container = spec["TaskTemplate"]["ContainerSpec"]
    stack = (spec.get("Labels") or {}).get(STACK_LABEL, "")
    there: Sequence[tuple[str, Sequence[str], set[str]]] = (
        ("variable", edits.env_rm, {line.partition("=")[0] for line in container.get("Env") or ()}),
        ("label", edits.label_rm, set(spec.get("Labels") or ())),
        ("container label", edits.container_label_rm, set(container.get("Labels") or ())),
        ("mount", edits.mount_rm, {mount["Target"] for mount in container.get("Mounts") or ()}),
        (
            "constraint",
            edits.constraint_rm,
            {_spaced(one) for one in (spec["TaskTemplate"].get("Placement") or {}).get("Constraints") or ()},
        ),
    )
    for what, removed, held in there:
        yield from (f"it has no {what} {name}" for name in removed if name not in held)
    for kind, (entries, key, _) in REFERENCES.items():
        held_names = [one[key] for one in container.get(entries) or ()]
        for name in edits.reference_rm.get(kind, ()):
            if not any(is_called(one, name, stack) for one in held_names):
                yield f"it has no {kind} {name}"
