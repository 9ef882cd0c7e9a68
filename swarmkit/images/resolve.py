"""Images by digest: what docker's client finds out for a service before it sends the spec.

docker (client/service_create.go, cli/command/stack/deploy_composefile.go) asks the engine what a registry
has under a tag, and sends the digest and the platforms of it: then all nodes run the same image, and only
on nodes that can. `choose` says for one service what is to be done, `look_up` asks, `placed` writes the
answer into the spec.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from swarmkit.compose.convert import Spec, tagged
from swarmkit.images.credentials import Credentials, registry_of
from swarmkit.names import IMAGE_LABEL
from swarmkit.remote import Engine, EngineError

# docker's --resolve-image.
Resolve = Literal["always", "changed", "never"]
Platform = Mapping[str, str]

# The engine asks registries side by side; no more at a time than its connections allow.
_AT_ONCE = 8


@dataclass(frozen=True)
class Image:
    """A reference to run, and the platforms that it is for; without any, it may be for every one."""

    reference: str
    platforms: tuple[Platform, ...] = ()


@dataclass(frozen=True)
class Unresolved:
    """An image that no digest could be found for. `reason` is one of three, `said` the engine's words."""

    reference: str
    reason: Literal["missing", "denied", "unreachable"]
    said: str

    def warning(self) -> str:
        """A line for the user: what is wrong, and what it leads to."""
        registry = registry_of(self.reference)
        match self.reason:
            case "missing":
                return f"{self.reference}: {registry} has no such image; only nodes that hold it can run it"
            case "denied":
                return (
                    f"{self.reference}: {registry} denies access, or has no such image; if it is private:"
                    f" docker login {registry}"
                )
            case "unreachable":
                return (
                    f"{self.reference}: {registry} cannot be reached from the manager ({self.said});"
                    " each node will look for the tag by itself, and may find another image"
                )


def choose(image: str, mode: Resolve, live: Mapping[str, Any] | None) -> Image | None:
    """What a service runs that the file says runs `image`; None where a registry has to be asked.

    `live` is the service's spec in the swarm, None for a new one. As docker: `always` asks, `changed` asks
    where the file's image is not that of the last deployment (which a label of the service holds), `never`
    does not ask. An image that has not changed stays what it is in the swarm, digest and platforms
    included; docker forgets the platforms.
    """
    if live is not None and mode != "always" and image == (live.get("Labels") or {}).get(IMAGE_LABEL):
        task = live["TaskTemplate"]
        platforms = (task.get("Placement") or {}).get("Platforms") or ()
        return Image(task["ContainerSpec"]["Image"], tuple(platforms))
    return Image(tagged(image)) if mode == "never" else None


def look_up(engine: Engine, image: str, credentials: Credentials) -> Image | Unresolved:
    """What the registry has under the reference `image`, as the engine sees it: one request.

    Raises Unreachable where the engine itself cannot be asked, and what `Credentials.header` raises.
    """
    reference = tagged(image)
    headers = credentials.headers(reference)
    try:
        answer = engine.get(f"/distribution/{reference}/json", headers=headers)
    except EngineError as error:
        return Unresolved(reference, _reason(error), error.message)
    return found(reference, answer)


def look_up_all(
    engine: Engine, images: Iterable[str], credentials: Credentials
) -> dict[str, Image | Unresolved]:
    """`look_up` of each different image, side by side."""
    different = sorted(set(images))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(
            zip(
                different, pool.map(lambda image: look_up(engine, image, credentials), different), strict=True
            )
        )


def found(reference: str, answer: Mapping[str, Any]) -> Image:
    """The image of an answer of GET /distribution/NAME/json."""
    digest = str(answer["Descriptor"]["digest"])
    platforms: list[Platform] = []
    for entry in answer.get("Platforms") or ():
        system, architecture = str(entry.get("os") or ""), str(entry.get("architecture") or "")
        if "unknown" in (system, architecture):
            # No image but what goes with one, such as an attestation of how it was built.
            continue
        platform = {
            # A node says armv7l where an image says arm, so that no node would do (moby/swarmkit 2294).
            "Architecture": "" if architecture.lower() == "arm" else architecture,
            "OS": system,
        }
        if platform not in platforms:
            platforms.append(platform)
    # An image's id, which has no tag, and a digest say already which image.
    named = "@" not in reference and ":" in reference.rpartition("/")[2]
    return Image(f"{reference}@{digest}" if named else reference, tuple(platforms))


def placed(spec: Spec, image: Image) -> Spec:
    """A service's spec that runs `image`, on nodes of its platforms."""
    task = spec["TaskTemplate"]
    placement = {key: value for key, value in (task.get("Placement") or {}).items() if key != "Platforms"}
    if image.platforms:
        placement["Platforms"] = [dict(platform) for platform in image.platforms]
    container = {**task["ContainerSpec"], "Image": image.reference}
    return {**spec, "TaskTemplate": {**task, "ContainerSpec": container, "Placement": placement}}


def needs_credentials(spec: Mapping[str, Any], live: Mapping[str, Any] | None) -> bool:
    """Whether a service has to be sent with credentials: where it is new, or runs another image.

    Other credentials alone make Swarm replace all tasks, and it keeps those it has where an update
    brings none (Engine API, registryAuthFrom).
    """
    if live is None:
        return True
    images = (each["TaskTemplate"]["ContainerSpec"].get("Image") for each in (spec, live))
    return len(set(images)) > 1


def _reason(error: EngineError) -> Literal["missing", "denied", "unreachable"]:
    """The engine passes on what a registry answered: as a status, or only in words (moby, distribution)."""
    said = error.message.lower()
    if error.status in (401, 403) or "denied" in said or "unauthorized" in said:
        return "denied"
    if error.status == 404 or "manifest unknown" in said or "not found" in said:
        return "missing"
    return "unreachable"


def warnings(images: Mapping[str, Image | Unresolved]) -> list[str]:
    """A line for each image that was not found."""
    return [each.warning() for each in images.values() if isinstance(each, Unresolved)]
