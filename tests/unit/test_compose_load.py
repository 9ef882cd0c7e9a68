"""Compose files: what is read, and where each mistake is said to be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from swarmkit.compose.contents import CONFIG_LIMIT
from swarmkit.compose.load import Project, load, parse
from swarmkit.compose.models import Mount, Service
from swarmkit.errors import Problems, SwarmkitError, UsageError


def project(text: str, folder: Path = Path("/nowhere"), **environment: str) -> Project:
    return parse(text, "stack.yml", folder, environment)


def service(body: str, tail: str = "", **environment: str) -> Service:
    """The service whose mapping is the flow-style `body`."""
    text = f"services: {{a: {{image: x, {body}}}}}\n{tail}"
    return parse(text, "stack.yml", Path("/nowhere"), environment).file.services["a"]


def mistakes(text: str, folder: Path = Path("/nowhere"), **environment: str) -> list[str]:
    with pytest.raises(SwarmkitError) as caught:
        project(text, folder, **environment)
    error = caught.value
    assert error.exit == 2
    return [str(each) for each in (error.errors if isinstance(error, Problems) else [error])]


# ---------------------------------------------------------------- what is read


def test_short_forms_become_long_ones() -> None:
    read = service(
        "command: run 'a b' c, environment: [A=1, B=x=y, C], labels: [l=1, m], dns: 1.1.1.1,"
        " healthcheck: {test: curl localhost}, networks: [n], configs: [c], volumes: ['v:/v:ro'],"
        " ports: ['8080:80']",
        "networks: {n: }\nconfigs: {c: {content: x}}\nvolumes: {v: }",
    )
    assert read.command == ["run", "a b", "c"]
    assert read.environment == {"A": "1", "B": "x=y", "C": None}
    assert read.labels == {"l": "1", "m": ""}
    assert read.dns == ["1.1.1.1"]
    assert read.healthcheck
    assert read.healthcheck.test == ["CMD-SHELL", "curl localhost"]
    assert read.networks == {"n": None}
    assert read.configs[0].source == "c"
    assert read.volumes == [Mount(type="volume", source="v", target="/v", read_only=True)]
    assert [list(port.pairs()) for port in read.ports] == [[(8080, 80)]]


def test_scalars_become_the_text_that_docker_makes_of_them() -> None:
    read = service("environment: {A: 1, B: true, C: 1.0, D: 1.5, E: '', F: , G: 2024-01-02}, user: 1000")
    assert read.environment == {
        "A": "1",
        "B": "true",
        "C": "1",
        "D": "1.5",
        "E": "",
        "F": None,
        "G": "2024-01-02",
    }
    assert read.user == "1000"


def test_variables_without_a_value_take_that_of_the_environment() -> None:
    read = service("environment: [A, B=, C=own, D]", A="1", B="2", C="3")
    assert read.environment == {"A": "1", "B": "2", "C": "own", "D": None}


def test_a_number_may_come_from_a_variable() -> None:
    assert service("deploy: {replicas: '${N}'}", N="3").deploy.replicas == 3


@pytest.mark.parametrize(
    ("mount", "kind", "source"),
    [
        ("'./x:/x'", "bind", "./x"),
        ("'/x:/x'", "bind", "/x"),
        ("'~/x:/x'", "bind", "~/x"),
        ("/x", "volume", None),
        ("{type: tmpfs, target: /x, tmpfs: {size: 1M}}", "tmpfs", None),
    ],
)
def test_kinds_of_mounts(mount: str, kind: str, source: str | None) -> None:
    (read,) = service(f"volumes: [{mount}]").volumes
    assert (read.type, read.source, read.target) == (kind, source, "/x")


def test_file_permissions_are_octal() -> None:
    configs = "configs: [{source: c, target: a, mode: 0400}, {source: c, target: b, mode: '0440'}, c]"
    read = service(configs, "configs: {c: {content: x}}")
    assert [config.mode for config in read.configs] == [0o400, 0o440, 0o444]


def test_own_keys_empty_keys_and_the_version_mean_nothing() -> None:
    read = project("version: '3.8'\nx-a: 1\nservices:\n  a: {image: x, x-b: [], ports: , deploy: {x-c: 1}}\n")
    assert read.file.services["a"].ports == []


def test_anchors_and_merges_work() -> None:
    text = "x-base: &base {image: x, labels: {a: b}}\nservices: {a: {<<: *base, user: me}}"
    assert project(text).file.services["a"].labels == {"a": "b"}


def test_configs_are_read_from_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.conf").write_bytes(b"\xff\x00x")
    (tmp_path / "stack.yml").write_text(
        "services: {a: {image: x}}\n"
        "configs: {f: {file: a.conf}, c: {content: 'a ${V} b'}, e: {external: true}}"
    )
    assert load(tmp_path / "stack.yml", {"V": "v"}).config_data == {"f": b"\xff\x00x", "c": b"a v b"}


def test_warnings_come_with_the_project() -> None:
    assert project("services: {a: {image: 'x:$TAG'}}").warnings == (
        "stack.yml:1:23: services.a.image: TAG is not set; nothing stands in its place",
    )


@settings(deadline=None)
@given(
    st.integers(1, 65535), st.integers(1, 65535), st.integers(0, 50), st.sampled_from(["tcp", "udp", "sctp"])
)
def test_ranges_of_ports_are_expanded(published: int, target: int, more: int, protocol: str) -> None:
    more = min(more, 65535 - published, 65535 - target)
    text = f"{published}-{published + more}:{target}-{target + more}/{protocol}"
    port = service(f"ports: ['{text}']").ports[0]
    assert port.protocol == protocol
    assert list(port.pairs()) == [(published + n, target + n) for n in range(more + 1)]
    if more == 0:
        assert service(f"ports: ['{published}:{target}/{protocol}']").ports == [port]
        long = f"{{target: {target}, published: '{published}', protocol: {protocol}}}"
        assert service(f"ports: [{long}]").ports == [port]


def test_a_port_that_is_not_published_may_be_a_number() -> None:
    assert [list(port.pairs()) for port in service("ports: [80]").ports] == [[(None, 80)]]


# ---------------------------------------------------------------- what is refused, and where it stands


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("imgae: ¦y", "imgae: unknown key"),
        ("label_file: ¦x", "label_file: x: no such file"),
        (
            "label_file: [¦'https://example.org/x']",
            "label_file[0]: https://example.org/x is not on this machine, and swarmkit fetches no files",
        ),
        (
            "env_file: ¦git@example.org:x",
            "env_file: git@example.org:x is not on this machine, and swarmkit fetches no files",
        ),
        ("deploy: {replicas: ¦three}", 'deploy.replicas: expected a whole number, got "three"'),
        ("deploy: {replicas: ¦-1}", "deploy.replicas: expected 0 or more, got -1"),
        ("deploy: {replicas: ¦true}", "deploy.replicas: expected a whole number, got true"),
        ("deploy: {foo: ¦1}", "deploy.foo: unknown key"),
        (
            "deploy: {mode: global-job, replicas: ¦2}",
            "deploy.replicas: a global-job service runs one task a node and has no replicas",
        ),
        ("scale: ¦2, deploy: {mode: global}", "scale: a global service runs one task a node"),
        ("scale: ¦2, deploy: {replicas: 3}", "scale: deploy.replicas says 3"),
        (
            "restart: ¦sometimes",
            'restart: expected "no", always, unless-stopped, on-failure or on-failure:COUNT, got "sometimes"',
        ),
        ("secrets: [¦nope]", 'secrets[0]: no secret is called "nope"'),
        ("depends_on: [¦nope]", 'depends_on[0]: no service is called "nope"'),
        ("credential_spec: {config: ¦nope}", 'credential_spec.config: no config is called "nope"'),
        (
            "credential_spec: ¦{file: a, registry: b}",
            "credential_spec: takes one of config, file and registry",
        ),
        ("ulimits: {nofile: ¦many}", 'ulimits.nofile: expected a whole number, got "many"'),
        ("tmpfs: [¦run]", 'tmpfs[0]: expected PATH[:OPTIONS] that starts with /, got "run"'),
        (
            "tmpfs: [¦'/run:noexec']",
            "tmpfs[0]: the option noexec cannot be set in Swarm: size, mode, ro and rw can",
        ),
        (
            "deploy: {mode: global, replicas: ¦2}",
            "deploy.replicas: a global service runs one task a node and has no replicas",
        ),
        (
            "deploy: {placement: {constraints: [¦nonsense]}}",
            'deploy.placement.constraints[0]: expected a constraint such as "node.role == worker",'
            ' got "nonsense"',
        ),
        (
            "deploy: {update_config: {delay: ¦10}}",
            'deploy.update_config.delay: expected a duration such as "10s", "1m30s" or "500ms", got 10',
        ),
        (
            "deploy: {resources: {limits: {memory: ¦lots}}}",
            'deploy.resources.limits.memory: expected a size such as "64M" or "1.5G", got "lots"',
        ),
        (
            "deploy: {resources: {limits: {cpus: ¦many}}}",
            'deploy.resources.limits.cpus: expected a number of CPUs such as 0.5 or "2", got "many"',
        ),
        (
            "ports: [¦'80:80:80:80']",
            'ports[0]: expected [PUBLISHED:]TARGET[/PROTOCOL] such as "8080:80", got "80:80:80:80"',
        ),
        ("ports: [¦99999]", "ports[0].target: expected a port from 1 to 65535, got 99999"),
        ("ports: [¦'0:80']", 'ports[0]: expected a port from 1 to 65535, got "0"'),
        ("ports: [¦'80:90-80']", 'ports[0]: expected a port from 1 to 65535, got "90-80"'),
        (
            "ports: [¦'80-81:90-92']",
            "ports[0]: 2 published ports for 3 of the container: the ranges must be of one length",
        ),
        (
            "ports: [{target: 80, mode: ¦weird}]",
            "ports[0].mode: input should be 'ingress' or 'host', got \"weird\"",
        ),
        ("ports: [¦{published: 80}]", "ports[0].target: is required"),
        ("ports: ¦80", "ports: expected a list, got 80"),
        ("environment: [A=1, ¦{x: 1}]", "environment[1]: expected KEY=value, got a mapping"),
        ("environment: {A: ¦[]}", "environment.A: expected text or a number, got a list"),
        (
            "environment: ¦nope",
            'environment: expected a mapping or a list of KEY=value, got "nope"',
        ),
        (
            'command: ¦"a \'b"',
            "command: cannot be split into words: a quote is not closed, or nothing follows the last \\",
        ),
        ("networks: [¦nope]", 'networks[0]: no network is called "nope"'),
        ("networks: {nope: ¦{aliases: [x]}}", 'networks.nope: no network is called "nope"'),
        ("networks: [¦{}]", "networks[0]: expected a name, got a mapping"),
        ("volumes: [¦'nope:/x']", 'volumes[0]: no volume is called "nope"'),
        ("volumes: [¦'a:b']", 'volumes[0]: expected a target that starts with /, got "b"'),
        (
            "volumes: [¦'a:b:c:d']",
            'volumes[0]: expected [SOURCE:]TARGET[:OPTIONS] such as "data:/var/lib/data:ro", got "a:b:c:d"',
        ),
        (
            "volumes: [¦{type: bind, target: /x}]",
            "volumes[0]: a bind mount needs a source: the folder of the node",
        ),
        (
            "volumes: [{type: tmpfs, target: /x, source: ¦y}]",
            "volumes[0].source: a tmpfs has no source",
        ),
        (
            "volumes: [{type: tmpfs, target: /x, bind: ¦{propagation: shared}}]",
            "volumes[0].bind: is for mounts of type bind; this one is of type tmpfs",
        ),
        (
            "volumes: [{type: volume, target: ¦x}]",
            'volumes[0].target: expected a path that starts with /, got "x"',
        ),
        ("configs: [¦nope]", 'configs[0]: no config is called "nope"'),
        (
            "configs: [{source: c, mode: ¦9999}]",
            "configs[0].mode: expected file permissions such as 0444, got 9999",
        ),
        (
            "healthcheck: {test: ¦[curl, x]}",
            'healthcheck.test: a list must start with CMD, CMD-SHELL or NONE, not "curl"',
        ),
        (
            "healthcheck: {test: x, disable: ¦true}",
            "healthcheck.disable: a health check cannot have a test and be disabled",
        ),
        ("extra_hosts: [¦nope]", 'extra_hosts[0]: expected HOST:ADDRESS, got "nope"'),
        ("stop_grace_period: ¦'${A:?say it}'", "stop_grace_period: A must be set: say it"),
        (
            "build: ¦none",
            'build: there is no folder "none" (a path starts from that of the Compose file)',
        ),
        (
            "build: {context: ¦https://example.org/x.git}",
            "build.context: https://example.org/x.git is not on this machine, and swarmkit fetches no files",
        ),
        (
            "deploy: {resources: {limits: {memory: ¦512}}}",
            "deploy.resources.limits.memory: Swarm takes no less than 4 MiB, this is 512 bytes",
        ),
        (
            "deploy: {resources: {reservations: {cpus: ¦0.0009}}}",
            "deploy.resources.reservations.cpus: Swarm takes no less than 0.001 of a CPU",
        ),
        ("volumes: [/a, '/b:/c', ¦'/d:/c/']", "volumes[2]: /c is mounted by volumes[1] already"),
        ("volumes: [/a], tmpfs: [/b, ¦/a]", "tmpfs[1]: /a is mounted by volumes[0] already"),
        ("ports: ['80-82:80', ¦'81:9']", "ports[1]: 81/tcp is published by ports[0] already"),
        (
            "deploy: {endpoint_mode: dnsrr}, ports: [{target: 80, mode: host}, ¦'81:80']",
            "ports[1]: in ingress mode a port needs a virtual IP, and deploy.endpoint_mode is dnsrr:"
            " use mode: host",
        ),
    ],
)
def test_a_mistake_in_a_service_names_its_place(body: str, message: str) -> None:
    text = f"services: {{a: {{image: x, {body}}}}}"
    assert mistakes(text.replace("¦", "")) == [f"stack.yml:1:{text.index('¦') + 1}: services.a.{message}"]


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        (
            "secrets: {s: {}}",
            "2:14",
            "secrets.s: needs one of file, environment and driver (or external: true)",
        ),
        ("secrets: {s: {environment: S}}", "2:28", "secrets.s.environment: the variable S is not set"),
        ("wat: 1", "2:6", "wat: unknown key"),
        (
            "networks: {b: {external: true, driver: x}}",
            "2:40",
            "networks.b.driver: an external one is made elsewhere and takes only a name here",
        ),
        (
            "networks: {'a b': {}}",
            "2:19",
            'networks.a b: "a b" cannot be a name: use letters, digits, dots, dashes and underscores',
        ),
        (
            "configs: {c: {}}",
            "2:14",
            "configs.c: needs one of file, content and environment (or external: true)",
        ),
        (
            "configs: {c: {file: a, content: b}}",
            "2:14",
            "configs.c: needs one of file, content and environment (or external: true)",
        ),
        (
            "configs: {c: {file: none}}",
            "2:21",
            "configs.c.file: none cannot be read: no such file or directory",
        ),
        (
            "configs: {c: {content: ''}}",
            "2:24",
            f"configs.c.content: Swarm takes 1 to {CONFIG_LIMIT - 1} bytes as a config, this is 0",
        ),
        ("volumes: {v: {foo: 1}}", "2:20", "volumes.v.foo: unknown key"),
        ("networks: 5", "2:11", "networks: expected a mapping, got 5"),
    ],
)
def test_a_mistake_beside_the_services_names_its_place(text: str, place: str, message: str) -> None:
    assert mistakes(f"services: {{a: {{image: x}}}}\n{text}") == [f"stack.yml:{place}: {message}"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "stack.yml:1:1: not a Compose file: expected a mapping with `services:`"),
        ("- a", "stack.yml:1:1: not a Compose file: expected a mapping with `services:`"),
        ("a: [", "stack.yml:1:5: not valid YAML: expected the node content, but found '<stream end>'"),
        ("name: x", "stack.yml:1:1: services: at least one service is needed"),
        ("services: {}", "stack.yml:1:11: services: at least one service is needed"),
        ("services: {a: }", "stack.yml:1:14: services.a: needs an image, or a build to make one from"),
        (
            "services: {a: {user: me}}",
            "stack.yml:1:15: services.a: needs an image, or a build to make one from",
        ),
        ("services: {a: three}", 'stack.yml:1:15: services.a: expected a mapping, got "three"'),
        ("services: {a: {image: x}, a: {image: y}}", "stack.yml:1:27: services.a: stands here twice"),
    ],
)
def test_a_file_without_a_usable_service_says_so(text: str, message: str) -> None:
    assert mistakes(text) == [message]


def test_all_the_mistakes_of_a_file_are_found_at_once() -> None:
    found = mistakes(
        """\
services:
  web:
    image: x
    label_file: x
    networks: [nope]
    ports: [99999, "1.1.1.1.1:1:1"]
    deploy: {mode: global, replicas: 2, foo: 1, update_config: {delay: soon}}
    command: $
  db:
    volumes: ["data:/data"]
configs:
  c: {file: none}
"""
    )
    assert found == [
        "stack.yml:4:17: services.web.label_file: x: no such file",
        'stack.yml:5:16: services.web.networks[0]: no network is called "nope"',
        "stack.yml:6:13: services.web.ports[0].target: expected a port from 1 to 65535, got 99999",
        'stack.yml:6:20: services.web.ports[1]: expected [PUBLISHED:]TARGET[/PROTOCOL] such as "8080:80",'
        ' got "1.1.1.1.1:1:1"',
        "stack.yml:7:38: services.web.deploy.replicas: a global service runs one task a node"
        " and has no replicas",
        "stack.yml:7:46: services.web.deploy.foo: unknown key",
        "stack.yml:7:72: services.web.deploy.update_config.delay: expected a duration such as"
        ' "10s", "1m30s" or "500ms", got "soon"',
        'stack.yml:8:14: services.web.command: not a variable swarmkit understands: "$"',
        "stack.yml:10:5: services.db: needs an image, or a build to make one from",
        'stack.yml:10:15: services.db.volumes[0]: no volume is called "data"',
        "stack.yml:12:13: configs.c.file: none cannot be read: no such file or directory",
    ]


def test_a_config_and_a_secret_are_files_of_their_own() -> None:
    tail = "configs: {c: {content: x}, d: {content: y}}\nsecrets: {s: {environment: A}, t: {environment: A}}"
    assert mistakes(
        "services: {a: {image: x, configs: [c, {source: d, target: c}, {source: d, target: /c}],"
        " secrets: [s, {source: t, target: /run/secrets/s}]}}\n" + tail,
        A="a",
    ) == [
        "stack.yml:1:39: services.a.configs[1]: /c is written by configs[0] already",
        "stack.yml:1:63: services.a.configs[2]: /c is written by configs[0] already",
        "stack.yml:1:102: services.a.secrets[1]: /run/secrets/s is written by secrets[0] already",
    ]
    # A config is a file of the root, a secret one of /run/secrets.
    service("configs: [{source: c, target: s}], secrets: [s]", tail, A="a")
    # What is published twice is so for one protocol.
    service("ports: ['80:80', '80:80/udp']")


def test_what_is_elsewhere_comes_with_a_hint() -> None:
    with pytest.raises(UsageError) as caught:
        project("services: {a: {image: x}}\nconfigs: {c: {file: 'https://example.org/c'}}")
    assert "https://example.org/c is not on this machine" in str(caught.value)
    assert caught.value.hint == "fetch it first (curl, git clone), and name the copy"


def test_labels_come_from_files_and_from_the_service_over_them(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("A=1\nB='two'\nC\n")
    (tmp_path / "two").write_text("a.b-c=${X}\nB=three\n")
    read = project(
        "services: {a: {image: x, label_file: [one, two], labels: [A=own]}, b: {image: x, label_file: one}}",
        tmp_path,
        X="x",
    ).file.services
    assert read["a"].labels == {"A": "own", "B": "three", "C": "", "a.b-c": "x"}
    assert read["b"].labels == {"A": "1", "B": "two", "C": ""}


def test_hints_name_what_may_be_meant() -> None:
    with pytest.raises(UsageError) as caught:
        project("services: {a: {image: x, comand: y}}")
    assert caught.value.hint == "did you mean command?"
    with pytest.raises(UsageError) as caught:
        project("services: {a: {image: x, healthcheck: {q: y}}}")
    assert caught.value.hint.startswith("known here: disable, interval, ")


def test_a_build_needs_its_dockerfile(tmp_path: Path) -> None:
    assert mistakes("services: {a: {build: .}}", tmp_path) == [
        'stack.yml:1:23: services.a.build: there is no file "Dockerfile" in the folder "."'
    ]
    (tmp_path / "Other").touch()
    assert mistakes("services: {a: {build: {dockerfile: Other, target: x}}}", tmp_path) == [
        "stack.yml:1:51: services.a.build.target: not supported by swarmkit yet"
    ]
    assert project("services: {a: {build: {dockerfile: Other}}}", tmp_path).file.services["a"].build


def test_a_config_has_an_upper_limit(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * CONFIG_LIMIT)
    (found,) = mistakes("services: {a: {image: x}}\nconfigs: {c: {file: big}}", tmp_path)
    assert found.endswith(f"Swarm takes 1 to {CONFIG_LIMIT - 1} bytes as a config, this is {CONFIG_LIMIT}")


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        load(tmp_path / "none.yml", {})


_YAML = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("ab${}:/-", max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abx-", max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
_KEYS = st.sampled_from(sorted({*Service.model_fields, "x-own", "other"}))


@settings(deadline=None)
@given(
    st.dictionaries(_KEYS, _YAML, max_size=5),
    st.dictionaries(st.sampled_from(["networks", "volumes"]), _YAML),
)
@example({"networks": {"front": None}}, {"networks": 1})
@example({"volumes": ["data:/data"]}, {"volumes": ["data"]})
def test_whatever_a_file_holds_is_read_or_refused_with_a_place(body: object, rest: dict[str, object]) -> None:
    try:
        project(json.dumps({"services": {"a": body}, **rest}))
    except SwarmkitError as error:
        for each in error.errors if isinstance(error, Problems) else [error]:
            assert each.exit == 2
            assert each.where.startswith("stack.yml:1:")


# ---------------------------------------------------------------- what Swarm cannot honour


@pytest.mark.parametrize(
    ("body", "warning"),
    [
        ("privileged: ¦true", "privileged: ignored: Swarm starts no privileged containers; cap_add may do"),
        (
            "ports: [{target: 80, host_ip: ¦127.0.0.1}]",
            "ports[0].host_ip: ignored: Swarm publishes on every address of a node",
        ),
        (
            "ports: [81, ¦'127.0.0.1:80:80']",
            "ports[1]: ignored: Swarm publishes on every address of a node, not on 127.0.0.1 alone",
        ),
        ("volumes: [¦'/a:/b:z,ro']", "volumes[0]: ignored: Swarm has no option z for a mount"),
        (
            "networks: {default: {ipv4_address: ¦10.0.0.2}}",
            "networks.default.ipv4_address: ignored: Swarm gives each task an address of its own",
        ),
        (
            "restart: ¦always, deploy: {restart_policy: {condition: any}}",
            "restart: ignored: deploy.restart_policy stands instead",
        ),
        (
            'restart: ¦"no"',
            "restart: ignored: Swarm restarts tasks that end"
            " unless deploy.restart_policy says condition: none",
        ),
    ],
)
def test_what_swarm_cannot_honour_is_a_warning_that_says_what_happens_instead(
    body: str, warning: str
) -> None:
    text = f"services: {{a: {{image: x, {body}}}}}"
    assert project(text.replace("¦", "")).warnings == (
        f"stack.yml:1:{text.index('¦') + 1}: services.a.{warning}",
    )
