"""Unit tests see nothing of the user's own SSH settings."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _no_home_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("SSH_AUTH_SOCK", "SWARMKIT_SUDO_PASSWORD", "SWARMKIT_KEY_PASSPHRASE"):
        monkeypatch.delenv(name, raising=False)
