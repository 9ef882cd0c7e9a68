"""The proxy's real image with a small controller: configurations taken, refused and replaced under load."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import docker
import pytest
from aiohttp import web
from docker.models.containers import Container

from nginx.agent import CONTROLLER_NAME
from swarmkit.balancer.status import QUESTION, ProxyStatus, Status, lack
from swarmkit.errors import OperationFailed
from swarmkit.images.base import ensure_base
from swarmkit.images.ca import Authority
from swarmkit.inventory import load
from swarmkit.remote import Engine, Fleet
from swarmkit.resources import folder
from swarmkit.services.exec import output
from swarmkit.waiting import wait_for

IMAGE = "swarmkit/test-proxy"
SOCKET = "unix:///var/run/docker.sock"
AGENT = "/usr/local/lib/swarmkit/agent.py"
# How long anything but a build may take on a busy machine.
SECONDS = 20.0
AUTHORITY = Authority.make()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self.kept: list[socket.socket] = []
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.kept.append(request)
        super().process_request(request, client_address)

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        """Nothing: connections are broken on purpose."""


class Controller:
    """Gives one bundle to whoever has another, over TLS with certificates both ways."""

    def __init__(self, files: Path) -> None:
        self.port = 0
        self.questions: list[dict[str, str]] = []
        self._files = files
        self._bundle: dict[str, Any] = {"revision": ""}
        self._changed = threading.Condition()
        self._server: _Server | None = None

    def give(self, bundle: dict[str, Any]) -> None:
        with self._changed:
            self._bundle = bundle
            self._changed.notify_all()

    def start(self) -> None:
        controller = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                found = controller._answer(dict(parse_qsl(urlsplit(self.path).query)))
                body = b"" if found is None else json.dumps(found).encode()
                self.send_response(204 if found is None else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        issued = AUTHORITY.issue_server([CONTROLLER_NAME])
        own, ca = self._files / "server.pem", self._files / "ca.pem"
        own.write_text(issued.certificate + issued.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(own)
        context.load_verify_locations(ca)
        context.verify_mode = ssl.CERT_REQUIRED
        server = _Server(("", self.port), Handler)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        self.port = server.server_address[1]
        self._server = server
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Be gone: no answer, and no connection left."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            for connection in server.kept:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    @property
    def _last(self) -> dict[str, str]:
        return self.questions[-1] if self.questions else {}

    def wait_for_have(self, revision: str) -> None:
        """Until the proxy says that it uses the revision."""
        with self._changed:
            found = self._changed.wait_for(lambda: self._last.get("have") == revision, SECONDS)
        assert found, f"{revision} is not in use"

    def _answer(self, question: dict[str, str]) -> dict[str, Any] | None:
        with self._changed:
            self.questions.append(question)
            self._changed.notify_all()

            def is_news() -> bool:
                revision = self._bundle["revision"]
                return bool(revision) and revision not in (question.get("have"), question.get("refused"))

            return self._bundle if self._changed.wait_for(is_news, 2) else None


class Application:
    """What the proxy sends to, on this machine: `/slow` takes 2 s."""

    def __init__(self) -> None:
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(SECONDS)

    async def _start(self) -> None:
        async def answer(request: web.BaseRequest) -> web.Response:
            if request.path == "/slow":
                await asyncio.sleep(2)
            return web.Response(text="served")

        runner = web.ServerRunner(web.Server(answer, access_log=None))
        await runner.setup()
        site = web.TCPSite(runner, "0.0.0.0", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        self._runner = runner

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SECONDS)
        self._loop.close()


def nginx_conf(name: str, upstream: str) -> str:
    """A configuration that says its own name at /name, and sends the rest to an upstream."""
    return f"""
pid /run/swarmkit/nginx.pid;
error_log /dev/stderr warn;
worker_processes 2;
worker_shutdown_timeout 30s;
events {{ worker_connections 1024; }}
http {{
    client_body_temp_path /run/swarmkit/client_body;
    proxy_temp_path /run/swarmkit/proxy;
    fastcgi_temp_path /run/swarmkit/fastcgi;
    uwsgi_temp_path /run/swarmkit/uwsgi;
    scgi_temp_path /run/swarmkit/scgi;
    log_format swarmkit_metrics
        'web\\t$upstream_addr\\t$status\\t$upstream_status\\t$request_time\\t$upstream_response_time\\t$bytes_sent';
    access_log /run/swarmkit/log/metrics.log swarmkit_metrics buffer=64k flush=1s;
    keepalive_min_timeout 2s;
    upstream web {{ server {upstream}; keepalive 8; }}
    server {{
        listen 8080;
        location / {{ proxy_pass http://web; proxy_http_version 1.1; proxy_set_header Connection ""; }}
        location = /name {{ access_log off; return 200 "{name}"; }}
        location = /file {{
            access_log off;
            auth_basic here;
            auth_basic_user_file auth/users;
            proxy_pass http://web;
        }}
    }}
    server {{ listen unix:/run/swarmkit/stub.sock; access_log off; stub_status; }}
}}
"""


class Site:
    """A proxy in a container, and what it needs around it."""

    def __init__(self, client: docker.DockerClient, container: Container, controller: Controller) -> None:
        self.client = client
        self.container = container
        self.controller = controller
        container.reload()
        settings = container.attrs["NetworkSettings"]
        self.port = int(settings["Ports"]["8080/tcp"][0]["HostPort"])
        self.upstream = ""

    def bundle(self, name: str, *, conf: str = "", seconds: float = 60, **files: str) -> dict[str, Any]:
        """A bundle whose revision is made of `name`, a hexadecimal digit."""
        return {
            "revision": name * 16,
            "nginx": conf or nginx_conf(name, self.upstream),
            "fallback": nginx_conf(f"fallback of {name}", self.upstream),
            "files": files or {"auth/users": "someone:{PLAIN}password"},
            "upstreams": {"web": {self.upstream: "web_web.1 on here"}},
            "fallback_seconds": seconds,
        }

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error)
        finally:
            connection.close()

    def wait_for_name(self, name: str) -> None:
        self.wait_until(lambda: self.get("/name") == (200, name), f"serving {name}")

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        wait_for(condition, SECONDS, lambda: OperationFailed(f"{what}: {self.log}"))

    @property
    def log(self) -> str:
        return str(self.container.logs().decode())

    def run(self, *words: str) -> tuple[int, str]:
        code, output = self.container.exec_run(list(words))
        assert code is not None
        assert isinstance(output, bytes)
        return code, output.decode()

    @property
    def status(self) -> Any:
        code, output = self.run("python3", AGENT, "status")
        assert code == 0, output
        return json.loads(output)


@pytest.fixture(scope="module")
def client(docker_engine: None) -> Iterator[docker.DockerClient]:
    found = docker.from_env(timeout=300)
    yield found
    found.close()


@pytest.fixture(scope="module")
def image(client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The proxy's image; it is kept, and made again only where what it is made of has changed."""
    here = tmp_path_factory.mktemp("here")
    (here / "inventory.yml").write_text("managers: [{name: here, address: 192.0.2.5, connection: local}]\n")
    with Fleet(load(here / "inventory.yml")) as fleet:
        (host,) = fleet.inventory.hosts
        base = ensure_base(fleet.engine(host), fleet.connection(host))
    arguments = {"BASE": base.tag}
    client.images.build(path=str(folder("nginx")), tag=IMAGE, buildargs=arguments, network_mode="host")
    return IMAGE


@pytest.fixture(scope="module")
def application() -> Iterator[Application]:
    found = Application()
    yield found
    found.stop()


@contextmanager
def a_site(client: docker.DockerClient, image: str, application: Application, files: Path) -> Iterator[Site]:
    gateway = client.networks.get("bridge").attrs["IPAM"]["Config"][0]["Gateway"]
    identity = AUTHORITY.issue_client("swarmkit-lb-proxy")
    (files / "ca.pem").write_text(AUTHORITY.certificate)
    (files / "identity.pem").write_text(identity.certificate + identity.key)
    for file in files.iterdir():
        file.chmod(0o644)
    files.chmod(0o755)
    with ExitStack() as stack:
        controller = Controller(files)
        controller.start()
        stack.callback(controller.stop)
        container = client.containers.run(
            image,
            detach=True,
            read_only=True,
            cap_drop=["ALL"],
            tmpfs={"/run/swarmkit": "mode=0700,uid=33,gid=33"},
            volumes={str(files): {"bind": "/run/secrets", "mode": "ro"}},
            ports={"8080/tcp": ("127.0.0.1", 0)},
            environment={
                "SWARMKIT_CONTROLLER": f"{gateway}:{controller.port}",
                "SWARMKIT_NODE": "here",
                "SWARMKIT_CA": "/run/secrets/ca.pem",
                "SWARMKIT_IDENTITY": "/run/secrets/identity.pem",
            },
        )
        stack.callback(container.remove, force=True, v=True)
        site = Site(client, container, controller)
        site.upstream = f"{gateway}:{application.port}"
        yield site


@pytest.fixture
def site(client: docker.DockerClient, image: str, application: Application, tmp_path: Path) -> Iterator[Site]:
    with a_site(client, image, application, tmp_path) as found:
        yield found


def test_a_bundle_is_served_and_a_broken_one_is_refused_and_reported(site: Site) -> None:
    site.wait_until(lambda: site.get("/")[0] == 503, "the built-in configuration")
    assert "no configuration yet" in site.get("/")[1]
    assert site.run("python3", AGENT, "health")[0] == 1

    site.controller.give(site.bundle("a"))
    site.wait_for_name("a")
    assert site.get("/") == (200, "served")
    assert site.get("/file")[0] == 401
    site.wait_until(lambda: site.run("python3", AGENT, "health")[0] == 0, "health")
    assert site.run("stat", "-c", "%a", "/run/swarmkit/current/auth/users")[1].strip() == "600"

    site.controller.give(site.bundle("b", conf="events {} http { nonsense; }"))
    site.wait_until(lambda: any("refused" in one for one in site.controller.questions), "the report")
    report = next(one for one in site.controller.questions if "refused" in one)
    assert report["have"] == "a" * 16
    assert report["refused"] == "b" * 16
    assert 'unknown directive "nonsense"' in report["error"]
    assert site.get("/name") == (200, "a")
    status = site.status
    assert status["revision"] == "a" * 16
    assert status["refused"]["revision"] == "b" * 16

    outside = {"../outside": "x"}
    site.controller.give({**site.bundle("c"), "files": outside})
    site.wait_until(lambda: site.controller.questions[-1].get("refused") == "c" * 16, "the next report")
    assert "not allowed" in site.controller.questions[-1]["error"]
    assert site.get("/name") == (200, "a")

    site.controller.give(site.bundle("d"))
    site.wait_for_name("d")
    site.wait_until(lambda: site.status["refused"] is None, "the refusal is over")
    listed = set(site.run("ls", "/run/swarmkit")[1].split())
    assert {name for name in listed if len(name) == 16} == {"d" * 16}


def test_without_a_controller_the_fallback_is_in_force_until_one_is_back(site: Site) -> None:
    site.controller.give(site.bundle("a", seconds=1))
    site.wait_for_name("a")
    site.controller.stop()
    site.wait_for_name("fallback of a")
    assert site.status["fallback"] is True
    assert site.status["controller"]["error"]
    site.controller.start()
    site.wait_for_name("a")
    site.wait_until(lambda: site.status["fallback"] is False, "the fallback is over")


def test_a_stopped_proxy_answers_its_open_requests_first(site: Site) -> None:
    site.controller.give(site.bundle("a"))
    site.wait_for_name("a")
    answers: list[tuple[int, str]] = []
    asked = threading.Thread(target=lambda: answers.append(site.get("/slow")))
    asked.start()
    site.wait_until(lambda: sum(site.status["in_flight"].values()) == 1, "the request is under way")
    site.container.stop(timeout=int(SECONDS))
    asked.join(SECONDS)
    assert answers == [(200, "served")]
    site.container.reload()
    assert site.container.attrs["State"]["ExitCode"] == 0


def test_no_request_is_lost_over_32_reloads_and_all_are_counted(site: Site) -> None:
    site.controller.give(site.bundle("0"))
    # For a moment, old workers and new ones take connections.
    site.controller.wait_for_have("0" * 16)
    counts = asyncio.run(under_load(site))
    assert counts == {"200": sum(counts.values())}
    assert site.status["reloads"] >= 33
    site.wait_until(
        lambda: site.status["routes"]["web"]["requests"] >= sum(counts.values()), "all requests are counted"
    )
    route = site.status["routes"]["web"]
    assert route["requests"] == sum(counts.values())
    assert (route["errors"], route["upstream_errors"]) == (0, 0)
    assert list(route["upstreams"]) == [site.upstream]
    assert sum(route["seconds"]["buckets"].values()) == route["requests"]
    assert site.status["malformed_lines"] == 0


def test_lb_status_reads_what_the_agent_says(site: Site) -> None:
    site.controller.give(site.bundle("a"))
    site.wait_for_name("a")
    for _ in range(5):
        assert site.get("/") == (200, "served")
    engine = Engine.at(SOCKET)

    def read() -> ProxyStatus:
        return ProxyStatus.of("here", json.loads(output(engine, str(site.container.id), QUESTION)))

    try:
        site.wait_until(lambda: Status([read()]).longest("web") is not None, "the requests are counted")
        found = read()
    finally:
        engine.close()
    assert Status([found]).is_in_step(found)
    assert lack(found, {"web": {site.upstream}}) == ""
    assert found.routes["web"].requests == 5
    assert found.routes["web"].upstreams[site.upstream].task == "web_web.1 on here"
    assert found.silence is not None
    assert found.silence < SECONDS


RELOADS = 32
CLIENTS = 8
MOST_REQUESTS = 8000


async def under_load(site: Site) -> dict[str, int]:
    """Requests over connections that are kept, while configurations come one after the other; how many had
    which outcome.
    """
    outcomes: dict[str, int] = {}
    is_over = asyncio.Event()

    def note(outcome: str) -> None:
        outcomes[outcome] = outcomes.get(outcome, 0) + 1

    async def ask() -> None:
        kept: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not is_over.is_set() and sum(outcomes.values()) < MOST_REQUESTS:
            try:
                reader, writer = kept or await asyncio.open_connection("127.0.0.1", site.port)
                writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), SECONDS)
                length = int(head.lower().partition(b"content-length:")[2].split()[0])
                await reader.readexactly(length)
                kept = (reader, writer)
                if b"Connection: close" in head:
                    writer.close()
                    await writer.wait_closed()
                    kept = None
                note(head.split()[1].decode())
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                note(type(error).__name__)
                kept = None
            await asyncio.sleep(0.005)
        if kept:
            kept[1].close()
            await kept[1].wait_closed()

    async def replace() -> None:
        for number in range(1, RELOADS + 1):
            revision = f"{number:016x}"
            site.controller.give({**site.bundle("1"), "revision": revision})
            await asyncio.to_thread(site.controller.wait_for_have, revision)
        is_over.set()

    await asyncio.gather(replace(), *(ask() for _ in range(CLIENTS)))
    return outcomes
