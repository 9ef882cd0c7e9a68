"""Configs and secrets: Swarm cannot change their content, so other content is another version.

The first version has docker's name, STACK_key. Other content becomes STACK_key-<10 hexadecimal digits>,
and the services move to it. Versions that no service uses, nor a revision could go back to, are
removed at the end.

The digits of a config are those of its content's SHA-256. A secret's content must not be guessed from
anything that others can read: a label holds a slow hash of it (scrypt) with a salt of its own, and
the digits are from that.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from swarmkit.compose.convert import DesiredConfig, DesiredSecret, DesiredStack
from swarmkit.compose.naming import is_version, version
from swarmkit.deploy.history import Stored
from swarmkit.deploy.plan.model import (
    Action,
    Change,
    Fields,
    LiveStack,
    name_of,
    referred,
)
from swarmkit.names import SECRET_LABEL

# Hidden from people, and from whoever reads a plan; that it differs is all there is to say.
_HIDDEN = "(hidden)"

# scrypt's cost (RFC 7914): 32 MB and about a tenth of a second for each guess.
_COST, _BLOCK, _PARALLEL = 2**15, 8, 1
_MEMORY = 64 * 1024 * 1024
SALT_BYTES = 16


def config_version(name: str, data: bytes, live: Mapping[str, bytes]) -> str:
    """The name under which `data` is, or will be, in a swarm that holds the configs `live` (name → data).

    `name` is that of the first version: it is used where it is free or holds the very data.
    """
    other = version(name, hashlib.sha256(data).hexdigest())
    return other if live.get(name) != data and (name in live or other in live) else name


def config_names(desired: DesiredStack, live: LiveStack) -> dict[str, str]:
    """The name of the version of each config, by that of the first version."""
    held = {name_of(config): base64.b64decode(config["Spec"].get("Data") or "") for config in live.configs}
    return {config.name: config_version(config.name, config.data, held) for config in desired.configs}


def config_changes(desired: DesiredStack, live: LiveStack) -> Iterator[Change]:
    """Configs to make, or to label anew. `desired` has the names of versions."""
    by_name = {name_of(config): config for config in live.configs}
    for config in desired.configs:
        found = by_name.get(config.name)
        if found is not None:
            yield from label_changes("config", found, config.labels)
            continue
        fields: Fields = {"content": {"from": None, "to": f"{len(config.data)} bytes"}}
        yield Change("config", config.name, "create", fields, config.body())


def secret_hash(data: bytes, salt: bytes) -> str:
    """What a secret's label says of its content: `scrypt:cost:salt:hash`."""
    digest = hashlib.scrypt(data, salt=salt, n=_COST, r=_BLOCK, p=_PARALLEL, maxmem=_MEMORY, dklen=32)
    return f"scrypt:{_COST}:{salt.hex()}:{digest.hex()}"


def holds(label: str, data: bytes) -> bool:
    """Whether the label of a secret is that of this content."""
    parts = label.split(":")
    if len(parts) != 4 or parts[:2] != ["scrypt", str(_COST)]:
        return False
    return hmac.compare_digest(label, secret_hash(data, bytes.fromhex(parts[2])))


def secret_changes(
    desired: DesiredStack, live: LiveStack, *, replace_unknown: bool, salt: Callable[[], bytes]
) -> tuple[dict[str, str], list[Change], list[str]]:
    """The name of the version of each secret by that of the first; the changes; and what to say of them.

    A secret without our label cannot be compared with ours: it is kept, unless `replace_unknown`.
    """
    names: dict[str, str] = {}
    changes: list[Change] = []
    notes: list[str] = []
    used = {name for service in live.services for name in referred(service["Spec"], "secret")}
    for secret in desired.secrets:
        versions = [one for one in live.secrets if is_version(name_of(one), secret.name)]
        # The one in use is most likely the one that is meant, and each look at another takes its time.
        versions.sort(key=lambda one: name_of(one) not in used)
        marked = [one for one in versions if SECRET_LABEL in _labels(one)]
        found = next((one for one in marked if holds(_labels(one)[SECRET_LABEL], secret.data)), None)
        if found is None and versions and not marked and not replace_unknown:
            found = versions[0]
            notes.append(
                f"secret {name_of(found)}: swarmkit has not made it and cannot compare its content; "
                "it is kept (--replace-secrets makes a new version)"
            )
        if found is not None:
            names[secret.name] = name_of(found)
            changes += label_changes("secret", found, secret.labels)
            continue
        mark = secret_hash(secret.data, salt())
        is_first = all(name_of(one) != secret.name for one in live.secrets)
        name = secret.name if is_first else version(secret.name, mark.rpartition(":")[2])
        names[secret.name] = name
        fields: Fields = {"content": {"from": _HIDDEN if versions else None, "to": _HIDDEN}}
        note = "the content differs" if versions else ""
        body = secret.body()
        spec = {**body, "Name": name, "Labels": {**body["Labels"], SECRET_LABEL: mark}}
        changes.append(Change("secret", name, "create", fields, spec, note=note))
    return names, changes, notes


def label_changes(
    kind: Stored, found: Mapping[str, Any], labels: Mapping[str, str], *, exact: bool = False
) -> Iterator[Change]:
    """The labels of a config or secret, which are all of it that can change.

    With `exact`, there are to be no others; without, swarmkit's own mark stays.
    """
    held = _labels(found)
    ours = labels if exact or SECRET_LABEL not in held else {**labels, SECRET_LABEL: held[SECRET_LABEL]}
    fields = {
        f"labels.{key}": {"from": held.get(key), "to": ours.get(key)}
        for key in ([*ours, *(key for key in held if key not in ours)] if exact else ours)
        if held.get(key) != ours.get(key)
    }
    if fields:
        spec = {**found["Spec"], "Labels": dict(ours)}
        yield Change(kind, name_of(found), "update", fields, spec, found["ID"], found["Version"]["Index"])


def is_version_of(name: str, firsts: Iterable[str]) -> bool:
    """Whether a config or secret is a version of one of those whose first versions have these names."""
    return any(is_version(name, first) for first in firsts)


def unused(kind: Stored, live: LiveStack, kept: Iterable[str]) -> list[Mapping[str, Any]]:
    """The stack's configs, or secrets, that are not among the names to keep."""
    names = set(kept)
    return sorted((thing for thing in live.stored(kind) if name_of(thing) not in names), key=name_of)


def needed(kind: Stored, desired: DesiredStack, live: LiveStack, changes: Iterable[Change]) -> Iterator[str]:
    """The configs, or secrets, that a service will use, or the swarm would go back to, after `changes`."""
    actions: dict[str, set[Action]] = {}
    for change in changes:
        actions.setdefault(change.name, set()).add(change.action)
    things: Iterable[DesiredConfig | DesiredSecret] = desired.configs if kind == "config" else desired.secrets
    yield from (thing.name for thing in things)
    for service in desired.services:
        yield from referred(service.spec, kind)
    for found in live.services:
        done = actions.get(name_of(found), set())
        if "remove" in done:
            continue
        yield from referred(found["Spec"], kind)
        # An update makes the present spec the previous one.
        if "update" not in done and found.get("PreviousSpec"):
            yield from referred(found["PreviousSpec"], kind)


def _labels(thing: Mapping[str, Any]) -> Mapping[str, str]:
    return thing["Spec"].get("Labels") or {}
