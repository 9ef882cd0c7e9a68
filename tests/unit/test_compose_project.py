"""Projects of more than one part: extends, include, profiles, dependencies, secrets, ignored keys."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmkit.compose.contents import SECRET_LIMIT
from swarmkit.compose.load import Options, Project, load, parse
from swarmkit.compose.models import ComposeFile, Dependency, Service
from swarmkit.errors import Problems, SwarmkitError


def written(folder: Path, **files: str) -> Path:
    """Files by name (`sub__x` is `sub/x.yml`); the path of `stack`."""
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".yml")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return folder / "stack.yml"


def mistakes(path: Path, options: Options | None = None, **environment: str) -> list[str]:
    with pytest.raises(SwarmkitError) as caught:
        load(path, environment, options)
    error = caught.value
    errors = error.errors if isinstance(error, Problems) else [error]
    return [str(each).replace(f"{path.parent}/", "") for each in errors]


def plain(text: str, options: Options | None = None, **environment: str) -> Project:
    return parse(text, "stack.yml", Path("/nowhere"), environment, options)


def refused(text: str, options: Options | None = None, **environment: str) -> list[str]:
    with pytest.raises(SwarmkitError) as caught:
        plain(text, options, **environment)
    error = caught.value
    return [str(each) for each in (error.errors if isinstance(error, Problems) else [error])]


# ---------------------------------------------------------------- extends


def test_a_service_takes_over_what_it_extends() -> None:
    read = plain(
        "services:\n"
        "  base: {image: x, environment: {A: 1, B: 1}, command: [a]}\n"
        "  mid: {extends: base, environment: [B=2]}\n"
        "  web: {extends: {service: mid}, command: [b], user: me}\n"
    ).file.services["web"]
    assert (read.image, read.command, read.user) == ("x", ["b"], "me")
    assert read.environment == {"A": "1", "B": "2"}


def test_a_service_of_another_file_brings_its_own_paths(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.env").write_text("A=1")
    (tmp_path / "sub" / "Dockerfile").touch()
    path = written(
        tmp_path,
        stack="services: {web: {extends: {file: sub/common.yml, service: base}, volumes: ['./m:/m']}}",
        sub__common="services: {base: {extends: {file: deep.yml, service: d}, build: {args: [V=1]}}}",
        sub__deep="services: {d: {image: 'x:$T', env_file: x.env, label_file: x.env,"
        " volumes: ['./d:/d', '/e:/e']}}",
    )
    read = load(path, {"T": "1"}).file.services["web"]
    assert read.image == "x:1"
    assert read.environment == {"A": "1"}
    assert read.labels == {"A": "1"}
    assert read.build
    assert read.build.context == f"{tmp_path}/sub"
    assert [mount.source for mount in read.volumes] == [f"{tmp_path}/sub/d", "/e", "./m"]


def test_mistakes_of_an_extended_service_stand_in_its_file(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        stack="services: {web: {extends: {file: c.yml, service: base}}}",
        c="services:\n  base:\n    image: x\n    wat: 1\n",
    )
    assert mistakes(path) == ["c.yml:4:10: services.web.wat: unknown key"]


@pytest.mark.parametrize(
    ("extends", "message"),
    [
        ("¦none", 'extends: no service is called "none" in stack.yml'),
        ("{service: ¦none}", 'extends: no service is called "none" in stack.yml'),
        ("¦{file: x.yml}", "extends.service: expected the name of a service"),
        ("¦[a]", "extends: expected text, or a mapping with service and file"),
        ("{service: b, file: ¦no.yml}", "extends.file: no.yml: no such file"),
        (
            "{service: b, file: ¦'https://x/y.yml'}",
            "extends.file: https://x/y.yml is not on this machine, and swarmkit fetches no files",
        ),
        ("{service: b, wat: ¦1}", "extends.wat: unknown key"),
        ("¦a", "extends: the services extend each other: a → a"),
    ],
)
def test_what_cannot_be_extended(extends: str, message: str) -> None:
    text = f"services: {{b: {{image: x}}, a: {{image: x, extends: {extends}}}}}"
    assert refused(text.replace("¦", "")) == [f"stack.yml:1:{text.index('¦') + 1}: services.a.{message}"]


def test_services_that_extend_each_other_are_a_mistake_that_shows_the_circle(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        stack="services: {a: {extends: {service: b, file: o.yml}}}",
        o="services:\n  b: {extends: c}\n  c: {extends: {service: b}}\n",
    )
    assert mistakes(path) == ["o.yml:3:16: services.c.extends: the services extend each other: a → b → c → b"]


def test_a_very_long_chain_is_refused() -> None:
    chain = "".join(f"  s{n}: {{extends: s{n + 1}}}\n" for n in range(2000))
    assert "extend each other" in refused(f"services:\n{chain}  s2000: {{image: x}}\n")[0]


# ---------------------------------------------------------------- include


def test_what_is_included_becomes_part_of_the_project(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / ".env").write_text("TAG=sub\nBOTH=sub")
    (tmp_path / "sub" / "c.txt").write_text("content")
    path = written(
        tmp_path,
        stack="include: [sub/part.yml]\nservices: {a: {image: 'x:$TAG', depends_on: [b]}}",
        sub__part="services: {b: {image: 'y:$TAG-$BOTH', volumes: ['./d:/d'], networks: [n], configs: [c]}}\n"
        "networks: {n: }\nconfigs: {c: {file: c.txt}}\nx-own: 1\nname: other",
    )
    read = load(path, {"BOTH": "main"})
    assert read.file.services["a"].image == "x:"
    assert read.file.services["b"].image == "y:sub-main"
    assert read.file.services["b"].volumes[0].source == f"{tmp_path}/sub/d"
    assert read.config_data == {"c": b"content"}
    assert set(read.file.networks) == {"n"}
    assert read.name == ""


def test_the_long_form_merges_files_and_names_folder_and_variables(tmp_path: Path) -> None:
    (tmp_path / "v.env").write_text("TAG=v")
    path = written(
        tmp_path,
        stack="include:\n"
        "  - path: [one/p.yml, one/q.yml]\n    project_directory: two\n    env_file: v.env\n"
        "services: {a: {image: x}}",
        one__p="services: {b: {image: 'y:$TAG'}}",
        one__q="services: {b: {volumes: ['./d:/d']}}",
    )
    read = load(path, {}).file.services["b"]
    assert (read.image, read.volumes[0].source) == ("y:v", f"{tmp_path}/two/d")


def test_variables_that_an_include_uses_in_vain_are_warned_of(tmp_path: Path) -> None:
    (tmp_path / "v.env").write_text("A=$ONE")
    path = written(
        tmp_path, stack="include: [{path: p.yml, env_file: v.env}]", p="services: {b: {image: 'y:$A$TWO'}}"
    )
    assert [warning.replace(f"{tmp_path}/", "") for warning in load(path, {}).warnings] == [
        "p.yml:1:23: services.b.image: TWO is not set; nothing stands in its place",
        "v.env:1:1: A: ONE is not set; nothing stands in its place",
    ]


def test_what_a_missing_file_may_hold_is_not_missed_too(tmp_path: Path) -> None:
    path = written(tmp_path, stack="include: [no.yml]\nservices: {a: {image: x, networks: [n], wat: 1}}")
    assert mistakes(path) == [
        "stack.yml:1:11: include[0]: no.yml: no such file",
        "stack.yml:2:46: services.a.wat: unknown key",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "include: ['$']\nservices: {a: {image: x, networks: [n]}}",
        "services: {a: {extends: '$', networks: [n]}}",
        "services: {a: {extends: {service: b, file: '$'}, networks: [n]}}",
    ],
)
def test_a_reference_with_a_mistake_in_it_is_told_once(text: str) -> None:
    (found,) = refused(text)
    assert "not a variable" in found


def test_a_file_over_a_stack_kept_elsewhere_may_include_one_beside_it(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        stack="services: {a: {image: x}}",
        sub__over="include: [p.yml]",
        sub__p="services: {b: {image: y, volumes: ['./d:/d']}}",
    )
    options = Options(files=[tmp_path / "sub" / "over.yml"], own_folders=True)
    assert load(path, {}, options).file.services["b"].volumes[0].source == f"{tmp_path}/sub/d"


def test_the_same_file_may_be_included_on_two_ways(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        stack="include: [p.yml, q.yml]\nservices: {a: {image: x}}",
        p="include: [r.yml]",
        q="include: [r.yml]",
        r="services: {c: {image: z}}",
    )
    assert set(load(path, {}).file.services) == {"a", "c"}


def test_a_further_file_changes_what_is_included(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        stack="include: [p.yml]",
        p="services: {b: {image: y}}",
        over="services: {b: {image: z}}",
    )
    assert load(path, {}, Options(files=[tmp_path / "over.yml"])).file.services["b"].image == "z"


def test_a_name_that_two_files_use_otherwise_is_a_mistake(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        stack="include: [p.yml]\nservices: {b: {image: x}}",
        p="services: {b: {image: y}}\nwat: 1",
    )
    assert mistakes(path) == [
        "stack.yml:2:15: services.b: stands also, and otherwise, in the included p.yml:1:15",
        "p.yml:2:6: wat: unknown key",
    ]


@pytest.mark.parametrize(
    ("include", "message"),
    [
        ("¦p.yml", "include: expected a list of files"),
        ("[¦none.yml]", "include[0]: none.yml: no such file"),
        ("[¦5]", "include[0]: expected text, or a mapping with path and project_directory and env_file"),
        ("[¦{project_directory: x}]", "include[0].path: is required"),
        ("[{path: ¦[]}]", "include[0].path: expected a path, or a list of them"),
        ("[{path: p.yml, wat: ¦1}]", "include[0].wat: unknown key"),
        (
            "[¦'oci://x/y']",
            "include[0].path: oci://x/y is not on this machine, and swarmkit fetches no files",
        ),
        (
            "[{path: [p.yml, ¦'https://x/y.yml']}]",
            "include[0].path: https://x/y.yml is not on this machine, and swarmkit fetches no files",
        ),
        (
            "[{path: p.yml, project_directory: ¦'git@x:y'}]",
            "include[0].project_directory: git@x:y is not on this machine, and swarmkit fetches no files",
        ),
        (
            "[{path: p.yml, env_file: ¦'https://x/.env'}]",
            "include[0].env_file: https://x/.env is not on this machine, and swarmkit fetches no files",
        ),
        ("[¦stack.yml]", "include[0]: the files include each other: stack.yml → stack.yml"),
    ],
)
def test_what_cannot_be_included(tmp_path: Path, include: str, message: str) -> None:
    text = f"include: {include}\nservices: {{a: {{image: x}}}}"
    path = written(tmp_path, stack=text.replace("¦", ""), p="services: {b: {image: y}}")
    assert mistakes(path) == [f"stack.yml:1:{text.index('¦') + 1}: {message}"]


def test_files_that_include_each_other_are_a_mistake_that_shows_the_circle(tmp_path: Path) -> None:
    path = written(tmp_path, stack="include: [p.yml]", p="include: [q.yml]", q="include: [p.yml]")
    assert mistakes(path) == [
        "q.yml:1:11: include[0]: the files include each other: stack.yml → p.yml → q.yml → p.yml"
    ]


# ---------------------------------------------------------------- profiles

PROFILES = "services: {a: {image: x}, b: {image: x, profiles: [p, q]}, c: {image: x, profiles: [r]}}"


@pytest.mark.parametrize(
    ("options", "environment", "services"),
    [
        (Options(), {}, "a"),
        (Options(profiles=["q"]), {}, "ab"),
        (Options(), {"COMPOSE_PROFILES": "p,r"}, "abc"),
        (Options(profiles=["r"]), {"COMPOSE_PROFILES": "p"}, "ac"),
        (Options(profiles=["*"]), {}, "abc"),
        (Options(services=["c"]), {}, "ac"),
    ],
)
def test_services_with_profiles_take_part_when_asked(
    options: Options, environment: dict[str, str], services: str
) -> None:
    read = plain(PROFILES, options, **environment)
    assert "".join(read.file.services) == services
    assert "".join(read.data["services"]) == services


def test_a_profile_that_no_service_has_is_warned_of() -> None:
    assert plain(PROFILES, Options(profiles=["x"])).warnings == ('no service has the profile "x"',)


def test_a_project_without_any_service_on_says_so() -> None:
    assert refused("services: {a: {image: x, profiles: [p]}}") == [
        "stack.yml:1:11: services: every service is switched off by its profiles"
    ]


# ---------------------------------------------------------------- dependencies


def test_cli_3880_dependencies_have_conditions_in_both_forms() -> None:
    read = plain(
        "services: {a: {image: x, depends_on: [b]}, b: {image: x, depends_on:"
        " {c: {condition: service_healthy, restart: true}}}, c: {image: x}}"
    )
    services = read.file.services
    assert services["a"].depends_on["b"].condition == "service_started"
    assert services["b"].depends_on["c"].condition == "service_healthy"
    assert read.warnings == (
        f"stack.yml:1:112: services.b.depends_on.c.restart: ignored: {Dependency.ignored['restart']}",
    )


@pytest.mark.parametrize(
    ("depends", "message"),
    [
        ("[¦none]", 'depends_on[0]: no service is called "none"'),
        ("{none: ¦{condition: service_started}}", 'depends_on.none: no service is called "none"'),
        ("[¦off]", 'depends_on[0]: the service "off" is switched off: it has the profiles p'),
        ("[¦a]", "depends_on[0]: the services depend on each other: a → a"),
        (
            "{b: {condition: ¦done}}",
            "depends_on.b.condition: input should be 'service_started', 'service_healthy' or"
            " 'service_completed_successfully', got \"done\"",
        ),
        ("¦b", 'depends_on: expected a mapping, got "b"'),
    ],
)
def test_a_wrong_dependency_names_its_place(depends: str, message: str) -> None:
    others = "b: {image: x}, off: {image: x, profiles: [p]}"
    text = f"services: {{{others}, a: {{image: x, depends_on: {depends}}}}}"
    assert refused(text.replace("¦", "")) == [f"stack.yml:1:{text.index('¦') + 1}: services.a.{message}"]


def test_services_that_wait_for_each_other_are_a_mistake_that_shows_each_circle() -> None:
    found = refused(
        "services:\n"
        "  a: {image: x, depends_on: [b]}\n"
        "  b: {image: x, depends_on: [c]}\n"
        "  c: {image: x, depends_on: [a]}\n"
        "  d: {image: x, depends_on: {e: {}}}\n"
        "  e: {image: x, depends_on: [d, a]}\n"
    )
    circles = [line.partition("each other: ")[2].split(" → ") for line in found]
    assert sorted(sorted(set(circle)) for circle in circles) == [["a", "b", "c"], ["d", "e"]]
    for circle in circles:
        assert circle[0] == circle[-1]


def test_a_dependency_that_need_not_be_there_is_left_out_with_a_warning() -> None:
    read = plain(
        "services:\n  a: {image: x, depends_on: {b: {required: false}, n: {required: false}}}\n"
        "  b: {image: x, profiles: [p]}\n"
    )
    assert read.file.services["a"].depends_on == {}
    assert [warning.partition(": ")[2] for warning in read.warnings] == [
        'services.a.depends_on.b: the service "b" is switched off: it has the profiles p;'
        " it is not waited for",
        'services.a.depends_on.n: no service is called "n"; it is not waited for',
    ]


# ---------------------------------------------------------------- names


def test_the_name_is_what_the_user_says_else_that_of_the_last_file_that_says_one(tmp_path: Path) -> None:
    path = written(tmp_path, stack="name: one\nservices: {a: {image: x}}", over="name: two-$V")
    over = [tmp_path / "over.yml"]
    assert load(path, {}).name == "one"
    assert load(path, {"V": "v"}, Options(files=over, default_name="d")).name == "two-v"
    assert load(path, {"V": "v"}, Options(files=over, name="said")).name == "said"
    assert plain("services: {a: {image: x}}", Options(default_name="d")).name == "d"


def test_the_name_can_be_used_in_the_file() -> None:
    read = plain("name: n\nservices: {a: {image: 'x:$COMPOSE_PROJECT_NAME'}}", COMPOSE_PROJECT_NAME="other")
    assert read.file.services["a"].image == "x:n"


# ---------------------------------------------------------------- secrets


def test_secrets_come_from_files_and_variables(tmp_path: Path) -> None:
    (tmp_path / "s.bin").write_bytes(b"\x00hush\xff")
    (tmp_path / ".env").write_text("TOKEN='h$h'")
    path = written(
        tmp_path,
        stack="services: {a: {image: x, secrets: [f, {source: v, target: t, mode: 0400}]}}\n"
        "secrets: {f: {file: s.bin}, v: {environment: TOKEN}, e: {external: true, name: n}, d: {driver: x}}\n"
        "configs: {c: {environment: TOKEN}}\n",
    )
    read = load(path, {})
    assert read.secret_data == {"f": b"\x00hush\xff", "v": b"h$h"}
    assert read.config_data == {"c": b"h$h"}
    assert [(use.source, use.target, use.mode) for use in read.file.services["a"].secrets][1] == (
        "v",
        "t",
        0o400,
    )
    assert "hush" not in repr(read)


def test_bytes_of_the_environment_stay_as_they_are() -> None:
    raw = b"\xff\x00"
    text = "services: {a: {image: x}}\nsecrets: {s: {environment: V}}\nconfigs: {c: {content: $V}}"
    read = plain(text, V=raw.decode(errors="surrogateescape"))
    assert (read.secret_data["s"], read.config_data["c"]) == (raw, raw)


@pytest.mark.parametrize(
    ("secrets", "message"),
    [
        ("{}", 'services.a.secrets[0]: no secret is called "s"'),
        ("{s: ¦{}}", "secrets.s: needs one of file, environment and driver (or external: true)"),
        ("{s: {file: ¦none}}", "secrets.s.file: none cannot be read: no such file or directory"),
        ("{s: {environment: ¦NONE}}", "secrets.s.environment: the variable NONE is not set"),
        (
            "{s: {environment: ¦E}}",
            f"secrets.s.environment: Swarm takes 1 to {SECRET_LIMIT - 1} bytes as a secret, this is 0",
        ),
        (
            "{s: {environment: ¦BIG}}",
            f"secrets.s.environment: Swarm takes 1 to {SECRET_LIMIT - 1} bytes as a secret,"
            f" this is {SECRET_LIMIT}",
        ),
        ('{s: {file: ¦"\\0"}}', "secrets.s.file: \0 cannot be read: embedded null byte"),
    ],
)
def test_a_secret_that_cannot_be_had_names_its_place(secrets: str, message: str) -> None:
    text = f"services: {{a: {{image: x, secrets: [s]}}}}\nsecrets: {secrets}"
    (found,) = refused(text.replace("¦", ""), E="", BIG="s" * SECRET_LIMIT)
    assert found.partition(": ")[2] == message
    assert "sss" not in found
    if "¦" in secrets:
        assert found.startswith(f"stack.yml:2:{len('secrets: ') + secrets.index('¦') + 1}:")


# ---------------------------------------------------------------- what Swarm cannot honour


def test_what_swarm_cannot_honour_is_warned_of_by_name_and_taken_out() -> None:
    read = plain(
        "services:\n  a:\n    image: x\n    privileged: true\n    container_name: one\n"
        "    ports:\n      - 80\n    devices: []\n    links:\n      - b\n"
    )
    assert read.warnings == (
        f"stack.yml:4:17: services.a.privileged: ignored: {Service.ignored['privileged']}",
        f"stack.yml:5:21: services.a.container_name: ignored: {Service.ignored['container_name']}",
        f"stack.yml:10:7: services.a.links: ignored: {Service.ignored['links']}",
    )
    assert set(read.data["services"]["a"]) == {"image", "ports"}


def test_every_key_that_docker_ignores_has_a_sentence() -> None:
    # Those that `docker stack deploy` warns of and swarmkit cannot do either, and its "deprecated" ones.
    names = "cgroup_parent cgroupns_mode container_name devices domainname expose external_links ipc links"
    names += " mac_address network_mode pid privileged security_opt shm_size userns_mode"
    assert set(names.split()) <= set(Service.ignored)
    assert not set(Service.ignored) & {*Service.model_fields}
    body = ", ".join(f"{key}: x" for key in Service.ignored)
    assert len(plain(f"services: {{a: {{image: x, {body}}}}}").warnings) == len(Service.ignored)


def test_moby_24862_devices_and_privileges_are_named_as_what_swarm_does_not_give() -> None:
    read = plain(
        "services:\n  a:\n    image: x\n    privileged: true\n    devices: [/dev/fuse]\n    gpus: all\n"
        "    deploy: {resources: {reservations: {devices: [{capabilities: [gpu]}]}}}\n"
    )
    keys = ("privileged", "devices", "gpus", "deploy.resources.reservations.devices")
    assert [line.split(": ")[1:3] for line in read.warnings] == [
        [f"services.a.{key}", "ignored"] for key in keys
    ]
    assert read.data["services"]["a"]["image"] == "x"


def test_a_mistake_inside_what_is_ignored_anyway_leaves_the_rest_checked() -> None:
    assert refused("services: {a: {image: x, shm_size: $, wat: 1}}") == [
        'stack.yml:1:36: services.a.shm_size: not a variable swarmkit understands: "$"',
        "stack.yml:1:44: services.a.wat: unknown key",
    ]


# ---------------------------------------------------------------- what docker's client refuses

# As `docker compose config` prints a project (docker/compose 8287, 9957: `docker stack deploy` takes it not).
_COMPOSE_CONFIG = """\
name: shop
services:
  web:
    build: {context: ., dockerfile: Dockerfile}
    command: null
    depends_on:
      db: {condition: service_healthy, required: true}
    deploy:
      resources:
        limits: {cpus: 0.5, memory: "536870912"}
    entrypoint: null
    environment: {A: $$b}
    networks: {default: null}
    ports:
      - {mode: ingress, target: 80, published: "8080", protocol: tcp}
  db:
    image: pg
    healthcheck: {test: [CMD, ready], start_interval: 1s}
    networks: {default: null}
    volumes:
      - {type: bind, source: /srv/data, target: /data, bind: {}}
networks:
  default: {name: shop_default}
"""


def test_compose_9957_the_output_of_docker_compose_config_is_taken(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").touch()
    read = parse(_COMPOSE_CONFIG, "/dev/stdin", tmp_path, {})
    assert read.name == "shop"
    assert read.warnings == ()
    web = read.file.services["web"]
    assert web.environment == {"A": "$b"}
    assert web.depends_on["db"].condition == "service_healthy"
    assert list(web.ports[0].pairs()) == [(8080, 80)]


@pytest.mark.parametrize(
    "key",
    [
        "depends_on: {b: {condition: service_started}}",
        "profiles: [p]",
        "env_file: [{path: x.env}]",
        "extends: b",
    ],
)
def test_keys_that_docker_stack_deploy_refuses_are_taken(tmp_path: Path, key: str) -> None:
    (tmp_path / "x.env").write_text("A=1")
    text = f"services: {{b: {{image: x}}, a: {{image: x, {key}}}}}"
    assert "a" in parse(text, "stack.yml", tmp_path, {}, Options(profiles=["p"])).file.services


# ---------------------------------------------------------------- anything at all

_VALID = """\
name: n
x-base: &base {image: x, labels: {a: b}}
include: []
services:
  a:
    <<: *base
    extends: b
    command: run ${A:-${B:-x}}
    environment: [A=1, B]
    env_file: [{path: none.env, required: false}]
    ports: ["8080:80", {target: 90, published: "9090", mode: host}]
    networks: {n: {aliases: [x]}}
    volumes: ["v:/v:ro", {type: tmpfs, target: /t}]
    configs: [c]
    secrets: [{source: s, mode: 0400}]
    depends_on: {b: {condition: service_healthy}}
    profiles: [p]
    deploy: {replicas: 2, placement: {constraints: [node.role == worker]}}
    healthcheck: {test: [CMD, x], start_interval: 1s}
  b: {image: y, tmpfs: !reset null, dns: !override [1.1.1.1]}
networks: {n: {ipam: {config: [{subnet: 10.0.0.0/24}]}}}
volumes: {v: {driver: local}}
configs: {c: {content: hello}}
secrets: {s: {environment: A}}
"""
_LINES = _VALID.splitlines(keepends=True)
_ENVIRONMENT = {"A": "a"}


def read_or_refused(text: str) -> None:
    options = Options(profiles=["*"], services=["a"])
    try:
        project = parse(text, "stack.yml", Path("/nowhere"), _ENVIRONMENT, options)
    except SwarmkitError as error:
        for each in error.errors if isinstance(error, Problems) else [error]:
            assert each.exit == 2
            assert each.where.startswith("stack.yml")
    else:
        assert isinstance(project.file, ComposeFile)


def test_the_file_that_is_mutated_below_is_valid() -> None:
    assert plain(_VALID, Options(profiles=["p"]), A="a").file.services["a"].profiles == ["p"]


@settings(deadline=None, max_examples=200)
@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    read_or_refused(text)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_file_with_characters_changed_is_read_or_refused(data: st.DataObject) -> None:
    text = _VALID
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 6)))
        new = data.draw(st.text("{}[]:,-&*!<> \n\t\"'$#|~0ax\\ud8\0é", max_size=5))
        text = text[:start] + new + text[end:]
    read_or_refused(text)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.sampled_from(_LINES), max_size=30))
def test_lines_in_any_order_are_read_or_refused(lines: list[str]) -> None:
    read_or_refused("".join(lines))


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["a", "b", "~x/y", "\0", "$A"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_a_file_with_any_value_in_any_place_is_read_or_refused(data: st.DataObject) -> None:
    tree = yaml.safe_load(_VALID.replace("!reset", "").replace("!override", ""))
    node = tree
    while True:
        key = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        if not isinstance(node[key], dict | list) or not node[key] or data.draw(st.booleans()):
            node[key] = data.draw(_ANYTHING)
            break
        node = node[key]
    read_or_refused(yaml.safe_dump(tree))
