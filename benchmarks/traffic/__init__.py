"""No request lost: the balancer under load while the swarm is worked on, alone and beside others."""
