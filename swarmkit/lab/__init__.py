"""Local labs: Debian systems in containers that are reached and set up by SSH, just as machines are.

The engine's objects are the state: containers, networks and volumes carry the lab's name in the label
`swarmkit.lab`, and what else there is to know about a node in labels beside it.
"""
