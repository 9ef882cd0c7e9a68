"""Bundles: everything a proxy needs at once, as the controller sends it. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property


@dataclass(frozen=True)
class Bundle:
    """A configuration of nginx, whole.

    `nginx` is its text, `fallback` that of the one to use without a controller, which asks Docker's DNS
    for the tasks; both refer to `files` (contents by relative path, secrets among them) by paths relative
    to themselves. `upstreams` has, for each upstream's name, who is behind each of its addresses:
    {"10.0.1.5:80": "web_web.3 on wn1"}. After `fallback_seconds` without a controller the fallback is due.
    """

    nginx: str
    fallback: str
    files: Mapping[str, str] = field(repr=False)
    upstreams: Mapping[str, Mapping[str, str]]
    fallback_seconds: float = 60

    @cached_property
    def revision(self) -> str:
        """16 hexadecimal digits, the same for the same content."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """Its canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Bundle:
        """The bundle that `to_json` wrote; what else stands in the object is left alone.

        Raises ValueError, KeyError or TypeError for what is no bundle.
        """
        raw = json.loads(text)
        return cls(
            nginx=raw["nginx"],
            fallback=raw["fallback"],
            files=raw["files"],
            upstreams=raw["upstreams"],
            fallback_seconds=raw["fallback_seconds"],
        )
