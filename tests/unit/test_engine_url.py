"""An engine named by a URL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import docker
import pytest

from swarmkit.errors import SwarmkitError, UsageError
from swarmkit.remote import Engine
from swarmkit.target import Target, opened
from swarmkit.ui import Ui


@pytest.mark.parametrize(
    "url", ["tcp://host:notaport", "ssh://a b", "ssh://h:0", "ssh://u:secret@h", "ssh://-oX=y"]
)
def test_a_url_of_another_form_is_refused(url: str) -> None:
    target = Target(url, "--engine", True, engine_url=url)
    with pytest.raises(UsageError, match="expected"), opened(target, Ui()):
        pass


def test_certificates_that_are_missing_are_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    with pytest.raises(SwarmkitError, match="TLS"):
        Engine.at("tcp://127.0.0.1:1")


def test_tls_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).touch()
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    seen: dict[str, Any] = {}
    monkeypatch.setattr(docker, "APIClient", lambda **settings: seen.update(settings))
    Engine.at("tcp://127.0.0.1:2376")
    assert seen["base_url"] == "tcp://127.0.0.1:2376"
    assert seen["tls"].ca_cert == str(tmp_path / "ca.pem")
