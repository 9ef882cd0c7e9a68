"""What matters about the machine that labs run on."""

from __future__ import annotations

import socket
from ipaddress import IPv4Network
from pathlib import Path

from swarmkit import resources
from swarmkit.lab.container import MODULES
from swarmkit.lab.plan import parse_routes

_INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
# A node's systemd, with what it starts, takes six or seven; the machine's own programs need some as well.
_INOTIFY_PER_NODE = 8


def missing_capabilities(bounding_set: int, last: int) -> list[str]:
    """The names of capabilities up to number `last` that a bounding set lacks (capabilities(7))."""
    # In the order of their numbers, from linux/capability.h; the Vagrantfile reads them as well.
    names = (resources.folder("lab") / "capabilities").read_text(encoding="ascii").split()
    return [name for number, name in enumerate(names) if number <= last and not bounding_set >> number & 1]


def capabilities_lacking() -> list[str]:
    """The capabilities that this machine cannot give to a container; none where it is not Linux."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        last = int(Path("/proc/sys/kernel/cap_last_cap").read_text(encoding="ascii"))
    except OSError:
        return []
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return missing_capabilities(int(fields["CapBnd"], 16), last)


def has_modules() -> bool:
    """Whether there are kernel modules that nodes can be shown."""
    return Path(MODULES).is_dir()


def routes() -> list[IPv4Network]:
    """The networks that this machine has routes to; none where it is not Linux."""
    try:
        return parse_routes(Path("/proc/net/route").read_text(encoding="ascii"))
    except OSError:
        return []


def port_is_free(port: int) -> bool:
    """Whether nothing listens on this port of the loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def inotify_needed(nodes: int) -> int | None:
    """The limit of inotify instances (inotify(7)) that so many nodes need, where the machine's is lower.

    The usual 128 do for 16 nodes.
    """
    needed = nodes * _INOTIFY_PER_NODE
    try:
        return needed if int(_INOTIFY.read_text(encoding="ascii")) < needed else None
    except OSError:
        return None


def raise_inotify(limit: int) -> bool:
    """Set the machine's limit of inotify instances, until it boots again; false where that is not allowed."""
    try:
        _INOTIFY.write_text(str(limit), encoding="ascii")
    except OSError:
        return False
    return True
