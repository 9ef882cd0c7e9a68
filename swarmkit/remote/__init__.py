"""Machines over SSH: one connection a host for a whole command, scripts and the Docker Engine through it."""

from swarmkit.remote.connection import SUDO_PASSWORD, Connection, Finished
from swarmkit.remote.engine import Engine, EngineError, while_stale
from swarmkit.remote.fleet import Fleet, Outcomes
from swarmkit.remote.hostkeys import HostKeys

__all__ = [
    "SUDO_PASSWORD",
    "Connection",
    "Engine",
    "EngineError",
    "Finished",
    "Fleet",
    "HostKeys",
    "Outcomes",
    "while_stale",
]
