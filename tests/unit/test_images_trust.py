"""Trust: what hosts are found to lack, and what the scripts for them do on a file system."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmkit.errors import OperationFailed, Problems, SwarmkitError, UsageError
from swarmkit.images import CA_DIR, CERTS_DIR, REGISTRY_DIR, REGISTRY_NAME
from swarmkit.images.ca import Authority, fingerprint
from swarmkit.images.trust import (
    FACTS,
    REMOVE,
    CopyCa,
    IssueClient,
    IssueServer,
    MakeCa,
    MapName,
    RemoveCa,
    RemoveServer,
    TrustFacts,
    TrustPlan,
    apply_trust,
    plan_trust,
    script,
)
from swarmkit.inventory import Host, Role
from swarmkit.remote import Outcomes

ADDRESS = "10.0.0.1"
CA = "a" * 64
OTHER = "b" * 64
WORKER = TrustFacts(hosts_ip=ADDRESS, node_ca=CA, client=CA)
MANAGER = replace(WORKER, ca=CA, ca_key=True)
REGISTRY = replace(MANAGER, server=CA)
NOTHING = TrustFacts()


def host(name: str) -> Host:
    role = Role.MANAGER if name.startswith("m") else Role.WORKER
    return Host(name, f"{name}.example", "root", role=role, private_address=f"10.0.0.{name[1:]}")


HOSTS = [host("m1"), host("m2"), host("w1"), host("w2")]
ALL_RIGHT = {"m1": REGISTRY, "m2": MANAGER, "w1": WORKER, "w2": WORKER}


def plan(facts: dict[str, TrustFacts], registry: str = "m1", address: str = ADDRESS) -> TrustPlan:
    return plan_trust(HOSTS, facts, registry, address)


def test_nothing_to_do_where_all_is_in_place() -> None:
    assert plan(ALL_RIGHT) == TrustPlan((), CA, "m1")


def test_a_new_cluster_gets_an_authority_and_everything_from_it() -> None:
    assert plan(dict.fromkeys(ALL_RIGHT, NOTHING)) == TrustPlan(
        (
            MakeCa("m1"),
            IssueServer("m1"),
            IssueClient("m1"),
            MapName("m1", ADDRESS),
            CopyCa("m2"),
            IssueClient("m2"),
            MapName("m2", ADDRESS),
            IssueClient("w1"),
            MapName("w1", ADDRESS),
            IssueClient("w2"),
            MapName("w2", ADDRESS),
        )
    )


def test_a_new_worker_gets_a_certificate_and_the_name() -> None:
    assert plan(ALL_RIGHT | {"w2": NOTHING}).actions == (IssueClient("w2"), MapName("w2", ADDRESS))


def test_a_new_manager_gets_the_authority_too() -> None:
    found = plan(ALL_RIGHT | {"m2": NOTHING})
    assert found.actions == (CopyCa("m2"), IssueClient("m2"), MapName("m2", ADDRESS))
    assert found.ca_from == "m1"


def test_a_moved_registry_has_a_new_server_certificate_and_a_new_address_everywhere() -> None:
    assert plan(ALL_RIGHT, "m2", "10.0.0.2").actions == (
        RemoveServer("m1"),
        MapName("m1", "10.0.0.2"),
        IssueServer("m2"),
        MapName("m2", "10.0.0.2"),
        MapName("w1", "10.0.0.2"),
        MapName("w2", "10.0.0.2"),
    )


def test_an_unreadable_key_is_copied_from_another_manager() -> None:
    found = plan(ALL_RIGHT | {"m1": replace(REGISTRY, ca_key=False)})
    assert found == TrustPlan((CopyCa("m1"),), CA, "m2")


def test_a_lost_key_means_a_new_authority_for_all() -> None:
    lost = {name: replace(facts, ca_key=False) for name, facts in ALL_RIGHT.items()}
    found = plan(lost)
    assert (found.authority, found.ca_from) == ("", "")
    assert found.actions == (
        MakeCa("m1"),
        IssueServer("m1"),
        IssueClient("m1"),
        CopyCa("m2"),
        IssueClient("m2"),
        IssueClient("w1"),
        IssueClient("w2"),
    )


def test_no_second_authority_is_made_while_a_manager_was_not_looked_at() -> None:
    with pytest.raises(OperationFailed, match="no reachable manager has") as caught:
        plan({"m1": NOTHING, "w1": WORKER})
    assert caught.value.where == "m2"


def test_hosts_that_were_not_looked_at_are_left_alone() -> None:
    assert plan({"m1": REGISTRY, "w1": NOTHING}).actions == (IssueClient("w1"), MapName("w1", ADDRESS))


def test_a_worker_that_was_a_manager_loses_the_key() -> None:
    assert plan(ALL_RIGHT | {"w1": MANAGER}).actions == (RemoveCa("w1"),)


def test_the_only_authority_is_saved_from_a_worker_that_was_a_manager() -> None:
    bare = replace(REGISTRY, ca="", ca_key=False)
    found = plan({"m1": bare, "m2": bare, "w1": MANAGER, "w2": WORKER})
    assert found.ca_from == "w1"
    assert [action for action in found.actions if isinstance(action, CopyCa | RemoveCa)] == [
        CopyCa("m1"),
        CopyCa("m2"),
        RemoveCa("w1"),
    ]


def test_of_two_authorities_the_one_that_most_nodes_trust_stays() -> None:
    stranger = TrustFacts(ADDRESS, OTHER, OTHER, OTHER, True, OTHER)
    found = plan(ALL_RIGHT | {"m1": stranger})
    assert (found.authority, found.ca_from) == (CA, "m2")
    assert found.actions == (CopyCa("m1"), IssueServer("m1"), IssueClient("m1"))


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "m1.example", ""])
def test_an_address_that_cannot_be_the_registrys_is_refused(address: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan(ALL_RIGHT, address=address)
    assert "private_address" in caught.value.hint


SOME_FACTS = st.builds(
    TrustFacts,
    hosts_ip=st.sampled_from(["", ADDRESS, "10.0.0.9", f"10.0.0.9,{ADDRESS}"]),
    node_ca=st.sampled_from(["", CA, OTHER]),
    client=st.sampled_from(["", CA, OTHER]),
    ca=st.sampled_from(["", CA, OTHER]),
    ca_key=st.booleans(),
    server=st.sampled_from(["", CA, OTHER]),
)


def done(facts: dict[str, TrustFacts], todo: TrustPlan) -> dict[str, TrustFacts]:
    """The facts after a plan was carried out."""
    authority = todo.authority or "c" * 64
    after = dict(facts)
    for action in todo.actions:
        change: dict[str, object] = {}
        match action:
            case MakeCa() | CopyCa():
                change = {"ca": authority, "ca_key": True}
            case RemoveCa():
                change = {"ca": "", "ca_key": False}
            case IssueServer():
                change = {"server": authority}
            case RemoveServer():
                change = {"server": ""}
            case IssueClient():
                change = {"node_ca": authority, "client": authority}
            case MapName(address=address):
                change = {"hosts_ip": address}
        after[action.host] = replace(after[action.host], **change)  # type: ignore[arg-type]
    return after


@given(st.fixed_dictionaries(dict.fromkeys(ALL_RIGHT, SOME_FACTS)), st.sampled_from(["m1", "m2"]))
def test_whatever_is_found_one_plan_sets_it_right(facts: dict[str, TrustFacts], registry: str) -> None:
    after = done(facts, plan(facts, registry))
    assert plan(after, registry).actions == ()
    assert len({each.node_ca for each in after.values()}) == 1
    assert not any(after[worker].ca_key for worker in ("w1", "w2"))


# The scripts run as they are, with the paths moved into a folder.


@dataclass
class Machine:
    """A host's file system under a folder; runs scripts there and remembers them."""

    root: Path
    ran: list[str] = field(default_factory=list)

    def run(self, script: str) -> str:
        self.ran.append(script)
        # Only the names of files differ from what runs on a host; ownership is root's to give.
        moved = script.replace("chown ", ": chown ")
        for path in ("/etc/", "/var/lib/swarmkit"):
            moved = moved.replace(path, f"{self.root}{path}")
        done = subprocess.run(["sh", "-s"], input=moved, text=True, capture_output=True, check=False)
        if done.returncode:
            raise OperationFailed(f"status {done.returncode}", where=str(self.root), hint=done.stderr)
        return done.stdout

    def facts(self) -> TrustFacts:
        lines = self.run("set -eu\n" + FACTS).splitlines()
        return TrustFacts.parse(dict(line.split("=", 1) for line in lines))

    def path(self, path: str) -> Path:
        return Path(f"{self.root}{path}")


@pytest.fixture
def machines(tmp_path: Path) -> dict[str, Machine]:
    made = {}
    for each in HOSTS:
        made[each.name] = Machine(tmp_path / each.name)
        hosts = made[each.name].path("/etc/hosts")
        hosts.parent.mkdir(parents=True)
        hosts.write_text("127.0.0.1 localhost\n# registry.swarmkit.internal is elsewhere\n")
    return made


def each(work: Callable[[Host], str], hosts: Sequence[Host]) -> Outcomes[str]:
    outcomes: Outcomes[str] = Outcomes()
    for one in hosts:
        try:
            outcomes.values[one.name] = work(one)
        except SwarmkitError as error:
            outcomes.errors[one.name] = error
    return outcomes


def carry_out(machines: dict[str, Machine], registry: str = "m1", address: str = ADDRESS) -> TrustPlan:
    facts = {name: machine.facts() for name, machine in machines.items()}
    todo = plan_trust([one for one in HOSTS if one.name in machines], facts, registry, address)
    authority = apply_trust(todo, HOSTS, lambda host, script: machines[host.name].run(script), each)
    assert authority == machines[registry].facts().ca
    return todo


def test_facts_of_an_untouched_host_are_empty(machines: dict[str, Machine]) -> None:
    assert machines["m1"].facts() == NOTHING


def test_after_apply_the_facts_are_as_planned_and_a_second_run_does_nothing(
    machines: dict[str, Machine],
) -> None:
    assert carry_out(machines).actions
    facts = {name: machine.facts() for name, machine in machines.items()}
    authority = facts["m1"].ca
    assert facts == {
        name: TrustFacts(
            hosts_ip=ADDRESS,
            node_ca=authority,
            client=authority,
            ca=authority if name.startswith("m") else "",
            ca_key=name.startswith("m"),
            server=authority if name == "m1" else "",
        )
        for name in machines
    }
    assert carry_out(machines).actions == ()


def test_one_script_a_host(machines: dict[str, Machine]) -> None:
    facts = {name: machine.facts() for name, machine in machines.items()}
    for machine in machines.values():
        machine.ran.clear()
    todo = plan_trust(HOSTS, facts, "m1", ADDRESS)
    apply_trust(todo, HOSTS, lambda host, script: machines[host.name].run(script), each)
    assert [len(machine.ran) for machine in machines.values()] == [1, 1, 1, 1]


def test_private_files_are_for_root_only(machines: dict[str, Machine]) -> None:
    carry_out(machines)
    modes = {
        path: stat.S_IMODE(machines["m1"].path(path).stat().st_mode)
        for path in (
            CERTS_DIR,
            f"{CERTS_DIR}/client.key",
            CA_DIR,
            f"{CA_DIR}/ca.key",
            REGISTRY_DIR,
            f"{REGISTRY_DIR}/server.key",
            "/etc/hosts",
        )
    }
    assert list(modes.values()) == [0o700, 0o600, 0o700, 0o600, 0o700, 0o600, 0o644]
    assert not list(machines["m1"].root.rglob("*.new"))


def test_a_joined_manager_keeps_the_same_authority(machines: dict[str, Machine]) -> None:
    late = machines.pop("m2")
    with pytest.raises(OperationFailed):
        plan_trust(HOSTS, {name: machine.facts() for name, machine in machines.items()}, "m1", ADDRESS)
    first = [one for one in HOSTS if one.name != "m2"]
    facts = {name: machine.facts() for name, machine in machines.items()}
    todo = plan_trust(first, facts, "m1", ADDRESS)
    authority = apply_trust(todo, first, lambda host, script: machines[host.name].run(script), each)
    carry_out(machines | {"m2": late})
    assert late.facts().authority == authority
    assert late.path(f"{CA_DIR}/ca.key").read_text() == machines["m1"].path(f"{CA_DIR}/ca.key").read_text()


def test_a_moved_registry_is_found_under_its_new_address(machines: dict[str, Machine]) -> None:
    carry_out(machines)
    carry_out(machines, "m2", "10.0.0.2")
    lines = machines["w1"].path("/etc/hosts").read_text().splitlines()
    assert [line for line in lines if line.startswith("10.")] == [f"10.0.0.2 {REGISTRY_NAME} # swarmkit"]
    assert not machines["m1"].path(REGISTRY_DIR).exists()


@pytest.mark.parametrize("harm", ["no key", "key for others", "no marker", "another authority"])
def test_a_harmed_client_certificate_is_issued_again(harm: str, machines: dict[str, Machine]) -> None:
    carry_out(machines)
    certs = machines["w1"].path(CERTS_DIR)
    match harm:
        case "no key":
            (certs / "client.key").unlink()
        case "key for others":
            (certs / "client.key").chmod(0o644)
        case "no marker":
            (certs / "client.issuer").unlink()
        case "another authority":
            (certs / "ca.crt").write_text(Authority.make().certificate)
    assert carry_out(machines).actions == (IssueClient("w1"),)
    assert carry_out(machines).actions == ()


def test_a_damaged_authority_is_an_error_and_changes_nothing(machines: dict[str, Machine]) -> None:
    carry_out(machines)
    machines["m1"].path(f"{CA_DIR}/ca.key").write_text("not a key")
    machines["w2"].path(f"{CERTS_DIR}/client.key").unlink()
    with pytest.raises(OperationFailed, match="damaged") as caught:
        carry_out(machines)
    assert caught.value.where == f"m1:{CA_DIR}"
    assert not machines["w2"].path(f"{CERTS_DIR}/client.key").exists()


def test_no_authority_is_made_that_no_machine_keeps(machines: dict[str, Machine]) -> None:
    todo = plan_trust(HOSTS, dict.fromkeys(ALL_RIGHT, NOTHING), "m1", ADDRESS)
    for_one = replace(todo, actions=tuple(todo.of("w1")))
    with pytest.raises(OperationFailed, match="no certificate authority yet") as caught:
        apply_trust(for_one, HOSTS, lambda host, script: machines[host.name].run(script), each)
    assert caught.value.where == "w1"


def break_hosts_file(machine: Machine) -> None:
    hosts = machine.path("/etc/hosts")
    hosts.unlink()
    hosts.mkdir()


def test_one_manager_that_fails_stops_no_other_host(machines: dict[str, Machine]) -> None:
    break_hosts_file(machines["m2"])
    with pytest.raises(OperationFailed) as caught:
        carry_out(machines)
    assert "PRIVATE" not in f"{caught.value} {caught.value.hint}"
    assert machines["w1"].path(f"{CERTS_DIR}/client.key").exists()


def test_where_no_manager_keeps_the_authority_no_host_gets_certificates(machines: dict[str, Machine]) -> None:
    for name in ("m1", "m2"):
        break_hosts_file(machines[name])
    with pytest.raises(Problems):
        carry_out(machines)
    assert not machines["w1"].path(CERTS_DIR).exists()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("127.0.0.1 localhost\n", "127.0.0.1 localhost\n"),
        ("127.0.0.1 localhost", "127.0.0.1 localhost\n"),
        ("", ""),
        (f"10.9.9.9 {REGISTRY_NAME} # swarmkit\n::1 localhost\n", "::1 localhost\n"),
        (f"10.9.9.9\tother {REGISTRY_NAME} more # both\n", "10.9.9.9 other more\n"),
        (
            f"10.9.9.9 my{REGISTRY_NAME} {REGISTRY_NAME}.org\n",
            f"10.9.9.9 my{REGISTRY_NAME} {REGISTRY_NAME}.org\n",
        ),
        (f"# 10.9.9.9 {REGISTRY_NAME}\n", f"# 10.9.9.9 {REGISTRY_NAME}\n"),
    ],
)
def test_the_other_lines_of_the_hosts_file_stay(before: str, after: str, tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.path("/etc").mkdir()
    machine.path("/etc/hosts").write_text(before)
    machine.run(script([MapName("w1", ADDRESS)], Authority("", "")))
    assert machine.path("/etc/hosts").read_text() == f"{after}{ADDRESS} {REGISTRY_NAME} # swarmkit\n"
    assert machine.facts().hosts_ip == ADDRESS
    machine.run(REMOVE)
    assert machine.path("/etc/hosts").read_text() == after


def test_a_hosts_file_that_is_a_link_is_written_through(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.path("/etc").mkdir()
    real = tmp_path / "real"
    real.write_text("127.0.0.1 localhost\n")
    machine.path("/etc/hosts").symlink_to(real)
    machine.run(script([MapName("w1", ADDRESS)], Authority("", "")))
    assert real.read_text() == f"127.0.0.1 localhost\n{ADDRESS} {REGISTRY_NAME} # swarmkit\n"
    assert machine.path("/etc/hosts").is_symlink()


def test_two_addresses_of_the_name_are_seen(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.path("/etc").mkdir()
    machine.path("/etc/hosts").write_text(f"10.0.0.2 {REGISTRY_NAME}\n10.0.0.1 x {REGISTRY_NAME}\n")
    assert machine.facts().hosts_ip == "10.0.0.2,10.0.0.1"


def test_remove_leaves_nothing_and_may_be_repeated(machines: dict[str, Machine]) -> None:
    carry_out(machines)
    for machine in machines.values():
        machine.run(REMOVE)
        machine.run(REMOVE)
        assert machine.facts() == NOTHING
        left = [path for path in machine.root.rglob("*") if path.is_file()]
        assert left == [machine.path("/etc/hosts")]


def test_keys_are_in_no_script_in_the_clear_and_in_no_action() -> None:
    authority = Authority.make()
    text = script([MakeCa("m1"), IssueServer("m1"), IssueClient("m1")], authority)
    assert "PRIVATE" not in text
    assert fingerprint(authority.certificate) not in repr(TrustPlan((MakeCa("m1"),)))
