"""Where stacks are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarmkit.deploy.catalogue import catalogue, find
from swarmkit.errors import UsageError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a catalogue of two stacks in `root`."""
    for name, file in (("one", "stack.yml"), ("two", "stack.yml.j2")):
        folder = tmp_path / "root" / name
        folder.mkdir(parents=True)
        (folder / file).touch()
        (folder / "inputs.yml").touch()
    (tmp_path / "root" / "none").mkdir()
    (tmp_path / "root" / "one" / "README.md").write_text(
        "# one\n\n[badge](x)\n\nThe first\nstack. It has more to say.\n\nAnd more.\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_catalogue_has_the_folders_with_a_stack(here: Path) -> None:
    one, two = catalogue(here / "root")
    assert (one.name, one.is_template, one.inputs) == ("one", False, None)
    assert one.description() == "The first stack."
    assert (two.name, two.is_template, two.inputs) == ("two", True, here / "root" / "two" / "inputs.yml")
    assert two.description() == ""


def test_the_catalogue_that_ships_is_complete() -> None:
    web = find("web")
    assert web in catalogue()
    for source in catalogue():
        assert source.readme, f"{source.name} has no README.md"
        assert source.description(), f"{source.name} says nothing of itself"


def test_a_name_of_the_catalogue_wins_over_a_folder_here(here: Path) -> None:
    (here / "one").mkdir()
    (here / "one" / "stack.yml").touch()
    assert find("one", here / "root").folder == here / "root" / "one"
    assert find("./one", here / "root").folder == Path("one")


def test_a_folder_is_called_as_it_is(here: Path) -> None:
    (here / "My Stack").mkdir()
    (here / "My Stack" / "stack.yml").touch()
    source = find("My Stack", here / "root")
    assert (source.name, source.file) == ("my-stack", Path("My Stack/stack.yml"))


@pytest.mark.parametrize(
    ("file", "name", "template"),
    [
        ("app/compose.yml", "app", False),
        ("app/docker-compose.yaml", "app", False),
        ("app/stack.yml.j2", "app", True),
        ("app/site.yml", "site", False),
        ("app/site.yml.j2", "site", True),
    ],
)
def test_a_compose_file_is_called_as_it_is_or_as_its_folder(
    here: Path, file: str, name: str, template: bool
) -> None:
    (here / "app").mkdir()
    (here / file).touch()
    source = find(file, here / "root")
    assert (source.name, source.is_template, source.folder) == (name, template, Path("app"))


def test_a_stack_that_is_nowhere_is_an_error_that_lists_the_catalogue(here: Path) -> None:
    with pytest.raises(UsageError, match='there is no stack "three"') as caught:
        find("three", here / "root")
    assert caught.value.hint == "the catalogue has: one, two"


def test_a_folder_without_a_stack_says_what_it_lacks(here: Path) -> None:
    with pytest.raises(UsageError, match=r"neither stack\.yml nor stack\.yml\.j2") as caught:
        find("root", here / "root")
    assert caught.value.where == "root"
    assert caught.value.hint == "name the Compose file itself, or give it one of these names"


def test_a_folder_with_a_compose_file_of_another_name_says_what_to_name(here: Path) -> None:
    (here / "root" / "none" / "compose.yaml").touch()
    with pytest.raises(UsageError) as caught:
        find("root/none", here / "root")
    assert "(root/none/compose.yaml)" in caught.value.hint


def test_the_home_of_nobody_is_no_folder(here: Path) -> None:
    with pytest.raises(UsageError, match='there is no stack "~nobody-here/app"'):
        find("~nobody-here/app", here / "root")


def test_a_readme_in_another_encoding_is_read_as_far_as_it_goes(here: Path) -> None:
    (here / "root" / "one" / "README.md").write_bytes(b"A caf\xe9.\n")
    assert find("one", here / "root").description() == "A caf\N{REPLACEMENT CHARACTER}."
