"""Relative paths of files that are brought in from another folder.

A path in a Compose file starts from the folder of the project. What an included or extended file of
another folder says starts from there, and is made absolute before it becomes part of the project.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from swarmkit.compose.tree import Node, planted

Edit = Callable[[Node], Node]


def resolved(folder: Path, path: str) -> Path:
    """`path` as it stands in a Compose file of `folder`; `~` is the user's home."""
    try:
        return folder / Path(path).expanduser()
    except RuntimeError:
        # The home of a user who is not known here.
        return folder / path


def is_remote(path: str) -> bool:
    """Whether this is no path but a place elsewhere: a URL, or a repository of git."""
    return "://" in path or path.startswith(("git@", "github.com/"))


def remote(path: str) -> tuple[str, str]:
    """What is wrong with such a path, and what to do."""
    hint = "fetch it first (curl, git clone), and name the copy"
    return f"{path} is not on this machine, and swarmkit fetches no files", hint


def rebased(document: Node, folder: Path) -> Node:
    """A Compose file whose relative paths started from `folder`, with absolute ones."""
    document = _within(
        document, "services", lambda node: _each(node, lambda one: rebased_service(one, folder))
    )
    for section in ("configs", "secrets"):
        document = _within(
            document, section, lambda node: _each(node, lambda one: _within(one, "file", _absolute(folder)))
        )
    return document


def rebased_service(service: Node, folder: Path) -> Node:
    """The same for one service."""
    absolute = _absolute(folder)
    service = _within(service, "build", lambda node: _build(node, folder))
    for key in ("env_file", "label_file"):
        service = _within(service, key, lambda node: _files(node, absolute))
    return _within(service, "volumes", lambda node: _items(node, lambda item: _mount(item, absolute)))


def _absolute(folder: Path) -> Edit:
    def edit(node: Node) -> Node:
        if node.broken or not node.is_text or not node.value or node.value.startswith("~"):
            return node
        return node if is_remote(node.value) else replace(node, value=str(folder.absolute() / node.value))

    return edit


def _within(node: Node, key: str, edit: Edit) -> Node:
    found = node.get(key)
    return node if found is None else node.with_entries({key: edit(found)})


def _each(node: Node, edit: Edit) -> Node:
    return (
        node.with_entries({key: edit(item) for key, item in node.mapping.items()}) if node.mapping else node
    )


def _items(node: Node, edit: Edit) -> Node:
    return replace(node, value=[edit(item) for item in node.items]) if node.items else node


def _build(node: Node, folder: Path) -> Node:
    if node.mapping and "context" not in node.mapping:
        return node.with_entries({"context": planted(str(folder.absolute()), node.position)})
    return _within(node, "context", _absolute(folder)) if node.mapping else _absolute(folder)(node)


def _files(node: Node, absolute: Edit) -> Node:
    if node.is_text:
        return absolute(node)
    return _items(node, lambda item: _within(item, "path", absolute) if item.mapping else absolute(item))


def _mount(item: Node, absolute: Edit) -> Node:
    if item.is_text:
        source, colon, rest = item.value.partition(":")
        if not (colon and source.startswith(".")):
            return item
        return replace(item, value=f"{absolute(replace(item, value=source)).value}:{rest}")
    kind = item.get("type")
    return _within(item, "source", absolute) if kind and kind.value == "bind" else item
