"""The part of the Compose Specification that swarmkit takes, as typed values.

Short forms become long ones while they are read, so that there is one shape for what follows.
Durations are nanoseconds, sizes bytes, CPUs billionths, as in the Engine API.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from swarmkit.compose.units import duration, nano_cpus, shown, size
from swarmkit.yamlfile import Loc, Model

KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)


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
            return str(int(value)) if value.is_integer() else str(value)
        case date():
            return value.isoformat()
        case _:
            raise ValueError(f"expected text or a number, got {shown(value)}")


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


def _command(value: Any) -> Any:
    """A command as words; one line is split as a shell does (the Compose Specification's `command`)."""
    if not isinstance(value, str):
        return value
    try:
        return shlex.split(value)
    except ValueError as error:
        raise ValueError(f"cannot be split into words: {str(error).lower()}") from None


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


class Port(Section):
    """One entry of `ports:`, which may stand for a range of them."""

    not_yet = frozenset({"name", "host_ip", "app_protocol"})

    target: PortRange
    published: PortRange | None = None
    protocol: Literal["tcp", "udp", "sctp"] = "tcp"
    mode: Literal["ingress", "host"] = "ingress"

    @model_validator(mode="after")
    def _ranges_agree(self) -> Port:
        if self.published and self._length(self.published) != self._length(self.target):
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
        for offset in range(self._length(self.target)):
            yield self.published[0] + offset if self.published else None, self.target[0] + offset


_SHORT_PORT = re.compile(
    r"(?:(?P<address>\[[0-9a-fA-F:.]+\]|[0-9.]+):)?(?:(?P<published>[\d-]*):)?(?P<target>[\d-]+)(?:/(?P<protocol>\w+))?",
    re.ASCII,
)


def _port(value: Any) -> Any:
    """`[PUBLISHED:]TARGET[/PROTOCOL]` as the long form."""
    if isinstance(value, int) and not isinstance(value, bool):
        return {"target": value}
    if not isinstance(value, str):
        return value
    match = _SHORT_PORT.fullmatch(value)
    address = match["address"] if match else None
    # "8080:80" also looks like an address and a target.
    if match and address and match["published"] is None and re.fullmatch(r"\d{1,5}", address):
        return _long_port(address, match["target"], match["protocol"])
    if match and address:
        raise ValueError(
            f"Swarm publishes on every address of a node, not on {address} alone: leave the address out"
        )
    if not match:
        raise ValueError(f'expected [PUBLISHED:]TARGET[/PROTOCOL] such as "8080:80", got {shown(value)}')
    return _long_port(match["published"], match["target"], match["protocol"])


def _long_port(published: str | None, target: str, protocol: str | None) -> dict[str, Any]:
    # The ranges are read here: an error about them belongs to the whole entry, which is all the user wrote.
    return {
        "target": "-".join(map(str, _port_range(target))),
        "published": "-".join(map(str, _port_range(published))) if published else None,
        "protocol": protocol,
    }


class Attachment(Section):
    """How a service is on a network."""

    not_yet = _keys(
        "driver_opts gw_priority interface_name ipv4_address ipv6_address link_local_ips mac_address priority"
    )

    aliases: list[str] = []


class VolumeOptions(Section):
    """`volume:` of a mount."""

    not_yet = frozenset({"labels", "subpath"})

    nocopy: bool = False


class BindOptions(Section):
    """`bind:` of a mount."""

    not_yet = frozenset({"create_host_path", "recursive", "selinux"})

    propagation: Literal["private", "rprivate", "shared", "rshared", "slave", "rslave"] | None = None


class TmpfsOptions(Section):
    """`tmpfs:` of a mount."""

    not_yet = frozenset({"mode"})

    size: Size | None = None


class Mount(Section):
    """One entry of a service's `volumes:`."""

    not_yet = frozenset({"consistency", "image"})

    type: Literal["volume", "bind", "tmpfs"]
    source: str | None = None
    target: str
    read_only: bool = False
    volume: VolumeOptions | None = None
    bind: BindOptions | None = None
    tmpfs: TmpfsOptions | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Mount:
        if not self.target.startswith(("/", "{{")):
            raise Misplaced((("target",), f"expected a path that starts with /, got {shown(self.target)}"))
        if self.type == "bind" and not self.source:
            raise ValueError("a bind mount needs a source: the folder of the node")
        if self.type == "tmpfs" and self.source:
            raise Misplaced((("source",), "a tmpfs has no source"))
        for kind in ("volume", "bind", "tmpfs"):
            if kind != self.type and getattr(self, kind) is not None:
                raise Misplaced(((kind,), f"is for mounts of type {kind}; this one is of type {self.type}"))
        return self


def _mount(value: Any) -> Any:
    """`[SOURCE:]TARGET[:OPTIONS]` as the long form."""
    if not isinstance(value, str):
        return value
    parts = value.split(":")
    if len(parts) > 3 or not all(parts):
        raise ValueError(
            f'expected [SOURCE:]TARGET[:OPTIONS] such as "data:/var/lib/data:ro", got {shown(value)}'
        )
    target = parts[0] if len(parts) == 1 else parts[1]
    if not target.startswith("/"):
        raise ValueError(f"expected a target that starts with /, got {shown(target)}")
    source = parts[0] if len(parts) > 1 else None
    options = parts[2].split(",") if len(parts) == 3 else []
    if unknown := sorted(set(options) - {"ro", "rw", "nocopy"}):
        raise ValueError(f"the option {unknown[0]} is not supported by swarmkit yet; ro, rw and nocopy are")
    kind = "bind" if source and source[0] in "/.~" else "volume"
    mount: dict[str, Any] = {"type": kind, "source": source, "target": target, "read_only": "ro" in options}
    if "nocopy" in options:
        mount["volume"] = {"nocopy": True}
    return mount


def _file_mode(value: Any) -> Any:
    """File permissions; text is read as octal, as `chmod` does (YAML itself reads 0444 as octal)."""
    if isinstance(value, str) and re.fullmatch(r"(0o?)?[0-7]{1,4}", value, re.ASCII):
        return int(value.removeprefix("0o"), 8)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 0o7777:
        return value
    raise ValueError(f"expected file permissions such as 0444, got {shown(value)}")


class ConfigUse(Section):
    """One entry of a service's `configs:`: the config and the file it becomes."""

    source: str
    target: str | None = None
    uid: Text = "0"
    gid: Text = "0"
    mode: Annotated[int, BeforeValidator(_file_mode)] = 0o444


def _config_use(value: Any) -> Any:
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

    cpus: Cpus | None = None
    memory: Size | None = None
    pids: Count | None = None


class Reservations(Section):
    """`deploy.resources.reservations`."""

    not_yet = frozenset({"devices", "generic_resources"})

    cpus: Cpus | None = None
    memory: Size | None = None


class Resources(Section):
    """`deploy.resources`."""

    limits: Limits | None = None
    reservations: Reservations | None = None


def _mode(value: Any) -> Any:
    if value in ("replicated-job", "global-job"):
        raise ValueError(f"{value} is not supported by swarmkit yet")
    return value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


class Deploy(Section):
    """`deploy:` of a service."""

    mode: Annotated[Literal["replicated", "global"], BeforeValidator(_mode)] = "replicated"
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
        if self.mode == "global" and self.replicas is not None:
            raise Misplaced((("replicas",), "a global service runs one task a node and has no replicas"))
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


class Service(Section):
    """One service of `services:`."""

    not_yet = _keys(
        "annotations attach blkio_config cgroup cgroup_parent cgroupns_mode container_name cpu_count"
        " cpu_percent cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpu_shares cpus cpuset"
        " credential_spec depends_on develop device_cgroup_rules devices dns_opt dns_search domainname"
        " env_file expose extends external_links gpus group_add ipc isolation label_file links"
        " mac_address mem_limit mem_reservation mem_swappiness memswap_limit models network_mode"
        " oom_kill_disable oom_score_adj pid pids_limit platform post_start pre_stop privileged profiles"
        " provider pull_policy restart runtime scale secrets security_opt shm_size stdin_open storage_opt"
        " sysctls tmpfs tty ulimits use_api_socket userns_mode uts volume_driver volumes_from"
    )

    image: str | None = None
    build: Annotated[Build | None, BeforeValidator(_build)] = None
    entrypoint: Words | None = None
    command: Words | None = None
    environment: Environment = {}
    ports: list[Annotated[Port, BeforeValidator(_port)]] = []
    networks: Annotated[dict[str, Attachment | None], BeforeValidator(_named)] = {}
    volumes: list[Annotated[Mount, BeforeValidator(_mount)]] = []
    configs: list[Annotated[ConfigUse, BeforeValidator(_config_use)]] = []
    deploy: Deploy = Deploy()
    healthcheck: Healthcheck | None = None
    labels: TextMap = {}
    hostname: str | None = None
    user: Text | None = None
    working_dir: str | None = None
    stop_grace_period: Duration | None = None
    stop_signal: str | None = None
    init: bool | None = None
    read_only: bool = False
    cap_add: list[str] = []
    cap_drop: list[str] = []
    extra_hosts: Annotated[list[str], BeforeValidator(_extra_hosts)] = []
    dns: Annotated[list[str], BeforeValidator(_one_or_many)] = []
    logging: Logging | None = None


class Definition(Section):
    """A network, volume or config of the file, or one that exists already (`external`)."""

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

    not_yet = frozenset({"aux_addresses", "gateway", "ip_range"})

    subnet: str


class Ipam(Section):
    """`ipam:` of a network."""

    not_yet = frozenset({"driver", "options"})

    config: list[Subnet] = []


class Network(Definition):
    """One network of `networks:`."""

    not_yet = frozenset({"enable_ipv4", "enable_ipv6"})

    driver: str | None = None
    driver_opts: TextMap = {}
    attachable: bool = False
    internal: bool = False
    ipam: Ipam = Ipam()
    labels: TextMap = {}


class Volume(Definition):
    """One volume of `volumes:`."""

    driver: str | None = None
    driver_opts: TextMap = {}
    labels: TextMap = {}


class Config(Definition):
    """One config of `configs:`."""

    not_yet = frozenset({"environment", "template_driver"})

    file: str | None = None
    content: str | None = None
    labels: TextMap = {}

    @model_validator(mode="after")
    def _one_origin(self) -> Config:
        if not self.external and (self.file is None) == (self.content is None):
            raise ValueError("needs either file or content (or external: true)")
        return self


class ComposeFile(Section):
    """A whole Compose file; `version` is allowed and means nothing, as in the Compose Specification."""

    not_yet = frozenset({"include", "models", "secrets"})

    version: Text | None = None
    name: str | None = None
    services: Annotated[dict[str, Service], BeforeValidator(_with_defaults)] = {}
    networks: Annotated[dict[str, Network], BeforeValidator(_with_defaults)] = {}
    volumes: Annotated[dict[str, Volume], BeforeValidator(_with_defaults)] = {}
    configs: Annotated[dict[str, Config], BeforeValidator(_with_defaults)] = {}
