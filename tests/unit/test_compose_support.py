"""The page that lists what of Compose works is made from the code, and is current."""

from __future__ import annotations

import runpy
from pathlib import Path

from swarmkit.compose.matrix import Key, keys

ROOT = Path(__file__).parents[2]

# docker/cli, cli/compose/types: what its client warns that it ignores, and what it calls deprecated.
_DOCKER_IGNORES = (
    "build cgroupns_mode cgroup_parent devices domainname external_links ipc links mac_address network_mode"
    " pid privileged restart security_opt shm_size userns_mode container_name expose"
)


def test_the_page_is_what_the_code_says() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "compose-support.py"))
    assert script["PATH"].read_text(encoding="utf-8") == script["text"](), "run: make docs"


def test_every_key_has_one_status() -> None:
    found = keys()
    assert len({(key.section, key.name) for key in found}) == len(found)


def test_keys_are_found_inside_lists_and_mappings_by_name() -> None:
    found = keys()
    assert Key("services.NAME.ports[]", "target", "supported") in found
    assert Key("services.NAME.deploy.placement.preferences[]", "spread", "supported") in found
    assert Key("networks.NAME.ipam.config[]", "subnet", "supported") in found
    assert Key("services.NAME", "extends", "supported") in found


def test_what_docker_ignores_is_ignored_with_a_word_or_done() -> None:
    status = {key.name: key for key in keys() if key.section == "services.NAME"}
    for name in _DOCKER_IGNORES.split():
        assert status[name].status == ("supported" if name in ("build", "restart") else "ignored")
    assert all(key.note for key in status.values() if key.status == "ignored")
