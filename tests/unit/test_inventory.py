"""Inventory files: what is accepted, and where the mistakes of the others are."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from swarmkit.errors import Exit, Problems, SwarmkitError, UsageError
from swarmkit.inventory import Inventory, load
from swarmkit.inventory.edit import NewHost, add_host, remove_host, with_host

GOOD = """\
# our cluster
cluster: physics
defaults: {user: debian, key: id, labels: {site: pisa}}
gateways:
  - {name: bastion, address: gate.example.org, user: jump}
managers:
  - {name: m1, address: 203.0.113.5, private_address: 10.0.0.5}
workers:
  - name: w1  # the one with the disks
    address: 10.0.0.6
    port: 2222
    gateway: bastion
    labels: {disk: ssd, gpu: true, count: 2}
"""


def written(tmp_path: Path, text: str) -> Path:
    key = tmp_path / "id"
    key.write_text("a private key")
    key.chmod(0o600)
    path = tmp_path / "inventory.yml"
    path.write_text(dedent(text))
    return path


def loaded(tmp_path: Path, text: str = GOOD) -> Inventory:
    return load(written(tmp_path, text))


def mistakes(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(SwarmkitError) as raised:
        loaded(tmp_path, text)
    assert raised.value.exit == Exit.USAGE
    errors = raised.value.errors if isinstance(raised.value, Problems) else [raised.value]
    return [str(error).replace(f"{tmp_path}/", "") for error in errors]


def test_defaults_fill_in_what_a_host_leaves_out(tmp_path: Path) -> None:
    inventory = loaded(tmp_path)
    m1, w1 = inventory.hosts
    assert inventory.cluster == "physics"
    assert (m1.user, m1.port, m1.key, m1.gateway, m1.is_manager) == (
        "debian",
        22,
        tmp_path / "id",
        None,
        True,
    )
    assert (w1.port, w1.gateway, w1.private_address) == (2222, "bastion", "10.0.0.6")
    assert w1.labels == {"site": "pisa", "disk": "ssd", "gpu": "true", "count": "2"}
    assert inventory.login("bastion").user == "jump"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("managers: [", "inventory.yml:1:12: not valid YAML"),
        ("", "inventory.yml: the inventory is empty"),
        ("- a\n- b\n", "inventory.yml:1:1: expected a mapping"),
        ("managers: []\n", "inventory.yml:1:11: managers: at least one manager is needed"),
        (
            "managers: [{name: m, address: a, adress: b}]\n",
            "inventory.yml:1:42: managers[0].adress: unknown key",
        ),
        ("managers: [{name: m}]\n", "inventory.yml:1:12: managers[0].address: is required"),
        (
            "managers: [{name: m, address: a, port: 70000}]\n",
            "inventory.yml:1:40: managers[0].port: input should be less than or equal to 65535, got 70000",
        ),
        (
            "managers: [{name: m, address: a, port: ssh}]\n",
            'inventory.yml:1:40: managers[0].port: expected a whole number, got "ssh"',
        ),
        (
            "managers: [{name: m, address: a, gateway: gate}]\n",
            'inventory.yml:1:43: managers[0].gateway: no machine is called "gate"',
        ),
        (
            "managers: [{name: m, address: a, key: none.pem}]\n",
            "inventory.yml:1:39: managers[0].key: the SSH key {tmp}none.pem cannot be read: "
            "No such file or directory",
        ),
        (
            "managers: [{name: m, address: a, key: ~nosuchuser/x}]\n",
            "inventory.yml:1:39: managers[0].key: there is no user",
        ),
        (
            'managers: [{name: m, address: a, key: "a\\0b"}]\n',
            "inventory.yml:1:39: managers[0].key: a path has no",
        ),
        ("cluster: \x01\n", "inventory.yml:1:10: not valid YAML: the character U+0001 may not stand in it"),
        (
            "managers: [{name: m, address: a, user: -oProxyCommand=x}]\n",
            "inventory.yml:1:40: managers[0].user: string should match pattern",
        ),
        (
            "managers: [{name: m, address: a, private_address: m.lan}]\n",
            'inventory.yml:1:51: managers[0].private_address: expected an IP address, got "m.lan"',
        ),
        (
            "managers: [{name: m, address: a, labels: {x: [1]}}]\n",
            "inventory.yml:1:46: managers[0].labels.x: expected text, got a list",
        ),
        (
            "managers: [{name: m, address: $HOST}]\n",
            "inventory.yml:1:31: managers[0].address: HOST is not set",
        ),
        (
            "managers: [{name: m, address: '${HOST:?the manager}'}]\n",
            "inventory.yml:1:31: managers[0].address: HOST must be set: the manager",
        ),
        (
            "managers: [{name: m, address: a, connection: local, user: root}]\n",
            "inventory.yml:1:59: managers[0].user: has no meaning with `connection: local`",
        ),
        (
            "managers: [{name: m, address: a, connection: local}, {name: n, address: b, connection: local}]",
            "inventory.yml:1:88: managers[1].connection: managers[0] is this machine already",
        ),
        (
            "managers: [{name: m, name: n, address: a}]\n",
            "inventory.yml:1:22: managers[0].name: stands here twice",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    found = mistakes(tmp_path, text)
    assert len(found) == 1
    assert found[0].startswith(expected.replace("{tmp}", ""))


def test_variables_are_filled_in_from_the_environment(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "managers: [{name: m, address: $HOST, port: '${PORT:-2222}', labels: {price: 5$$, a: '${A}'}}]\n",
    )
    (host,) = load(path, environment={"HOST": "10.0.0.1", "A": "b"}).hosts
    assert (host.address, host.port, host.labels) == ("10.0.0.1", 2222, {"price": "5$", "a": "b"})


def test_a_host_whose_name_is_a_variable_is_taken_out_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NODE", "w1")
    path = written(tmp_path, "managers: [{name: m, address: a}]\nworkers: [{name: $NODE, address: b}]\n")
    assert remove_host(path, "w1")
    assert "NODE" not in path.read_text()


def test_a_mistake_of_an_added_host_is_told_of_the_inventory_itself(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    with pytest.raises(Problems) as raised:
        with_host(load(path), NewHost.parse("10.0.0.6:2222", name="w2", private_address="nowhere"))
    assert str(raised.value).startswith(f"{path}:16:")
    assert path.read_text() == GOOD


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    found = mistakes(
        tmp_path,
        """\
        managers:
          - {name: m1, address: 10.0.0.1}
          - {name: m1, address: z}
        workers:
          - {name: w1, address: b, gateway: nobody}
          - {name: w2, address: c, private_address: 10.0.0.1}
        """,
    )
    assert [line.split(": ", 1)[1] for line in found] == [
        "managers[1].name: m1 is also that of managers[0]",
        "workers[1].private_address: 10.0.0.1 is also that of managers[0]",
        'workers[0].gateway: no machine is called "nobody"',
    ]


def test_the_same_address_on_other_ports_is_another_machine(tmp_path: Path) -> None:
    inventory = loaded(
        tmp_path,
        """\
        managers: [{name: m, address: 127.0.0.1, port: 2201, private_address: 10.0.0.1}]
        workers: [{name: w, address: 127.0.0.1, port: 2202, private_address: 10.0.0.2}]
        """,
    )
    assert [host.port for host in inventory.hosts] == [2201, 2202]


def test_gateways_that_go_in_a_circle_are_refused(tmp_path: Path) -> None:
    found = mistakes(
        tmp_path,
        """\
        gateways: [{name: a, address: x, gateway: b}, {name: b, address: y, gateway: a}]
        managers: [{name: m, address: z, gateway: a}]
        """,
    )
    assert any("goes in a circle: m → a → b → a" in line for line in found)


def test_a_key_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    (tmp_path / "id").chmod(0o644)
    with pytest.raises(UsageError, match="can be read by others") as raised:
        load(path)
    assert raised.value.hint == f"chmod 600 {tmp_path / 'id'}"
    assert raised.value.where.endswith("inventory.yml:3:31")


def test_a_host_is_added_and_removed_without_touching_the_rest(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    new = NewHost.parse("root@10.0.0.9:2200", name="w9", private_address="10.1.0.9", labels=["disk=hdd"])
    inventory, host = with_host(load(path), new)
    assert path.read_text() == GOOD
    assert (host.name, host.user, host.port, host.private_address) == ("w9", "root", 2200, "10.1.0.9")
    assert inventory.source == path

    add_host(path, new)
    text = path.read_text()
    assert "# our cluster" in text
    assert "# the one with the disks" in text
    assert load(path).hosts == inventory.hosts
    assert remove_host(path, "w9")
    assert load(path).host("w9") is None
    assert "# the one with the disks" in path.read_text()
    assert not remove_host(path, "w9")


@pytest.mark.parametrize(
    ("text", "name", "user", "address", "port"),
    [
        ("10.0.0.9", "10.0.0.9", None, "10.0.0.9", None),
        ("node7.example.org", "node7", None, "node7.example.org", None),
        ("me@[fd00::7]:2222", "fd00--7", "me", "fd00::7", 2222),
    ],
)
def test_a_new_host_is_read_from_its_short_form(
    text: str, name: str, user: str | None, address: str, port: int | None
) -> None:
    new = NewHost.parse(text)
    assert (new.name, new.user, new.address, new.port) == (name, user, address, port)


@pytest.mark.parametrize("text", ["a b", "user@", "host:99999", "host:ssh", "@host"])
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        NewHost.parse(text)


def test_engine_settings_become_keys_of_daemon_json(tmp_path: Path) -> None:
    inventory = loaded(
        tmp_path,
        """\
        engine:
          log: {driver: json-file, max_size: 10m, max_file: 3}
          registry_mirrors: [https://mirror.example]
          address_pools: [{base: 172.30.0.0/16, size: 26}]
          mtu: 1450
          settings: {debug: true}
        swarm: {data_path_port: 4790, address_pools: [10.50.0.0/16], edge_subnet: 10.60.0.0/20, spread: zone}
        managers: [{name: m1, address: 10.0.0.5, availability: drain}]
        """,
    )
    assert inventory.engine == {
        "debug": True,
        "log-driver": "json-file",
        "log-opts": {"max-size": "10m", "max-file": "3"},
        "registry-mirrors": ["https://mirror.example"],
        "default-address-pools": [{"base": "172.30.0.0/16", "size": 26}],
        "mtu": 1450,
    }
    assert (inventory.swarm.data_path_port, inventory.swarm.spread) == (4790, "zone")
    assert str(inventory.swarm.edge_subnet) == "10.60.0.0/20"
    assert inventory.hosts[0].availability == "drain"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("engine: {log: {max_size: huge}}", "engine.log.max_size"),
        ("engine: {registry_mirrors: [mirror]}", "engine.registry_mirrors[0]"),
        ("engine: {address_pools: [{base: 10.0.0.1/8}]}", "engine.address_pools[0].base"),
        ("engine: {mtu: 9}", "engine.mtu"),
        ("engine: {speed: fast}", "engine.speed: unknown key"),
        ("swarm: {data_path_port: 80}", "swarm.data_path_port"),
        ("swarm: {edge_subnet: everything}", "swarm.edge_subnet"),
    ],
)
def test_mistakes_in_settings_have_their_place(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(SwarmkitError) as raised:
        loaded(tmp_path, f"{line}\nmanagers: [{{name: m1, address: 10.0.0.5}}]\n")
    assert words in str(raised.value)
    assert ":1:" in str(raised.value)
