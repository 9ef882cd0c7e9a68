"""Compose files made by hypothesis: any combination of the keys of the format 3.13 that docker accepts."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping
from typing import Any

from hypothesis import strategies as st

from swarmkit.compose.matrix import keys as known_keys

Strategy = st.SearchStrategy[Any]

_LETTERS = string.ascii_lowercase + string.digits
names = st.text(_LETTERS, min_size=2, max_size=6)
# What fmt.Sprint and YAML agree on; no $, which both interpolate.
words = st.text(string.ascii_letters + string.digits + " _-./:=,#'\"é{}", max_size=12)
numbers = st.one_of(st.integers(-(10**12), 10**12), st.floats(-1e9, 1e9))
keys = st.text(string.ascii_letters + string.digits + "_.-", min_size=1, max_size=8).filter(
    lambda key: not key.startswith("x-")
)
durations = st.one_of(
    st.builds("{}{}".format, st.integers(0, 5000), st.sampled_from(["ns", "us", "ms", "s", "m", "h"])),
    st.builds("{}m{}.{}s".format, st.integers(0, 59), st.integers(0, 59), st.integers(0, 999999)),
)
sizes = st.builds(
    "{}{}".format,
    st.one_of(st.integers(1, 4096), st.sampled_from(["0.5", "1.5", "2.25"])),
    st.sampled_from(["b", "k", "K", "kb", "KiB", "m", "M", "mb", "g", "GB", " gb"]),
)
memories = st.one_of(
    st.builds("{}{}".format, st.integers(2**22, 2**32), st.sampled_from(["", "b", "B"])),
    st.builds("{}{}".format, st.integers(4096, 10**6), st.sampled_from(["k", "K", "kb", "KiB"])),
    st.builds(
        "{}{}".format, st.sampled_from([4, "4.5", "64.25", 300]), st.sampled_from(["m", "M", "mb", " gb"])
    ),
)
cpus = st.one_of(
    st.integers(0, 64).map(str),
    st.integers(10**6, 10**9).map(lambda nano: f"{nano // 10**9}.{nano % 10**9:09}"),
)
hosts = st.sampled_from(["10.0.0.1", "192.168.7.9", "::1", "2001:db8::5"])
files = st.sampled_from(["data/plain.txt", "./data/token.txt", "data/binary.bin"])


def some(required: Mapping[str, Strategy] | None = None, /, **optional: Strategy) -> Strategy:
    """A mapping with all that is required and any of the rest."""
    return st.fixed_dictionaries(dict(required or {}), optional=optional)


def unique(strategy: Strategy, **limits: int) -> Strategy:
    return st.lists(strategy, unique=True, max_size=limits.get("max_size", 4))


def text_map(values: Strategy) -> Strategy:
    return st.dictionaries(keys, values, max_size=4)


def map_or_list(nothing: bool = True) -> Strategy:
    values = st.one_of(words, numbers, st.none()) if nothing else st.one_of(words, numbers)
    lines = st.one_of(keys, st.builds("{}={}".format, keys, words))
    return st.one_of(text_map(values), unique(lines))


one_or_many = st.one_of(words.filter(bool), unique(words.filter(bool)))
quoted = st.one_of(
    st.text(_LETTERS + "#=/", min_size=1, max_size=6),
    st.text(_LETTERS + " #\\", max_size=6).map(lambda text: f"'{text}'"),
    st.text(_LETTERS + " #'", max_size=6).map(lambda text: f'"{text}"'),
    st.sampled_from(["\\ ", "\\\\", '"\\n"', '\\"', '"\\""', "# rest"]),
)
commands = st.one_of(
    st.lists(st.lists(quoted, min_size=1, max_size=3).map("".join), max_size=4).map(" ".join),
    st.lists(words, max_size=4),
)
_port_numbers = st.integers(1, 60000)
ports = st.one_of(
    _port_numbers,
    _port_numbers.map(str),
    st.builds("{}:{}".format, _port_numbers, _port_numbers),
    st.builds("{}:{}/{}".format, _port_numbers, _port_numbers, st.sampled_from(["tcp", "udp", "sctp"])),
    st.builds(
        lambda published, target, more: f"{published}-{published + more}:{target}-{target + more}",
        _port_numbers,
        _port_numbers,
        st.integers(1, 4),
    ),
    st.builds(lambda published, more: f"{published}-{published + more}:80", _port_numbers, st.integers(1, 3)),
    st.builds("127.0.0.1:{}:{}".format, _port_numbers, _port_numbers),
    some(
        {"target": _port_numbers},
        published=_port_numbers,
        protocol=st.sampled_from(["tcp", "udp", "sctp"]),
        mode=st.sampled_from(["host", "ingress"]),
    ),
)
paths = st.lists(names, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
_ratios = st.integers(0, 100).map(lambda hundredths: hundredths / 100)
_update: dict[str, Any] = {
    "parallelism": st.integers(0, 10),
    "delay": durations,
    "monitor": durations,
    "max_failure_ratio": _ratios,
    "order": st.sampled_from(["start-first", "stop-first"]),
}
deploys = some(
    labels=map_or_list(),
    endpoint_mode=st.sampled_from(["vip", "dnsrr", "VIP"]),
    placement=some(
        constraints=st.lists(
            st.builds("node.labels.{}{}{}".format, names, st.sampled_from(["==", " != "]), names), max_size=3
        ),
        preferences=st.lists(some({"spread": names}), max_size=2),
        max_replicas_per_node=st.integers(0, 5),
    ),
    update_config=some(**_update, failure_action=st.sampled_from(["pause", "continue", "rollback"])),
    rollback_config=some(**_update, failure_action=st.sampled_from(["pause", "continue"])),
    restart_policy=some(
        condition=st.sampled_from(["none", "on-failure", "any"]),
        delay=durations,
        max_attempts=st.integers(0, 9),
        window=durations,
    ),
    resources=some(
        limits=some(cpus=cpus, memory=memories, pids=st.integers(0, 999)),
        reservations=some(
            cpus=cpus,
            memory=memories,
            generic_resources=st.lists(
                some({"discrete_resource_spec": some({"kind": names, "value": st.integers(1, 8)})}),
                max_size=2,
            ),
        ),
    ),
)
modes = st.one_of(
    some({"mode": st.sampled_from(["global", "global-job"])}),
    some({"mode": st.sampled_from(["replicated", "replicated-job"])}, replicas=st.integers(0, 9)),
    some(replicas=st.integers(0, 9)),
)
healthchecks = st.one_of(
    st.just({"disable": True}),
    some(
        test=st.one_of(
            words, st.lists(words, max_size=3).map(lambda rest: ["CMD", *rest]), st.just(["NONE"])
        ),
        interval=durations,
        timeout=durations,
        retries=st.integers(0, 9),
        start_period=durations,
        start_interval=durations,
    ),
)


def uses(defined: list[str]) -> Strategy:
    """Uses of configs or secrets, each under a file of its own."""
    entry = st.one_of(
        st.sampled_from(defined),
        some(
            {"source": st.sampled_from(defined)},
            target=paths,
            uid=st.integers(0, 999).map(str),
            gid=st.integers(0, 999).map(str),
            mode=st.integers(0, 0o777),
        ),
    )
    return st.lists(entry, max_size=4, unique_by=_file_of)


def _file_of(use: Any) -> str:
    return use if isinstance(use, str) else str(use.get("target") or use["source"])


def mounts(defined: list[str]) -> Strategy:
    volumes = st.sampled_from(defined) if defined else st.nothing()
    folders = st.builds("{}{}".format, st.sampled_from(["./", "../", "/", "~/"]), names)
    options = st.sampled_from(["", ":ro", ":rw", ":ro,rw", ":z"])
    return st.one_of(
        paths,
        st.builds("{}:{}{}".format, volumes, paths, st.one_of(options, st.just(":nocopy"))),
        st.builds("{}:{}{}".format, folders, paths, st.one_of(options, st.just(":rslave"))),
        some(
            {"type": st.just("volume"), "source": volumes, "target": paths},
            read_only=st.booleans(),
            consistency=st.sampled_from(["cached", "default"]),
            volume=some(nocopy=st.booleans(), subpath=names),
        ),
        some(
            {"type": st.just("bind"), "source": folders, "target": paths},
            read_only=st.booleans(),
            bind=some(propagation=st.sampled_from(["private", "rshared"])),
        ),
        some({"type": st.just("tmpfs"), "target": paths}, tmpfs=some(size=st.integers(0, 10**9))),
        some({"type": st.just("cluster"), "source": names.map("group:{}".format), "target": paths}),
        some({"type": st.just("npipe"), "source": names, "target": paths}),
    )


def attachments(defined: list[str]) -> Strategy:
    options = st.one_of(
        st.none(),
        some(
            aliases=unique(names),
            driver_opts=text_map(st.one_of(words, numbers)),
            ipv4_address=hosts,
            ipv6_address=hosts,
        ),
    )
    one = st.sampled_from(defined)
    return st.one_of(unique(one), st.dictionaries(one, options, max_size=4))


_env_files = st.sampled_from(["data/one.env", "./data/two.env"])
# What docker warns that it ignores, or says nothing of.
_ignored: dict[str, Any] = {
    "cgroup_parent": names,
    "cgroupns_mode": st.sampled_from(["host", "private"]),
    "container_name": names,
    "devices": unique(st.just("/dev/null:/dev/null")),
    "domainname": names,
    "expose": unique(_port_numbers),
    "external_links": unique(names),
    "ipc": st.just("host"),
    "links": unique(names),
    "mac_address": st.just("02:42:ac:11:65:43"),
    "network_mode": st.sampled_from(["host", "bridge"]),
    "pid": st.just("host"),
    "privileged": st.booleans(),
    "security_opt": unique(names),
    "shm_size": sizes,
    "userns_mode": st.just("host"),
}


@st.composite
def services(
    draw: st.DrawFn,
    networks: list[str],
    volumes: list[str],
    configs: list[str],
    secrets: list[str],
    unnamed: list[str],
) -> Any:
    """A service that uses what is defined; `unnamed` are the configs with docker's own names."""
    service = draw(
        some(
            {"image": st.one_of(names, st.builds("{}:{}".format, names, names))},
            command=commands,
            entrypoint=commands,
            environment=map_or_list(),
            labels=map_or_list(),
            healthcheck=healthchecks,
            hostname=names,
            user=names,
            working_dir=paths,
            stop_grace_period=durations,
            stop_signal=st.sampled_from(["SIGTERM", "9"]),
            stdin_open=st.booleans(),
            tty=st.booleans(),
            init=st.booleans(),
            read_only=st.booleans(),
            isolation=st.sampled_from(["default", "hyperv"]),
            restart=st.sampled_from(["no", "always", "unless-stopped", "on-failure", "on-failure:3"]),
            cap_add=unique(st.sampled_from(["ALL", "CHOWN", "cap_kill", "NET_ADMIN", "net_admin"])),
            cap_drop=unique(st.sampled_from(["all", "CHOWN", "KILL", "CAP_NET_ADMIN"])),
            sysctls=map_or_list(),
            ulimits=st.dictionaries(
                st.sampled_from(["nofile", "nproc", "core"]),
                st.one_of(
                    st.integers(-1, 99), some({"soft": st.integers(-1, 9), "hard": st.integers(-1, 9)})
                ),
            ),
            extra_hosts=st.one_of(
                unique(st.builds("{}:{}".format, names, hosts)), st.dictionaries(names, hosts, max_size=3)
            ),
            dns=st.one_of(hosts, unique(hosts)),
            dns_search=one_or_many,
            logging=some(driver=names, options=text_map(st.one_of(words, numbers, st.none()))),
            ports=st.lists(ports, max_size=3, unique_by=str),
            networks=attachments(networks) if networks else st.just([]),
            volumes=st.lists(mounts(volumes), max_size=4, unique_by=str),
            configs=uses(configs) if configs else st.just([]),
            secrets=uses(secrets) if secrets else st.just([]),
            credential_spec=st.sampled_from(
                [{"file": "a.json"}, {"registry": "r"}, *({"config": config} for config in unnamed)]
            ),
            env_file=st.one_of(_env_files, unique(_env_files)),
            build=some(
                {"context": st.just("."), "dockerfile": st.just("data/plain.txt")}, args=map_or_list()
            ),
            **_ignored,
        )
    )
    service["deploy"] = {**draw(deploys), **draw(modes)}
    return _without_what_engines_refuse(service)


def _without_what_engines_refuse(service: dict[str, Any]) -> dict[str, Any]:
    """A service that publishes no port, and mounts on no path, twice; docker sends those all the same."""
    taken: set[str] = set()

    def is_new(*claims: str) -> bool:
        new = taken.isdisjoint(claims)
        taken.update(claims)
        return new

    for key, claims in (("ports", _published), ("volumes", _target)):
        if key in service:
            service[key] = [entry for entry in service[key] if is_new(*claims(entry))]
    ingress = [port for port in service.get("ports", ()) if not _is_in_host_mode(port)]
    if ingress and service["deploy"].get("endpoint_mode") == "dnsrr":
        del service["deploy"]["endpoint_mode"]
    return service


def _published(port: Any) -> list[str]:
    if isinstance(port, dict):
        return [f"{port['published']}"] if "published" in port else []
    first, _, last = str(port).partition("/")[0].rpartition(":")[0].rpartition(":")[2].partition("-")
    return [str(number) for number in range(int(first), int(last or first) + 1)] if first else []


def _is_in_host_mode(port: Any) -> bool:
    return isinstance(port, dict) and port.get("mode") == "host"


def _target(mount: Any) -> list[str]:
    if isinstance(mount, dict):
        return [mount["target"]]
    return [mount if mount.startswith("/") and ":" not in mount else mount.split(":")[1]]


_definition: dict[str, Any] = {"name": names, "labels": map_or_list()}
_driven: dict[str, Any] = {"driver": names, "driver_opts": text_map(st.one_of(words, numbers))}


def _or_external(definition: Strategy) -> Strategy:
    return st.one_of(
        definition,
        definition,
        st.just({"external": True}),
        some({"external": st.just(True), "name": names}),
        some({"external": some({"name": names})}),
    )


networks = _or_external(
    some(
        **_definition,
        **_driven,
        attachable=st.booleans(),
        internal=st.booleans(),
        ipam=some(
            driver=names,
            config=st.lists(some({"subnet": st.sampled_from(["10.1.0.0/24", "2001:db8::/64"])}), max_size=2),
        ),
    )
)
volumes = _or_external(some(**_definition, **_driven))
configs = _or_external(some({"file": files}, **_definition, template_driver=st.just("golang")))
secrets = _or_external(
    st.one_of(
        some({"file": files}, **_definition, template_driver=st.just("golang")),
        some({"driver": names}, **_definition, driver_opts=_driven["driver_opts"]),
    )
)


def _with_names_of_their_own(things: dict[str, Any]) -> dict[str, Any]:
    """Definitions of which no two are called the same: docker makes the one that Go's map comes to last."""
    taken = set()
    named = {}
    for key, thing in things.items():
        external = (thing or {}).get("external")
        name = external.get("name") if isinstance(external, dict) else (thing or {}).get("name")
        name = name or (key if external else None)
        if name in taken:
            thing = {"external": True, "name": f"own-{key}"} if external else {**thing, "name": f"own-{key}"}
        elif name:
            taken.add(name)
        named[key] = thing
    return named


@st.composite
def compose_files(draw: st.DrawFn) -> dict[str, Any]:
    """The data of a Compose file that docker accepts; beside it there is a folder `data`."""
    sections: dict[str, dict[str, Any]] = {
        section: draw(st.dictionaries(names, definition, max_size=3))
        for section, definition in (
            ("networks", st.one_of(st.none(), networks)),
            ("volumes", st.one_of(st.none(), volumes)),
            ("configs", configs),
            ("secrets", secrets),
        )
    }
    sections = {section: _with_names_of_their_own(things) for section, things in sections.items()}
    defined = {section: sorted(things) for section, things in sections.items()}
    unnamed = [key for key, one in sections["configs"].items() if "name" not in one and "external" not in one]
    made = draw(st.dictionaries(names, services(**defined, unnamed=unnamed), min_size=1, max_size=3))
    for place, (key, service) in enumerate(made.items()):
        if others := draw(unique(st.sampled_from(list(made)[: place or 1]))):
            service["depends_on"] = [other for other in others if other != key]
    versions = draw(some(version=st.sampled_from(["3", "3.13"])))
    return {
        **versions,
        "services": made,
        **{section: things for section, things in sections.items() if things},
    }


def keys_of(data: Any, path: str = "") -> Iterator[str]:
    """The keys of a Compose file's data, with the paths that `swarmkit.compose.matrix` has for them."""
    if isinstance(data, list):
        for item in data:
            yield from keys_of(item, f"{path}[]")
    elif isinstance(data, dict):
        for key, value in data.items():
            inside = f"{path}.{key}".removeprefix(".")
            if path in _SECTIONS:
                yield inside
            else:
                inside = f"{path}.NAME"
            yield from keys_of(value, inside)


_SECTIONS = {key.section for key in known_keys()}
