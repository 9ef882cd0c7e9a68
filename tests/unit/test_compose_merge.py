"""Compose files laid over each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmkit.compose.load import Options, Project, load, parse, written
from swarmkit.compose.merge import merged
from swarmkit.compose.models import FileUse, Mount, Service
from swarmkit.compose.tree import TAGS, planted, tree
from swarmkit.errors import Problems, SwarmkitError
from swarmkit.yamlfile import Position
from swarmkit.yamlfile import parse as parse_yaml


def project(folder: Path, *files: str, **environment: str) -> Project:
    """The files `1.yml`, `2.yml`, … with these texts, merged."""
    paths = [folder / f"{number}.yml" for number, _ in enumerate(files, 1)]
    for path, text in zip(paths, files, strict=True):
        path.write_text(text)
    return load(paths[0], environment, Options(files=paths[1:]))


def service(folder: Path, *bodies: str) -> Service:
    """One service from the flow-style bodies of several files."""
    tail = "networks: {n: , m: }\nvolumes: {v: , w: }\nconfigs: {c: {content: x}, d: {content: x}}\n"
    texts = [f"services: {{a: {{{body}}}}}\n" for body in bodies]
    return project(folder, "services: {a: {image: x}}\n" + tail, *texts).file.services["a"]


def over(*texts: str, path: tuple[str, ...] = ()) -> Any:
    """The bare data of YAML texts merged at `path` of a Compose file."""
    first, *others = [tree(parse_yaml(text, "f", TAGS), ()) for text in texts]
    for other in others:
        first = merged(first, other, path)
    return first.plain()


@pytest.mark.parametrize(
    ("first", "second", "result"),
    [
        ("{a: 1, b: {c: 2}}", "{b: {d: 3}}", {"a": 1, "b": {"c": 2, "d": 3}}),
        ("{a: [1, 2]}", "{a: [2, 3]}", {"a": [1, 2, 3]}),
        ("{a: 1}", "{a: 2}", {"a": 2}),
        ("{a: 1}", "{a: }", {"a": 1}),
        ("{a: }", "{a: {b: 1}}", {"a": {"b": 1}}),
        ("{a: {b: 1}}", "{a: [1]}", {"a": [1]}),
        ("{a: {b: 1, c: 2}}", "{a: !override {b: 3}}", {"a": {"b": 3}}),
        ("{a: [1]}", "{a: !override [2]}", {"a": [2]}),
        ("{a: 1, b: 2}", "{a: !reset null}", {"b": 2}),
        ("{a: [1], b: 2}", "{a: !reset []}", {"b": 2}),
        ("{a: 1}", "{b: !reset x}", {"a": 1}),
        ("{a: !reset 1, b: !override [2]}", "{c: 3}", {"b": [2], "c": 3}),
    ],
)
def test_the_general_rules(first: str, second: str, result: object) -> None:
    assert over(first, second) == result


def test_a_third_file_may_say_again_what_the_second_took_away() -> None:
    assert over("{a: [1]}", "{a: !reset }", "{a: [2]}") == {"a": [2]}


def test_commands_and_tests_are_replaced_whole(tmp_path: Path) -> None:
    read = service(
        tmp_path,
        "command: [a, b], entrypoint: e f, healthcheck: {test: [CMD, x], retries: 3}",
        "command: [c], entrypoint: [g], healthcheck: {test: y}",
    )
    assert (read.command, read.entrypoint) == (["c"], ["g"])
    assert read.healthcheck
    assert (read.healthcheck.test, read.healthcheck.retries) == (["CMD-SHELL", "y"], 3)


def test_variables_and_labels_are_merged_by_name_in_whatever_form(tmp_path: Path) -> None:
    read = service(
        tmp_path,
        "environment: [A=1, B=2], labels: {l: 1, m: 2}, build: {context: ., args: [X=1]}",
        "environment: {B: 3, C: }, labels: [m=3], build: {args: {X: 2, Y: }}, deploy: {labels: [a=b]}",
        "environment: [A], deploy: {labels: {c: d}}, build: !reset null",
    )
    assert read.environment == {"A": None, "B": "3", "C": None}
    assert read.labels == {"l": "1", "m": "3"}
    assert read.deploy.labels == {"a": "b", "c": "d"}


def test_ports_are_one_where_they_publish_the_same(tmp_path: Path) -> None:
    read = service(
        tmp_path,
        "ports: ['8080:80', 90, '53:53/udp']",
        "ports: [{target: 80, published: 8080, mode: host}, '8081:80', '53:53/tcp']",
    )
    found = [(*next(port.pairs()), port.protocol == "udp", port.mode == "host") for port in read.ports]
    assert found == [
        (8080, 80, False, True),
        (None, 90, False, False),
        (53, 53, True, False),
        (8081, 80, False, False),
        (53, 53, False, False),
    ]


def test_mounts_are_one_where_they_have_one_target(tmp_path: Path) -> None:
    read = service(
        tmp_path, "volumes: ['v:/v:ro', 'v:/other']", "volumes: [{type: volume, source: w, target: /v/}]"
    )
    assert read.volumes == [
        Mount(type="volume", source="v", target="/other"),
        Mount(type="volume", source="w", target="/v/", read_only=True),
    ]


def test_configs_are_one_where_they_become_one_file(tmp_path: Path) -> None:
    read = service(tmp_path, "configs: [c, d]", "configs: [{source: d, target: /c}, {source: d, mode: 0400}]")
    assert [(use.source, use.target) for use in read.configs] == [("d", "/c"), ("d", None)]
    assert read.configs[1] == FileUse(source="d", mode=0o400)


def test_a_host_that_is_named_again_has_its_new_addresses(tmp_path: Path) -> None:
    read = service(tmp_path, "extra_hosts: [a:1.1.1.1, a:1.1.1.2, b:2.2.2.2]", "extra_hosts: {a: 3.3.3.3}")
    assert read.extra_hosts == ["2.2.2.2 b", "3.3.3.3 a"]


def test_names_in_lists_and_mappings_go_together(tmp_path: Path) -> None:
    read = service(
        tmp_path, "networks: [n], dns: 1.1.1.1", "networks: {n: {aliases: [x]}, m: }, dns: [2.2.2.2]"
    )
    assert set(read.networks) == {"n", "m"}
    assert read.networks["n"]
    assert read.networks["n"].aliases == ["x"]
    assert read.dns == ["1.1.1.1", "2.2.2.2"]


def test_options_of_logging_stay_with_their_driver(tmp_path: Path) -> None:
    same = service(tmp_path, "logging: {driver: a, options: {x: 1}}", "logging: {options: {y: 2}}")
    assert same.logging
    assert same.logging.options == {"x": "1", "y": "2"}
    other = service(tmp_path, "logging: {driver: a, options: {x: 1}}", "logging: {driver: b}")
    assert other.logging
    assert other.logging.options == {}


def test_subnets_are_merged_by_their_address() -> None:
    path = ("networks", "n", "ipam", "config")
    result = over("[{subnet: a, gateway: 1}, {subnet: b}]", "[{subnet: a, gateway: 2}]", path=path)
    assert result == [{"subnet": "a", "gateway": 2}, {"subnet": "b"}]


def test_every_mistake_names_the_file_that_it_stands_in(tmp_path: Path) -> None:
    with pytest.raises(Problems) as caught:
        project(
            tmp_path,
            "services:\n  a:\n    image: x\n    ports: ['8080:80']\n    stop_signal: [1]\n",
            "services:\n  a:\n    ports:\n      - '90000:80'\n    deploy: {replicas: $}\n",
            "services:\n  a:\n    networks: [nope]\n  b: {user: me}\n",
        )
    assert [str(error).removeprefix(f"{tmp_path}/") for error in caught.value.errors] == [
        "1.yml:5:18: services.a.stop_signal: expected text, got a list",
        '2.yml:4:9: services.a.ports[1]: expected a port from 1 to 65535, got "90000"',
        '2.yml:5:24: services.a.deploy.replicas: not a variable swarmkit understands: "$"',
        '3.yml:3:16: services.a.networks[0]: no network is called "nope"',
        "3.yml:4:6: services.b: needs an image, or a build to make one from",
    ]


def test_an_entry_that_a_later_file_changes_stands_where_it_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(SwarmkitError) as caught:
        project(
            tmp_path,
            "services: {a: {image: x, volumes: [{type: tmpfs, target: /t}]}}",
            "services: {a: {volumes: [{type: tmpfs, target: /t, tmpfs: {size: much}}]}}",
        )
    assert caught.value.where == f"{tmp_path}/2.yml:1:66"


def test_what_a_merge_key_gives_and_the_mapping_changes_stands_in_the_mapping() -> None:
    text = "x-a: &a {image: x, stop_signal: [1]}\nservices:\n  s:\n    <<: *a\n    stop_signal: [2]\n"
    with pytest.raises(SwarmkitError) as caught:
        parse(text, "f.yml", Path("/nowhere"), {})
    assert caught.value.where == "f.yml:5:18"


def test_what_only_a_merge_key_gives_stands_at_the_anchor() -> None:
    text = "x-a: &a {stop_signal: [1]}\nservices:\n  s:\n    image: x\n    <<: *a\n"
    with pytest.raises(SwarmkitError) as caught:
        parse(text, "f.yml", Path("/nowhere"), {})
    assert caught.value.where == "f.yml:1:23"


def test_a_mapping_of_several_files_stands_in_the_last() -> None:
    text = "services: {b: {user: me}, a: {extends: b}}"
    with pytest.raises(Problems) as caught:
        parse(text, "f.yml", Path("/nowhere"), {})
    assert [error.where for error in caught.value.errors] == ["f.yml:1:15", "f.yml:1:30"]


def test_a_file_that_cannot_be_read_is_told_with_the_others(tmp_path: Path) -> None:
    (tmp_path / "1.yml").write_text("services: {a: {image: x}}")
    files = [tmp_path / "none.yml", tmp_path / "bad.yml"]
    files[1].write_text("a: [")
    with pytest.raises(Problems) as caught:
        load(tmp_path / "1.yml", {}, Options(files=files, env_files=[tmp_path / "none.env"]))
    assert [error.message for error in caught.value.errors] == [
        "no such file",
        "not valid YAML: expected the node content, but found '<stream end>'",
        "no such file",
    ]


def test_paths_start_from_the_first_files_folder_or_each_from_its_own(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "1.yml", tmp_path / "b" / "2.yml"
    for path in (first, second):
        path.parent.mkdir()
        (path.parent / "c.txt").write_text(path.parent.name)
    first.write_text("services: {a: {image: x}}")
    second.write_text("services: {a: {volumes: ['./d:/d', '../e:/e:ro']}}\nconfigs: {c: {file: c.txt}}")
    read = load(first, {}, Options(files=[second]))
    assert read.config_data == {"c": b"a"}
    assert read.file.services["a"].volumes[0].source == "./d"
    read = load(first, {}, Options(files=[second], own_folders=True))
    assert read.config_data == {"c": b"b"}
    assert [mount.source for mount in read.file.services["a"].volumes] == [
        f"{tmp_path}/b/d",
        f"{tmp_path}/b/../e",
    ]


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=2), inner, max_size=3)
    ),
    max_leaves=10,
)
_HERE = Position("f", 1, 1)


@settings(deadline=None)
@given(_VALUES, _VALUES, st.sampled_from([(), ("services", "a", "ports"), ("services", "a", "environment")]))
def test_anything_can_be_laid_over_anything(base: object, other: object, path: tuple[str, ...]) -> None:
    left, right = planted(base, _HERE), planted(other, _HERE)
    merged(left, right, path)
    assert (left.plain(), right.plain()) == (base, other)


def test_the_merged_file_can_be_written_and_read_again(tmp_path: Path) -> None:
    read = project(
        tmp_path,
        "services:\n  a: {image: x, environment: {A: '$$5', B: '0o17', C: '1e3', D: 'yes', E: 1.0}}\n",
        "services: {a: {ports: ['22:22'], command: [run, '$A'], x-mine: 1}}",
        A="a$b",
    )
    again = parse(written(read), "again", tmp_path, {})
    assert again.file == read.file
    assert again.file.services["a"].environment["A"] == "$5"
    assert again.file.services["a"].command == ["run", "a$b"]
