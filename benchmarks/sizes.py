"""The sizes at which something is measured, as an option says them."""

from __future__ import annotations


def sizes(text: str) -> list[tuple[int, int | None]]:
    """`3,8,20:1`: sizes, each with its own number of rounds if need be."""
    found = []
    for part in text.split(","):
        size, _, rounds = part.partition(":")
        found.append((int(size), int(rounds) if rounds else None))
    return found
