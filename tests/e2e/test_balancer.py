"""The balancer on real nodes: it comes with the first route, and follows the swarm whoever changes it."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from swarmkit.errors import SwarmkitError
from swarmkit.images.ca import self_signed
from tests.conftest import Swarmkit, eventually
from tests.e2e.conftest import Lab

CONTROLLER, PROXY = "swarmkit-lb_controller", "swarmkit-lb_proxy"
# Asks the controller as whoever runs it would, with a certificate or without; prints what came of it.
ASK = """
import http.client, socket, ssl, sys
host, certificate = sys.argv[1], sys.argv[2]
context = ssl.create_default_context(cafile="/run/secrets/swarmkit-lb-ca.pem")
if certificate:
    context.load_cert_chain(certificate)
plain = socket.create_connection((host, 9443), 3)
try:
    connection = http.client.HTTPConnection(host)
    connection.sock = context.wrap_socket(plain, server_hostname="controller.swarmkit.internal")
    connection.request("GET", "/v1/bundle?node=test&have=")
    print(connection.getresponse().status)
except OSError:
    # An alert, or the connection's end.
    print("refused")
"""


@pytest.fixture(scope="module")
def lab(machines: Callable[[int], Lab]) -> Iterator[Lab]:
    """Three nodes, with the web stack behind the balancer."""
    found = machines(3)
    found.swarmkit("init")
    found.swarmkit("stack", "up", "web")
    yield found
    found.swarmkit("stack", "down", "web")
    assert [one["name"] for one in found.swarmkit.json("service", "ls")] == ["swarmkit_registry"]
    assert not found.shell("m1", "docker secret ls -q").strip()
    found.swarmkit("reset")


@pytest.fixture
def sk(lab: Lab) -> Swarmkit:
    return lab.swarmkit


def get(url: str, host: str = "", seconds: float = 10) -> tuple[int, str]:
    request = urllib.request.Request(url, headers={"Host": host} if host else {})
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def answering(lab: Lab) -> set[str]:
    """The tasks that answer, each asked often enough to be heard of."""
    return {json.loads(get(f"{lab.url}/whoami")[1])["task"] for _ in range(30)}


def so_many_answer(lab: Lab, count: int) -> bool:
    return len(answering(lab)) == count


def task_ids(lab: Lab, service: str) -> set[str]:
    listed = lab.shell("m1", f"docker service ps -q --no-trunc -f desired-state=running {service}")
    return {*listed.split()}


def container(lab: Lab, service: str, node: str = "m1") -> str:
    return lab.shell(node, f"docker ps -q --no-trunc -f name={service}").split()[0]


def controller_status(lab: Lab) -> Any:
    command = "python3 -m swarmkit.balancer.controller status"
    return json.loads(lab.shell("m1", f"docker exec {container(lab, CONTROLLER)} {command}"))


@contextmanager
def requests(lab: Lab) -> Iterator[Counter[str]]:
    """Requests one after the other, meanwhile; what came of them, by outcome."""
    outcomes: Counter[str] = Counter()
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            try:
                outcomes[str(get(f"{lab.url}/whoami")[0])] += 1
            except OSError as error:
                outcomes[type(error).__name__] += 1
            time.sleep(0.01)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield outcomes
    finally:
        over.set()
        thread.join()


def test_the_first_route_brings_the_balancer_up_and_requests_go_through(lab: Lab, sk: Swarmkit) -> None:
    assert len(answering(lab)) == 3
    names = {one["name"]: one for one in sk.json("service", "ls")}
    assert {CONTROLLER, PROXY} <= names.keys()
    status = controller_status(lab)
    assert status["reading"]["problem"] == ""
    assert status["errors"] == []
    assert status["proxies"]["m1"]["revision"] == status["revision"]


def test_a_second_deployment_changes_nothing(lab: Lab, sk: Swarmkit) -> None:
    before = task_ids(lab, PROXY) | task_ids(lab, CONTROLLER)
    versions = "docker service inspect -f '{{.Version.Index}}' $(docker service ls -q)"
    was = lab.shell("m1", versions)
    assert sk.json("stack", "up", "web")["changed"] == 0
    assert lab.shell("m1", versions) == was
    assert task_ids(lab, PROXY) | task_ids(lab, CONTROLLER) == before


def test_scaling_by_docker_itself_is_followed_without_a_failed_request(lab: Lab) -> None:
    with requests(lab) as outcomes:
        for count in (5, 2, 3):
            lab.shell("m1", f"docker service scale -d web_web={count}")
            eventually(partial(so_many_answer, lab, count), 30, f"{count} tasks answer")
    assert outcomes.keys() == {"200"}, outcomes


def test_a_route_that_comes_or_goes_changes_no_task_of_the_balancer(lab: Lab) -> None:
    before = task_ids(lab, PROXY) | task_ids(lab, CONTROLLER)
    whoami = f"{lab.url}/whoami"

    def update(*options: str) -> None:
        lab.shell("m1", f"docker service update -q --detach {' '.join(options)} web_web")

    more = {"swarmkit.lb.more.port": "80", "swarmkit.lb.more.host": "more.example"}
    update(*(f"--label-add {key}={value}" for key, value in more.items()))
    update("--label-add swarmkit.lb.host=web.example")
    eventually(lambda: get(whoami, "web.example")[0] == 200, 10, "the route by its host is there")
    eventually(lambda: get(whoami, "other.example")[0] == 404, 10, "the route for any host is gone")
    assert get(whoami, "more.example")[0] == 200
    update("--label-rm swarmkit.lb.host", *(f"--label-rm {key}" for key in more))
    eventually(lambda: get(whoami, "other.example")[0] == 200, 10, "the route for any host is there again")
    assert task_ids(lab, PROXY) | task_ids(lab, CONTROLLER) == before


def test_requests_go_on_while_a_controller_is_killed_and_a_new_one_begins(lab: Lab) -> None:
    old = container(lab, CONTROLLER)
    with requests(lab) as outcomes:
        lab.shell("m1", f"docker kill {old}")
        eventually(
            lambda: container_ids(lab) not in ([], [old]) and controller_is_heard(lab), 30, "a new one serves"
        )
        lab.shell("m1", "docker service scale -d web_web=4")
        eventually(partial(so_many_answer, lab, 4), 30, "the new one is followed")
        lab.shell("m1", "docker service scale -d web_web=3")
        eventually(partial(so_many_answer, lab, 3), 30, "the new one is followed")
    assert outcomes.keys() == {"200"}, outcomes


def container_ids(lab: Lab) -> list[str]:
    return lab.shell("m1", f"docker ps -q --no-trunc -f name={CONTROLLER}").split()


def controller_is_heard(lab: Lab) -> bool:
    try:
        status = controller_status(lab)
    except (AssertionError, IndexError, SwarmkitError):
        # It is about to begin.
        return False
    return bool(status["revision"]) and status["proxies"].get("m1", {}).get("revision") == status["revision"]


def test_nobody_but_a_proxy_is_told_anything_by_the_controller(lab: Lab) -> None:
    proxy, controller = container(lab, PROXY), container(lab, CONTROLLER)
    networks = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    (address,) = lab.shell("m1", f"docker inspect -f '{networks}' {controller}").split()

    def ask(host: str, certificate: str) -> str:
        script = f"docker exec -i {proxy} python3 - {host} '{certificate}' <<'END'\n{ASK}\nEND"
        return lab.shell("m1", script).strip()

    assert ask("controller", "/run/secrets/swarmkit-lb-identity.pem") == "200"
    assert ask("controller", "") == "refused"
    # A gateway may take connections to anywhere: who answers is told by the certificate.
    knock = f"timeout 3 openssl s_client -connect {address}:9443 </dev/null 2>/dev/null"
    seen = f"{knock} | grep -q 'subject=CN *= *controller.swarmkit.internal' && echo seen || echo unseen"

    def within(node: str, task: str) -> str:
        return lab.shell(node, f"docker exec -i {task} bash <<'END'\n{seen}\nEND").strip()

    assert within("m1", proxy) == "seen"
    # From the machine itself, and from a task behind the balancer, there is no way.
    assert lab.shell("m1", seen).strip() == "unseen"
    node, task = next(
        (node, found[0])
        for node in lab.nodes
        if (found := lab.shell(node, "docker ps -q -f name=web_web").split())
    )
    assert within(node, task) == "unseen"
    look_up = f"docker exec {task} getent hosts controller || echo unknown"
    assert lab.shell(node, look_up).strip() == "unknown"


def test_the_controller_reads_the_engine_and_can_do_no_more(lab: Lab) -> None:
    script = """
import json, socket
def ask(path, request):
    with socket.socket(socket.AF_UNIX) as found:
        try:
            found.connect(path)
        except PermissionError:
            return "denied"
        found.send(request)
        return found.recv(12).decode()
get, post = (f"{m} /v1.41/nodes HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n".encode() for m in ("GET", "POST"))
engine, filtered = "/var/run/docker.sock", "/run/swarmkit/controller/engine.sock"
print(json.dumps([ask(engine, get), ask(filtered, get), ask(filtered, post)]))
"""
    found = container(lab, CONTROLLER)
    run = f"docker exec -i -u 10001:10001 {found} python3 - <<'END'\n{script}\nEND"
    assert json.loads(lab.shell("m1", run)) == ["denied", "HTTP/1.1 200", "HTTP/1.1 403"]
    users = lab.shell("m1", f"docker top {found} -eo pid,uid,args")
    # A health check may be at it just now.
    own = [line.split() for line in users.splitlines() if "swarmkit.balancer" in line]
    assert [uid for _, uid, *_ in own] == ["0", "10001"]


def test_another_certificate_comes_to_the_proxies_without_a_new_task(
    lab: Lab, sk: Swarmkit, tmp_path: Path
) -> None:
    before = task_ids(lab, PROXY)
    image = lab.shell("m1", "docker service inspect -f '{{.Spec.TaskTemplate.ContainerSpec.Image}}' web_web")
    labels = {"port": "80", "host": "tls.example", "tls": "on", "certificate": "site"}
    document = {
        "services": {
            "site": {
                "image": image.strip(),
                "deploy": {"labels": {f"swarmkit.lb.{key}": value for key, value in labels.items()}},
            }
        },
        "secrets": {"site": {"file": "site.pem"}},
    }
    (tmp_path / "tls.yml").write_text(json.dumps(document))

    def deploy() -> str:
        """Deploy with a new certificate; its text."""
        issued = self_signed("tls.example")
        (tmp_path / "site.pem").write_text(issued.certificate + issued.key)
        sk("stack", "up", str(tmp_path / "tls.yml"), "--name", "tls", "--resolve-image", "never")
        return issued.certificate.strip()

    def shown() -> str:
        client = "openssl s_client -connect 127.0.0.1:8443 -servername tls.example </dev/null"
        return lab.shell("m1", f"{client} 2>/dev/null | openssl x509 2>/dev/null || true").strip()

    first = deploy()
    eventually(lambda: shown() == first, 20, "the route's own certificate")
    with requests(lab) as outcomes:
        second = deploy()
        eventually(lambda: shown() == second, 20, "the newer certificate")
    assert outcomes.keys() == {"200"}, outcomes
    assert task_ids(lab, PROXY) == before
    sk("stack", "down", "tls")
