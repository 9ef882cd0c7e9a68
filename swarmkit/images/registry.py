"""The cluster's own registry: its image, and the swarm service that runs it on one manager."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import tenacity

from swarmkit.errors import NotConverged
from swarmkit.images import BASE_TAG, REGISTRY, REGISTRY_DIR, REGISTRY_PORT
from swarmkit.images.base import Say, Shell, ensure_base, image_id, quiet
from swarmkit.images.build import build
from swarmkit.images.context import packed
from swarmkit.names import SPEC_LABEL, STACK_LABEL
from swarmkit.remote import Engine, EngineError, while_stale

STACK = "swarmkit"
SERVICE = f"{STACK}_registry"
VOLUME = "swarmkit-registry"
# On the registry's containers: the SHA-256 of the authority that its certificates are of.
AUTHORITY_LABEL = "swarmkit.registry.authority"

# How long the registry has to become healthy and to answer the engine.
SECONDS = 120.0
POLL_SECONDS = 0.25

_FOLDER = Path(__file__).parent / "registry-image"
_NANO = 1_000_000_000


def ensure_registry(
    engine: Engine,
    shell: Shell,
    node_id: str,
    authority: str,
    *,
    base_tag: str = BASE_TAG,
    say: Say = quiet,
    timeout: float = SECONDS,
) -> bool:
    """Make the registry run on the manager of `engine` and `shell`, whose ID in the swarm is `node_id`.

    `authority` is the SHA-256 of the authority that all certificates are of (`apply_trust` returns it):
    the registry reads them when it starts, so another one restarts it. Returns whether anything was
    changed. Raises OperationFailed where the image cannot be built, NotConverged where it does not
    become healthy and answer the engine within `timeout` seconds.
    """
    with packed(_FOLDER) as context:
        # In our own registry's name space, though it is never there: the engine looks for an image
        # that it may pull, and nobody else can offer one under this name.
        image = f"{REGISTRY}/{STACK}/registry:{context.digest[:20]}"
        built = image_id(engine, image) is None
        if built:
            base = ensure_base(engine, shell, base_tag, say)
            say("building the registry's image")
            build(engine, context, image, {"BASE": base.tag}, what="the registry")
    spec = service_spec(node_id, image, authority)
    changed = _put_service(engine, spec)
    if changed:
        say("starting the registry")
    _wait(engine, spec["Labels"][SPEC_LABEL], timeout)
    return built or changed


def service_spec(node_id: str, image: str, authority: str) -> dict[str, Any]:
    """The service as the Engine API takes it; a label holds the hash of all the rest."""
    files = [
        {
            "Type": "bind",
            "Source": f"{REGISTRY_DIR}/{name}",
            "Target": f"/run/registry/{name}",
            "ReadOnly": True,
        }
        for name in ("ca.crt", "server.crt", "server.key")
    ]
    data = {
        "Type": "volume",
        "Source": VOLUME,
        "Target": "/var/lib/registry",
        "VolumeOptions": {"Labels": {STACK_LABEL: STACK}},
    }
    spec: dict[str, Any] = {
        "Name": SERVICE,
        "Labels": {STACK_LABEL: STACK},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": image,
                "Labels": {STACK_LABEL: STACK, AUTHORITY_LABEL: authority},
                "Mounts": [data, *files],
                "ReadOnly": True,
                "CapabilityDrop": ["ALL"],
                "Healthcheck": {
                    "Test": ["CMD", "bash", "/etc/swarmkit-registry/healthy.sh"],
                    "Interval": 5 * _NANO,
                    "Timeout": 5 * _NANO,
                    "Retries": 3,
                    "StartPeriod": 30 * _NANO,
                    # Engines before 25 do not know it, and start in one interval.
                    "StartInterval": _NANO // 2,
                },
            },
            "Placement": {"Constraints": [f"node.id=={node_id}"]},
            "RestartPolicy": {"Condition": "any", "Delay": 2 * _NANO},
        },
        "Mode": {"Replicated": {"Replicas": 1}},
        "UpdateConfig": {"Parallelism": 1, "Order": "stop-first"},
        "EndpointSpec": {
            "Mode": "dnsrr",
            "Ports": [
                {
                    "Protocol": "tcp",
                    "TargetPort": REGISTRY_PORT,
                    "PublishedPort": REGISTRY_PORT,
                    "PublishMode": "host",
                }
            ],
        },
    }
    mark = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:20]
    spec["Labels"][SPEC_LABEL] = mark
    spec["TaskTemplate"]["ContainerSpec"]["Labels"][SPEC_LABEL] = mark
    return spec


@while_stale
def _put_service(engine: Engine, spec: dict[str, Any]) -> bool:
    """Create the service, or update it where its label tells another spec; whether it did."""
    try:
        service = engine.get(f"/services/{SERVICE}")
    except EngineError as error:
        if error.status != 404:
            raise
        engine.post("/services/create", spec)
        return True
    if service["Spec"]["Labels"].get(SPEC_LABEL) == spec["Labels"][SPEC_LABEL]:
        return False
    engine.post(f"/services/{service['ID']}/update", spec, {"version": service["Version"]["Index"]})
    return True


def _wait(engine: Engine, mark: str, timeout: float) -> None:
    """Until a task with this spec is healthy and the engine gets an answer from it.

    Both are asked together: after a power failure the swarm may for a while take a task for running
    that is gone.
    """
    until_none = tenacity.Retrying(
        retry=tenacity.retry_if_result(bool),
        stop=tenacity.stop_after_delay(timeout),
        wait=tenacity.wait_fixed(POLL_SECONDS),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else "",
    )
    if obstacle := until_none(lambda: _task_obstacle(engine, mark) or _answer_obstacle(engine)):
        raise NotConverged(
            f"the registry cannot be used: {obstacle}",
            where=engine.name,
            hint=f"look at it on that machine with: docker service ps --no-trunc {SERVICE}; "
            f"docker service logs {SERVICE}",
        )


def _task_obstacle(engine: Engine, mark: str) -> str:
    """Why no task with this spec runs; empty where one does."""
    tasks = [
        task
        for task in engine.get("/tasks", {"filters": json.dumps({"service": [SERVICE]})})
        if task["Spec"]["ContainerSpec"].get("Labels", {}).get(SPEC_LABEL) == mark
    ]
    # For the swarm a task runs once its health check has succeeded.
    if any(task["Status"]["State"] == task["DesiredState"] == "running" for task in tasks):
        return ""
    newest_first = sorted(tasks, key=lambda task: str(task["CreatedAt"]), reverse=True)
    errors = [error for task in newest_first if (error := task["Status"].get("Err"))]
    states = [f"its task is {task['Status']['State']}" for task in newest_first]
    return str((errors + states + ["it has no task"])[0])


def _answer_obstacle(engine: Engine) -> str:
    """Why the engine gets no answer under the registry's name, with its certificate; empty if it does."""
    try:
        # A login without credentials: the engine asks the registry for its API's root, no more.
        engine.post("/auth", {"serveraddress": REGISTRY})
    except EngineError as error:
        return error.message
    return ""
