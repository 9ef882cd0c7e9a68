"""What doctor makes of answers: who is asked, what counts as healthy, and how it is told."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import pytest

from swarmkit.cli.doctor import _show
from swarmkit.cluster.doctor import Diagnosis, examine_engine
from swarmkit.cluster.findings import Finding, Severity
from swarmkit.errors import Exit
from swarmkit.remote import EngineError
from swarmkit.ui import Output, Ui
from tests.unit.test_health import node


def finding(severity: Severity, code: str = "some-code", host: str = "w1", hint: str = "do this") -> Finding:
    return Finding(code, severity, host, f"{code} is wrong", hint)


@pytest.mark.parametrize(
    ("severities", "reached", "code"),
    [
        ((), True, Exit.OK),
        ((Severity.WARNING, Severity.NOTE), True, Exit.OK),
        ((Severity.NOTE, Severity.ERROR), True, Exit.FAILED),
        ((Severity.ERROR,), False, Exit.UNREACHABLE),
    ],
)
def test_the_exit_code_tells_what_is_broken_from_what_is_not_there(
    severities: tuple[Severity, ...], reached: bool, code: Exit
) -> None:
    found = Diagnosis("c", [finding(one) for one in severities], reached=reached)
    assert found.exit is code
    assert found.is_healthy is (Severity.ERROR not in severities)


def test_the_document_has_all_that_the_lines_have() -> None:
    found = Diagnosis("c", [finding(Severity.ERROR)], ["one machine"], 1.5)
    assert found.json() == {
        "cluster": "c",
        "healthy": False,
        "findings": [
            {
                "code": "some-code",
                "severity": "error",
                "host": "w1",
                "message": "some-code is wrong",
                "hint": "do this",
            }
        ],
        "checked": ["one machine"],
        "seconds": 1.5,
    }


def shown(found: Diagnosis) -> str:
    out = io.StringIO()
    _show(Ui(Output.TEXT, stdout=out), found)
    return out.getvalue()


def test_one_finding_on_several_machines_is_a_line_and_an_equal_hint_stands_once() -> None:
    found = Diagnosis(
        "c",
        [
            finding(Severity.ERROR, host="w1"),
            finding(Severity.ERROR, host="w2"),
            finding(Severity.ERROR, "other-code", host=""),
            finding(Severity.WARNING, "third-code", hint=""),
        ],
        ["2 machines"],
        2.04,
    )
    assert shown(found) == (
        "cluster c\n"
        "error: some-code: w1, w2: some-code is wrong\n"
        "  do this\n"
        "error: other-code: other-code is wrong\n"
        "warning: third-code: w1: third-code is wrong\n"
        "looked at 2 machines\n"
        "2 problems, 1 warning (2.0 s)\n"
    )


def test_a_swarm_that_is_well_is_called_healthy() -> None:
    assert shown(Diagnosis("c", [finding(Severity.NOTE)])).endswith("\nhealthy (0.0 s)\n")


class FakeEngine:
    """An engine that answers from a table, or with an error."""

    name = "unix:///run/docker.sock"

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.answers = answers

    def get(self, path: str, _params: object = None) -> Any:
        answer = self.answers[path]
        if isinstance(answer, EngineError):
            raise answer
        return answer


QUIET = Ui(stderr=io.StringIO())
EMPTY: dict[str, Any] = {
    "/nodes": [node("m1", "manager").raw],
    "/services": [],
    "/tasks": [],
    "/networks": [],
    "/swarm": {},
    "/info": {"SystemTime": "2026-05-04T12:00:00.123456789Z"},
}


def test_an_engine_alone_is_enough_for_the_swarms_own_side() -> None:
    found = examine_engine(FakeEngine(EMPTY), QUIET)  # type: ignore[arg-type]
    assert found.findings == []
    assert found.checked[0].startswith("1 manager, 1 reachable: none may fail")
    assert "not the machines" in found.checked[-1]


@pytest.mark.parametrize(
    "said",
    [
        "The swarm does not have a leader. It's possible that too few managers are online.",
        "code = DeadlineExceeded desc = context deadline exceeded",
    ],
)
def test_a_manager_without_a_leader_is_a_finding(said: str) -> None:
    answers = EMPTY | {"/nodes": EngineError(said, 503)}
    found = examine_engine(FakeEngine(answers), QUIET)  # type: ignore[arg-type]
    assert [one.code for one in found.findings] == ["quorum-lost"]
    assert "the managers have no leader" in found.findings[0].message


def test_an_engine_that_is_no_manager_is_an_error() -> None:
    answers = EMPTY | {"/nodes": EngineError("This node is not a swarm manager.", 503)}
    with pytest.raises(EngineError, match="not a swarm manager"):
        examine_engine(FakeEngine(answers), QUIET)  # type: ignore[arg-type]
