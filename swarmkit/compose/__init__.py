"""Compose files: read, checked whole, and turned into the specs that the Swarm API takes."""
