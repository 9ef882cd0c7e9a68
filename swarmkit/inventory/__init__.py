"""The inventory: which machines there are, what each is to be, and how to reach it."""

from swarmkit.inventory.load import load
from swarmkit.inventory.models import Gateway, Host, Inventory, Login, Role, SwarmSettings

__all__ = ["Gateway", "Host", "Inventory", "Login", "Role", "SwarmSettings", "load"]
