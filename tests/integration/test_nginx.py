"""The configuration in a real nginx, the one of the proxy's image: what it takes, and what it then does.

One container has nginx and the servers behind it (tests/integration/nginxbackend.py); configurations are put
into it one after the other.
"""

from __future__ import annotations

import io
import json
import shutil
import socket
import ssl
import struct
import tarfile
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import docker
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from docker.models.containers import Container
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarmkit.balancer.bundle import Bundle
from swarmkit.balancer.nginx import DEFAULT_CERTIFICATE, configure
from swarmkit.balancer.routes import LABELS
from swarmkit.images.base import ensure_base
from swarmkit.inventory import load
from swarmkit.remote import Fleet
from swarmkit.swarm import Node, Service, Task
from tests.unit.builders import node

ROOT = Path(__file__).parents[2]
EDGE = "edge"
PASSWORDS = "me:{PLAIN}open sesame\n".replace(" ", "-")


def certificate(name: str) -> str:
    """A certificate of its own for a name, and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return (made.public_bytes(pem) + private).decode()


SECRETS: Mapping[str, str] = {
    DEFAULT_CERTIFICATE: certificate("default"),
    "own.pem": certificate("own"),
    "passwords": PASSWORDS,
}


def service(name: str, **labels: str) -> Service:
    found = {f"swarmkit.lb.{key.replace('__', '.')}": value for key, value in labels.items()}
    spec = {"Name": name, "Labels": found, "Mode": {"Replicated": {"Replicas": 1}}, "TaskTemplate": {}}
    return Service.of({"ID": name, "Spec": spec})


def tasks(service: str, *addresses: str) -> list[Task]:
    """Tasks of a service that run at these addresses."""
    return [
        Task.of(
            {
                "ID": f"{service}-{slot}",
                "ServiceID": service,
                "NodeID": "n1",
                "Slot": slot,
                "Status": {"State": "running"},
                "DesiredState": "running",
                "Spec": {},
                "CreatedAt": "2026-01-01T10:00:00Z",
                "NetworksAttachments": [{"Network": {"ID": EDGE}, "Addresses": [f"{address}/24"]}],
            }
        )
        for slot, address in enumerate(addresses, 1)
    ]


def bundle_of(services: Sequence[Service], running: Sequence[Task]) -> Bundle:
    nodes: list[Node] = [node("n1")]
    return configure(services, running, nodes, EDGE, SECRETS).bundle


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def passed_on(self) -> Mapping[str, str]:
        """The headers that the server behind got, by lower-case name."""
        return {key.lower(): value for key, value in self.json["headers"]}


@dataclass
class Proxy:
    """nginx in a container."""

    container: Container
    address: str
    applied: int = 0
    tags: list[str] = field(default_factory=list)

    def put(self, folder: str, bundle: Bundle, link: str = "") -> None:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            files = {"nginx.conf": bundle.nginx, "fallback.conf": bundle.fallback, **bundle.files}
            for path, text in files.items():
                entry = tarfile.TarInfo(f"{folder}/{path}")
                entry.size = len(text.encode())
                entry.mode = 0o644
                archive.addfile(entry, io.BytesIO(text.encode()))
            if link:
                entry = tarfile.TarInfo(link)
                entry.type, entry.linkname = tarfile.SYMTYPE, folder
                archive.addfile(entry)
        assert self.container.put_archive("/run/swarmkit", packed.getvalue())

    def sh(self, script: str) -> tuple[int, str]:
        done = self.container.exec_run(["sh", "-c", script])
        return done.exit_code, done.output.decode()

    def test(self, bundle: Bundle) -> str:
        """What nginx has against a bundle."""
        self.put("tried", bundle)
        code, output = self.sh(
            "cd /run/swarmkit/tried; nginx -t -q -c $PWD/nginx.conf && nginx -t -q -c $PWD/fallback.conf"
        )
        return output if code else ""

    def apply(self, services: Sequence[Service], running: Sequence[Task]) -> None:
        """Have nginx serve this, and wait until it does."""
        self.applied += 1
        mark = service("mark", port="1", path=f"/mark-{self.applied}", host="mark.example")
        folder = f"applied-{self.applied}"
        self.put(folder, bundle_of([*services, mark], running))
        code, output = self.sh(
            f"cd /run/swarmkit; nginx -t -c $PWD/{folder}/nginx.conf && ln -sfn {folder} current"
            " && kill -HUP $(cat nginx.pid)"
        )
        assert code == 0, output
        deadline = time.monotonic() + 10
        while self.get(f"/mark-{self.applied}", Host="mark.example").status != 503:
            assert time.monotonic() < deadline, "nginx does not serve the configuration"
            time.sleep(0.02)

    def send(
        self, method: str, path: str, body: bytes | None = None, port: int = 8080, **headers: str
    ) -> Answer:
        """A request on a connection of its own; `X_Some` stands for the header `X-Some`."""
        connection = HTTPConnection(self.address, port, timeout=10)
        if port in (8443, 7443):
            connection.sock = self.tls(port, headers.get("Host", "any.example"))
        given = {key.replace("_", "-"): value for key, value in headers.items()}
        try:
            connection.request(method, path, body, given)
            answer: HTTPResponse = connection.getresponse()
            return Answer(answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str, port: int = 8080, **headers: str) -> Answer:
        return self.send("GET", path, port=port, **headers)

    def tls(self, port: int, name: str, *protocols: str) -> ssl.SSLSocket:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(list(protocols))
        return context.wrap_socket(socket.create_connection((self.address, port), 10), server_hostname=name)

    def logged(self, mark: str) -> str:
        """The line of the access log that has this in it."""
        deadline = time.monotonic() + 10
        while True:
            for line in self.container.logs(stdout=True, stderr=False).decode().splitlines():
                if mark in line:
                    return line
            assert time.monotonic() < deadline, f"nothing logged of {mark}"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def proxy(docker_engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("here")
    (folder / "inventory.yml").write_text("managers: [{name: here, address: 192.0.2.5, connection: local}]\n")
    with Fleet(load(folder / "inventory.yml")) as fleet:
        (host,) = fleet.inventory.hosts
        base = ensure_base(fleet.engine(host), fleet.connection(host)).tag
    client = docker.from_env()
    context = folder / "context"
    shutil.copytree(ROOT / "nginx", context)
    # nginx alone is tried here.
    (context / "agent.py").write_bytes((ROOT / "tests/integration/nginxbackend.py").read_bytes())
    image, _ = client.images.build(path=str(context), buildargs={"BASE": base}, tag="swarmkit/test-nginx", rm=True)
    container = client.containers.create(image, name="swarmkit-test-nginx", init=False)
    found = Proxy(container, "")
    try:
        found.put("applied-0", bundle_of([], []), link="current")
        container.start()
        container.reload()
        found.address = container.attrs["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
        deadline = time.monotonic() + 10
        while True:
            try:
                assert found.get("/").status == 404
                break
            except OSError:
                assert time.monotonic() < deadline, container.logs().decode()
                time.sleep(0.05)
        yield found
    finally:
        container.remove(force=True)
        client.close()


# ---- what nginx takes -------------------------------------------------------------------------------------

LABEL = "abcdefghijklmnopqrstuvwxyz0123456789-"
HOST_NAMES = st.lists(st.text(LABEL, min_size=1, max_size=63), min_size=1, max_size=8).map(".".join)
VALUES: Mapping[str, st.SearchStrategy[str]] = {
    "port": st.integers(1, 65535).map(str),
    "host": st.lists(
        st.one_of(HOST_NAMES, HOST_NAMES.map("*.{}".format), st.sampled_from(["a.example", "*.example"])),
        min_size=1,
        max_size=3,
    ).map(",".join),
    "path": st.one_of(
        st.sampled_from(["/", "/a", "/a/b"]),
        st.text("abcXYZ019._~-", max_size=199).map("/{}".format),
        st.text("ab._~-/", max_size=20).map("/{}".format),
    ),
    "strip": st.sampled_from(["on", "off"]),
    "listen": st.one_of(st.integers(1, 65535).map(str), st.sampled_from(["9443", "9444"])),
    "mode": st.sampled_from(["http", "tcp"]),
    "balance": st.sampled_from(["least_conn", "round_robin"]),
    "sticky": st.sampled_from(["cookie", "ip"]),
    "body": st.from_regex(r"\A[0-9]{1,6}[kmg]?\Z"),
    "rate": st.from_regex(r"\A[1-9][0-9]{0,5}/[sm]\Z"),
    "burst": st.integers(0, 100_000).map(str),
    "connections": st.integers(1, 65535).map(str),
    "timeout": st.sampled_from(["1s", "90s", "168h", "604800s"]),
    "buffering": st.sampled_from(["on", "off"]),
    "auth": st.sampled_from(["passwords", "missing"]),
    "tls": st.sampled_from(["on", "on", "redirect", "off"]),
    "certificate": st.sampled_from(["own.pem", "missing", "passwords"]),
    "headers": st.sampled_from(["on", "off"]),
    "log": st.just("json"),
}
NASTY = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        [
            "80; } server { listen 81;",
            "a.example; return 200 pwned",
            "/a\nlocation /b { return 200; }",
            '"; load_module /tmp/x.so; #',
            "${request_uri}",
            "$http_host",
            "\\",
            "a" * 10_000,
            "\u202eelpmaxe.a",
            "bücher.example",
            "unix:/run/x",
        ]
    ),
)


# What a label only has a meaning beside.
BESIDE = {"burst": "rate", "strip": "path", "certificate": "tls"}
TCP = {label.name for label in LABELS if label.tcp}


@st.composite
def labels_of_a_route(draw: st.DrawFn) -> dict[str, str]:
    """Labels that are good in themselves, and mostly together."""
    mode = draw(st.sampled_from(["http", "http", "http", "tcp"]))
    keys = draw(st.sets(st.sampled_from(sorted(TCP if mode == "tcp" else VALUES)), max_size=7))
    keys |= {BESIDE[key] for key in keys if key in BESIDE} | {"port"}
    keys |= {"listen"} if mode == "tcp" else set()
    found = {key: draw(VALUES[key]) for key in sorted(keys)}
    return found | ({"mode": mode} if mode == "tcp" or "mode" in found else {})


@st.composite
def swarms(draw: st.DrawFn) -> tuple[list[Service], list[Task]]:
    """Services with labels, most of them good, and some of their tasks."""
    services: list[Service] = []
    running: list[Task] = []
    for number in range(draw(st.integers(2, 10))):
        labels: dict[str, str] = {}
        for prefix in draw(st.sampled_from([[""], ["", "more__"], ["x__"]])):
            labels |= {prefix + key: value for key, value in draw(labels_of_a_route()).items()}
        if draw(st.integers(0, 5)) == 0:
            labels[draw(st.sampled_from(sorted(VALUES)))] = draw(NASTY)
        if number and draw(st.integers(0, 5)) == 0:
            labels |= {"canary": services[0].name, "weight": str(draw(st.integers(0, 100)))}
        named = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_-]{0,62}\Z")
        services.append(service(draw(st.one_of(st.just(f"st_s{number}"), named)), **labels))
        addresses = [f"127.1.{number}.{at}" for at in range(draw(st.sampled_from([0, 1, 2, 40])))]
        running += tasks(services[-1].name, *addresses)
    return services, running


def takes(proxy: Proxy, examples: int) -> None:
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(swarms())
    def tried(swarm: tuple[list[Service], list[Task]]) -> None:
        assert proxy.test(bundle_of(*swarm)) == ""

    tried()


def test_every_configuration_passes_nginx_own_test(proxy: Proxy) -> None:
    assert set(VALUES) == {label.name for label in LABELS}
    takes(proxy, 40)


@pytest.mark.soak
def test_thousands_of_configurations_pass_nginx_own_test(proxy: Proxy) -> None:
    takes(proxy, 3000)


# ---- what nginx then does ---------------------------------------------------------------------------------


def test_what_nobody_routes_is_not_found(proxy: Proxy) -> None:
    proxy.apply([service("web", port="9000", host="web.example")], tasks("web", "127.0.0.1"))
    assert proxy.get("/", Host="web.example").json["who"] == "127.0.0.1"
    missing = proxy.get("/", Host="other.example")
    assert (missing.status, missing.text) == (404, "no route here\n")
    assert "nginx/" not in missing.headers["server"]
