"""Images on a real engine: the registry behind its certificates, building, pushing, pulling.

The engine of this machine becomes a swarm of one node where it is in none, and the machine a node of a
cluster of its own; both end with the tests.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from swarmkit.errors import NotConverged, OperationFailed, SwarmkitError, Unreachable
from swarmkit.images import CA_DIR, CERTS_DIR, REGISTRY_DIR, REGISTRY_NAME, REGISTRY_PORT
from swarmkit.images.base import image_id
from swarmkit.images.build import ImageRef, build_and_push, find_built
from swarmkit.images.distribute import pull
from swarmkit.images.registry import SERVICE, VOLUME, ensure_registry
from swarmkit.images.trust import FACTS, REMOVE, TrustFacts, apply_trust, plan_trust
from swarmkit.inventory import Host, Role
from swarmkit.remote import Engine, EngineError, Finished, Outcomes

# One machine has one registry: these tests are one worker's.
pytestmark = pytest.mark.xdist_group("the machine's own engine")


class LocalShell:
    """This machine's root shell, used as a Connection is."""

    name = "here"

    def run(self, script: str, timeout: float = 600) -> Finished:
        done = subprocess.run(
            ["sh", "-s"],
            input=f"main() {{\n{script}\n}}\nmain </dev/null\nexit $?\n",
            text=True,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        return Finished(self.name, done.stdout, done.stderr, done.returncode)


def one_by_one(work: Callable[[Host], str], hosts: Sequence[Host]) -> Outcomes[str]:
    return Outcomes({host.name: work(host) for host in hosts})


@dataclass
class Cluster:
    """A cluster of this machine alone, as far as images go."""

    engine: Engine
    shell: LocalShell
    host: Host
    said: list[str] = field(default_factory=list)

    def facts(self) -> TrustFacts:
        lines = self.shell.run(f"set -eu\n{FACTS}").checked("asking").splitlines()
        return TrustFacts.parse(dict(line.split("=", 1) for line in lines))

    def set_up(self) -> tuple[int, bool]:
        """What `init` does: the number of trust actions, and whether the registry was changed."""
        host = self.host
        plan = plan_trust([host], {host.name: self.facts()}, host.name, host.private_address)
        authority = apply_trust(
            plan, [host], lambda _host, script: self.shell.run(script).checked("trust"), one_by_one
        )
        node = self.engine.get("/info")["Swarm"]["NodeID"]
        return len(plan.actions), ensure_registry(self.engine, self.shell, node, authority)

    def build(self, folder: Path, name: str = "test/App", dockerfile: str = "Dockerfile") -> ImageRef:
        self.said.clear()
        said = self.said.append
        return build_and_push(self.engine, self.shell, name, folder, dockerfile, say=said, detail=said)

    def forget(self, image: ImageRef) -> None:
        """Remove an image from the engine, not from the registry."""
        for reference in (f"{image.repository}:{image.tag}", f"{image.repository}@{image.digest}"):
            with suppress(EngineError):
                self.engine.delete(f"/images/{reference}", {"force": True})

    def tear_down(self) -> None:
        with suppress(EngineError):
            self.engine.delete(f"/services/{SERVICE}")
        filters = json.dumps({"label": [f"com.docker.swarm.service.name={SERVICE}"]})
        deadline = time.monotonic() + 30
        while self.engine.get("/containers/json", {"all": True, "filters": filters}):
            assert time.monotonic() < deadline, "the registry's container does not end"
            time.sleep(0.2)
        with suppress(EngineError):
            self.engine.delete(f"/volumes/{VOLUME}", {"force": True})
        self.shell.run(REMOVE).checked("removing")
        filters = json.dumps({"label": ["swarmkit.image=test/App"]})
        for image in self.engine.get("/images/json", {"filters": filters}):
            self.engine.delete(f"/images/{image['Id']}", {"force": True})


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    if os.geteuid() != 0:
        pytest.skip("only root may write below /etc/docker")
    try:
        found = Engine.at("unix:///var/run/docker.sock")
    except Unreachable as error:
        pytest.skip(str(error))
    yield found
    found.close()


@pytest.fixture(scope="module")
def cluster(engine: Engine) -> Iterator[Cluster]:
    # Any address but the loopback, where the engine would show no certificates.
    address = subprocess.run(["hostname", "-I"], text=True, capture_output=True, check=True).stdout.split()[0]
    host = Host("here", address, "root", role=Role.MANAGER, private_address=address)
    made = Cluster(engine, LocalShell(), host)
    if made.facts() != TrustFacts():
        pytest.skip("this machine is a node of a cluster already")
    with ExitStack() as afterwards:
        if engine.get("/info")["Swarm"]["LocalNodeState"] == "inactive":
            engine.post("/swarm/init", {"ListenAddr": "127.0.0.1:2377", "AdvertiseAddr": "127.0.0.1"})
            afterwards.callback(engine.post, "/swarm/leave", None, {"force": True})
        afterwards.callback(made.tear_down)
        assert made.set_up() == (4, True)
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text(
        "ARG BASE\nFROM ${BASE}\nRUN echo one && echo two\nCOPY hello.txt /\n"
    )
    (tmp_path / "hello.txt").write_text(f"hello {time.time_ns()}\n")
    return tmp_path


def ask(cluster: Cluster, with_certificate: bool) -> int:
    """The status of a request to the registry's root."""
    context = ssl.create_default_context(cafile=f"{CERTS_DIR}/ca.crt")
    if with_certificate:
        context.load_cert_chain(f"{CERTS_DIR}/client.cert", f"{CERTS_DIR}/client.key")
    connection = HTTPSConnection(REGISTRY_NAME, REGISTRY_PORT, context=context, timeout=10)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status
    finally:
        connection.close()


def test_set_up_again_there_is_nothing_to_do(cluster: Cluster) -> None:
    assert cluster.set_up() == (0, False)


def test_the_registry_answers_those_with_a_certificate_only(cluster: Cluster) -> None:
    assert ask(cluster, with_certificate=True) == 200
    with pytest.raises((ssl.SSLError, ConnectionError)):
        ask(cluster, with_certificate=False)


def test_the_registry_runs_without_rights_and_without_a_word_when_healthy(cluster: Cluster) -> None:
    filters = json.dumps({"label": [f"com.docker.swarm.service.name={SERVICE}"]})
    (container,) = cluster.engine.get("/containers/json", {"filters": filters})
    found = cluster.engine.get(f"/containers/{container['Id']}/json")
    assert found["State"]["Health"]["Status"] == "healthy"
    assert found["Config"]["User"] == "65520:65520"
    assert found["HostConfig"]["ReadonlyRootfs"] is True
    logs = b"".join(
        cluster.engine.stream(
            lambda api: api.logs(container["Id"], stdout=True, stderr=True, stream=True, follow=False)
        )
    )
    assert b"127.0.0.1" not in logs, "the health check is logged"


def test_an_image_is_built_pushed_and_pulled_by_digest(cluster: Cluster, folder: Path) -> None:
    image = cluster.build(folder)
    reference = str(image)
    assert reference.startswith(f"{REGISTRY_NAME}:{REGISTRY_PORT}/test/app:")
    assert "test/App: Step 3/5: RUN echo one && echo two" in cluster.said
    assert pull(cluster.engine, reference) is False, "who built it has it"
    cluster.forget(image)
    assert image_id(cluster.engine, reference) is None
    assert pull(cluster.engine, reference) is True
    assert image_id(cluster.engine, reference)


def test_an_unchanged_context_is_not_built_again(cluster: Cluster, folder: Path) -> None:
    assert find_built(cluster.engine, "test/App", folder) is None
    first = cluster.build(folder)
    os.utime(folder / "hello.txt", (1, 1))
    cluster.forget(first)
    assert find_built(cluster.engine, "test/App", folder) == first
    assert cluster.build(folder) == first
    assert cluster.said == ["test/App: unchanged"]


def test_a_changed_context_is_built_again(cluster: Cluster, folder: Path) -> None:
    first = cluster.build(folder)
    (folder / "hello.txt").write_text("other\n")
    second = cluster.build(folder)
    assert (first.tag, first.digest) != (second.tag, second.digest)
    assert "test/App: pushing" in cluster.said


@pytest.mark.parametrize(
    ("recipe", "message", "hint"),
    [
        (
            "RUN (echo going; echo wrong) >&2 && exit 3",
            "Step 3/4: RUN (echo going; echo wrong) >&2 && exit 3: the command returned a non-zero code: 3",
            "going\n  wrong",
        ),
        ("NONSENSE x", "dockerfile parse error line 3: unknown instruction: NONSENSE", ""),
        ("RUN --mount=type=cache,target=/c true", "the --mount option requires BuildKit", "without BuildKit"),
        ("COPY nothing /", "nothing", ""),
    ],
)
def test_a_broken_dockerfile_is_a_clear_error(
    recipe: str, message: str, hint: str, cluster: Cluster, folder: Path
) -> None:
    (folder / "Dockerfile").write_text(f"ARG BASE\nFROM ${{BASE}}\n{recipe}\n")
    with pytest.raises(OperationFailed) as caught:
        cluster.build(folder)
    assert caught.value.where == str(folder / "Dockerfile")
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_an_image_that_is_nowhere_is_a_clear_error(cluster: Cluster) -> None:
    reference = f"{REGISTRY_NAME}:{REGISTRY_PORT}/test/nothing@sha256:{'0' * 64}"
    with pytest.raises(SwarmkitError, match="test/nothing"):
        pull(cluster.engine, reference)


def test_a_lost_authority_is_replaced_and_the_registry_follows(cluster: Cluster, folder: Path) -> None:
    image = cluster.build(folder)
    (Path(CA_DIR) / "ca.key").unlink()
    assert cluster.set_up() == (3, True)
    assert ask(cluster, with_certificate=True) == 200
    assert cluster.build(folder) == image, "the images outlive the certificates"


def test_a_registry_that_cannot_be_reached_is_a_clear_error(cluster: Cluster, folder: Path) -> None:
    held = Path(CERTS_DIR, "client.cert").rename(Path(CERTS_DIR, "client.held"))
    try:
        with pytest.raises(EngineError, match="registry does not answer") as caught:
            cluster.build(folder)
        assert "swarmkit init" in caught.value.hint
    finally:
        held.rename(Path(CERTS_DIR, "client.cert"))


def test_a_registry_that_cannot_be_used_says_why(cluster: Cluster) -> None:
    certificate = Path(REGISTRY_DIR, "server.crt")
    held = certificate.rename(Path(REGISTRY_DIR, "server.held"))
    node = cluster.engine.get("/info")["Swarm"]["NodeID"]
    try:
        with pytest.raises(NotConverged, match="bind source path does not exist") as caught:
            ensure_registry(cluster.engine, cluster.shell, node, "another authority", timeout=8)
        assert "docker service ps" in caught.value.hint
    finally:
        held.rename(certificate)
    assert cluster.set_up() == (0, True)
