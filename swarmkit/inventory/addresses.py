"""Which address of a machine the swarm uses."""

from __future__ import annotations

import ipaddress
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Interface, IPv4Network

from swarmkit.errors import UsageError
from swarmkit.inventory.models import Host

# Interfaces of Docker's own networks, which every machine may have with the same addresses.
DOCKER_INTERFACES = ("docker", "br-", "veth")


def swarm_address(
    host: Host, on_host: Sequence[str], resolve: Callable[[str], Sequence[str]] | None = None
) -> str:
    """The IP address by which the other nodes reach `host`.

    It is the inventory's where that is an IP address. Where it is a name, it is the address the name
    stands for (`resolve`, DNS by default) that is `on_host`, one of the machine's own; else the only
    one that the machine has. Raises UsageError where that leaves a choice.
    """
    given = host.private_address
    if is_ip(given):
        return given
    resolved = list((resolve or _resolved)(given))
    own = [address for address in resolved if address in on_host]
    usable = own or [
        address
        for address in on_host
        if not (ipaddress.ip_address(address).is_loopback or ipaddress.ip_address(address).is_link_local)
    ]
    if len(set(usable)) == 1:
        return usable[0]
    stands_for = f"stands for {', '.join(resolved)}" if resolved else "stands for no address here"
    raise UsageError(
        f"which address the swarm is to use is not known: {given} {stands_for}, and the machine has "
        f"{', '.join(on_host) or 'none'}",
        where=host.name,
        hint="give it a `private_address:` in the inventory, on a network that all nodes share",
    )


def is_ip(text: str) -> bool:
    """Whether `text` is an IP address, not a name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _resolved(name: str) -> list[str]:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return list(dict.fromkeys(str(each[4][0]) for each in found))


# Prints a line an address, the interface first.
SCRIPT = 'ip -o -4 addr show scope global | while read -r n dev fam addr rest; do echo "$dev $addr"; done'


def interfaces(output: str) -> list[IPv4Interface]:
    """From what SCRIPT printed: the machine's addresses, with their networks, but for Docker's own."""
    pairs = [line.split() for line in output.splitlines()]
    return [IPv4Interface(address) for device, address in pairs if not device.startswith(DOCKER_INTERFACES)]


def on_common_network(found: Mapping[str, Sequence[IPv4Interface]]) -> dict[str, str]:
    """The machines' addresses on the last network that all share and none shares an address on.

    The first interface of Vagrant's machines is its own: the same address in each (VirtualBox), or one
    that changes as they are started (libvirt, Docker). Nothing where there is no such network.
    """
    if not found:
        return {}
    first, *_ = found.values()
    for network in dict.fromkeys(each.network for each in reversed(first)):
        chosen = {name: _within(network, own) for name, own in found.items()}
        addresses = Counter(chosen.values())
        if None not in addresses and len(addresses) == len(found):
            return {name: address for name, address in chosen.items() if address}
    return {}


def _within(network: IPv4Network, own: Sequence[IPv4Interface]) -> str | None:
    return next((str(each.ip) for each in own if each.network == network), None)
