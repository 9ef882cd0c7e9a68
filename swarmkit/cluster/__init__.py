"""Machines to swarm: facts, a plan, and the phases that carry it out."""
