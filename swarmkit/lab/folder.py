"""A lab's folder on this machine: the SSH key, the known host keys and the inventory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from swarmkit import paths
from swarmkit.errors import OperationFailed
from swarmkit.inventory import Login, Role, load
from swarmkit.lab.models import Node

USER = "swarmkit"
LOOPBACK = "127.0.0.1"


def host_name(port: int) -> str:
    """How known_hosts files name a node (sshd(8))."""
    return f"[{LOOPBACK}]:{port}"


@dataclass(frozen=True)
class Folder:
    """The folder of the lab called `name`."""

    name: str

    @property
    def path(self) -> Path:
        return paths.data_dir() / "labs" / self.name

    @property
    def key(self) -> Path:
        return self.path / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        return self.path / "known_hosts"

    @property
    def inventory(self) -> Path:
        return self.path / "inventory.yml"

    @property
    def exists(self) -> bool:
        return self.path.is_dir()

    def login(self, node: Node) -> Login:
        """How to log in on a node."""
        return Login(node.name, LOOPBACK, USER, node.ssh_port, self.key)

    def public_key(self, *, may_create: bool) -> str:
        """The public half of the lab's key, which is made where it is missing and `may_create`.

        Raises OperationFailed where it is missing and nodes exist: they let no other key in.
        """
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        if not self.key.exists():
            if not may_create:
                raise OperationFailed(
                    f"the SSH key of lab {self.name} is gone, and its nodes let no other in",
                    where=str(self.key),
                    hint=f"make the lab anew: swarmkit lab down --name {self.name}, then swarmkit lab up",
                )
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
            made = Ed25519PrivateKey.generate().private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.OpenSSH,
                serialization.NoEncryption(),
            )
            _write(self.key, made.decode(), 0o600)
        try:
            private = serialization.load_ssh_private_key(self.key.read_bytes(), password=None)
        except (OSError, ValueError) as error:
            raise OperationFailed(f"the SSH key cannot be used: {error}", where=str(self.key)) from None
        public = private.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        line = f"{public.decode()} swarmkit lab {self.name}"
        _write(self.key.with_suffix(".pub"), f"{line}\n", 0o644)
        return line

    def knows(self, node: Node) -> bool:
        """Whether the node was recorded: it was once reached and is in the inventory, or was."""
        return host_name(node.ssh_port) in self._known()

    def _known(self) -> dict[str, str]:
        try:
            lines = self.known_hosts.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return {}
        return {line.split(None, 1)[0]: line for line in lines if line.strip()}

    def record(self, nodes: Sequence[Node], host_keys: Mapping[str, str]) -> None:
        """Record those of the lab's nodes that are new, with their host keys by name.

        They are added to the inventory; where there is none, it is written with all `nodes`. What else
        stands in the files stays. known_hosts is written last: `knows` takes it for a sign of the rest.
        Raises UsageError where the inventory has become unusable.
        """
        new = [node for node in nodes if node.name in host_keys]
        if not self.inventory.exists():
            _write(self.inventory, inventory_text(self.name, nodes), 0o644)
        else:
            for node in new:
                self._enter(node)
        known = self._known()
        for node in new:
            known[host_name(node.ssh_port)] = f"{host_name(node.ssh_port)} {host_keys[node.name]}"
        self._write_known(known)

    def _enter(self, node: Node) -> None:
        """Put a node into the inventory, in place of another that had its name."""
        from swarmkit.inventory.edit import NewHost, add_host, remove_host

        present = load(self.inventory).host(node.name)
        if present and (present.port, present.private_address) == (node.ssh_port, node.address):
            return
        remove_host(self.inventory, node.name)
        entry = NewHost(node.name, LOOPBACK, node.role, port=node.ssh_port, private_address=node.address)
        add_host(self.inventory, entry)

    def forget_others(self, nodes: Sequence[Node]) -> None:
        """Forget the host keys of all nodes but these: their ports may become those of new nodes."""
        kept = {host_name(node.ssh_port) for node in nodes}
        known = self._known()
        if not known.keys() <= kept:
            self._write_known({name: line for name, line in known.items() if name in kept})

    def _write_known(self, known: Mapping[str, str]) -> None:
        _write(self.known_hosts, "".join(f"{line}\n" for line in known.values()), 0o644)

    def remove(self) -> bool:
        """Remove the folder with all that is in it; false where there was none.

        The last lab takes swarmkit's own folder with it, unless something else is in that, or the user
        has chosen it.
        """
        try:
            shutil.rmtree(self.path)
        except FileNotFoundError:
            return False
        with suppress(OSError):
            self.path.parent.rmdir()
            if "SWARMKIT_HOME" not in os.environ:
                paths.data_dir().rmdir()
        return True

    @staticmethod
    def names() -> list[str]:
        """The names of all labs that have a folder here."""
        labs = paths.data_dir() / "labs"
        return sorted(path.name for path in labs.iterdir() if path.is_dir()) if labs.is_dir() else []


def inventory_text(lab: str, nodes: Sequence[Node]) -> str:
    """The inventory of a new lab."""
    import yaml

    lines = [
        "# Written by `swarmkit lab up`, which later only adds nodes. Yours to edit.",
        yaml.safe_dump({"cluster": lab}).strip(),
        "known_hosts: known_hosts",
        f"defaults: {{user: {USER}, key: id_ed25519}}",
        # The port may be another than a manager's own: where the nodes' addresses cannot be reached.
        *(f"entry: {url(node)}" for node in nodes if node.balancer_port),
    ]
    for key, role in _LISTS.items():
        entries = [node for node in nodes if node.role is role]
        lines.append(f"{key}:" if entries else f"{key}: []")
        lines += [
            f"  - {{name: {node.name}, address: {LOOPBACK}, port: {node.ssh_port}, "
            f"private_address: {node.address}}}"
            for node in entries
        ]
    return "\n".join(lines) + "\n"


_LISTS = {"managers": Role.MANAGER, "workers": Role.WORKER}


def url(node: Node) -> str:
    """Where this machine reaches the load balancer that runs on a node."""
    return f"http://{LOOPBACK}:{node.balancer_port}"


def _write(path: Path, text: str, mode: int) -> None:
    """Write a file whole or not at all; nobody else may read it before its mode is set."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
        out.write(text)
    part.chmod(mode)
    part.replace(path)
