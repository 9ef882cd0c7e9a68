"""The part of the Compose Specification that swarmkit takes, as typed values.

Short forms become long ones while they are read, so that there is one shape for what follows.
Durations are nanoseconds, sizes bytes, CPUs billionths, as in the Engine API.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from swarmkit.compose.units import duration, nano_cpus, size
from swarmkit.errors import shown
from swarmkit.yamlfile import Loc, Model, dotted

KEY = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)


class Misplaced(ValueError):
    """Mistakes inside a value, each at its own place below it."""

    def __init__(self, *mistakes: tuple[Loc, str]) -> None:
        super().__init__("; ".join(message for _, message in mistakes))
        self.mistakes = mistakes


def _keys(names: str) -> frozenset[str]:
    return frozenset(names.split())


class Section(Model):
    """A mapping of a Compose file: `x-…` keys are the user's own, and an empty key is no key."""

    # What the Compose Specification has here and swarmkit does not take yet, so that the error can say so.
    not_yet: ClassVar[frozenset[str]] = frozenset()
    # What Swarm cannot honour, and what happens instead; the loader takes it out, with a warning.
    ignored: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _own_keys_aside(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {
            key: value
            for key, value in data.items()
            if value is not None and not (isinstance(key, str) and key.startswith("x-"))
        }


def text(value: Any) -> str:
    """A scalar as the text that docker makes of it: true → `true`, 1.0 → `1`. Raises ValueError."""
    match value:
        case str():
            return value
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case float():
            return _go_float(value)
        case date():
            return value.isoformat()
        case _:
            raise ValueError(f"expected text or a number, got {shown(value)}")


def _go_float(value: float) -> str:
    """A number as Go's fmt writes it: 1.0 → `1`, and with an exponent below 1e-4 and from 1e6 on."""
    number = Decimal(repr(value))
    if not value or -4 <= number.adjusted() < 6:
        return f"{number:f}".removesuffix(".0")
    mantissa, _, exponent = f"{number.normalize():e}".partition("e")
    return f"{mantissa}e{int(exponent):+03d}"


def _text_map(value: Any, *, empty: bool = False) -> dict[str, str | None]:
    """Both forms of labels, environment, …: a mapping, or a list of `KEY=value`.

    A key without a value is None where `empty` allows that (environment), else empty text.
    """
    pairs: list[tuple[int | str, str, Any]] = []
    mistakes: list[tuple[Loc, str]] = []
    if isinstance(value, dict):
        pairs = [(key, key, item) for key, item in value.items()]
    elif isinstance(value, list):
        for index, line in enumerate(value):
            if not isinstance(line, str):
                mistakes.append(((index,), f"expected KEY=value, got {shown(line)}"))
                continue
            key, equals, item = line.partition("=")
            pairs.append((index, key, item if equals else None))
    else:
        raise ValueError(f"expected a mapping or a list of KEY=value, got {shown(value)}")
    out: dict[str, str | None] = {}
    for where, key, item in pairs:
        try:
            if not key:
                raise ValueError("the name is empty")
            out[key] = text(item) if item is not None else None if empty else ""
        except ValueError as error:
            mistakes.append(((where,), str(error)))
    if mistakes:
        raise Misplaced(*mistakes)
    return out


def _with_defaults(value: Any) -> Any:
    """Definitions where a name with nothing under it stands for one with all its defaults."""
    if not isinstance(value, dict):
        return value
    bad: list[tuple[Loc, str]] = [
        ((name,), f"{shown(name)} cannot be a name: use letters, digits, dots, dashes and underscores")
        for name in value
        if not KEY.fullmatch(name)
    ]
    if bad:
        raise Misplaced(*bad)
    return {name: {} if item is None else item for name, item in value.items()}


def _environment(value: Any) -> dict[str, str | None]:
    return _text_map(value, empty=True)


def _extra_hosts(value: Any) -> list[str]:
    """`host:address`, `host=address` or a mapping, as the `ADDRESS HOST` of the Engine API.

    A mapping is sorted, as docker does; a list keeps its order, and may name a host twice.
    """
    lines = value
    if isinstance(value, dict):
        lines = [f"{host}={text(item)}" for host, item in sorted(value.items())]
    if not isinstance(lines, list):
        raise ValueError(f"expected a mapping or a list of HOST:ADDRESS, got {shown(value)}")
    out: list[str] = []
    mistakes: list[tuple[Loc, str]] = []
    for index, line in enumerate(lines):
        match = re.fullmatch(r"([^\s:=]+)[:=]\[?([^\s\[\]]+)\]?", line) if isinstance(line, str) else None
        if match:
            out.append(f"{match[2]} {match[1]}")
        else:
            mistakes.append(((index,), f"expected HOST:ADDRESS, got {shown(line)}"))
    if mistakes:
        raise Misplaced(*mistakes)
    return out


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _command(value: Any) -> Any:
    """A command as words; one line is split much as a shell does (the Compose Specification's `command`).

    Where a shell differs this is docker (github.com/google/shlex): in double quotes too a backslash goes,
    whatever it stands before.
    """
    return _words(value) if isinstance(value, str) else value


# A word: it may begin with a # only in quotes, or else it is a comment.
_WORD = re.compile(
    r"""
    (?P<space> [ \t\r\n]+ )
    | (?P<comment> \# [^\n]* )
    | (?P<word> (?: [^ \t\r\n'"\\] | \\. | '[^']*' | "(?: [^"\\] | \\. )*" )+ )
    """,
    re.VERBOSE | re.DOTALL,
)
_QUOTED = re.compile(r"""\\(.)|'([^']*)'|"((?:[^"\\]|\\.)*)\"""", re.DOTALL)


def _words(line: str) -> list[str]:
    words = []
    at = 0
    while at < len(line):
        match = _WORD.match(line, at)
        if match is None or (match["word"] and match.end() < len(line) and line[match.end()] in "'\"\\"):
            raise ValueError(
                "cannot be split into words: a quote is not closed, or nothing follows the last \\"
            )
        if match["word"]:
            words.append(_QUOTED.sub(_unquoted, match["word"]))
        at = match.end()
    return words


def _unquoted(match: re.Match[str]) -> str:
    escaped, single, double = match.groups()
    return escaped or single or re.sub(r"\\(.)", r"\1", double or "", flags=re.DOTALL)


def _named(value: Any) -> Any:
    """A list of names as the mapping that stands for it."""
    if isinstance(value, list):
        mistakes: list[tuple[Loc, str]] = [
            ((index,), f"expected a name, got {shown(item)}")
            for index, item in enumerate(value)
            if not isinstance(item, str)
        ]
        if mistakes:
            raise Misplaced(*mistakes)
        return dict.fromkeys(value)
    return value


def _count(value: Any) -> int:
    """A whole number of 0 or more; the text of one too, as a variable gives it."""
    if isinstance(value, str) and re.fullmatch(r"-?\d+", value, re.ASCII):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"expected a whole number, got {shown(value)}")
    if value < 0:
        raise ValueError(f"expected 0 or more, got {value}")
    return value


TextMap = Annotated[dict[str, str], BeforeValidator(_text_map)]
Environment = Annotated[dict[str, str | None], BeforeValidator(_environment)]
Text = Annotated[str, BeforeValidator(text)]
Words = Annotated[list[Text], BeforeValidator(_command)]
Duration = Annotated[int, BeforeValidator(duration)]
Size = Annotated[int, BeforeValidator(size)]
Cpus = Annotated[int, BeforeValidator(nano_cpus)]
Count = Annotated[int, BeforeValidator(_count)]


def _memory_of_task(value: int) -> int:
    # What a swarm takes (moby/swarmkit, manager/controlapi: validateResources), and the same for CPUs.
    if 0 < value < 4 * 1024**2:
        raise ValueError(f"Swarm takes no less than 4 MiB, this is {value} bytes")
    return value


def _cpus_of_task(value: int) -> int:
    if 0 < value < 1_000_000:
        raise ValueError("Swarm takes no less than 0.001 of a CPU")
    return value


TaskMemory = Annotated[Size, AfterValidator(_memory_of_task)]
TaskCpus = Annotated[Cpus, AfterValidator(_cpus_of_task)]
Ratio = Annotated[float, Field(ge=0, le=1)]


class Build(Section):
    """`build:`, from which swarmkit makes the image."""

    not_yet = _keys(
        "additional_contexts cache_from cache_to dockerfile_inline entitlements extra_hosts isolation labels"
        " network no_cache platforms privileged provenance pull sbom secrets shm_size ssh tags target"
        " ulimits"
    )

    context: str = "."
    dockerfile: str = "Dockerfile"
    args: Environment = {}


def _build(value: Any) -> Any:
    return {"context": value} if isinstance(value, str) else value


def _port_range(value: Any) -> tuple[int, int]:
    """`80` or `"8000-8005"` as the first and the last port."""
    if isinstance(value, int) and not isinstance(value, bool):
        first = last = value
    elif isinstance(value, str) and (match := re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", value, re.ASCII)):
        first, last = int(match[1]), int(match[2] or match[1])
    else:
        raise ValueError(f"expected a port from 1 to 65535, got {shown(value)}")
    if not 1 <= first <= last <= 65535:
        raise ValueError(f"expected a port from 1 to 65535, got {shown(value)}")
    return first, last


PortRange = Annotated[tuple[int, int], BeforeValidator(_port_range)]


_EVERY_ADDRESS = "Swarm publishes on every address of a node"


class Port(Section):
    """One entry of `ports:`, which may stand for a range of them.

    Several published ports for one of the container all lead to that one.
    """

    ignored = {
        "name": "a port has no name in Swarm",
        "host_ip": _EVERY_ADDRESS,
        "app_protocol": "Swarm passes on packets, whatever is in them",
    }

    target: PortRange
    published: PortRange | None = None
    protocol: Annotated[Literal["tcp", "udp", "sctp"], BeforeValidator(_lower)] = "tcp"
    mode: Literal["ingress", "host"] = "ingress"

    @model_validator(mode="after")
    def _ranges_agree(self) -> Port:
        if self.published and self._length(self.target) not in (1, self._length(self.published)):
            raise ValueError(
                f"{self._length(self.published)} published ports for {self._length(self.target)}"
                " of the container: the ranges must be of one length"
            )
        return self

    @staticmethod
    def _length(ports: tuple[int, int]) -> int:
        return ports[1] - ports[0] + 1

    def pairs(self) -> Iterator[tuple[int | None, int]]:
        """Every (published or None, target) that this entry stands for."""
        several = self._length(self.target) > 1
        for offset in range(self._length(self.published or self.target)):
            yield self.published[0] + offset if self.published else None, self.target[0] + offset * several


# An address is told from "8080:80" by its dots or brackets; the published port may then be empty.
_SHORT_PORT = re.compile(
    r"(?:(?P<address>\[[0-9a-fA-F:.]+\]|\d+(?:\.\d+){3}):(?=[\d-]*:))?"
    r"(?:(?P<published>[\d-]*):)?(?P<target>[\d-]+)(?:/(?P<protocol>\w+))?",
    re.ASCII,
)


def _port(value: Any) -> Any:
    """`[PUBLISHED:]TARGET[/PROTOCOL]` as the long form."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {"target": value}
    if not isinstance(value, str):
        return value
    match = _short_port(value)
    if match is None:
        raise ValueError(f'expected [PUBLISHED:]TARGET[/PROTOCOL] such as "8080:80", got {shown(value)}')
    # The ranges are read here: an error about them belongs to the whole entry, which is all the user wrote.
    return {
        "target": "-".join(map(str, _port_range(match["target"]))),
        "published": "-".join(map(str, _port_range(match["published"]))) if match["published"] else None,
        "protocol": match["protocol"],
    }


def _short_port(value: str) -> re.Match[str] | None:
    return _SHORT_PORT.fullmatch(value)


class Attachment(Section):
    """How a service is on a network."""

    ignored = {
        "gw_priority": "Swarm has no order among the networks of a task",
        "interface_name": "the engine names the interfaces of a task",
        "ipv4_address": "Swarm gives each task an address of its own",
        "ipv6_address": "Swarm gives each task an address of its own",
        "link_local_ips": "Swarm gives each task an address of its own",
        "mac_address": "the engine gives each task a MAC address of its own",
        "priority": "Swarm has no order among the networks of a task",
    }

    aliases: list[str] = []
    driver_opts: TextMap = {}


class VolumeOptions(Section):
    """`volume:` of a mount."""

    nocopy: bool = False
    subpath: str | None = None
    labels: TextMap = {}


class BindOptions(Section):
    """`bind:` of a mount."""

    ignored = {"selinux": "Swarm sets no SELinux label on a folder of a node"}

    propagation: Literal["private", "rprivate", "shared", "rshared", "slave", "rslave"] | None = None
    create_host_path: bool = False
    recursive: Literal["enabled", "disabled", "writable", "readonly"] | None = None


def _file_mode(value: Any) -> Any:
    """File permissions; text is read as octal, as `chmod` does (YAML itself reads 0444 as octal)."""
    if isinstance(value, str) and re.fullmatch(r"(0o?)?[0-7]{1,4}", value, re.ASCII):
        return int(value.removeprefix("0o"), 8)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 0o7777:
        return value
    raise ValueError(f"expected file permissions such as 0444, got {shown(value)}")


FileMode = Annotated[int, BeforeValidator(_file_mode)]


class TmpfsOptions(Section):
    """`tmpfs:` of a mount."""

    size: Size | None = None
    mode: FileMode | None = None


class ClusterOptions(Section):
    """`cluster:` of a mount, which has no options."""


MountType = Literal["volume", "bind", "tmpfs", "npipe", "cluster"]

# The options that go with each type of mount (docker/cli, cli/compose/convert/volume.go).
_OPTIONS_OF: Mapping[MountType, frozenset[str]] = {
    "volume": frozenset({"volume"}),
    "bind": frozenset({"bind"}),
    "tmpfs": frozenset({"tmpfs"}),
    "npipe": frozenset({"bind"}),
    "cluster": frozenset({"cluster"}),
}
# An absolute path of a Linux or a Windows container, or one that Swarm fills in.
_ABSOLUTE = re.compile(r"/|[A-Za-z]:[\\/]|\\\\|\{\{")


def _mount_type(value: Any) -> Any:
    # The engine's own API has them, but not for services (moby/swarmkit, api/types.proto: MountType).
    if value == "image":
        raise ValueError("Swarm has no mounts of type image: make an image that has the files, or a volume")
    return value


class Mount(Section):
    """One entry of a service's `volumes:`."""

    not_yet = _keys("image")

    type: Annotated[MountType, BeforeValidator(_mount_type)]
    source: str | None = None
    target: str
    read_only: bool = False
    consistency: str | None = None
    volume: VolumeOptions | None = None
    bind: BindOptions | None = None
    tmpfs: TmpfsOptions | None = None
    cluster: ClusterOptions | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Mount:
        if not _ABSOLUTE.match(self.target):
            raise Misplaced((("target",), f"expected a path that starts with /, got {shown(self.target)}"))
        if self.type == "bind" and not self.source:
            raise ValueError("a bind mount needs a source: the folder of the node")
        if self.type in ("npipe", "cluster") and not self.source:
            raise ValueError(f"a mount of type {self.type} needs a source")
        if self.type == "tmpfs" and self.source:
            raise Misplaced((("source",), "a tmpfs has no source"))
        for kind in frozenset[str]().union(*_OPTIONS_OF.values()) - _OPTIONS_OF[self.type]:
            if getattr(self, kind) is not None:
                raise Misplaced(((kind,), f"is for mounts of type {kind}; this one is of type {self.type}"))
        return self


def _mount(value: Any) -> Any:
    """`[SOURCE:]TARGET[:OPTIONS]` as the long form."""
    if not isinstance(value, str):
        return value
    parts = _mount_parts(value)
    if len(parts) > 3 or not all(parts):
        raise ValueError(
            f'expected [SOURCE:]TARGET[:OPTIONS] such as "data:/var/lib/data:ro", got {shown(value)}'
        )
    target = parts[0] if len(parts) == 1 else parts[1]
    if not _ABSOLUTE.match(target):
        raise ValueError(f"expected a target that starts with /, got {shown(target)}")
    source = parts[0] if len(parts) > 1 else None
    options = parts[2].split(",") if len(parts) == 3 else []
    kind = "bind" if source and re.match(r"[/.~]|[A-Za-z]:\\|\\\\", source) else "volume"
    # Of two that contradict each other the last one counts, as with docker.
    access = [option for option in options if option in ("ro", "rw")]
    mount: dict[str, Any] = {
        "type": kind,
        "source": source,
        "target": target,
        "read_only": access[-1:] == ["ro"],
    }
    if "nocopy" in options:
        mount["volume"] = {"nocopy": True}
    if propagation := [option for option in options if option in _PROPAGATIONS]:
        mount["bind"] = {"propagation": propagation[-1]}
    return mount


_PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_MOUNT_OPTIONS = frozenset({"ro", "rw", "nocopy", *_PROPAGATIONS})


def _mount_parts(value: str) -> list[str]:
    """The parts between colons, of which that of a Windows drive is none.

    A drive is `C:\\`; docker takes every single letter for one, also the volume in `a:/data`.
    """
    return re.split(r"(?<!^[A-Za-z])(?<!:[A-Za-z]):|:(?!\\)", value)


def _tmpfs(value: Any) -> Any:
    """`tmpfs:` of a service as mounts: `PATH[:OPTIONS]`, once or in a list."""
    lines = [value] if isinstance(value, str) else value
    if not isinstance(lines, list):
        raise ValueError(f"expected a path or a list of paths, got {shown(value)}")
    mounts = []
    mistakes: list[tuple[Loc, str]] = []
    for index, line in enumerate(lines):
        path, _, rest = line.partition(":") if isinstance(line, str) else ("", "", "")
        options = [option.partition("=") for option in rest.split(",") if option]
        if not path.startswith("/"):
            mistakes.append(((index,), f"expected PATH[:OPTIONS] that starts with /, got {shown(line)}"))
        elif unknown := [name for name, _, _ in options if name not in ("size", "mode", "ro", "rw")]:
            mistakes.append(
                ((index,), f"the option {unknown[0]} cannot be set in Swarm: size, mode, ro and rw can")
            )
        else:
            named = {name: setting for name, equals, setting in options if equals}
            mounts.append(
                {
                    "type": "tmpfs",
                    "target": path,
                    "tmpfs": named or None,
                    "read_only": ("ro", "", "") in options,
                }
            )
    if mistakes:
        raise Misplaced(*mistakes)
    return mounts


class FileUse(Section):
    """One entry of a service's `configs:` or `secrets:`: which one, and the file it becomes."""

    source: str
    target: str | None = None
    uid: Text = "0"
    gid: Text = "0"
    mode: FileMode = 0o444


def _file_use(value: Any) -> Any:
    return {"source": value} if isinstance(value, str) else value


def _constraint(value: Any) -> Any:
    if isinstance(value, str) and not re.fullmatch(r"\s*[\w.\-/]+\s*(==|!=)\s*\S.*", value):
        raise ValueError(f'expected a constraint such as "node.role == worker", got {shown(value)}')
    return value


class Preference(Section):
    """An entry of `preferences:`."""

    spread: str


class Placement(Section):
    """`deploy.placement`."""

    constraints: list[Annotated[str, BeforeValidator(_constraint)]] = []
    preferences: list[Preference] = []
    max_replicas_per_node: Count = 0


class RollbackConfig(Section):
    """`deploy.rollback_config`; a parallelism of 0 is all tasks at once."""

    parallelism: Count | None = None
    delay: Duration | None = None
    failure_action: Literal["pause", "continue"] | None = None
    monitor: Duration | None = None
    max_failure_ratio: Ratio | None = None
    order: Literal["start-first", "stop-first"] | None = None


class UpdateConfig(Section):
    """`deploy.update_config`; a parallelism of 0 is all tasks at once."""

    parallelism: Count | None = None
    delay: Duration | None = None
    failure_action: Literal["pause", "continue", "rollback"] | None = None
    monitor: Duration | None = None
    max_failure_ratio: Ratio | None = None
    order: Literal["start-first", "stop-first"] | None = None


class RestartPolicy(Section):
    """`deploy.restart_policy`."""

    condition: Literal["none", "on-failure", "any"] | None = None
    delay: Duration | None = None
    max_attempts: Count | None = None
    window: Duration | None = None


class Limits(Section):
    """`deploy.resources.limits`."""

    cpus: TaskCpus | None = None
    memory: TaskMemory | None = None
    pids: Count | None = None


class DiscreteResource(Section):
    """`discrete_resource_spec`: so many of a kind that the nodes' engines declare."""

    kind: str
    value: Count


class GenericResource(Section):
    """An entry of `generic_resources`."""

    discrete_resource_spec: DiscreteResource


class Reservations(Section):
    """`deploy.resources.reservations`."""

    ignored = {"devices": "Swarm knows devices as generic_resources alone, which the nodes' engines declare"}

    cpus: TaskCpus | None = None
    memory: TaskMemory | None = None
    generic_resources: list[GenericResource] = []


class Resources(Section):
    """`deploy.resources`."""

    limits: Limits | None = None
    reservations: Reservations | None = None


class Deploy(Section):
    """`deploy:` of a service."""

    mode: Literal["replicated", "global", "replicated-job", "global-job"] = "replicated"
    replicas: Count | None = None
    labels: TextMap = {}
    placement: Placement = Placement()
    update_config: UpdateConfig | None = None
    rollback_config: RollbackConfig | None = None
    restart_policy: RestartPolicy | None = None
    resources: Resources = Resources()
    endpoint_mode: Annotated[Literal["vip", "dnsrr"] | None, BeforeValidator(_lower)] = None

    @model_validator(mode="after")
    def _agrees(self) -> Deploy:
        if self.mode.startswith("global") and self.replicas is not None:
            raise Misplaced(
                (("replicas",), f"a {self.mode} service runs one task a node and has no replicas")
            )
        return self


def _test(value: Any) -> Any:
    if isinstance(value, str):
        return ["CMD-SHELL", value]
    if isinstance(value, list) and value and value[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise ValueError(f"a list must start with CMD, CMD-SHELL or NONE, not {shown(value[0])}")
    return value


class Healthcheck(Section):
    """`healthcheck:` of a service; what it leaves out comes from the image."""

    test: Annotated[list[Text], BeforeValidator(_test)] = []
    interval: Duration | None = None
    timeout: Duration | None = None
    retries: Count | None = None
    start_period: Duration | None = None
    start_interval: Duration | None = None
    disable: bool = False

    @model_validator(mode="after")
    def _agrees(self) -> Healthcheck:
        if self.disable and self.test:
            raise Misplaced((("disable",), "a health check cannot have a test and be disabled"))
        return self


class Logging(Section):
    """`logging:` of a service."""

    driver: str | None = None
    options: TextMap = {}


class CredentialSpec(Section):
    """`credential_spec:` of a Windows service: where its gMSA comes from, one of the three."""

    config: str | None = None
    file: str | None = None
    registry: str | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> CredentialSpec:
        if len(self.model_fields_set) > 1:
            raise ValueError("takes one of config, file and registry")
        return self


def _integer(value: Any) -> int:
    """A whole number, negative too; the text of one too, as a variable gives it."""
    if isinstance(value, str) and re.fullmatch(r"-?\d+", value, re.ASCII):
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"expected a whole number, got {shown(value)}")
    return value


Integer = Annotated[int, BeforeValidator(_integer)]


class Ulimit(Section):
    """One limit of `ulimits:`; -1 is no limit."""

    soft: Integer
    hard: Integer


def _ulimit(value: Any) -> Any:
    return value if isinstance(value, dict) else {"soft": _integer(value), "hard": _integer(value)}


_RESTART = re.compile(r"no|always|unless-stopped|on-failure(:\d+)?", re.ASCII)


def _restart(value: Any) -> Any:
    if not isinstance(value, str) or not _RESTART.fullmatch(value):
        raise ValueError(
            f'expected "no", always, unless-stopped, on-failure or on-failure:COUNT, got {shown(value)}'
        )
    return value


class Dependency(Section):
    """One entry of `depends_on:`."""

    ignored = {"restart": "Swarm restarts no task because another service has changed"}

    condition: Literal["service_started", "service_healthy", "service_completed_successfully"] = (
        "service_started"
    )
    required: bool = True


def _dependencies(value: Any) -> Any:
    """Names, or conditions by name, as the latter."""
    named = _named(value)
    return {key: item or {} for key, item in named.items()} if isinstance(named, dict) else named


class EnvFile(Section):
    """One entry of `env_file:`; `raw` takes values as they stand, quotes and all."""

    path: str
    required: bool = True
    format: Literal["raw"] | None = None


def _env_file(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


_NOT_IN_SWARM = "Swarm starts no container with it"
_NAMESPACE = "Swarm gives each task a namespace of its own"
_LIMITS = "Swarm takes limits from deploy.resources: set deploy.resources"
_LIFECYCLE = "Swarm runs nothing but the container's own command"


class Service(Section):
    """One service of `services:`."""

    ignored = {
        "annotations": "Swarm passes no annotations to containers; use labels",
        "attach": "swarmkit attaches to no container; see swarmkit stack logs",
        "blkio_config": _NOT_IN_SWARM,
        "cgroup": _NAMESPACE,
        "cgroup_parent": "the engine places the tasks' control groups",
        "cgroupns_mode": _NAMESPACE,
        "container_name": "Swarm names containers after the service, the slot and the task",
        "cpu_count": f"{_LIMITS}.limits.cpus",
        "cpu_percent": f"{_LIMITS}.limits.cpus",
        "cpu_period": f"{_LIMITS}.limits.cpus",
        "cpu_quota": f"{_LIMITS}.limits.cpus",
        "cpu_rt_period": _NOT_IN_SWARM,
        "cpu_rt_runtime": _NOT_IN_SWARM,
        "cpu_shares": f"{_LIMITS}.reservations.cpus",
        "cpus": f"{_LIMITS}.limits.cpus",
        "cpuset": "Swarm binds no task to certain CPUs",
        "develop": "it is for docker compose watch",
        "device_cgroup_rules": _NOT_IN_SWARM,
        "devices": "Swarm hands no devices of a node to tasks; a bind mount of /dev/… is the nearest",
        "domainname": "Swarm sets no domain name; write it into hostname",
        "expose": "services on one network reach all of each other's ports",
        "external_links": "use a network that both are on",
        "gpus": "Swarm knows devices as generic_resources alone, which the nodes' engines declare",
        "ipc": _NAMESPACE,
        "links": "services on one network find each other by name; use aliases for another name",
        "mac_address": "the engine gives each task a MAC address of its own",
        "mem_limit": f"{_LIMITS}.limits.memory",
        "mem_reservation": f"{_LIMITS}.reservations.memory",
        "mem_swappiness": _NOT_IN_SWARM,
        "memswap_limit": _NOT_IN_SWARM,
        "models": "swarmkit runs no models",
        "network_mode": "the service joins those under networks, of which host can be one",
        "oom_kill_disable": _NOT_IN_SWARM,
        "pid": _NAMESPACE,
        "pids_limit": f"{_LIMITS}.limits.pids",
        "platform": "Swarm chooses nodes by the platforms of the image; a placement constraint can, too",
        "post_start": _LIFECYCLE,
        "pre_stop": _LIFECYCLE,
        "privileged": "Swarm starts no privileged containers; cap_add may do",
        "provider": "swarmkit runs no providers of services",
        "pull_policy": "a node pulls an image that it does not have",
        "runtime": "the nodes' engines choose the runtime",
        "security_opt": _NOT_IN_SWARM,
        "shm_size": "/dev/shm has the engine's size; a mount of type tmpfs at /dev/shm can have another",
        "storage_opt": _NOT_IN_SWARM,
        "use_api_socket": "swarmkit hands no engine's socket to tasks; a bind mount can",
        "userns_mode": _NAMESPACE,
        "uts": _NAMESPACE,
        "volume_driver": "name the driver under the volumes of the file",
        "volumes_from": "name a volume under the volumes of the file, and mount it in both services",
    }

    image: str | None = None
    build: Annotated[Build | None, BeforeValidator(_build)] = None
    entrypoint: Words | None = None
    command: Words | None = None
    environment: Environment = {}
    env_file: Annotated[
        list[Annotated[EnvFile, BeforeValidator(_env_file)]], BeforeValidator(_one_or_many)
    ] = []
    label_file: Annotated[list[str], BeforeValidator(_one_or_many)] = []
    profiles: list[str] = []
    ports: list[Annotated[Port, BeforeValidator(_port)]] = []
    networks: Annotated[dict[str, Attachment | None], BeforeValidator(_named)] = {}
    volumes: list[Annotated[Mount, BeforeValidator(_mount)]] = []
    tmpfs: Annotated[list[Mount], BeforeValidator(_tmpfs)] = []
    configs: list[Annotated[FileUse, BeforeValidator(_file_use)]] = []
    secrets: list[Annotated[FileUse, BeforeValidator(_file_use)]] = []
    deploy: Deploy = Deploy()
    scale: Count | None = None
    depends_on: Annotated[dict[str, Dependency], BeforeValidator(_dependencies)] = {}
    restart: Annotated[str | None, BeforeValidator(_restart)] = None
    healthcheck: Healthcheck | None = None
    labels: TextMap = {}
    hostname: str | None = None
    user: Text | None = None
    group_add: list[Text] = []
    working_dir: str | None = None
    stop_grace_period: Duration | None = None
    stop_signal: str | None = None
    stdin_open: bool = False
    tty: bool = False
    init: bool | None = None
    isolation: str | None = None
    read_only: bool = False
    cap_add: list[str] = []
    cap_drop: list[str] = []
    credential_spec: CredentialSpec | None = None
    sysctls: TextMap = {}
    ulimits: dict[str, Annotated[Ulimit, BeforeValidator(_ulimit)]] = {}
    oom_score_adj: Integer = 0
    extra_hosts: Annotated[list[str], BeforeValidator(_extra_hosts)] = []
    dns: Annotated[list[str], BeforeValidator(_one_or_many)] = []
    dns_search: Annotated[list[str], BeforeValidator(_one_or_many)] = []
    dns_opt: list[str] = []
    logging: Logging | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Service:
        if self.scale is not None and self.deploy.mode.startswith("global"):
            raise Misplaced((("scale",), f"a {self.deploy.mode} service runs one task a node"))
        if self.scale is not None and self.deploy.replicas not in (None, self.scale):
            raise Misplaced((("scale",), f"deploy.replicas says {self.deploy.replicas}"))
        ingress = [index for index, port in enumerate(self.ports) if port.mode == "ingress"]
        if ingress and self.deploy.endpoint_mode == "dnsrr":
            message = (
                "in ingress mode a port needs a virtual IP, and deploy.endpoint_mode is dnsrr: use mode: host"
            )
            raise Misplaced((("ports", ingress[0]), message))
        if twice := [*self._twice()]:
            raise Misplaced(*twice)
        return self

    def _twice(self) -> Iterator[tuple[Loc, str]]:
        """What a task can have once, and no more (moby/swarmkit, manager/controlapi/service.go)."""
        claims: list[tuple[Loc, str]] = [
            *((("volumes", index), _mounted(mount.target)) for index, mount in enumerate(self.volumes)),
            *((("tmpfs", index), _mounted(mount.target)) for index, mount in enumerate(self.tmpfs)),
            *((("configs", index), _file_of(use, "/")) for index, use in enumerate(self.configs)),
            *((("secrets", index), _file_of(use, "/run/secrets/")) for index, use in enumerate(self.secrets)),
            *(
                (("ports", index), f"{published}/{port.protocol} is published")
                for index, port in enumerate(self.ports)
                for published, _ in port.pairs()
                if published
            ),
        ]
        first: dict[str, Loc] = {}
        for loc, claim in claims:
            other = first.setdefault(claim, loc)
            if other != loc:
                yield loc, f"{claim} by {dotted(other)} already"


def _mounted(target: str) -> str:
    return f"{target.rstrip('/') or '/'} is mounted"


def _file_of(use: FileUse, folder: str) -> str:
    """Where a config or secret is put: under `folder`, but for one with an absolute path."""
    name = use.target or use.source
    return f"{name if name.startswith('/') else folder + name} is written"


class Definition(Section):
    """A network, volume, config or secret of the file, or one that exists already (`external`)."""

    external: bool = False
    name: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _external_by_name(cls, data: Any) -> Any:
        # The old form of an external thing's name, which docker still takes: `external: {name: x}`.
        if isinstance(data, Mapping) and isinstance(data.get("external"), dict) and "name" not in data:
            external = data["external"]
            if set(external) == {"name"}:
                return {**data, "external": True, "name": external["name"]}
        return data

    @model_validator(mode="after")
    def _nothing_beside_external(self) -> Definition:
        if self.external and (others := sorted(self.model_fields_set - {"external", "name"})):
            raise Misplaced(((others[0],), "an external one is made elsewhere and takes only a name here"))
        return self


class Subnet(Section):
    """An entry of `ipam.config`."""

    subnet: str | None = None
    ip_range: str | None = None
    gateway: str | None = None
    aux_addresses: TextMap = {}


class Ipam(Section):
    """`ipam:` of a network."""

    driver: str | None = None
    options: TextMap = {}
    config: list[Subnet] = []


class Network(Definition):
    """One network of `networks:`."""

    driver: str | None = None
    driver_opts: TextMap = {}
    attachable: bool = False
    internal: bool = False
    enable_ipv4: bool | None = None
    enable_ipv6: bool | None = None
    ipam: Ipam = Ipam()
    labels: TextMap = {}


class Volume(Definition):
    """One volume of `volumes:`."""

    driver: str | None = None
    driver_opts: TextMap = {}
    labels: TextMap = {}


class FileObject(Definition):
    """A config or a secret: where its content comes from, and how Swarm treats it."""

    file: str | None = None
    environment: str | None = None
    labels: TextMap = {}
    template_driver: str | None = None


class Config(FileObject):
    """One config of `configs:`."""

    content: str | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Config:
        if (
            not self.external
            and sum(one is not None for one in (self.file, self.environment, self.content)) != 1
        ):
            raise ValueError("needs one of file, content and environment (or external: true)")
        return self


class Secret(FileObject):
    """One secret of `secrets:`; a driver gives its content to the tasks itself."""

    driver: str | None = None
    driver_opts: TextMap = {}

    @model_validator(mode="after")
    def _one_origin(self) -> Secret:
        if self.driver_opts and not self.driver:
            raise Misplaced((("driver_opts",), "they are for a driver, and there is none"))
        if (
            not self.external
            and sum(one is not None for one in (self.file, self.environment, self.driver)) != 1
        ):
            raise ValueError("needs one of file, environment and driver (or external: true)")
        return self


class ComposeFile(Section):
    """A whole Compose file; `version` is allowed and means nothing, as in the Compose Specification."""

    ignored = {"models": "swarmkit runs no models"}

    version: Text | None = None
    name: str | None = None
    services: Annotated[dict[str, Service], BeforeValidator(_with_defaults)] = {}
    networks: Annotated[dict[str, Network], BeforeValidator(_with_defaults)] = {}
    volumes: Annotated[dict[str, Volume], BeforeValidator(_with_defaults)] = {}
    configs: Annotated[dict[str, Config], BeforeValidator(_with_defaults)] = {}
    secrets: Annotated[dict[str, Secret], BeforeValidator(_with_defaults)] = {}


def values_ignored(data: Any) -> Iterator[tuple[Loc, str]]:
    """What Swarm cannot honour inside values of a Compose file: its place, and what happens instead.

    `data` is the file's data before it is checked: what has the wrong shape is passed over.
    """
    services = data.get("services") if isinstance(data, dict) else None
    for key, service in services.items() if isinstance(services, dict) else ():
        if not isinstance(service, dict):
            continue
        here: Loc = ("services", key)
        for name, ignored in (("ports", _port_ignored), ("volumes", _mount_ignored)):
            lines = service.get(name)
            for index, line in enumerate(lines if isinstance(lines, list) else ()):
                if isinstance(line, str) and (message := ignored(line)):
                    yield (*here, name, index), message
        deploy = service.get("deploy")
        if service.get("restart") is None:
            continue
        if isinstance(deploy, dict) and deploy.get("restart_policy") is not None:
            yield (*here, "restart"), "deploy.restart_policy stands instead"
        elif service["restart"] == "no":
            yield (
                (*here, "restart"),
                "Swarm restarts tasks that end unless deploy.restart_policy says condition: none",
            )


def _port_ignored(line: str) -> str | None:
    match = _short_port(line)
    address = match["address"].strip("[]") if match and match["address"] else None
    return f"{_EVERY_ADDRESS}, not on {address} alone" if address not in (None, "0.0.0.0", "::") else None


def _mount_ignored(line: str) -> str | None:
    parts = _mount_parts(line)
    unknown = sorted(set(parts[2].split(",")) - _MOUNT_OPTIONS) if len(parts) == 3 else []
    return f"Swarm has no option {', '.join(unknown)} for a mount" if unknown else None
