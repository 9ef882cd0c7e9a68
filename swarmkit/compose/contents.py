"""What a Compose file takes from elsewhere: configs, secrets, and the variables of its services."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from swarmkit.compose import models
from swarmkit.compose.environment import EnvFile, Variables, parse, parse_raw
from swarmkit.compose.models import ComposeFile, Service
from swarmkit.compose.paths import is_remote, remote, resolved
from swarmkit.errors import SwarmkitError, reason
from swarmkit.yamlfile import Loc, YamlFile, read_text

# What Swarm takes as the content of a config and of a secret: less than this many bytes (moby/swarmkit,
# api/validation: MaxConfigSize, MaxSecretSize).
CONFIG_LIMIT = 1000 * 1024
SECRET_LIMIT = 500 * 1024


@dataclass(frozen=True)
class Contents:
    """Takes in what `file` speaks of; what cannot be had goes into `errors` (never any of the content).

    Relative paths start from `folder`. `unset` gets a warning for each variable without a value that the
    files of variables use.
    """

    file: YamlFile
    folder: Path
    variables: Variables
    errors: list[SwarmkitError]
    unset: dict[str, str]

    def configs(self, configs: Mapping[str, models.Config]) -> dict[str, bytes]:
        """The content of each config that is not external, by its key."""
        return {
            key: data
            for key, one in configs.items()
            if not one.external and (data := self._data(("configs", key), one, CONFIG_LIMIT)) is not None
        }

    def secrets(self, secrets: Mapping[str, models.Secret]) -> dict[str, bytes]:
        """The same for secrets; those of a driver have their content from that."""
        return {
            key: data
            for key, one in secrets.items()
            if not (one.external or one.driver)
            and (data := self._data(("secrets", key), one, SECRET_LIMIT)) is not None
        }

    def _data(self, loc: Loc, one: models.Config | models.Secret, limit: int) -> bytes | None:
        if one.file is not None:
            at, data = (*loc, "file"), self._file((*loc, "file"), one.file)
        elif one.environment is not None:
            at, data = (*loc, "environment"), self._variable((*loc, "environment"), one.environment)
        else:
            at, data = (*loc, "content"), _bytes(getattr(one, "content", None) or "")
        if data is not None and not 0 < len(data) < limit:
            kind = str(loc[0]).removesuffix("s")
            message = f"Swarm takes 1 to {limit - 1} bytes as a {kind}, this is {len(data)}"
            self.errors.append(self.file.error(at, message))
        return data

    def _file(self, at: Loc, path: str) -> bytes | None:
        if is_remote(path):
            self.errors.append(self.file.error(at, *remote(path)))
            return None
        try:
            return resolved(self.folder, path).read_bytes()
        # ValueError: a path that no file can have.
        except (OSError, ValueError) as error:
            self.errors.append(self.file.error(at, f"{path} cannot be read: {reason(error)}"))
            return None

    def _variable(self, at: Loc, name: str) -> bytes | None:
        if name in self.variables.given:
            return _bytes(self.variables.given[name])
        hint = f"export {name}=…, or write it into an .env file"
        self.errors.append(self.file.error(at, f"the variable {name} is not set", hint))
        return None

    def completed(self, compose: ComposeFile) -> ComposeFile:
        """The file with the variables of its services and builds, and the labels of containers, complete.

        `env_file` first, `environment` over it. What has no value takes that of the project's variables
        and, as docker does, an empty value counts as none where the command's own environment has one.
        So with `label_file` and `labels`, but that a label without a value is empty.
        """
        services = {
            key: service.model_copy(
                update={
                    "environment": self._of_files(key, service) | self._filled(service.environment),
                    "labels": self._labels(key, service) | service.labels,
                    "build": service.build
                    and service.build.model_copy(update={"args": self._filled(service.build.args)}),
                }
            )
            for key, service in compose.services.items()
        }
        return compose.model_copy(update={"services": services})

    def _filled(self, variables: Mapping[str, str | None]) -> dict[str, str | None]:
        return {
            key: self.variables.given.get(key)
            if value is None
            else value or self.variables.process.get(key, value)
            for key, value in variables.items()
        }

    def _of_files(self, key: str, service: Service) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for index, entry in enumerate(service.env_file):
            read = self._env_file(("services", key, "env_file", index), entry)
            # A name alone, without a value anywhere, is no variable.
            found |= {name: value for name, value in self._filled(read.values).items() if value is not None}
        return found

    def _labels(self, key: str, service: Service) -> dict[str, str]:
        found: dict[str, str] = {}
        for index, path in enumerate(service.label_file):
            read = self._env_file(("services", key, "label_file", index), models.EnvFile(path=path))
            found |= {name: value or "" for name, value in read.values.items()}
        return found

    def _env_file(self, at: Loc, entry: models.EnvFile) -> EnvFile:
        at = (*at, "path") if (*at, "path") in self.file.positions else at
        at = at if at in self.file.positions else at[:-1]
        if is_remote(entry.path):
            self.errors.append(self.file.error(at, *remote(entry.path)))
            return EnvFile({})
        path = resolved(self.folder, entry.path)
        if not entry.required and not path.exists():
            return EnvFile({})
        try:
            text = read_text(path)
        except SwarmkitError as error:
            self.errors.append(self.file.error(at, f"{entry.path}: {error.message}"))
            return EnvFile({})
        if entry.format == "raw":
            return parse_raw(text)
        try:
            read = parse(text, str(path), self.variables.given)
        except SwarmkitError as error:
            self.errors.append(error)
            return EnvFile({})
        for name, warning in read.unset.items():
            self.unset.setdefault(name, warning)
        return read


def _bytes(text: str) -> bytes:
    """Text as bytes; those of the environment that are no UTF-8 come out as they were."""
    return text.encode(errors="surrogateescape")
