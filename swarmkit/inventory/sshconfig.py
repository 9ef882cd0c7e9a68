"""What the user's own OpenSSH configuration says about a machine (ssh_config(5)).

Of its settings those count that say where a machine is and who logs in how: HostName, User, Port,
IdentityFile, IdentitiesOnly, ProxyJump and ProxyCommand. Those that switch off checks do not.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from swarmkit.errors import UsageError

if TYPE_CHECKING:
    import paramiko

# The first value found wins, so the user's own file comes first.
FILES = (Path("~/.ssh/config"), Path("/etc/ssh/ssh_config"))
# As OpenSSH has it (readconf.c, READCONF_MAX_DEPTH).
_MAX_DEPTH = 16
_LINE = re.compile(r"^\s*(?P<key>\w+)(?:\s*=\s*|\s+)(?P<value>.+?)\s*$")


@dataclass(frozen=True)
class Settings:
    """What the configuration says of one machine; empty or None for what it leaves open."""

    host_name: str
    user: str | None = None
    port: int | None = None
    identities: tuple[Path, ...] = ()
    identities_only: bool = False
    jumps: tuple[str, ...] = ()
    proxy_command: str | None = None


@dataclass(frozen=True)
class SshConfig:
    """The configuration in `files`, read when it is first asked about a machine."""

    files: Sequence[Path] = field(default=FILES)

    def settings(self, name: str) -> Settings:
        """What holds for the machine that `ssh NAME` would log in on.

        Raises UsageError where the configuration cannot be used.
        """
        import paramiko

        if self._parsed is None:
            return Settings(name)
        try:
            found = self._parsed.lookup(name)
            port = int(found["port"]) if "port" in found else None
        except (paramiko.SSHException, ValueError, OSError) as error:
            raise UsageError(f"what it says of {name} cannot be used: {error}", where=self._where) from None
        jump, command = found.get("proxyjump", "none"), found.get("proxycommand")
        return Settings(
            host_name=found["hostname"],
            user=found.get("user"),
            port=port,
            identities=tuple(
                Path(path).expanduser() for path in found.get("identityfile", []) if path.lower() != "none"
            ),
            identities_only=found.get("identitiesonly", "no").lower() == "yes",
            jumps=() if jump.lower() == "none" else tuple(hop.strip() for hop in jump.split(",")),
            proxy_command=command or None,
        )

    @property
    def _where(self) -> str:
        return str(self.files[0])

    @cached_property
    def _parsed(self) -> paramiko.SSHConfig | None:
        lines = [line for file in self.files for line in _lines(file.expanduser(), 0)]
        if not any(line.strip() and not line.lstrip().startswith("#") for line in lines):
            return None
        import paramiko

        class Config(paramiko.SSHConfig):
            # Left to whoever runs the command: only there the final user and port are known.
            TOKENS_BY_CONFIG_KEY = {
                key: tokens
                for key, tokens in paramiko.SSHConfig.TOKENS_BY_CONFIG_KEY.items()
                if key != "proxycommand"
            }

        config = Config()
        try:
            config.parse(lines)
        except (paramiko.SSHException, ValueError) as error:
            raise UsageError(f"not valid: {error}", where=self._where) from None
        return config


def _lines(path: Path, depth: int) -> Iterator[str]:
    """The lines of a file, with those of the files it includes in their places.

    paramiko does not know `Include`.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from None
    # A file begins outside any block, whatever block the line that includes it stands in ends with.
    block = "Host *"
    if depth == 0:
        yield block
    for line in text.splitlines():
        match = _LINE.match(line)
        key = match["key"].lower() if match else ""
        if match and key == "include":
            if depth >= _MAX_DEPTH:
                raise UsageError("files include each other without end", where=str(path))
            for included in _included(match["value"]):
                yield block
                yield from _lines(included, depth + 1)
            yield block
            continue
        if key in ("host", "match"):
            block = line
        yield line


def _included(patterns: str) -> Iterator[Path]:
    for pattern in shlex.split(patterns):
        full = Path("~/.ssh").expanduser() / Path(pattern).expanduser()
        yield from sorted(Path("/").glob(str(full).lstrip("/")))
