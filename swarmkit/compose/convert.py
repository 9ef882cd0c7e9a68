"""From a Compose file to what the Engine API takes: service specs, networks, configs and secrets.

Names, labels, defaults and order are those of `docker stack deploy` (docker/cli,
cli/compose/convert); each is noted where it is made. tests/conformance compares the two;
docs/compose-support.md lists where swarmkit differs, and why.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from swarmkit.compose import models
from swarmkit.compose.load import Project
from swarmkit.compose.naming import check_stack_name, name_of
from swarmkit.names import EDGE_NETWORK, IMAGE_LABEL, ROUTE_PREFIX, STACK_LABEL

# Networks of the engine's own, where a service can have no alias (docker's IsUserDefined).
BUILT_IN_NETWORKS = frozenset({"host", "none", "bridge", "default", "nat"})
_PLAIN = models.Attachment()
# Words among capabilities: all there are, and docker's for those of an update, which means nothing here.
_ALL = "ALL"
_RESET = "RESET"

Spec = dict[str, Any]
ThingT = TypeVar("ThingT", "DesiredNetwork", "DesiredConfig", "DesiredSecret")


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
    """A config of the stack, under the name that its first version has.

    `template_driver` is what fills in the content for each task (`golang`), if anything does.
    """

    name: str
    data: bytes = field(repr=False)
    labels: Mapping[str, str]
    template_driver: str | None = None

    def body(self) -> Spec:
        """The body of POST /configs/create."""
        return _file_object_body(self)


@dataclass(frozen=True)
class DesiredSecret:
    """A secret of the stack, under the name that its first version has.

    `driver` is the Engine API's Driver that gives the content to the tasks; `data` is empty then.
    """

    name: str
    data: bytes = field(repr=False)
    labels: Mapping[str, str]
    driver: Spec | None = None
    template_driver: str | None = None

    def body(self) -> Spec:
        """The body of POST /secrets/create."""
        body = _file_object_body(self)
        return {**body, "Driver": self.driver} if self.driver else body


def _file_object_body(thing: DesiredConfig | DesiredSecret) -> Spec:
    body: Spec = {
        "Name": thing.name,
        "Labels": dict(thing.labels),
        "Data": base64.b64encode(thing.data).decode("ascii"),
    }
    return {**body, "Templating": {"Name": thing.template_driver}} if thing.template_driver else body


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

    Raises UsageError where a stack cannot be called so, and ValueError for a service with neither an image
    of its own nor one in `context.images`.
    """
    check_stack_name(stack)
    context = context or Context()
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
        networks=_once(
            maker.network(key, definitions[key]) for key in sorted(used) if not definitions[key].external
        ),
        configs=_once(maker.config(key, data) for key, data in sorted(project.config_data.items())),
        external_networks=tuple(sorted(external)),
        external_configs=_external(project.file.configs),
        secrets=_once(
            maker.secret(key, secret)
            for key, secret in sorted(project.file.secrets.items())
            if not secret.external
        ),
        external_secrets=_external(project.file.secrets),
        volumes=tuple(sorted(maker.volumes())),
    )


def _once(things: Iterable[ThingT]) -> tuple[ThingT, ...]:
    """Several definitions may come to the same thing of one name."""
    return tuple({thing.name: thing for thing in things}.values())


def _external(definitions: Mapping[str, models.Definition]) -> tuple[str, ...]:
    return tuple(sorted({thing.name or key for key, thing in definitions.items() if thing.external}))


@dataclass(frozen=True)
class _Maker:
    project: Project
    stack: str
    context: Context

    def name_of(self, key: str, definition: models.Definition | None) -> str:
        return name_of(self.stack, key, definition)

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
        if ipam := _ipam(network.ipam):
            spec["IPAM"] = ipam
        spec |= _given(EnableIPv4=network.enable_ipv4, EnableIPv6=network.enable_ipv6)
        return DesiredNetwork(name, spec)

    def config(self, key: str, data: bytes) -> DesiredConfig:
        config = self.project.file.configs[key]
        return DesiredConfig(
            name=self.name_of(key, config),
            data=data,
            labels={**config.labels, STACK_LABEL: self.stack},
            template_driver=config.template_driver,
        )

    def secret(self, key: str, secret: models.Secret) -> DesiredSecret:
        return DesiredSecret(
            name=self.name_of(key, secret),
            data=self.project.secret_data.get(key, b""),
            labels={**secret.labels, STACK_LABEL: self.stack},
            driver=_given(Name=secret.driver, Options=secret.driver_opts) or None,
            template_driver=secret.template_driver,
        )

    def volumes(self) -> set[str]:
        used = {
            mount.source
            for service in self.project.file.services.values()
            for mount in service.volumes
            if mount.type == "volume" and mount.source
        }
        definitions = self.project.file.volumes
        return {self.name_of(key, definitions[key]) for key in used if not definitions[key].external}

    def service(self, key: str, service: models.Service) -> DesiredService:
        deploy = service.deploy
        routed = any(label.startswith(ROUTE_PREFIX) for label in deploy.labels)
        image = self.context.images.get(key) or (service.image and tagged(service.image))
        if not image:
            raise ValueError(f"no image is known for {key}, which is built")
        spec: Spec = {
            "Name": self.name_of(key, None),
            "Labels": {**deploy.labels, STACK_LABEL: self.stack, IMAGE_LABEL: service.image or image},
            "TaskTemplate": _given(
                ContainerSpec=self._container(image, service),
                LogDriver=_log_driver(service.logging),
                RestartPolicy=_restart_policy(deploy.restart_policy, service.restart),
                Networks=self._attachments(key, service, routed),
            )
            | {"Resources": _resources(deploy.resources), "Placement": _placement(deploy.placement)},
            "Mode": _mode(service),
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
            depends_on={name: dependency.condition for name, dependency in service.depends_on.items()},
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
            # The lines are sorted, not the names: A1=x comes before A=x. Another order restarts tasks.
            Env=sorted(
                key if value is None else f"{key}={value}" for key, value in service.environment.items()
            ),
            Dir=service.working_dir,
            User=service.user,
            Groups=service.group_add,
            # docker always sends this; leaving it out of a service that docker made restarts its tasks.
            Privileges={
                "CredentialSpec": self._credential_spec(service.credential_spec),
                "SELinuxContext": None,
            },
            Init=service.init,
            Isolation=service.isolation,
            TTY=service.tty or None,
            OpenStdin=service.stdin_open or None,
            StopSignal=service.stop_signal,
            StopGracePeriod=service.stop_grace_period,
            ReadOnly=service.read_only or None,
            Mounts=[self._mount(mount) for mount in (*service.volumes, *service.tmpfs)],
            Healthcheck=_healthcheck(service.healthcheck),
            Hosts=service.extra_hosts,
            DNSConfig=_given(Nameservers=service.dns, Search=service.dns_search, Options=service.dns_opt),
            Secrets=self._uses("Secret", service.secrets, self.project.file.secrets),
            Configs=self._configs(service),
            Sysctls=service.sysctls,
            CapabilityAdd=add,
            CapabilityDrop=drop,
            Ulimits=[
                {"Name": name, "Soft": limit.soft, "Hard": limit.hard}
                for name, limit in sorted(service.ulimits.items())
            ],
            OomScoreAdj=service.oom_score_adj or None,
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
            # Two of the file's networks may be one.
            aliases = [*attachments.get(target, {}).get("Aliases", ()), *(attachment or _PLAIN).aliases]
            if target not in BUILT_IN_NETWORKS and target != self.context.edge:
                aliases.append(key)
            attachments[target] = _given(
                Target=target, Aliases=aliases, DriverOpts=(attachment or _PLAIN).driver_opts
            )
        return [attachment for _, attachment in sorted(attachments.items())]

    def _mount(self, mount: models.Mount) -> Spec:
        source, options = mount.source, self._mount_options(mount)
        if mount.type == "bind":
            source = self._folder_of_node(mount.source or "")
        elif source and (mount.type == "volume" or (mount.type == "cluster" and not _is_group(source))):
            source = self.name_of(source, self.project.file.volumes[source])
        return _given(
            Type=mount.type,
            Source=source,
            Target=mount.target,
            ReadOnly=mount.read_only or None,
            Consistency=mount.consistency,
        ) | ({_OPTIONS[mount.type]: options} if options is not None else {})

    def _folder_of_node(self, source: str) -> str:
        """Relative to the Compose file here; it must be there on every node that runs a task.

        One that is absolute already, also on Windows, stays as it is written.
        """
        if source == "~" or source.startswith("~/"):
            return f"{Path.home()}{source[1:]}"
        if re.match(r"/|[A-Za-z]:|\\\\", source):
            return source
        return str(_normal(self.project.folder / source))

    def _mount_options(self, mount: models.Mount) -> Spec | None:
        """The options of the mount's own kind; None where it has none, as docker leaves them out."""
        match mount.type:
            case "volume":
                if mount.source is None and mount.volume is None:
                    return None
                given = mount.volume or models.VolumeOptions()
                definition = self.project.file.volumes[mount.source] if mount.source else None
                options = _given(
                    NoCopy=given.nocopy or None, Subpath=given.subpath, Labels=dict(given.labels)
                )
                if definition and not definition.external:
                    options |= _volume_options(definition, given.labels, self.stack)
                return options
            case "bind" | "npipe":
                return _bind_options(mount.bind) if mount.bind else None
            case "tmpfs":
                tmpfs = mount.tmpfs
                return _given(SizeBytes=tmpfs.size, Mode=tmpfs.mode) if tmpfs else None
            case "cluster":
                return {}

    def _uses(
        self, kind: str, uses: Iterable[models.FileUse], definitions: Mapping[str, models.FileObject]
    ) -> list[Spec]:
        """References sorted by name as docker does.

        A relative file name is under / for a config and under /run/secrets for a secret, where the engine
        puts it.
        """
        references = [
            {
                "File": {
                    "Name": use.target or use.source,
                    "UID": use.uid,
                    "GID": use.gid,
                    "Mode": use.mode,
                },
                f"{kind}Name": self.name_of(use.source, definitions[use.source]),
            }
            for use in uses
        ]
        return sorted(references, key=lambda reference: str(reference[f"{kind}Name"]))

    def _configs(self, service: models.Service) -> list[Spec]:
        """The configs that become files, and the one that is no file but the credential spec."""
        references = self._uses("Config", service.configs, self.project.file.configs)
        if service.credential_spec and (key := service.credential_spec.config):
            name = self.name_of(key, self.project.file.configs[key])
            references.append({"ConfigName": name, "Runtime": {}})
        return sorted(references, key=lambda reference: str(reference["ConfigName"]))

    def _credential_spec(self, spec: models.CredentialSpec | None) -> Spec | None:
        """With a config by its name, in whose place the one who sends it puts the id."""
        if spec is None:
            return None
        config = spec.config and self.name_of(spec.config, self.project.file.configs[spec.config])
        return _given(Config=config, File=spec.file, Registry=spec.registry) or None


# How the Engine API calls the options of each type of mount.
_OPTIONS = {
    "volume": "VolumeOptions",
    "bind": "BindOptions",
    "npipe": "BindOptions",
    "tmpfs": "TmpfsOptions",
    "cluster": "ClusterOptions",
}


def _is_group(source: str) -> bool:
    """Whether a cluster mount's source is a group of volumes, which no stack owns."""
    return source.startswith("group:")


def tagged(image: str) -> str:
    """An image reference as docker sends it: Docker Hub's names short, and a tag where nothing is said.

    `docker.io/library/redis` is `redis:latest`; one with a tag or a digest keeps it, and an image's id
    stays an id (distribution/reference, ParseNormalizedNamed and FamiliarString).
    """
    if re.fullmatch(r"[0-9a-f]{64}", image):
        return image
    domain, slash, rest = image.partition("/")
    if slash and domain in ("docker.io", "index.docker.io"):
        image = rest
    parts = image.split("/")
    if len(parts) == 2 and parts[0] == "library":
        image = parts[1]
    return image if ":" in image.rpartition("/")[2] or "@" in image else f"{image}:latest"


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


def _mode(service: models.Service) -> Spec:
    """The mode; a job runs as many tasks at a time as it needs in all, as docker has it."""
    replicas = service.scale if service.deploy.replicas is None else service.deploy.replicas
    match service.deploy.mode:
        case "replicated":
            return {"Replicated": _given(Replicas=replicas)}
        case "global":
            return {"Global": {}}
        case "replicated-job":
            return {"ReplicatedJob": _given(MaxConcurrent=replicas, TotalCompletions=replicas)}
        case "global-job":
            return {"GlobalJob": {}}


def _ipam(ipam: models.Ipam) -> Spec:
    return _given(
        Driver=ipam.driver,
        Options=ipam.options,
        Config=[
            _given(
                Subnet=entry.subnet,
                IPRange=entry.ip_range,
                Gateway=entry.gateway,
                AuxiliaryAddresses=entry.aux_addresses,
            )
            for entry in ipam.config
        ],
    )


def _volume_options(volume: models.Volume, labels: Mapping[str, str], stack: str) -> Spec:
    options: Spec = {"Labels": {**volume.labels, **labels, STACK_LABEL: stack}}
    if volume.driver or volume.driver_opts:
        options["DriverConfig"] = _given(Name=volume.driver, Options=volume.driver_opts)
    return options


def _bind_options(bind: models.BindOptions) -> Spec:
    return _given(
        Propagation=bind.propagation,
        CreateMountpoint=bind.create_host_path or None,
        NonRecursive=bind.recursive == "disabled" or None,
        ReadOnlyNonRecursive=bind.recursive == "writable" or None,
        ReadOnlyForceRecursive=bind.recursive == "readonly" or None,
    )


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
    return sorted(added - {_RESET}), sorted(dropped - added - {_RESET})


def _capability(name: str) -> str:
    upper = name.strip().upper()
    return upper if upper in (_ALL, _RESET) or upper.startswith("CAP_") else f"CAP_{upper}"


def _log_driver(logging: models.Logging | None) -> Spec | None:
    return None if logging is None else _given(Name=logging.driver, Options=logging.options)


def _restart_policy(policy: models.RestartPolicy | None, restart: str | None) -> Spec | None:
    """That of `deploy`, else what `restart:` means in Swarm; "no" sets none, as with docker."""
    if policy is not None:
        return _given(
            Condition=policy.condition,
            Delay=policy.delay,
            MaxAttempts=policy.max_attempts,
            Window=policy.window,
        )
    condition, _, attempts = (restart or "no").partition(":")
    if condition == "on-failure":
        # docker 28 sends a 0 where there is no number, which is no limit.
        return {"Condition": condition, "MaxAttempts": int(attempts or 0)}
    return None if condition == "no" else {"Condition": "any"}


def _resources(resources: models.Resources) -> Spec:
    out: Spec = {}
    if limits := resources.limits:
        out["Limits"] = _given(NanoCPUs=limits.cpus, MemoryBytes=limits.memory, Pids=limits.pids)
    if reservations := resources.reservations:
        out["Reservations"] = _given(
            NanoCPUs=reservations.cpus,
            MemoryBytes=reservations.memory,
            GenericResources=[
                {"DiscreteResourceSpec": {"Kind": one.kind, "Value": one.value}}
                for one in (entry.discrete_resource_spec for entry in reservations.generic_resources)
            ],
        )
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
        # The engine reads no time as none said, here and for the monitor.
        Delay=config.delay or None,
        FailureAction=config.failure_action,
        Monitor=config.monitor or None,
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
