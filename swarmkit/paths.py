"""Where swarmkit keeps its own files on the user's machine."""

from __future__ import annotations

import os
from pathlib import Path


def data_dir() -> Path:
    """The folder for labs (keys, inventories): `$SWARMKIT_HOME`, or the platform's place for user data."""
    if home := os.environ.get("SWARMKIT_HOME"):
        return Path(home)
    from platformdirs import user_data_path

    return user_data_path("swarmkit", appauthor=False)
