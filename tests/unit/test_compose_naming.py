"""What things are called in the swarm: names that it takes, one for each."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmkit.compose.convert import convert
from swarmkit.compose.load import Options, Project, parse
from swarmkit.errors import Problems, SwarmkitError
from swarmkit.names import CONFIG_NAME_LIMIT, is_version, version


def project(text: str, name: str = "st") -> Project:
    return parse(text, "s.yml", Path("/nowhere"), {"A": "a", "B": "b"}, Options(name=name))


def mistakes(text: str, name: str = "st") -> list[str]:
    with pytest.raises(SwarmkitError) as caught:
        project(text, name)
    error = caught.value
    return [str(each) for each in (error.errors if isinstance(error, Problems) else [error])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "services: {¦a.b: {image: x}}",
            "services.a.b: a swarm takes no such name: st_a.b",
        ),
        ("services: {¦a-: {image: x}}", "services.a-: a swarm takes no such name: st_a-"),
        (
            "services: {a: {image: x, networks: [n]}}\nnetworks: {n: {name: ¦my.net}}",
            "networks.n.name: a swarm takes no such name: my.net",
        ),
        (
            "services: {a: {image: x}}\nconfigs: {c: {content: x, name: ¦.hidden}}",
            "configs.c.name: a swarm takes no such name: .hidden",
        ),
        (
            "services: {a: {image: x}}\nsecrets: {¦c_: {environment: A}}",
            "secrets.c_: a swarm takes no such name: st_c_",
        ),
        (
            f"services: {{¦{'a' * 61}: {{image: x}}}}",
            f"services.{'a' * 61}: the name st_{'a' * 61} is longer than the 63 characters a swarm allows",
        ),
        (
            f"services: {{a: {{image: x}}}}\nconfigs: {{¦{'a' * 62}: {{content: x}}}}",
            f"configs.{'a' * 62}: the name st_{'a' * 62} is longer than the 64 characters a swarm allows",
        ),
    ],
)
def test_a_name_that_no_swarm_takes_is_refused_where_it_stands(text: str, message: str) -> None:
    (found,) = mistakes(text.replace("¦", ""))
    before = text.partition("¦")[0].split("\n")
    key = len(before[-1]) + 1
    line, column = found.split(":")[1:3]
    assert int(line) == len(before)
    assert message in found
    # A key's own error stands at what is under it.
    assert int(column) >= key


def test_what_a_swarm_takes_is_taken() -> None:
    project(
        "services: {_f: {image: x}, a--b_C: {image: x, networks: [n]}}\n"
        "networks: {n: {name: a__b}}\n"
        "configs: {a.b-c: {content: x}, theirs: {external: true, name: '.odd/name'}}\n"
        f"secrets: {{s: {{environment: A, name: {'a' * 64}}}}}"
    )


def two(kind: str, left: str, right: str) -> str:
    """A file with two things of a kind that are called `same`, and a service that uses both."""
    uses = "['aa:/a', 'bb:/b']" if kind == "volumes" else "[aa, bb]"
    things = f"{{aa: {{name: same{left}}}, bb: {{name: same{right}}}}}"
    return f"services: {{web: {{image: x, {kind}: {uses}}}}}\n{kind}: {things}"


@pytest.mark.parametrize(
    ("kind", "left", "right"),
    [
        ("networks", "", ", internal: true"),
        ("networks", ", external: true", ""),
        ("volumes", "", ", driver: other"),
        ("configs", ", content: a", ", content: b"),
        ("configs", ", content: a", ", content: a, labels: {a: b}"),
        ("configs", ", content: a", ", external: true"),
        ("secrets", ", environment: A", ", environment: B"),
        ("secrets", ", driver: a", ", driver: b"),
    ],
)
def test_two_things_of_one_name_are_refused_with_both_their_places(kind: str, left: str, right: str) -> None:
    (found,) = mistakes(two(kind, left, right))
    assert f"{kind}.bb.name: {kind}.aa (s.yml:2:" in found
    assert ") is called same too, and is something else" in found
    assert found.startswith("s.yml:2:")


@pytest.mark.parametrize(
    ("kind", "left", "right"),
    [
        ("networks", ", internal: true", ", internal: true"),
        ("networks", ", external: true", ", external: true"),
        ("volumes", "", ""),
        ("configs", ", content: a", ", environment: A"),
        ("secrets", ", environment: A", ", environment: A"),
    ],
)
def test_what_is_the_same_under_two_keys_is_made_once(kind: str, left: str, right: str) -> None:
    stack = convert(project(two(kind, left, right)), "st")
    made = [body["Name"] for body in (network.spec for network in stack.networks)]
    made += [config.name for config in stack.configs] + [secret.name for secret in stack.secrets]
    assert sorted(made) == sorted(set(made))
    assert len(stack.external_networks) == (", external" in left)


def test_a_name_may_be_the_one_that_another_has_by_itself() -> None:
    (found,) = mistakes(
        "services: {a: {image: x}}\nconfigs: {c: {content: a}, d: {content: b, name: st_c}}",
    )
    assert "configs.d.name: configs.c (s.yml:2:14) is called st_c too" in found
    (found,) = mistakes(
        "services: {a: {image: x}, b: {image: x, networks: [n]}}\n"
        "networks: {n: {name: st_default, internal: true}}"
    )
    assert "is called st_default too" in found


def test_a_service_on_one_network_by_two_keys_has_all_its_aliases() -> None:
    stack = convert(
        project(
            "services: {web: {image: x, networks: {a: {aliases: [one]}, b: {aliases: [two]}}}}\n"
            "networks: {a: {name: same}, b: {name: same}}"
        ),
        "st",
    )
    (network,) = stack.services[0].spec["TaskTemplate"]["Networks"]
    assert network["Target"] == "same"
    assert set(network["Aliases"]) == {"one", "two", "web"}


@pytest.mark.parametrize("kind", ["configs", "secrets"])
def test_a_name_like_that_of_a_version_of_another_is_refused(kind: str) -> None:
    text = "services: {a: {image: x}}\n" + kind + ": {c: {environment: A}, c-0123456789: {environment: B}%s}"
    (found,) = mistakes(text % "")
    assert f"st_c-0123456789 is what another content of {kind}.c (s.yml:2:" in found
    # Without the other it is a name like any.
    project(text.replace("c: {environment: A}, ", "") % "")
    project(text.replace("c-0123456789", "c-012345678g") % "")


def test_versions_are_told_by_their_names() -> None:
    long = "a" * CONFIG_NAME_LIMIT
    other = version(long, "0123456789abcdef")
    assert len(other) == CONFIG_NAME_LIMIT
    assert is_version(other, long)
    assert is_version(long, long)
    assert not is_version(f"{long[:-1]}b", long)
    assert version("c", "0123456789abcdef") == "c-0123456789"
    assert not is_version("c-01234567890", "c")
    assert not is_version("cc-0123456789", "c")
