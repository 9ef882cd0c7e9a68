"""The build of a node's image."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from swarmkit import resources
from swarmkit.lab.image import fingerprint, stable_tag, write_context
from swarmkit.lab.models import RELEASES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    program = tmp_path / "lab" / "files" / "usr" / "local" / "sbin" / "program"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    (tmp_path / "lab" / "Dockerfile").write_text("FROM x\n")
    return tmp_path / "lab"


def test_an_image_is_known_by_the_content_of_its_folder_and_its_base(folder: Path) -> None:
    first = fingerprint(folder, "sha256:1")
    assert fingerprint(folder, "sha256:1") == first
    assert fingerprint(folder, "sha256:2") != first
    (folder / "Dockerfile").chmod(0o755)
    assert fingerprint(folder, "sha256:1") == first
    (folder / "Dockerfile").write_text("FROM y\n")
    assert fingerprint(folder, "sha256:1") != first


def test_the_context_is_the_same_whatever_the_files_modes_and_times(folder: Path) -> None:
    def context() -> bytes:
        out = io.BytesIO()
        write_context(folder, [b"base ", b"image"], out)
        return out.getvalue()

    first = context()
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o600)
    assert context() == first
    with tarfile.open(fileobj=io.BytesIO(first)) as archive:
        modes = {member.name: member.mode for member in archive}
        saved = archive.extractfile("base.tar")
        assert saved is not None
        assert gzip.decompress(saved.read()) == b"base image"
    assert modes == {"Dockerfile": 0o644, "base.tar": 0o644, "files/usr/local/sbin/program": 0o755}


def test_every_release_has_images_of_its_own() -> None:
    tags = {stable_tag(bare, release) for bare in (True, False) for release in RELEASES}
    assert len(tags) == 2 * len(RELEASES)
    assert {"swarmkit/node:bare", "swarmkit/node:docker", "swarmkit/node:bare-12"} <= tags


def test_the_folder_of_the_image_ships_with_the_package() -> None:
    assert (resources.folder("lab") / "Dockerfile").is_file()
