"""Configs and secrets: Swarm cannot change their content, so other content is another version.

The first version has docker's name, STACK_key. Other content becomes STACK_key-<10 hexadecimal digits>,
and the services move to it. Versions that no service uses, nor a revision could go back to, are
removed at the end.

The digits of a config are those of its content's SHA-256. A secret's content must not be guessed from
anything that others can read: a label holds a slow hash of it (scrypt) with a salt of its own, and
the digits are from that. What fills in or gives the content (`template_driver`, `driver`) cannot change
either: another one is another version too.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from swarmkit.compose.convert import DesiredConfig, DesiredSecret, DesiredStack
from swarmkit.deploy.history import Stored
from swarmkit.deploy.plan.model import (
    Action,
    Change,
    Fields,
    LiveStack,
    identity,
    name_of,
    referred,
)
from swarmkit.names import SECRET_LABEL, is_version, version

# Hidden from people, and from whoever reads a plan; that it differs is all there is to say.
_HIDDEN = "(hidden)"

# scrypt's cost (RFC 7914): 32 MB and about a tenth of a second for each guess.
_COST, _BLOCK, _PARALLEL = 2**15, 8, 1
_MEMORY = 64 * 1024 * 1024
SALT_BYTES = 16


@dataclass(frozen=True)
class ConfigContent:
    """What a config holds, and the name of what fills it in for each task; empty where nothing does."""

    data: bytes
    template: str = ""

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Self:
        """From the spec of a config in the swarm."""
        return cls(base64.b64decode(spec.get("Data") or ""), _made_by(spec).template)

    def digest(self) -> str:
        """The SHA-256 of all of it, in hexadecimal."""
        return hashlib.sha256(
            self.data + (f"\0{self.template}".encode() if self.template else b"")
        ).hexdigest()


def config_version(name: str, content: ConfigContent, live: Mapping[str, ConfigContent]) -> str:
    """The name under which `content` is, or will be, in a swarm that holds the configs `live` (by name).

    `name` is that of the first version: it is used where it is free or holds the very content.
    """
    other = version(name, content.digest())
    return other if live.get(name) != content and (name in live or other in live) else name


def config_names(desired: DesiredStack, live: LiveStack) -> dict[str, str]:
    """The name of the version of each config, by that of the first version."""
    held = {name_of(config): ConfigContent.of(config["Spec"]) for config in live.configs}
    return {
        config.name: config_version(config.name, ConfigContent.of(config.body()), held)
        for config in desired.configs
    }


def config_changes(desired: DesiredStack, live: LiveStack) -> Iterator[Change]:
    """Configs to make, or to label anew. `desired` has the names of versions."""
    by_name = {name_of(config): config for config in live.configs}
    for config in desired.configs:
        found = by_name.get(config.name)
        if found is not None:
            yield from label_changes("config", found, config.labels)
            continue
        body = config.body()
        fields: Fields = {
            "content": {"from": None, "to": f"{len(config.data)} bytes"},
            **_made_by(body).fields(),
        }
        yield Change("config", config.name, "create", fields, body)


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

    The content of a secret without our label cannot be compared with ours: it is kept, unless
    `replace_unknown`.
    """
    names: dict[str, str] = {}
    changes: list[Change] = []
    notes: list[str] = []
    used = {name for service in live.services for name in referred(service["Spec"], "secret")}
    for secret in desired.secrets:
        versions = [one for one in live.secrets if is_version(name_of(one), secret.name)]
        # The one in use is most likely the one that is meant, and each look at another takes its time.
        versions.sort(key=lambda one: name_of(one) not in used)
        body = secret.body()
        made_by = _made_by(body)
        alike = [one for one in versions if _made_by(one["Spec"]) == made_by]
        marked = [one for one in versions if SECRET_LABEL in _labels(one)]
        found = next(
            (one for one in alike if one in marked and holds(_labels(one)[SECRET_LABEL], secret.data)), None
        )
        if found is None and alike and not marked and not replace_unknown:
            found = alike[0]
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
        fields: Fields = {
            "content": {"from": _HIDDEN if versions else None, "to": _HIDDEN},
            **made_by.fields(_made_by(versions[0]["Spec"]) if versions else None),
        }
        note = ("the content differs" if alike else "its driver differs") if versions else ""
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
    """The stack's configs, or secrets, that are not among the names to keep, nor used by other stacks."""
    names = set(kept)
    return sorted(
        (one for one in live.stored(kind) if name_of(one) not in names and identity(one) not in live.users),
        key=name_of,
    )


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


@dataclass(frozen=True)
class _MadeBy:
    """Besides the content, what cannot change: the driver that gives it, and what fills it in."""

    driver: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    template: str = ""

    def fields(self, old: _MadeBy | None = None) -> dict[str, Mapping[str, Any]]:
        """What is to be said of it, beside what was there before."""
        old = old or _MadeBy()
        sides = (
            ("driver", old.driver, self.driver),
            ("driver_opts", old.options, self.options),
            ("template_driver", old.template, self.template),
        )
        return {
            name: {"from": before or None, "to": now or None} for name, before, now in sides if before != now
        }


def _made_by(spec: Mapping[str, Any]) -> _MadeBy:
    driver, template = spec.get("Driver") or {}, spec.get("Templating") or {}
    return _MadeBy(driver.get("Name", ""), driver.get("Options") or {}, template.get("Name", ""))


def _labels(thing: Mapping[str, Any]) -> Mapping[str, str]:
    return thing["Spec"].get("Labels") or {}
