"""The image of a node: built from the folder `lab/` on the base image, and kept for as long as both stay."""

from __future__ import annotations

import gzip
import hashlib
import io
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from swarmkit import resources
from swarmkit.errors import OperationFailed
from swarmkit.lab.engine import explained
from swarmkit.lab.models import DEFAULT_RELEASE

if TYPE_CHECKING:
    from docker import DockerClient

# The base of what nodes build, which every node carries.
BASE = "swarmkit/base:13"
# The systems that nodes are made of, where that is another.
_SYSTEMS = {"12": "swarmkit/base:12"}
REPOSITORY = "swarmkit/node"
_BASE_SCRIPT = Path(__file__).resolve().parents[1] / "images" / "base.sh"
# Fast, and the file is a third of the size.
_GZIP_LEVEL = 4
_LINES_SHOWN = 12


def stable_tag(bare: bool, release: str = DEFAULT_RELEASE) -> str:
    """What names the newest image for nodes, whatever it was built from: `swarmkit/node:bare` and so on."""
    target = "bare" if bare else "docker"
    return f"{REPOSITORY}:{target}" if release == DEFAULT_RELEASE else f"{REPOSITORY}:{target}-{release}"


def ensure(client: DockerClient, bare: bool, release: str, say: Callable[[str], None]) -> str:
    """The tag of the image for nodes, `bare` or with an engine, built where it is not there yet.

    It stays the same for as long as nothing changes that goes into the image; `stable_tag` then names
    the same image. `release`: one of RELEASES. Raises OperationFailed, with the end of the log, where an
    image cannot be made.
    """
    folder = resources.folder("lab")
    system = _SYSTEMS.get(release, BASE)
    bases = {tag: _base(client, tag, say) for tag in (BASE, system)}
    stable = stable_tag(bare, release)
    tag = f"{stable}-{fingerprint(folder, ' '.join(bases.values()))}"
    built = _id(client, tag)
    if built is None:
        with tempfile.TemporaryFile() as context:
            write_context(folder, _saved(client), context)
            context.seek(0)
            say("building the image of a node")
            arguments = {"BASE": system, "RELEASE": release}
            _build(client, context, tag, "bare" if bare else "docker", arguments)
    if built is None or _id(client, stable) != built:
        with explained("naming the image", where=tag):
            client.images.get(tag).tag(REPOSITORY, stable.removeprefix(f"{REPOSITORY}:"))
    return tag


def _id(client: DockerClient, tag: str) -> str | None:
    from docker.errors import ImageNotFound

    with explained("reading the image", where=tag):
        try:
            return str(client.images.get(tag).id)
        except ImageNotFound:
            return None


def _base(client: DockerClient, tag: str, say: Callable[[str], None]) -> str:
    """The ID of a base image, which is made where it is missing."""
    if found := _id(client, tag):
        return found
    said = []
    release = tag.rpartition(":")[2]
    with subprocess.Popen(["sh", _BASE_SCRIPT, release], stderr=subprocess.PIPE, text=True) as script:
        assert script.stderr is not None, "asked for above"
        for line in script.stderr:
            said.append(line.rstrip())
            say(said[-1])
    found = _id(client, tag)
    if script.returncode != 0 or found is None:
        raise OperationFailed(f"the image {tag} could not be made", hint="\n  ".join(said[-_LINES_SHOWN:]))
    return found


def fingerprint(folder: Path, base: str) -> str:
    """What an image is known by: a hash of the folder's files and of the base image's ID."""
    digest = hashlib.sha256(base.encode())
    for name, content in _files(folder):
        for part in (name.encode(), content):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:12]


def _files(folder: Path) -> Iterable[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path.read_bytes()


def write_context(folder: Path, base: Iterable[bytes], out: IO[bytes]) -> None:
    """Write the build's context to `out`: the folder's files, and the saved base image, compressed.

    Owners, times and modes are the same wherever the folder lies: a checkout or an installed package.
    """
    with tempfile.TemporaryFile() as saved:
        with gzip.GzipFile(fileobj=saved, mode="wb", compresslevel=_GZIP_LEVEL, mtime=0) as compressed:
            for chunk in base:
                compressed.write(chunk)
        with tarfile.open(fileobj=out, mode="w") as archive:
            for name, content in _files(folder):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                member.mode = 0o755 if "sbin" in Path(name).parts else 0o644
                archive.addfile(member, io.BytesIO(content))
            member = tarfile.TarInfo("base.tar")
            member.size = saved.tell()
            saved.seek(0)
            archive.addfile(member, saved)


def _saved(client: DockerClient) -> Iterable[bytes]:
    with explained("saving the image", where=BASE):
        # By its name: a node that loads it must find it under that.
        return client.images.get(BASE).save(named=BASE)


def _build(
    client: DockerClient, context: IO[bytes], tag: str, target: str, arguments: dict[str, str]
) -> None:
    api: Any = client.api
    log: list[str] = []
    with explained("building the image", where=tag):
        # On the machine's own network: its name servers and mirrors may be on the loopback.
        for event in api.build(
            fileobj=context,
            custom_context=True,
            tag=tag,
            target=target,
            buildargs=arguments,
            network_mode="host",
            use_config_proxy=True,
            rm=True,
            forcerm=True,
            decode=True,
        ):
            if "error" in event:
                end = [*log[-_LINES_SHOWN:], event["error"]]
                raise OperationFailed("building the image of a node failed", hint="\n  ".join(end))
            text = event.get("stream", "").strip()
            log += text.splitlines()
