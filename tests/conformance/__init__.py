"""swarmkit beside the genuine `docker stack deploy`: the same files, and the bodies that each would send."""
