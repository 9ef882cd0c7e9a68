"""What doctor makes of answers: who is asked, what counts as healthy, and how it is told."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from swarmkit.cli.doctor import _show
from swarmkit.cluster import doctor
from swarmkit.cluster.doctor import ELECTION_TRIES, Diagnosis, examine, examine_engine
from swarmkit.cluster.findings import Finding, Severity
from swarmkit.errors import Exit, SwarmkitError, Unreachable
from swarmkit.inventory import Host, Inventory
from swarmkit.remote import EngineError, Finished, Outcomes
from swarmkit.ui import Output, Ui
from tests.unit.test_health import node
from tests.unit.test_preflight import HOSTS


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


def printed(node_id: str = "", *, manager: bool = False) -> str:
    """What the script prints on a sound machine, in a swarm or (without an id) not."""
    swarm = {
        "LocalNodeState": "active" if node_id else "inactive",
        "NodeID": node_id,
        "ControlAvailable": manager,
    }
    info = json.dumps({"ServerVersion": "26.1.5", "Swarm": swarm})
    modules = "module=overlay\nmodule=vxlan\nmodule=ip_vs\nmodule=br_netfilter"
    return f"arch=x86_64\nengine=yes\ncli=yes\ncgroup.memory=yes\n{modules}\ninfo={info}\n"


@dataclass
class FakeFleet:
    """Hosts that print what is given by name, or cannot be reached; their engines answer in turn."""

    inventory: Inventory
    prints: Mapping[str, str]
    engines: list[FakeEngine] = field(default_factory=list)

    def map(self, work: Callable[[Host], Any], hosts: Iterable[Host] | None = None) -> Outcomes[Any]:
        outcomes: Outcomes[Any] = Outcomes()
        for host in self.inventory.hosts if hosts is None else hosts:
            try:
                outcomes.values[host.name] = work(host)
            except SwarmkitError as error:
                outcomes.errors[host.name] = error
        return outcomes

    def connection(self, host: Host) -> FakeConnection:
        if host.name not in self.prints:
            raise Unreachable("no answer", where=host.name, hint="is it up?")
        return FakeConnection(self.prints[host.name])

    def engine(self, _host: Host) -> FakeEngine:
        return self.engines.pop(0) if len(self.engines) > 1 else self.engines[0]


@dataclass
class FakeConnection:
    """A connection over which every script prints the same."""

    text: str

    def open(self) -> None:
        pass

    def run(self, _script: str) -> Finished:
        return Finished("fake", self.text, "", 0)


LEADERLESS = FakeEngine({"/nodes": EngineError("The swarm does not have a leader.", 503)})
ANSWERING = FakeEngine(EMPTY)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ELECTION_SECONDS", 0.0)


def examined(
    prints: Mapping[str, str], *engines: FakeEngine, hosts: tuple[Host, ...] = HOSTS[:1]
) -> Diagnosis:
    fleet = FakeFleet(Inventory("c", hosts), prints, list(engines))
    return examine(fleet, QUIET)  # type: ignore[arg-type]


MANAGER = printed("id-m1", manager=True)


def test_a_machine_that_is_well_in_a_swarm_that_is_well() -> None:
    found = examined({"m1": MANAGER}, ANSWERING)
    assert (found.findings, found.exit) == ([], Exit.OK)


def test_an_election_is_waited_for() -> None:
    found = examined({"m1": MANAGER}, *[LEADERLESS] * (ELECTION_TRIES - 1), ANSWERING)
    assert found.exit is Exit.OK


def test_a_leader_that_does_not_come_is_a_lost_quorum() -> None:
    found = examined({"m1": MANAGER}, LEADERLESS)
    assert ([one.code for one in found.findings], found.exit) == (["quorum-lost"], Exit.FAILED)


@pytest.mark.parametrize(
    ("prints", "code", "leaves"),
    [
        ({}, "host-unreachable", Exit.UNREACHABLE),
        ({"m1": printed()}, "no-swarm", Exit.FAILED),
        ({"m1": printed("id-m1")}, "no-manager", Exit.UNREACHABLE),
        ({"m1": "engine=yes\n" + printed().split("info=")[0]}, "engine-down", Exit.FAILED),
    ],
)
def test_what_keeps_the_swarm_from_being_seen_is_named(
    prints: dict[str, str], code: str, leaves: Exit
) -> None:
    found = examined(prints)
    assert code in {one.code for one in found.findings}
    assert found.exit is leaves


def test_a_manager_whose_engine_breaks_off_is_named_and_another_one_asked() -> None:
    two = {"m1": MANAGER, "w1": printed("id-w1", manager=True)}
    broken = FakeEngine({"/nodes": EngineError("no space left on device", 500)})
    found = examined(two, broken, ANSWERING, hosts=HOSTS[:2])
    assert ("engine-down", "m1") in {(one.code, one.host) for one in found.findings}
    assert "1 manager, 1 reachable: none may fail" in found.checked
