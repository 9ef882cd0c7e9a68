"""Plans: what changes, in what order, and that what is applied leaves nothing to do."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmkit.compose.convert import Context, DesiredStack, convert
from swarmkit.compose.load import parse
from swarmkit.deploy.plan import (
    Change,
    LiveStack,
    config_version,
    fingerprint,
    orphans,
    plan_stack,
    with_config_ids,
)
from swarmkit.errors import OperationFailed
from swarmkit.names import SPEC_LABEL


def stack(text: str, **images: str) -> DesiredStack:
    return convert(parse(text, "stack.yml", Path("/s"), {}), "st", Context(images=images))


class Swarm:
    """A swarm that keeps what it is sent as an engine does: ids for names, defaults, its own order."""

    def __init__(self) -> None:
        self.index = 100
        self.services: dict[str, dict[str, Any]] = {}
        self.configs: dict[str, dict[str, Any]] = {}
        self.networks: dict[str, dict[str, Any]] = {}
        self.others = {"swarmkit-edge": "id-edge"}

    def live(self) -> LiveStack:
        return copy.deepcopy(
            LiveStack(
                services=[*self.services.values()],
                networks=[*self.networks.values()],
                configs=[*self.configs.values()],
                network_ids=self.others,
            )
        )

    def apply(self, changes: Sequence[Change]) -> None:
        for change in changes:
            held = getattr(self, f"{change.kind}s")
            self.index += 1
            if change.action == "create":
                assert change.name not in held, "the engine refuses a second thing of one name"
            else:
                assert (held[change.name].get("ID") or held[change.name].get("Id")) == change.live_id
            if change.action == "remove":
                self._check_unused(change)
                del held[change.name]
                continue
            assert change.spec is not None
            spec = copy.deepcopy(change.spec)
            match change.kind:
                case "network":
                    held[change.name] = {**spec, "Id": f"id-{self.index}", "Options": {"vxlan": "4097"}}
                case "config":
                    held[change.name] = {
                        "ID": change.live_id or f"id-{self.index}",
                        "Spec": spec,
                        "Version": {"Index": self.index},
                    }
                case "service":
                    old = held.get(change.name)
                    if old:
                        assert old["Version"]["Index"] == change.version
                        assert next(iter(old["Spec"]["Mode"])) == next(iter(spec["Mode"]))
                    held[change.name] = {
                        "ID": change.live_id or f"id-{self.index}",
                        "Version": {"Index": self.index},
                        "Spec": self._kept(spec),
                        **({"PreviousSpec": old["Spec"]} if old else {}),
                    }

    def _check_unused(self, change: Change) -> None:
        if change.kind == "config":
            used = [
                config["ConfigName"]
                for service in self.services.values()
                for config in service["Spec"]["TaskTemplate"]["ContainerSpec"].get("Configs", ())
            ]
            assert change.name not in used
        if change.kind == "network":
            used = [
                network["Target"]
                for service in self.services.values()
                for network in service["Spec"]["TaskTemplate"]["Networks"]
            ]
            assert change.live_id not in used

    def _kept(self, spec: dict[str, Any]) -> dict[str, Any]:
        spec = with_config_ids(spec, {name: config["ID"] for name, config in self.configs.items()})
        task = spec["TaskTemplate"]
        container = task["ContainerSpec"]
        ids = {name: network["Id"] for name, network in self.networks.items()} | self.others
        task["Networks"] = [{**one, "Target": ids[one["Target"]]} for one in reversed(task["Networks"])]
        container.pop("Privileges")
        container["Isolation"] = "default"
        container["DNSConfig"] = container.get("DNSConfig", {})
        task["Runtime"] = "container"
        task.setdefault("ForceUpdate", 0)
        spec["Mode"].get("Replicated", {}).setdefault("Replicas", 1)
        spec["EndpointSpec"].setdefault("Mode", "vip")
        return spec


def deployed(text: str) -> Swarm:
    swarm = Swarm()
    swarm.apply(plan_stack(stack(text), swarm.live()))
    return swarm


def said(changes: Sequence[Change]) -> list[str]:
    return [f"{change.action} {change.kind} {change.name}" for change in changes]


def fields(text: str, then: str) -> dict[str, tuple[Any, Any]]:
    """What is said to change on the one service when the stack `text` becomes `then`."""
    (change,) = [one for one in plan_stack(stack(then), deployed(text).live()) if one.kind == "service"]
    assert change.action == "update"
    return {name: (each["from"], each["to"]) for name, each in change.fields.items()}


ONE = "services: {web: {image: x, environment: {LEVEL: debug}, deploy: {replicas: 3}}}"


def test_a_new_stack_is_made_in_order() -> None:
    services = "services: {b: {image: x, configs: [c]}, a: {image: x, deploy: {mode: global}}}"
    changes = plan_stack(stack(f"{services}\nconfigs: {{c: {{content: x}}}}"), LiveStack())
    assert said(changes) == [
        "create network st_default",
        "create config st_c",
        "create service st_b",
        "create service st_a",
    ]
    assert changes[2].fields == {
        "image": {"from": None, "to": "x:latest"},
        "replicas": {"from": None, "to": 1},
    }
    assert changes[3].fields["mode"] == {"from": None, "to": "global"}


def test_what_is_as_it_should_be_is_left_alone() -> None:
    assert plan_stack(stack(ONE), deployed(ONE).live()) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("deploy: {replicas: 3}", "deploy: {replicas: 7}", {"replicas": (3, 7)}),
        ("environment: {A: a}", "environment: {A: b}", {"env.A": ("a", "b")}),
        ("environment: {A: a}", "environment: {B: ''}", {"env.A": ("a", None), "env.B": (None, "")}),
        ("user: a", "user: b", {"TaskTemplate.ContainerSpec.User": ("a", "b")}),
        (
            "user: a",
            "init: true",
            {"TaskTemplate.ContainerSpec.User": ("a", None), "TaskTemplate.ContainerSpec.Init": (None, True)},
        ),
        ("command: a b", "command: b a", {"command": (["a", "b"], ["b", "a"])}),
        ("labels: {a: b}", "labels: {a: c}", {"container_labels.a": ("b", "c")}),
        (
            "deploy: {labels: {a: b}}",
            "deploy: {labels: {c: d}}",
            {"labels.a": ("b", None), "labels.c": (None, "d")},
        ),
        (
            "deploy: {resources: {limits: {memory: 1k}}}",
            "deploy: {resources: {limits: {memory: 2k}}}",
            {"resources.Limits.MemoryBytes": (1024, 2048)},
        ),
        ("deploy: {update_config: {parallelism: 2}}", "user: ''", {"update_config.Parallelism": (2, 1)}),
        (
            "deploy: {endpoint_mode: dnsrr}",
            "deploy: {endpoint_mode: vip}",
            {"endpoint_mode": ("dnsrr", "vip")},
        ),
        (
            "volumes: ['/a:/t']",
            "volumes: ['/b:/t', /u]",
            {"mounts./t.Source": ("/a", "/b"), "mounts./u": (None, {"Type": "volume", "Target": "/u"})},
        ),
        (
            "ports: ['80:80']",
            "user: ''",
            {
                "ports.80:80/tcp ingress": (
                    {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 80, "PublishMode": "ingress"},
                    None,
                )
            },
        ),
        (
            "healthcheck: {interval: 1s}",
            "healthcheck: {interval: 2s}",
            {"healthcheck.Interval": (10**9, 2 * 10**9)},
        ),
    ],
)
def test_a_change_is_said_in_peoples_words(old: str, new: str, expected: dict[str, tuple[Any, Any]]) -> None:
    def text(body: str) -> str:
        return f"services: {{web: {{image: x, {body}}}}}"

    assert fields(text(old), text(new)) == expected


def test_networks_are_said_by_name() -> None:
    tail = "\nnetworks: {a: , b: }"
    found = fields(
        "services: {web: {image: x, networks: [a]}}" + tail,
        "services: {web: {image: x, networks: [a, b]}}" + tail,
    )
    assert found == {"networks.st_b": (None, {"Target": "st_b", "Aliases": ["web"]})}


def test_a_change_carries_what_is_needed_to_make_it() -> None:
    swarm = deployed(ONE)
    (change,) = plan_stack(stack(ONE.replace("3", "7")), swarm.live())
    assert (change.live_id, change.version) == (
        swarm.services["st_web"]["ID"],
        swarm.services["st_web"]["Version"]["Index"],
    )
    assert change.spec
    assert change.spec["Mode"] == {"Replicated": {"Replicas": 7}}
    assert change.spec["Labels"][SPEC_LABEL] == fingerprint(change.spec)
    json.dumps(change.fields)


# ---------------------------------------------------------------- what others changed


def _scaled(spec: dict[str, Any]) -> None:
    spec["Mode"]["Replicated"]["Replicas"] = 9


def _variable_changed(spec: dict[str, Any]) -> None:
    spec["TaskTemplate"]["ContainerSpec"]["Env"] = ["LEVEL=info"]


def _variable_added(spec: dict[str, Any]) -> None:
    spec["TaskTemplate"]["ContainerSpec"]["Env"].append("MORE=")


def _network_left(spec: dict[str, Any]) -> None:
    spec["TaskTemplate"]["Networks"] = []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_scaled, {"replicas": {"from": 9, "to": 3}}),
        (_variable_changed, {"env.LEVEL": {"from": "info", "to": "debug"}}),
        (_variable_added, {"env.MORE": {"from": "", "to": None}}),
        (
            _network_left,
            {"networks.st_default": {"from": None, "to": {"Target": "st_default", "Aliases": ["web"]}}},
        ),
    ],
)
def test_what_was_changed_by_hand_is_seen(
    change: Callable[[dict[str, Any]], None], expected: dict[str, Any]
) -> None:
    swarm = deployed(ONE)
    change(swarm.services["st_web"]["Spec"])
    (found,) = plan_stack(stack(ONE), swarm.live())
    assert found.fields == expected
    swarm.apply([found])
    assert plan_stack(stack(ONE), swarm.live()) == []


def test_labels_that_others_added_are_left_alone() -> None:
    swarm = deployed(ONE)
    swarm.services["st_web"]["Spec"]["Labels"]["theirs"] = "1"
    assert plan_stack(stack(ONE), swarm.live()) == []


def test_a_forced_restart_is_not_undone() -> None:
    swarm = deployed(ONE)
    swarm.services["st_web"]["Spec"]["TaskTemplate"]["ForceUpdate"] = 2
    assert plan_stack(stack(ONE), swarm.live()) == []
    (change,) = plan_stack(stack(ONE.replace("3", "7")), swarm.live())
    assert change.spec
    assert change.spec["TaskTemplate"]["ForceUpdate"] == 2


def test_what_docker_deployed_is_adopted_by_its_mark_alone() -> None:
    swarm = deployed(ONE)
    mark = swarm.services["st_web"]["Spec"]["Labels"].pop(SPEC_LABEL)
    (change,) = plan_stack(stack(ONE), swarm.live())
    assert change.fields == {f"labels.{SPEC_LABEL}": {"from": None, "to": mark}}


def test_an_engine_that_does_not_know_start_interval_is_not_asked_again() -> None:
    text = "services: {web: {image: x, healthcheck: {test: a, start_interval: 1s}}}"
    swarm = deployed(text)
    del swarm.services["st_web"]["Spec"]["TaskTemplate"]["ContainerSpec"]["Healthcheck"]["StartInterval"]
    assert plan_stack(stack(text), swarm.live()) == []


def test_the_host_network_is_recognised_though_no_list_has_its_id() -> None:
    text = "services: {web: {image: x, networks: [h]}}\nnetworks: {h: {external: true, name: host}}"
    swarm = Swarm()
    swarm.others["host"] = "id-of-the-swarm"
    swarm.apply(plan_stack(stack(text), swarm.live()))
    del swarm.others["host"]
    assert plan_stack(stack(text), swarm.live()) == []


# ---------------------------------------------------------------- modes, orphans, networks


def test_another_mode_is_another_service() -> None:
    swarm = deployed(ONE)
    other = ONE.replace("replicas: 3", "mode: global")
    changes = plan_stack(stack(other), swarm.live())
    assert said(changes) == ["remove service st_web", "create service st_web"]
    assert changes[0].fields == changes[1].fields == {"mode": {"from": "replicated", "to": "global"}}
    swarm.apply(changes)
    assert plan_stack(stack(other), swarm.live()) == []


TWO = """\
services: {web: {image: x}, old: {image: x, networks: [n], configs: [c]}}
networks: {n: }
configs: {c: {content: x}}
"""


def test_what_is_no_longer_in_the_file_stays_unless_pruned() -> None:
    swarm = deployed(TWO)
    desired = stack("services: {web: {image: x}}")
    assert plan_stack(desired, swarm.live()) == []
    assert orphans(desired, swarm.live()) == ["st_old"]
    changes = plan_stack(desired, swarm.live(), prune=True)
    assert said(changes) == ["remove service st_old", "remove config st_c", "remove network st_n"]
    swarm.apply(changes)
    assert orphans(desired, swarm.live()) == []
    assert plan_stack(desired, swarm.live(), prune=True) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("attachable: true", "attachable: false", "the network has attachable true and the file says false"),
        ("internal: false", "internal: true", "the network has internal false and the file says true"),
        ("driver: overlay", "driver: other", 'the network has driver "overlay" and the file says "other"'),
        (
            "ipam: {config: [{subnet: 10.1.0.0/24}]}",
            "ipam: {config: [{subnet: 10.2.0.0/24}]}",
            'the network has subnets ["10.1.0.0/24"] and the file says ["10.2.0.0/24"]',
        ),
        (
            "internal: false",
            "driver_opts: {mtu: 9}",
            'has driver_opts {"mtu": null} and the file says {"mtu": "9"}',
        ),
    ],
)
def test_a_network_that_would_have_to_change_is_an_error(old: str, new: str, message: str) -> None:
    text = "services: {web: {image: x, networks: [n]}}\nnetworks: {n: {%s}}"
    with pytest.raises(OperationFailed) as caught:
        plan_stack(stack(text % new), deployed(text % old).live())
    assert caught.value.where == "st_n"
    assert message in caught.value.message
    assert caught.value.hint


def test_a_network_that_somebody_made_under_the_name_is_used() -> None:
    text = "services: {web: {image: x, networks: [n]}}\nnetworks: {n: {name: theirs}}"
    live = LiveStack(network_ids={"theirs": "id1"})
    assert said(plan_stack(stack(text), live)) == ["create service st_web"]


# ---------------------------------------------------------------- configs


def with_config(content: str, more: str = "") -> str:
    return f"services: {{web: {{image: x, configs: [c]{more}}}}}\nconfigs: {{c: {{content: {content}}}}}"


def test_other_content_is_a_new_version_and_the_last_one_stays_for_a_rollback() -> None:
    swarm = deployed(with_config("one"))
    second = "st_c-3fc4ccfe74"
    changes = plan_stack(stack(with_config("two")), swarm.live())
    assert said(changes) == [f"create config {second}", "update service st_web"]
    assert changes[1].fields == {"configs.c.ConfigName": {"from": "st_c", "to": second}}
    swarm.apply(changes)
    assert plan_stack(stack(with_config("two")), swarm.live()) == []
    third = plan_stack(stack(with_config("three")), swarm.live())
    assert said(third)[1:] == ["update service st_web", "remove config st_c"]
    swarm.apply(third)
    assert len(swarm.configs) == 2
    assert plan_stack(stack(with_config("three")), swarm.live()) == []


def test_going_back_to_an_earlier_content_uses_its_version() -> None:
    swarm = deployed(with_config("one"))
    swarm.apply(plan_stack(stack(with_config("two")), swarm.live()))
    assert said(plan_stack(stack(with_config("one")), swarm.live())) == ["update service st_web"]


def test_a_version_of_a_config_with_a_long_name_has_a_name_that_fits() -> None:
    def text(content: str) -> str:
        return with_config(content).replace("[c]", f"[{'k' * 61}]").replace("{c:", f"{{{'k' * 61}:")

    swarm = deployed(text("one"))
    for content in ("two", "three"):
        swarm.apply(plan_stack(stack(text(content)), swarm.live()))
    assert [len(name) for name in swarm.configs] == [64, 64]


def test_new_labels_of_a_config_are_set_in_place() -> None:
    swarm = deployed(with_config("one"))
    text = with_config("one").replace("content: one", "content: one, labels: {a: b}")
    (change,) = plan_stack(stack(text), swarm.live())
    assert (change.action, change.kind, change.fields) == (
        "update",
        "config",
        {"labels.a": {"from": None, "to": "b"}},
    )
    swarm.apply([change])
    assert plan_stack(stack(text), swarm.live()) == []


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=2), min_size=1, max_size=6))
def test_a_version_of_a_config_always_holds_its_content(contents: list[bytes]) -> None:
    live: dict[str, bytes] = {}
    for content in contents:
        name = config_version("st_c", content, live)
        assert live.setdefault(name, content) == content
        assert config_version("st_c", content, live) == name


def test_the_ids_of_configs_are_filled_in() -> None:
    spec = stack(with_config("one")).services[0].spec
    (config,) = with_config_ids(spec, {"st_c": "id7"})["TaskTemplate"]["ContainerSpec"]["Configs"]
    assert (config["ConfigName"], config["ConfigID"]) == ("st_c", "id7")
    assert "ConfigID" not in spec["TaskTemplate"]["ContainerSpec"]["Configs"][0]


# ---------------------------------------------------------------- any stack to any other

_small = st.sampled_from(["a", "b", "c"])
_service = st.fixed_dictionaries(
    {"image": st.sampled_from(["x", "y:1"])},
    optional={
        "environment": st.dictionaries(_small, st.sampled_from(["", "1", None]), max_size=3),
        "command": st.sampled_from(["run", "run 'a b'"]),
        "labels": st.dictionaries(_small, _small, max_size=2),
        "networks": st.lists(st.sampled_from(["n", "m", "default"]), unique=True, max_size=3),
        "configs": st.lists(st.sampled_from(["c", "d"]), unique=True, max_size=2),
        "volumes": st.lists(st.sampled_from(["/a:/x", "/b", "v:/y:ro"]), unique=True, max_size=3),
        "ports": st.lists(st.sampled_from(["80:80", "81", "82-83:92-93/udp"]), unique=True, max_size=3),
        "cap_add": st.lists(st.sampled_from(["ALL", "KILL"]), max_size=2),
        "user": st.sampled_from(["1", ""]),
        "init": st.booleans(),
        "healthcheck": st.sampled_from([{"disable": True}, {"test": "x", "interval": "1s", "retries": 0}]),
        "stop_grace_period": st.sampled_from(["0s", "10s", "1m"]),
        "deploy": st.one_of(
            st.just({"mode": "global"}),
            st.fixed_dictionaries(
                {},
                optional={
                    "replicas": st.integers(0, 3),
                    "labels": st.dictionaries(st.sampled_from(["a", "swarmkit.lb.port"]), _small),
                    "endpoint_mode": st.sampled_from(["vip", "dnsrr"]),
                    "update_config": st.sampled_from(
                        [{}, {"parallelism": 0, "monitor": "0s"}, {"delay": "1s"}]
                    ),
                    "restart_policy": st.sampled_from(
                        [{}, {"condition": "any"}, {"delay": "0s", "max_attempts": 0}]
                    ),
                    "resources": st.sampled_from(
                        [{"limits": {"cpus": 1}}, {"limits": {}}, {"reservations": {"memory": 0}}]
                    ),
                    "placement": st.sampled_from(
                        [{"constraints": ["a==b", "c!=d"]}, {"max_replicas_per_node": 1}]
                    ),
                },
            ),
        ),
    },
)
_stack = st.builds(
    lambda services, c, d: stack(
        json.dumps(
            {
                "services": services,
                "networks": {"n": {}, "m": {"attachable": True}},
                "volumes": {"v": {}},
                "configs": {"c": {"content": c}, "d": {"content": d}},
            }
        )
    ),
    st.dictionaries(st.sampled_from(["web", "db", "app"]), _service, min_size=1, max_size=3),
    st.sampled_from(["1", "2", "3"]),
    st.sampled_from(["1", "2"]),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(_stack, min_size=1, max_size=4), st.booleans())
def test_from_any_stack_to_any_other_leads_to_what_the_file_says(
    stacks: list[DesiredStack], prune: bool
) -> None:
    swarm = Swarm()
    for desired in stacks:
        swarm.apply(plan_stack(desired, swarm.live(), prune=prune))
        assert plan_stack(desired, swarm.live(), prune=prune) == []
        fresh = Swarm()
        fresh.apply(plan_stack(desired, fresh.live()))
        for service in desired.services:
            assert _meaning(swarm, service.name) == _meaning(fresh, service.name)


def _meaning(swarm: Swarm, name: str) -> Any:
    """A service's spec with networks by name and configs by content, as their ids and versions differ."""
    spec = copy.deepcopy(swarm.services[name]["Spec"])
    names = {network["Id"]: network["Name"] for network in swarm.networks.values()}
    for network in spec["TaskTemplate"]["Networks"]:
        network["Target"] = names.get(network["Target"], network["Target"])
    for config in spec["TaskTemplate"]["ContainerSpec"].get("Configs", ()):
        config["ConfigName"] = swarm.configs[config.pop("ConfigName")]["Spec"]["Data"]
        del config["ConfigID"]
    # It covers the names of configs.
    del spec["Labels"][SPEC_LABEL]
    return spec
