"""The genuine `docker stack deploy` is the oracle: for the same file swarmkit sends the same bodies."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from swarmkit.compose.convert import tagged
from swarmkit.compose.matrix import keys
from swarmkit.errors import SwarmkitError
from swarmkit.images.resolve import found, placed
from swarmkit.yamlfile import read
from tests.conformance import compare, run
from tests.conformance.differences import ACCEPTED, REFUSED, SENT, Difference
from tests.conformance.generate import keys_of
from tests.conformance.oracle import Answer, Oracle

GENERATED = 320

Answers = dict[Path, tuple[str, Answer]]


@pytest.fixture(scope="module")
def written(oracle: Oracle) -> Answers:
    """What docker does with each written file, of all the folders."""
    files = sorted(file for file in run.FOLDER.glob("*/*.yml") if file.parent.name != "merged")
    return {file: (stack, answer) for file, stack, answer in run.answers(oracle, files)}


@pytest.mark.parametrize("file", run.WRITTEN, ids=lambda file: file.stem)
def test_what_is_sent_for_a_written_file_is_what_docker_sends(file: Path, written: Answers) -> None:
    assert run.unlike(file, *written[file]) == []


def test_files_are_merged_as_docker_merges_them(oracle: Oracle) -> None:
    base, over = (run.FOLDER / "merged" / name for name in ("base.yml", "over.yml"))
    answer = oracle.deploy(base, "st", run.ENVIRONMENT, over)
    assert not answer.refused, answer.said
    bodies, _ = compare.ours(base, "st", run.ENVIRONMENT, over)
    assert compare.unlike(compare.normal(answer.bodies), compare.normal(bodies)) == []


def test_whatever_docker_warns_that_it_ignores_swarmkit_warns_of_by_name(written: Answers) -> None:
    seen = set()
    for file in run.WRITTEN:
        stack, answer = written[file]
        for line in re.findall(r"Ignoring unsupported options: (.*)", answer.said):
            keys = set(line.split(", ")) - {"build", "restart"}
            warnings = compare.ours(file, stack, run.ENVIRONMENT)[1].warnings
            for key in keys:
                assert any(f".{key}: ignored: " in warning for warning in warnings), (file, key)
            seen |= keys
    # All 16 that docker knows, less the two that swarmkit honours.
    assert len(seen) == 14


@pytest.fixture(scope="module")
def generated(oracle: Oracle) -> run.Compared:
    """Some hundreds of generated files; `make soak` compares thousands."""
    return run.compare_generated(oracle, GENERATED, derandomize=True)


def test_what_is_sent_for_a_generated_file_is_what_docker_sends(generated: run.Compared) -> None:
    assert generated.count >= GENERATED
    assert not "\n".join(generated.problems)


def test_every_key_that_docker_takes_is_in_a_generated_file(generated: run.Compared) -> None:
    assert _written_keys("files") & _known_keys() - generated.keys == set()


def test_every_key_that_swarmkit_knows_is_in_some_file(generated: run.Compared) -> None:
    written = _written_keys("files", "differences", "accepted")
    assert _known_keys() - generated.keys - written == set()


def _written_keys(*folders: str) -> set[str]:
    files = (file for folder in folders for file in (run.FOLDER / folder).glob("*.yml"))
    return {key for file in files for key in keys_of(read(file).data)}


def _known_keys() -> set[str]:
    """The keys of Compose files that swarmkit takes, or ignores with a warning."""
    return {f"{key.section}.{key.name}".removeprefix(".") for key in keys() if key.status != "not yet"}


def test_an_image_is_resolved_as_docker_resolves_it(oracle: Oracle) -> None:
    """`oracle` only says whether there is a client: this engine has images."""
    digest = f"sha256:{'a' * 64}"
    platforms = (
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm", "os": "linux", "variant": "v7"},
    )
    file = run.FOLDER / "files" / "image-references.yml"
    with Oracle(digest, platforms) as having_images:
        answer = having_images.deploy(file, "st", run.ENVIRONMENT, resolve="always")
    bodies, _ = compare.ours(file, "st", run.ENVIRONMENT)
    for name, spec in bodies["services"].items():
        written = spec["Labels"]["com.docker.stack.image"]
        image = found(tagged(written), {"Descriptor": {"digest": digest}, "Platforms": platforms})
        resolved = compare.normal({"services": {name: placed(spec, image)}})
        docker = compare.normal({"services": {name: answer.bodies["services"][name]}})
        assert compare.unlike(docker, resolved) == []


# ---------------------------------------------------------------- the differences that are meant


def _shown(differences: tuple[Difference, ...], folder: str) -> list[Any]:
    return [
        pytest.param(each, run.FOLDER / folder / f"{name}.yml", id=name)
        for each in differences
        for name in each.files
    ]


@pytest.mark.parametrize(("difference", "file"), _shown(SENT, "differences"))
def test_a_difference_in_what_is_sent_is_there_and_is_all(
    difference: Difference, file: Path, written: Answers
) -> None:
    stack, answer = written[file]
    docker, ours = (
        compare.normal(each) for each in (answer.bodies, compare.ours(file, stack, run.ENVIRONMENT)[0])
    )
    assert not answer.refused, answer.said
    assert docker != ours
    assert difference.take_off
    difference.take_off(docker, ours)
    assert compare.unlike(compare.normal(docker), compare.normal(ours)) == []


@pytest.mark.parametrize(("difference", "file"), _shown(ACCEPTED, "accepted"))
def test_what_swarmkit_accepts_beyond_docker_docker_refuses(
    difference: Difference, file: Path, written: Answers
) -> None:
    stack, answer = written[file]
    assert answer.refused
    bodies, project = compare.ours(file, stack, run.ENVIRONMENT)
    assert bodies["services"]
    assert not [warning for warning in project.warnings if ": ignored: " not in warning]


@pytest.mark.parametrize(("difference", "file"), _shown(REFUSED, "refused"))
def test_what_swarmkit_refuses_docker_sends(difference: Difference, file: Path, written: Answers) -> None:
    stack, answer = written[file]
    assert not answer.refused, answer.said
    with pytest.raises(SwarmkitError):
        compare.ours(file, stack, run.ENVIRONMENT)


@pytest.mark.parametrize("file", sorted((run.FOLDER / "neither").glob("*.yml")), ids=lambda file: file.stem)
def test_what_docker_refuses_for_a_mistake_swarmkit_refuses(file: Path, written: Answers) -> None:
    assert written[file][1].refused
    with pytest.raises(SwarmkitError):
        compare.ours(file, "st", run.ENVIRONMENT)


def test_every_file_that_shows_a_difference_is_in_the_table() -> None:
    for folder, differences in (("differences", SENT), ("accepted", ACCEPTED), ("refused", REFUSED)):
        files = {file.stem for file in (run.FOLDER / folder).glob("*.yml")}
        assert files == {name for each in differences for name in each.files}
