"""Stacks: the catalogue, their inputs, their rendering, and the plan that brings a swarm to them."""
