"""swarmkit: a Docker Swarm on supplied machines, over SSH, and useful systems running on it."""

__version__ = "0.1.0"
