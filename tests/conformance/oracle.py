"""What the genuine docker client sends for a Compose file, recorded by a server that answers as an engine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

STACK_LABEL = "com.docker.stack.namespace"
ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60
_API_VERSION = "1.51"
_MANAGER = {"Swarm": {"LocalNodeState": "active", "ControlAvailable": True, "NodeID": "n"}, "Name": "m1"}

# Kinds of requests that make something, by the path that they go to.
_MAKES = {
    "/networks/create": "networks",
    "/secrets/create": "secrets",
    "/configs/create": "configs",
    "/services/create": "services",
}
Body = dict[str, Any]
# Kind ("networks", "secrets", …) → name → body.
Bodies = dict[str, dict[str, Body]]


class NoClient(Exception):
    """The client cannot be had on this machine."""


@cache
def client() -> Path:
    """The pinned client, fetched where it is missing. Raises NoClient."""
    done = subprocess.run(
        [ROOT / "scripts" / "ensure-docker-client.sh"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NoClient(done.stderr.strip())
    return Path(done.stdout.strip())


def version() -> str:
    """The client's version, such as `28.5.2`."""
    said = subprocess.run([client(), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"(\d+\.\d+\.\d+)", said)
    assert found, said
    return found[1]


@dataclass(frozen=True)
class Answer:
    """What the client did with a file: the bodies it sent, or why it refused; and all it said."""

    bodies: Bodies
    refused: bool
    said: str


@dataclass
class Oracle:
    """A recording engine on the loopback, and the client that is pointed at it.

    `platforms` and `digest` are what the registry has of every image; without a digest it has none. Use it
    with `with`; `deploy` may be called from many threads at once, each with a stack of its own name.
    """

    digest: str = ""
    platforms: tuple[Mapping[str, str], ...] = ()
    recorded: dict[str, Bodies] = field(default_factory=lambda: defaultdict(lambda: defaultdict(dict)))

    def __enter__(self) -> Oracle:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def deploy(
        self, file: Path, stack: str, environment: Mapping[str, str], *over: Path, resolve: str = "never"
    ) -> Answer:
        """What `docker stack deploy` of `file` as `stack` sends; `environment` is all that it sees.

        The files `over` are laid over it.
        """
        files = [argument for each in (file, *over) for argument in ("-c", str(each))]
        host = f"tcp://127.0.0.1:{self._server.server_address[1]}"
        done = subprocess.run(
            [client(), "stack", "deploy", "--resolve-image", resolve, *files, stack],
            env={"PATH": os.environ["PATH"], **environment, "DOCKER_HOST": host},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        bodies = {kind: dict(sent) for kind, sent in self.recorded.pop(stack, {}).items()}
        return Answer(bodies, done.returncode != 0, done.stderr)


def identity(name: str) -> str:
    """The id that the recording engine gives to a config or secret."""
    return f"id-of-{name}"


def _handler(oracle: Oracle) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(200, None)

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            path = re.sub(r"^/v1\.\d+", "", unquote(url.path))
            if path == "/info":
                self._answer(200, _MANAGER)
            elif path == "/version":
                self._answer(200, {"ApiVersion": _API_VERSION, "Version": "28.5.2"})
            elif path in ("/configs", "/secrets"):
                names = json.loads(parse_qs(url.query).get("filters", ["{}"])[0]).get("name", {})
                self._answer(200, [{"ID": identity(name), "Spec": {"Name": name}} for name in names])
            elif path in ("/services", "/networks"):
                self._answer(200, [])
            elif path.startswith("/networks/"):
                self._answer(200, {"Name": path.removeprefix("/networks/"), "Scope": "swarm"})
            elif path.startswith("/distribution/") and oracle.digest:
                descriptor = {"digest": oracle.digest, "mediaType": "", "size": 1}
                self._answer(200, {"Descriptor": descriptor, "Platforms": oracle.platforms})
            else:
                self._answer(404, {"message": "not found"})

        def do_POST(self) -> None:
            path = re.sub(r"^/v1\.\d+", "", urlsplit(self.path).path)
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
            if kind := _MAKES.get(path):
                oracle.recorded[body["Labels"][STACK_LABEL]][kind][body["Name"]] = body
                self._answer(201, {"ID": identity(body["Name"]), "Id": identity(body["Name"])})
            else:
                self._answer(404, {"message": "not found"})

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the tests say what went wrong."""

        def _answer(self, status: int, body: object) -> None:
            data = b"" if body is None else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Api-Version", _API_VERSION)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return Handler
