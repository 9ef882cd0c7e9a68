"""SSH keys: which are tried in which order, read and decrypted once for all hosts."""

from __future__ import annotations

import base64
import io
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from paramiko.auth_strategy import AuthSource, AuthStrategy, InMemoryPrivateKey

from swarmkit.errors import Unreachable
from swarmkit.inventory import Login
from swarmkit.remote.secrets import KEY_PASSPHRASE, Secrets

# Those of OpenSSH that paramiko can use (ssh(1), -i).
_DEFAULTS = ("~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ed25519")
_ATTEMPTS = 3
_MAGIC = b"openssh-key-v1\0"


class Keys:
    """The keys in files, each read once; safe to use from several threads."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._reading = threading.Lock()
        self._read: dict[Path, paramiko.PKey | Unreachable] = {}

    def key(self, path: Path) -> paramiko.PKey:
        """The key in the file, its passphrase asked for if need be.

        Raises Unreachable where it cannot be used; asked again for the same key, without a new question.
        """
        with self._reading:
            if path not in self._read:
                try:
                    self._read[path] = self._opened(path)
                except Unreachable as error:
                    self._read[path] = error
            found = self._read[path]
        if isinstance(found, Unreachable):
            raise Unreachable(found.message, hint=found.hint)
        return found

    def _opened(self, path: Path) -> paramiko.PKey:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise Unreachable(f"the SSH key {path} cannot be read: {error.strerror}") from None
        try:
            return _loaded(data, None, path)
        except TypeError:
            # How cryptography says that it is encrypted.
            pass
        except ValueError as error:
            raise Unreachable(f"the SSH key {path} cannot be used: {error}") from None
        given = self._secrets.passphrase
        for attempt in range(_ATTEMPTS):
            passphrase = given if given is not None and attempt == 0 else None
            passphrase = passphrase or self._secrets.ask(f"Passphrase for the SSH key {path}: ")
            if not passphrase:
                break
            try:
                return _loaded(data, passphrase.encode(), path)
            except ValueError:
                continue
        raise Unreachable(
            f"the SSH key {path} is encrypted, and the passphrase in {KEY_PASSPHRASE} does not open it"
            if given is not None
            else f"the SSH key {path} is encrypted, and its passphrase is not known",
            hint=f"add it to your agent with ssh-add {path}, or put its passphrase into {KEY_PASSPHRASE}, "
            f"or into a file that {KEY_PASSPHRASE}_FILE names",
        )


def _loaded(data: bytes, passphrase: bytes | None, path: Path) -> paramiko.PKey:
    """Raises TypeError where a passphrase is missing, ValueError where it or the file is wrong."""
    kinds: dict[type, Any] = {
        rsa.RSAPrivateKey: paramiko.RSAKey,
        ec.EllipticCurvePrivateKey: paramiko.ECDSAKey,
        ed25519.Ed25519PrivateKey: paramiko.Ed25519Key,
    }
    load = (
        serialization.load_ssh_private_key
        if b"BEGIN OPENSSH PRIVATE KEY" in data
        else serialization.load_pem_private_key
    )
    try:
        private = load(data, passphrase)
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None
    made = next((kind for form, kind in kinds.items() if isinstance(private, form)), None)
    if made is None:
        raise ValueError("it is of a kind that is not supported here")
    plain = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    key: paramiko.PKey = made.from_private_key(io.StringIO(plain.decode()))
    certificate = Path(f"{path}-cert.pub")
    if certificate.is_file():
        key.load_certificate(str(certificate))
    return key


def public_half(path: Path) -> bytes | None:
    """The public half of a key, which lies beside it, in its file in clear text, or is the file itself."""
    for file in (path, Path(f"{path}.pub")):
        try:
            text = file.read_text(encoding="ascii")
            if "BEGIN OPENSSH PRIVATE KEY" in text:
                body = base64.b64decode("".join(text.split("\n")[1:]).partition("-")[0])
                if not body.startswith(_MAGIC):
                    continue
                message = paramiko.Message(body[len(_MAGIC) :])
                # cipher, key derivation and its options (openssh, PROTOCOL.key)
                for _ in range(3):
                    message.get_string()
                if message.get_int() == 1:
                    return message.get_string()
            elif "PRIVATE KEY" not in text:
                return base64.b64decode(text.split()[1])
        except (OSError, ValueError, IndexError):
            continue
    return None


class KeyAuth(AuthStrategy):
    """Public keys in OpenSSH's order: those of the agent that were named, its others, then files.

    `notes` says which files had to be left out, and why.
    """

    def __init__(self, login: Login, keys: Keys) -> None:
        super().__init__(ssh_config=paramiko.SSHConfig())
        self._login = login
        self._keys = keys
        self.notes: list[Unreachable] = []

    def get_sources(self) -> Iterator[AuthSource]:
        """Each key once; a file that the inventory names and that cannot be used raises Unreachable."""
        login = self._login
        named = login.keys
        files = list(named) or [Path(name).expanduser() for name in _DEFAULTS]
        agent = _agent()
        try:
            held = {key.asbytes(): key for key in agent.get_keys()} if agent is not None else {}
            halves = {path: public_half(path) for path in files}
            offered = [half for half in halves.values() if half in held]
            if login.key is None and not login.only_identities:
                offered += held.keys()
            for half in dict.fromkeys(offered):
                assert half is not None
                yield InMemoryPrivateKey(login.user, held[half])
            for path in files:
                if halves[path] not in held and path.is_file() and path.suffix != ".pub":
                    yield from self._from_file(path)
        finally:
            if agent is not None:
                agent.close()

    def _from_file(self, path: Path) -> Iterator[AuthSource]:
        try:
            if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise Unreachable(f"the SSH key {path} can be read by others", hint=f"chmod 600 {path}")
            key = self._keys.key(path)
        except Unreachable as error:
            if path == self._login.key:
                raise
            self.notes.append(error)
        else:
            yield InMemoryPrivateKey(self._login.user, key)


def _agent() -> paramiko.Agent | None:
    """The user's agent; None where none answers, which OpenSSH does not mind either."""
    try:
        return paramiko.Agent()
    except (paramiko.SSHException, OSError):
        return None


def described(login: Login) -> str:
    """For messages: the keys that were tried."""
    names = login.keys
    if not names:
        return "the keys of your agent and ~/.ssh"
    return f"the key {names[0]}" if len(names) == 1 else f"the keys {', '.join(map(str, names))}"
