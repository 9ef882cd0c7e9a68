"""Real SSH servers on the loopback, for tests: OpenSSH's own, with keys and files of their own."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
USER = getpass.getuser()
_START_SECONDS = 10


def keygen(path: Path, passphrase: str = "") -> Path:
    """A new key pair; the path of its private half."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "test", "-f", str(path)], check=True
    )
    return path


@dataclass
class Sshd:
    """A running server; `log` is what it said."""

    name: str
    port: int
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    @property
    def logins(self) -> int:
        """How many logins there have been."""
        return self.log.count("Accepted publickey")

    @property
    def failures(self) -> int:
        return self.log.count("Failed publickey")

    @property
    def known(self) -> str:
        """Its line in a known_hosts file."""
        return f"[127.0.0.1]:{self.port} {(self.folder / 'host_key.pub').read_text().rsplit(' ', 1)[0]}\n"

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


def start(folder: Path, name: str, authorized: Sequence[Path], *options: str) -> Sshd:
    """Start a server that lets in `authorized` (private halves), as the user who runs the tests."""
    assert SSHD is not None
    home = folder / name
    home.mkdir()
    keygen(home / "host_key")
    keys = home / "authorized_keys"
    keys.write_text("".join(Path(f"{path}.pub").read_text() for path in authorized))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = home / "sshd_config"
    config.write_text(
        "\n".join(
            [
                f"ListenAddress 127.0.0.1:{port}",
                f"HostKey {home / 'host_key'}",
                f"AuthorizedKeysFile {keys}",
                f"PidFile {home / 'pid'}",
                "StrictModes no",
                "UsePAM no",
                "PasswordAuthentication no",
                "PermitRootLogin yes",
                "LogLevel VERBOSE",
                *options,
            ]
        )
        + "\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(config)],
            stdin=subprocess.DEVNULL,
            stderr=log,
        )
    server = Sshd(name, port, home, process)
    deadline = time.monotonic() + _START_SECONDS
    while "Server listening" not in server.log:
        assert process.poll() is None, server.log
        assert time.monotonic() < deadline, server.log
        time.sleep(0.02)
    return server
