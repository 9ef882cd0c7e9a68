"""A Compose file as a tree in which every value knows where it stands.

Files are merged, extended and included as such trees: whatever ends up beside what, an error can name
the file, line and column that it came from.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from typing import Any

from swarmkit.yamlfile import Loc, Position, YamlFile

# The Compose Specification ("Merge"): an attribute with `!reset` is taken away, one with `!override`
# replaces that of the file before instead of being merged with it.
RESET, OVERRIDE = "!reset", "!override"
TAGS = frozenset({RESET, OVERRIDE})


@dataclass(frozen=True)
class Node:
    """A value: a scalar, a mapping of nodes by key, or a list of nodes.

    `tag` is RESET, OVERRIDE or nothing. `broken` is a text whose mistake has been told already.
    """

    value: Any
    position: Position
    tag: str = ""
    broken: bool = False

    @property
    def mapping(self) -> Mapping[str, Node]:
        """The entries of a mapping; nothing for another value."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> list[Node]:
        """The items of a list; nothing for another value."""
        return self.value if isinstance(self.value, list) else []

    @property
    def is_text(self) -> bool:
        return isinstance(self.value, str)

    def get(self, *path: str) -> Node | None:
        """What stands at `path` below this mapping, if anything does."""
        found: Node | None = self
        for key in path:
            found = found.mapping.get(key) if found else None
        return found

    def with_entries(self, entries: Mapping[str, Node]) -> Node:
        """This mapping with `entries` put in, or in the place of those that were there."""
        return replace(self, value={**self.mapping, **entries})

    def without(self, key: str) -> Node:
        """This mapping without one of its keys."""
        return replace(self, value={name: node for name, node in self.mapping.items() if name != key})

    def plain(self) -> Any:
        """The bare data, without anything marked `!reset`."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items() if node.tag != RESET}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value if node.tag != RESET]
        return self.value


def planted(value: Any, position: Position) -> Node:
    """Bare data as a tree in which everything stands at `position`."""
    match value:
        case dict():
            return Node({key: planted(item, position) for key, item in value.items()}, position)
        case list():
            return Node([planted(item, position) for item in value], position)
        case _:
            return Node(value, position)


def tree(file: YamlFile, broken: Container[Loc]) -> Node:
    """The tree of a file; at `broken` are texts with a mistake."""

    def node(value: Any, loc: Loc) -> Node:
        position, tag = file.position(loc), file.tags.get(loc, "")
        match value:
            case dict():
                return Node({key: node(item, (*loc, key)) for key, item in value.items()}, position, tag)
            case list():
                return Node([node(item, (*loc, n)) for n, item in enumerate(value)], position, tag)
            case _:
                return Node(value, position, tag, loc in broken)

    return node(file.data, ())


def flat(root: Node) -> tuple[YamlFile, list[Loc]]:
    """The tree as data and positions, and where in it the broken texts are."""
    positions: dict[Loc, Position] = {}
    broken: list[Loc] = []

    def data(node: Node, loc: Loc) -> Any:
        positions[loc] = node.position
        if node.broken:
            broken.append(loc)
        if isinstance(node.value, dict):
            kept = {key: item for key, item in node.value.items() if item.tag != RESET}
            return {key: data(item, (*loc, key)) for key, item in kept.items()}
        if isinstance(node.value, list):
            items = [item for item in node.value if item.tag != RESET]
            return [data(item, (*loc, n)) for n, item in enumerate(items)]
        return node.value

    return YamlFile(root.position.file, data(root, ()), positions), broken
