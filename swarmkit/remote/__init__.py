"""Machines over SSH: one connection a host for a whole command, scripts and the Docker Engine through it."""

from swarmkit.remote.connection import Connection
from swarmkit.remote.engine import Engine, EngineError, is_cut_off, while_stale
from swarmkit.remote.fleet import Fleet, Outcomes
from swarmkit.remote.hostkeys import HostKeys
from swarmkit.remote.local import LocalConnection
from swarmkit.remote.secrets import Secrets
from swarmkit.remote.shell import Finished, RootShell

__all__ = [
    "Connection",
    "Engine",
    "EngineError",
    "Finished",
    "Fleet",
    "HostKeys",
    "LocalConnection",
    "Outcomes",
    "RootShell",
    "Secrets",
    "is_cut_off",
    "while_stale",
]
