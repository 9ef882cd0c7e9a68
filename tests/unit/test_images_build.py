"""Build contexts and tags: the same content has the same hash, and only that."""

from __future__ import annotations

import os
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import docker
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkit.errors import OperationFailed, UsageError
from swarmkit.images.base import ensure_base
from swarmkit.images.build import (
    ImageRef,
    build,
    content_tag,
    declares_base,
    path_of,
    registry_digest,
)
from swarmkit.images.context import OUTSIDE, packed
from swarmkit.images.distribute import pull
from swarmkit.images.registry import service_spec
from swarmkit.names import SPEC_LABEL
from swarmkit.remote import Engine, EngineError, Finished


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "context"
    (root / "app").mkdir(parents=True)
    (root / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (root / "app" / "main.py").write_text("print('hello')\n")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "link").symlink_to("app/main.py")
    (root / "empty").mkdir()
    return root


def digest(folder: Path, dockerfile: str = "Dockerfile") -> str:
    with packed(folder, dockerfile) as context:
        return context.digest


def names(folder: Path, dockerfile: str = "Dockerfile") -> set[str]:
    with packed(folder, dockerfile) as context, tarfile.open(fileobj=context.archive) as tar:
        return set(tar.getnames())


def test_the_archive_holds_all_with_plain_owners_modes_and_times(folder: Path) -> None:
    with packed(folder) as context, tarfile.open(fileobj=context.archive) as tar:
        found = {each.name: (each.type, oct(each.mode), each.mtime, each.uid, each.gid) for each in tar}
        assert tar.getmember("link").linkname == "app/main.py"
        assert tar.extractfile("app/main.py").read() == b"print('hello')\n"  # type: ignore[union-attr]
    assert found == {
        "Dockerfile": (tarfile.REGTYPE, "0o644", 0, 0, 0),
        "app": (tarfile.DIRTYPE, "0o755", 0, 0, 0),
        "app/main.py": (tarfile.REGTYPE, "0o644", 0, 0, 0),
        "empty": (tarfile.DIRTYPE, "0o755", 0, 0, 0),
        "link": (tarfile.SYMTYPE, "0o755", 0, 0, 0),
        "run.sh": (tarfile.REGTYPE, "0o755", 0, 0, 0),
    }


def test_times_owners_and_other_bits_do_not_matter(folder: Path) -> None:
    before = digest(folder)
    for path in folder.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    (folder / "app" / "main.py").chmod(0o600)
    (folder / "run.sh").chmod(0o700)
    (folder / "app").chmod(0o700)
    assert digest(folder) == before


def test_where_the_folder_is_does_not_matter(folder: Path, tmp_path: Path) -> None:
    before = digest(folder)
    assert digest(folder.rename(tmp_path / "elsewhere")) == before


@pytest.mark.parametrize("change", ["content", "executable", "name", "new", "link", "folder", "dockerfile"])
def test_what_matters_changes_the_hash(change: str, folder: Path) -> None:
    before = digest(folder)
    match change:
        case "content":
            (folder / "app" / "main.py").write_text("print('hallo')\n")
        case "executable":
            (folder / "app" / "main.py").chmod(0o755)
        case "name":
            (folder / "run.sh").rename(folder / "run2.sh")
        case "new":
            (folder / "app" / "x").touch()
        case "link":
            (folder / "link").unlink()
            (folder / "link").symlink_to("run.sh")
        case "folder":
            (folder / "empty").rmdir()
        case "dockerfile":
            (folder / "Dockerfile").write_text("FROM scratch\n")
    assert digest(folder) != before


FILES = st.dictionaries(
    st.text("abcdefgh.é_-", min_size=1, max_size=8).filter(lambda name: name.strip(".")),
    st.tuples(st.binary(max_size=50), st.booleans()),
    max_size=6,
)


@given(files=FILES, shuffler=st.randoms(use_true_random=False))
def test_the_order_of_creation_does_not_matter(
    files: dict[str, tuple[bytes, bool]], shuffler: random.Random, tmp_path_factory: pytest.TempPathFactory
) -> None:
    digests = set()
    for _ in range(2):
        root = tmp_path_factory.mktemp("context")
        order = list(files.items())
        shuffler.shuffle(order)
        for name, (content, executable) in order:
            (root / name).write_bytes(content)
            (root / name).chmod(0o755 if executable else 0o644)
        (root / "Dockerfile").write_text("FROM scratch\n")
        digests.add(digest(root))
    assert len(digests) == 1


def test_hard_links_are_files_like_others(folder: Path) -> None:
    (folder / "again.py").hardlink_to(folder / "app" / "main.py")
    with packed(folder) as context, tarfile.open(fileobj=context.archive) as tar:
        assert all(tar.getmember(name).isreg() for name in ("again.py", "app/main.py"))


def test_dockerignore_is_honoured(folder: Path) -> None:
    (folder / ".dockerignore").write_text("# not sent\n\n**/*.pyc\napp\n!app/keep.py\nDockerfile\n")
    before = digest(folder)
    (folder / "app" / "keep.py").write_text("kept")
    (folder / "x.pyc").write_text("1")
    (folder / "empty" / "y.pyc").write_text("1")
    (folder / "app" / "main.py").write_text("anything")
    assert names(folder) == {
        ".dockerignore",
        "Dockerfile",
        "app/keep.py",
        "empty",
        "link",
        "run.sh",
    }
    (folder / "app" / "keep.py").unlink()
    assert digest(folder) == before


def test_a_dockerfile_from_elsewhere_goes_along(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.Dockerfile"
    other.write_text("FROM scratch\n")
    with packed(folder, "../other.Dockerfile") as context:
        assert (context.dockerfile, context.recipe) == (OUTSIDE, "FROM scratch\n")
    assert OUTSIDE in names(folder, "../other.Dockerfile")
    before = digest(folder, "../other.Dockerfile")
    other.write_text("FROM scratch\nUSER 1\n")
    assert digest(folder, "../other.Dockerfile") != before


def test_a_dockerfile_of_another_name_is_found(folder: Path) -> None:
    (folder / "app" / "Other").write_text("FROM scratch\n")
    (folder / ".dockerignore").write_text("app\n")
    with packed(folder, "./app/Other") as context:
        assert context.dockerfile == "app/Other"
    assert "app/Other" in names(folder, "app/Other")


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a folder") as caught, packed(tmp_path / "none"):
        pass
    assert caught.value.where == str(tmp_path / "none")
    with pytest.raises(UsageError, match="no such file or directory") as caught, packed(folder, "Nofile"):
        pass
    assert caught.value.where == str(folder / "Nofile")


def test_a_file_that_vanishes_or_cannot_be_read_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_file = Path.open

    def refuse(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path.name == "main.py":
            raise PermissionError(13, "Permission denied")
        return open_file(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UsageError, match="permission denied") as caught, packed(folder):
        pass
    assert caught.value.where == str(folder / "app" / "main.py")
    assert ".dockerignore" in caught.value.hint


def test_the_tag_stands_for_everything_that_goes_into_the_image() -> None:
    tags = {
        content_tag("d", "Dockerfile", {}),
        content_tag("e", "Dockerfile", {}),
        content_tag("d", "Other", {}),
        content_tag("d", "Dockerfile", {"A": "1"}),
        content_tag("d", "Dockerfile", {"A": "2"}),
        content_tag("d", "Dockerfile", {}, "stage"),
        content_tag("d", "Dockerfile", {}, "", "sha256:1"),
    }
    assert len(tags) == 7
    ordered = content_tag("d", "D", {"A": "1", "B": "2"})
    assert ordered == content_tag("d", "D", {"B": "2", "A": "1"})


@pytest.mark.parametrize(
    ("dockerfile", "declares"),
    [
        ("ARG BASE\nFROM ${BASE}\n", True),
        ("arg BASE=swarmkit/base:13\nFROM $BASE\n", True),
        ("ARG BASENAME=x\nFROM scratch\n", False),
        ("# ARG BASE\nFROM scratch\n", False),
    ],
)
def test_a_dockerfile_asks_for_the_base_by_declaring_it(dockerfile: str, declares: bool) -> None:
    assert declares_base(dockerfile) is declares


@pytest.mark.parametrize(
    ("name", "path"),
    [("web/web", "web/web"), ("My_Stack/App.One", "my-stack/app-one"), ("a/_", "a/x"), ("a/--b--c", "a/b-c")],
)
def test_any_name_becomes_a_repository_name(name: str, path: str) -> None:
    assert path_of(name) == path


def test_a_reference_is_by_tag_and_digest() -> None:
    assert str(ImageRef("r:5000/web/web", "abc", "sha256:1")) == "r:5000/web/web:abc@sha256:1"


class FakeEngine(Engine):
    """An engine that gives prepared answers: to paths, and to the next streaming call."""

    def __init__(
        self, answers: dict[str, Any] | None = None, messages: list[dict[str, Any]] | None = None
    ) -> None:
        super().__init__(Mock(docker.APIClient), "m1")
        self.answers = answers or {}
        self.messages = messages or []
        self.asked: list[str] = []

    def get(self, path: str, _params: object = None, *, headers: object = None) -> Any:  # noqa: ARG002
        self.asked.append(path)
        answer = self.answers.get(path, EngineError("no such thing", 404, where="m1"))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def stream(self, _call: object) -> Iterator[Any]:
        self.asked.append("stream")
        yield from self.messages


def test_a_failed_step_is_named_with_the_end_of_its_output(folder: Path) -> None:
    engine = FakeEngine(
        messages=[
            {"stream": "Step 1/2 : FROM scratch"},
            {"stream": "\n"},
            {"stream": " ---> 123\n"},
            {"stream": "Step 2/2 : RUN make"},
            {"stream": "\n"},
            {"stream": "compiling\nfoo.c:1: \x1b[91mno\n"},
            {"error": "The command '/bin/sh -c make' returned a non-zero code: 2"},
        ]
    )
    output: list[str] = []
    with packed(folder) as context, pytest.raises(OperationFailed) as caught:
        build(engine, context, "x:1", {}, what="web/web", where="D", detail=output.append)
    assert str(caught.value) == (
        "D: the image of web/web cannot be built: Step 2/2: RUN make: the command returned a non-zero code: 2"
    )
    assert caught.value.hint.split("\n  ") == ["compiling", "foo.c:1: no"]
    steps = ["web/web: Step 1/2: FROM scratch", "web/web: Step 2/2: RUN make"]
    assert output == [*steps, "compiling", "foo.c:1: no"]


def test_an_image_that_is_not_in_the_registry_differs_from_a_registry_that_does_not_answer() -> None:
    path = "/distribution/r/x:1/json"
    for said in ("manifest unknown: manifest unknown", "name unknown: repository name not known to registry"):
        assert registry_digest(FakeEngine({path: EngineError(said, 404)}), "r/x:1") is None
    with pytest.raises(EngineError, match="the cluster's registry does not answer: dial tcp") as caught:
        registry_digest(FakeEngine({path: EngineError("dial tcp: refused", 500, where="m1")}), "r/x:1")
    assert caught.value.where == "m1"
    assert registry_digest(FakeEngine({path: {"Descriptor": {"digest": "sha256:1"}}}), "r/x:1") == "sha256:1"


def test_an_image_that_is_there_is_not_pulled() -> None:
    engine = FakeEngine({"/images/r:5000/web/web@sha256:1/json": {"Id": "sha256:2"}})
    assert pull(engine, "r:5000/web/web:abc@sha256:1") is False
    assert "stream" not in engine.asked


def test_an_image_is_pulled_and_a_failure_says_why() -> None:
    assert pull(FakeEngine(messages=[{"status": "Pulling"}]), "r:5000/web/web@sha256:1") is True
    with pytest.raises(OperationFailed, match=r"web/web@sha256:1 cannot be pulled: no space") as caught:
        pull(FakeEngine(messages=[{"error": "no space left on device"}]), "r:5000/web/web@sha256:1")
    assert caught.value.where == "m1"


class FakeShell:
    """A shell whose script does `then`."""

    name = "m1"

    def __init__(self, then: Finished) -> None:
        self.then = then
        self.scripts: list[str] = []
        self.timeout = 0.0

    def run(self, script: str, timeout: float = 600) -> Finished:
        self.scripts.append(script)
        self.timeout = timeout
        return self.then


def test_the_base_is_made_only_where_it_is_missing() -> None:
    shell = FakeShell(Finished("m1", "", "", 0))
    there = FakeEngine({"/images/swarmkit/base:13/json": {"Id": "sha256:1"}})
    assert ensure_base(there, shell).id == "sha256:1"
    assert (len(there.asked), shell.scripts) == (1, [])
    with pytest.raises(OperationFailed, match="still missing"):
        ensure_base(FakeEngine(), shell)
    assert "debootstrap" in shell.scripts[0]
    assert shell.timeout >= 600, "debootstrap is silent for minutes"


def test_a_base_that_cannot_be_made_says_why() -> None:
    shell = FakeShell(Finished("m1", "", "base image: no registry answers\n", 1))
    with pytest.raises(OperationFailed) as caught:
        ensure_base(FakeEngine(), shell)
    assert (caught.value.where, caught.value.hint) == ("m1", "base image: no registry answers")


def test_the_registrys_spec_is_marked_by_its_hash() -> None:
    def mark(spec: dict[str, Any]) -> str:
        task = spec["TaskTemplate"]["ContainerSpec"]["Labels"]
        assert task[SPEC_LABEL] == spec["Labels"][SPEC_LABEL]
        return str(task[SPEC_LABEL])

    same = {mark(service_spec("node", "image", "ca")) for _ in range(2)}
    others = {
        mark(service_spec(*each))
        for each in (("n", "image", "ca"), ("node", "i", "ca"), ("node", "image", "c"))
    }
    assert len(same) == 1
    assert len(same | others) == 4


def test_the_registry_publishes_its_port_on_its_node_and_never_in_the_mesh() -> None:
    spec = service_spec("node", "image", "ca")
    assert [port["PublishMode"] for port in spec["EndpointSpec"]["Ports"]] == ["host"]
    assert spec["TaskTemplate"]["Placement"]["Constraints"] == ["node.id==node"]
    binds = [mount for mount in spec["TaskTemplate"]["ContainerSpec"]["Mounts"] if mount["Type"] == "bind"]
    assert all(mount["ReadOnly"] for mount in binds)
