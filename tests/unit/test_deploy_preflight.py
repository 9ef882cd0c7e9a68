"""What is refused before the first write, with numbers; and that what fits is never refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmkit.compose.convert import DesiredConfig, DesiredSecret, DesiredService, DesiredStack
from swarmkit.deploy.preflight import Finding, Severity, Surroundings, preflight
from swarmkit.names import STACK_LABEL
from swarmkit.swarm import Node, Service
from tests.unit import builders
from tests.unit.builders import job, node, task

NODES = (node("n1"), node("n2"), node("n3"))


def service(replicas: int | None = 2, **more: Any) -> Service:
    """One of the stack's, unless its labels say otherwise."""
    return builders.service(replicas, **{"labels": {STACK_LABEL: "shop"}, **more})


def stack(*services: Service, **more: Any) -> DesiredStack:
    made = tuple(DesiredService(one.name, one.name, dict(one.spec), None, False) for one in services)
    return DesiredStack("shop", made, **more)


def asking(replicas: int | None, name: str = "web", cpus: float = 0, memory: int = 0, **more: Any) -> Service:
    """A service whose tasks reserve so much each; `placement` is where they may be."""
    reserved = {"NanoCPUs": int(cpus * 1e9), "MemoryBytes": memory}
    parts = {"Resources": {"Reservations": reserved}, "Placement": more.pop("placement", {})}
    return service(replicas, name=name, task=parts, **more)


def ports(*published: int, mode: str = "ingress") -> dict[str, Any]:
    entries = [{"TargetPort": 80, "PublishedPort": port, "PublishMode": mode} for port in published]
    return {"EndpointSpec": {"Ports": entries}}


def messages(found: list[Finding]) -> list[str]:
    return [f"{one.severity} {one.where}: {one.message}" for one in found]


def test_what_fits_is_not_spoken_of() -> None:
    desired = stack(asking(6, cpus=2, memory=256 << 20), asking(None, "agent", memory=1 << 20))
    assert preflight(desired, Surroundings(NODES)) == []


def test_a_service_that_does_not_fit_is_told_with_what_is_free() -> None:
    db = asking(2, "db")
    held = [
        task(1, of="db", on="n1", Resources={"Reservations": {"NanoCPUs": 2_500_000_000}}),
        task(2, of="db", on="n2", Resources={"Reservations": {"NanoCPUs": 1_000_000_000}}),
        # What stops, or has stopped, leaves its room.
        task(3, desired="shutdown", of="db", on="n3", Resources={"Reservations": {"NanoCPUs": 4 * 10**9}}),
        task(4, "failed", of="db", on="n3", Resources={"Reservations": {"NanoCPUs": 4 * 10**9}}),
    ]
    around = Surroundings(NODES, [db], held)
    assert preflight(stack(asking(3, cpus=2)), around) == []
    assert messages(preflight(stack(asking(4, cpus=2)), around)) == [
        "error web: needs 4 × 2 CPUs; free: n1 1.5 CPUs, n2 3 CPUs, n3 4 CPUs"
    ]


def test_what_the_service_s_own_tasks_hold_is_free_for_their_successors() -> None:
    live = asking(3, cpus=4)
    reserved = {"Reservations": {"NanoCPUs": 4 * 10**9}}
    held = [task(n, on=f"n{n}", Resources=reserved) for n in (1, 2, 3)]
    around = Surroundings(NODES, [live], held)
    assert preflight(stack(asking(3, cpus=3.5)), around) == []
    assert "needs 4 × 4 CPUs" in preflight(stack(asking(4, cpus=4)), around)[0].message


def test_a_service_that_has_been_asked_for_already_is_warned_of() -> None:
    live = asking(9, cpus=4)
    assert preflight(stack(live), Surroundings(NODES, [live]))[0].severity is Severity.WARNING
    assert preflight(stack(asking(10, cpus=4)), Surroundings(NODES, [live]))[0].severity is Severity.ERROR


def test_a_global_service_must_fit_on_each_of_its_nodes() -> None:
    small = node("n3", cpus=1)
    found = preflight(stack(asking(None, cpus=2)), Surroundings((*NODES[:2], small)))
    assert messages(found) == ["error web: needs 2 CPUs on each node; free: n3 1 CPU"]


def test_services_that_fit_alone_may_not_fit_together() -> None:
    found = preflight(stack(asking(4, "a", cpus=2), asking(2, "b", cpus=3)), Surroundings(NODES))
    assert messages(found) == [
        "error shop: needs 14 CPUs in all (a 4 × 2 CPUs, b 2 × 3 CPUs); free: n1 4 CPUs, n2 4 CPUs, n3 4 CPUs"
    ]


def test_services_on_few_nodes_are_counted_against_those() -> None:
    on_one: dict[str, Any] = {"placement": {"Constraints": ["node.hostname==n1"]}}
    desired = stack(
        asking(1, "a", cpus=3, **on_one), asking(1, "b", cpus=2, **on_one), asking(1, "c", cpus=4)
    )
    assert messages(preflight(desired, Surroundings(NODES))) == [
        "error shop: needs 5 CPUs in all (a 1 × 3 CPUs, b 1 × 2 CPUs); free: n1 4 CPUs"
    ]


def test_no_more_tasks_than_a_node_may_have() -> None:
    found = preflight(stack(asking(7, placement={"MaxReplicas": 2})), Surroundings(NODES))
    assert messages(found) == [
        "error web: 7 tasks, at most 2 a node (max_replicas_per_node), and 3 nodes may run them"
    ]


def test_tasks_of_a_job_wait_for_one_another() -> None:
    parts = {"Resources": {"Reservations": {"NanoCPUs": 4 * 10**9}}}
    many = service(task=parts, Mode={"ReplicatedJob": {"MaxConcurrent": 50, "TotalCompletions": 50}})
    assert many.is_job
    assert preflight(stack(many), Surroundings(NODES)) == []
    assert preflight(stack(job({"GlobalJob": {}})), Surroundings(NODES)) == []


def test_generic_resources_are_counted_whether_they_have_names_or_not() -> None:
    raw = dict(node("n1").raw)
    gpus = [{"NamedResourceSpec": {"Kind": "gpu", "Value": f"id{n}"}} for n in (1, 2)]
    raw["Description"] = {**raw["Description"], "Resources": {"GenericResources": gpus}}
    wanted = {"GenericResources": [{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 1}}]}
    around = Surroundings((Node.of(raw),))
    assert preflight(stack(service(2, task={"Resources": {"Reservations": wanted}})), around) == []
    found = preflight(stack(service(3, task={"Resources": {"Reservations": wanted}})), around)
    assert messages(found) == ["error web: needs 3 × 1 gpu; free: n1 2 gpu"]


def test_a_constraint_that_matches_no_node_is_told_with_what_they_lack() -> None:
    pinned = {"Constraints": ["node.labels.gpu == yes"]}
    lacking = "no node fits: 3 of 3 nodes lack the label gpu=yes (constraint node.labels.gpu == yes)"
    assert messages(preflight(stack(asking(1, placement=pinned)), Surroundings(NODES))) == [
        f"error web: {lacking}"
    ]
    # A service with a task on each such node has none, as it says.
    assert messages(preflight(stack(asking(None, placement=pinned)), Surroundings(NODES))) == [
        f"warning web: {lacking}"
    ]
    assert preflight(stack(asking(0, placement=pinned)), Surroundings(NODES)) == []


def test_a_port_of_another_service_is_refused() -> None:
    other = service(1, name="x", **ports(8080))
    around = Surroundings(NODES, [other])
    expected = ["error web: port 8080/tcp is published by x already"]
    assert messages(preflight(stack(service(1, **ports(8080))), around)) == expected
    # The swarm refuses one in `host` mode beside one in `ingress` mode as well.
    assert messages(preflight(stack(service(1, **ports(8080, mode="host"))), around)) == expected
    assert preflight(stack(service(1, **ports(8081))), around) == []
    assert preflight(stack(service(1, name="x", **ports(8080))), around) == []


def test_a_port_of_a_service_that_is_no_longer_in_the_file_is_told_with_what_to_do() -> None:
    old = service(1, name="shop_old", labels={STACK_LABEL: "shop"}, **ports(8080))
    found = preflight(stack(service(1, **ports(8080))), Surroundings(NODES, [old]))
    assert "where it has left the file, with --prune" in found[0].hint


@pytest.mark.parametrize("mode", ["ingress", "host"])
def test_a_port_of_a_service_that_is_pruned_is_free(mode: str) -> None:
    old = service(3, name="shop_old", labels={STACK_LABEL: "shop"}, **ports(8080, mode=mode))
    held = [task(n, of="shop_old", on=f"n{n}") for n in (1, 2, 3)]
    desired = stack(service(1, **ports(8080, mode=mode)))
    assert preflight(desired, Surroundings(NODES, [old], held))
    assert preflight(desired, Surroundings(NODES, [old], held, pruned=["shop_old"])) == []


def test_what_has_the_name_of_something_of_the_stacks_and_is_not_its_own_is_refused() -> None:
    desired = stack(
        service(1, name="shop_web"),
        configs=(DesiredConfig("shared", b"", {}), DesiredConfig("shop_c", b"", {})),
        secrets=(DesiredSecret("key", b"", {}),),
    )
    others = Surroundings(
        NODES,
        [service(1, name="shop_web", labels={STACK_LABEL: "other"})],
        configs={"shared": "other", "shop_c": "shop"},
        secrets={"key": ""},
    )
    assert messages(preflight(desired, others)) == [
        "error shop: there is a service shop_web already, which is of the stack other",
        "error shop: there is a config shared already, which is of the stack other",
        "error shop: there is a secret key already, which no stack made",
    ]


def test_two_services_of_one_file_cannot_publish_one_port() -> None:
    desired = stack(service(1, name="a", **ports(80)), service(1, name="b", **ports(80)))
    assert messages(preflight(desired, Surroundings(NODES))) == [
        "error b: port 80/tcp is published by a already"
    ]


def test_ports_in_host_mode_are_counted_by_node() -> None:
    host = ports(9000, mode="host")
    other = service(1, name="x", **host)
    around = Surroundings(NODES, [other], [task(1, of="x", on="n2")])
    assert preflight(stack(service(2, **host)), around) == []
    assert messages(preflight(stack(service(3, **host)), around)) == [
        "error web: port 9000/tcp in host mode is taken on n2 (x)"
    ]
    assert messages(preflight(stack(service(4, **host)), Surroundings(NODES))) == [
        "error web: 4 tasks publish 9000/tcp in host mode, one a node, and 3 nodes may run them"
    ]
    together = stack(service(2, name="a", **host), service(2, name="b", **host))
    assert messages(preflight(together, Surroundings(NODES))) == [
        "error shop: port 9000/tcp in host mode is needed by a 2 ×, b 2 ×, and free on 3 nodes"
    ]


def test_all_that_is_missing_is_told_at_once() -> None:
    desired = stack(
        asking(9, cpus=9),
        external_networks=("lan", "swarmkit-edge", "there"),
        external_configs=("settings",),
        external_secrets=("password", "known"),
    )
    around = Surroundings(NODES, networks=frozenset({"there"}), secrets={"known": ""})
    found = preflight(desired, around)
    assert messages(found)[:4] == [
        'error shop: there is no network "lan" in the swarm',
        'error shop: there is no network "swarmkit-edge" in the swarm',
        'error shop: there is no config "settings" in the swarm',
        'error shop: there is no secret "password" in the swarm',
    ]
    assert [one.hint for one in found[:2]] == [
        "make it first: docker network create -d overlay lan",
        "swarmkit init makes it",
    ]
    assert len(found) == 5


# ---------------------------------------------------------------- never refuse what fits

AMOUNTS = st.integers(0, 8)
SLACK = st.sampled_from([0, 0, 0, 1, 5])
ZONES = st.sampled_from(["a", "b"])


@st.composite
def packings(draw: st.DrawFn) -> tuple[tuple[Node, ...], list[Service]]:
    """Services whose tasks are each on a node, and nodes that have room for those; often for no more."""
    zones = draw(st.lists(ZONES, min_size=1, max_size=4))
    used = [[draw(SLACK), draw(SLACK)] for _ in zones]
    ports_left = [{8080, 9090} for _ in zones]
    services = []
    for number in range(draw(st.integers(1, 5))):
        cpus, memory = draw(AMOUNTS), draw(AMOUNTS)
        zone, port = draw(st.none() | ZONES), draw(st.none() | st.sampled_from([8080, 9090]))
        most = draw(st.integers(0, 2))
        on: list[int] = []
        for where in draw(st.lists(st.integers(0, len(zones) - 1), max_size=6)):
            fits = (
                zone in (None, zones[where])
                and (not most or on.count(where) < most)
                and (port is None or port in ports_left[where])
            )
            if fits:
                used[where][0] += cpus
                used[where][1] += memory
                ports_left[where].discard(port or 0)
                on.append(where)
        placement: dict[str, Any] = {"MaxReplicas": most}
        if zone:
            placement["Constraints"] = [f"node.labels.zone=={zone}"]
        published = ports(port, mode="host") if port else {}
        services.append(asking(len(on), f"s{number}", cpus, memory << 20, placement=placement, **published))
    nodes = tuple(
        node(f"n{n}", labels={"zone": zone}, cpus=cpus, memory=memory << 20)
        for n, (zone, (cpus, memory)) in enumerate(zip(zones, used, strict=True))
    )
    return nodes, services


@settings(deadline=None)
@given(packings())
def test_what_fits_is_never_refused(packing: tuple[tuple[Node, ...], list[Service]]) -> None:
    nodes, services = packing
    assert messages(preflight(stack(*services), Surroundings(nodes))) == []


@settings(deadline=None)
@given(st.lists(st.integers(1, 8), min_size=1, max_size=4), st.integers(1, 8))
def test_one_task_more_than_fits_is_refused(cpus: list[int], each: int) -> None:
    nodes = tuple(node(f"n{n}", cpus=one) for n, one in enumerate(cpus))
    fits = sum(one // each for one in cpus)
    assert preflight(stack(asking(fits, cpus=each)), Surroundings(nodes)) == []
    assert len(preflight(stack(asking(fits + 1, cpus=each)), Surroundings(nodes))) == 1


@pytest.mark.parametrize("arch", ["x86_64", "amd64"])
def test_an_image_for_another_platform_is_refused(arch: str) -> None:
    one = asking(1, placement={"Platforms": [{"OS": "linux", "Architecture": arch}]})
    assert preflight(stack(one), Surroundings(NODES)) == []
    found = preflight(stack(one), Surroundings((node("n1", arch="aarch64"),)))
    assert messages(found) == ["error web: no node fits: n1 is linux/aarch64, the image linux/amd64"]
