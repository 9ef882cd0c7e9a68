"""What is done to the swarm while the load runs: by swarmkit's commands, and by docker's own."""

from __future__ import annotations

import http.client
import json
import re
import ssl
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from benchmarks.traffic.connections import DURING
from benchmarks.traffic.site import CERTIFICATE, WEB, Site, eventually

# The node that is drained and switched off: a worker, for an entry node takes its own address with it.
NODE = "wn1"
SETTLED_SECONDS = 120
TLS_PORT = 8443
# As many answers in a row are of the tasks that run, not of one of them.
ASKED = 20
CONTROLLER = "swarmkit-lb_controller"


@dataclass(frozen=True)
class Operation:
    """Something done to the swarm; it ends when it is done.

    `before` brings about what it starts from, and is not counted as part of it. `loses` says that a
    backend dies without a word, so that requests which it had begun to answer cannot be saved; `once`,
    that it is not repeated with the others. `seconds` is how long the load goes on afterwards as part
    of it. `holds` is what is true when it was done; nothing is proved by what was not done.
    """

    name: str
    act: Callable[[Site], object]
    holds: Callable[[Site], bool] = lambda _site: True
    before: Callable[[Site], object] = lambda _site: None
    loses: bool = False
    once: bool = False
    seconds: float = 3


def running(site: Site, count: int) -> bool:
    tasks = site.tasks()
    return len(tasks) == count and all(task["state"] == "running" for task in tasks)


def settled(site: Site) -> None:
    """Wait until as many tasks run as should."""
    wanted = next(one["desired"] for one in site.json("status")["services"] if one["name"] == WEB)
    eventually(lambda: running(site, wanted), SETTLED_SECONDS, f"{wanted} tasks run")


def version_at(site: Site, path: str) -> str:
    """The version of the backend that answers at a path of the balancer; empty where none does."""
    connection = http.client.HTTPConnection(urlsplit(site.url).netloc, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return str(json.loads(answer.read())["version"]) if answer.status == 200 else ""
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()


def _runs(version: str) -> Callable[[Site], bool]:
    """Whether every task is of this version."""
    return lambda site: all(version_at(site, "/") == version for _ in range(ASKED))


def _has_tasks(site: Site) -> bool:
    return any(task["node"] == NODE for task in site.tasks())


def _is_empty(site: Site) -> bool:
    return not site.containers(NODE, WEB)


def _scale(count: int) -> Callable[[Site], object]:
    return lambda site: site.swarmkit("scale", f"{WEB}={count}")


def _update(service: str, code: int = 0) -> Callable[[Site], object]:
    return lambda site: site.swarmkit("update", WEB, "--image", site.image_of(service), code=code)


def _new_certificate(site: Site) -> None:
    site.certificate()
    site.up()


def _serves_it(site: Site) -> bool:
    """Whether the balancer shows the certificate that is in the stack's folder."""
    try:
        shown = ssl.get_server_certificate((site.addresses[site.manager], TLS_PORT), timeout=10)
    except OSError:
        return False
    return (site.folder / CERTIFICATE).read_text().startswith(shown.strip())


def _kill_controller(site: Site) -> None:
    """Kill the controller's container, by its id, and wait for the next one."""
    (old,) = site.containers(site.manager, CONTROLLER)
    site.shell(site.manager, f"docker kill {old}")
    eventually(
        lambda: bool(set(site.containers(site.manager, CONTROLLER)) - {old}),
        SETTLED_SECONDS,
        "a new controller runs",
    )
    # It knows the swarm as it is now.
    site.swarmkit("scale", f"{WEB}=6")
    site.swarmkit("scale", f"{WEB}=5")


def _kill_task(site: Site) -> None:
    """SIGKILL the process of a task on a worker."""
    container, *_ = site.containers(NODE, WEB)
    site.shell(NODE, f"kill -KILL $(docker inspect -f '{{{{.State.Pid}}}}' {container})")
    eventually(lambda: container not in site.containers(NODE, WEB), SETTLED_SECONDS, "the task is dead")
    settled(site)


def _power_off(site: Site) -> None:
    site.power("off", NODE)
    # Until the swarm has noticed, and started the lost tasks elsewhere.
    eventually(lambda: all(task["node"] != NODE for task in site.tasks()), SETTLED_SECONDS, "tasks elsewhere")
    settled(site)


def _power_on(site: Site) -> None:
    site.power("on", NODE)
    eventually(
        lambda: all(one["status"] == "ready" for one in site.json("status")["nodes"]),
        SETTLED_SECONDS,
        "the node is back",
    )


def _spread(site: Site) -> None:
    """Tasks on the worker, so that something happens when it goes."""
    if not _has_tasks(site):
        _docker(f"service update -q --force {WEB}")(site)
        settled(site)


SWARMKIT: Sequence[Operation] = (
    Operation("scale 3→7", _scale(7), lambda site: running(site, 7), before=_scale(3)),
    Operation("scale 7→2", _scale(2), lambda site: running(site, 2)),
    Operation("scale 2→5", _scale(5), lambda site: running(site, 5)),
    Operation("node drain", lambda site: site.swarmkit("node", "drain", NODE), _is_empty),
    Operation("node activate", lambda site: site.swarmkit("node", "activate", NODE)),
    Operation("node rebalance", lambda site: site.swarmkit("node", "rebalance"), _has_tasks),
    Operation("update to a new image", _update("next"), _runs("2")),
    Operation("update that fails and rolls back", _update("broken", code=4), _runs("2")),
    Operation("rollback", lambda site: site.swarmkit("rollback", WEB), _runs("1")),
    Operation("certificate rotated", _new_certificate, _serves_it),
    Operation("route added", lambda site: site.up("more.yml"), lambda site: version_at(site, "/more") == "2"),
    Operation("route removed", lambda site: site.up(), lambda site: version_at(site, "/more") == "1"),
    Operation("controller killed", _kill_controller, lambda site: running(site, 5)),
    Operation("task killed (SIGKILL)", _kill_task, before=_spread, loses=True, once=True),
    Operation("worker switched off", _power_off, before=_spread, loses=True, once=True, seconds=10),
    Operation("worker switched on", _power_on, once=True),
)


def _docker(command: str, check: bool = True) -> Callable[[Site], object]:
    return lambda site: site.shell(site.manager, f"docker {command}", check)


def _docker_update(service: str, check: bool = True) -> Callable[[Site], object]:
    return lambda site: _docker(
        f"service update -q --detach=false --no-resolve-image --image {site.image_of(service)} {WEB}", check
    )(site)


def _docker_drain(site: Site) -> None:
    _docker(f"node update --availability drain {NODE}")(site)
    settled(site)
    eventually(lambda: _is_empty(site), SETTLED_SECONDS, f"{NODE} is empty")


def _docker_failing_update(site: Site) -> None:
    # docker's client ends with 0 or 1, by its version.
    _docker_update("broken", check=False)(site)
    settled(site)


DOCKER: Sequence[Operation] = (
    Operation(
        "scale 3→7",
        _docker(f"service scale --detach=false {WEB}=7"),
        lambda site: running(site, 7),
        before=_docker(f"service scale --detach=false {WEB}=3"),
    ),
    Operation("scale 7→2", _docker(f"service scale --detach=false {WEB}=2"), lambda site: running(site, 2)),
    Operation("scale 2→5", _docker(f"service scale --detach=false {WEB}=5"), lambda site: running(site, 5)),
    Operation("node drain", _docker_drain, _is_empty),
    Operation("node activate", _docker(f"node update --availability active {NODE}")),
    # What documentation and forums advise for want of anything else.
    Operation("node rebalance", _docker(f"service update -q --force --detach=false {WEB}"), _has_tasks),
    Operation("update to a new image", _docker_update("next"), _runs("2")),
    Operation("update that fails and rolls back", _docker_failing_update, _runs("2")),
    Operation("rollback", _docker_update("web"), _runs("1")),
    *(one for one in SWARMKIT if one.once),
)


def chosen(operations: Sequence[Operation], names: Sequence[str]) -> list[Operation]:
    """The operations whose names begin with one of these, in their order; all where none is given."""
    return [one for one in operations if not names or any(one.name.startswith(name) for name in names)]


def explain(
    site: Site, failures: Sequence[Mapping[str, object]], processed: Mapping[str, int]
) -> list[dict[str, object]]:
    """What became of failed requests: how often each was processed, and what the balancer's log says."""
    log = _access_log(site, [str(one["id"]) for one in failures])
    return [
        {**one, "processed": processed.get(str(one["id"]), 0), "log": log.get(str(one["id"]), "")}
        for one in failures
    ]


def _access_log(site: Site, ids: Sequence[str]) -> dict[str, str]:
    """The balancer's lines for requests with these ids."""
    if not ids:
        return {}
    prefix = ids[0].rpartition("-")[0]
    script = (
        f"for c in $(docker ps -aq --filter label=com.docker.stack.namespace=swarmkit-lb); "
        f"do docker logs $c 2>&1 | grep -F {prefix}; done; true"
    )
    wanted, found = set(ids), dict[str, str]()
    for line in site.shell(site.manager, script).splitlines():
        _, _, rest = line.partition("id=")
        if (name := rest.split(" ")[0]) in wanted:
            found[name] = line
    return found


def is_excused(failure: Mapping[str, object], dead: Collection[str]) -> bool:
    """Whether a request could not be saved when the backends at these addresses died without a word.

    Its answer had begun; or it was a POST, and had been sent to one of them, so that nobody may send it
    again.
    """
    if failure["method"] == "GET":
        return failure["stage"] == DURING and not str(failure["kind"]).startswith("status")
    *_, sent_to = re.findall(r"(\d+\.\d+\.\d+\.\d+):\d+", str(failure["log"])) or [""]
    return sent_to in dead
