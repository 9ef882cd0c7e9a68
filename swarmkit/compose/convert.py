"""From a Compose file to what the Engine API takes: service specs, networks and configs.

Names, labels, defaults and order are those of `docker stack deploy` (docker/cli,
cli/compose/convert); each is noted where it is made. Where swarmkit differs, docs/stacks.md says so:
routed services also join the balancer's network, and resolve to their tasks' addresses.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swarmkit.compose import models
from swarmkit.compose.load import Project
from swarmkit.errors import SwarmkitError, UsageError, raise_all
from swarmkit.names import EDGE_NETWORK, IMAGE_LABEL, ROUTE_PREFIX, STACK_LABEL

# The longest names that a swarm accepts for a service and for a config (moby/swarmkit, manager/controlapi).
SERVICE_NAME_LIMIT = 63
CONFIG_NAME_LIMIT = 64
_STACK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*", re.ASCII)
# Networks of the engine's own, where a service can have no alias (docker's IsUserDefined).
BUILT_IN_NETWORKS = frozenset({"host", "none", "bridge", "default", "nat"})
_ALL = "ALL"

Spec = dict[str, Any]


@dataclass(frozen=True)
class BuildSource:
    """Where a service's image is made from; `args` may leave a value to the Dockerfile (None)."""

    context: Path
    dockerfile: str
    args: Mapping[str, str | None]


@dataclass(frozen=True)
class DesiredService:
    """A service as it should be: `spec` is the body of POST /services/create.

    Networks, configs and secrets stand in it by name; what sends it fills in the ids of the latter two.
    `depends_on` gives the condition that the service waits for, by the short name of the other service.
    """

    name: str
    short_name: str
    spec: Spec
    build: BuildSource | None
    routed: bool
    depends_on: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DesiredNetwork:
    """A network of the stack: `spec` is the body of POST /networks/create."""

    name: str
    spec: Spec


@dataclass(frozen=True)
class DesiredConfig:
    """A config of the stack, under the name that its first version has."""

    name: str
    data: bytes = field(repr=False)
    labels: Mapping[str, str]

    def body(self) -> Spec:
        """The body of POST /configs/create."""
        return {
            "Name": self.name,
            "Labels": dict(self.labels),
            "Data": base64.b64encode(self.data).decode("ascii"),
        }


@dataclass(frozen=True)
class DesiredSecret:
    """A secret of the stack, under the name that its first version has."""

    name: str
    data: bytes = field(repr=False)
    labels: Mapping[str, str]

    def body(self) -> Spec:
        """The body of POST /secrets/create."""
        return {
            "Name": self.name,
            "Labels": dict(self.labels),
            "Data": base64.b64encode(self.data).decode("ascii"),
        }


@dataclass(frozen=True)
class DesiredStack:
    """All that a stack should be, and the names of what must exist beforehand.

    `volumes` are the full names of the named volumes that services mount and that are not external;
    nodes make them when a task starts.
    """

    name: str
    services: tuple[DesiredService, ...]
    networks: tuple[DesiredNetwork, ...] = ()
    configs: tuple[DesiredConfig, ...] = ()
    external_networks: tuple[str, ...] = ()
    external_configs: tuple[str, ...] = ()
    secrets: tuple[DesiredSecret, ...] = ()
    external_secrets: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Context:
    """What the file itself does not know.

    `images` gives the reference to run for a service (by its name in the file): the digest that was
    resolved or built. A service that is not in it runs what the file says. `edge` is the balancer's
    network; None where there is none.
    """

    images: Mapping[str, str] = field(default_factory=dict)
    edge: str | None = EDGE_NETWORK


def builds(project: Project) -> dict[str, BuildSource]:
    """What must be built before the project can be converted, by service."""
    found = {key: _build_source(project, service.build) for key, service in project.file.services.items()}
    return {key: source for key, source in found.items() if source}


def _build_source(project: Project, build: models.Build | None) -> BuildSource | None:
    if build is None:
        return None
    return BuildSource(project.folder / Path(build.context).expanduser(), build.dockerfile, build.args)


def convert(project: Project, stack: str, context: Context | None = None) -> DesiredStack:
    """What the swarm should hold for `project` deployed as the stack called `stack`.

    Raises UsageError (or Problems) where a name cannot be one in a swarm, and ValueError for a service
    with neither an image of its own nor one in `context.images`.
    """
    context = context or Context()
    _check_names(project, stack)
    maker = _Maker(project, stack, context)
    services = tuple(maker.service(key, service) for key, service in project.file.services.items())
    used = {key for service in project.file.services.values() for key in service.networks or ("default",)}
    definitions = {**{key: models.Network() for key in used}, **project.file.networks}
    external = {maker.network_name(key) for key in used if definitions[key].external} - BUILT_IN_NETWORKS
    if context.edge and any(service.routed for service in services):
        external.add(context.edge)
    return DesiredStack(
        name=stack,
        services=services,
        networks=tuple(
            maker.network(key, definitions[key]) for key in sorted(used) if not definitions[key].external
        ),
        configs=tuple(
            DesiredConfig(
                name=maker.name_of(key, project.file.configs[key]),
                data=data,
                labels={**project.file.configs[key].labels, STACK_LABEL: stack},
            )
            for key, data in sorted(project.config_data.items())
        ),
        external_networks=tuple(sorted(external)),
        external_configs=tuple(
            sorted(config.name or key for key, config in project.file.configs.items() if config.external)
        ),
    )


def _check_names(project: Project, stack: str) -> None:
    if not _STACK_NAME.fullmatch(stack):
        raise UsageError(
            f'"{stack}" cannot be the name of a stack',
            hint="use letters, digits, dashes and underscores, and begin with a letter or a digit",
        )
    file = project.file
    names = [(f"{stack}_{key}", SERVICE_NAME_LIMIT) for key in file.services]
    names += [(config.name or f"{stack}_{key}", CONFIG_NAME_LIMIT) for key, config in file.configs.items()]
    errors: list[SwarmkitError] = [
        UsageError(
            f"the name {name} is longer than the {limit} characters a swarm allows",
            hint="give the stack, or what it holds, a shorter name",
        )
        for name, limit in names
        if len(name) > limit
    ]
    raise_all(errors)


@dataclass(frozen=True)
class _Maker:
    project: Project
    stack: str
    context: Context

    def scoped(self, key: str) -> str:
        return f"{self.stack}_{key}"

    def name_of(self, key: str, definition: models.Definition | None) -> str:
        """docker's names: STACK_key; a `name:` as it stands; an external one by its own name."""
        if definition is None:
            return self.scoped(key)
        return definition.name or (key if definition.external else self.scoped(key))

    def network_name(self, key: str) -> str:
        return self.name_of(key, self.project.file.networks.get(key))

    def network(self, key: str, network: models.Network) -> DesiredNetwork:
        name = self.network_name(key)
        spec: Spec = {
            "Name": name,
            "Driver": network.driver or "overlay",
            "Internal": network.internal,
            "Attachable": network.attachable,
            "Labels": {**network.labels, STACK_LABEL: self.stack},
        }
        if network.driver_opts:
            spec["Options"] = dict(network.driver_opts)
        if network.ipam.config:
            spec["IPAM"] = {"Config": [{"Subnet": entry.subnet} for entry in network.ipam.config]}
        return DesiredNetwork(name, spec)

    def service(self, key: str, service: models.Service) -> DesiredService:
        deploy = service.deploy
        routed = any(label.startswith(ROUTE_PREFIX) for label in deploy.labels)
        image = self.context.images.get(key) or (service.image and tagged(service.image))
        if not image:
            raise ValueError(f"no image is known for {key}, which is built")
        spec: Spec = {
            "Name": self.scoped(key),
            "Labels": {**deploy.labels, STACK_LABEL: self.stack, IMAGE_LABEL: service.image or image},
            "TaskTemplate": _given(
                ContainerSpec=self._container(image, service),
                LogDriver=_log_driver(service.logging),
                RestartPolicy=_restart_policy(deploy.restart_policy),
                Networks=self._attachments(key, service, routed),
            )
            | {"Resources": _resources(deploy.resources), "Placement": _placement(deploy.placement)},
            "Mode": {"Global": {}}
            if deploy.mode == "global"
            else {"Replicated": _given(Replicas=deploy.replicas)},
            "EndpointSpec": _endpoint(service, routed),
        }
        if deploy.update_config:
            spec["UpdateConfig"] = _update_config(deploy.update_config)
        if deploy.rollback_config:
            spec["RollbackConfig"] = _update_config(deploy.rollback_config)
        return DesiredService(
            name=spec["Name"],
            short_name=key,
            spec=spec,
            build=_build_source(self.project, service.build),
            routed=routed,
        )

    def _container(self, image: str, service: models.Service) -> Spec:
        add, drop = _capabilities(service.cap_add, service.cap_drop)
        return _given(
            Image=image,
            Labels={**service.labels, STACK_LABEL: self.stack},
            # Compose's entrypoint is the engine's Command, and Compose's command its Args.
            Command=service.entrypoint,
            Args=service.command,
            Hostname=service.hostname,
            Env=[
                key if value is None else f"{key}={value}"
                for key, value in sorted(service.environment.items())
            ],
            Dir=service.working_dir,
            User=service.user,
            # docker always sends this; leaving it out of a service that docker made restarts its tasks.
            Privileges={"CredentialSpec": None, "SELinuxContext": None},
            Init=service.init,
            StopSignal=service.stop_signal,
            StopGracePeriod=service.stop_grace_period,
            ReadOnly=service.read_only or None,
            Mounts=[self._mount(mount) for mount in service.volumes],
            Healthcheck=_healthcheck(service.healthcheck),
            Hosts=service.extra_hosts,
            DNSConfig=_given(Nameservers=service.dns),
            Configs=self._configs(service.configs),
            CapabilityAdd=add,
            CapabilityDrop=drop,
        )

    def _attachments(self, key: str, service: models.Service, routed: bool) -> list[Spec]:
        """Networks sorted by name, each with the service's own name as the last alias, as docker does.

        The balancer's network is shared by all stacks: no name there may be that of a service of another
        stack, so swarmkit adds none.
        """
        edge = self.context.edge if routed else None
        attachments: dict[str, Spec] = {edge: {"Target": edge}} if edge else {}
        for name, attachment in (service.networks or {"default": None}).items():
            target = self.network_name(name)
            aliases = list(attachment.aliases) if attachment else []
            if target not in BUILT_IN_NETWORKS and target != self.context.edge:
                aliases.append(key)
            attachments[target] = _given(Target=target, Aliases=aliases)
        return [attachment for _, attachment in sorted(attachments.items())]

    def _mount(self, mount: models.Mount) -> Spec:
        out: Spec = {"Type": mount.type, "Target": mount.target}
        if mount.read_only:
            out["ReadOnly"] = True
        if mount.type == "bind":
            # Relative to the Compose file here; the folder must be there on every node that runs a task.
            out["Source"] = str(_normal(self.project.folder / Path(mount.source or "").expanduser()))
            if mount.bind and mount.bind.propagation:
                out["BindOptions"] = {"Propagation": mount.bind.propagation}
        elif mount.type == "tmpfs":
            if mount.tmpfs and mount.tmpfs.size is not None:
                out["TmpfsOptions"] = {"SizeBytes": mount.tmpfs.size}
        else:
            options: Spec = {"NoCopy": True} if mount.volume and mount.volume.nocopy else {}
            if mount.source:
                definition = self.project.file.volumes[mount.source]
                out["Source"] = self.name_of(mount.source, definition)
                if not definition.external:
                    options |= _volume_options(definition, self.stack)
            if options or mount.source:
                out["VolumeOptions"] = options
        return out

    def _configs(self, uses: Iterable[models.ConfigUse]) -> list[Spec]:
        """Sorted by name as docker does; a file name without a slash is under /, where the engine puts it."""
        references = [
            {
                "File": {
                    "Name": use.target or use.source,
                    "UID": use.uid,
                    "GID": use.gid,
                    "Mode": use.mode,
                },
                "ConfigName": self.name_of(use.source, self.project.file.configs[use.source]),
            }
            for use in uses
        ]
        return sorted(references, key=lambda reference: str(reference["ConfigName"]))


def tagged(image: str) -> str:
    """An image reference as docker sends it: Docker Hub's names short, and a tag where nothing is said.

    `docker.io/library/redis` is `redis:latest`; one with a tag or a digest keeps it.
    """
    short = image.removeprefix("docker.io/").removeprefix("library/")
    last = short.rpartition("/")[2]
    return short if ":" in last or "@" in last else f"{short}:latest"


def _given(**values: Any) -> Spec:
    """What has a value: absent and empty mean the same to the engine, and docker leaves both out."""
    return {key: value for key, value in values.items() if value is not None and value not in ([], {})}


def _normal(path: Path) -> Path:
    """`/a/./b/../c` as `/a/c`, without asking the disk: the folder is on another machine."""
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and len(parts) > 1:
            parts.pop()
        elif part != "..":
            parts.append(part)
    return Path(*parts)


def _volume_options(volume: models.Volume, stack: str) -> Spec:
    options: Spec = {"Labels": {**volume.labels, STACK_LABEL: stack}}
    if volume.driver or volume.driver_opts:
        options["DriverConfig"] = _given(Name=volume.driver, Options=volume.driver_opts)
    return options


def _healthcheck(check: models.Healthcheck | None) -> Spec | None:
    if check is None:
        return None
    if check.disable:
        return {"Test": ["NONE"]}
    return _given(
        Test=check.test,
        Interval=check.interval,
        Timeout=check.timeout,
        Retries=check.retries,
        StartPeriod=check.start_period,
        StartInterval=check.start_interval,
    )


def _capabilities(add: Iterable[str], drop: Iterable[str]) -> tuple[list[str], list[str]]:
    """In the kernel's names and sorted; ALL stands for all others, and what is added is not dropped."""
    added, dropped = (
        {_ALL} if _ALL in names else names
        for names in ({_capability(name) for name in part} for part in (add, drop))
    )
    return sorted(added), sorted(dropped - added)


def _capability(name: str) -> str:
    upper = name.strip().upper()
    return upper if upper == _ALL or upper.startswith("CAP_") else f"CAP_{upper}"


def _log_driver(logging: models.Logging | None) -> Spec | None:
    return None if logging is None else _given(Name=logging.driver, Options=logging.options)


def _restart_policy(policy: models.RestartPolicy | None) -> Spec | None:
    if policy is None:
        return None
    return _given(
        Condition=policy.condition,
        Delay=policy.delay,
        MaxAttempts=policy.max_attempts,
        Window=policy.window,
    )


def _resources(resources: models.Resources) -> Spec:
    out: Spec = {}
    if limits := resources.limits:
        out["Limits"] = _given(NanoCPUs=limits.cpus, MemoryBytes=limits.memory, Pids=limits.pids)
    if reservations := resources.reservations:
        out["Reservations"] = _given(NanoCPUs=reservations.cpus, MemoryBytes=reservations.memory)
    return out


def _placement(placement: models.Placement) -> Spec:
    return _given(
        Constraints=placement.constraints,
        Preferences=[{"Spread": {"SpreadDescriptor": entry.spread}} for entry in placement.preferences],
        MaxReplicas=placement.max_replicas_per_node or None,
    )


def _update_config(config: models.UpdateConfig | models.RollbackConfig) -> Spec:
    """docker's default for parallelism is one task at a time once the block is there."""
    return _given(
        Parallelism=1 if config.parallelism is None else config.parallelism,
        Delay=config.delay,
        FailureAction=config.failure_action,
        Monitor=config.monitor,
        MaxFailureRatio=config.max_failure_ratio,
        Order=config.order,
    )


def _endpoint(service: models.Service, routed: bool) -> Spec:
    """Ports sorted by the published one, as docker does.

    A routed service resolves to its tasks' addresses (dnsrr) and so needs no IPVS in the kernel, unless
    it says otherwise or publishes in ingress mode, which a swarm has only with a virtual IP.
    """
    mode = service.deploy.endpoint_mode
    if mode is None and routed and all(port.mode == "host" for port in service.ports):
        mode = "dnsrr"
    ports = [
        _given(Protocol=port.protocol, TargetPort=target, PublishedPort=published, PublishMode=port.mode)
        for port in service.ports
        for published, target in port.pairs()
    ]
    return _given(Mode=mode, Ports=sorted(ports, key=lambda port: port.get("PublishedPort", 0)))
