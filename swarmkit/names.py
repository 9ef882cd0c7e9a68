"""The names by which things in a swarm are known: docker's own, and those that swarmkit adds."""

from __future__ import annotations

# docker's, on whatever belongs to a stack, and on services for the image as the file writes it
# (docker/cli, cli/compose/convert).
STACK_LABEL = "com.docker.stack.namespace"
IMAGE_LABEL = "com.docker.stack.image"

# On a node: the machine's name in the inventory; its hostname may differ.
HOST_LABEL = "swarmkit.host"
# On a service: the fingerprint of the spec that swarmkit sent.
SPEC_LABEL = "swarmkit.spec"
# A service with a label that starts like this asks the balancer for a route.
ROUTE_PREFIX = "swarmkit.lb."

# The overlay network that joins the balancer and the services it sends requests to.
EDGE_NETWORK = "swarmkit-edge"
