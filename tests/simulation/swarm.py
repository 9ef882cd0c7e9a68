"""A swarm that is only data: as much of the Engine API as forming one and looking at it needs."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

API_VERSION = "1.45"
ENGINE_VERSION = "26.1.5+dfsg1"

Json = dict[str, Any]


class Refused(Exception):
    """An error answer of the engine, with its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def _identity() -> str:
    """An id as Swarm makes them: 25 characters of base 36."""
    return "".join(secrets.choice("0123456789abcdefghijklmnopqrstuvwxyz") for _ in range(25))


def _now() -> str:
    return datetime.now(UTC).isoformat()


@dataclass
class Swarm:
    """What the managers of one swarm know. There is none until `form`."""

    id: str = ""
    tokens: dict[str, str] = field(default_factory=dict)
    nodes: dict[str, Json] = field(default_factory=dict)
    networks: list[Json] = field(default_factory=list)
    configs: dict[str, Json] = field(default_factory=dict)
    spec: Json = field(default_factory=dict)
    version: int = 10

    def form(self, spec: Json) -> None:
        self.id, self.spec = _identity(), spec
        self.tokens = {role: f"SWMTKN-1-{_identity()}-{role.lower()}" for role in ("Manager", "Worker")}

    def add(self, hostname: str, address: str, role: str) -> str:
        """Make a node; its id."""
        node_id = _identity()
        self.version += 1
        self.nodes[node_id] = {
            "ID": node_id,
            "Version": {"Index": self.version},
            "Spec": {"Labels": {}, "Role": role, "Availability": "active"},
            "Description": {
                "Hostname": hostname,
                "Platform": {"Architecture": "x86_64", "OS": "linux"},
                "Resources": {"NanoCPUs": 2_000_000_000, "MemoryBytes": 4 << 30},
                "Engine": {"EngineVersion": ENGINE_VERSION, "Plugins": []},
            },
            "Status": {"State": "ready", "Addr": address},
        }
        self._manage(node_id)
        return node_id

    def _manage(self, node_id: str) -> None:
        """Let the node's standing among the managers follow its role."""
        node = self.nodes[node_id]
        if node["Spec"]["Role"] == "manager":
            leads = not any("ManagerStatus" in other for other in self.nodes.values())
            address = f"{node['Status']['Addr']}:2377"
            node.setdefault("ManagerStatus", {"Leader": leads, "Reachability": "reachable", "Addr": address})
        else:
            node.pop("ManagerStatus", None)

    def node(self, node_id: str) -> Json:
        try:
            return self.nodes[node_id]
        except KeyError:
            raise Refused(404, f"node {node_id} not found") from None

    def add_config(self, spec: Json) -> Json:
        """Make a config, whose name may be there once."""
        if any(one["Spec"]["Name"] == spec["Name"] for one in self.configs.values()):
            raise Refused(409, f"config {spec['Name']} already exists")
        config_id = _identity()
        made = {
            "ID": config_id,
            "Version": {"Index": 1},
            "Spec": spec,
            "CreatedAt": _now(),
            "UpdatedAt": _now(),
        }
        self.configs[config_id] = made
        return made

    def config(self, config_id: str) -> Json:
        try:
            return self.configs[config_id]
        except KeyError:
            raise Refused(404, f"config {config_id} not found") from None

    def update(self, node_id: str, version: int, spec: Json) -> None:
        node = self.node(node_id)
        if node["Version"]["Index"] != version:
            raise Refused(500, "rpc error: code = Unknown desc = update out of sequence")
        self.version += 1
        node["Spec"], node["Version"] = spec, {"Index": self.version}
        self._manage(node_id)


@dataclass
class Engine:
    """The Docker Engine of one machine, and its place in the swarm."""

    hostname: str
    address: str
    swarm: Swarm
    node_id: str = ""

    @property
    def is_manager(self) -> bool:
        return bool(self.node_id) and "ManagerStatus" in self.swarm.nodes.get(self.node_id, {})

    def info(self) -> Json:
        membership: Json = {"LocalNodeState": "inactive", "ControlAvailable": False, "NodeID": ""}
        if self.node_id:
            membership |= {"LocalNodeState": "active", "NodeID": self.node_id, "NodeAddr": self.address}
        if self.is_manager:
            membership |= {
                "ControlAvailable": True,
                "Managers": sum("ManagerStatus" in node for node in self.swarm.nodes.values()),
                "Nodes": len(self.swarm.nodes),
                "Cluster": {"ID": self.swarm.id, "DataPathPort": 4789},
            }
        return {
            "Name": self.hostname,
            "ServerVersion": ENGINE_VERSION,
            "OSType": "linux",
            "Architecture": "x86_64",
            "OperatingSystem": "Debian GNU/Linux 13 (trixie)",
            "KernelVersion": "6.12.48+deb13-amd64",
            "NCPU": 2,
            "MemTotal": 4 << 30,
            "Driver": "overlay2",
            "DockerRootDir": "/var/lib/docker",
            "CgroupDriver": "systemd",
            "CgroupVersion": "2",
            "LoggingDriver": "json-file",
            "SecurityOptions": ["name=apparmor", "name=seccomp,profile=builtin", "name=cgroupns"],
            "Swarm": membership,
            "Warnings": [],
            "SystemTime": _now(),
        }

    def answer(self, method: str, path: str, query: dict[str, str], body: Json) -> object:
        """The JSON answer to a request (`path` without the version); raises Refused."""
        parts = path.strip("/").split("/")
        match method, *parts:
            case "GET", "_ping":
                return "OK"
            case "GET", "version":
                return {"Version": ENGINE_VERSION, "ApiVersion": API_VERSION, "MinAPIVersion": "1.24"}
            case "GET", "info":
                return self.info()
            case "POST", "swarm", "init":
                return self._init(body.get("Spec") or {})
            case "POST", "swarm", "join":
                self._join(body)
                return None
            case "POST", "swarm", "leave":
                self._leave(forced=query.get("force") == "True")
                return None
        if not self.is_manager:
            raise Refused(503, "This node is not a swarm manager.")
        match method, *parts:
            case "GET", "swarm":
                return {
                    "ID": self.swarm.id,
                    "Version": {"Index": 10},
                    "Spec": self.swarm.spec,
                    "JoinTokens": self.swarm.tokens,
                }
            case "GET", "nodes":
                return list(self.swarm.nodes.values())
            case "GET", "nodes", node_id:
                return self.swarm.node(node_id)
            case "POST", "nodes", node_id, "update":
                self.swarm.update(node_id, int(query["version"]), body)
                return None
            case "DELETE", "nodes", node_id:
                self.swarm.node(node_id)
                del self.swarm.nodes[node_id]
                return None
            case "GET", "networks":
                return self.swarm.networks
            case "POST", "networks", "create":
                self.swarm.networks.append({**body, "Id": _identity()})
                return {"Id": self.swarm.networks[-1]["Id"]}
            case "GET", "configs":
                return list(self.swarm.configs.values())
            case "POST", "configs", "create":
                return self.swarm.add_config(body)
            case "GET", "configs", config_id:
                return self.swarm.config(config_id)
            case "POST", "configs", config_id, "update":
                self.swarm.config(config_id)["UpdatedAt"] = _now()
                return None
            case "DELETE", "configs", config_id:
                self.swarm.config(config_id)
                del self.swarm.configs[config_id]
                return None
            case "GET", "services" | "tasks" | "secrets":
                return []
        raise Refused(404, f"the simulation does not know {method} {path}")

    def _init(self, spec: Json) -> str:
        if self.node_id or self.swarm.id:
            raise Refused(503, "This node is already part of a swarm.")
        self.swarm.form(spec)
        self.node_id = self.swarm.add(self.hostname, self.address, "manager")
        return self.node_id

    def _join(self, body: Json) -> None:
        if self.node_id:
            raise Refused(503, "This node is already part of a swarm.")
        roles = {token: role.lower() for role, token in self.swarm.tokens.items()}
        if body["JoinToken"] not in roles:
            raise Refused(400, "invalid join token")
        managers = {
            f"{node['Status']['Addr']}:2377" for node in self.swarm.nodes.values() if "ManagerStatus" in node
        }
        if managers.isdisjoint(body["RemoteAddrs"]):
            raise Refused(500, "could not connect to prospective new cluster member")
        self.node_id = self.swarm.add(self.hostname, self.address, roles[body["JoinToken"]])

    def _leave(self, *, forced: bool) -> None:
        if not self.node_id:
            raise Refused(503, "This node is not part of a swarm")
        if self.is_manager and not forced:
            raise Refused(503, "You are attempting to leave the swarm on a node that is a manager.")
        self.swarm.node(self.node_id)["Status"]["State"] = "down"
        self.node_id = ""
