"""What is deployed when files stand beside a stack."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swarmkit.cli.main import main
from swarmkit.compose.load import Options
from swarmkit.deploy.sources import chosen
from swarmkit.errors import Problems, UsageError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with `base.yml`, `prod.yml`, and a catalogue in `root` that has `web`."""
    (tmp_path / "root" / "web").mkdir(parents=True)
    (tmp_path / "root" / "web" / "stack.yml").write_text("services: {w: {image: w}}")
    (tmp_path / "base.yml").write_text("services: {a: {image: 'x:$TAG', environment: {P: 'a$$b'}}}")
    (tmp_path / "prod.yml").write_text("services: {a: {user: me}, d: {image: y, profiles: [debug]}}")
    (tmp_path / "v.env").write_text("TAG=v")
    monkeypatch.chdir(tmp_path)
    return tmp_path


BASE, PROD = Path("base.yml"), Path("prod.yml")


def test_a_name_with_files_names_the_instance_as_docker_does(here: Path) -> None:
    source, options = chosen("shop", [BASE, PROD], Options(), here / "root")
    assert source.file == BASE
    assert (list(options.files), options.name, options.own_folders) == ([PROD], "shop", False)
    _, options = chosen("shop", [BASE], Options(name="said"), here / "root")
    assert options.name == "said"


def test_files_are_laid_over_the_stack_that_there_is(here: Path) -> None:
    source, options = chosen("base.yml", [PROD], Options(), here / "root")
    assert source.file == BASE
    assert (list(options.files), options.name, options.default_name) == ([PROD], "", "base")
    source, options = chosen("web", [PROD], Options(), here / "root")
    assert source.folder == here / "root" / "web"
    assert (options.own_folders, options.name, options.default_name) == (True, "", "web")


def test_a_first_file_is_a_file_even_if_the_catalogue_has_its_name(here: Path) -> None:
    (here / "web").write_text("services: {a: {image: x}}")
    assert chosen("shop", [Path("web")], Options(), here / "root")[0].file == Path("web")


def test_standard_input_is_a_file_of_this_folder(here: Path) -> None:
    source, options = chosen("shop", [Path("-"), PROD], Options(), here / "root")
    assert (source.file, source.folder, list(options.files)) == (Path("/dev/stdin"), Path(), [PROD])


@pytest.mark.parametrize("reference", ["none.yml", "./none", "a/b"])
def test_a_path_that_is_not_there_is_no_name(here: Path, reference: str) -> None:
    with pytest.raises(UsageError, match="there is no stack"):
        chosen(reference, [BASE], Options(), here / "root")


def test_a_name_without_files_must_be_a_stack(here: Path) -> None:
    with pytest.raises(UsageError, match="there is no stack"):
        chosen("shop", [], Options(), here / "root")


def test_templates_are_laid_over_nothing(here: Path) -> None:
    with pytest.raises(Problems) as caught:
        chosen("base.yml", [Path("a.yml.j2"), PROD, Path("b.yml.j2")], Options(), here / "root")
    assert [error.where for error in caught.value.errors] == ["a.yml.j2", "b.yml.j2"]


def ran(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["stack", "render", *arguments])
    assert ended.value.code == 0


def test_render_shows_what_the_files_become(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran("base.yml", "-f", "prod.yml", "--env-file", "v.env", "-o", "json")
    text = json.loads(capsys.readouterr().out)["text"]
    assert text == "services:\n  a:\n    image: x:v\n    environment:\n      P: a$$b\n    user: me\n"
    ran("shop", "-f", "base.yml", "-f", "prod.yml", "--profile", "debug")
    shown = capsys.readouterr()
    assert "  d:\n    image: y\n" in shown.out
    assert "base.yml:1:23: services.a.image: TAG is not set" in shown.err


def test_render_alone_shows_the_stacks_own_text(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran("base.yml")
    assert capsys.readouterr().out == (here / "base.yml").read_text()
    ran("base.yml", "--resolved")
    assert "image: 'x:'" in capsys.readouterr().out
