"""The user's credentials for registries, as docker keeps them, in the form that the Engine API takes.

They come from docker's configuration file or from the helper programs that it names, and before those
from the variable DOCKER_AUTH_CONFIG, as pipelines set it (docker/cli, cli/config/configfile). They are never
shown: not in a `repr`, an error or a log, and no helper gets them on its command line.
"""

from __future__ import annotations

import base64
import binascii
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swarmkit.errors import OperationFailed, UsageError, reason

# What docker's configuration calls Docker Hub.
_HUB = "https://index.docker.io/v1/"
# The user that stands for an identity token in what a helper answers (docker-credential-helpers).
_TOKEN_USER = "<token>"
_NOT_FOUND = "credentials not found"
HELPER_SECONDS = 60
# The variable that holds a configuration with `auths` and nothing else.
_VARIABLE = "DOCKER_AUTH_CONFIG"
# The header of a request that carries them (Engine API).
AUTH_HEADER = "X-Registry-Auth"


@dataclass(frozen=True)
class Credentials:
    """What docker's configuration file says of registries; `where` names the file in errors.

    `_given` is what the environment says itself.
    """

    where: str = ""
    _config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    _given: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Credentials:
        """Those of `config.json` in $DOCKER_CONFIG, else in ~/.docker; none where there is no such file.

        Raises UsageError where it, or DOCKER_AUTH_CONFIG, cannot be read.
        """
        given = _mapping(environment.get(_VARIABLE) or "{}", _VARIABLE)
        folder = environment.get("DOCKER_CONFIG") or str(Path(environment.get("HOME", "/")) / ".docker")
        path = Path(folder) / "config.json"
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return cls("", {}, given)
        except OSError as error:
            message = f"docker's configuration cannot be read: {reason(error)}"
            raise UsageError(message, where=str(path)) from None
        return cls(str(path), _mapping(text, str(path)), given)

    def header(self, image: str) -> str | None:
        """The value of X-Registry-Auth for the registry of `image`, None where there are no credentials.

        The environment goes first; then a helper of that registry, the store for all, and the file itself, as
        in docker. Raises OperationFailed where a helper fails, UsageError where the file makes no sense.
        """
        server = _server(image)
        found = _entry(_section(self._given, "auths", _VARIABLE), server, _VARIABLE)
        if not any(found.values()):
            helpers = _section(self._config, "credHelpers", self.where)
            if helper := helpers.get(server) or self._config.get("credsStore"):
                found = self._from_helper(str(helper), server)
            else:
                found = _entry(_section(self._config, "auths", self.where), server, self.where)
        if not any(found.values()):
            return None
        body = json.dumps({**{key: value for key, value in found.items() if value}, "serveraddress": server})
        return base64.urlsafe_b64encode(body.encode()).decode("ascii")

    def headers(self, image: str) -> dict[str, str]:
        """The headers to send with a request about `image`: one, or none."""
        value = self.header(image)
        return {} if value is None else {AUTH_HEADER: value}

    def _from_helper(self, helper: str, server: str) -> dict[str, str]:
        program = f"docker-credential-{helper}"
        hint = f"{self.where} names it; try: echo {server} | {program} get >/dev/null"
        try:
            done = subprocess.run(
                [program, "get"],
                input=server.encode(),
                capture_output=True,
                timeout=HELPER_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            why = reason(error) if isinstance(error, OSError) else f"no answer in {HELPER_SECONDS} s"
            raise OperationFailed(f"{program} cannot be asked for credentials: {why}", hint=hint) from None
        if done.returncode:
            # Both streams: helpers differ. What they say otherwise is not repeated, it may be secret.
            if _NOT_FOUND.encode() in done.stdout + done.stderr:
                return {}
            raise OperationFailed(
                f"{program} gave no credentials for {server} (exit code {done.returncode})", hint=hint
            )
        try:
            answer = json.loads(done.stdout)
            username, secret = str(answer["Username"]), str(answer["Secret"])
        except (ValueError, KeyError, TypeError):
            raise OperationFailed(f"{program} answered something else than credentials", hint=hint) from None
        return (
            {"identitytoken": secret}
            if username == _TOKEN_USER
            else {"username": username, "password": secret}
        )


def _mapping(text: bytes | str, where: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        # The parser's own words may quote the text.
        raise UsageError("docker's configuration is not JSON", where=where) from None
    if not isinstance(found, dict):
        raise UsageError("docker's configuration is not a mapping", where=where)
    return found


def _section(config: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    section = config.get(key) or {}
    if not isinstance(section, dict):
        raise UsageError(f"docker's configuration: {key} is not a mapping", where=where)
    return section


def _entry(auths: Mapping[str, Any], server: str, where: str) -> dict[str, str]:
    # A registry may stand there as a URL (docker login has written them both ways).
    entry = auths.get(server) or next((auths[key] for key in auths if _host(key) == _host(server)), None)
    if not isinstance(entry, dict):
        return {}
    username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if encoded := entry.get("auth"):
        try:
            username, _, password = base64.b64decode(str(encoded), validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            raise UsageError(
                f"docker's configuration: the credentials for {server} are not base64",
                where=where,
                hint=f"log in again: docker login {_host(server)}",
            ) from None
    return {
        "username": username,
        "password": password.rstrip("\0"),
        "identitytoken": str(entry.get("identitytoken") or ""),
        "registrytoken": str(entry.get("registrytoken") or ""),
    }


def registry_of(image: str) -> str:
    """The host of the registry that a reference names, `docker.io` where it names none.

    The first part is a host where it has a dot, a colon or capitals, or is localhost
    (distribution/reference, splitDockerDomain).
    """
    first, slash, _ = image.partition("/")
    if slash and (set(first) & set(".:") or first == "localhost" or first != first.lower()):
        return "docker.io" if first == "index.docker.io" else first
    return "docker.io"


def _server(image: str) -> str:
    registry = registry_of(image)
    return _HUB if registry == "docker.io" else registry


def _host(server: str) -> str:
    return server.removeprefix("https://").removeprefix("http://").partition("/")[0]
