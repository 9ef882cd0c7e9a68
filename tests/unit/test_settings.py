"""daemon.json: what is there stays, what is wanted comes in, and what no node can have is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkit.cluster.settings import DaemonFacts, changed_keys, merged, refuse_impossible

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.sampled_from(["log-driver", "log-opts", "mtu", "labels", "x"]), json_values)


def facts(text: str) -> DaemonFacts:
    return DaemonFacts.parse({"daemon.json": base64.b64encode(text.encode()).decode()})


def test_what_is_there_stays() -> None:
    found = {"data-root": "/big", "log-opts": {"labels": "a"}, "log-driver": "local"}
    wanted = {"log-driver": "local", "log-opts": {"max-size": "10m"}}
    assert merged(found, wanted) == {
        "data-root": "/big",
        "log-driver": "local",
        "log-opts": {"labels": "a", "max-size": "10m"},
    }
    assert changed_keys(found, wanted) == ("log-opts",)


def test_options_of_another_log_driver_do_not_stay() -> None:
    found = {"log-driver": "syslog", "log-opts": {"syslog-address": "udp://1.2.3.4"}}
    assert merged(found, {"log-driver": "local"}) == {"log-driver": "local"}
    assert changed_keys(found, {"log-driver": "local"}) == ("log-driver", "log-opts")


@given(objects, objects)
def test_merging_again_changes_nothing(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    once = merged(found, wanted)
    assert merged(once, wanted) == once
    assert changed_keys(once, wanted) == ()


def test_a_file_that_is_not_there_is_an_empty_one() -> None:
    assert DaemonFacts.parse({}) == DaemonFacts()
    assert DaemonFacts.parse({"daemon.pending": "yes"}).pending


@pytest.mark.parametrize("text", ["{", "[]", '"text"', "{'a': 1}"])
def test_a_file_that_no_engine_could_read_is_said_to_be_broken(text: str) -> None:
    assert facts(text).broken


def test_a_file_is_read() -> None:
    assert facts(json.dumps({"mtu": 1400})).content == {"mtu": 1400}


def test_what_no_node_of_a_swarm_can_have_is_refused() -> None:
    errors = refuse_impossible({"live-restore": True, "hosts": [], "debug": True}, "inventory.yml")
    assert [error.message.split(":")[0] for error in errors] == [
        "engine.settings.live-restore",
        "engine.settings.hosts",
    ]
