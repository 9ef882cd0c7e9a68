"""A build context as one archive whose bytes depend on nothing but what the image is made of.

The archive holds the files that `.dockerignore` leaves (names, contents, symbolic links, and whether a
file may be executed), in order of name, without times and owners. So its hash names the content, on
any machine, from any checkout; and an image is made of exactly what was hashed.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG
from typing import IO

from swarmkit.errors import UsageError, reason

# What a Dockerfile from outside of the context is called inside.
OUTSIDE = ".swarmkit.Dockerfile"


@dataclass(frozen=True)
class Context:
    """A packed build context.

    `archive` is the tar file, at its beginning; `digest` its SHA-256 in hexadecimal; `dockerfile` the
    name of the Dockerfile in it, and `recipe` that file's text; `size` is the archive's, in bytes.
    """

    archive: IO[bytes]
    digest: str
    dockerfile: str
    recipe: str
    size: int


@contextmanager
def packed(folder: Path, dockerfile: str = "Dockerfile") -> Iterator[Context]:
    """The context in `folder`, in a temporary file that ends with the block.

    `dockerfile` is a path from `folder`, which may lead out of it (Compose's `build.dockerfile`).
    Raises UsageError for what is missing or cannot be read.
    """
    # Brings an HTTP library with it; most stacks build nothing.
    from docker.utils.build import exclude_paths

    if not folder.is_dir():
        raise UsageError("the build context is not a folder", where=str(folder))
    recipe_file = folder / dockerfile
    try:
        recipe = recipe_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the Dockerfile cannot be read: {reason(error)}",
            where=str(recipe_file),
            hint="name another one with `build: {dockerfile: …}`",
        ) from None
    root = folder.resolve()
    inside = Path(os.path.normpath(root / dockerfile))
    name = inside.relative_to(root).as_posix() if inside.is_relative_to(root) else OUTSIDE
    try:
        with tempfile.TemporaryFile(prefix="swarmkit-context-") as archive:
            with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
                for each in sorted(exclude_paths(str(root), _ignored(root), name)):
                    _add(tar, root, each)
                if name == OUTSIDE:
                    tar.addfile(_entry(OUTSIDE, size=len(recipe.encode())), BytesIO(recipe.encode()))
            size = archive.tell()
            archive.seek(0)
            digest = hashlib.file_digest(archive, "sha256").hexdigest()
            archive.seek(0)
            yield Context(archive, digest, name, recipe, size)
    except _ReadError as error:
        raise UsageError(
            f"a file of the build context cannot be read: {error.reason}",
            where=str(error.path),
            hint="leave it out with a line in .dockerignore, or make it readable",
        ) from None


class _ReadError(Exception):
    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(reason)
        self.path = path
        self.reason = reason


def _ignored(root: Path) -> list[str]:
    """The patterns of `.dockerignore`: a line each, but for comments and empty lines."""
    file = root / ".dockerignore"
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise _ReadError(file, reason(error)) from None
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _add(tar: tarfile.TarFile, root: Path, name: str) -> None:
    path = root / name
    try:
        status = path.lstat()
        if S_ISLNK(status.st_mode):
            link = _entry(name, tarfile.SYMTYPE, executable=True)
            link.linkname = str(path.readlink())
            tar.addfile(link)
        elif S_ISDIR(status.st_mode):
            tar.addfile(_entry(name, tarfile.DIRTYPE, executable=True))
        elif S_ISREG(status.st_mode):
            executable = bool(status.st_mode & 0o100)
            with path.open("rb") as content:
                size = os.fstat(content.fileno()).st_size
                tar.addfile(_entry(name, size=size, executable=executable), content)
        # Sockets, pipes and devices have no place in an image.
    except OSError as error:
        raise _ReadError(path, reason(error)) from None


def _entry(
    name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, executable: bool = False
) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    entry.size = size
    entry.mode = 0o755 if executable else 0o644
    return entry
