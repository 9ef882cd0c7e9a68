"""A first stack of one's own: it is whole, and nothing is written over."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmkit.balancer.routes import routes
from swarmkit.compose.convert import Context, DesiredStack, convert
from swarmkit.compose.load import Options
from swarmkit.deploy.catalogue import find
from swarmkit.deploy.draft import draft
from swarmkit.deploy.new import create
from swarmkit.deploy.values import Given
from swarmkit.errors import UsageError
from swarmkit.swarm import Service


def desired(folder: Path, instance: str | None = None, *sets: str) -> DesiredStack:
    source = find(str(folder))
    made = draft(source, Given(sets), options=Options(name=instance or source.name)).ready({})
    assert made.project.warnings == ()
    return convert(made.project, made.instance, Context(images={"app": "built"}))


def test_a_new_stack_can_be_deployed_as_it_is(tmp_path: Path) -> None:
    written = create("blog", tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in written] == [
        "blog/README.md",
        "blog/image/Dockerfile",
        "blog/image/nginx.conf",
        "blog/inputs.yml",
        "blog/stack.yml.j2",
    ]
    (service,) = desired(tmp_path / "blog").services
    assert (service.name, service.routed) == ("blog_app", True)
    assert service.spec["TaskTemplate"]["Resources"]["Limits"] == {"MemoryBytes": 64 * 2**20}
    assert find(str(tmp_path / "blog")).description() == "A page of one's own on several tasks."
    assert not [path for path in written if "my-stack" in path.read_text()]


def test_whatever_its_inputs_allow_makes_a_page(tmp_path: Path) -> None:
    create("blog", tmp_path)
    (config,) = desired(tmp_path / "blog", None, "title=<b>$x: [[ 1 ]]", "memory=32M").configs
    assert config.data == (
        b"<!doctype html>\n<title>&lt;b&gt;$x: [[ 1 ]]</title>\n<h1>&lt;b&gt;$x: [[ 1 ]]</h1>\n"
    )


def test_a_second_instance_shares_nothing_with_the_first(tmp_path: Path) -> None:
    create("blog", tmp_path)
    one, two = desired(tmp_path / "blog"), desired(tmp_path / "blog", "other")
    for kind in ("services", "networks", "configs"):
        first, second = ({each.name for each in getattr(stack, kind)} for stack in (one, two))
        assert first
        assert not first & second
    services = [Service.of({"ID": each.name, "Spec": each.spec}) for each in (*one.services, *two.services)]
    found = routes(services)
    assert found.errors == []
    assert [route.path for route in found.routes] == ["/blog", "/other"]


def test_nothing_is_written_over(tmp_path: Path) -> None:
    create("blog", tmp_path)
    (tmp_path / "blog" / "README.md").write_text("mine")
    with pytest.raises(UsageError, match="nothing is written over"):
        create("blog", tmp_path)
    assert (tmp_path / "blog" / "README.md").read_text() == "mine"
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="nothing is written over"):
        create("file", tmp_path)


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "blog").mkdir()
    assert create("blog", tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Blog", "cannot be the name of a stack"),
        ("../x", "cannot be the name of a stack"),
        ("-x", "cannot be the name of a stack"),
        ("x-", "cannot be the name of a stack"),
        ("swarmkit-x", "is a name of swarmkit's own"),
        ("web", "the catalogue has a stack web"),
    ],
)
def test_a_name_that_cannot_be_a_stacks_is_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create(name, tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "home"]
