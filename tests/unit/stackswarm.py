"""A swarm in memory that takes a stack's changes as an engine does, for tests of planning."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from swarmkit.compose.convert import Context, DesiredSecret, DesiredStack, convert
from swarmkit.compose.load import parse
from swarmkit.deploy.history import Revision
from swarmkit.deploy.plan import (
    Change,
    LiveStack,
    Plan,
    dependencies,
    plan_stack,
    ports,
    result,
    with_ids,
)
from swarmkit.names import SPEC_LABEL, STACK_LABEL


def stack(text: str, secrets: Sequence[tuple[str, bytes]] = (), **images: str) -> DesiredStack:
    """A stack from its Compose file, with these secrets; each service mounts all of them."""
    desired = convert(parse(text, "stack.yml", Path("/s"), {}), "st", Context(images=images))
    if not secrets:
        return desired
    references = [{"SecretName": f"st_{key}", "File": {"Name": key}} for key, _ in secrets]
    services = []
    for service in desired.services:
        spec = copy.deepcopy(service.spec)
        spec["TaskTemplate"]["ContainerSpec"]["Secrets"] = references
        services.append(replace(service, spec=spec))
    made = tuple(DesiredSecret(f"st_{key}", data, {STACK_LABEL: "st"}) for key, data in secrets)
    return replace(desired, services=tuple(services), secrets=made)


def planned(desired: DesiredStack, live: LiveStack, **options: Any) -> list[Change]:
    """The changes of the plan."""
    return list(plan_stack(desired, live, **options).changes)


class Swarm:
    """A swarm that keeps what it is sent as an engine does: ids for names, defaults, its own order."""

    def __init__(self) -> None:
        self.index = 100
        self.services: dict[str, dict[str, Any]] = {}
        self.configs: dict[str, dict[str, Any]] = {}
        self.secrets: dict[str, dict[str, Any]] = {}
        self.networks: dict[str, dict[str, Any]] = {}
        self.contents: dict[str, str] = {}
        self.revisions: list[Revision] = []
        self.others = {"swarmkit-edge": "id-edge"}

    def live(self) -> LiveStack:
        return copy.deepcopy(
            LiveStack(
                services=[*self.services.values()],
                networks=[*self.networks.values()],
                configs=[*self.configs.values()],
                secrets=[*self.secrets.values()],
                revisions=self.revisions,
                network_ids=self.others,
            )
        )

    def apply(self, changes: Iterable[Change]) -> None:
        for change in changes:
            held = getattr(self, f"{change.kind}s")
            self.index += 1
            if change.action == "create":
                assert change.name not in held, "the engine refuses a second thing of one name"
            else:
                assert (held[change.name].get("ID") or held[change.name].get("Id")) == change.live_id
            if change.action == "remove":
                self._check_unused(change)
                del held[change.name]
                continue
            assert change.spec is not None
            spec = copy.deepcopy(change.spec)
            match change.kind:
                case "network":
                    held[change.name] = {
                        **spec,
                        "Id": f"id-{self.index}",
                        "Options": {**spec.get("Options", {}), "vxlan": "4097"},
                    }
                case "config" | "secret":
                    if change.kind == "secret" and "Data" in spec:
                        # No engine tells it again.
                        self.contents[change.name] = spec.pop("Data")
                    held[change.name] = {
                        "ID": change.live_id or f"id-{self.index}",
                        "Spec": spec,
                        "Version": {"Index": self.index},
                    }
                case "service":
                    self._check_ports(change.name, spec)
                    old = held.get(change.name)
                    if old:
                        assert old["Version"]["Index"] == change.version
                        assert next(iter(old["Spec"]["Mode"])) == next(iter(spec["Mode"]))
                    held[change.name] = {
                        "ID": change.live_id or f"id-{self.index}",
                        "Version": {"Index": self.index},
                        "Spec": self._kept(spec),
                        **({"PreviousSpec": old["Spec"]} if old else {}),
                    }

    def deploy(self, desired: DesiredStack, plan: Plan) -> None:
        """Carry out a plan, and keep a revision of it."""
        live = self.live()
        number = len(self.revisions) + 1
        after = result(live, plan, dependencies(desired))
        self.revisions.append(Revision(number, "me", "up", (), live.before(), after))
        self.apply(plan.changes)

    def _check_ports(self, name: str, spec: Mapping[str, Any]) -> None:
        for other, service in self.services.items():
            assert other == name or not ports(spec) & ports(service["Spec"]), (
                "the engine refuses a taken port"
            )

    def _check_unused(self, change: Change) -> None:
        specs = [service["Spec"]["TaskTemplate"] for service in self.services.values()]
        for entries, name in (("Configs", "ConfigName"), ("Secrets", "SecretName")):
            used = [one[name] for spec in specs for one in spec["ContainerSpec"].get(entries, ())]
            assert change.kind == "service" or change.name not in used
        assert change.live_id not in [network["Target"] for spec in specs for network in spec["Networks"]]

    def meaning(self, name: str) -> Any:
        """A service's spec with networks by name and configs and secrets by content.

        Their ids and versions differ from swarm to swarm.
        """
        spec = copy.deepcopy(self.services[name]["Spec"])
        names = {network["Id"]: network["Name"] for network in self.networks.values()}
        for network in spec["TaskTemplate"]["Networks"]:
            network["Target"] = names.get(network["Target"], network["Target"])
        container = spec["TaskTemplate"]["ContainerSpec"]
        for config in container.get("Configs", ()):
            config["ConfigName"] = self.configs[config["ConfigName"]]["Spec"]["Data"]
            del config["ConfigID"]
        for secret in container.get("Secrets", ()):
            secret["SecretName"] = self.contents[secret["SecretName"]]
            del secret["SecretID"]
        # It covers the names of configs and secrets.
        del spec["Labels"][SPEC_LABEL]
        return spec

    def _kept(self, spec: dict[str, Any]) -> dict[str, Any]:
        spec = with_ids(
            spec,
            {name: config["ID"] for name, config in self.configs.items()},
            {name: secret["ID"] for name, secret in self.secrets.items()},
        )
        task = spec["TaskTemplate"]
        container = task["ContainerSpec"]
        ids = {name: network["Id"] for name, network in self.networks.items()} | self.others
        task["Networks"] = [{**one, "Target": ids[one["Target"]]} for one in reversed(task["Networks"])]
        if not container.get("Privileges", {}).get("CredentialSpec"):
            container.pop("Privileges", None)
        container["Isolation"] = "default"
        container["DNSConfig"] = container.get("DNSConfig", {})
        task["Runtime"] = "container"
        task.setdefault("ForceUpdate", 0)
        spec["Mode"].get("Replicated", {}).setdefault("Replicas", 1)
        spec["EndpointSpec"].setdefault("Mode", "vip")
        return spec


def deployed(text: str, secrets: Sequence[tuple[str, bytes]] = ()) -> Swarm:
    """A swarm on which a stack was deployed."""
    swarm = Swarm()
    desired = stack(text, secrets)
    swarm.deploy(desired, plan_stack(desired, swarm.live()))
    return swarm
