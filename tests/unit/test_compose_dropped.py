"""What an engine would drop without a word is not sent, and that is said."""

from __future__ import annotations

import pytest

from swarmkit.compose.convert import DesiredStack
from swarmkit.compose.dropped import without_dropped
from tests.unit.stackswarm import deployed, planned, stack

FILE = """\
services:
  web:
    image: x
    oom_score_adj: 5
    healthcheck: {test: a, start_interval: 1s}
    networks: [n]
    volumes:
      - {type: volume, source: v, target: /v, consistency: cached, volume: {subpath: a, nocopy: true}}
      - {type: bind, source: /b, target: /b, bind: {create_host_path: true, recursive: readonly}}
      - {type: bind, source: /c, target: /c, bind: {recursive: writable, propagation: rslave}}
      - {type: bind, source: /d, target: /d, bind: {recursive: disabled}}
networks:
  n: {enable_ipv4: true, ipam: {config: [{subnet: 10.0.0.0/24, aux_addresses: {a: 10.0.0.9}}]}}
volumes:
  v:
"""
ALWAYS = [
    "service web: volumes[].consistency: ignored: Swarm keeps no such setting",
    "service web: volumes[].bind.create_host_path: ignored: the folder must be there on each node",
    "service web: volumes[].bind.recursive: writable: ignored: Swarm keeps no such setting",
    "service web: volumes[].bind.recursive: readonly: ignored: Swarm keeps no such setting",
    "network st_n: enable_ipv4: ignored: Swarm keeps no such setting",
    "network st_n: ipam.config[].aux_addresses: ignored: Swarm keeps no such setting",
]


@pytest.mark.parametrize(
    ("version", "also"),
    [
        ("1.41", ["healthcheck.start_interval|1.44", "oom_score_adj|1.46", "volumes[].volume.subpath|1.45"]),
        ("1.44", ["oom_score_adj|1.46", "volumes[].volume.subpath|1.45"]),
        ("1.45", ["oom_score_adj|1.46"]),
        ("1.46", []),
        ("1.100", []),
    ],
)
def test_what_is_not_sent_is_said_once_with_the_version_that_has_it(version: str, also: list[str]) -> None:
    _, lines = without_dropped(stack(FILE), version)
    newer = [
        f"service web: {key}: ignored: the Engine API has it from version {since} on"
        for key, _, since in (each.partition("|") for each in also)
    ]
    assert sorted(lines) == sorted(ALWAYS + newer)


def test_nothing_else_is_taken_out() -> None:
    old, _ = without_dropped(stack(FILE), "1.41")
    container = old.services[0].spec["TaskTemplate"]["ContainerSpec"]
    assert container["Healthcheck"] == {"Test": ["CMD-SHELL", "a"]}
    assert "OomScoreAdj" not in container
    volume, first, second, third = container["Mounts"]
    assert volume["VolumeOptions"]["NoCopy"]
    assert not {"Consistency", "Subpath"} & {*volume, *volume["VolumeOptions"]}
    assert [one.get("BindOptions") for one in (first, second, third)] == [
        {},
        {"Propagation": "rslave"},
        {"NonRecursive": True},
    ]
    assert old.networks[0].spec["IPAM"] == {"Config": [{"Subnet": "10.0.0.0/24"}]}
    new, _ = without_dropped(stack(FILE), "1.46")
    assert new.services[0].spec["TaskTemplate"]["ContainerSpec"]["OomScoreAdj"] == 5


def test_a_stack_without_any_of_it_is_as_it_was() -> None:
    plain = stack("services: {web: {image: x, volumes: [/a]}}")
    assert without_dropped(plain, "1.41") == (plain, [])


def test_an_engine_that_is_upgraded_gets_what_it_could_not_have_before() -> None:
    """And until then a second deployment has nothing to do."""

    def at(version: str) -> DesiredStack:
        return without_dropped(stack("services: {web: {image: x, oom_score_adj: 5}}"), version)[0]

    swarm = deployed("services: {web: {image: x}}")
    assert planned(at("1.45"), swarm.live()) == []
    (change,) = planned(at("1.46"), swarm.live())
    assert change.fields["TaskTemplate.ContainerSpec.OomScoreAdj"] == {"from": None, "to": 5}
