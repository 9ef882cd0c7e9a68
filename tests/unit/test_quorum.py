"""The managers' majority."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkit.cluster.quorum import Quorum, majority, refusal


def quorum(managers: int, reachable: int) -> Quorum:
    names = [f"m{number}" for number in range(managers)]
    return Quorum(frozenset(names), frozenset(names[:reachable]))


@pytest.mark.parametrize(
    ("managers", "needed", "may_fail"), [(1, 1, 0), (2, 2, 0), (3, 2, 1), (4, 3, 1), (5, 3, 2), (7, 4, 3)]
)
def test_a_majority_is_more_than_half(managers: int, needed: int, may_fail: int) -> None:
    assert majority(managers) == needed
    assert quorum(managers, managers).spare == may_fail


def test_the_last_manager_may_not_go_and_no_force_helps() -> None:
    error = refusal(quorum(1, 1), quorum(1, 1).without(["m0"]), "taking m0 out of the swarm")
    assert error is not None
    assert error.message.startswith("m0 is the only manager")
    assert "--force" not in error.hint


def test_a_dead_manager_may_go_where_a_living_one_may_not() -> None:
    now = quorum(3, 2)
    assert refusal(now, now.without(["m2"]), "taking m2 out") is None
    error = refusal(now, now.without(["m0"]), "taking m0 out")
    assert error is not None
    assert "bring m2 back first" in error.hint


@given(st.integers(1, 9), st.integers(0, 9), st.integers(0, 8))
def test_nothing_is_refused_that_leaves_a_majority(managers: int, reachable: int, index: int) -> None:
    now = quorum(managers, min(reachable, managers))
    then = now.without([f"m{index}"])
    left = [name for name in then.managers if name in then.reachable]
    is_fine = bool(then.managers) and 2 * len(left) > len(then.managers)
    assert (refusal(now, then, "this") is None) == is_fine
