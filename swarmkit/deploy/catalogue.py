"""Where stacks come from: the catalogue that ships with swarmkit, a folder, or a Compose file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from swarmkit.compose.paths import resolved
from swarmkit.errors import UsageError
from swarmkit.resources import folder

_PLAIN = "stack.yml"
_TEMPLATE = "stack.yml.j2"
_COMPOSE_NAMES = frozenset(
    {_PLAIN, "compose.yml", "compose.yaml", "docker-compose.yml", "docker-compose.yaml"}
)


@dataclass(frozen=True)
class StackSource:
    """Where a stack comes from.

    `name` is what its instance is called unless the user says otherwise; relative paths in `file` start
    from `folder`. `inputs` and `readme` are None where the stack has none.
    """

    name: str
    folder: Path
    file: Path
    inputs: Path | None = None
    readme: Path | None = None

    @property
    def is_template(self) -> bool:
        """Whether `file` is rendered by Jinja2 before it is a Compose file."""
        return self.file.name.endswith(".j2")

    def description(self) -> str:
        """One line on what the stack is: the first paragraph of its README.md, up to the first sentence.

        Empty where there is no README.md.
        """
        if self.readme is None:
            return ""
        lines = self.readme.read_text(encoding="utf-8", errors="replace").splitlines()
        paragraph: list[str] = []
        for line in lines:
            if line.strip() and not line.startswith(("#", "<", "[", "!")):
                paragraph.append(line.strip())
            elif paragraph:
                break
        return re.split(r"(?<=[.!?])\s", " ".join(paragraph), maxsplit=1)[0]


def catalogue(root: Path | None = None) -> list[StackSource]:
    """The stacks that ship with swarmkit (or those of the folder `root`), by name."""
    return list(_sources(root or folder("stacks")))


def find(reference: str, root: Path | None = None) -> StackSource:
    """The stack that a user means: a name of the catalogue, a folder, or a Compose file.

    A name of the catalogue wins over a folder of that name here; write ./NAME for the folder. Raises
    UsageError, with what the catalogue has, where there is no such stack.
    """
    known = {source.name: source for source in catalogue(root)}
    if reference in known:
        return known[reference]
    path = resolved(Path(), reference)
    if path.is_dir():
        source = _in_folder(path)
        if source is None:
            raise UsageError(
                f"the folder has neither {_PLAIN} nor {_TEMPLATE}",
                where=reference,
                hint=f"name the Compose file itself{_example(path)}, or give it one of these names",
            )
        return source
    if path.is_file():
        return _from_file(path)
    raise UsageError(
        f'there is no stack "{reference}": it is not in the catalogue, and no such folder or file is here',
        hint=f"the catalogue has: {', '.join(sorted(known)) or 'nothing'}",
    )


def _example(path: Path) -> str:
    found = [path / name for name in sorted(_COMPOSE_NAMES) if (path / name).is_file()]
    return f" ({found[0]})" if found else ""


def _sources(root: Path) -> Iterator[StackSource]:
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        if path.is_dir() and (source := _in_folder(path)):
            yield source


def _in_folder(path: Path) -> StackSource | None:
    # One that is rendered is preferred: the other may be what somebody rendered from it.
    for name in (_TEMPLATE, _PLAIN):
        if (path / name).is_file():
            return _source(path.resolve().name, path, path / name)
    return None


def _from_file(path: Path) -> StackSource:
    parent = path.parent
    name = path.name.removesuffix(".j2")
    # A usual name says nothing of the stack; the folder's does.
    stem = parent.resolve().name if name in _COMPOSE_NAMES else Path(name).stem
    return _source(stem, parent, path)


def _source(name: str, path: Path, file: Path) -> StackSource:
    inputs, readme = path / "inputs.yml", path / "README.md"
    template = file.name.endswith(".j2")
    return StackSource(
        # The form that Compose gives a project's name.
        name=re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_") or "stack",
        folder=path,
        file=file,
        inputs=inputs if template and inputs.is_file() else None,
        readme=readme if readme.is_file() else None,
    )
