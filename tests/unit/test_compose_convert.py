"""From Compose files to the bodies of the Engine API, which are those that docker stack deploy sends."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmkit.compose.convert import (
    BuildSource,
    Context,
    DesiredStack,
    builds,
    convert,
    tagged,
)
from swarmkit.compose.load import parse
from swarmkit.errors import UsageError
from swarmkit.names import EDGE_NETWORK

SECOND = 1_000_000_000
FOLDER = Path("/stacks/mine")


def desired(text: str, context: Context | None = None, stack: str = "st") -> DesiredStack:
    return convert(parse(text, "stack.yml", FOLDER, {}), stack, context)


def spec(body: str, tail: str = "") -> dict[str, Any]:
    """The spec of the service `web` with an image and the flow-style `body`."""
    (service,) = desired(f"services: {{web: {{image: x, {body}}}}}\n{tail}").services
    return service.spec


def container(body: str, tail: str = "") -> dict[str, Any]:
    found: dict[str, Any] = spec(body, tail)["TaskTemplate"]["ContainerSpec"]
    return found


def test_the_smallest_service_is_what_docker_sends() -> None:
    stack = desired("services: {web: {image: nginx}}")
    (service,) = stack.services
    assert (service.name, service.short_name, service.build, service.routed) == ("st_web", "web", None, False)
    assert service.spec == {
        "Name": "st_web",
        "Labels": {"com.docker.stack.namespace": "st", "com.docker.stack.image": "nginx"},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "nginx:latest",
                "Labels": {"com.docker.stack.namespace": "st"},
                "Privileges": {"CredentialSpec": None, "SELinuxContext": None},
            },
            "Networks": [{"Target": "st_default", "Aliases": ["web"]}],
            "Resources": {},
            "Placement": {},
        },
        "Mode": {"Replicated": {}},
        "EndpointSpec": {},
    }
    (network,) = stack.networks
    assert network.spec == {
        "Name": "st_default",
        "Driver": "overlay",
        "Internal": False,
        "Attachable": False,
        "Labels": {"com.docker.stack.namespace": "st"},
    }


def test_a_full_service_is_what_docker_sends() -> None:
    """As `docker stack deploy` (client 28.2) was seen to send it; what is empty is left out."""
    stack = desired(
        """\
services:
  web:
    image: nginx:1.27
    entrypoint: ["/e.sh", "-x"]
    command: run "a b" c
    environment: {B: 2, A: "true", NUL: }
    ports: ["8080:80", "9000-9001:90-91/udp", {target: 443, published: 4443, protocol: tcp, mode: host}, "81"]
    networks: {front: {aliases: [w]}, back: }
    volumes:
      - data:/data:ro
      - ./x:/x
      - /anon
      - {type: tmpfs, target: /t, tmpfs: {size: 1000}}
      - named:/n:nocopy
      - theirs:/o
    configs: [a, {source: b, target: /etc/b, mode: 0400, uid: "5"}]
    deploy:
      replicas: 3
      labels: {x: "1"}
      placement:
        constraints: [node.role==worker]
        preferences: [{spread: node.labels.z}]
        max_replicas_per_node: 2
      update_config: {delay: 10s, order: start-first, failure_action: rollback, max_failure_ratio: 0.2}
      rollback_config: {parallelism: 0}
      restart_policy: {condition: on-failure, delay: 5s, max_attempts: 3, window: 1m}
      resources: {limits: {cpus: 0.5, memory: 64M, pids: 10}, reservations: {cpus: "0.1", memory: 1G}}
    healthcheck: {test: "true", interval: 1s, timeout: 2s, retries: 3, start_period: 5s, start_interval: 1s}
    labels: [l=1]
    hostname: "{{.Node.Hostname}}"
    user: "1:1"
    stop_grace_period: 10s
    stop_signal: SIGQUIT
    init: true
    read_only: true
    cap_add: [NET_ADMIN, cap_sys_time]
    cap_drop: [ALL]
    working_dir: /w
    extra_hosts: ["h:1.2.3.4", "g:::1"]
    dns: 1.1.1.1
    logging: {driver: json-file, options: {max-size: 1m}}
networks:
  front: {attachable: true, driver_opts: {a: b}, ipam: {config: [{subnet: 10.7.0.0/24}]}}
  back: {internal: true, name: backy}
  unused: {}
volumes:
  data: {driver: local, driver_opts: {type: nfs}, labels: {a: b}}
  named: {name: nn}
  theirs: {external: true}
configs:
  a: {content: hi}
  b: {content: ho, name: bee, labels: {k: v}}
"""
    )
    (service,) = stack.services
    ours = {"com.docker.stack.namespace": "st"}
    assert service.spec == {
        "Name": "st_web",
        "Labels": {"com.docker.stack.image": "nginx:1.27", "x": "1", **ours},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "nginx:1.27",
                "Labels": {"l": "1", **ours},
                "Command": ["/e.sh", "-x"],
                "Args": ["run", "a b", "c"],
                "Hostname": "{{.Node.Hostname}}",
                "Env": ["A=true", "B=2", "NUL"],
                "Dir": "/w",
                "User": "1:1",
                "Privileges": {"CredentialSpec": None, "SELinuxContext": None},
                "Init": True,
                "StopSignal": "SIGQUIT",
                "ReadOnly": True,
                "Mounts": [
                    {
                        "Type": "volume",
                        "Source": "st_data",
                        "Target": "/data",
                        "ReadOnly": True,
                        "VolumeOptions": {
                            "Labels": {"a": "b", **ours},
                            "DriverConfig": {"Name": "local", "Options": {"type": "nfs"}},
                        },
                    },
                    {"Type": "bind", "Source": "/stacks/mine/x", "Target": "/x"},
                    {"Type": "volume", "Target": "/anon"},
                    {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1000}},
                    {
                        "Type": "volume",
                        "Source": "nn",
                        "Target": "/n",
                        "VolumeOptions": {"NoCopy": True, "Labels": ours},
                    },
                    {"Type": "volume", "Source": "theirs", "Target": "/o", "VolumeOptions": {}},
                ],
                "StopGracePeriod": 10 * SECOND,
                "Healthcheck": {
                    "Test": ["CMD-SHELL", "true"],
                    "Interval": SECOND,
                    "Timeout": 2 * SECOND,
                    "StartPeriod": 5 * SECOND,
                    "StartInterval": SECOND,
                    "Retries": 3,
                },
                "Hosts": ["1.2.3.4 h", "::1 g"],
                "DNSConfig": {"Nameservers": ["1.1.1.1"]},
                "Configs": [
                    {"File": {"Name": "/etc/b", "UID": "5", "GID": "0", "Mode": 0o400}, "ConfigName": "bee"},
                    {"File": {"Name": "a", "UID": "0", "GID": "0", "Mode": 0o444}, "ConfigName": "st_a"},
                ],
                "CapabilityAdd": ["CAP_NET_ADMIN", "CAP_SYS_TIME"],
                "CapabilityDrop": ["ALL"],
            },
            "Resources": {
                "Limits": {"NanoCPUs": SECOND // 2, "MemoryBytes": 64 * 1024**2, "Pids": 10},
                "Reservations": {"NanoCPUs": SECOND // 10, "MemoryBytes": 1024**3},
            },
            "RestartPolicy": {
                "Condition": "on-failure",
                "Delay": 5 * SECOND,
                "MaxAttempts": 3,
                "Window": 60 * SECOND,
            },
            "Placement": {
                "Constraints": ["node.role==worker"],
                "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.z"}}],
                "MaxReplicas": 2,
            },
            "Networks": [
                {"Target": "backy", "Aliases": ["web"]},
                {"Target": "st_front", "Aliases": ["w", "web"]},
            ],
            "LogDriver": {"Name": "json-file", "Options": {"max-size": "1m"}},
        },
        "Mode": {"Replicated": {"Replicas": 3}},
        "UpdateConfig": {
            "Parallelism": 1,
            "Delay": 10 * SECOND,
            "FailureAction": "rollback",
            "MaxFailureRatio": 0.2,
            "Order": "start-first",
        },
        "RollbackConfig": {"Parallelism": 0},
        "EndpointSpec": {
            "Ports": [
                {"Protocol": "tcp", "TargetPort": 81, "PublishMode": "ingress"},
                {"Protocol": "tcp", "TargetPort": 443, "PublishedPort": 4443, "PublishMode": "host"},
                {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"},
                {"Protocol": "udp", "TargetPort": 90, "PublishedPort": 9000, "PublishMode": "ingress"},
                {"Protocol": "udp", "TargetPort": 91, "PublishedPort": 9001, "PublishMode": "ingress"},
            ]
        },
    }
    assert [network.name for network in stack.networks] == ["backy", "st_front"]
    assert stack.networks[0].spec["Internal"]
    assert stack.networks[1].spec["Options"] == {"a": "b"}
    assert stack.networks[1].spec["IPAM"] == {"Config": [{"Subnet": "10.7.0.0/24"}]}
    assert [config.body() for config in stack.configs] == [
        {"Name": "st_a", "Labels": ours, "Data": "aGk="},
        {"Name": "bee", "Labels": {"k": "v", **ours}, "Data": "aG8="},
    ]


def test_a_global_service_has_no_replicas() -> None:
    assert spec("deploy: {mode: global}")["Mode"] == {"Global": {}}


def test_an_update_changes_one_task_at_a_time_unless_the_file_says_otherwise() -> None:
    assert "UpdateConfig" not in spec("user: me")
    assert spec("deploy: {update_config: {}}")["UpdateConfig"] == {"Parallelism": 1}
    assert spec("deploy: {update_config: {parallelism: 0}}")["UpdateConfig"] == {"Parallelism": 0}


def test_health_checks_can_be_turned_off() -> None:
    assert container("healthcheck: {disable: true}")["Healthcheck"] == {"Test": ["NONE"]}
    assert container("healthcheck: {interval: 1s}")["Healthcheck"] == {"Interval": SECOND}


@pytest.mark.parametrize(
    ("add", "drop", "added", "dropped"),
    [
        ("[net_admin, CAP_NET_ADMIN]", "[]", ["CAP_NET_ADMIN"], None),
        ("[ALL, CHOWN]", "[CHOWN]", ["ALL"], ["CAP_CHOWN"]),
        ("[CHOWN]", "[cap_chown, KILL]", ["CAP_CHOWN"], ["CAP_KILL"]),
        ("[]", "[all, CHOWN]", None, ["ALL"]),
    ],
)
def test_capabilities(add: str, drop: str, added: list[str] | None, dropped: list[str] | None) -> None:
    found = container(f"cap_add: {add}, cap_drop: {drop}")
    assert (found.get("CapabilityAdd"), found.get("CapabilityDrop")) == (added, dropped)


def test_engine_networks_get_no_alias_and_are_not_looked_for() -> None:
    stack = desired("services: {web: {image: x, networks: [h]}}\nnetworks: {h: {external: true, name: host}}")
    assert stack.services[0].spec["TaskTemplate"]["Networks"] == [{"Target": "host"}]
    assert (stack.networks, stack.external_networks) == ((), ())


def test_what_is_external_keeps_its_own_name_and_is_named() -> None:
    stack = desired(
        "services: {web: {image: x, networks: [n], configs: [c]}}\n"
        "networks: {n: {external: {name: theirs}}}\n"
        "configs: {c: {external: true, name: conf}, d: {external: true}}"
    )
    assert stack.services[0].spec["TaskTemplate"]["Networks"] == [{"Target": "theirs", "Aliases": ["web"]}]
    assert stack.external_networks == ("theirs",)
    assert stack.external_configs == ("conf", "d")
    assert stack.configs == ()


def test_configs_that_no_service_uses_are_made_and_such_networks_are_not() -> None:
    stack = desired("services: {web: {image: x}}\nnetworks: {n: }\nconfigs: {c: {content: x}}")
    assert [network.name for network in stack.networks] == ["st_default"]
    assert [config.name for config in stack.configs] == ["st_c"]


# ---------------------------------------------------------------- what else Swarm takes


def test_secrets_are_files_and_stay_out_of_sight() -> None:
    value = "hunter2-hunter2"
    project = parse(
        "services: {web: {image: x, secrets: [s, {source: t, target: /t, uid: 5, mode: 0400}, e]}}\n"
        "secrets: {s: {environment: S, labels: [a=b]}, t: {name: tee, driver: vault, driver_opts: {k: 1}},"
        " e: {external: true}, unused: {environment: S, template_driver: golang}}",
        "stack.yml",
        FOLDER,
        {"S": value},
    )
    stack = convert(project, "st")
    assert stack.services[0].spec["TaskTemplate"]["ContainerSpec"]["Secrets"] == [
        {"File": {"Name": "e", "UID": "0", "GID": "0", "Mode": 0o444}, "SecretName": "e"},
        {"File": {"Name": "s", "UID": "0", "GID": "0", "Mode": 0o444}, "SecretName": "st_s"},
        {"File": {"Name": "/t", "UID": "5", "GID": "0", "Mode": 0o400}, "SecretName": "tee"},
    ]
    ours = {"com.docker.stack.namespace": "st"}
    data = base64.b64encode(value.encode()).decode()
    assert [secret.body() for secret in stack.secrets] == [
        {"Name": "st_s", "Labels": {"a": "b", **ours}, "Data": data},
        {"Name": "tee", "Labels": ours, "Data": "", "Driver": {"Name": "vault", "Options": {"k": "1"}}},
        {"Name": "st_unused", "Labels": ours, "Data": data, "Templating": {"Name": "golang"}},
    ]
    assert stack.external_secrets == ("e",)
    for shown in (repr(project), repr(stack), str(stack.services)):
        assert value not in shown
        assert data not in shown


@pytest.mark.parametrize(
    ("deploy", "mode"),
    [
        ("{mode: replicated-job}", {"ReplicatedJob": {}}),
        (
            "{mode: replicated-job, replicas: 3}",
            {"ReplicatedJob": {"MaxConcurrent": 3, "TotalCompletions": 3}},
        ),
        ("{mode: global-job}", {"GlobalJob": {}}),
        ("{replicas: 0}", {"Replicated": {"Replicas": 0}}),
    ],
)
def test_modes(deploy: str, mode: dict[str, Any]) -> None:
    assert spec(f"deploy: {deploy}")["Mode"] == mode


def test_scale_is_another_word_for_replicas() -> None:
    assert spec("scale: 4")["Mode"] == {"Replicated": {"Replicas": 4}}


@pytest.mark.parametrize(
    ("restart", "policy"),
    [
        ("always", {"Condition": "any"}),
        ("unless-stopped", {"Condition": "any"}),
        ("on-failure:3", {"Condition": "on-failure", "MaxAttempts": 3}),
        ("on-failure", {"Condition": "on-failure", "MaxAttempts": 0}),
        ("no", None),
    ],
)
def test_restart_becomes_the_policy_that_comes_nearest(restart: str, policy: dict[str, Any] | None) -> None:
    assert spec(f"restart: '{restart}'")["TaskTemplate"].get("RestartPolicy") == policy
    own = f"restart: '{restart}', deploy: {{restart_policy: {{condition: none}}}}"
    assert spec(own)["TaskTemplate"]["RestartPolicy"] == {"Condition": "none"}


def test_a_credential_spec_from_a_config_is_named_until_ids_are_known() -> None:
    found = container("credential_spec: {config: c}", "configs: {c: {content: x}}")
    assert found["Privileges"]["CredentialSpec"] == {"Config": "st_c"}
    assert found["Configs"] == [{"ConfigName": "st_c", "Runtime": {}}]


def test_variables_are_sorted_by_the_whole_line() -> None:
    assert container("environment: {A: x, A1: x, B: }")["Env"] == ["A1=x", "A=x", "B"]


def test_tmpfs_becomes_mounts() -> None:
    assert container("tmpfs: [/run, '/tmp:size=64m,mode=1777,ro']")["Mounts"] == [
        {"Type": "tmpfs", "Target": "/run"},
        {
            "Type": "tmpfs",
            "Target": "/tmp",
            "ReadOnly": True,
            "TmpfsOptions": {"SizeBytes": 64 * 1024**2, "Mode": 0o1777},
        },
    ]


def test_the_rest_of_a_container() -> None:
    found = container(
        "stdin_open: true, tty: true, isolation: hyperv, sysctls: [a=1], oom_score_adj: -5, group_add: [5],"
        " ulimits: {nofile: {soft: 1, hard: 2}, core: -1}, dns_search: a.example, dns_opt: [ndots:2]"
    )
    assert found["OpenStdin"]
    assert found["TTY"]
    assert found["Isolation"] == "hyperv"
    assert found["Sysctls"] == {"a": "1"}
    assert found["OomScoreAdj"] == -5
    assert found["Groups"] == ["5"]
    assert found["Ulimits"] == [
        {"Name": "core", "Soft": -1, "Hard": -1},
        {"Name": "nofile", "Soft": 1, "Hard": 2},
    ]
    assert found["DNSConfig"] == {"Search": ["a.example"], "Options": ["ndots:2"]}


def test_the_volumes_of_a_stack_are_those_it_makes() -> None:
    stack = desired(
        "services: {web: {image: x, volumes: ['a:/a', 'b:/b', 'c:/c', /d, ./e:/e]}}\n"
        "volumes: {a: , b: {name: bee}, c: {external: true}, unused: }"
    )
    assert stack.volumes == ("bee", "st_a")


def test_dependencies_come_with_their_conditions() -> None:
    web = desired(
        "services: {web: {image: x, depends_on: {db: {condition: service_healthy}, job: {}}},"
        " db: {image: y, depends_on: [job]}, job: {image: z}}"
    ).services
    assert [service.depends_on for service in web] == [
        {"db": "service_healthy", "job": "service_started"},
        {"job": "service_started"},
        {},
    ]


def test_several_published_ports_may_lead_to_one() -> None:
    ports = spec("ports: ['8000-8001:80']")["EndpointSpec"]["Ports"]
    assert [(port["PublishedPort"], port["TargetPort"]) for port in ports] == [(8000, 80), (8001, 80)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a 'b  c' \"d e\"", ["a", "b  c", "d e"]),
        ("a\\ b", ["a b"]),
        ("a'b'\"c\"d", ["abcd"]),
        ("a #b", ["a"]),
        ("a#b '#c'", ["a#b", "#c"]),
        ("\"a\\nb\" 'a\\nb'", ["anb", "a\\nb"]),
        ("'' a", ["", "a"]),
        ("  ", []),
    ],
)
def test_a_command_is_split_as_docker_splits_it(line: str, words: list[str]) -> None:
    service = parse(
        yaml.safe_dump({"services": {"web": {"image": "x", "command": line}}}), "s.yml", FOLDER, {}
    ).file.services["web"]
    assert service.command == words


# ---------------------------------------------------------------- routed services


def test_a_routed_service_joins_the_edge_network_without_a_name_there() -> None:
    stack = desired("services: {web: {image: x, deploy: {labels: {swarmkit.lb.port: 80}}}}")
    (service,) = stack.services
    assert service.routed
    assert service.spec["TaskTemplate"]["Networks"] == [
        {"Target": "st_default", "Aliases": ["web"]},
        {"Target": EDGE_NETWORK},
    ]
    assert service.spec["EndpointSpec"] == {"Mode": "dnsrr"}
    assert stack.external_networks == (EDGE_NETWORK,)


def test_container_labels_ask_for_no_route() -> None:
    assert not desired("services: {web: {image: x, labels: {swarmkit.lb.port: 80}}}").services[0].routed


def test_the_edge_network_in_the_file_is_not_joined_twice() -> None:
    networks = spec(
        "networks: [edge], deploy: {labels: [swarmkit.lb.port=80]}",
        f"networks: {{edge: {{external: true, name: {EDGE_NETWORK}}}}}",
    )["TaskTemplate"]["Networks"]
    assert networks == [{"Target": EDGE_NETWORK}]


@pytest.mark.parametrize(
    ("rest", "mode"),
    [
        ("ports: ['80:80']", None),
        ("ports: [{target: 80, published: 80, mode: host}]", "dnsrr"),
        ("user: me", "dnsrr"),
    ],
)
def test_a_routed_service_needs_no_virtual_ip(rest: str, mode: str | None) -> None:
    endpoint = spec(f"{rest}, deploy: {{labels: [swarmkit.lb.port=80]}}")["EndpointSpec"]
    assert endpoint.get("Mode") == mode


def test_a_routed_service_may_ask_for_a_virtual_ip() -> None:
    body = "deploy: {labels: [swarmkit.lb.port=80], endpoint_mode: VIP}"
    assert spec(body)["EndpointSpec"] == {"Mode": "vip"}


def test_without_an_edge_network_nothing_is_joined() -> None:
    stack = desired(
        "services: {web: {image: x, deploy: {labels: [swarmkit.lb.port=80]}}}", Context(edge=None)
    )
    assert stack.external_networks == ()
    assert [one["Target"] for one in stack.services[0].spec["TaskTemplate"]["Networks"]] == ["st_default"]


# ---------------------------------------------------------------- images and names


def test_the_image_that_was_resolved_is_run_and_the_written_one_noted() -> None:
    (service,) = desired("services: {web: {image: x}}", Context(images={"web": "x:latest@sha256:1"})).services
    assert service.spec["TaskTemplate"]["ContainerSpec"]["Image"] == "x:latest@sha256:1"
    assert service.spec["Labels"]["com.docker.stack.image"] == "x"


def test_a_built_service_needs_the_image_that_was_built(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "Dockerfile").touch()
    project = parse("services: {web: {build: {context: app, args: [A=1, B]}}}", "s.yml", tmp_path, {})
    source = BuildSource(tmp_path / "app", "Dockerfile", {"A": "1", "B": None})
    assert builds(project) == {"web": source}
    with pytest.raises(ValueError, match="no image is known for web"):
        convert(project, "st")
    (service,) = convert(project, "st", Context(images={"web": "reg/web@sha256:2"})).services
    assert service.build == source
    assert service.spec["TaskTemplate"]["ContainerSpec"]["Image"] == "reg/web@sha256:2"


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("nginx", "nginx:latest"),
        ("nginx:1", "nginx:1"),
        ("docker.io/library/redis", "redis:latest"),
        ("docker.io/me/web:2", "me/web:2"),
        ("reg:5000/a/b", "reg:5000/a/b:latest"),
        ("reg:5000/a/b:c", "reg:5000/a/b:c"),
        ("a@sha256:0", "a@sha256:0"),
    ],
)
def test_an_image_without_a_tag_is_the_latest(written: str, sent: str) -> None:
    assert tagged(written) == sent


@pytest.mark.parametrize("name", ["", "a b", "-a", "ä", "a/b", "a.b"])
def test_a_bad_name_of_a_stack_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a stack"):
        desired("services: {web: {image: x}}", stack=name)


@pytest.mark.parametrize(
    ("source", "path"),
    [("./a/../b", "/stacks/mine/b"), ("../up", "/stacks/up"), ("/x/./y", "/x/./y"), ("../../../..", "/")],
)
def test_a_bind_mount_starts_from_the_folder_of_the_file(source: str, path: str) -> None:
    assert container(f"volumes: ['{source}:/t']")["Mounts"][0]["Source"] == path


@settings(deadline=None)
@given(st.dictionaries(st.from_regex(r"[A-Z_]{1,4}", fullmatch=True), st.text(), max_size=5))
def test_variables_reach_the_spec_sorted_and_unchanged(variables: dict[str, str]) -> None:
    text = yaml.safe_dump({"services": {"web": {"image": "x", "environment": variables}}}).replace("$", "$$")
    found = desired(text).services[0].spec["TaskTemplate"]["ContainerSpec"].get("Env", [])
    assert found == [f"{key}={variables[key]}" for key in sorted(variables)]
