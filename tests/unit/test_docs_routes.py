"""The guide to routes: it lists the labels that there are, and its examples work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from swarmkit.balancer.routes import LABEL_NAMES, routes
from swarmkit.swarm import Service

PAGE = (Path(__file__).parents[2] / "docs" / "routes.md").read_text(encoding="utf-8")
EXAMPLES: list[dict[str, Any]] = [
    yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
]


def labels(example: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {name: one["deploy"]["labels"] for name, one in example["services"].items()}


def test_the_table_has_exactly_the_labels_that_are_known() -> None:
    listed = re.findall(r"^\| `swarmkit\.lb\.(\w+)` \|", PAGE, re.MULTILINE)
    assert listed == list(LABEL_NAMES)


def test_every_label_has_an_example() -> None:
    used = {key.rsplit(".", 1)[1] for one in EXAMPLES for some in labels(one).values() for key in some}
    assert used == set(LABEL_NAMES)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: ",".join(one["services"]))
def test_the_examples_can_be_deployed(example: dict[str, Any]) -> None:
    services = [
        Service.of({"ID": name, "Spec": {"Name": name, "Labels": some}})
        for name, some in labels(example).items()
    ]
    found = routes(services)
    assert found.errors == []
    assert {route.service for route in found.routes} | {"web-next"} >= set(example["services"])
