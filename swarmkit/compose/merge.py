"""One Compose file laid over another, by the rules of the Compose Specification ("Merge").

Mappings are merged key by key, lists are appended to, anything else is replaced. A command, an
entrypoint and a health check's test are replaced whole. Entries of some lists have a key of their own
(a port, a mount's target), and the later of two with one key changes the earlier.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import TypeAdapter, ValidationError

from swarmkit.compose.models import Service
from swarmkit.compose.tree import OVERRIDE, RESET, Node, planted

Path = tuple[str, ...]
_ANY = "*"
_SERVICE = ("services", _ANY)


def merged(base: Node, over: Node, path: Path = ()) -> Node:
    """`over` laid over `base`, which both stand at `path` of a Compose file; neither is changed."""
    if over.tag == OVERRIDE:
        return replace(over, tag="")
    if base.tag == RESET or over.tag == RESET:
        return over
    if over.value is None:
        # A key with nothing under it says nothing, but for a variable: that takes the environment's value.
        return over if _is_variable(path) else base
    rule = _rule(path)
    if rule:
        return rule(base, over)
    if isinstance(base.value, list) and isinstance(over.value, list):
        return _appended(base, over)
    return _merged_mappings(base, over, path)


def _is_variable(path: Path) -> bool:
    return any(_matches(path, (*rule, _ANY)) for rule in _VARIABLES)


def _rule(path: Path) -> Callable[[Node, Node], Node] | None:
    return next((rule for pattern, rule in _RULES.items() if _matches(path, pattern)), None)


def _matches(path: Path, pattern: Path) -> bool:
    return len(path) == len(pattern) and all(
        want in (_ANY, part) for part, want in zip(path, pattern, strict=True)
    )


def _merged_mappings(base: Node, over: Node, path: Path) -> Node:
    """Two mappings key by key; anything else is replaced."""
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    entries = {
        key: merged(base.mapping[key], node, (*path, key)) if key in base.mapping else node
        for key, node in over.mapping.items()
    }
    return replace(over, value={**base.mapping, **entries}, tag=base.tag)


def _appended(base: Node, over: Node) -> Node:
    """Both lists, what is in both once."""
    known = [item.plain() for item in base.items]
    return replace(base, value=base.items + [item for item in over.items if item.plain() not in known])


def _service(base: Node, over: Node) -> Node:
    """Two services; the mounts of the one are in the order of their targets then, as docker has them.

    The engine mounts them in an order of its own, but another order here restarts tasks.
    """
    both = _merged_mappings(base, over, _SERVICE)
    volumes = both.get("volumes")
    if volumes is None or not volumes.items:
        return both
    in_order = sorted(volumes.items, key=lambda item: str(_key_of(_mount_key, item)))
    return both.with_entries({"volumes": replace(volumes, value=in_order)})


def _replaced(_: Node, over: Node) -> Node:
    return over


# ---------------------------------------------------------------- short forms


def _as_mapping(path: Path, entry: Callable[[Node], tuple[str, Node] | None], base: Node, over: Node) -> Node:
    """Mappings that may be written as lists, whose items are entries of the mapping."""
    left, right = (_listed(node, entry) for node in (base, over))
    if left is None or right is None:
        return over
    return _merged_mappings(left, right, path)


def _listed(node: Node, entry: Callable[[Node], tuple[str, Node] | None]) -> Node | None:
    if isinstance(node.value, dict):
        return node
    entries = [entry(item) for item in node.items]
    if not isinstance(node.value, list) or None in entries:
        return None
    return replace(node, value=dict(pair for pair in entries if pair))


def _key_value(item: Node) -> tuple[str, Node] | None:
    if not item.is_text:
        return None
    key, equals, value = item.value.partition("=")
    return key, replace(item, value=value if equals else None)


def _name(item: Node) -> tuple[str, Node] | None:
    return (item.value, replace(item, value=None)) if item.is_text else None


def _dependency(item: Node) -> tuple[str, Node] | None:
    if not item.is_text:
        return None
    return item.value, planted({"condition": "service_started"}, item.position)


def _one_or_many(base: Node, over: Node) -> Node:
    left, right = _many(base), _many(over)
    both = isinstance(left.value, list) and isinstance(right.value, list)
    return _appended(left, right) if both else over


def _many(node: Node) -> Node:
    """A list that may be written as one text."""
    return replace(node, value=[node]) if node.is_text else node


def _build(base: Node, over: Node) -> Node:
    left, right = (replace(node, value={"context": node}) if node.is_text else node for node in (base, over))
    return _merged_mappings(left, right, (*_SERVICE, "build"))


def _logging(base: Node, over: Node) -> Node:
    """Options belong to their driver: another driver has none of them."""
    left, right = base.get("driver"), over.get("driver")
    if left and right and left.value != right.value:
        return over
    return _merged_mappings(base, over, (*_SERVICE, "logging"))


def _extra_hosts(base: Node, over: Node) -> Node:
    """A host that `over` names has its addresses from there alone."""
    left, right = _host_lines(base), _host_lines(over)
    if left is None or right is None:
        return over
    named = {_host(line) for line in right}
    return replace(base, value=[line for line in left if _host(line) not in named] + right)


def _host_lines(node: Node) -> list[Node] | None:
    if isinstance(node.value, dict):
        return [
            replace(item, value=f"{host}={item.value}")
            for host, item in sorted(node.mapping.items())
            if item.tag != RESET
        ]
    return node.items if isinstance(node.value, list) and all(item.is_text for item in node.items) else None


def _host(line: Node) -> str:
    return str(line.value).replace("=", ":").partition(":")[0]


# ---------------------------------------------------------------- lists whose entries have a key


def _keyed(key: Callable[[Any], Hashable], long: Callable[[Any], Any], base: Node, over: Node) -> Node:
    """Entries of `over` change those of `base` that have the same key, and the others come after."""
    if not (isinstance(base.value, list) and isinstance(over.value, list)):
        return over
    entries: dict[Hashable, Node] = {_key_of(key, item): item for item in base.items}
    for item in over.items:
        name = _key_of(key, item)
        entries[name] = _entry(entries[name], item, long) if name in entries else item
    return replace(base, value=list(entries.values()))


def _key_of(key: Callable[[Any], Hashable], item: Node) -> Hashable:
    try:
        found = key(item.plain())
        hash(found)
        return found
    # What is not of the form of an entry is none of another's; the check of the whole file says why.
    except (ValidationError, TypeError, KeyError):
        return id(item)


def _entry(base: Node, over: Node, long: Callable[[Any], Any]) -> Node:
    left, right = (
        node if isinstance(node.value, dict) else planted(long(node.plain()), node.position)
        for node in (base, over)
    )
    return merged(left, replace(right, tag=over.tag))


def _adapter(field: str) -> TypeAdapter[Any]:
    kind: Any = Service.model_fields[field].annotation
    return TypeAdapter(kind)


_PORTS, _VOLUMES = _adapter("ports"), _adapter("volumes")


def _port_key(value: Any) -> Hashable:
    (port,) = _PORTS.validate_python([value])
    return port.target, port.published, port.protocol or "tcp"


def _long_port(value: Any) -> Any:
    (port,) = _PORTS.validate_python([value])
    fields = port.model_dump(exclude_none=True)
    return {
        key: "-".join(map(str, item)) if isinstance(item, tuple) else item for key, item in fields.items()
    }


def _mount_key(value: Any) -> Hashable:
    target = value["target"] if isinstance(value, dict) else _mount(value)["target"]
    return str(target).rstrip("/")


def _mount(value: Any) -> dict[str, Any]:
    (mount,) = _VOLUMES.validate_python([value])
    long: dict[str, Any] = mount.model_dump(exclude_defaults=True)
    return long


def _use_key(value: Any) -> Hashable:
    """The file that a config or secret becomes: that of its own name where nothing else is said."""
    if isinstance(value, str):
        return value
    return str(value.get("target") or value["source"]).removeprefix("/run/secrets/").lstrip("/")


def _use(value: Any) -> Any:
    return {"source": value}


def _path_key(value: Any) -> Hashable:
    return str(value if isinstance(value, str) else value["path"])


def _env_file(base: Node, over: Node) -> Node:
    return _keyed(_path_key, lambda value: {"path": value}, _many(base), _many(over))


def _subnet_key(value: Any) -> Hashable:
    return str(value["subnet"])


_VARIABLES = [(*_SERVICE, "environment"), (*_SERVICE, "build", "args")]
_PAIRS = [
    *_VARIABLES,
    (*_SERVICE, "labels"),
    (*_SERVICE, "annotations"),
    (*_SERVICE, "sysctls"),
    (*_SERVICE, "deploy", "labels"),
    (*_SERVICE, "build", "labels"),
    *((section, _ANY, "labels") for section in ("networks", "volumes", "configs", "secrets")),
]
_RULES: dict[Path, Callable[[Node, Node], Node]] = {
    _SERVICE: _service,
    (*_SERVICE, "command"): _replaced,
    (*_SERVICE, "entrypoint"): _replaced,
    (*_SERVICE, "healthcheck", "test"): _replaced,
    (*_SERVICE, "build"): _build,
    (*_SERVICE, "logging"): _logging,
    (*_SERVICE, "extra_hosts"): _extra_hosts,
    (*_SERVICE, "env_file"): _env_file,
    (*_SERVICE, "depends_on"): partial(_as_mapping, (*_SERVICE, "depends_on"), _dependency),
    (*_SERVICE, "networks"): partial(_as_mapping, (*_SERVICE, "networks"), _name),
    (*_SERVICE, "ports"): partial(_keyed, _port_key, _long_port),
    (*_SERVICE, "volumes"): partial(_keyed, _mount_key, _mount),
    (*_SERVICE, "configs"): partial(_keyed, _use_key, _use),
    (*_SERVICE, "secrets"): partial(_keyed, _use_key, _use),
    ("networks", _ANY, "ipam", "config"): partial(_keyed, _subnet_key, lambda value: value),
    **{(*_SERVICE, key): _one_or_many for key in ("dns", "dns_search", "tmpfs", "label_file")},
    **{path: partial(_as_mapping, path, _key_value) for path in _PAIRS},
}
