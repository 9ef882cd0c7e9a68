"""Revisions: what they keep, what a rollback leads to, and that no secret is in them."""

from __future__ import annotations

import base64
import lzma
import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from swarmkit.deploy.history import (
    NAME_LIMIT,
    Revision,
    Snapshot,
    choose,
    decode,
    decode_all,
    encode,
    is_revision,
    short,
)
from swarmkit.deploy.plan import plan_return, plan_stack, snapshot
from swarmkit.errors import OperationFailed, UsageError
from swarmkit.names import REVISION_LABEL, STATE_LABEL
from tests.unit.stackswarm import Swarm, deployed, stack

ONE = "services: {web: {image: x, environment: {LEVEL: debug}, configs: [c]}}\nconfigs: {c: {content: one}}"
TWO = ONE.replace("image: x", "image: y").replace("content: one", "content: two")


def kept(revision: Revision, state: str = "done") -> dict[str, Any]:
    """A revision as the engine gives it."""
    labels = {REVISION_LABEL: str(revision.number), STATE_LABEL: state}
    data = base64.b64encode(encode(revision)).decode()
    spec = {"Name": "swarmkit-rev-st-1", "Labels": labels, "Data": data}
    return {"ID": "id1", "CreatedAt": "2026-01-01T10:00:00.123456789Z", "Spec": spec}


def revision(swarm: Swarm, number: int = 1) -> Revision:
    now = snapshot(swarm.live())
    return Revision(number, "me@here", "stack up st", ("update service st_web",), Snapshot(), now)


def test_a_revision_comes_back_from_the_swarm_as_it_went() -> None:
    made = revision(deployed(ONE))
    found = decode(kept(made))
    assert found == replace(made, time=found.time, id="id1", changes=["update service st_web"])
    assert found.time == datetime(2026, 1, 1, 10, 0, 0, 123456, tzinfo=UTC)
    assert found.json()["images"] == {"st_web": "x:latest"}
    assert found.json()["state"] == "done"


def test_revisions_are_told_apart_from_other_configs_and_put_in_order() -> None:
    swarm = deployed(ONE)
    raws = [kept(revision(swarm, number)) for number in (10, 9)]
    assert not any(is_revision(one) for one in swarm.live().configs)
    assert [one.number for one in decode_all([*raws, *swarm.live().configs])] == [9, 10]


@pytest.mark.parametrize("data", [b"?", lzma.compress(b"?"), lzma.compress(b'{"who": "me"}')])
def test_a_revision_of_another_making_is_named(data: bytes) -> None:
    raw = kept(revision(deployed(ONE)))
    raw["Spec"]["Data"] = base64.b64encode(data).decode()
    with pytest.raises(OperationFailed, match="cannot read the revision") as caught:
        decode_all([raw])
    assert caught.value.where == "swarmkit-rev-st-1"


def test_no_secret_is_in_a_revision() -> None:
    swarm = deployed("services: {web: {image: x}}", [("key", b"hunter2")])
    text = lzma.decompress(encode(revision(swarm))).decode()
    assert "st_key" in text
    assert "hunter2" not in text
    assert base64.b64encode(b"hunter2").decode() not in text


def test_a_revision_that_a_swarm_cannot_hold_is_refused_before_anything_is_done() -> None:
    huge = {"st_web": {"Env": [random.Random(1).randbytes(600 * 1024).hex()]}}
    with pytest.raises(OperationFailed, match="at most 500 KB"):
        encode(Revision(1, "", "", (), Snapshot(), Snapshot(services=huge)))


def test_a_rollback_leads_to_a_revision_or_to_what_was_before_the_newest() -> None:
    swarm = deployed(ONE)
    desired = stack(TWO)
    swarm.deploy(desired, plan_stack(desired, swarm.live()))
    first, second = swarm.revisions
    assert choose(swarm.revisions, None) == second.before
    assert choose(swarm.revisions, 1) == first.after
    with pytest.raises(UsageError) as caught:
        choose(swarm.revisions, 3)
    assert caught.value.hint == "revisions kept: 1, 2"
    with pytest.raises(UsageError, match="no revision"):
        choose([], None)


def test_a_rollback_gives_the_specs_and_contents_of_then_and_keeps_the_scale_of_now() -> None:
    swarm = deployed(ONE)
    was = swarm.services["st_web"]["Spec"]
    desired = stack(TWO)
    swarm.deploy(desired, plan_stack(desired, swarm.live()))
    swarm.services["st_web"]["Spec"]["Mode"]["Replicated"]["Replicas"] = 7
    plan = plan_return("st", swarm.revisions[0].after, swarm.live())
    (change,) = plan.changes
    assert set(change.fields) >= {"image", "configs.c.ConfigName"}
    swarm.apply(plan.changes)
    now = swarm.services["st_web"]["Spec"]
    assert now["Mode"] == {"Replicated": {"Replicas": 7}}
    assert {**now, "Mode": was["Mode"]} == was
    assert plan_return("st", swarm.revisions[0].after, swarm.live()).changes == []
    # And the file of then has nothing more to do.
    assert plan_stack(stack(ONE), swarm.live()).changes == []


def test_what_a_stack_was_before_a_deployment_that_was_cut_short_is_what_the_next_returns_to() -> None:
    swarm = deployed(ONE)
    desired = stack(TWO)
    swarm.deploy(desired, plan_stack(desired, swarm.live()))
    left = replace(swarm.live(), revisions=[replace(swarm.revisions[-1], is_open=True)])
    assert left.before() == swarm.revisions[-1].before != snapshot(swarm.live())
    assert swarm.live().before() == snapshot(swarm.live())


def test_a_revision_whose_config_is_gone_cannot_be_returned_to() -> None:
    swarm = deployed(ONE)
    del swarm.configs["st_c"]
    with pytest.raises(OperationFailed, match="the config st_c, which that revision needs, is gone"):
        plan_return("st", swarm.revisions[0].after, swarm.live())


def test_a_stack_that_was_not_there_goes_as_a_whole() -> None:
    swarm = deployed(ONE, [("key", b"x")])
    live = replace(swarm.live(), revisions=[replace(swarm.revisions[0], is_open=True)])
    swarm.apply(plan_return("st", Snapshot(), live).changes)
    assert not any((swarm.services, swarm.configs, swarm.secrets, swarm.networks))


@pytest.mark.parametrize("stack_name", ["web", "s" * 61])
def test_names_of_a_stack_s_own_objects_fit_and_differ(stack_name: str) -> None:
    name = short("swarmkit-rev-", stack_name, "-123")
    assert len(name) <= NAME_LIMIT
    assert name.endswith("-123")
    assert name != short("swarmkit-rev-", f"{stack_name[:-1]}t", "-123")
