"""The example of docs/templates.md is one that works."""

from __future__ import annotations

import re
from pathlib import Path

from swarmkit.deploy.catalogue import find
from swarmkit.deploy.cluster import Cluster
from swarmkit.deploy.draft import draft
from swarmkit.deploy.values import Given

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "templates.md"


def test_the_example_of_the_guide_renders(tmp_path: Path) -> None:
    example = GUIDE.read_text().partition("## An example")[2]
    inputs, template = re.findall(r"```yaml\n(.*?)```", example, re.DOTALL)
    (tmp_path / "inputs.yml").write_text(inputs)
    (tmp_path / "stack.yml.j2").write_text(template)
    environment = {"SWARMKIT_INPUT_PASSWORD": "a long password"}
    made = draft(find(str(tmp_path)), Given(["memory=4GiB"], environment=environment))
    assert made.needs_cluster
    text = made.render(Cluster(())).text
    assert 'command: ["work", "--heap", "3072m"]' in text
    assert "stop_grace_period: 1m30s" in text
    assert "memory: 4294967296" in text
    assert "a long password" not in text
