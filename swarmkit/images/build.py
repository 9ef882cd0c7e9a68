"""Building images on a manager and pushing them to the cluster's registry, where they are not there yet."""

from __future__ import annotations

import hashlib
import json
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarmkit.errors import OperationFailed
from swarmkit.images import BASE_TAG, REGISTRY
from swarmkit.images.base import Say, Shell, ensure_base, image_id, quiet
from swarmkit.images.context import Context, packed
from swarmkit.remote import Engine, EngineError

# The longest silence of a build, in seconds: a step may compile for long without a word.
SILENCE_SECONDS = 1800
# How much of a failed step's output an error shows.
SHOWN_LINES = 12

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class ImageRef:
    """An image in the cluster's registry: `registry…/stack/service:tag@sha256:…`."""

    repository: str
    tag: str
    digest: str

    def __str__(self) -> str:
        return f"{self.repository}:{self.tag}@{self.digest}"


def build_and_push(
    engine: Engine,
    shell: Shell,
    name: str,
    folder: Path,
    dockerfile: str = "Dockerfile",
    args: Mapping[str, str] | None = None,
    *,
    target: str = "",
    base_tag: str = BASE_TAG,
    say: Say = quiet,
    detail: Say = quiet,
) -> ImageRef:
    """Make the registry have the image of a build context; returns its reference by digest.

    The engine and shell are those of the manager that builds; `name` is `stack/service`, `folder` the
    context, `dockerfile` a path from there, `target` a stage of it. The tag names the content: context,
    arguments, target and, where the Dockerfile declares `ARG BASE`, the base image. An image that the
    registry has under it is not built again. `say` gets the stages, `detail` the build's own output.

    Raises UsageError for a bad context, OperationFailed where building or pushing fails.
    """
    with packed(folder, dockerfile) as context:
        arguments, base_id = dict(args or {}), ""
        if _needs_base(context, arguments):
            base = ensure_base(engine, shell, base_tag, say)
            base_id, arguments["BASE"] = base.id, base.tag
        repository, tag = _place(name, context, arguments, target, base_id)
        reference = f"{repository}:{tag}"
        if digest := registry_digest(engine, reference):
            say(f"{name}: unchanged")
            return ImageRef(repository, tag, digest)
        say(f"{name}: building ({_size(context.size)} of context)")
        build(
            engine,
            context,
            reference,
            arguments,
            target=target,
            what=name,
            where=str(folder / dockerfile),
            detail=detail,
        )
    say(f"{name}: pushing")
    _push(engine, repository, tag, name, detail)
    digest = registry_digest(engine, reference)
    if digest is None:
        raise OperationFailed(f"the registry does not have {reference} after it was pushed", where=name)
    return ImageRef(repository, tag, digest)


def find_built(
    engine: Engine,
    name: str,
    folder: Path,
    dockerfile: str = "Dockerfile",
    args: Mapping[str, str] | None = None,
    *,
    target: str = "",
    base_tag: str = BASE_TAG,
) -> ImageRef | None:
    """What `build_and_push` would return without building; None where it would have to build.

    Changes nothing; raises UsageError for a bad context.
    """
    with packed(folder, dockerfile) as context:
        arguments, base_id = dict(args or {}), ""
        if _needs_base(context, arguments):
            found = image_id(engine, base_tag)
            if found is None:
                return None
            base_id, arguments["BASE"] = found, base_tag
        repository, tag = _place(name, context, arguments, target, base_id)
    digest = registry_digest(engine, f"{repository}:{tag}")
    return ImageRef(repository, tag, digest) if digest else None


def _needs_base(context: Context, arguments: Mapping[str, str]) -> bool:
    return declares_base(context.recipe) and "BASE" not in arguments


def _place(
    name: str, context: Context, arguments: Mapping[str, str], target: str, base_id: str
) -> tuple[str, str]:
    """The repository of an image and the tag that names its content."""
    tag = content_tag(context.digest, context.dockerfile, arguments, target, base_id)
    return f"{REGISTRY}/{path_of(name)}", tag


def path_of(name: str) -> str:
    """`stack/service` in the letters that a repository's name may have (OCI distribution-spec)."""
    parts = (re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") or "x" for part in name.split("/"))
    return "/".join(parts)


def declares_base(dockerfile: str) -> bool:
    """Whether a Dockerfile asks for swarmkit's base image, with `ARG BASE`."""
    return re.search(r"^\s*ARG\s+BASE\s*(=|$)", dockerfile, re.IGNORECASE | re.MULTILINE) is not None


def content_tag(
    digest: str, dockerfile: str, arguments: Mapping[str, str], target: str = "", base_id: str = ""
) -> str:
    """The tag that stands for all that an image is made of: 20 hexadecimal digits."""
    made_of = [digest, dockerfile, sorted(arguments.items()), target, base_id]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:20]


def registry_digest(engine: Engine, reference: str) -> str | None:
    """The digest of an image in the cluster's registry, None where it has none of that name.

    Raises EngineError where the registry does not answer.
    """
    try:
        return str(engine.get(f"/distribution/{reference}/json")["Descriptor"]["digest"])
    except EngineError as error:
        if "manifest unknown" in error.message or "name unknown" in error.message:
            return None
        raise EngineError(
            f"the cluster's registry does not answer: {error.message}",
            error.status,
            where=error.where,
            hint="run `swarmkit init` again: it sets right what the registry needs",
        ) from None


def build(
    engine: Engine,
    context: Context,
    reference: str,
    arguments: Mapping[str, str],
    *,
    what: str,
    target: str = "",
    where: str = "",
    detail: Say = quiet,
) -> None:
    """Build `context` on the engine and give the image the name `reference`.

    `what` and `where` (the Dockerfile) are for people. Raises OperationFailed with the step that failed
    and the end of its output.
    """
    step = ""
    output: deque[str] = deque(maxlen=SHOWN_LINES)
    messages = engine.stream(
        lambda api: api.build(
            fileobj=context.archive,
            custom_context=True,
            dockerfile=context.dockerfile,
            tag=reference,
            buildargs=dict(arguments),
            labels={"swarmkit.image": what},
            # The machine's own network: its name servers may be on the loopback.
            network_mode="host",
            target=target or None,
            forcerm=True,
            rm=True,
            decode=True,
            timeout=SILENCE_SECONDS,
            use_config_proxy=False,
        )
    )
    try:
        for message in messages:
            if problem := message.get("error"):
                raise _failed(what, where, step, problem, output)
            for line in str(message.get("stream") or message.get("status") or "").splitlines():
                text = _ANSI.sub("", line).strip()
                if text.startswith("Step "):
                    step = text.replace(" : ", ": ", 1)
                    output.clear()
                    detail(f"{what}: {step}")
                elif text and not text.startswith(("--->", "Removing intermediate container")):
                    output.append(text)
                    detail(text)
    except EngineError as error:
        raise _failed(what, where, step, error.message, output) from None


def _failed(what: str, where: str, step: str, problem: str, output: deque[str]) -> OperationFailed:
    reason = re.sub(
        r"^The command '.*' returned a", "the command returned a", problem.strip(), flags=re.DOTALL
    )
    at = f"{step}: " if step else ""
    hint = "\n  ".join(output)
    if "requires BuildKit" in problem:
        hint = "write the step without BuildKit's options (`RUN --mount`, `COPY --link`, heredocs)"
    return OperationFailed(f"the image of {what} cannot be built: {at}{reason}", where=where, hint=hint)


def _push(engine: Engine, repository: str, tag: str, name: str, detail: Say) -> None:
    # Who may push is told by the node's certificate; no credentials of the user's are looked for.
    messages = engine.stream(lambda api: api.push(repository, tag, stream=True, decode=True, auth_config={}))
    for message in messages:
        problem: Any = message.get("error")
        if problem:
            raise OperationFailed(
                f"the image of {name} cannot be pushed: {problem}",
                where=engine.name,
                hint="run `swarmkit doctor`, and look whether the registry's disk is full",
            )
        if "progressDetail" not in message and (status := message.get("status")):
            detail(str(status))


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"
