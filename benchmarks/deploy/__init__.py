"""Deploying a stack: swarmkit beside `docker stack deploy`, on one lab."""
