"""The configuration in a real nginx, the one of the proxy's image: what it takes, and what it then does.

One container has nginx and the servers behind it (tests/integration/nginxbackend.py); configurations are put
into it one after the other.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import ssl
import struct
import tarfile
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import docker
import pytest
from cryptography import x509
from docker.models.containers import Container
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarmkit.balancer.bundle import Bundle
from swarmkit.balancer.nginx import DEFAULT_CERTIFICATE, configure
from swarmkit.balancer.routes import LABELS
from swarmkit.images.base import ensure_base
from swarmkit.images.ca import self_signed
from swarmkit.inventory import load
from swarmkit.remote import Fleet
from swarmkit.swarm import Node, Service, Task
from tests.conftest import eventually
from tests.unit.builders import node

ROOT = Path(__file__).parents[2]
EDGE = "edge"
PASSWORDS = "me:{PLAIN}open sesame\n".replace(" ", "-")


# Gives nginx a configuration, and waits until the old workers are on their way out.
APPLY = """
cd /run/swarmkit && nginx -t -q -c $PWD/FOLDER/nginx.conf && ln -sfn FOLDER current || exit 1
old=$(grep -la 'nginx: worker proces[s]' /proc/[0-9]*/cmdline)
kill -HUP $(cat nginx.pid)
for one in $old; do
    until grep -qsa 'shutting dow[n]' $one || ! grep -qsa 'worker proces[s]' $one; do sleep 0.02; done
done
"""


def certificate(name: str) -> str:
    """A certificate of its own for a name, and its key, as PEM."""
    issued = self_signed(name)
    return issued.certificate + issued.key


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
        code, output = self.container.exec_run(["sh", "-c", script])
        assert isinstance(output, bytes)
        return code or 0, output.decode()

    def test(self, bundle: Bundle) -> str:
        """What nginx has against a bundle."""
        self.put("tried", bundle)
        code, output = self.sh(
            "cd /run/swarmkit/tried; nginx -t -q -c $PWD/nginx.conf && nginx -t -q -c $PWD/fallback.conf"
        )
        return output if code else ""

    def apply(self, services: Sequence[Service], running: Sequence[Task], fallback: bool = False) -> None:
        """Have nginx serve this (without a controller: the `fallback`), and wait until it does."""
        self.applied += 1
        mark = service("mark", port="1", path=f"/mark-{self.applied}", host="mark.example")
        folder = f"applied-{self.applied}"
        bundle = bundle_of([*services, mark], running)
        self.put(folder, replace(bundle, nginx=bundle.fallback) if fallback else bundle)
        code, output = self.sh(APPLY.replace("FOLDER", folder))
        assert code == 0, output
        # The old workers take no more connections: now it is the new ones that answer.
        assert self.get(f"/mark-{self.applied}", Host="mark.example").status in (502, 503)

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
            return Answer(
                answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
            )
        finally:
            connection.close()

    def get(self, path: str, port: int = 8080, **headers: str) -> Answer:
        return self.send("GET", path, None, port, **headers)

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
    image, _ = client.images.build(
        path=str(context), buildargs={"BASE": base}, tag="swarmkit/test-nginx", rm=True
    )
    # On a network that was made for it the engine's DNS answers, as in a swarm.
    network = client.networks.create(f"swarmkit-test-{os.getpid()}")
    container = client.containers.create(image, network_mode="none")
    found = Proxy(container, "")
    try:
        client.networks.get("none").disconnect(container)
        network.connect(container, aliases=["tasks.web"])
        found.put("applied-0", bundle_of([], []), link="current")
        container.start()
        container.reload()
        found.address = container.attrs["NetworkSettings"]["Networks"][network.name]["IPAddress"]
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
        network.remove()
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


# Names that mean something to nginx, or are like those that the configuration makes.
SPECIAL = ["off", "on", "default", "unix", "localhost", "127", "rate_off", "connections_off", "swarmkit_tls"]
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
        name = draw(st.one_of(st.just(f"st_s{number}"), st.sampled_from(SPECIAL), named))
        services.append(service(name, **labels))
        addresses = [f"127.1.{number}.{at}" for at in range(draw(st.sampled_from([0, 1, 2, 40])))]
        running += tasks(name, *addresses)
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
    takes(proxy, 25)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_many_more_configurations_pass_nginx_own_test(proxy: Proxy) -> None:
    takes(proxy, 1000)


# ---- what nginx then does ---------------------------------------------------------------------------------


A, B, HANGS_UP, REFUSES = "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"


def test_what_nobody_routes_is_not_found(proxy: Proxy) -> None:
    proxy.apply([service("web", port="9000", host="web.example")], tasks("web", A))
    assert proxy.get("/", Host="web.example").json["who"] == A
    for host in ("other.example", "web.example.", "192.0.2.1"):
        found = proxy.get("/", Host=host)
        assert (found.status, found.headers["server"]) == (200 if host == "web.example." else 404, "nginx")
    assert proxy.get("/").text == "no route here\n"


def test_a_route_without_tasks_says_so(proxy: Proxy) -> None:
    proxy.apply([service("web", port="9000")], [])
    found = proxy.get("/a")
    assert (found.status, found.text) == (503, "web cannot be reached: no task runs\n")


def test_requests_go_to_the_closest_host_and_there_to_the_longest_path(proxy: Proxy) -> None:
    services = [
        service("any", port="9000"),
        service("wild", port="9000", host="*.example", path="/app"),
        service("one", port="9000", host="a.example,b.example", path="/app/in"),
        service("two", port="9000", host="b.example", path="/app"),
    ]
    running = [*tasks("any", A), *tasks("wild", B), *tasks("one", HANGS_UP), *tasks("two", A)]
    proxy.apply(services, running)

    def who(host: str, path: str) -> str | int:
        found = proxy.get(path, Host=host)
        return str(found.json["who"]) if found.status == 200 else found.status

    asked = ("/app/in", "/app/in/x?y", "/app/inn", "/app", "/apple", "/")
    assert [who("a.example", path) for path in asked] == [HANGS_UP, HANGS_UP, 404, 404, 404, 404]
    assert [who("B.example:8080", path) for path in asked] == [HANGS_UP, HANGS_UP, A, A, 404, 404]
    assert [who("z.example", path) for path in asked] == [B, B, B, B, 404, 404]
    assert [who("a.test", path) for path in asked] == [A] * 6


def test_a_path_is_taken_off_and_the_rest_arrives_as_it_was_sent(proxy: Proxy) -> None:
    services = [
        service("web", port="9000", path="/my.app", strip="on"),
        service("all", port="9000", path="/kept"),
    ]
    proxy.apply(services, [*tasks("web", A), *tasks("all", A)])
    for sent in ("/a%2Fb%20c/?q=%2F&x=1;2", "/", "//x/../y"):
        assert proxy.get(f"/my.app{sent}").json["uri"] == sent
    assert proxy.get("/my.app/x").passed_on["x-forwarded-prefix"] == "/my.app"
    assert proxy.get("/kept/a%2Fb?c").json["uri"] == "/kept/a%2Fb?c"
    assert "x-forwarded-prefix" not in proxy.get("/kept/x", X_Forwarded_Prefix="/forged").passed_on
    # Links that are relative to the page work behind the slash only.
    bare = proxy.get("/my.app?q=1")
    assert (bare.status, bare.headers["location"]) == (308, "/my.app/?q=1")
    # Another way to write the same path is none that could be taken off safely.
    assert proxy.get("/my%2Eapp/x").status == 404


def test_the_server_behind_learns_who_asked_and_gets_no_header_of_the_hop(proxy: Proxy) -> None:
    proxy.apply([service("web", port="9000")], tasks("web", A))
    got = proxy.get(
        "/",
        Host="web.example:8080",
        X_Real_IP="203.0.113.9",
        X_Forwarded_For="203.0.113.9",
        X_Forwarded_Host="forged",
        X_Forwarded_Proto="https",
        TE="trailers",
        Keep_Alive="timeout=5",
        Proxy_Authorization="Basic x",
        Proxy="http://evil",
        Upgrade="h2c",
        Connection="Upgrade, HTTP2-Settings",
        Authorization="Bearer t",
    ).passed_on
    client = got["x-real-ip"]
    assert client.rsplit(".", 1)[0] == proxy.address.rsplit(".", 1)[0]
    assert {key: value for key, value in got.items() if key.startswith("x-") or key == "host"} == {
        "host": "web.example:8080",
        "x-real-ip": client,
        "x-forwarded-for": f"203.0.113.9, {client}",
        "x-forwarded-proto": "http",
        "x-forwarded-host": "web.example:8080",
        "x-forwarded-port": "8080",
    }
    assert not {"te", "keep-alive", "proxy-authorization", "proxy", "upgrade", "connection"} & set(got)
    assert got["authorization"] == "Bearer t"


@pytest.mark.parametrize(
    ("request_head", "host"),
    [
        (
            b"GET http://web.example:81/ HTTP/1.1\r\nHost: other.example\r\nConnection: close",
            "web.example:81",
        ),
        (b"GET http://web.example/ HTTP/1.1\r\nHost: other.example\r\nConnection: close", "web.example"),
        (b"GET / HTTP/1.0\r\nHost: Web.Example", "web.example"),
        (b"GET / HTTP/1.0", None),
    ],
)
def test_the_server_behind_is_told_the_host_by_which_it_was_found(
    proxy: Proxy, request_head: bytes, host: str | None
) -> None:
    named = service("named", port="9000", host="web.example")
    proxy.apply([named, service("any", port="9000")], [*tasks("named", A), *tasks("any", B)])
    answer = json.loads(raw(proxy, 8080, request_head + b"\r\n\r\n").partition(b"\r\n\r\n")[2])
    got = {key.lower(): value for key, value in answer["headers"]}
    assert answer["who"] == (A if host else B)
    assert got["host"] == got["x-forwarded-host"] == (host or f"{proxy.address}:8080")


def test_a_get_is_tried_elsewhere_and_a_post_never_twice(proxy: Proxy) -> None:
    proxy.apply([service("web", port="9000", balance="round_robin")], tasks("web", HANGS_UP, A))

    answers = [proxy.get("/poison") for _ in range(4)]
    assert [answer.json["who"] for answer in answers] == [A] * 4
    # A server that hung up is left alone for a while: start anew.
    proxy.apply([service("web", port="9000", balance="round_robin")], tasks("web", HANGS_UP))
    before = proxy.get("/").json["seen"]
    assert proxy.send("POST", "/poison", b"once").status == 502
    after = proxy.get("/").json["seen"]
    assert after[HANGS_UP] - before[HANGS_UP] == 2


def test_a_post_that_reached_nobody_goes_elsewhere(proxy: Proxy) -> None:
    proxy.apply([service("web", port="9000", balance="round_robin")], tasks("web", REFUSES, A))
    body = b"x" * 100_000
    answers = [proxy.send("POST", "/", body) for _ in range(6)]
    assert [(answer.json["who"], answer.json["body"]) for answer in answers] == [(A, len(body))] * 6


def test_failures_never_leave_a_route_without_a_server_to_try(proxy: Proxy) -> None:
    proxy.apply([service("web", port="9000")], tasks("web", HANGS_UP, REFUSES))
    assert {proxy.get("/poison").status for _ in range(6)} == {502}
    assert {proxy.get("/well").status for _ in range(6)} == {200}


def test_uploads_stream_and_have_the_limit_of_their_route(proxy: Proxy) -> None:
    services = [service("web", port="9000"), service("small", port="9000", path="/small", body="1k")]
    proxy.apply(services, [*tasks("web", A), *tasks("small", A)])
    assert proxy.send("POST", "/small", b"x" * 1024).json["body"] == 1024
    assert proxy.send("POST", "/small", b"x" * 1025).status == 413
    with socket.create_connection((proxy.address, 8080), 10) as upload:
        upload.sendall(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nbegin")
        # The server behind has the beginning while the rest is still to come.
        assert upload.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_a_client_can_ask_so_often_and_no_more(proxy: Proxy) -> None:
    services = [
        service("web", port="9000", rate="1/m", burst="2"),
        service("few", port="9000", path="/few", connections="1"),
    ]
    proxy.apply(services, [*tasks("web", A), *tasks("few", A)])
    assert [proxy.get("/").status for _ in range(4)] == [200, 200, 200, 429]
    with socket.create_connection((proxy.address, 8080), 10) as waiting:
        waiting.sendall(b"GET /few HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n")
        assert waiting.recv(1000).startswith(b"HTTP/1.1 101 ")
        assert proxy.get("/few").status == 429


def test_a_password_lets_in_and_goes_no_further(proxy: Proxy) -> None:
    # A service of this name is protected all the same: `auth_basic off` would be no protection.
    services = [
        service("off", port="9000", auth="passwords"),
        service("lost", port="9000", path="/lost", auth="missing"),
    ]
    proxy.apply(services, [*tasks("off", A), *tasks("lost", A)])
    asked = proxy.get("/")
    assert (asked.status, asked.headers["www-authenticate"]) == (401, 'Basic realm="service off"')
    login = f"Basic {b64encode(b'me:open-sesame').decode()}"
    assert "authorization" not in proxy.get("/", Authorization=login).passed_on
    wrong = f"Basic {b64encode(b'me:sesame').decode()}"
    assert proxy.get("/", Authorization=wrong).status == 401
    assert proxy.get("/", Upgrade="websocket", Connection="Upgrade").status == 401
    # Without its file a route is closed, not open.
    assert proxy.get("/lost", Authorization=login).status == 503


def test_web_sockets_pass(proxy: Proxy) -> None:
    proxy.apply([service("web", port="9000", path="/ws", strip="on")], tasks("web", A))
    with socket.create_connection((proxy.address, 8080), 10) as opened:
        opened.sendall(b"GET /ws/x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n")
        assert opened.recv(1000).startswith(b"HTTP/1.1 101 ")
        for sent in (b"one", b"two"):
            opened.sendall(sent)
            assert opened.recv(10) == sent


def subject(opened: ssl.SSLSocket) -> str:
    der = opened.getpeercert(binary_form=True)
    assert der is not None
    (name,) = x509.load_der_x509_certificate(der).subject
    return str(name.value)


def test_tls_has_the_certificate_of_the_host_else_the_default(proxy: Proxy) -> None:
    services = [
        service("web", port="9000"),
        service("own", port="9000", host="own.example,*.own.example", certificate="own.pem", tls="redirect"),
        service("off", port="9000", path="/off", tls="off"),
    ]
    proxy.apply(services, [one for name in ("web", "own", "off") for one in tasks(name, A)])
    for host, name in {"own.example": "own", "x.own.example": "own", "any.example": "default"}.items():
        with proxy.tls(8443, host) as opened:
            assert subject(opened) == name
    assert proxy.get("/", port=8443).passed_on["x-forwarded-proto"] == "https"
    moved = proxy.send("POST", "/a?b", b"x", Host="own.example:8080")
    assert (moved.status, moved.headers["location"]) == (308, "https://own.example:8443/a?b")
    assert proxy.get("/a", port=8443, Host="own.example").status == 200
    assert (proxy.get("/off").status, proxy.get("/off", port=8443).json["uri"]) == (200, "/off")


def test_an_entry_port_of_its_own_can_have_tls(proxy: Proxy) -> None:
    services = [
        service("web", port="9000", listen="7000"),
        service("safe", port="9000", listen="7443", tls="redirect", certificate="own.pem"),
    ]
    proxy.apply(services, [*tasks("web", A), *tasks("safe", B)])
    assert proxy.get("/", port=7000).json["who"] == A
    assert proxy.get("/", port=7443).json["who"] == B
    assert proxy.get("/").status == 404
    answer = raw(proxy, 7443, b"GET /x HTTP/1.1\r\nHost: me:7443\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 308 ")
    assert b"\r\nLocation: https://me:7443/x\r\n" in answer


def raw(proxy: Proxy, port: int, request: bytes) -> bytes:
    """All that comes back on a connection."""
    with socket.create_connection((proxy.address, port), 10) as opened:
        opened.sendall(request)
        found = b""
        while data := opened.recv(10_000):
            found += data
        return found


def test_tls_offers_http_2(proxy: Proxy) -> None:
    proxy.apply([service("web", port="9000")], tasks("web", A))
    with proxy.tls(8443, "web.example", "h2", "http/1.1") as opened:
        assert opened.selected_alpn_protocol() == "h2"
        # The preface, no settings, and GET https://web.example/ (RFC 9113; RFC 7541, 6.1 and 6.2).
        head = b"\x82\x87\x84\x41\x0bweb.example"
        opened.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        opened.sendall(struct.pack(">I", len(head))[1:] + b"\1\5\0\0\0\1" + head)
        frames = opened.makefile("rb")
        kind = 0
        while kind != 1:
            size, kind = int.from_bytes(frames.read(3)), frames.read(1)[0]
            payload = frames.read(5 + size)[5:]
        # Index 8 is `:status: 200`; nginx may first say that its table of headers has another size.
        assert b"\x88" in payload[:2]


def test_clients_stay_with_their_server_by_cookie(proxy: Proxy) -> None:
    proxy.apply([service("web", port="9000", sticky="cookie")], tasks("web", A, B))
    first = proxy.get("/")
    cookie = first.headers["set-cookie"].split(";")[0]
    assert cookie.startswith("swarmkit_web=")
    assert {proxy.get("/", Cookie=cookie).json["who"] for _ in range(6)} == {first.json["who"]}
    assert {proxy.get("/").json["who"] for _ in range(6)} == {A, B}
    # Their server has gone.
    (other,) = {A, B} - {first.json["who"]}
    proxy.apply([service("web", port="9000", sticky="cookie")], tasks("web", other))
    assert proxy.get("/", Cookie=cookie).json["who"] == other


def test_clients_stay_with_their_server_by_address(proxy: Proxy) -> None:
    proxy.apply([service("web", port="9000", sticky="ip")], tasks("web", A, B, HANGS_UP))
    assert len({proxy.get("/").json["who"] for _ in range(6)}) == 1


def test_a_canary_gets_its_share(proxy: Proxy) -> None:
    services = [service("web", port="9000"), service("next", canary="web", weight="25")]
    proxy.apply(services, [*tasks("web", A, B), *tasks("next", HANGS_UP)])
    asked = [proxy.get("/").json["who"] for _ in range(40)]
    assert 8 <= asked.count(HANGS_UP) <= 12


def test_plain_tcp_passes(proxy: Proxy) -> None:
    services = [
        service("db", port="9001", mode="tcp", listen="7000", log="json"),
        service("safe", port="9001", mode="tcp", listen="7443", tls="on", certificate="own.pem"),
    ]
    proxy.apply(services, [*tasks("db", A), *tasks("safe", B)])
    with socket.create_connection((proxy.address, 7000), 10) as opened:
        assert opened.recv(100) == f"{A}\n".encode()
        opened.sendall(b"echo")
        assert opened.recv(100) == b"echo"
        # It sends no more, and still gets what is to come.
        opened.sendall(b"last")
        opened.shutdown(socket.SHUT_WR)
        assert (opened.recv(100), opened.recv(100)) == (b"last", b"end\n")
    with proxy.tls(7443, "x") as opened:
        assert (subject(opened), opened.recv(100)) == ("own", f"{B}\n".encode())
    line = json.loads(proxy.logged('"port":"7000"'))
    assert (line["route"], line["upstream"], line["bytes_received"]) == ("db", f"{A}:9001", "8")


def test_security_headers_give_way_to_the_service_s_own(proxy: Proxy) -> None:
    services = [service("web", port="9000"), service("bare", port="9000", path="/bare", headers="off")]
    proxy.apply(services, [*tasks("web", A), *tasks("bare", A)])
    names = ("x-content-type-options", "x-frame-options", "referrer-policy")
    found = proxy.get("/").headers
    assert [found[name] for name in names] == ["nosniff", "SAMEORIGIN", "strict-origin-when-cross-origin"]
    assert proxy.get("/framed").headers["x-frame-options"] == "DENY"
    assert not set(names) & set(proxy.get("/bare").headers)


def test_the_logs_name_client_and_server_and_cannot_be_forged(proxy: Proxy) -> None:
    services = [service("web", port="9000"), service("api", port="9000", path="/api", log="json")]
    proxy.apply(services, [*tasks("web", A), *tasks("api", B)])
    proxy.get("/in-the-log?a=1")
    line = proxy.logged("/in-the-log")
    assert '] "GET /in-the-log?a=1 HTTP/1.1" 200 ' in line
    assert line.endswith(f" to {A}:9000")
    proxy.get("/api/mark", User_Agent='quote " backslash \\ tab \t end')
    found = json.loads(proxy.logged("/api/mark"))
    assert (found["route"], found["upstream"], found["status"]) == ("api", f"{B}:9000", "200")
    assert found["agent"] == 'quote " backslash \\ tab \t end'
    deadline = time.monotonic() + 10
    while "\napi\t" not in (metrics := proxy.sh("cat /run/swarmkit/log/metrics.log")[1]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    last = [line.split("\t") for line in metrics.splitlines() if line.startswith("api\t")][-1]
    assert (last[:4], len(last)) == (["api", f"{B}:9000", "200", "200"], 7)


def test_without_a_controller_dns_tells_where_the_tasks_are(proxy: Proxy) -> None:
    services = [
        service("web", port="9002"),
        service("later", port="9002", path="/later"),
        service("db", port="9002", mode="tcp", listen="7000"),
    ]
    # Where the tasks were when the controller was last heard of does not matter, nor that there were none.
    proxy.apply(services, tasks("web", REFUSES), fallback=True)
    eventually(lambda: proxy.get("/").status == 200, 10, "it asks DNS")
    assert proxy.get("/").json["who"] == "any"
    assert proxy.get("/later").status == 502
