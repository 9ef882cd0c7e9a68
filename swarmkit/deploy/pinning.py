"""The images of a stack by digest, as the registries have them when it is deployed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from swarmkit.compose.convert import DesiredStack, tagged
from swarmkit.deploy.plan import LiveStack, name_of
from swarmkit.images.credentials import Credentials
from swarmkit.images.resolve import Image, Resolve, Unresolved, choose, look_up_all, placed, warnings
from swarmkit.names import IMAGE_LABEL
from swarmkit.remote import Engine


def pins(
    engine: Engine,
    desired: DesiredStack,
    live: LiveStack,
    mode: Resolve,
    credentials: Credentials,
    known: Collection[str],
) -> tuple[Mapping[str, Image], Sequence[str]]:
    """What each service runs, by its short name, and lines for the user where a registry was of no help.

    Services in `known` have their digest already. One whose image has not changed keeps what it runs
    where the registry cannot be asked: what is away for a while must not restart it.
    """
    held = {name_of(one): one["Spec"] for one in live.services}
    written = {
        one.short_name: (one.spec["Labels"][IMAGE_LABEL], held.get(one.name))
        for one in desired.services
        if one.short_name not in known
    }
    chosen = {name: choose(image, mode, spec) for name, (image, spec) in written.items()}
    asked = {written[name][0] for name, image in chosen.items() if image is None}
    answers = look_up_all(engine, asked, credentials) if asked else {}
    found: dict[str, Image] = {}
    for name, (image, spec) in written.items():
        answer = chosen[name] or answers[image]
        if isinstance(answer, Unresolved):
            answer = choose(image, "changed", spec) or Image(tagged(image))
        found[name] = answer
    return found, warnings(answers)


def pinned(desired: DesiredStack, images: Mapping[str, Image]) -> DesiredStack:
    """The stack with these images, by the services' short names."""
    services = tuple(
        replace(one, spec=placed(one.spec, images[one.short_name])) if one.short_name in images else one
        for one in desired.services
    )
    return replace(desired, services=services)
