"""Images: the base that ours are made of, the cluster's own registry, building, pushing and distributing.

The names here are the few that the parts share; importing them costs nothing.
"""

from __future__ import annotations

REGISTRY_NAME = "registry.swarmkit.internal"
REGISTRY_PORT = 5000
# How image names begin that live in the cluster's registry.
REGISTRY = f"{REGISTRY_NAME}:{REGISTRY_PORT}"

BASE_TAG = "swarmkit/base:13"

# The user that the registry runs as, without a name on the host: of the range that neither Debian
# nor systemd gives to anybody (systemd's UIDS-GIDS, "65520…65533: unused").
REGISTRY_UID = 65520

# Where the machines keep what the registry's TLS needs.
CERTS_DIR = f"/etc/docker/certs.d/{REGISTRY}"
CA_DIR = "/var/lib/swarmkit/ca"
REGISTRY_DIR = "/var/lib/swarmkit/registry"
