"""Plans: what changes, in what order, and that what is applied leaves nothing to do."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from swarmkit.compose.convert import DesiredStack
from swarmkit.deploy.history import REVISIONS_KEPT
from swarmkit.deploy.plan import (
    Change,
    ConfigContent,
    LiveStack,
    config_version,
    dependencies,
    fingerprint,
    only,
    orphans,
    plan_return,
    plan_stack,
    ports,
    snapshot,
    waves,
    with_ids,
)
from swarmkit.deploy.report import describe
from swarmkit.errors import Exit, OperationFailed, Problems, UsageError
from swarmkit.names import IMAGE_LABEL, REPLICAS_LABEL, SECRET_LABEL, SPEC_LABEL
from tests.unit.stackswarm import Swarm, deployed, planned, stack


def said(changes: Sequence[Change]) -> list[str]:
    return [f"{change.action} {change.kind} {change.name}" for change in changes]


def fields(text: str, then: str) -> dict[str, tuple[Any, Any]]:
    """What is said to change on the one service when the stack `text` becomes `then`."""
    (change,) = [one for one in planned(stack(then), deployed(text).live()) if one.kind == "service"]
    assert change.action == "update"
    return {name: (each["from"], each["to"]) for name, each in change.fields.items()}


ONE = "services: {web: {image: x, environment: {LEVEL: debug}, deploy: {replicas: 3}}}"


def test_a_new_stack_is_made_in_order() -> None:
    services = "services: {b: {image: x, configs: [c]}, a: {image: x, deploy: {mode: global}}}"
    changes = planned(stack(f"{services}\nconfigs: {{c: {{content: x}}}}"), LiveStack())
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
    assert planned(stack(ONE), deployed(ONE).live()) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("volumes: ['/a:/t', '/b:/u']", "volumes: ['/b:/u', '/a:/t']"),
        ("ports: ['80:80', '90:90']", "ports: ['90:90', '80:80']"),
        ("environment: [A=a, B=b]", "environment: [B=b, A=a]"),
        ("networks: {n: {aliases: [a, b]}, m: }", "networks: {m: , n: {aliases: [b, a]}}"),
        ("configs: [c, d]", "configs: [d, c]"),
        ("cap_add: [A, B]", "cap_add: [B, A]"),
        (
            "deploy: {placement: {constraints: [node.role == worker, node.labels.a == b]}}",
            "deploy: {placement: {constraints: [node.labels.a == b, node.role == worker]}}",
        ),
    ],
)
def test_another_order_of_what_has_none_replaces_no_task(old: str, new: str) -> None:
    top = "networks: {n: , m: }\nconfigs: {c: {content: x}, d: {content: y}}\n"
    before, after = (f"services: {{web: {{image: x, {one}}}}}\n{top}" for one in (old, new))
    assert planned(stack(after), deployed(before).live()) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("command: a b", "command: b a"),
        ("dns: [a, b]", "dns: [b, a]"),
        # Of a host with two addresses the first is used.
        ("extra_hosts: ['a:10.0.0.1', 'a:10.0.0.2']", "extra_hosts: ['a:10.0.0.2', 'a:10.0.0.1']"),
    ],
)
def test_another_order_of_what_has_one_is_a_change(old: str, new: str) -> None:
    before, after = (f"services: {{web: {{image: x, {one}}}}}" for one in (old, new))
    assert len(fields(before, after)) == 1


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
            "deploy: {resources: {limits: {memory: 4m}}}",
            "deploy: {resources: {limits: {memory: 8m}}}",
            {"resources.Limits.MemoryBytes": (4 * 1024**2, 8 * 1024**2)},
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


def test_a_change_is_a_line_for_people() -> None:
    old, new = (f"registry:5000/shop/web:1@sha256:{digit * 64}" for digit in "19")
    values: dict[str, dict[str, Any]] = {
        "replicas": {"from": 3, "to": 7},
        "env.LEVEL": {"from": "info", "to": "debug"},
        "image": {"from": old, "to": new},
        "user": {"from": None, "to": "me"},
    }
    change = Change("service", "st_web", "update", values, by_hand=frozenset({"env.LEVEL"}), note="so")
    assert describe(change) == (
        "update service st_web: replicas 3 → 7, env.LEVEL info → debug (was changed by hand),"
        " image web@11111111 → web@99999999, user me (so)"
    )


def test_networks_are_said_by_name() -> None:
    tail = "\nnetworks: {a: , b: }"
    found = fields(
        "services: {web: {image: x, networks: [a]}}" + tail,
        "services: {web: {image: x, networks: [a, b]}}" + tail,
    )
    assert found == {"networks.st_b": (None, {"Target": "st_b", "Aliases": ["web"]})}


def test_a_change_carries_what_is_needed_to_make_it() -> None:
    swarm = deployed(ONE)
    (change,) = planned(stack(ONE.replace("3", "7")), swarm.live())
    assert (change.live_id, change.version) == (
        swarm.services["st_web"]["ID"],
        swarm.services["st_web"]["Version"]["Index"],
    )
    assert change.spec
    assert change.spec["Mode"] == {"Replicated": {"Replicas": 7}}
    assert change.spec["Labels"][SPEC_LABEL] == fingerprint(change.spec)
    json.dumps(change.fields)


# ---------------------------------------------------------------- what others changed


def _variable_changed(spec: dict[str, Any]) -> None:
    spec["TaskTemplate"]["ContainerSpec"]["Env"] = ["LEVEL=info"]


def _variable_added(spec: dict[str, Any]) -> None:
    spec["TaskTemplate"]["ContainerSpec"]["Env"].append("MORE=")


def _network_left(spec: dict[str, Any]) -> None:
    spec["TaskTemplate"]["Networks"] = []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
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
    (found,) = planned(stack(ONE), swarm.live())
    assert found.fields == expected
    assert found.by_hand == set(expected)
    swarm.apply([found])
    assert planned(stack(ONE), swarm.live()) == []


def test_what_was_changed_by_hand_is_told_apart_from_what_the_file_changes() -> None:
    swarm = deployed(ONE)
    _variable_changed(swarm.services["st_web"]["Spec"])
    (found,) = planned(stack(ONE.replace("image: x", "image: y")), swarm.live())
    assert set(found.fields) == {"image", "env.LEVEL"}
    assert found.by_hand == {"env.LEVEL"}


def _scaled(swarm: Swarm, number: int) -> None:
    swarm.services["st_web"]["Spec"]["Mode"]["Replicated"]["Replicas"] = number


def test_a_redeploy_keeps_the_scale_that_runs() -> None:
    swarm = deployed(ONE)
    _scaled(swarm, 9)
    assert planned(stack(ONE), swarm.live()) == []
    (change,) = planned(stack(ONE.replace("debug", "info")), swarm.live())
    assert set(change.fields) == {"env.LEVEL"}
    assert change.spec
    assert change.spec["Mode"] == {"Replicated": {"Replicas": 9}}
    swarm.apply([change])
    assert planned(stack(ONE.replace("debug", "info")), swarm.live()) == []


def test_another_number_in_the_file_is_the_new_scale() -> None:
    swarm = deployed(ONE)
    _scaled(swarm, 9)
    (change,) = planned(stack(ONE.replace("replicas: 3", "replicas: 4")), swarm.live())
    assert change.fields == {"replicas": {"from": 9, "to": 4}}
    swarm.apply([change])
    _scaled(swarm, 9)
    # No number is the engine's own, 1.
    (change,) = planned(stack(ONE.replace("deploy: {replicas: 3}", "deploy: {}")), swarm.live())
    assert change.fields == {"replicas": {"from": 9, "to": 1}}


def test_another_way_to_write_the_same_image_is_said_as_what_it_is() -> None:
    found = fields("services: {web: {image: x}}", "services: {web: {image: 'x:latest'}}")
    assert found[f"labels.{IMAGE_LABEL}"] == ("x", "x:latest")
    assert all(name.startswith("labels.") for name in found)


def test_labels_that_others_added_are_left_alone() -> None:
    swarm = deployed(ONE)
    swarm.services["st_web"]["Spec"]["Labels"]["theirs"] = "1"
    assert planned(stack(ONE), swarm.live()) == []


@pytest.mark.parametrize("state", ["paused", "rollback_paused"])
def test_an_update_that_stopped_half_way_is_resumed(state: str) -> None:
    swarm = deployed(ONE)
    swarm.services["st_web"]["UpdateStatus"] = {"State": state}
    (change,) = planned(stack(ONE), swarm.live())
    assert (change.action, change.fields) == ("update", {"update": {"from": "stopped", "to": "resumed"}})
    assert not change.by_hand
    swarm.services["st_web"]["UpdateStatus"] = {"State": "completed"}
    assert planned(stack(ONE), swarm.live()) == []


def test_a_forced_restart_is_not_undone() -> None:
    swarm = deployed(ONE)
    swarm.services["st_web"]["Spec"]["TaskTemplate"]["ForceUpdate"] = 2
    assert planned(stack(ONE), swarm.live()) == []
    (change,) = planned(stack(ONE.replace("3", "7")), swarm.live())
    assert change.spec
    assert change.spec["TaskTemplate"]["ForceUpdate"] == 2


def test_what_docker_deployed_is_adopted_by_its_mark_alone() -> None:
    swarm = deployed(ONE)
    labels = swarm.services["st_web"]["Spec"]["Labels"]
    marks = {key: labels.pop(key) for key in (SPEC_LABEL, REPLICAS_LABEL)}
    (change,) = planned(stack(ONE), swarm.live())
    assert change.fields == {f"labels.{key}": {"from": None, "to": value} for key, value in marks.items()}
    assert not change.by_hand


def test_the_host_network_is_recognised_though_no_list_has_its_id() -> None:
    text = "services: {web: {image: x, networks: [h]}}\nnetworks: {h: {external: true, name: host}}"
    swarm = Swarm()
    swarm.others["host"] = "id-of-the-swarm"
    swarm.apply(planned(stack(text), swarm.live()))
    del swarm.others["host"]
    assert planned(stack(text), swarm.live()) == []


# ---------------------------------------------------------------- modes, orphans, networks


def test_another_mode_is_another_service() -> None:
    swarm = deployed(ONE)
    other = ONE.replace("replicas: 3", "mode: global")
    changes = planned(stack(other), swarm.live())
    assert said(changes) == ["remove service st_web", "create service st_web"]
    assert changes[0].fields == changes[1].fields == {"mode": {"from": "replicated", "to": "global"}}
    swarm.apply(changes)
    assert planned(stack(other), swarm.live()) == []


TWO = """\
services: {web: {image: x}, old: {image: x, networks: [n], configs: [c]}}
networks: {n: }
configs: {c: {content: x}}
"""


def test_what_is_no_longer_in_the_file_stays_unless_pruned() -> None:
    swarm = deployed(TWO)
    swarm.revisions.clear()
    desired = stack("services: {web: {image: x}}")
    assert planned(desired, swarm.live()) == []
    assert orphans(desired, swarm.live()) == ["st_old"]
    plan = plan_stack(desired, swarm.live(), prune=True)
    # A return to what was needs the config; a network can be made again.
    assert said(plan.changes) == ["remove service st_old", "remove network st_n"]
    swarm.deploy(desired, plan)
    assert orphans(desired, swarm.live()) == []
    assert planned(desired, swarm.live(), prune=True) == []
    swarm.revisions.clear()
    assert said(planned(desired, swarm.live(), prune=True)) == ["remove config st_c"]
    swarm.apply(planned(desired, swarm.live(), prune=True))
    assert planned(desired, swarm.live(), prune=True) == []


NET = "services: {web: {image: x, networks: [n]}, db: {image: x}}\nnetworks: {n: {%s}}"


@pytest.mark.parametrize(
    ("old", "new", "field", "values"),
    [
        ("attachable: true", "attachable: false", "attachable", (True, False)),
        ("internal: false", "internal: true", "internal", (False, True)),
        ("driver: overlay", "driver: other", "driver", ("overlay", "other")),
        (
            "ipam: {config: [{subnet: 10.1.0.0/24}]}",
            "ipam: {config: [{subnet: 10.2.0.0/24}]}",
            "subnets",
            (["10.1.0.0/24"], ["10.2.0.0/24"]),
        ),
        ("internal: false", "driver_opts: {mtu: 9}", "driver_opts", ({"mtu": None}, {"mtu": "9"})),
    ],
)
def test_a_network_that_cannot_change_is_made_again_with_what_is_on_it(
    old: str, new: str, field: str, values: tuple[Any, Any]
) -> None:
    swarm = deployed(NET % old)
    _scaled(swarm, 5)
    plan = plan_stack(stack(NET % new), swarm.live())
    assert said(plan.changes) == [
        "remove service st_web",
        "remove network st_n",
        "create network st_n",
        "create service st_web",
    ]
    assert plan.recreates
    again = plan.changes[1]
    assert again.fields == {field: {"from": values[0], "to": values[1]}}
    assert again.recreates
    assert "st_web" in again.note
    swarm.apply(plan.changes)
    assert planned(stack(NET % new), swarm.live()) == []
    assert swarm.services["st_web"]["Spec"]["Mode"] == {"Replicated": {"Replicas": 5}}


def test_a_service_that_has_left_the_file_comes_back_with_its_network() -> None:
    swarm = deployed(NET % "attachable: true")
    before = swarm.services["st_web"]["Spec"]
    without = "services: {db: {image: x, networks: [n]}}\nnetworks: {n: {attachable: false}}"
    changes = planned(stack(without), swarm.live())
    swarm.apply(changes)
    after = swarm.services["st_web"]["Spec"]
    network = {"Target": swarm.networks["st_n"]["Id"], "Aliases": ["web"]}
    assert after["TaskTemplate"].pop("Networks") == [network]
    del before["TaskTemplate"]["Networks"]
    assert after == before


def test_a_network_that_others_are_on_is_not_made_again() -> None:
    swarm = deployed(NET % "attachable: true")
    live = replace(swarm.live(), users={swarm.networks["st_n"]["Id"]: ["other_api"]})
    with pytest.raises(OperationFailed, match=r"attachable true → false.* other_api"):
        plan_stack(stack(NET % "attachable: false"), live)


def test_nothing_is_made_again_where_nothing_has_to_be() -> None:
    swarm = deployed(NET % "attachable: true")
    plan = plan_stack(stack((NET % "attachable: true").replace("image: x", "image: y")), swarm.live())
    assert plan.changes
    assert not plan.recreates


def test_a_network_that_somebody_made_under_the_name_is_used() -> None:
    text = "services: {web: {image: x, networks: [n]}}\nnetworks: {n: {name: theirs}}"
    live = LiveStack(network_ids={"theirs": "id1"})
    assert said(planned(stack(text), live)) == ["create service st_web"]


# ---------------------------------------------------------------- configs


def with_config(content: str, more: str = "") -> str:
    return f"services: {{web: {{image: x, configs: [c]{more}}}}}\nconfigs: {{c: {{content: {content}}}}}"


def test_other_content_is_a_new_version_and_the_last_one_stays_for_a_rollback() -> None:
    swarm = deployed(with_config("one"))
    swarm.revisions.clear()
    second = "st_c-3fc4ccfe74"
    changes = planned(stack(with_config("two")), swarm.live())
    assert said(changes) == [f"create config {second}", "update service st_web"]
    assert changes[1].fields == {"configs.c.ConfigName": {"from": "st_c", "to": second}}
    swarm.apply(changes)
    assert planned(stack(with_config("two")), swarm.live()) == []
    third = planned(stack(with_config("three")), swarm.live())
    assert said(third)[1:] == ["update service st_web", "remove config st_c"]
    swarm.apply(third)
    assert len(swarm.configs) == 2
    assert planned(stack(with_config("three")), swarm.live()) == []


def test_going_back_to_an_earlier_content_uses_its_version() -> None:
    swarm = deployed(with_config("one"))
    swarm.apply(planned(stack(with_config("two")), swarm.live()))
    assert said(planned(stack(with_config("one")), swarm.live())) == ["update service st_web"]


def test_a_version_of_a_config_with_a_long_name_has_a_name_that_fits() -> None:
    def text(content: str) -> str:
        return with_config(content).replace("[c]", f"[{'k' * 61}]").replace("{c:", f"{{{'k' * 61}:")

    swarm = deployed(text("one"))
    swarm.revisions.clear()
    for content in ("two", "three"):
        swarm.apply(planned(stack(text(content)), swarm.live()))
    assert [len(name) for name in swarm.configs] == [64, 64]


def test_new_labels_of_a_config_are_set_in_place() -> None:
    swarm = deployed(with_config("one"))
    text = with_config("one").replace("content: one", "content: one, labels: {a: b}")
    (change,) = planned(stack(text), swarm.live())
    assert (change.action, change.kind, change.fields) == (
        "update",
        "config",
        {"labels.a": {"from": None, "to": "b"}},
    )
    swarm.apply([change])
    assert planned(stack(text), swarm.live()) == []


@settings(deadline=None)
@given(
    st.lists(
        st.builds(ConfigContent, st.binary(min_size=1, max_size=2), st.sampled_from(["", "golang"])),
        min_size=1,
        max_size=6,
    )
)
def test_a_version_of_a_config_always_holds_its_content(contents: list[ConfigContent]) -> None:
    live: dict[str, ConfigContent] = {}
    for content in contents:
        name = config_version("st_c", content, live)
        assert live.setdefault(name, content) == content
        assert config_version("st_c", content, live) == name


def test_what_fills_in_a_config_makes_another_version() -> None:
    swarm = deployed(with_config("one"))
    filled = with_config("one").replace("content: one", "content: one, template_driver: golang")
    made, moved = planned(stack(filled), swarm.live())
    assert (made.kind, made.action) == ("config", "create")
    assert made.name != "st_c"
    assert made.fields["template_driver"] == {"from": None, "to": "golang"}
    assert moved.fields == {"configs.c.ConfigName": {"from": "st_c", "to": made.name}}
    swarm.apply([made, moved])
    assert planned(stack(filled), swarm.live()) == []
    assert said(planned(stack(with_config("one")), swarm.live())) == ["update service st_web"]


def test_moby_38007_old_versions_go_with_the_last_revision_that_needs_them() -> None:
    swarm = deployed(with_config("c0"))
    for number in range(1, 15):
        desired = stack(with_config(f"c{number}"))
        swarm.deploy(desired, plan_stack(desired, swarm.live()))
        assert planned(desired, swarm.live()) == []
        # As many as there are revisions, and what the oldest would go back to.
        assert len(swarm.configs) == min(number + 1, REVISIONS_KEPT + 1)


def test_the_ids_of_configs_are_filled_in() -> None:
    spec = stack(with_config("one")).services[0].spec
    (config,) = with_ids(spec, {"st_c": "id7"}, {})["TaskTemplate"]["ContainerSpec"]["Configs"]
    assert (config["ConfigName"], config["ConfigID"]) == ("st_c", "id7")
    assert "ConfigID" not in spec["TaskTemplate"]["ContainerSpec"]["Configs"][0]


CREDENTIALS = "services: {web: {image: x, credential_spec: {config: c}}}\nconfigs: {c: {content: %s}}"


def test_a_credential_spec_is_sent_by_the_id_of_its_config_and_follows_its_versions() -> None:
    swarm = deployed(CREDENTIALS % "one")
    assert planned(stack(CREDENTIALS % "one"), swarm.live()) == []
    made, sent, *_ = planned(stack(CREDENTIALS % "two"), swarm.live())
    assert sent.fields["credential_spec.Config"] == {"from": "st_c", "to": made.name}
    swarm.deploy(stack(CREDENTIALS % "two"), plan_stack(stack(CREDENTIALS % "two"), swarm.live()))
    container = swarm.services["st_web"]["Spec"]["TaskTemplate"]["ContainerSpec"]
    (config,) = container["Configs"]
    assert config == {"ConfigName": made.name, "ConfigID": swarm.configs[made.name]["ID"], "Runtime": {}}
    assert container["Privileges"]["CredentialSpec"] == {"Config": config["ConfigID"]}
    assert planned(stack(CREDENTIALS % "two"), swarm.live()) == []
    # Ids do not outlive what they are of: a revision has the name.
    (service,) = snapshot(swarm.live()).services.values()
    assert service["TaskTemplate"]["ContainerSpec"]["Privileges"]["CredentialSpec"] == {"Config": made.name}


# ---------------------------------------------------------------- secrets

PLAIN = "services: {web: {image: x}}"
KEY = "st_key"


def hidden(change: Change) -> str:
    """All that people or a log may see of a change."""
    return f"{change!r} {dict(change.fields)} {change.name} {change.note}"


def test_a_secret_is_made_with_a_slow_salted_hash_and_without_its_content_in_the_plan() -> None:
    desired = stack(PLAIN, [("key", b"hunter2")])
    first, second = (planned(desired, LiveStack())[1] for _ in range(2))
    assert (first.kind, first.action, first.name) == ("secret", "create", KEY)
    assert first.spec
    assert second.spec
    label = first.spec["Labels"][SECRET_LABEL]
    assert label.startswith("scrypt:32768:")
    assert label != second.spec["Labels"][SECRET_LABEL]
    assert base64.b64decode(first.spec["Data"]) == b"hunter2"
    for text in ("hunter2", base64.b64encode(b"hunter2").decode(), label):
        assert text not in hidden(first)
        assert text not in json.dumps(first.fields)


def test_an_unchanged_secret_is_left_alone_and_another_is_a_new_version() -> None:
    swarm = deployed(PLAIN, [("key", b"one")])
    assert planned(stack(PLAIN, [("key", b"one")]), swarm.live()) == []
    desired = stack(PLAIN, [("key", b"two")])
    plan = plan_stack(desired, swarm.live())
    assert [one.kind for one in plan.changes] == ["secret", "service"]
    new = plan.changes[0].name
    assert re.fullmatch("st_key-[0-9a-f]{10}", new)
    assert plan.changes[1].fields == {"secrets.key.SecretName": {"from": KEY, "to": new}}
    assert "two" not in "".join(map(hidden, plan.changes))
    swarm.deploy(desired, plan)
    assert planned(desired, swarm.live()) == []
    # What it was is still there, and found again.
    assert said(planned(stack(PLAIN, [("key", b"one")]), swarm.live())) == ["update service st_web"]


def test_a_secret_that_docker_made_is_kept_and_that_is_said() -> None:
    swarm = deployed(PLAIN, [("key", b"one")])
    del swarm.secrets[KEY]["Spec"]["Labels"][SECRET_LABEL]
    desired = stack(PLAIN, [("key", b"two")])
    plan = plan_stack(desired, swarm.live())
    assert not plan.changes
    assert "st_key" in plan.notes[0]
    assert "cannot compare" in plan.notes[0]
    asked = planned(desired, swarm.live(), replace_secrets=True)
    assert said(asked)[0].startswith("create secret st_key-")
    swarm.apply(asked)
    assert planned(desired, swarm.live(), replace_secrets=True) == []
    assert planned(desired, swarm.live()) == []


def driven(**changed: Any) -> DesiredStack:
    desired = stack(PLAIN, [("key", b"one")])
    return replace(desired, secrets=(replace(desired.secrets[0], **changed),))


@pytest.mark.parametrize(
    ("changed", "field", "values"),
    [
        ({"template_driver": "golang"}, "template_driver", (None, "golang")),
        ({"driver": {"Name": "vault"}, "data": b""}, "driver", (None, "vault")),
        ({"driver": {"Name": "vault", "Options": {"a": "b"}}}, "driver_opts", (None, {"a": "b"})),
    ],
)
@pytest.mark.parametrize("marked", [True, False])
def test_what_gives_or_fills_in_a_secret_makes_another_version(
    changed: dict[str, Any], field: str, values: tuple[Any, Any], marked: bool
) -> None:
    swarm = deployed(PLAIN, [("key", b"one")])
    if not marked:
        del swarm.secrets[KEY]["Spec"]["Labels"][SECRET_LABEL]
    made, moved = planned(driven(**changed), swarm.live())
    assert (made.kind, made.action, made.note) == ("secret", "create", "its driver differs")
    assert made.fields[field] == {"from": values[0], "to": values[1]}
    swarm.apply([made, moved])
    assert planned(driven(**changed), swarm.live()) == []
    if marked:
        assert said(planned(driven(), swarm.live())) == ["update service st_web"]


def test_a_label_of_a_secret_changes_in_place_and_its_hash_stays() -> None:
    swarm = deployed(PLAIN, [("key", b"one")])
    desired = stack(PLAIN, [("key", b"one")])
    labelled = replace(desired.secrets[0], labels={**desired.secrets[0].labels, "a": "b"})
    (change,) = planned(replace(desired, secrets=(labelled,)), swarm.live())
    assert (change.action, change.fields) == ("update", {"labels.a": {"from": None, "to": "b"}})
    swarm.apply([change])
    assert SECRET_LABEL in swarm.secrets[KEY]["Spec"]["Labels"]
    assert planned(replace(desired, secrets=(labelled,)), swarm.live()) == []


# ---------------------------------------------------------------- dependencies

CHAIN = """\
services:
  web: {image: x, ports: ["80:80"]}
  db: {image: x}
  job: {image: x, deploy: {restart_policy: {condition: none}}}
"""


def depending(desired: DesiredStack, **wanted: dict[str, str]) -> DesiredStack:
    services = tuple(replace(one, depends_on=wanted.get(one.short_name, {})) for one in desired.services)
    return replace(desired, services=services)


def test_services_are_planned_after_what_they_depend_on() -> None:
    conditions = {"db": "service_healthy", "job": "service_completed_successfully"}
    desired = depending(stack(CHAIN), web=conditions, job={"db": "service_started"})
    names = [one.name for one in planned(desired, LiveStack()) if one.kind == "service"]
    assert names == ["st_db", "st_job", "st_web"]
    assert waves(names, dependencies(desired)) == [["st_web"], ["st_job"], ["st_db"]]


def test_what_can_never_be_met_is_refused_all_at_once() -> None:
    desired = depending(
        stack(CHAIN),
        web={"db": "service_completed_successfully"},
        db={"job": "service_started"},
        job={"db": "service_started"},
    )
    with pytest.raises(Problems) as caught:
        plan_stack(desired, LiveStack())
    endless, circle = caught.value.errors
    assert (endless.where, endless.exit) == ("st_web", Exit.USAGE)
    assert "st_db has completed, which is started again whenever it ends" in endless.message
    assert "replicated-job" in endless.hint
    assert "st_db → st_job → st_db" in circle.message or "st_job → st_db → st_job" in circle.message


def test_a_job_is_not_run_again_for_our_mark_alone() -> None:
    swarm = Swarm()
    desired = stack(PLAIN)
    desired.services[0].spec["Mode"] = {"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 1}}
    (_, made) = planned(desired, swarm.live())
    assert "cannot be undone" in made.note
    swarm.apply(planned(desired, swarm.live()))
    del swarm.services["st_web"]["Spec"]["Labels"][SPEC_LABEL]
    assert planned(desired, swarm.live()) == []


def test_a_pruned_service_gives_up_its_port_before_another_takes_it() -> None:
    swarm = deployed('services: {old: {image: x, ports: ["80:80"]}}')
    changes = planned(stack('services: {new: {image: x, ports: ["80:8080"]}}'), swarm.live(), prune=True)
    assert said(changes) == ["remove service st_old", "create service st_new"]
    assert changes[0].early
    host = planned(stack(publishing(new=HOST)), swarm.live(), prune=True)
    assert said(host) == ["remove service st_old", "create service st_new"]
    free = planned(stack('services: {new: {image: x, ports: ["81:8080"]}}'), swarm.live(), prune=True)
    assert said(free) == ["create service st_new", "remove service st_old"]


def publishing(**published: list[Any]) -> str:
    services = {name: {"image": "x", "ports": entries} for name, entries in published.items()}
    return json.dumps({"services": services})


HOST = [{"target": 80, "published": 80, "mode": "host"}]


@pytest.mark.parametrize("port", [["80:80"], HOST])
def test_who_gives_up_a_port_comes_before_who_gets_it(port: list[Any]) -> None:
    swarm = deployed(publishing(a=[], z=port))
    moved = stack(publishing(a=port, z=[]))
    before = swarm.live()
    plan = plan_stack(moved, before)
    assert said(plan.changes) == ["update service st_z", "update service st_a"]
    assert [one.after for one in plan.changes] == [frozenset(), {"st_z"}]
    to = snapshot(before)
    swarm.deploy(moved, plan)
    # And so on the way back.
    back = plan_return("st", to, swarm.live())
    assert {one.name: set(one.after) for one in back.changes} == {"st_a": set(), "st_z": {"st_a"}}
    swarm.apply(back.changes)
    assert plan_return("st", to, swarm.live()).changes == []


def test_a_new_service_waits_for_the_port_of_one_that_stays() -> None:
    swarm = deployed(publishing(web=["80:80"]))
    plan = plan_stack(stack(publishing(proxy=["80:80"], web=["81:80"])), swarm.live())
    assert said(plan.changes) == ["update service st_web", "create service st_proxy"]
    swarm.apply(plan.changes)


def test_of_services_that_swap_ports_one_is_made_again() -> None:
    swarm = deployed(publishing(a=["80:80"], b=["81:80"], c=["82:80"]))
    around = stack(publishing(a=["81:80"], b=["82:80"], c=["80:80"]))
    plan = plan_stack(around, swarm.live())
    kinds = sorted(one.action for one in plan.changes)
    assert kinds == ["create", "remove", "update", "update"]
    gone = plan.changes[0]
    assert gone.early
    assert "neither can be first" in gone.note
    swarm.apply(plan.changes)
    assert planned(around, swarm.live()) == []


def test_who_waits_for_the_service_that_takes_its_port_is_made_again() -> None:
    swarm = deployed(publishing(a=["80:80"], b=[]))
    desired = depending(stack(publishing(a=[], b=["80:80"])), a={"b": "service_healthy"})
    plan = plan_stack(desired, swarm.live())
    assert said(plan.changes) == ["remove service st_a", "update service st_b", "create service st_a"]


def test_what_services_of_other_stacks_use_is_not_removed() -> None:
    swarm = deployed(TWO)
    swarm.revisions.clear()
    used = {swarm.networks["st_n"]["Id"]: ["other_api"], swarm.configs["st_c"]["ID"]: ["other_api"]}
    desired = stack("services: {web: {image: x}}")
    changes = planned(desired, replace(swarm.live(), users=used), prune=True)
    assert said(changes) == ["remove service st_old"]


def test_dependencies_on_services_that_are_not_deployed_now_are_remembered() -> None:
    desired = depending(stack(CHAIN), web={"db": "service_healthy"})
    assert dependencies(only(desired, ["web"])) == {"st_web": {"st_db": "service_healthy"}}


def test_one_service_can_be_deployed_alone() -> None:
    text = """\
services: {a: {image: x, networks: [n], configs: [c]}, b: {image: x, networks: [m], configs: [d]}}
networks: {n: , m: }
configs: {c: {content: x}, d: {content: x}}
"""
    part = only(stack(text), ["a"])
    assert said(planned(part, LiveStack())) == [
        "create network st_n",
        "create config st_c",
        "create service st_a",
    ]
    with pytest.raises(UsageError, match='there is no service "c"'):
        only(stack(text), ["c"])


def test_volumes_are_named_where_they_are_new() -> None:
    desired = replace(
        stack("services: {web: {image: x, volumes: ['data:/d']}}\nvolumes: {data: }"), volumes=("st_data",)
    )
    swarm = Swarm()
    plan = plan_stack(desired, swarm.live())
    assert [note.partition(":")[0] for note in plan.notes] == ["volume st_data"]
    swarm.apply(plan.changes)
    assert plan_stack(desired, swarm.live()).notes == []


# ---------------------------------------------------------------- any stack to any other

_small = st.sampled_from(["a", "b", "c"])
_service: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
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
# An engine refuses both at once.
_taken = _service.filter(
    lambda one: "ports" not in one or one.get("deploy", {}).get("endpoint_mode") != "dnsrr"
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
    st.dictionaries(st.sampled_from(["web", "db", "app"]), _taken, min_size=1, max_size=3),
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
        wanted = [ports(one.spec) for one in desired.services]
        wanted += (
            [] if prune else [ports(swarm.services[name]["Spec"]) for name in orphans(desired, swarm.live())]
        )
        # Preflight refuses what two services cannot both have.
        assume(sum(map(len, wanted)) == len(set().union(*wanted)))
        swarm.deploy(desired, plan_stack(desired, swarm.live(), prune=prune))
        assert planned(desired, swarm.live(), prune=prune) == []
        fresh = Swarm()
        fresh.apply(planned(desired, fresh.live()))
        for service in desired.services:
            assert swarm.meaning(service.name) == fresh.meaning(service.name)
