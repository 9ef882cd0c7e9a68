"""Secrets on a real swarm: their values are in the containers that get them, and nowhere else.

A stack that takes secrets in every way is deployed, changed, fails and returns once, is rolled back and
removed, while the processes here and on the node are watched; the tests look for the values in all that was
left.
"""

from __future__ import annotations

import base64
import json
import lzma
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from secrets import token_hex

import pytest

from tests.conftest import Swarmkit
from tests.e2e.conftest import Lab
from tests.terminal import typed

# Nothing but our own registry answers for it, and the node has it already.
IMAGE = "127.0.0.1:5055/me/app:1"
INPUTS = """\
prompted: {type: secret, description: asked for}
from_file: {type: secret, constraints: [{pattern: "tell-[a-z0-9-]+"}]}
from_env: {type: secret}
program: {default: sleep}
"""
STACK = f"""\
services:
  app:
    image: {IMAGE}
    command: [ [[ program | yaml ]], "600"]
    stop_signal: SIGKILL
    healthcheck: {{test: ["CMD", "true"], interval: 200ms}}
    secrets: [prompted, from_file, from_env, plain, variable]
    deploy: {{restart_policy: {{delay: 0s}}, update_config: {{monitor: 200ms}}}}
secrets:
  prompted: {{environment: SWARMKIT_INPUT_PROMPTED}}
  from_file: {{environment: SWARMKIT_INPUT_FROM_FILE}}
  from_env: {{environment: SWARMKIT_INPUT_FROM_ENV}}
  plain: {{file: ../given/plain}}
  variable: {{environment: APP_VARIABLE}}
"""
# A registry that lets in whoever has a password, has nothing, and writes down who came: backwards, so that
# this is not taken for the password itself. An engine tries TLS first.
REGISTRY = r"""cat >/run/registry.pl <<'END'
use IO::Socket::INET;
my $server = IO::Socket::INET->new(LocalAddr => "127.0.0.1:5055", Listen => 9, ReuseAddr => 1) or die;
while (my $client = $server->accept) {
  recv $client, my $first, 1, 2;
  next if ord($first) == 0x16;
  my $who = "";
  while (my $line = <$client>) {
    $line =~ s/\r?\n$//;
    last if $line eq "";
    $who = $1 if $line =~ /^Authorization: Basic (.*)/i;
  }
  if ($who) { open my $file, ">", "/run/who-came"; print $file scalar reverse $who; close $file }
  my $answer = $who ? "404 Not Found" : "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"r\"";
  print $client "HTTP/1.1 $answer\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
}
END
systemd-run --quiet --collect --unit fake-registry perl /run/registry.pl
"""
WATCH = """
touch /run/watched
while [ -e /run/watched ]; do
  cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null
  sleep 0.1
done | tr '\\0' '\\n' | awk '!seen[$0]++'
"""
SWARM = """
for kind in service config secret network volume node; do
  docker $kind ls -q | xargs -r docker $kind inspect
done
docker ps -aq | xargs -r docker inspect
docker service ls -q | xargs -r docker service ps -q | xargs -r docker inspect
"""
# What was written on the node since the beginning. Other file systems hold what is the swarm's own.
FILES = """
journalctl -o json --output-fields=MESSAGE,_CMDLINE --since "@$(stat -c %Y /run/began)"
find / /tmp /run /var/lib/docker/containers -xdev -newer /run/began -type f ! -path '*/journal/*' -print0 |
  xargs -0 -r cat | tr -c '[:print:]\\n' ' '
"""


def new_value() -> str:
    return f"tell-{token_hex(12)}-nobody"


@dataclass
class Told:
    """What a run of the whole has left; `values` are the secrets by what they are."""

    values: dict[str, str] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)
    output: str = ""
    processes: set[bytes] = field(default_factory=set)
    node_processes: str = ""
    swarm: str = ""
    configs: list[bytes] = field(default_factory=list)
    node_files: str = ""
    files: dict[Path, bytes] = field(default_factory=dict)
    who_came: str = ""

    def secret(self, name: str) -> str:
        return self.values.setdefault(name, new_value())

    def betrayed_by(self, data: str | bytes) -> list[str]:
        """The names of the secrets whose values are in `data`, as they are or in base64 or hex."""
        data = data.encode() if isinstance(data, str) else data
        return [name for name, value in self.values.items() if any(form in data for form in forms(value))]


def forms(value: str) -> Iterator[bytes]:
    plain = value.encode()
    yield plain
    yield plain.hex().encode()
    for before in range(3):
        # In the midst of something else: without the digits that others have a part in.
        digits = base64.b64encode(bytes(before) + plain)
        yield digits[-(-before * 8 // 6) : (before + len(plain)) * 8 // 6]


@contextmanager
def watched(lab: Lab, told: Told) -> Iterator[None]:
    """Collect the arguments and the environments of all processes, here and on the node."""
    is_over = threading.Event()

    def here() -> None:
        while not is_over.wait(0.1):
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    arguments = (folder / "cmdline").read_bytes()
                    told.processes.add(arguments)
                    # The command itself was given them so.
                    if b"-m\0swarmkit\0" not in arguments:
                        told.processes.add((folder / "environ").read_bytes())
                except OSError:
                    continue

    def there() -> None:
        told.node_processes = lab.shell("m1", WATCH)

    threads = [threading.Thread(target=here), threading.Thread(target=there)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        lab.shell("m1", "rm /run/watched")
        for thread in threads:
            thread.join()


@pytest.fixture(scope="module")
def told(lab: Lab, sk: Swarmkit) -> Told:
    folder = sk.folder
    for name in ("home", "temporary", "given", "app"):
        (folder / name).mkdir()
    told = Told()
    login = base64.b64encode(f"me:{told.secret('the registry')}".encode()).decode()
    config = json.dumps({"auths": {"127.0.0.1:5055": {"auth": login}}})
    (folder / "given" / "config.json").write_text(config)
    environment = {
        "HOME": str(folder / "home"),
        "SWARMKIT_HOME": str(folder / "home" / "swarmkit"),
        "TMPDIR": str(folder / "temporary"),
        "DOCKER_CONFIG": str(folder / "given"),
    }
    sk = replace(sk, environment=sk.environment | environment)
    lab.shell("m1", f"touch /run/began; docker tag swarmkit/base:13 {IMAGE}\n{REGISTRY}")
    with watched(lab, told):
        live(Life(lab, sk, folder, told))
    told.node_files = lab.shell("m1", FILES)
    told.who_came = lab.shell("m1", "cat /run/who-came; systemctl stop fake-registry")
    given = folder / "given"
    told.files = {
        path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and given not in path.parents
    }
    return told


@dataclass
class Life:
    """What is done with the stack."""

    lab: Lab
    sk: Swarmkit
    folder: Path
    told: Told

    def give(self, name: str, value: str) -> str:
        path = self.folder / "given" / name
        path.write_text(value)
        return str(path)

    def __call__(self, *arguments: str, code: int = 0, variables: Mapping[str, str] | None = None) -> None:
        done = self.sk(*arguments, code=code, environment=variables)
        self.told.output += done.stdout + done.stderr

    def up(self, turn: str, *options: str, code: int = 0) -> None:
        """Deploy with new values for all, none of them typed."""
        self.give("plain", self.told.secret(f"plain {turn}"))
        files = [
            f"--secret-file={name}={self.give(name, self.told.secret(f'{name} {turn}'))}"
            for name in ("prompted", "from_file")
        ]
        variables = {
            "SWARMKIT_INPUT_FROM_ENV": self.told.secret(f"from_env {turn}"),
            "APP_VARIABLE": self.told.secret(f"variable {turn}"),
        }
        self("stack", "up", str(self.folder / "app"), *files, *options, code=code, variables=variables)


def live(life: Life) -> None:
    told, app = life.told, life.folder / "app"
    (app / "inputs.yml").write_text(INPUTS)
    (app / "stack.yml.j2").write_text(STACK)
    life.give("plain", told.secret("plain"))
    file = f"--secret-file=from_file={life.give('from_file', told.secret('from_file'))}"
    variables = {
        "SWARMKIT_INPUT_FROM_ENV": told.secret("from_env"),
        "APP_VARIABLE": told.secret("variable"),
    }
    shown = typed(
        life.sk.command("stack", "up", str(app), file),
        life.sk.environment | variables,
        {"prompted (asked for):": told.secret("prompted")},
    )
    assert shown.endswith("exit 0"), shown
    told.output += shown
    read = "cd /run/secrets; for one in *; do echo $one $(cat $one); done"
    lines = life.lab.shell("m1", f"docker exec $(docker ps -q --filter name=app_app) sh -c '{read}'")
    told.contents = dict(line.split() for line in lines.splitlines())

    life.up("planned", "--dry-run", "-v")
    life.up("changed", "-o", "json")
    life.up("failed", "--set", "program=nope", "-v", code=4)
    for command in ("history", "ps", "logs"):
        life("stack", command, "app")
    life("service", "explain", "app")
    life("stack", "rollback", "app", "--dry-run", "-v")
    life("stack", "rollback", "app", "-v")
    told.swarm = life.lab.shell("m1", SWARM)
    told.configs = [
        base64.b64decode(one["Spec"]["Data"])
        for one in json.loads(life.lab.shell("m1", "docker config ls -q | xargs docker config inspect"))
    ]
    mistakes(life)
    life("stack", "down", "app", "-v")


def mistakes(life: Life) -> None:
    """Errors about secrets, and what is shown without a cluster."""
    told, app = life.told, str(life.folder / "app")
    (life.folder / "given" / "plain").unlink()
    giving = [
        f"--secret-file={name}={life.give(name, told.secret(f'{name} of mistakes'))}"
        for name in ("prompted", "from_file", "from_env")
    ]
    variable = {"APP_VARIABLE": told.secret("variable of mistakes")}
    life("stack", "render", app, *giving, "-o", "json", variables=variable)
    life("stack", "up", app, *giving, "-v", code=2, variables=variable)
    assert "plain cannot be read: no such file" in told.output
    life.give("plain", told.secret("plain too large") * 20_000)
    life("stack", "render", app, "--resolved", *giving, "-v", code=2, variables=variable)
    assert "bytes as a secret, this is" in told.output
    life.give("plain", told.secret("plain"))
    life("stack", "render", app, "--resolved", *giving, variables=variable)
    life.give("from_file", f"DO-NOT-{told.secret('of another form')}")
    life("stack", "render", app, *giving, "-v", code=2, variables=variable)
    assert "expected text of the form" in told.output
    values = life.give("values.yml", f"from_file: {told.secret('in values')}\n")
    life("stack", "render", app, "--values", values, "-o", "json", code=2)
    assert "cannot be given here" in told.output


def test_the_containers_have_them(told: Told) -> None:
    names = ("prompted", "from_file", "from_env", "plain", "variable")
    assert told.contents == {name: told.values[name] for name in names}


def test_what_is_searched_would_have_them(told: Told) -> None:
    assert any(arguments == b"sleep\x00600\x00" for arguments in told.processes), "the node's processes too"
    assert any(b"-m\0swarmkit\0" in arguments for arguments in told.processes)
    assert "sleep\n600\n" in told.node_processes
    for sample in ("tell me", "xtell me", "xxtell me"):
        assert any(form in base64.b64encode(sample.encode()) for form in forms("tell me"))
    assert "app_from_env" in told.swarm
    assert [one for one in told.configs if one.startswith(b"\xfd7zXZ")], "revisions"
    assert "dockerd" in told.node_files


def test_no_output_tells_them(told: Told) -> None:
    assert "rolled back" in told.output or "returning app to what it was" in told.output
    assert "app: gone" in told.output
    assert told.betrayed_by(told.output) == []


def test_no_argument_list_and_no_environment_of_another_process_has_them(told: Told) -> None:
    assert [found for one in told.processes if (found := told.betrayed_by(one))] == []
    assert told.betrayed_by(told.node_processes) == []


def test_nothing_that_the_swarm_tells_has_them(told: Told) -> None:
    assert told.betrayed_by(told.swarm) == []
    contents = [lzma.decompress(one) if one.startswith(b"\xfd7zXZ") else one for one in told.configs]
    assert [found for one in contents if (found := told.betrayed_by(one))] == []


def test_no_file_here_and_no_file_or_log_of_the_node_has_them(told: Told) -> None:
    assert {path: found for path, data in told.files.items() if (found := told.betrayed_by(data))} == {}
    assert told.betrayed_by(told.node_files) == []


def test_the_password_of_a_registry_comes_to_the_registry(told: Told) -> None:
    came = base64.b64decode(told.who_came.strip()[::-1]).decode()
    assert came == f"me:{told.values['the registry']}"
