"""How the command line is read before any command runs."""

from __future__ import annotations

import json

import pytest

from swarmkit.cli.main import hoisted, main
from swarmkit.errors import Exit, OperationFailed, Problems, Unreachable, UsageError
from swarmkit.services.scale import parse_scales, plan_scale
from swarmkit.swarm import Service


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["status", "-o", "json"], ["-o", "json", "status"]),
        (["init", "--dry-run", "-i", "x.yml", "-v"], ["-i", "x.yml", "-v", "init", "--dry-run"]),
        (["status", "--output=json"], ["--output=json", "status"]),
        (["ssh", "m1", "--", "ls", "-v", "-i"], ["ssh", "m1", "--", "ls", "-v", "-i"]),
        (["-y", "reset"], ["-y", "reset"]),
        (["status", "-o"], ["-o", "status"]),
        (["status", "-ojson", "-iother.yml"], ["-ojson", "-iother.yml", "status"]),
        (["exec", "-it", "web", "--", "sh"], ["exec", "-it", "web", "--", "sh"]),
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


def test_a_service_meant_twice_under_two_names_is_refused() -> None:
    labels = {"com.docker.stack.namespace": "web"}
    spec = {"Name": "web_web", "Labels": labels, "Mode": {"Replicated": {"Replicas": 1}}}
    raw = {"ID": "1", "Spec": spec}
    with pytest.raises(UsageError, match="web_web is named twice"):
        plan_scale([Service.of(raw)], {"web": 1, "web_web": 2})


@pytest.mark.parametrize("verbose", [[], ["-v"]])
def test_verbose_adds_a_traceback_and_keeps_the_exit_code(
    verbose: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["-i", "/nowhere/inventory.yml", "status", *verbose])
    assert raised.value.code == Exit.USAGE
    said = capsys.readouterr().err
    assert "error: /nowhere/inventory.yml: no such file" in said
    assert ("Traceback" in said) == bool(verbose)


def test_a_mistake_of_our_own_is_called_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("swarmkit.target.resolve", broken)
    with pytest.raises(SystemExit) as raised:
        main(["status", "-o", "json"])
    assert raised.value.code == Exit.FAILED
    out, err = capsys.readouterr()
    assert json.loads(out)["error"]["message"] == "internal error: ZeroDivisionError: ours"
    assert "please report it" in err
    assert "Traceback" not in err


def test_what_stands_behind_a_double_dash_says_nothing_about_our_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["-i", "/nowhere/inventory.yml", "ssh", "m1", "--", "kubectl", "-o", "json"])
    assert capsys.readouterr().out == ""


def test_several_errors_end_with_the_code_of_what_explains_the_others() -> None:
    assert Problems([OperationFailed("a"), Unreachable("b"), UsageError("c")]).exit == Exit.UNREACHABLE
    assert Problems([OperationFailed("a"), UsageError("c")]).exit == Exit.USAGE
