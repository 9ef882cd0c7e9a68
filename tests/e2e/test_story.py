"""The story: from three bare machines to a balanced web site, through failures, and back to nothing.

The tests run in the order of the file, on one lab; each begins where the one before ended.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from swarmkit.inventory.edit import remove_host
from tests.conftest import Swarmkit, eventually
from tests.e2e.conftest import LAB, Lab

THREE = {"m1", "wn1", "wn2"}


@pytest.fixture(scope="module")
def lab(machines: Callable[[int], Lab]) -> Lab:
    return machines(3)


@pytest.fixture
def sk(lab: Lab) -> Swarmkit:
    return lab.swarmkit


def answers(lab: Lab, count: int = 40) -> Counter[tuple[str, str]]:
    """Which task on which node answers how many of `count` requests to the balancer."""
    seen: Counter[tuple[str, str]] = Counter()
    for _ in range(count):
        with urllib.request.urlopen(f"{lab.url}/whoami", timeout=10) as answer:
            who = json.load(answer)
        seen[who["task"], who["node"]] += 1
    return seen


def web_tasks(sk: Swarmkit) -> list[dict[str, str]]:
    return [task for task in sk.json("service", "ps", "web") if task["desired"] == "running"]


def web(sk: Swarmkit) -> dict[str, object]:
    found: dict[str, object] = next(one for one in sk.json("status")["services"] if one["name"] == "web_web")
    return found


def test_a_dry_run_says_what_would_be_done_and_does_nothing(lab: Lab, sk: Swarmkit) -> None:
    report = sk.json("init", "--dry-run")
    assert report["changed"] == 0
    assert {action["status"] for action in report["actions"]} == {"planned"}
    assert {action["host"] for action in report["actions"] if action["phase"] == "engine"} == THREE
    sk("init", "--dry-run", "--detailed-exitcode", code=5)
    assert lab.shell("wn1", "command -v dockerd || echo none").strip() == "none"


def test_init_that_was_interrupted_is_completed_by_the_next(lab: Lab, sk: Swarmkit) -> None:
    running = subprocess.Popen(
        sk.command("init"), env=sk.environment, cwd=sk.folder, stderr=subprocess.PIPE, text=True
    )
    # In the middle of installing, on a real machine: dpkg is at work, and goes on when its caller is gone.
    unpacking = "pgrep -f 'dpkg .*--unpack' || true"
    eventually(lambda: bool(lab.shell("wn1", unpacking).strip()), 60, "dpkg unpacks on wn1")
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "interrupted" in said
    assert "Traceback" not in said

    report = sk.json("init")
    assert report["changed"] > 0
    assert {action["status"] for action in report["actions"]} == {"done"}
    nodes = sk.json("status")["nodes"]
    assert {node["name"] for node in nodes} == THREE
    assert {(node["status"], node["availability"]) for node in nodes} == {("ready", "active")}
    assert [node["name"] for node in nodes if node["role"] == "manager" and node["leader"]] == ["m1"]
    assert {node["address"] for node in nodes} == {node["address"] for node in lab.nodes.values()}


def test_init_again_changes_nothing(sk: Swarmkit) -> None:
    assert sk.json("init")["changed"] == 0
    assert "nothing to do" in sk("init").stdout


def test_a_manager_will_do_instead_of_an_inventory(lab: Lab, sk: Swarmkit, tmp_path: Path) -> None:
    ssh = tmp_path / ".ssh"
    ssh.mkdir(mode=0o700)
    for source, name in (("id_ed25519", "id_ed25519"), ("known_hosts", "known_hosts")):
        shutil.copy(lab.inventory.parent / source, ssh / name)
    plain = Swarmkit({**sk.environment, "HOME": str(tmp_path)}, folder=tmp_path)
    engine = f"ssh://swarmkit@127.0.0.1:{lab.nodes['m1']['ssh_port']}"
    assert {node["name"] for node in plain.json("--engine", engine, "node", "ls")} == THREE
    assert "an engine" in plain("--engine", engine, "init", code=2).error


def test_a_noop_init_costs_one_connection_and_two_sessions_a_host(lab: Lab, sk: Swarmkit) -> None:
    for name in THREE:
        lab.shell(
            name,
            "sed -i '/^LogLevel/d' /etc/ssh/sshd_config; sed -i '1i LogLevel VERBOSE' /etc/ssh/sshd_config\n"
            "systemctl restart ssh",
        )
    before = {name: int(lab.shell(name, "date +%s")) for name in THREE}
    time.sleep(1.1)  # the journal is asked by whole seconds
    sk("init")
    for name in THREE:
        # The last connection in the log is the one that asks.
        log = lab.shell(name, f"journalctl -u ssh --since @{before[name] + 1} -o cat")
        logins = log.count("Accepted publickey") - 1
        sessions = log.count("Starting session: command") - 1
        assert logins == 1, log
        assert 1 <= sessions <= 2, log


def test_a_template_has_the_facts_of_the_real_nodes(lab: Lab, sk: Swarmkit, tmp_path: Path) -> None:
    (tmp_path / "stack.yml.j2").write_text(
        "[% for n in cluster.nodes %][[ n.name ]] [[ n.role ]] [[ n.address ]] [[ n.cpus ]] [[ n.memory ]]\n"
        "[% endfor %][[ cluster.managers | length ]] [[ cluster.available | length ]] [[ cluster.cpus ]]\n"
    )
    *found, totals = [line.split() for line in sk("stack", "render", str(tmp_path)).stdout.splitlines()]
    assert {name: (role, address) for name, role, address, _, _ in found} == {
        name: ("manager" if name == "m1" else "worker", lab.nodes[name]["address"]) for name in THREE
    }
    cpus = {name: lab.shell(name, "nproc").strip() for name in THREE}
    assert {name: count for name, _, _, count, _ in found} == cpus
    assert all(int(memory) > 2**20 for *_, memory in found)
    assert totals == ["1", "3", str(sum(int(count) for count in cpus.values()))]


def test_no_token_was_ever_in_an_argument_list_or_a_log(lab: Lab) -> None:
    tokens = lab.shell("m1", "docker swarm join-token -q worker; docker swarm join-token -q manager").split()
    assert len(tokens) == 2
    for name in THREE:
        log = lab.shell(name, "journalctl -o cat; cat /var/log/auth.log 2>/dev/null || true")
        assert "SWMTKN" not in log.replace("docker swarm join-token", "")


def test_a_stack_comes_up_on_several_nodes(lab: Lab, sk: Swarmkit) -> None:
    result = sk.json("stack", "up", "web")
    assert result["converged"]
    assert result["urls"] == [f"{lab.url}/"]
    assert (web(sk)["running"], web(sk)["desired"]) == (3, 3)
    seen = answers(lab)
    assert len(seen) == 3
    assert len({node for _, node in seen}) >= 2


def test_the_same_stack_again_changes_nothing(sk: Swarmkit) -> None:
    before = {task["address"] for task in web_tasks(sk)}
    assert sk.json("stack", "up", "web", "--dry-run")["changed"] == 0
    assert sk.json("stack", "up", "web")["changed"] == 0
    assert {task["address"] for task in web_tasks(sk)} == before


def test_the_page_names_the_task_and_the_node(lab: Lab) -> None:
    with urllib.request.urlopen(lab.url, timeout=10) as answer:
        page = answer.read().decode()
    assert "web_web." in page
    assert any(name in page for name in THREE)


def test_the_balancer_logs_who_asked_and_who_answered(lab: Lab, sk: Swarmkit) -> None:
    answers(lab, 5)
    upstreams = {f"{task['address']}:80" for task in web_tasks(sk)}

    def logged() -> bool:
        lines = sk.json("service", "logs", "swarmkit-lb_proxy", "--tail", "20")
        return any(f" to {upstream}" in line["text"] for line in lines for upstream in upstreams)

    eventually(logged, 10, "the balancer's log names the tasks")


def test_scale_ends_when_so_many_tasks_run(lab: Lab, sk: Swarmkit) -> None:
    result = sk.json("scale", "web=7")
    (change,) = result["changes"]
    assert (change["kind"], change["name"], change["action"]) == ("service", "web_web", "update")
    assert change["fields"] == {"replicas": {"from": 3, "to": 7}}
    assert result["converged"]
    assert len([task for task in web_tasks(sk) if task["state"] == "running"]) == 7
    eventually(lambda: len(answers(lab, 60)) == 7, 20, "all seven tasks answer")
    assert sk.json("scale", "web=7")["changed"] == 0


def test_drain_ends_when_the_node_is_empty_and_all_tasks_run_elsewhere(lab: Lab, sk: Swarmkit) -> None:
    sk("node", "drain", "wn2")
    tasks = web_tasks(sk)
    assert {task["node"] for task in tasks} == {"m1", "wn1"}
    assert len([task for task in tasks if task["state"] == "running"]) == 7
    assert lab.shell("wn2", "docker ps -q").strip() == ""
    eventually(lambda: {node for _, node in answers(lab)} == {"m1", "wn1"}, 20, "only the others answer")
    sk("node", "activate", "wn2")
    assert {node["availability"] for node in sk.json("node", "ls")} == {"active"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("scale", "nothing=2"), 2, 'no service is called "nothing"'),
        (("scale", "web=-1"), 2, 'expected SERVICE=N with N a whole number from 0 up, got "web=-1"'),
        (("scale", "web=x"), 2, "expected SERVICE=N"),
        (("scale", "swarmkit-lb_proxy=2"), 2, "is global (one task a node) and cannot be scaled"),
        (("service", "ps", "nothing"), 2, 'no service is called "nothing"'),
        (("node", "drain", "wn9"), 2, 'no node is called "wn9"'),
        (("stack", "down", "nothing"), 2, 'no stack is called "nothing"'),
        (("stack", "up", "nothing"), 2, 'there is no stack "nothing"'),
        (("leave", "m1"), 2, "m1 is the only manager"),
        (("ssh", "nobody"), 2, 'no machine is called "nobody"'),
    ],
)
def test_what_cannot_be_meant_is_refused(
    sk: Swarmkit, arguments: tuple[str, ...], code: int, words: str
) -> None:
    assert words in sk(*arguments, code=code).error
    document = sk(*arguments, "-o", "json", code=code).json
    assert document["error"]["code"] == code
    assert words in document["error"]["message"]


def test_a_service_that_nothing_can_run_is_refused_before_anything_is_made(sk: Swarmkit) -> None:
    file = sk.folder / "stuck.yml"
    file.write_text(
        "services:\n  box:\n    image: none/such:1\n"
        "    deploy: {placement: {constraints: [node.labels.no==1]}}\n"
    )
    error = sk("stack", "up", str(file), "--name", "stuck", code=2).error
    assert "stuck_box: no node fits: 3 of 3 nodes lack the label no=1 (constraint node.labels.no==1)" in error
    assert "stuck_box" not in [one["name"] for one in sk.json("service", "ls")]


def test_an_image_that_is_not_to_be_had_is_reported(sk: Swarmkit) -> None:
    file = sk.folder / "broken.yml"
    file.write_text(
        "services:\n  box:\n    image: registry.swarmkit.internal:5000/none/such:1\n"
        "    deploy: {restart_policy: {delay: 100ms}}\n"
    )
    error = sk("stack", "up", str(file), "--name", "broken", code=4).error
    assert "broken_box: 0 of 1 tasks run: no such image on " in error
    sk("stack", "down", "broken", code=2)


def test_an_image_named_by_tag_runs_by_digest_and_another_under_the_tag_is_seen(
    lab: Lab, sk: Swarmkit
) -> None:
    image = "registry.swarmkit.internal:5000/tests/box:1"

    def push(mark: str) -> None:
        lab.shell(
            "m1",
            f"""set -e
            mkdir -p /tmp/tagged/bin; cp /bin/sleep /bin/true /tmp/tagged/bin; echo {mark} >/tmp/tagged/mark
            for library in $(ldd /tmp/tagged/bin/* | grep -o '/[^ :]*lib[^ :]*' | sort -u); do
              mkdir -p "/tmp/tagged$(dirname $library)"; cp -L $library "/tmp/tagged$library"
            done
            tar -C /tmp/tagged -c . | docker import - {image} >/dev/null
            docker push -q {image}""",
        )

    file = sk.folder / "tagged.yml"
    file.write_text(
        f"services:\n  box:\n    image: {image}\n    command: sleep 1000\n    stop_signal: SIGKILL\n"
        "    healthcheck: {test: [CMD, 'true'], interval: 300ms}\n"
    )
    up = ("stack", "up", str(file), "--name", "tagged")
    push("one")
    sk(*up)
    runs = "docker service inspect tagged_box --format '{{.Spec.TaskTemplate.ContainerSpec.Image}}'"
    first = lab.shell("m1", runs).strip()
    assert re.fullmatch(f"{image}@sha256:[0-9a-f]{{64}}", first)
    push("two")
    (change,) = sk.json(*up, "--dry-run")["changes"]
    assert (change["action"], change["fields"].keys()) == ("update", {"image"})
    found = change["fields"]["image"]
    assert found["from"] == first
    assert re.fullmatch(f"{image}@sha256:[0-9a-f]{{64}}", found["to"])
    assert found["to"] != first
    sk("stack", "down", "tagged")


def test_a_new_stack_deploys_as_it_is_and_what_it_requires_stays(lab: Lab, sk: Swarmkit) -> None:
    sk("stack", "new", "blog", "--in", str(sk.folder))
    folder = sk.folder / "blog"
    template = folder / "stack.yml.j2"
    template.write_text(f"x-swarmkit: {{requires: [web]}}\n{template.read_text()}")
    sk("stack", "up", str(folder), "--name", "blog2", "--set", "title=Hello, blog", "--set", "replicas=1")
    with urllib.request.urlopen(f"{lab.url}/blog2/", timeout=10) as answer:
        assert b"<h1>Hello, blog</h1>" in answer.read()
    refused = sk("stack", "down", "web", code=2).error
    assert "web: blog2 requires it" in refused
    sk("stack", "down", "blog2")


def test_an_update_that_fails_is_rolled_back_and_the_site_goes_on(lab: Lab, sk: Swarmkit) -> None:
    before = {task["address"] for task in web_tasks(sk)}
    image = "image=registry.swarmkit.internal:5000/none/such:1"
    failed = sk("stack", "up", "web", "--set", "replicas=7", "--set", image, "-o", "json", code=4)
    assert failed.json["error"]["rolled_back"]
    assert "no such image on " in failed.json["error"]["message"]
    assert {task["address"] for task in web_tasks(sk)} == before
    assert len(answers(lab)) > 1
    # What went wrong then is no obstacle now.
    sk("stack", "up", "web", "--set", "replicas=7")


def test_after_a_power_cut_the_manager_alone_serves_without_a_hand(lab: Lab, sk: Swarmkit) -> None:
    for name in THREE:
        lab.power("off", name)
    lab.power("on", "m1")

    def served() -> bool:
        try:
            return {node for _, node in answers(lab, 10)} == {"m1"}
        except OSError:
            return False

    eventually(served, 120, "the site answers from the manager")
    eventually(lambda: web(sk)["running"] == 7, 60, "all replicas run on the manager")


def test_a_node_that_is_off_is_named_with_exit_code_3(sk: Swarmkit) -> None:
    done = sk("init", code=3)
    assert "wn1: swarmkit@127.0.0.1" in done.error
    assert "wn2: swarmkit@127.0.0.1" in done.error


def test_workers_that_come_back_are_ready_again(lab: Lab, sk: Swarmkit) -> None:
    for name in ("wn1", "wn2"):
        lab.power("on", name)
    assert sk.json("init")["changed"] == 0
    assert {node["status"] for node in sk.json("node", "ls")} == {"ready"}


def test_a_machine_that_has_lost_its_swarm_is_made_a_node_again(lab: Lab, sk: Swarmkit) -> None:
    lab.shell("wn2", "docker swarm leave")
    eventually(
        lambda: any(node["status"] == "down" for node in sk.json("node", "ls")), 30, "the swarm notices it"
    )
    report = sk.json("init")
    assert {action["host"] for action in report["actions"]} == {"wn2"}
    assert sorted(node["name"] for node in sk.json("node", "ls")) == sorted(THREE)
    assert {node["status"] for node in sk.json("node", "ls")} == {"ready"}


def test_a_machine_joins_and_leaves_and_the_inventory_knows(
    machines: Callable[[int], Lab], lab: Lab, sk: Swarmkit
) -> None:
    grown = machines(4)
    fourth = grown.nodes["wn3"]
    # As if the machine were news to the inventory.
    assert remove_host(lab.inventory, "wn3")
    done = sk(
        *("join", f"swarmkit@127.0.0.1:{fourth['ssh_port']}", "--name", "wn3"),
        *("--private-address", fourth["address"], "--label", "disk=ssd"),
    )
    assert "wn3 is a worker" in done.stdout
    entry = yaml.safe_load(lab.inventory.read_text())["workers"][-1]
    assert (entry["name"], entry["labels"]) == ("wn3", {"disk": "ssd"})
    node = next(node for node in sk.json("node", "ls") if node["name"] == "wn3")
    assert (node["status"], node["labels"]["disk"]) == ("ready", "ssd")
    assert sk.json("join", "wn3")["changed"] == 0

    # What it needs it pulls, also when it joined after the image was built, and without the internet.
    grown.shell("wn3", "ip route del default")
    sk("node", "drain", "wn1", "wn2")
    eventually(lambda: any(task["node"] == "wn3" for task in web_tasks(sk)), 30, "wn3 runs tasks")
    sk("node", "activate", "wn1", "wn2")

    sk("leave", "wn3")
    assert {node["name"] for node in sk.json("node", "ls")} == THREE
    assert "wn3" not in lab.inventory.read_text()
    assert grown.shell("wn3", "docker info --format '{{.Swarm.LocalNodeState}}'").strip() == "inactive"
    assert "registry.swarmkit" not in grown.shell(
        "wn3", "cat /etc/hosts; ls /etc/docker/certs.d 2>/dev/null || true"
    )
    assert web(sk)["running"] == 7


def test_down_leaves_nothing_of_the_stack(lab: Lab, sk: Swarmkit) -> None:
    sk("stack", "down", "web")
    assert [one["name"] for one in sk.json("service", "ls")] == ["swarmkit_registry"]
    for name in THREE:
        assert lab.shell(name, "docker ps -q --filter label=com.docker.stack.namespace=web").strip() == ""
    networks = lab.shell("m1", "docker network ls --format '{{.Name}}'").split()
    assert "web_default" not in networks


def test_reset_takes_every_machine_out_of_the_swarm(lab: Lab, sk: Swarmkit) -> None:
    guessed = Swarmkit(sk.environment, folder=sk.folder)
    assert "the cluster was guessed" in guessed("reset", "-y", code=2).error
    report = sk.json("reset")
    # The engines let go of 4789/udp, the port of overlay traffic, a moment later.
    assert not [name for name in THREE if ":12B5 " in lab.shell(name, "cat /proc/net/udp /proc/net/udp6")]
    assert {action["host"] for action in report["actions"]} == THREE
    for name in THREE:
        assert lab.shell(name, "docker info --format '{{.Swarm.LocalNodeState}}'").strip() == "inactive"
    assert sk.json("reset")["changed"] == 0
    assert LAB in [one["name"] for one in sk.json("lab", "ls")]
