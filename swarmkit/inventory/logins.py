"""How to log in on each machine: the inventory first, then the user's ssh_config, then SSH's defaults.

This is the one place where the three meet. A ProxyJump of ssh_config becomes gateways like those that
an inventory names, so that everything after sees chains of logins and nothing else.
"""

from __future__ import annotations

import getpass
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from swarmkit.errors import UsageError
from swarmkit.inventory.destination import parse
from swarmkit.inventory.models import Gateway, Login
from swarmkit.inventory.sshconfig import Settings, SshConfig


@dataclass(frozen=True)
class Said:
    """What the inventory says of a login; None for what it leaves open.

    `direct` is said of a machine that is reached without a gateway whatever ssh_config says.
    """

    user: str | None = None
    port: int | None = None
    key: Path | None = None
    gateway: str | None = None
    direct: bool = False


@dataclass
class Logins:
    """Makes logins, and remembers in `jumps` the gateways that only ssh_config knows of."""

    config: SshConfig
    jumps: dict[str, Gateway] = field(default_factory=dict)

    def login(self, name: str, address: str, said: Said) -> Login:
        """The login on the machine called `name`; raises UsageError for what ssh_config says wrongly."""
        settings = self.config.settings(address)
        made = _login(name, settings, said)
        if said.gateway or said.direct:
            return made
        if settings.jumps:
            return replace(made, gateway=self._chain(settings.jumps, made, (address,)))
        return replace(made, proxy_command=_expanded(settings.proxy_command, made))

    def _chain(self, hops: Iterable[str], to: Login, on_the_way: tuple[str, ...]) -> str | None:
        """The gateways for a ProxyJump, each reached through the one before it; the last one's name."""
        gateway: str | None = None
        for hop in hops:
            destination = parse(hop.removeprefix("ssh://"))
            if destination is None:
                raise UsageError(f'ProxyJump is USER@HOST:PORT, not "{hop}"', where=str(self.config.files[0]))
            settings = self.config.settings(destination.address)
            name = f"{gateway.removesuffix(_MARK)},{hop}{_MARK}" if gateway else f"{hop}{_MARK}"
            made = _login(name, settings, Said(destination.user, destination.port))
            if (made.address, made.port, made.user) == (to.address, to.port, to.user):
                # `Host *` with a ProxyJump matches the machine that is jumped through as well (ssh.c).
                continue
            if destination.address in on_the_way:
                circle = " → ".join([*on_the_way, destination.address])
                raise UsageError(f"ProxyJump goes in a circle: {circle}", where=str(self.config.files[0]))
            if gateway is None:
                # Only the first hop goes by its own ProxyJump or ProxyCommand (ssh_config(5)).
                gateway = self._chain(settings.jumps, made, (*on_the_way, destination.address))
                if gateway is None:
                    made = replace(made, proxy_command=_expanded(settings.proxy_command, made))
            values = {**vars(made), "gateway": gateway}
            self.jumps[name] = Gateway(**values)
            gateway = name
        return gateway

    def merged(self, machines: Iterable[Login]) -> dict[str, str]:
        """Names of jumps that are machines of the inventory, and theirs: one machine, one connection."""
        direct = {
            (one.address, one.port, one.user): one.name
            for one in machines
            if one.gateway is None and one.proxy_command is None
        }
        same = {}
        for name, jump in list(self.jumps.items()):
            known = direct.get((jump.address, jump.port, jump.user))
            if jump.gateway is None and jump.proxy_command is None and known:
                same[name] = known
                del self.jumps[name]
        for name, jump in self.jumps.items():
            if jump.gateway in same:
                self.jumps[name] = replace(jump, gateway=same[jump.gateway])
        return same


# Not a name that an inventory can give.
_MARK = " (ProxyJump)"


def _login(name: str, settings: Settings, said: Said) -> Login:
    return Login(
        name=name,
        address=settings.host_name,
        user=said.user or settings.user or getpass.getuser(),
        port=said.port or settings.port or 22,
        key=said.key,
        gateway=said.gateway,
        identities=() if said.key else settings.identities,
        only_identities=settings.identities_only,
    )


def _expanded(command: str | None, login: Login) -> str | None:
    """A ProxyCommand with its tokens filled in (ssh_config(5), TOKENS)."""
    if command is None:
        return None
    values = {"%h": login.address, "%p": str(login.port), "%r": login.user, "%n": login.address, "%%": "%"}
    return re.sub("%.", lambda token: values.get(token[0], token[0]), command)
