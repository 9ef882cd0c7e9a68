"""From any of twenty stacks to any other: the same as from nothing, and back again."""

from __future__ import annotations

from typing import Any

import pytest

from swarmkit.compose.convert import DesiredStack
from swarmkit.deploy.history import Revision
from swarmkit.deploy.plan import contents, plan_return, plan_stack, snapshot
from swarmkit.names import SPEC_LABEL
from tests.twenty import FILES
from tests.unit.stackswarm import Swarm, stack

STACKS: list[DesiredStack] = [stack(text, [*secrets.items()]) for text, secrets in FILES]


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow hashes are slow."""
    monkeypatch.setattr(contents, "_COST", 16)


def held(swarm: Swarm) -> dict[str, Any]:
    found = {name: swarm.meaning(name) for name in swarm.services}
    for kind in ("networks", "configs", "secrets"):
        found[kind] = len(getattr(swarm, kind))
    networks = {name: {**one, "Id": None} for name, one in swarm.networks.items()}
    return found | {"networks": networks}


@pytest.mark.parametrize("start", range(len(STACKS)))
def test_from_any_stack_to_any_other_is_the_same_as_from_nothing(start: int) -> None:
    for target in STACKS:
        swarm, fresh = Swarm(), Swarm()
        swarm.deploy(STACKS[start], plan_stack(STACKS[start], swarm.live()))
        swarm.deploy(target, plan_stack(target, swarm.live(), prune=True))
        fresh.apply(plan_stack(target, fresh.live()).changes)
        assert plan_stack(target, swarm.live(), prune=True).changes == []
        for name in fresh.services:
            assert swarm.meaning(name) == fresh.meaning(name)
        assert set(swarm.services) == set(fresh.services)
        assert held(swarm)["networks"] == held(fresh)["networks"]


@pytest.mark.parametrize("start", range(len(STACKS)))
def test_from_any_stack_any_other_is_taken_back(start: int) -> None:
    for target in STACKS:
        swarm = Swarm()
        swarm.deploy(STACKS[start], plan_stack(STACKS[start], swarm.live()))
        before, to = swarm.live(), snapshot(swarm.live())
        # As when it fails: what is removed at the end is still there.
        plan = plan_stack(target, swarm.live(), prune=True)
        swarm.revisions.append(Revision(2, "", "", (), to, to, is_open=True))
        swarm.apply([one for one in plan.changes if one.action != "remove" or one.early])
        swarm.apply(plan_return("st", to, swarm.live()).changes)
        now = swarm.live()
        assert plan_return("st", to, now).changes == []
        assert {one["Spec"]["Name"]: one["Spec"]["Labels"][SPEC_LABEL] for one in now.services} == {
            one["Spec"]["Name"]: one["Spec"]["Labels"][SPEC_LABEL] for one in before.services
        }
        assert {name: one["Spec"] for name, one in swarm.configs.items()} == {
            one["Spec"]["Name"]: one["Spec"] for one in before.configs
        }
        assert set(swarm.secrets) == {one["Spec"]["Name"] for one in before.secrets}
        assert set(swarm.networks) == {one["Name"] for one in before.networks}
