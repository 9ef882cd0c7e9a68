"""The whole configuration: from a swarm to what the proxies get. What nginx does with it is tried elsewhere
(tests/integration/test_nginx.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from swarmkit.balancer.bundle import Bundle
from swarmkit.balancer.nginx import DEFAULT_CERTIFICATE, Configuration, configure
from swarmkit.errors import OperationFailed
from swarmkit.images.ca import self_signed
from swarmkit.swarm import Node, Service, Task
from tests.unit.builders import node

ISSUED = self_signed("web.example")
KEY, CERTIFICATE = ISSUED.key, ISSUED.certificate
SECRETS = {DEFAULT_CERTIFICATE: CERTIFICATE + KEY}


def service(name: str, stack: str = "", **labels: str) -> Service:
    found = {f"swarmkit.lb.{key.replace('__', '.')}": value for key, value in labels.items()}
    found |= {"com.docker.stack.namespace": stack} if stack else {}
    spec = {"Name": name, "Labels": found, "Mode": {"Replicated": {"Replicas": 1}}, "TaskTemplate": {}}
    return Service.of({"ID": name, "Spec": spec})


def tasks(service: str, *addresses: str) -> list[Task]:
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
                "NetworksAttachments": [{"Network": {"ID": "edge"}, "Addresses": [f"{address}/24"]}],
            }
        )
        for slot, address in enumerate(addresses, 1)
    ]


def configured(
    services: Sequence[Service],
    running: Sequence[Task] = (),
    secrets: Mapping[str, str] = SECRETS,
    nodes: Sequence[Node] | None = None,
) -> Configuration:
    return configure(services, running, [node("n1")] if nodes is None else nodes, "edge", secrets)


def servers(text: str, upstream: str) -> list[str]:
    """The `server` lines of an upstream."""
    (block,) = re.findall(rf"upstream {re.escape(upstream)} \{{(.*?)\}}", text, re.DOTALL)
    return [line.strip() for line in block.splitlines() if line.strip().startswith("server ")]


def test_a_route_goes_to_its_tasks_and_the_bundle_says_who_they_are() -> None:
    found = configured([service("web", port="80")], tasks("web", "10.0.1.5", "10.0.1.6"))
    assert found.errors == []
    (state,) = found.routes
    assert (state.route.name, len(state.endpoints), state.unreachable) == ("web", 2, "")
    assert found.bundle.upstreams == {"web": {"10.0.1.5:80": "web.1 on n1", "10.0.1.6:80": "web.2 on n1"}}
    assert servers(found.bundle.nginx, "web") == [
        "server 10.0.1.5:80 weight=1 max_fails=2 fail_timeout=10s;",
        "server 10.0.1.6:80 weight=1 max_fails=2 fail_timeout=10s;",
        "server 10.0.1.5:80 weight=1 max_fails=0 backup;",
        "server 10.0.1.6:80 weight=1 max_fails=0 backup;",
    ]


def test_the_fallback_asks_dns_and_has_routes_that_had_no_task() -> None:
    found = configured(
        [service("web", port="80"), service("late", port="81", path="/l")], tasks("web", "1.2.3.4")
    )
    assert servers(found.bundle.fallback, "web") == ["server tasks.web:80 weight=1 resolve max_fails=0;"]
    assert servers(found.bundle.fallback, "late") == ["server tasks.late:81 weight=1 resolve max_fails=0;"]
    assert "resolver 127.0.0.11 valid=1s ipv6=off;" in found.bundle.fallback
    assert "resolver" not in found.bundle.nginx
    assert "late cannot be reached: no task runs" in found.bundle.nginx


def test_an_address_of_ipv6_is_bracketed() -> None:
    found = configured([service("web", port="80")], tasks("web", "2001:db8::1"))
    assert found.bundle.upstreams == {"web": {"[2001:db8::1]:80": "web.1 on n1"}}


def weights(canary: str, stable: int, new: int) -> dict[str, int]:
    """What each address of a service and of its canary weighs."""
    services = [service("web", port="80"), service("next", canary="web", weight=canary)]
    running = [
        *tasks("web", *(f"10.0.0.{at}" for at in range(stable))),
        *tasks("next", *(f"10.0.1.{at}" for at in range(new))),
    ]
    text = configured(services, running).bundle.nginx
    found = re.findall(r"server (10[0-9.]+):80 weight=(\d+) max_fails=2", text)
    return {address: int(weight) for address, weight in found}


@pytest.mark.parametrize(("percent", "stable", "new"), [(10, 3, 1), (1, 1, 1), (50, 7, 2), (99, 10, 3)])
def test_a_canary_as_a_whole_gets_its_percentage(percent: int, stable: int, new: int) -> None:
    found = weights(str(percent), stable, new)
    canary = sum(weight for address, weight in found.items() if address.startswith("10.0.1."))
    assert len(found) == stable + new
    assert canary * 100 == percent * sum(found.values())


def test_a_share_of_nothing_or_everything_and_a_side_without_tasks() -> None:
    assert set(weights("0", 2, 1)) == {"10.0.0.0", "10.0.0.1"}
    assert set(weights("100", 2, 1)) == {"10.0.1.0"}
    assert set(weights("100", 1, 0)) == {"10.0.0.0"}
    assert set(weights("0", 0, 1)) == {"10.0.1.0"}


def test_the_same_swarm_has_the_same_revision_and_another_one_another() -> None:
    services = [service("a", port="80", path="/a"), service("b", port="81", path="/b")]
    running = [*tasks("a", "10.0.0.1", "10.0.0.2"), *tasks("b", "10.0.0.3")]
    one = configured(services, running).bundle
    other = configured(services[::-1], running[::-1]).bundle
    assert one.revision == other.revision
    assert re.fullmatch("[0-9a-f]{16}", one.revision)
    assert configured(services, running[:-1]).bundle.revision != one.revision


def test_a_bundle_survives_the_wire() -> None:
    bundle = configured([service("web", port="80")], tasks("web", "10.0.0.1")).bundle
    sent = json.dumps({**json.loads(bundle.to_json()), "revision": bundle.revision})
    assert Bundle.from_json(sent) == bundle
    assert "PRIVATE" not in repr(bundle)


@pytest.mark.parametrize(
    ("nodes", "edge", "what"),
    [
        ([], "edge", "the swarm told of no node"),
        ([node("n1")], "", "no network swarmkit-edge"),
    ],
)
def test_a_reading_that_went_wrong_is_no_configuration(nodes: list[Node], edge: str, what: str) -> None:
    with pytest.raises(OperationFailed, match=what):
        configure([service("web", port="80")], [], nodes, edge, SECRETS)


def test_an_empty_swarm_has_a_configuration_that_routes_nothing() -> None:
    found = configured([service("db")])
    assert (found.routes, found.errors) == ([], [])
    assert found.bundle.nginx.count("no route here") == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "is not there: there is no TLS"),
        ("", "has no certificate (PEM): there is no TLS"),
        (CERTIFICATE, "has no private key (PEM) beside its certificate: there is no TLS"),
    ],
)
def test_without_a_default_certificate_there_is_no_tls(content: str | None, reason: str) -> None:
    secrets = {} if content is None else {DEFAULT_CERTIFICATE: content}
    found = configured([service("web", port="80")], tasks("web", "10.0.0.1"), secrets)
    assert [str(error) for error in found.errors] == [f"{DEFAULT_CERTIFICATE}: the secret {reason}"]
    assert "ssl_certificate" not in found.bundle.nginx
    assert "listen 8080 default_server" in found.bundle.nginx


def test_a_port_with_a_certificate_of_its_own_needs_no_default() -> None:
    services = [
        service("web", port="80", listen="7000", tls="on", certificate="pem"),
        service("not", port="80", listen="7001", tls="on"),
    ]
    found = configured(
        services, [*tasks("web", "10.0.0.1"), *tasks("not", "10.0.0.2")], {"pem": CERTIFICATE + KEY}
    )
    assert [state.unreachable for state in found.routes] == ["", "there is no certificate for its port"]
    assert "listen 7000 ssl default_server;" in found.bundle.nginx
    assert "listen 7001" not in found.bundle.nginx


def test_a_route_has_the_newest_version_of_its_stack_s_secret() -> None:
    secrets = {**SECRETS, "st_pem": "old", "st_pem-0123456789": CERTIFICATE + KEY, "pem": "another's"}
    web = service("st_web", "st", port="80", host="web.example", certificate="pem")
    found = configured([web], tasks("st_web", "10.0.0.1"), secrets)
    assert found.errors == []
    assert set(found.bundle.files) == {f"certs/{DEFAULT_CERTIFICATE}", "certs/st_pem-0123456789"}
    assert "ssl_certificate certs/st_pem-0123456789;" in found.bundle.nginx


OTHER_KEY = self_signed("other.example").key
LOCKED = (
    ec.generate_private_key(ec.SECP256R1())
    .private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"passphrase"),
    )
    .decode()
)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("no certificate", "has no certificate (PEM)"),
        (CERTIFICATE + OTHER_KEY, "is no certificate with its key: KEY_VALUES_MISMATCH"),
        (CERTIFICATE.replace("M", "N", 5) + KEY, "is no certificate with its key: "),
        (CERTIFICATE + LOCKED, "has a private key with a passphrase"),
    ],
)
def test_a_certificate_that_nginx_could_not_use_keeps_nobody_else_from_a_change(
    content: str, reason: str
) -> None:
    web = service("web", port="80", host="web.example", certificate="pem")
    found = configured([web], tasks("web", "10.0.0.1"), {**SECRETS, "pem": content})
    (error,) = found.errors
    assert str(error).startswith(f"web: label swarmkit.lb.certificate: the secret pem {reason}")
    # It has the default one then.
    assert list(found.bundle.files) == [f"certs/{DEFAULT_CERTIFICATE}"]
    assert found.routes[0].unreachable == ""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "the secret that it names is not there"),
        ("# nobody\n", "the secret pw is no file of passwords: it names no user"),
        ("me:$6$salt$hash\nme:hunter2\n", "the secret pw is no file of passwords: line 2 is not user:hash"),
    ],
)
def test_a_route_whose_passwords_cannot_be_read_is_closed(content: str | None, reason: str) -> None:
    secrets = dict(SECRETS) if content is None else {**SECRETS, "pw": content}
    found = configured([service("web", port="80", auth="pw")], tasks("web", "10.0.0.1"), secrets)
    (error,) = found.errors
    assert str(error).startswith(f"web: label swarmkit.lb.auth: {reason}")
    assert "hunter2" not in str(error)
    for text in (found.bundle.nginx, found.bundle.fallback):
        assert "web cannot be reached: its file of passwords cannot be used" in text
        assert "proxy_pass" not in text


@pytest.mark.parametrize(
    "line",
    [
        "me:$apr1$s$h",
        "me:$2y$05$hash",
        "me:$y$j9T$s$h",
        "me:{SHA}x=",
        "me:{PLAIN}x",
        "me:rl0uE0EkBd1u2",
        "a b:$6$s$h:note",
    ],
)
def test_the_hashes_that_nginx_knows_are_passwords(line: str) -> None:
    secrets = {**SECRETS, "pw": f"# users\n\n{line}\n"}
    assert configured([service("web", port="80", auth="pw")], tasks("web", "10.0.0.1"), secrets).errors == []


def entry(name: str, cores: float, label: str = "true") -> Node:
    return node(name, cpus=cores, labels={"swarmkit.lb": label})


@pytest.mark.parametrize(
    ("nodes", "workers"),
    [
        ([node("n1", cpus=64)], 2),
        ([entry("n1", 1)], 2),
        ([entry("n1", 64)], 4),
        ([entry("n1", 64), entry("n2", 3), entry("n3", 1, "false")], 3),
    ],
)
def test_workers_are_as_many_as_the_smallest_entry_node_has_cores(nodes: list[Node], workers: int) -> None:
    assert configured([], nodes=nodes).bundle.nginx.startswith(f"worker_processes {workers};\n")


def test_what_a_client_writes_into_its_host_header_is_passed_on_nowhere() -> None:
    services = [service("a", port="80"), service("b", port="80", listen="7443", tls="redirect")]
    bundle = configured(services, [*tasks("a", "10.0.0.1"), *tasks("b", "10.0.0.2")]).bundle
    assert "proxy_set_header Host $swarmkit_host;" in bundle.nginx
    assert "$http_host" not in bundle.nginx + bundle.fallback


def test_a_host_that_is_named_has_the_routes_that_name_it() -> None:
    services = [service("any", port="80", path="/any"), service("one", port="80", host="a.example")]
    text = configured(services, [*tasks("any", "10.0.0.1"), *tasks("one", "10.0.0.2")]).bundle.nginx
    (named,) = re.findall(r"listen 8080;\n +server_name a\.example;(.*?)\n    }\n", text, re.DOTALL)
    assert re.findall(r"proxy_pass http://(\w+);", named) == ["one", "one"]


def test_five_hundred_services_are_no_large_configuration() -> None:
    half = range(250)
    services = [service(f"h{at}", port="80", host=f"h{at}.example") for at in half]
    services += [service(f"p{at}", port="80", path=f"/p{at}") for at in half]
    running = [
        one for service in services for one in tasks(service.name, *(f"10.0.0.{at}" for at in range(5)))
    ]
    assert len(configured(services, running).bundle.nginx) < 2_000_000


def test_hosts_that_share_their_routes_share_a_server() -> None:
    hosts = ",".join(f"h{number}.example" for number in range(50))
    text = configured([service("web", port="80", host=hosts)], tasks("web", "10.0.0.1")).bundle.nginx
    assert text.count("server_name ") == 2


def test_nothing_of_a_secret_is_in_the_texts_or_the_errors() -> None:
    secrets = {**SECRETS, "pw": "me:$6$salt$hash", "pem": CERTIFICATE + KEY}
    web = service("web", port="80", host="a.example", auth="pw", certificate="pem")
    found = configured([web], tasks("web", "10.0.0.1"), secrets)
    assert set(found.bundle.files.values()) == set(secrets.values())
    for text in (found.bundle.nginx, found.bundle.fallback, repr(found)):
        assert "BEGIN" not in text
        assert "$6$" not in text
