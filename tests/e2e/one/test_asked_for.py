"""What people have asked of Swarm for years, by the threads they asked in; docs/asked-for.md lists all of it.

Here is what only a swarm can prove and no other test does.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import Swarmkit
from tests.e2e.conftest import Lab

IMAGE = "swarmkit/base:13"
# Answers whatever it is asked with "who are you?", as a private registry does.
REGISTRY = r"""
use IO::Socket::INET;
my $server = IO::Socket::INET->new(LocalAddr => "127.0.0.1:5999", Listen => 20, ReuseAddr => 1) or die $!;
alarm 300;
while (my $client = $server->accept) {
    sysread $client, my $asked, 65536;
    # It is tried with TLS first.
    next unless $asked =~ /^[A-Z]/;
    my $words = '{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}';
    print $client "HTTP/1.1 401 Unauthorized\r\nDocker-Distribution-Api-Version: registry/2.0\r\n",
        "WWW-Authenticate: Basic realm=\"private\"\r\nContent-Type: application/json\r\n",
        "Content-Length: ", length $words, "\r\nConnection: close\r\n\r\n$words";
    close $client;
}
"""


def service(script: str = "exec sleep 1000", **more: Any) -> dict[str, Any]:
    return {
        "image": IMAGE,
        "command": ["sh", "-c", script],
        "stop_signal": "SIGKILL",
        "deploy": {"update_config": {"monitor": "500ms"}, "restart_policy": {"delay": "100ms"}},
        **more,
    }


def healthy(test: str) -> dict[str, Any]:
    return {"healthcheck": {"test": ["CMD-SHELL", test], "interval": "200ms", "start_period": "1m"}}


def write(folder: Path, services: dict[str, Any], **top: Any) -> str:
    path = folder / "compose.yml"
    path.write_text(yaml.safe_dump({"services": services, **top}))
    return str(path)


def up(sk: Swarmkit, path: str, stack: str, *options: str) -> Any:
    """Deploy; each test has a stack of its own, for removing one takes longer than making one."""
    return sk.json("stack", "up", path, "--name", stack, *options)


def inspected(lab: Lab, name: str) -> dict[str, Any]:
    (found,) = json.loads(lab.shell("m1", f"docker service inspect {name}"))
    return dict(found)


def when(text: str) -> datetime:
    # The engine counts in billionths of a second.
    return datetime.fromisoformat(text[:26].rstrip("Z") + "+00:00")


def last_change(lab: Lab, name: str) -> datetime:
    """When the one task of a service came into the state that it is in."""
    (task,) = json.loads(lab.shell("m1", f"docker inspect $(docker service ps -q {name})"))
    return when(task["Status"]["Timestamp"])


def test_cli_373_the_command_ends_when_the_stack_runs(lab: Lab, sk: Swarmkit, tmp_path: Path) -> None:
    slow = service("sleep 1; touch /tmp/ready; exec sleep 1000", **healthy("test -f /tmp/ready"))
    assert up(sk, write(tmp_path, {"web": slow}), "waits")["converged"]
    # Swarm calls a task with a health check running when it is healthy.
    states = "docker service ps waits_web --format '{{.CurrentState}}'"
    assert lab.shell("m1", states).startswith("Running")


def test_moby_35048_new_content_of_configs_and_secrets_is_deployed(sk: Swarmkit, tmp_path: Path) -> None:
    services = {"a": service(configs=["c"], secrets=["s"])}
    (tmp_path / "s.txt").touch(mode=0o600)
    for content in ("one", "two"):
        (tmp_path / "s.txt").write_text(content)
        top = {"configs": {"c": {"content": content}}, "secrets": {"s": {"file": "s.txt"}}}
        assert up(sk, write(tmp_path, services, **top), "content")["converged"]
        assert sk("exec", "content_a", "--", "cat", "/c", "/run/secrets/s").stdout == 2 * content


def test_moby_40364_depends_on_is_followed(lab: Lab, sk: Swarmkit, tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {
            "web": service(
                depends_on={
                    "db": {"condition": "service_healthy"},
                    "prepare": {"condition": "service_completed_successfully"},
                }
            ),
            "db": service("sleep 1; touch /tmp/ready; exec sleep 1000", **healthy("test -f /tmp/ready")),
            "prepare": service("sleep 1", deploy={"mode": "replicated-job"}),
        },
    )
    assert up(sk, path, "order")["converged"]
    sent = when(inspected(lab, "order_web")["CreatedAt"])
    assert sent > last_change(lab, "order_db")
    assert sent > last_change(lab, "order_prepare")
    # What has been done is not done again.
    assert up(sk, path, "order")["changed"] == 0


def test_cli_53_a_dry_run_shows_what_would_change_and_changes_nothing(
    lab: Lab, sk: Swarmkit, tmp_path: Path
) -> None:
    up(sk, write(tmp_path, {"web": service()}), "dry")
    everything = "docker config ls -q; docker service ls -q; docker service inspect dry_web"
    before = lab.shell("m1", everything)
    path = write(tmp_path, {"web": service(environment={"LEVEL": "debug"}), "new": service()})
    shown = sk("stack", "up", path, "--name", "dry", "--dry-run").stdout
    assert "update service dry_web: env.LEVEL debug" in shown
    assert "create service dry_new" in shown
    assert lab.shell("m1", everything) == before


def test_moby_30253_one_service_is_deployed_and_moby_31115_the_others_are_left_alone(
    lab: Lab, sk: Swarmkit, tmp_path: Path
) -> None:
    up(sk, write(tmp_path, {"a": service(), "b": service()}), "only")
    before = inspected(lab, "only_b")["Version"]
    path = write(tmp_path, {name: service(environment={"NEW": "1"}) for name in ("a", "b")})
    (change,) = up(sk, path, "only", "--only", "a")["changes"]
    assert (change["name"], change["fields"]) == ("only_a", {"env.NEW": {"from": None, "to": "1"}})
    assert inspected(lab, "only_b")["Version"] == before


def test_moby_29133_variables_come_from_the_env_file_beside_the_stack(
    lab: Lab, sk: Swarmkit, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("LEVEL=debug\n")
    up(sk, write(tmp_path, {"a": service(environment={"LEVEL": "${LEVEL:?}"})}), "env")
    assert inspected(lab, "env_a")["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"] == ["LEVEL=debug"]


def test_moby_52570_an_image_that_is_denied_is_not_called_missing(
    lab: Lab, sk: Swarmkit, tmp_path: Path
) -> None:
    lab.shell("m1", f"cat >/tmp/private.pl <<'END'\n{REGISTRY}\nEND\nperl -c /tmp/private.pl")
    pid = lab.shell("m1", "perl /tmp/private.pl >/dev/null 2>&1 & echo $!").strip()
    try:
        path = write(tmp_path, {"a": service() | {"image": "127.0.0.1:5999/private/box:1"}})
        refused = sk("stack", "up", path, "--name", "private", code=4)
    finally:
        lab.shell("m1", f"kill {pid}")
    assert "denies access" in refused.error
    assert "docker login" in refused.stderr
    assert "no such image on" not in refused.stderr
