"""Who may use the cluster's registry, and how nodes know it: facts, plan, apply.

On every node there are a line in /etc/hosts that gives the registry's name an address (the engine does
not use overlay DNS), and the authority's certificate and a client certificate under /etc/docker/certs.d,
which the engine reads at each request. Managers also keep the authority itself, so that any of them can
let a new node in. The registry's node has the server's certificate.

Beside each pair of certificate and key lies a file that names the authority (by the SHA-256 of its
certificate) that issued it: written last, it also says that the pair is complete.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import dedent
from typing import TYPE_CHECKING, ClassVar

from swarmkit.errors import OperationFailed, UsageError, raise_all
from swarmkit.images import CA_DIR, CERTS_DIR, REGISTRY_DIR, REGISTRY_NAME, REGISTRY_UID
from swarmkit.inventory import Host

if TYPE_CHECKING:
    from swarmkit.images.ca import Authority, Issued
    from swarmkit.remote import Outcomes

Run = Callable[[Host, str], str]
# `Fleet.map`, or anything of its kind.
Each = Callable[[Callable[[Host], str], Sequence[Host]], "Outcomes[str]"]

_CLIENT_ISSUER = f"{CERTS_DIR}/client.issuer"
_SERVER_ISSUER = f"{REGISTRY_DIR}/server.issuer"

FACTS = dedent(f"""\
    trust_ips=
    while read -r address names || [ -n "$address" ]; do
      case $address in '#'*) continue ;; esac
      for name in ${{names%%#*}}; do
        case "$name,$trust_ips," in
          {REGISTRY_NAME},*",$address,"*) ;;
          {REGISTRY_NAME},*) trust_ips=$trust_ips,$address ;;
        esac
      done
    done </etc/hosts
    printf 'trust.hosts_ip=%s\\n' "${{trust_ips#,}}"
    if [ -s '{CERTS_DIR}/ca.crt' ] || [ -s {CA_DIR}/ca.crt ]; then
      sha256sum '{CERTS_DIR}/ca.crt' {CA_DIR}/ca.crt 2>/dev/null | while read -r sum file; do
        case $file in
          {CA_DIR}/ca.crt) if [ -s "$file" ]; then printf 'trust.ca=%s\\n' "$sum"; fi ;;
          *) if [ -s "$file" ]; then printf 'trust.node_ca=%s\\n' "$sum"; fi ;;
        esac
      done
    fi
    if [ -s {CA_DIR}/ca.key ]; then printf 'trust.ca_key=yes\\n'; fi
    trust_issuer() {{
      if [ -s "$2" ] && [ -s "$3" ] && [ -s "$4" ] && [ "$(stat -c %a "$3")" = 600 ]; then
        read -r issuer <"$4"
        printf 'trust.%s=%s\\n' "$1" "$issuer"
      fi
    }}
    trust_issuer client '{CERTS_DIR}/client.cert' '{CERTS_DIR}/client.key' '{_CLIENT_ISSUER}'
    trust_issuer server {REGISTRY_DIR}/server.crt {REGISTRY_DIR}/server.key {_SERVER_ISSUER}
    """)
"""Shell (run as root) that prints this host's trust as `trust.…=value` lines."""


@dataclass(frozen=True)
class TrustFacts:
    """What a host has of it. Empty: it has none.

    `hosts_ip` is the address that /etc/hosts gives the registry (several: joined with commas),
    `node_ca` and `ca` are SHA-256 of the authority's certificate that the engine trusts and that a
    manager keeps, `client` and `server` the SHA-256 of the authority that issued these pairs.
    """

    hosts_ip: str = ""
    node_ca: str = ""
    client: str = ""
    ca: str = ""
    ca_key: bool = False
    server: str = ""

    @classmethod
    def parse(cls, lines: Mapping[str, str]) -> TrustFacts:
        """From the keys and values that `FACTS` prints; what is missing counts as empty."""
        return cls(
            hosts_ip=lines.get("trust.hosts_ip", ""),
            node_ca=lines.get("trust.node_ca", ""),
            client=lines.get("trust.client", ""),
            ca=lines.get("trust.ca", ""),
            ca_key=lines.get("trust.ca_key", "") == "yes",
            server=lines.get("trust.server", ""),
        )

    @property
    def authority(self) -> str:
        """SHA-256 of the authority that the host keeps whole, with its key."""
        return self.ca if self.ca_key else ""


@dataclass(frozen=True)
class TrustAction:
    """Something to do on one host; `text` says it in words."""

    host: str
    text: ClassVar[str]


@dataclass(frozen=True)
class MakeCa(TrustAction):
    """Make the authority and keep it here."""

    text: ClassVar[str] = "make the cluster's certificate authority"


@dataclass(frozen=True)
class CopyCa(TrustAction):
    """Keep the authority here too."""

    text: ClassVar[str] = "copy the certificate authority"


@dataclass(frozen=True)
class RemoveCa(TrustAction):
    """A worker has no business with the authority's key."""

    text: ClassVar[str] = "remove the certificate authority's key"


@dataclass(frozen=True)
class IssueServer(TrustAction):
    """Issue and install the registry's own certificate."""

    text: ClassVar[str] = "issue the registry's certificate"


@dataclass(frozen=True)
class RemoveServer(TrustAction):
    """The registry runs elsewhere."""

    text: ClassVar[str] = "remove the registry's certificate"


@dataclass(frozen=True)
class IssueClient(TrustAction):
    """Issue and install the node's client certificate, and trust the authority."""

    text: ClassVar[str] = "issue the node's registry certificate"


@dataclass(frozen=True)
class MapName(TrustAction):
    """Give the registry's name an address in /etc/hosts."""

    text: ClassVar[str] = "name the registry in /etc/hosts"
    address: str


@dataclass(frozen=True)
class TrustPlan:
    """What to do, and the existing authority: its SHA-256, and the host to read it from.

    Both are empty where a new authority is to be made.
    """

    actions: tuple[TrustAction, ...] = ()
    authority: str = ""
    ca_from: str = ""

    def of(self, host: str) -> list[TrustAction]:
        """The actions on one host, in order."""
        return [action for action in self.actions if action.host == host]


def plan_trust(
    hosts: Sequence[Host], facts: Mapping[str, TrustFacts], registry: str, address: str
) -> TrustPlan:
    """What `hosts` (all of the cluster's) lack, given `facts` by name of those that were looked at.

    `registry` names the manager that runs the registry, `address` is its IP address that all nodes can
    reach. Where several authorities are about, the one that most nodes trust stays. Raises
    OperationFailed where none is found but a manager was not looked at (a second authority would shut
    out every node that trusts the first), UsageError for an address that cannot be used.
    """
    address = _usable(address, registry)
    seen = [host for host in hosts if host.name in facts]
    source = _authority_of(seen, facts)
    unseen = [host.name for host in hosts if host.is_manager and host.name not in facts]
    if source is None and unseen:
        raise OperationFailed(
            "no reachable manager has the cluster's certificate authority",
            where=", ".join(unseen),
            hint="make these managers reachable, or remove them from the inventory; then run it again",
        )
    authority = facts[source].authority if source else ""
    actions: list[TrustAction] = []
    for host in seen:
        name, has = host.name, facts[host.name]
        is_registry = name == registry
        if host.is_manager and source is None:
            actions.append(MakeCa(name) if is_registry else CopyCa(name))
        elif host.is_manager and has.authority != authority:
            actions.append(CopyCa(name))
        elif not host.is_manager and has.ca_key:
            actions.append(RemoveCa(name))
        if is_registry and (source is None or has.server != authority):
            actions.append(IssueServer(name))
        elif not is_registry and has.server:
            actions.append(RemoveServer(name))
        if source is None or has.node_ca != authority or has.client != authority:
            actions.append(IssueClient(name))
        if has.hosts_ip != address:
            actions.append(MapName(name, address))
    return TrustPlan(tuple(actions), authority, source or "")


def _usable(address: str, registry: str) -> str:
    hint = "give the machine a `private_address:` in the inventory: an IP address that all nodes can reach"
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        raise UsageError(f"{address!r} is not an IP address", where=registry, hint=hint) from None
    if parsed.is_loopback:
        # The engine takes a registry there for an insecure one, and shows it no certificate.
        raise UsageError(f"the registry cannot be at {address}", where=registry, hint=hint)
    return str(parsed)


def _authority_of(seen: Sequence[Host], facts: Mapping[str, TrustFacts]) -> str | None:
    """The host to read the authority from: managers first, then machines that were managers."""
    keepers = sorted(
        (host for host in seen if facts[host.name].authority), key=lambda host: not host.is_manager
    )
    trusted = [facts[host.name].node_ca for host in seen]
    best = max(keepers, key=lambda host: trusted.count(facts[host.name].authority), default=None)
    return best.name if best else None


def apply_trust(plan: TrustPlan, hosts: Sequence[Host], run: Run, each: Each) -> str:
    """Carry out a plan: one script a host, plus one to read the authority where it exists.

    Returns the authority's SHA-256 (which `ensure_registry` asks for).

    `run(host, script)` runs a script as root and returns its output; `each` is `Fleet.map`. Hosts that
    keep the authority come first: nothing it issued is anywhere before it is kept itself. `plan` may be
    cut down to the actions on some hosts. Raises what `run` raised, of all hosts, after the others are
    done, and OperationFailed where a new authority would be kept nowhere.
    """
    from swarmkit.images.ca import Authority, fingerprint

    if not plan.actions:
        return plan.authority
    keeping = {action.host for action in plan.actions if isinstance(action, MakeCa | CopyCa)}
    if not plan.ca_from and not keeping:
        raise OperationFailed(
            "the cluster has no certificate authority yet, and none of these machines is to keep one",
            where=", ".join(sorted({action.host for action in plan.actions})),
            hint="run swarmkit init, for the whole cluster, first",
        )
    by_name = {host.name: host for host in hosts}
    authority = _read(by_name[plan.ca_from], run) if plan.ca_from else Authority.make()
    touched = [host for host in hosts if plan.of(host.name)]

    def work(some: list[Host]) -> Outcomes[str]:
        return each(lambda host: run(host, script(plan.of(host.name), authority)), some)

    keepers = work([host for host in touched if host.name in keeping])
    errors = list(keepers.errors.values())
    if plan.ca_from or keepers.values:
        errors += work([host for host in touched if host.name not in keeping]).errors.values()
    raise_all(errors)
    return fingerprint(authority.certificate)


def find_authority(managers: Sequence[Host], run: Run, each: Each) -> Authority:
    """The cluster's authority, from a manager that keeps it; `run` and `each` as for `apply_trust`.

    Raises OperationFailed (or what `run` raised) where none has it.
    """
    outcomes = each(lambda host: run(host, FACTS), managers)
    facts = {
        name: TrustFacts.parse(dict(line.split("=", 1) for line in said.splitlines() if "=" in line))
        for name, said in outcomes.values.items()
    }
    source = _authority_of([host for host in managers if host.name in facts], facts)
    if source is None:
        outcomes.all()
        raise OperationFailed(
            "no manager has the cluster's certificate authority",
            where=", ".join(host.name for host in managers),
            hint="run swarmkit init again",
        )
    return _read(next(host for host in managers if host.name == source), run)


def _read(host: Host, run: Run) -> Authority:
    from swarmkit.images.ca import Authority

    # Printed by one last command: a script that fails has printed nothing that an error could quote.
    said = run(
        host,
        f"set -eu\ncrt=$(base64 -w 0 {CA_DIR}/ca.crt)\nkey=$(base64 -w 0 {CA_DIR}/ca.key)\n"
        'printf "%s\\n" "$crt" "$key"',
    ).split()
    try:
        certificate, key = (base64.b64decode(part, validate=True).decode() for part in said)
    except ValueError:
        certificate = key = ""
    return Authority.load(certificate, key, where=f"{host.name}:{CA_DIR}")


def script(actions: Sequence[TrustAction], authority: Authority) -> str:
    """The shell script that does a host's actions. It holds private keys: never print it."""
    from swarmkit.images.ca import fingerprint

    parts = [_HEAD]
    issuer = fingerprint(authority.certificate) + "\n"
    for action in actions:
        match action:
            case MakeCa() | CopyCa():
                parts += [
                    f"install -d -m 0700 {CA_DIR}",
                    _put(f"{CA_DIR}/ca.key", authority.key, "0600"),
                    _put(f"{CA_DIR}/ca.crt", authority.certificate, "0644"),
                ]
            case RemoveCa():
                parts.append(f"rm -rf {CA_DIR}")
            case IssueServer():
                parts.append(f"install -d -m 0700 {REGISTRY_DIR}")
                parts.append(_put(f"{REGISTRY_DIR}/ca.crt", authority.certificate, "0644"))
                parts += _put_pair(
                    authority.issue_server([REGISTRY_NAME]),
                    f"{REGISTRY_DIR}/server.crt",
                    f"{REGISTRY_DIR}/server.key",
                    _SERVER_ISSUER,
                    issuer,
                    owner=REGISTRY_UID,
                )
            case RemoveServer():
                parts.append(f"rm -rf {REGISTRY_DIR}")
            case IssueClient(host=name):
                parts.append(f"install -d -m 0755 /etc/docker\ninstall -d -m 0700 {CERTS_DIR}")
                parts.append(_put(f"{CERTS_DIR}/ca.crt", authority.certificate, "0644"))
                parts += _put_pair(
                    authority.issue_client(name),
                    f"{CERTS_DIR}/client.cert",
                    f"{CERTS_DIR}/client.key",
                    _CLIENT_ISSUER,
                    issuer,
                )
            case MapName(address=address):
                parts.append(f"map_name {address}")
    return "\n".join(parts)


# The hosts file is replaced whole where that can be; a bind mount (in a container) or a link is
# written through instead.
_MAP_NAME = dedent(f"""\
    map_name() {{
      touch /etc/hosts
      cp -p /etc/hosts /etc/hosts.swarmkit
      awk -v name={REGISTRY_NAME} -v address="$1" '
        {{
          split($0, half, "#"); count = split(half[1], word, " "); found = 0; others = ""
          for (i = 2; i <= count; i++) if (word[i] == name) found = 1; else others = others " " word[i]
          if (!found) print; else if (others != "") print word[1] others
        }}
        END {{ if (address != "") print address " " name " # swarmkit" }}
      ' /etc/hosts >/etc/hosts.swarmkit
      if [ -L /etc/hosts ] || ! mv -f /etc/hosts.swarmkit /etc/hosts 2>/dev/null; then
        cat /etc/hosts.swarmkit >/etc/hosts
        rm -f /etc/hosts.swarmkit
      fi
    }}""")

_HEAD = (
    dedent("""\
    set -eu
    umask 077
    put() {
      base64 -d >"$1.new"
      chmod "$2" "$1.new"
      chown "$3" "$1.new"
      mv -f "$1.new" "$1"
    }
    """)
    + _MAP_NAME
)

REMOVE = "\n".join(
    (
        "set -eu",
        _MAP_NAME,
        "map_name ''",
        f"rm -rf '{CERTS_DIR}' {CA_DIR} {REGISTRY_DIR}",
        "rmdir /etc/docker/certs.d 2>/dev/null || true",
    )
)
"""Shell (run as root) that removes all of it from a host; harmless where there is nothing."""


def _put(path: str, content: str, mode: str, owner: int = 0) -> str:
    encoded = base64.b64encode(content.encode()).decode()
    return f"put '{path}' {mode} {owner}:{owner} <<'END'\n{encoded}\nEND"


def _put_pair(
    pair: Issued, certificate: str, key: str, marker: str, issuer: str, owner: int = 0
) -> list[str]:
    return [
        f"rm -f '{marker}'",
        _put(key, pair.key, "0600", owner),
        _put(certificate, pair.certificate, "0644", owner),
        _put(marker, issuer, "0644"),
    ]
