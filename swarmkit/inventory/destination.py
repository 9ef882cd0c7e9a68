"""`USER@ADDRESS:PORT`, as people write where to log in."""

from __future__ import annotations

import re
from typing import NamedTuple

_FORM = re.compile(
    r"^(?:(?P<user>[^\s@:-][^\s@:]*)@)?(?P<address>\[[0-9A-Fa-f:]+\]|[A-Za-z0-9_][A-Za-z0-9_.-]*)"
    r"(?::(?P<port>\d{1,5}))?$",
    re.ASCII,
)


class Destination(NamedTuple):
    """Where to log in; what was not said is None."""

    address: str
    user: str | None = None
    port: int | None = None


def parse(text: str) -> Destination | None:
    """From `ADDRESS`, `USER@ADDRESS`, `ADDRESS:PORT`, `USER@[IPV6]:PORT`; None for another form."""
    match = _FORM.match(text)
    if match is None or not 1 <= int(match["port"] or 22) <= 65535:
        return None
    return Destination(
        match["address"].strip("[]"), match["user"], int(match["port"]) if match["port"] else None
    )
