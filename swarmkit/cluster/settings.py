"""The engine's settings: daemon.json as it is, what it is to be, and how the engine comes to know."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from textwrap import dedent
from typing import Any

from swarmkit.errors import UsageError

FILE = "/etc/docker/daemon.json"
# There while the engine has yet to be restarted with what the file says.
PENDING = "/etc/docker/daemon.json.pending"

FACTS = dedent(f"""\
    if [ -s {FILE} ]; then printf 'daemon.json=%s\\n' "$(base64 -w 0 {FILE})"; fi
    if [ -e {PENDING} ]; then echo daemon.pending=yes; fi
    """)
"""Shell (run as root) that prints the engine's settings as `daemon.…=value` lines."""

# The file as it was, until the engine has come up with the new one.
_BEFORE = "/etc/docker/daemon.json.before"

# What the engine takes over on SIGHUP (docs.docker.com, dockerd, "Configuration reload behavior").
RELOADABLE = frozenset(
    {
        "authorization-plugins",
        "debug",
        "default-runtime",
        "features",
        "insecure-registries",
        "labels",
        "max-concurrent-downloads",
        "max-concurrent-uploads",
        "max-download-attempts",
        "registry-mirrors",
        "runtimes",
        "shutdown-timeout",
    }
)

# What a node of a swarm cannot have, and why.
_IMPOSSIBLE = {
    "live-restore": "the engine refuses it in swarm mode",
    "hosts": "the engine's systemd unit gives it on the command line, and it may not be in both",
}


@dataclass(frozen=True)
class DaemonFacts:
    """daemon.json as found; `broken` says why it cannot be read, `pending` that a restart is due."""

    content: Mapping[str, Any] = field(default_factory=dict)
    broken: str = ""
    pending: bool = False

    @classmethod
    def parse(cls, lines: Mapping[str, str]) -> DaemonFacts:
        """From the keys and values that `FACTS` prints."""
        pending = "daemon.pending" in lines
        try:
            text = base64.b64decode(lines.get("daemon.json", ""), validate=True).decode()
            content = json.loads(text or "{}")
        except (binascii.Error, ValueError) as error:
            return cls(broken=str(error), pending=pending)
        if not isinstance(content, dict):
            return cls(broken="it holds no JSON object", pending=pending)
        return cls(content, pending=pending)


def refuse_impossible(wanted: Mapping[str, Any], where: str) -> list[UsageError]:
    """Settings that no node of a swarm can have."""
    return [
        UsageError(
            f"engine.settings.{key}: {why}", where=where, hint="take it out of the inventory's `engine:`"
        )
        for key, why in _IMPOSSIBLE.items()
        if key in wanted
    ]


def merged(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """`found` with all of `wanted` in it; mappings are merged key by key, the rest is replaced.

    Options of a log driver are those of that driver: another driver does not inherit them.
    """
    out = dict(found)
    if "log-driver" in wanted and wanted["log-driver"] != found.get("log-driver"):
        out.pop("log-opts", None)
    for key, value in wanted.items():
        there = out.get(key)
        both = isinstance(there, Mapping) and isinstance(value, Mapping)
        out[key] = merged(there, value) if both else value  # type: ignore[arg-type]
    return out


def changed_keys(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[str, ...]:
    """The top-level keys that merging changes."""
    after = merged(found, wanted)
    return tuple(sorted(key for key in {*found, *after} if found.get(key) != after.get(key)))


def rendered(content: Mapping[str, Any]) -> str:
    """The text of a daemon.json."""
    return json.dumps(content, indent=2) + "\n"


def write_script(content: str) -> str:
    """Shell that puts the file in place whole, keeps the one before, and marks that a restart is due."""
    encoded = base64.b64encode(content.encode()).decode()
    return dedent(f"""\
        umask 022
        mkdir -p /etc/docker
        base64 -d >{FILE}.new <<'END' || exit 1
        {encoded}
        END
        rm -f {_BEFORE}
        if [ -e {FILE} ]; then
          cp -p {FILE} {_BEFORE} && chmod --reference={FILE} {FILE}.new || exit 1
        fi
        touch {PENDING} && mv -f {FILE}.new {FILE} || exit 1
        """)


def engine_script(verb: str) -> str:
    """Shell that makes the engine run with the file (`verb` is systemctl's: start, restart or reload).

    Where it does not come up with a new file, the one before is put back, and the script fails with the
    engine's own words.
    """
    return dedent(f"""\
        up() {{
          for i in $(seq 150); do docker version >/dev/null 2>&1 && return 0; sleep 0.2; done
          return 1
        }}
        since=$(date +%s)
        systemctl enable -q docker.service
        systemctl {verb} docker.service && up && {{ rm -f {PENDING} {_BEFORE}; exit 0; }}
        journalctl -q -o cat -u docker.service --since "@$since" \\
          | grep -v -e '^St[ao]' -e '^docker.service:' | tail -n 4 >&2
        if [ -e {PENDING} ]; then
          if [ -e {_BEFORE} ]; then mv -f {_BEFORE} {FILE}; else rm -f {FILE}; fi
          rm -f {PENDING}
          systemctl reset-failed docker.service
          systemctl restart docker.service && up && echo 'the daemon.json of before is back, and works' >&2
        fi
        exit 1
        """)
