"""Bringing the balancer up: what its stack is made of, and when nothing is to be done."""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from swarmkit.balancer import deploy
from swarmkit.balancer.deploy import Identities, Wanted, bring_secrets, follow_routes, project
from swarmkit.balancer.nginx import DEFAULT_CERTIFICATE
from swarmkit.compose.convert import Context, convert
from swarmkit.deploy.apply import carry_out
from swarmkit.deploy.down import down
from swarmkit.deploy.options import Options
from swarmkit.deploy.plan import Change, contents
from swarmkit.errors import OperationFailed
from swarmkit.images.ca import Authority, fingerprint
from swarmkit.names import AUTHORITY_LABEL, BALANCER_LABEL, EDGE_NETWORK, SOURCES_LABEL, STACK_LABEL
from swarmkit.names import CONTROLLER_SERVICE as CONTROLLER
from swarmkit.names import PROXY_SERVICE as PROXY
from swarmkit.swarm import Service
from swarmkit.target import Swarm, Target
from swarmkit.ui import Ui
from tests.unit.memoryengine import NODE, MemoryEngine

MARK = "ab" * 32
IDENTITIES = Identities("ca", "co", "pr", DEFAULT_CERTIFICATE, MARK)
SOURCES = {"proxy": "p1", "controller": "c1"}
WANTED = Wanted(IDENTITIES, (), (8080, 8443), SOURCES)


def specs(wanted: Wanted = WANTED) -> Mapping[str, Any]:
    made = convert(project(wanted), "swarmkit-lb", Context(images={"proxy": "p", "controller": "c"}))
    return {service.short_name: service.spec for service in made.services}


def container(name: str, wanted: Wanted = WANTED) -> Any:
    return specs(wanted)[name]["TaskTemplate"]["ContainerSpec"]


# ---------------------------------------------------------------- the stack


def test_only_the_controller_gets_near_the_engine_and_only_for_reading() -> None:
    mounts = {name: container(name)["Mounts"] for name in ("proxy", "controller")}
    binds = {name: [one for one in some if one["Type"] == "bind"] for name, some in mounts.items()}
    assert binds["proxy"] == []
    (socket,) = binds["controller"]
    assert socket["Target"] == "/var/run/docker.sock"
    assert socket["ReadOnly"] is True


@pytest.mark.parametrize("name", ["proxy", "controller"])
def test_both_parts_have_no_more_rights_than_they_need(name: str) -> None:
    spec = container(name)
    assert spec["ReadOnly"] is True
    assert spec["CapabilityDrop"] == ["ALL"]
    assert {*spec.get("CapabilityAdd", ())} <= {"CAP_SETUID", "CAP_SETGID"}
    assert specs()[name]["TaskTemplate"]["Resources"]["Limits"]["MemoryBytes"]
    assert all(secret["File"]["Mode"] == 0o400 for secret in spec["Secrets"])


def test_the_controller_is_on_a_network_of_its_own_that_leads_nowhere() -> None:
    made = convert(project(WANTED), "swarmkit-lb", Context(images={"proxy": "p", "controller": "c"}))
    (network,) = made.networks
    assert network.spec["Internal"] is True
    attached = {
        service.short_name: {one["Target"] for one in service.spec["TaskTemplate"]["Networks"]}
        for service in made.services
    }
    assert attached == {"controller": {network.name}, "proxy": {network.name, EDGE_NETWORK}}
    assert not any(service.spec["EndpointSpec"].get("Ports") for service in made.services[1:])


def test_proxies_ask_for_the_controller_by_a_name_that_no_other_service_has() -> None:
    assert f"SWARMKIT_CONTROLLER=tasks.{CONTROLLER}:9443" in container("proxy")["Env"]


def test_the_controller_gets_the_secrets_that_routes_name_and_the_proxies_do_not() -> None:
    wanted = Wanted(IDENTITIES, ["web_tls", "users"], (8080, 8443), SOURCES)
    files = {one["SecretName"]: one["File"]["Name"] for one in container("controller", wanted)["Secrets"]}
    assert {name: files[name] for name in ("web_tls", "users")} == {"web_tls": "web_tls", "users": "users"}
    # Or another secret would be a new task on a node's port.
    assert container("proxy", wanted) == container("proxy")


def test_entry_ports_are_opened_on_the_machines_themselves() -> None:
    wanted = Wanted(IDENTITIES, (), (5432, 8080, 8443), SOURCES)
    ports = specs(wanted)["proxy"]["EndpointSpec"]["Ports"]
    assert [port["PublishedPort"] for port in ports] == [5432, 8080, 8443]
    assert {port["PublishMode"] for port in ports} == {"host"}


def test_an_engine_that_does_not_know_a_start_interval_is_not_told_of_one() -> None:
    assert "StartInterval" in container("proxy")["Healthcheck"]
    old = container("proxy", Wanted(IDENTITIES, (), (8080, 8443), SOURCES, start_interval=False))
    assert "StartInterval" not in old["Healthcheck"]
    assert old["Healthcheck"]["Interval"] == 1_000_000_000


# ---------------------------------------------------------------- following routes


class Engine(MemoryEngine):
    """One that knows secrets and nodes, and whose every write is told."""

    def __init__(self) -> None:
        super().__init__()
        self.node: dict[str, Any] = copy.deepcopy(dict(NODE))
        self.node["Version"] = {"Index": 1}
        self.told: list[str] = []
        self.reads: list[str] = []
        self.held["networks"][EDGE_NETWORK] = {
            "Id": "edge",
            "Name": EDGE_NETWORK,
            "Driver": "overlay",
            "Scope": "swarm",
        }

    def get(self, path: str, params: Any = None, *, headers: Any = None) -> Any:
        self.reads.append(path)
        if path == "/nodes":
            return [copy.deepcopy(self.node)]
        if path == "/nodes/node1":
            return copy.deepcopy(self.node)
        return super().get(path, params, headers=headers)

    def post(self, path: str, body: Any = None, params: Any = None, *, headers: Any = None) -> Any:
        if path == "/nodes/node1/update":
            self.told.append(path)
            self.node["Spec"] = body
            return None
        return super().post(path, body, params, headers=headers)

    def received(self, path: str) -> None:
        self.told.append(path)

    def secret(self, name: str, **labels: str) -> None:
        self.post("/secrets/create", {"Name": name, "Labels": labels, "Data": "eA=="})

    def route(self, name: str, **labels: str) -> None:
        self.post(
            "/services/create",
            {
                "Name": name,
                "Labels": {
                    STACK_LABEL: name.partition("_")[0],
                    **{f"swarmkit.lb.{key}": value for key, value in labels.items()},
                },
                "TaskTemplate": {"ContainerSpec": {"Image": "x"}},
                "Mode": {"Replicated": {"Replicas": 1}},
            },
        )

    def service(self, name: str) -> Service:
        return Service.of(self.held["services"][name])


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow hashes are slow."""
    monkeypatch.setattr(contents, "_COST", 16)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Images are as if they had been built; the services that were."""
    found: list[str] = []

    def build(_swarm: Swarm, _ui: Ui, _stack: str, sources: Any, *, dry_run: bool = False) -> dict[str, str]:
        found.extend(sources)
        return {name: f"registry/{name}@sha256:{'0' * 64}" for name in sources}

    monkeypatch.setattr("swarmkit.deploy.prepare.build_images", build)
    return found


AUTHORITY = Authority.make()


@pytest.fixture
def swarm(built: list[str], monkeypatch: pytest.MonkeyPatch) -> Swarm:
    """A swarm with an inventory, as far as this needs one."""
    monkeypatch.setattr(deploy, "find_authority", lambda *_: AUTHORITY)

    class Machines:
        inventory = type("Inventory", (), {"managers": ()})()
        map = connection = None

    return Swarm(Target("c", "test", True), Engine(), Machines())  # type: ignore[arg-type]


def engine_of(swarm: Swarm) -> Engine:
    assert isinstance(swarm.engine, Engine)
    return swarm.engine


def follow(swarm: Swarm, **options: Any) -> tuple[list[str], str]:
    """The changes, and what was said."""
    said = io.StringIO()
    changes = follow_routes(swarm, Ui(stdout=io.StringIO(), stderr=said), timeout=5, **options)
    return [f"{one.action} {one.kind} {one.name}" for one in changes], said.getvalue()


def test_the_first_route_brings_the_balancer_up(swarm: Swarm, built: list[str]) -> None:
    engine = engine_of(swarm)
    engine.route("web_web", port="80")
    changes, _ = follow(swarm)
    assert {f"create service {CONTROLLER}", f"create service {PROXY}"} <= {*changes}
    assert sorted(built) == ["controller", "proxy"]
    assert engine.node["Spec"]["Labels"] == {BALANCER_LABEL: "true"}
    mark = fingerprint(AUTHORITY.certificate)
    secrets = {name: one["Spec"]["Labels"] for name, one in engine.held["secrets"].items()}
    assert len(secrets) == 4
    assert {labels[AUTHORITY_LABEL] for labels in secrets.values()} == {mark}
    assert {labels[STACK_LABEL] for labels in secrets.values()} == {"swarmkit-lb"}


def test_a_second_time_nothing_is_written_or_built_and_no_key_is_read(
    swarm: Swarm, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(swarm)
    engine.route("web_web", port="80")
    follow(swarm)
    engine.told.clear()
    built.clear()
    monkeypatch.setattr(deploy, "find_authority", None)
    # A route that comes needs nothing either.
    engine.held["services"]["web_web"]["Spec"]["Labels"]["swarmkit.lb.host"] = "a.example"
    assert follow(swarm)[0] == []
    assert engine.told == []
    assert built == []


def test_the_balancer_of_an_earlier_version_gives_up_its_port_first(swarm: Swarm) -> None:
    engine = engine_of(swarm)
    engine.route("web_web", port="80")
    port = {"Protocol": "tcp", "TargetPort": 8080, "PublishedPort": 8080, "PublishMode": "host"}
    engine.post(
        "/services/create",
        {
            "Name": "swarmkit-lb_nginx",
            "Labels": {STACK_LABEL: "swarmkit-lb"},
            "TaskTemplate": {"ContainerSpec": {"Image": "x"}},
            "Mode": {"Global": {}},
            "EndpointSpec": {"Mode": "dnsrr", "Ports": [port]},
        },
    )
    changes, _ = follow(swarm)
    assert changes.index("remove service swarmkit-lb_nginx") < changes.index(f"create service {PROXY}")
    assert "swarmkit-lb_nginx" not in engine.held["services"]


def test_a_dry_run_makes_nothing_and_reads_no_key(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(swarm)
    engine.route("web_web", port="80")
    engine.route("swarmkit_registry")
    registry = engine.held["services"]["swarmkit_registry"]["Spec"]["TaskTemplate"]["ContainerSpec"]
    registry["Labels"] = {"swarmkit.registry.authority": MARK}
    engine.told.clear()
    monkeypatch.setattr(deploy, "find_authority", None)
    changes, _ = follow(swarm, dry_run=True)
    assert f"create service {PROXY}" in changes
    assert engine.told == []


def test_without_routes_there_is_no_balancer(swarm: Swarm) -> None:
    engine = engine_of(swarm)
    engine.route("web_web", port="80")
    follow(swarm)
    del engine.held["services"]["web_web"]
    follow(swarm)
    assert engine.held["services"] == {}
    assert engine.held["secrets"] == {}
    assert follow(swarm)[0] == []


def test_a_node_that_was_told_not_to_keeps_its_word(swarm: Swarm) -> None:
    engine = engine_of(swarm)
    engine.node["Spec"]["Labels"] = {BALANCER_LABEL: "false"}
    engine.route("web_web", port="80")
    follow(swarm)
    assert engine.node["Spec"]["Labels"] == {BALANCER_LABEL: "false"}


def test_a_new_authority_makes_new_identities(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(swarm)
    engine.route("web_web", port="80")
    follow(swarm)
    other = Authority.make()
    monkeypatch.setattr(deploy, "find_authority", lambda *_: other)
    engine.route("swarmkit_registry")
    registry = engine.held["services"]["swarmkit_registry"]["Spec"]["TaskTemplate"]["ContainerSpec"]
    registry["Labels"] = {"swarmkit.registry.authority": fingerprint(other.certificate)}
    changes, _ = follow(swarm)
    assert {f"update service {CONTROLLER}", f"update service {PROXY}"} <= {*changes}
    used = engine.service(PROXY).spec["TaskTemplate"]["ContainerSpec"]["Secrets"]
    mark = fingerprint(other.certificate)[:10]
    assert {one["SecretName"] for one in used} == {f"swarmkit-lb-ca-{mark}", f"swarmkit-lb-proxy-{mark}"}


def test_a_secret_that_a_route_names_goes_to_the_controller_alone(swarm: Swarm) -> None:
    engine = engine_of(swarm)
    engine.route("web_web", port="80", auth="users")
    _, said = follow(swarm)
    assert "there is no secret users" in said
    before = engine.service(PROXY).raw["Version"]
    engine.secret("web_users")
    changes, said = follow(swarm)
    assert changes == [f"update service {CONTROLLER}"]
    assert "no secret" not in said
    # Another version of it, made later.
    engine.secret("web_users-0123456789")
    follow(swarm)
    used = engine.service(CONTROLLER).spec["TaskTemplate"]["ContainerSpec"]["Secrets"]
    assert [one["SecretName"] for one in used if "users" in one["SecretName"]] == ["web_users-0123456789"]
    assert engine.service(PROXY).raw["Version"] == before


def test_entry_ports_come_with_a_warning_and_stay(swarm: Swarm) -> None:
    engine = engine_of(swarm)
    engine.route("db_db", port="5432", mode="tcp", listen="5432")
    engine.route("web_web", port="80")
    _, said = follow(swarm)
    assert "entry port" not in said
    engine.route("mq_mq", port="1883", mode="tcp", listen="1883")
    changes, said = follow(swarm)
    assert changes == [f"update service {PROXY}"]
    assert "entry port 1883" in said
    for name in ("mq_mq", "db_db"):
        del engine.held["services"][name]
    assert follow(swarm)[0] == []


@pytest.mark.parametrize("mode", ["ingress", "host"])
def test_a_port_that_a_service_publishes_is_no_entry_port_and_keeps_nobody_from_deploying(
    swarm: Swarm, mode: str
) -> None:
    engine = engine_of(swarm)
    engine.route("web_web", port="80", host="web.example")
    engine.route("db_db", port="5432", mode="tcp", listen="5432")
    port = {"TargetPort": 1, "PublishMode": mode}
    ports = [
        {**port, "Protocol": "tcp", "PublishedPort": 5432},
        {**port, "Protocol": "udp", "PublishedPort": 1883},
    ]
    engine.post(
        "/services/create",
        {
            "Name": "old_db",
            "Labels": {STACK_LABEL: "old"},
            "TaskTemplate": {"ContainerSpec": {"Image": "x"}},
            "Mode": {"Replicated": {"Replicas": 1}},
            "EndpointSpec": {"Ports": ports},
        },
    )
    engine.route("mq_mq", port="1883", mode="tcp", listen="1883")
    _, said = follow(swarm)
    assert "db_db: port 5432 is published by old_db" in said
    opened = engine.service(PROXY).spec["EndpointSpec"]["Ports"]
    assert [port["PublishedPort"] for port in opened] == [1883, 8080, 8443]
    del engine.held["services"]["old_db"]
    assert follow(swarm)[0] == [f"update service {PROXY}"]


def test_what_another_command_has_brought_meanwhile_is_not_taken_away(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(swarm)
    engine.secret("users")
    engine.route("web_web", port="80", auth="users")

    def slow(*args: Any) -> Any:
        """The other one begins and ends between this one's reading and writing."""
        monkeypatch.setattr(deploy, "carry_out", carry_out)
        engine.secret("others")
        engine.route("db_db", port="5432", mode="tcp", listen="5432")
        engine.route("app_app", port="80", host="app.example", auth="others")
        follow(swarm)
        return carry_out(*args)

    monkeypatch.setattr(deploy, "carry_out", slow)
    follow(swarm)
    used = engine.service(CONTROLLER).spec["TaskTemplate"]["ContainerSpec"]["Secrets"]
    assert {"users", "others"} <= {one["SecretName"] for one in used}
    opened = engine.service(PROXY).spec["EndpointSpec"]["Ports"]
    assert [port["PublishedPort"] for port in opened] == [5432, 8080, 8443]


def test_a_balancer_that_went_as_another_stack_came_is_there_again(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(swarm)
    engine.route("web_web", port="80")
    follow(swarm)
    del engine.held["services"]["web_web"]

    def slow(*args: Any) -> Any:
        engine.route("app_app", port="80")
        assert follow(swarm)[0] == []
        return down(*args)

    monkeypatch.setattr(deploy, "down", slow)
    follow(swarm)
    assert {CONTROLLER, PROXY} <= {*engine.held["services"]}


def test_other_sources_are_built_again(swarm: Swarm, built: list[str]) -> None:
    engine = engine_of(swarm)
    engine.route("web_web", port="80")
    follow(swarm)
    built.clear()
    engine.held["services"][CONTROLLER]["Spec"]["Labels"][SOURCES_LABEL] = "older"
    follow(swarm)
    assert built == ["controller"]


def test_an_engine_alone_makes_no_balancer_but_keeps_the_one_that_runs(swarm: Swarm) -> None:
    engine = engine_of(swarm)
    engine.route("web_web", port="80", auth="users")
    alone = Swarm(swarm.target, engine)
    changes, said = follow(alone)
    assert (changes, "has no load balancer" in said) == ([], True)
    follow(swarm)
    engine.secret("web_users")
    assert follow(alone)[0] == [f"update service {CONTROLLER}"]


def test_an_engine_alone_does_not_call_the_images_that_run_new(
    swarm: Swarm, built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(swarm)
    engine.route("web_web", port="80", auth="users")
    with monkeypatch.context() as earlier:
        earlier.setattr(deploy, "_sources", lambda: {"controller": "older", "proxy": "older"})
        follow(swarm)
    engine.secret("web_users")
    assert follow(Swarm(swarm.target, engine))[0] == [f"update service {CONTROLLER}"]
    built.clear()
    follow(swarm)
    assert sorted(built) == ["controller", "proxy"]


def test_the_controller_has_a_new_secret_before_the_route_names_it_and_keeps_the_old_one(
    swarm: Swarm,
) -> None:
    engine = engine_of(swarm)
    engine.secret("old")
    engine.secret("new")
    engine.route("web_web", port="80", auth="old")
    follow(swarm)
    present = engine.service("web_web").spec
    before_services = partial(bring_secrets, swarm, Ui(stderr=io.StringIO()), timeout=5)

    def change(**labels: str) -> Change:
        changed = {f"swarmkit.lb.{key}": value for key, value in labels.items()}
        spec = {**present, "Labels": {**present["Labels"], **changed}}
        return Change("service", "web_web", "update", spec=spec, replaces=present)

    engine.told.clear()
    engine.reads.clear()
    before_services([change(host="a.example")])
    assert engine.reads == [], "where no other secret is named, nothing is asked"
    before_services([change(auth="new")])
    assert {"old", "new"} <= secrets_of(engine)
    # Once the route names it, the other is let go of.
    engine.held["services"]["web_web"]["Spec"]["Labels"]["swarmkit.lb.auth"] = "new"
    follow(swarm)
    assert {"old", "new"} & secrets_of(engine) == {"new"}


def secrets_of(engine: Engine) -> set[str]:
    """Those that the controller has."""
    container = engine.service(CONTROLLER).spec["TaskTemplate"]["ContainerSpec"]
    return {one["SecretName"] for one in container["Secrets"]}


def test_without_a_balancer_no_secret_is_brought_beforehand(swarm: Swarm) -> None:
    spec = {"Name": "web", "Labels": {"swarmkit.lb.port": "80", "swarmkit.lb.auth": "users"}}
    change = Change("service", "web", "update", spec=spec, replaces={"Name": "web"})
    bring_secrets(swarm, Ui(stderr=io.StringIO()), [change], timeout=5)
    assert engine_of(swarm).told == []


def test_a_stack_goes_though_the_controller_has_its_secret(swarm: Swarm) -> None:
    engine = engine_of(swarm)
    engine.route("web_web", port="80", auth="users")
    engine.route("other_web", port="80", host="other.example")
    engine.post("/secrets/create", {"Name": "web_users", "Labels": {STACK_LABEL: "web"}, "Data": "eA=="})
    follow(swarm)
    used = engine.service(CONTROLLER).spec["TaskTemplate"]["ContainerSpec"]["Secrets"]
    assert "web_users" in {one["SecretName"] for one in used}
    ui = Ui(stdout=io.StringIO(), stderr=io.StringIO())
    options = Options(5, "stack down web")
    with pytest.raises(OperationFailed, match="other stacks use the secret"):
        down(engine, ui, "web", options)
    down(engine, ui, "web", options, lambda: follow(swarm))
    assert "web_users" not in engine.held["secrets"]
    used = engine.service(CONTROLLER).spec["TaskTemplate"]["ContainerSpec"]["Secrets"]
    assert "web_users" not in {one["SecretName"] for one in used}
