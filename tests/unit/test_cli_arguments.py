"""How the command line is read before any command runs."""

from __future__ import annotations

import pytest

from swarmkit.cli.main import hoisted
from swarmkit.errors import Exit, OperationFailed, Problems, Unreachable, UsageError
from swarmkit.services.scale import parse_scales


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["status", "-o", "json"], ["-o", "json", "status"]),
        (["init", "--dry-run", "-i", "x.yml", "-v"], ["-i", "x.yml", "-v", "init", "--dry-run"]),
        (["status", "--output=json"], ["--output=json", "status"]),
        (["ssh", "m1", "--", "ls", "-v", "-i"], ["ssh", "m1", "--", "ls", "-v", "-i"]),
        (["-y", "reset"], ["-y", "reset"]),
        (["status", "-o"], ["-o", "status"]),
    ],
)
def test_global_options_may_stand_anywhere_before_a_double_dash(
    given: list[str], expected: list[str]
) -> None:
    assert hoisted(given) == expected


def test_scales_are_numbers_by_name() -> None:
    assert parse_scales(["web=7", "db_main=0"]) == {"web": 7, "db_main": 0}


@pytest.mark.parametrize("argument", ["web=-1", "web=x", "web", "=3", "web=", "web=1.5", "web=³"])
def test_a_scale_of_another_form_is_refused(argument: str) -> None:
    with pytest.raises(UsageError, match="expected SERVICE=N") as raised:
        parse_scales([argument])
    assert raised.value.exit == Exit.USAGE


def test_all_bad_scales_are_reported_at_once() -> None:
    with pytest.raises(Problems) as raised:
        parse_scales(["web=-1", "db=x", "web=2"])
    assert len(raised.value.errors) == 2


def test_several_errors_end_with_the_code_of_what_explains_the_others() -> None:
    assert Problems([OperationFailed("a"), Unreachable("b"), UsageError("c")]).exit == Exit.UNREACHABLE
    assert Problems([OperationFailed("a"), UsageError("c")]).exit == Exit.USAGE
