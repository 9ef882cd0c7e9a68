"""Where swarmkit means to differ from `docker stack deploy`, and why: the one list of it.

Each difference has files that show it, in a folder beside this module: `differences/` where the bodies
differ, `accepted/` where docker refuses the file, `refused/` where swarmkit does. docs/compose-support.md is
made from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.conformance.oracle import Bodies

# Takes the difference off the normalised bodies of docker and of swarmkit.
TakeOff = Callable[[Bodies, Bodies], None]


@dataclass(frozen=True)
class Difference:
    """`files` show that `what` happens, and `reason` says why that is better than what docker does."""

    what: str
    reason: str
    files: tuple[str, ...] = ()
    take_off: TakeOff | None = None


def _containers(bodies: Bodies) -> list[dict[str, Any]]:
    return [spec["TaskTemplate"]["ContainerSpec"] for spec in bodies["services"].values()]


def _oom_score(docker: Bodies, ours: Bodies) -> None:
    for container in _containers(ours):
        container.pop("OomScoreAdj", None)


def _short_tmpfs(docker: Bodies, ours: Bodies) -> None:
    for theirs, container in zip(_containers(docker), _containers(ours), strict=True):
        mounts = [
            mount
            for mount in container.get("Mounts", ())
            if mount["Type"] != "tmpfs" or mount in theirs.get("Mounts", ())
        ]
        container["Mounts"] = mounts


_MORE_OPTIONS = {
    "TmpfsOptions": ("Mode",),
    "BindOptions": ("CreateMountpoint", "NonRecursive", "ReadOnlyNonRecursive", "ReadOnlyForceRecursive"),
}


def _options_of_mounts(docker: Bodies, ours: Bodies) -> None:
    for theirs, container in zip(_containers(docker), _containers(ours), strict=True):
        for other, mount in zip(theirs["Mounts"], container["Mounts"], strict=True):
            for kind, names in _MORE_OPTIONS.items():
                for name in names:
                    mount.get(kind, {}).pop(name, None)
                if mount.get(kind) == {}:
                    del mount[kind]
            if "VolumeOptions" in mount:
                labels = mount["VolumeOptions"]["Labels"]
                kept = labels.keys() & other["VolumeOptions"]["Labels"].keys()
                mount["VolumeOptions"]["Labels"] = {key: labels[key] for key in kept}


def _mounts(docker: Bodies, ours: Bodies) -> None:
    for container in (*_containers(docker), *_containers(ours)):
        container.pop("Mounts")


def _file_modes(docker: Bodies, ours: Bodies) -> None:
    for container in (*_containers(docker), *_containers(ours)):
        for use in container["Configs"]:
            del use["File"]["Mode"]


def _environment(docker: Bodies, ours: Bodies) -> None:
    for container in (*_containers(docker), *_containers(ours)):
        del container["Env"]


def _hostname(docker: Bodies, ours: Bodies) -> None:
    for container in (*_containers(docker), *_containers(ours)):
        del container["Hostname"]


def _endpoint(docker: Bodies, ours: Bodies) -> None:
    for spec in ours["services"].values():
        spec.pop("EndpointSpec")
        networks = spec["TaskTemplate"]["Networks"]
        spec["TaskTemplate"]["Networks"] = [one for one in networks if one["Target"] != "swarmkit-edge"]


SENT = (
    Difference(
        "A routed service (a deploy label that starts with `swarmkit.lb.`) also joins the network"
        " `swarmkit-edge`, without its short name there, and has `endpoint_mode: dnsrr` unless it says"
        " otherwise or publishes a port in ingress mode.",
        "The load balancer finds it there, needs no IPVS in the kernel, and two stacks with a service of one"
        " name do not answer each other's requests.",
        ("routed-services",),
        _endpoint,
    ),
    Difference(
        "`tmpfs` of a service becomes mounts of type tmpfs.",
        "docker drops the key without a word.",
        ("tmpfs",),
        _short_tmpfs,
    ),
    Difference("`oom_score_adj` is sent.", "docker drops it without a word.", ("oom-score-adj",), _oom_score),
    Difference(
        "`tmpfs.mode`, `bind.recursive: disabled` and `volume.labels` of a mount are sent.",
        "docker drops them without a word.",
        ("options-of-mounts",),
        _options_of_mounts,
    ),
    Difference(
        "In the short form of a mount a volume may have a name of one letter, as in `a:/data`.",
        "docker takes the letter for a Windows drive, and sends a mount that the engine refuses.",
        ("one-letter-volumes",),
        _mounts,
    ),
    Difference(
        r"In the short form of a mount a Windows pipe (`\\.\pipe\x`) is sent as it is written.",
        "docker puts the folder of the Compose file before it.",
        ("pipes-in-the-short-form",),
        _mounts,
    ),
    Difference(
        'A file mode that comes from a variable (`mode: "${MODE}"`) is octal, as `chmod` has it.',
        "docker reads 0444 as four hundred and forty-four there.",
        ("file-modes-from-variables",),
        _file_modes,
    ),
    Difference(
        "`$NAME-2` is the value of NAME, and after it `-2`.",
        "The Compose Specification has defaults in braces alone; docker takes `2` for one, and drops it.",
        ("variables-before-a-dash",),
        _hostname,
    ),
    Difference(
        "`12e45`, `08` and `2024-01-02` stay as they are written.",
        "They may be a commit, an issue or a day; docker makes numbers and times of them.",
        ("scalars-as-they-are-written",),
        _environment,
    ),
    Difference(
        "Quotes around a value in an `env_file` are no part of it.",
        "The Compose Specification has them so; docker hands them to the container.",
        ("env-file-quotes",),
        _environment,
    ),
    Difference(
        "What the engine would take and drop is not sent, such as `consistency` of a mount.",
        "swarmkit says so; docker sends it, and nobody hears that it does nothing.",
    ),
    Difference(
        "Platforms of an image that are called unknown (attestations of how it was built) are left out, and"
        " so are repeated ones.",
        "No node is of such a platform; docker 29 does the same.",
    ),
    Difference(
        "An image that has not changed and is not looked up again keeps its platforms, not only its digest.",
        "docker forgets them, and nodes that cannot run the image become eligible.",
    ),
    Difference(
        "Services carry a label `swarmkit.spec`, the fingerprint of the spec that was sent.",
        "What was taken out of the file can be told from what somebody added by hand.",
    ),
    Difference(
        "A config or secret whose content changes becomes a new version beside the old one.",
        'docker fails: "only updates to Labels are allowed".',
    ),
)

ACCEPTED = (
    Difference("`name` at the top", "it is the stack's name in today's Compose files", ("name",)),
    Difference("`depends_on` with conditions", "they are waited for", ("depends-on-with-conditions",)),
    Difference(
        "`extends`, `include` and `profiles`",
        "today's Compose files have them",
        ("extends", "include", "profiles"),
    ),
    Difference("any `version`", "it means nothing any more", ("version-2",)),
    Difference("`label_file`", "the Compose Specification has it", ("label-file",)),
    Difference(
        "`path`, `required` and `format` of an `env_file`",
        "the Compose Specification has them",
        ("env-file-objects",),
    ),
    Difference(
        "`published` as text, and ranges in the long form of a port",
        "the Compose Specification has them",
        ("published-as-text",),
    ),
    Difference("numbers for `cpus` and `memory`", "the Compose Specification has them", ("cpus-as-numbers",)),
    Difference("`true` and `false` in `environment` and `labels`", "they are text", ("booleans-as-text",)),
    Difference(
        "`content` of a config; `environment` of a config or secret",
        "no file is needed for a few lines, nor for what the environment holds",
        ("configs-content", "contents-from-the-environment"),
    ),
    Difference(
        "`dns_opt`, `group_add`, `scale`",
        "the Engine API has what they stand for",
        ("dns-opt", "group-add", "scale"),
    ),
    Difference(
        "`gateway`, `ip_range` and `options` of `ipam`, and `enable_ipv6`; with a warning `aux_addresses` and"
        " `enable_ipv4`",
        "Swarm has the former; the latter it drops",
        ("networks-ipam",),
    ),
    Difference(
        "text such as `64m` for the size of a tmpfs",
        "sizes are text elsewhere",
        ("sizes-of-tmpfs-as-text",),
    ),
    Difference(
        "`credential_spec.config` of a config that has a `name`",
        "docker looks for the config under another name",
        ("names-of-credential-specs",),
    ),
    Difference(
        "what Swarm cannot honour, with a warning that says what happens instead",
        "a file for `docker compose` can be deployed as it is",
        (
            "addresses-in-the-long-form",
            "networks-of-a-service",
            "gpus",
            "old-limits",
            "keys-of-docker-compose",
        ),
    ),
)

REFUSED = (
    Difference(
        "values that the engine would refuse later, such as an unknown `failure_action`",
        "an error before anything is sent has a line and a column",
        ("values-that-the-engine-refuses",),
    ),
    Difference(
        "an external network, config or secret with anything but a name",
        "the Compose Specification refuses it: the rest has no effect",
        ("external-ones-with-more",),
    ),
    Difference(
        "unknown keys among the options of a mount",
        "docker drops a misspelt option without a word",
        ("unknown-keys-of-mounts",),
    ),
    Difference(
        "a health check whose list does not begin with CMD, CMD-SHELL or NONE",
        "the engine would run no health check at all",
        ("health-checks-without-cmd",),
    ),
    Difference(
        "`depends_on` of a service that is not there",
        "it is a misspelt name",
        ("dependencies-on-nothing",),
    ),
    Difference(
        "a mount whose target is not an absolute path",
        "no task of it would ever start",
        ("mounts-outside-the-root",),
    ),
    Difference(
        "a published port or a mount's target that a service has twice",
        "the engine refuses such a service, when others are deployed already",
        ("things-that-a-task-has-once",),
    ),
    Difference(
        "a port in ingress mode beside `endpoint_mode: dnsrr`",
        "the engine refuses it: such a port needs a virtual IP",
        ("ports-without-a-virtual-ip",),
    ),
    Difference(
        "names that no swarm takes, such as that of a service with a dot",
        "the engine refuses them, when others are made already",
        ("names-that-no-swarm-takes",),
    ),
    Difference(
        "two networks, volumes, configs or secrets with one `name` that are not the same",
        "docker makes the one or the other, by chance, or fails on the way",
        ("names-of-two-things",),
    ),
    Difference(
        "a config or secret whose `name` is like that of a version of another",
        "swarmkit would take it for one, and remove it when nothing uses it",
        ("names-of-versions",),
    ),
    Difference(
        "a mount of type image",
        "no engine takes one for a service, when others are deployed already",
        ("image-mounts",),
    ),
    Difference(
        "`driver_opts` of a secret without a `driver`",
        "docker drops them without a word",
        ("options-without-a-driver",),
    ),
)
