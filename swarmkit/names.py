"""The names by which things in a swarm are known: docker's own, and those that swarmkit adds."""

from __future__ import annotations

import re

# docker's, on whatever belongs to a stack, and on services for the image as the file writes it
# (docker/cli, cli/compose/convert).
STACK_LABEL = "com.docker.stack.namespace"
IMAGE_LABEL = "com.docker.stack.image"

# Labels that begin so are swarmkit's own.
RESERVED_PREFIX = "swarmkit."

# On a node: the machine's name in the inventory; its hostname may differ.
HOST_LABEL = "swarmkit.host"
# On a node: the keys of its labels that the inventory gave it, joined with commas.
LABELS_LABEL = "swarmkit.labels"
# On a node whose engine is being restarted: the availability that it had, and gets back.
RESTART_LABEL = "swarmkit.restart"
# On a node, and on a service: that tasks are being moved, and what to go back to (services/moves.py).
MOVE_LABEL = "swarmkit.move"
# On the swarm itself: the name of the inventory's cluster.
CLUSTER_LABEL = "swarmkit.cluster"
# On a service: the fingerprint of the spec that swarmkit sent.
SPEC_LABEL = "swarmkit.spec"
# On a service: the names of the stacks that its stack requires, joined with commas.
REQUIRES_LABEL = "swarmkit.requires"
# On a replicated service: the number of replicas in the file that was deployed last.
REPLICAS_LABEL = "swarmkit.replicas"
# On a secret: the salted hash of its content.
SECRET_LABEL = "swarmkit.secret"
# On a config object that is a revision of a stack: its number.
REVISION_LABEL = "swarmkit.revision"
# On a revision: `open` while the stack is on the way to it, else `done`.
STATE_LABEL = "swarmkit.revision.state"
# On a node: whether the load balancer runs there, `true` or `false`.
BALANCER_LABEL = "swarmkit.lb"
# On a secret that proves who somebody is: the SHA-256 of the authority that says so.
AUTHORITY_LABEL = "swarmkit.authority"
# On a service of the balancer: what its image was built from.
SOURCES_LABEL = "swarmkit.sources"
# A service with a label that starts like this asks the balancer for a route.
ROUTE_PREFIX = "swarmkit.lb."

# The stack that the balancer is, the service in it that reads the swarm, and the one that clients reach.
BALANCER_STACK = "swarmkit-lb"
CONTROLLER_SERVICE = f"{BALANCER_STACK}_controller"
PROXY_SERVICE = f"{BALANCER_STACK}_proxy"

# On a service that is a canary of another: the name of that one, whose routes it shares.
CANARY_LABEL = f"{ROUTE_PREFIX}canary"
# On a canary: the share of the requests that it gets, in percent.
WEIGHT_LABEL = f"{ROUTE_PREFIX}weight"
# On a canary: the fingerprint of the service when the canary was made of it.
CANARY_BASE_LABEL = "swarmkit.canary.base"

# The overlay network that joins the balancer and the services it sends requests to.
EDGE_NETWORK = "swarmkit-edge"

# How long the names of configs and secrets can be (moby/swarmkit, validateConfigOrSecretAnnotations).
CONFIG_NAME_LIMIT = 64
_VERSION_DIGITS = 10


def is_own(stack: str) -> bool:
    """Whether a stack is called as swarmkit's own are: the registry, the load balancer."""
    return stack == "swarmkit" or stack.startswith("swarmkit-")


def version(first: str, digest: str) -> str:
    """The name of another version of the config, or secret, whose first one is called `first`.

    `digest` are hexadecimal digits that tell contents apart; as many of them as there is room for are used.
    """
    return f"{_base(first)}-{digest[:_VERSION_DIGITS]}"


def is_version(name: str, first: str) -> bool:
    """Whether a name is that of a version of `first`, which is one itself."""
    mark = name.removeprefix(f"{_base(first)}-")
    return name == first or (
        mark != name and re.fullmatch(f"[0-9a-f]{{{_VERSION_DIGITS}}}", mark) is not None
    )


def _base(first: str) -> str:
    return first[: CONFIG_NAME_LIMIT - _VERSION_DIGITS - 1]
