"""Compose files read whole: `include` brought in, and services made whole that extend others.

Variables are filled in first, file by file; then what a file includes becomes part of it, its services
take over what they extend, and the next file is laid over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from swarmkit.compose.environment import Variables, default_files
from swarmkit.compose.merge import merged
from swarmkit.compose.models import text
from swarmkit.compose.paths import is_remote, rebased, rebased_service, remote, resolved
from swarmkit.compose.tree import TAGS, Node, planted, tree
from swarmkit.errors import SwarmkitError, UsageError
from swarmkit.interpolate import interpolate
from swarmkit.yamlfile import YamlFile, read

# What an included file adds to the project.
SECTIONS = ("services", "networks", "volumes", "configs", "secrets")
_CHAIN_LIMIT = 50
_NO_COMPOSE_FILE = "not a Compose file: expected a mapping with `services:`"


@dataclass
class Findings:
    """What was noticed on the way: mistakes, and a warning for each variable that is not set.

    `complete` is whether all files and services were found that others refer to.
    """

    errors: list[SwarmkitError] = field(default_factory=list)
    unset: dict[str, str] = field(default_factory=dict)
    complete: bool = True

    def missing(self, error: SwarmkitError) -> None:
        """A mistake that leaves the project incomplete."""
        self.errors.append(error)
        self.complete = False


@dataclass(frozen=True)
class _Source:
    """A file that services are extended from: which it is, where its relative paths start."""

    identity: str
    document: Node
    folder: Path


@dataclass(frozen=True)
class Reader:
    """Reads the files of one project; its relative paths start from `folder`.

    `including` are the files that led here by `include`.
    """

    folder: Path
    variables: Variables
    findings: Findings
    including: tuple[Path, ...] = ()
    _sources: dict[Path, _Source | None] = field(default_factory=dict)
    _services: dict[tuple[str, str], Node] = field(default_factory=dict)

    def project(self, files: Sequence[tuple[YamlFile, Path]]) -> Node:
        """The files (each with the folder that its relative paths start from) laid over each other."""
        result = planted({}, files[0][0].position(()))
        for file, folder in files:
            if document := self._whole(file, folder):
                result = merged(result, document)
        return result

    def _whole(self, file: YamlFile, folder: Path) -> Node | None:
        document = self._document(file)
        if document is None:
            return None
        document = self._with_included(document, folder)
        source = _Source(file.name, document, folder)
        whole = {name: self._service(source, name, ()) for name in _services(document)}
        if whole:
            document = document.with_entries({"services": document.mapping["services"].with_entries(whole)})
        return document if folder == self.folder else rebased(document, folder)

    def _document(self, file: YamlFile) -> Node | None:
        if not isinstance(file.data, dict):
            hint = "see docs/stacks.md for a small one"
            self.findings.missing(UsageError(_NO_COMPOSE_FILE, where=file.where(()), hint=hint))
            return None
        filled = interpolate(replace(file, data=_text_keys(file.data)), self.variables.given)
        self.findings.errors += filled.errors.values()
        self.findings.unset = {**filled.unset, **self.findings.unset}
        return tree(filled.file, filled.errors)

    def _file(self, path: Path, asked: Node, what: str) -> YamlFile | None:
        """The file at `path`, which the value `asked` at the path `what` speaks of."""
        if asked.broken:
            self.findings.complete = False
            return None
        try:
            return read(path, TAGS)
        except SwarmkitError as error:
            if error.where == str(path):
                self._missing(asked, what, f"{asked.value}: {error.message}")
            else:
                self.findings.missing(error)
            return None

    def _missing(self, node: Node, path: str, message: str, hint: str = "") -> None:
        self.findings.missing(UsageError(f"{path}: {message}", where=str(node.position), hint=hint))

    # ------------------------------------------------------------ include

    def _with_included(self, document: Node, folder: Path) -> Node:
        include = document.get("include")
        if include is None or include.value is None:
            return document
        document = document.without("include")
        if not isinstance(include.value, list):
            self._missing(include, "include", "expected a list of files")
        for index, entry in enumerate(include.items):
            included = self._included(entry, f"include[{index}]", folder)
            if included:
                document = self._with_imported(document, included)
        return document

    def _included(self, entry: Node, what: str, folder: Path) -> Node | None:
        fields = self._fields(entry, what, short="path", known=("path", "project_directory", "env_file"))
        if fields is None:
            return None
        paths = self._paths(fields.get("path"), entry, f"{what}.path", folder)
        env_files = self._paths(fields.get("env_file"), None, f"{what}.env_file", folder)
        files = [(self._file(path, node, what), path, node) for path, node in paths]
        found = [(file, path) for file, path, node in files if file and self._no_circle(path, node, what)]
        if not found or len(found) < len(paths):
            return None
        own = self._paths(fields.get("project_directory"), None, f"{what}.project_directory", folder)
        inner_folder = own[0][0] if own else paths[0][0].parent
        asked = [path for path, _ in env_files]
        if not asked and inner_folder != self.folder:
            asked = default_files(inner_folder)
        try:
            variables = self.variables.below(asked)
        except SwarmkitError as error:
            self.findings.missing(error)
            return None
        self.findings.unset = {**variables.unset, **self.findings.unset}
        including = (*self.including, *(path.resolve() for _, path in found))
        inner = Reader(inner_folder, variables, self.findings, including)
        project = inner.project([(file, inner_folder) for file, _ in found])
        return project if inner_folder == folder else rebased(project, inner_folder)

    def _no_circle(self, path: Path, node: Node, what: str) -> bool:
        if path.resolve() not in self.including:
            return True
        circle = " → ".join(one.name for one in (*self.including, path))
        self._missing(node, what, f"the files include each other: {circle}")
        return False

    def _fields(self, node: Node, what: str, *, short: str, known: Sequence[str]) -> dict[str, Node] | None:
        """The fields of a value that may be written as one text, which is then the field `short`."""
        if node.is_text:
            return {short: node}
        if not node.mapping:
            self._missing(node, what, f"expected text, or a mapping with {' and '.join(known)}")
            return None
        for key, item in node.mapping.items():
            if key not in known and not key.startswith("x-"):
                hint = f"known here: {', '.join(known)}"
                self.findings.errors.append(
                    UsageError(f"{what}.{key}: unknown key", where=str(item.position), hint=hint)
                )
        return {key: item for key, item in node.mapping.items() if item.value is not None}

    def _paths(
        self, node: Node | None, needed_by: Node | None, what: str, folder: Path
    ) -> list[tuple[Path, Node]]:
        """One path or a list of them; `needed_by` is what cannot do without."""
        if node is None:
            if needed_by:
                self._missing(needed_by, what, "is required")
            return []
        texts = [node] if node.is_text else node.items
        if not texts or not all(one.is_text for one in texts):
            self._missing(node, what, "expected a path, or a list of them")
            return []
        return [(resolved(folder, one.value), one) for one in texts if self._is_here(one, what)]

    def _is_here(self, path: Node, what: str) -> bool:
        if path.broken or not is_remote(path.value):
            return True
        self._missing(path, what, *remote(path.value))
        return False

    def _with_imported(self, document: Node, included: Node) -> Node:
        for key, node in included.mapping.items():
            if key not in (*SECTIONS, "name", "version") and not key.startswith("x-"):
                self.findings.errors.append(UsageError(f"{key}: unknown key", where=str(node.position)))
        for section in SECTIONS:
            theirs = included.get(section)
            if theirs is None or theirs.value is None:
                continue
            if not isinstance(theirs.value, dict):
                self._missing(theirs, section, "expected a mapping")
                continue
            ours = document.get(section)
            if ours is None or ours.value is None:
                document = document.with_entries({section: theirs})
                continue
            for key, node in theirs.mapping.items():
                if key in ours.mapping and ours.mapping[key].plain() != node.plain():
                    self._missing(
                        ours.mapping[key],
                        f"{section}.{key}",
                        f"stands also, and otherwise, in the included {node.position}",
                        "give it another name; what an included file says is changed by a second file of"
                        " the same include (`path: [it.yml, changes.yml]`), or by one more -f",
                    )
            document = document.with_entries({section: ours.with_entries({**theirs.mapping, **ours.mapping})})
        return document

    # ------------------------------------------------------------ extends

    def _service(self, source: _Source, name: str, chain: tuple[tuple[str, str], ...]) -> Node:
        """A service with all that it extends."""
        known = (source.identity, name)
        if known not in self._services:
            self._services[known] = self._extended(source, name, (*chain, known))
        return self._services[known]

    def _extended(self, source: _Source, name: str, chain: tuple[tuple[str, str], ...]) -> Node:
        service = source.document.mapping["services"].mapping[name]
        extends = service.get("extends")
        if extends is None:
            return service
        service = service.without("extends")
        what = f"services.{name}.extends"
        if extends.value is None:
            return service
        fields = self._fields(extends, what, short="service", known=("service", "file"))
        if fields is None:
            return service
        base = self._base(source, fields, extends, what)
        if base is None:
            return service
        base_source, base_name = base
        if (base_source.identity, base_name) in chain or len(chain) > _CHAIN_LIMIT:
            circle = " → ".join([*(one for _, one in chain), base_name])
            self._missing(extends, what, f"the services extend each other: {circle}")
            return service
        found = self._service(base_source, base_name, chain)
        if base_source.folder != source.folder:
            found = rebased_service(found, base_source.folder)
        return merged(found, service, ("services", name))

    def _base(
        self, source: _Source, fields: dict[str, Node], extends: Node, what: str
    ) -> tuple[_Source, str] | None:
        """Where the extended service stands, and its name there."""
        wanted = fields.get("service")
        if wanted and wanted.broken:
            self.findings.complete = False
            return None
        if wanted is None or not wanted.is_text:
            self._missing(wanted or extends, f"{what}.service", "expected the name of a service")
            return None
        if "file" in fields:
            other = self._source(fields["file"], f"{what}.file", source.folder)
            if other is None:
                return None
            source = other
        if wanted.value not in _services(source.document):
            self._missing(wanted, what, f'no service is called "{wanted.value}" in {source.identity}')
            return None
        return source, wanted.value

    def _source(self, file: Node, what: str, folder: Path) -> _Source | None:
        if not file.is_text:
            self._missing(file, what, "expected the path of a Compose file")
            return None
        if not self._is_here(file, what):
            return None
        path = resolved(folder, file.value)
        if path not in self._sources:
            read = self._file(path, file, what)
            document = self._document(read) if read else None
            self._sources[path] = _Source(str(path), document, path.parent) if document else None
        return self._sources[path]


def _services(document: Node) -> list[str]:
    services = document.get("services")
    return list(services.mapping) if services else []


def _text_keys(node: object) -> object:
    """Keys are names here, also those that YAML reads as numbers."""
    match node:
        case dict():
            return {_key(key): _text_keys(value) for key, value in node.items()}
        case list():
            return [_text_keys(item) for item in node]
        case _:
            return node


def _key(key: object) -> str:
    try:
        return text(key)
    except ValueError:
        return str(key)
