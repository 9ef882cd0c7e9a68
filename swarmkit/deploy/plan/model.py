"""What planning takes and gives: the stack as the swarm holds it, and the changes to make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from swarmkit.compose.convert import Spec
from swarmkit.deploy.history import REVISIONS_KEPT, Revision, Snapshot, Stored

Kind = Literal["network", "secret", "config", "service", "volume"]
Action = Literal["create", "update", "remove"]
# What changes: a name for people → {"from": the present value, "to": ours}; None where there is none.
Fields = Mapping[str, Mapping[str, Any]]

# Where a service's spec refers to configs and secrets: the list, the key of the name, the key of the id.
REFERENCES: Mapping[Stored, tuple[str, str, str]] = {
    "config": ("Configs", "ConfigName", "ConfigID"),
    "secret": ("Secrets", "SecretName", "SecretID"),
}


@dataclass(frozen=True)
class LiveStack:
    """What the swarm holds of a stack, as the Engine API gives it.

    `services`, `networks`, `configs` and `secrets` are those with the stack's namespace label (a config's
    data in base64; a secret's is never told). `network_ids` maps the names of networks outside the stack
    to their ids; those of `networks` need not be in it. `users` are the names of other stacks' services
    by the id of a network, config or secret that they use. `revisions` are the stack's own, the newest last.
    Services whose tasks are being moved have their own specs here; `moved` has their names.
    """

    services: Sequence[Mapping[str, Any]] = ()
    networks: Sequence[Mapping[str, Any]] = ()
    configs: Sequence[Mapping[str, Any]] = ()
    secrets: Sequence[Mapping[str, Any]] = ()
    network_ids: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[str, Sequence[str]] = field(default_factory=dict)
    revisions: Sequence[Revision] = ()
    moved: frozenset[str] = frozenset()

    def network_names(self) -> dict[str, str]:
        """The name of each network by its id."""
        inside = {str(network["Id"]): str(network["Name"]) for network in self.networks}
        return {identity: name for name, identity in self.network_ids.items()} | inside

    def stored(self, kind: Stored) -> Sequence[Mapping[str, Any]]:
        """The configs, or the secrets."""
        return self.configs if kind == "config" else self.secrets

    def unfinished(self) -> Revision | None:
        """The newest revision, where a deployment has not come to its end."""
        newest = self.revisions[-1] if self.revisions else None
        return newest if newest is not None and newest.is_open else None

    def before(self) -> Snapshot:
        """What to return to: the stack as it is, or as it was before what has been left half-done."""
        unfinished = self.unfinished()
        return unfinished.before if unfinished else snapshot(self)

    def kept_revisions(self, more: int = 0) -> Sequence[Revision]:
        """The revisions that stay once there are `more` new ones; one that is unfinished does not."""
        return [one for one in self.revisions if not one.is_open][-(REVISIONS_KEPT - more) :]


@dataclass(frozen=True)
class Change:
    """One thing to do.

    `fields` is for people: what changes from what to what; `by_hand` names those of them that somebody
    changed in the swarm since swarmkit sent them; `note` is what else there is to know. `early` removals
    come before all else, others at the very end. `after` are the services that give this one a port, and
    have to be sent before it. A change that `recreates` takes down what runs, and cannot be undone.
    The rest is for the one who does it: `spec` is the body to send (None for a removal); `live_id` and
    `version` are the thing's own in the swarm, and `replaces` the spec that a service has there. A
    service's spec names its configs and secrets; `with_ids` fills in their ids.
    """

    kind: Kind
    name: str
    action: Action
    fields: Fields = field(default_factory=dict)
    spec: Spec | None = field(default=None, repr=False)
    live_id: str | None = None
    version: int | None = None
    replaces: Mapping[str, Any] | None = field(default=None, repr=False)
    by_hand: frozenset[str] = frozenset()
    note: str = ""
    early: bool = False
    after: frozenset[str] = frozenset()
    recreates: bool = False


@dataclass(frozen=True)
class Plan:
    """The changes in the order in which they are made, and what else is worth saying."""

    changes: Sequence[Change] = ()
    notes: Sequence[str] = ()

    @property
    def recreates(self) -> bool:
        """Whether it takes down what runs and makes it again, which has to be agreed to."""
        return any(change.recreates for change in self.changes)

    @property
    def makes_revision(self) -> bool:
        """Whether it does more than to clear away what is no longer used."""
        return any(change.kind == "service" or change.action != "remove" for change in self.changes)


def name_of(thing: Mapping[str, Any]) -> str:
    """The name of a service, network, config or secret as the API gives them."""
    return str(thing["Name"] if "Name" in thing else thing["Spec"]["Name"])


def removal(kind: Kind, thing: Mapping[str, Any]) -> Change:
    """The removal of something that the API gave."""
    version = thing["Version"]["Index"] if "Version" in thing else None
    return Change(kind, name_of(thing), "remove", live_id=identity(thing), version=version)


def identity(thing: Mapping[str, Any]) -> str:
    """The id of a service, network, config or secret as the API gives them."""
    return str(thing["ID"] if "ID" in thing else thing["Id"])


def targets(spec: Mapping[str, Any]) -> list[str]:
    """The networks of a service's spec: names in ours, ids in the swarm's."""
    return [network["Target"] for network in spec["TaskTemplate"].get("Networks") or ()]


def referred(spec: Mapping[str, Any], kind: Stored) -> set[str]:
    """The names of the configs, or secrets, that a service's spec refers to."""
    entries, name, _ = REFERENCES[kind]
    return {
        reference[name] for reference in (spec["TaskTemplate"].get("ContainerSpec") or {}).get(entries) or ()
    }


def used_ids(spec: Mapping[str, Any]) -> set[str]:
    """The ids of the networks, configs and secrets that a service in the swarm uses."""
    container = spec["TaskTemplate"].get("ContainerSpec") or {}
    stored = {one[key] for entries, _, key in REFERENCES.values() for one in container.get(entries) or ()}
    return {*targets(spec), *stored}


def with_references(spec: Spec, kind: Stored, added: Mapping[str, Mapping[str, str]]) -> Spec:
    """A service's spec whose references to configs, or secrets, have `added` (by name) put into them."""
    entries, name, identity = REFERENCES[kind]
    task = spec["TaskTemplate"]
    container = task.get("ContainerSpec") or {}
    if not container.get(entries):
        return spec
    references = [{**one, **added.get(one[name], {})} for one in container[entries]]
    container = {**container, entries: references}
    if kind == "config":
        called = {first: one.get(identity) or one.get(name, first) for first, one in added.items()}
        container = _with_credential_spec(container, called)
    return {**spec, "TaskTemplate": {**task, "ContainerSpec": container}}


def _with_credential_spec(container: Spec, called: Mapping[str, str]) -> Spec:
    """A container's spec with another name, or id, for the config that holds its credential spec."""
    privileges = container.get("Privileges") or {}
    found = privileges.get("CredentialSpec") or {}
    if found.get("Config") not in called:
        return container
    found = {**found, "Config": called[found["Config"]]}
    return {**container, "Privileges": {**privileges, "CredentialSpec": found}}


def with_named_credential_spec(container: Spec) -> Spec:
    """A container's spec as the swarm has it, with the name of that config, which it holds by its id."""
    _, name, identity = REFERENCES["config"]
    references = container.get("Configs") or ()
    return _with_credential_spec(
        container, {one[identity]: one[name] for one in references if identity in one}
    )


def with_ids(spec: Spec, configs: Mapping[str, str], secrets: Mapping[str, str]) -> Spec:
    """A service's spec with the ids of the configs and secrets it names, as POST /services/create demands.

    The mappings are from name to id. Raises KeyError for one that is not there.
    """
    kinds: tuple[tuple[Stored, Mapping[str, str]], ...] = (("config", configs), ("secret", secrets))
    for kind, ids in kinds:
        key = REFERENCES[kind][2]
        spec = with_references(spec, kind, {name: {key: ids[name]} for name in referred(spec, kind)})
    return spec


def portable(spec: Mapping[str, Any], network_names: Mapping[str, str]) -> Spec:
    """A service's spec as the swarm has it, with names in place of ids, which change."""
    task = dict(spec["TaskTemplate"])
    container = with_named_credential_spec(dict(task.get("ContainerSpec") or {}))
    for entries, _, identity in REFERENCES.values():
        if container.get(entries):
            container[entries] = [
                {key: value for key, value in one.items() if key != identity} for one in container[entries]
            ]
    if task.get("Networks"):
        task["Networks"] = [
            {**one, "Target": network_names.get(one["Target"], one["Target"])} for one in task["Networks"]
        ]
    return {**spec, "TaskTemplate": {**task, "ContainerSpec": container}}


def snapshot(live: LiveStack) -> Snapshot:
    """The stack as it is, in a form that outlives the ids of its parts."""
    names = live.network_names()
    last = live.revisions[-1].after if live.revisions else Snapshot()
    return Snapshot(
        services={name_of(one): portable(one["Spec"], names) for one in live.services},
        depends_on={
            name: last.depends_on[name]
            for name in (name_of(one) for one in live.services)
            if name in last.depends_on
        },
        # What the file says of a network tells more than what the engine made of it.
        networks={
            name_of(one): last.networks.get(name_of(one)) or _network_spec(one) for one in live.networks
        },
        stored={kind: _labels(live.stored(kind)) for kind in REFERENCES},
    )


def _labels(things: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    return {name_of(one): dict(one["Spec"].get("Labels") or {}) for one in things}


def _network_spec(network: Mapping[str, Any]) -> Spec:
    """The body that would make such a network as is there."""
    ipam = (network.get("IPAM") or {}).get("Config") or ()
    options = {
        key: value
        for key, value in (network.get("Options") or {}).items()
        # The engine's own numbering.
        if key != "com.docker.network.driver.overlay.vxlanid_list"
    }
    spec: Spec = {
        "Name": network["Name"],
        "Driver": network["Driver"],
        "Internal": bool(network.get("Internal")),
        "Attachable": bool(network.get("Attachable")),
        "Labels": dict(network.get("Labels") or {}),
    }
    if options:
        spec["Options"] = options
    if ipam:
        spec["IPAM"] = {"Config": [{"Subnet": entry["Subnet"]} for entry in ipam if "Subnet" in entry]}
    return spec
