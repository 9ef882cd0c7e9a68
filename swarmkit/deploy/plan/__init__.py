"""What has to change in a swarm so that it holds a stack: a pure function of the two.

The rules:

- A service is as it should be when it carries the fingerprint of our spec (the label `swarmkit.spec`)
  and every field that we set still has our value in the swarm. The first finds what was taken out of
  the file since, the second what somebody changed by hand.
- The number of replicas that runs is kept, unless the file's own number has changed since it was last
  deployed (the label `swarmkit.replicas`).
- The engine adds defaults, leaves out what is empty, sorts, and writes ids for the names of networks:
  none of these is a difference, nor is another order in the file of what has none, such as mounts.
- A service cannot turn from replicated to global or back, and a network cannot change at all: what
  cannot change is removed and made again, early.
- What is in the swarm and not in the file stays, unless it is to be pruned; the canary of a service that
  is in the file stays even then.
- Order: what is made again goes; networks, secrets, configs, services by their dependencies, and one that
  gives up a port before the one that gets it; once those run, what is removed: services, configs, secrets,
  networks.
"""

from swarmkit.deploy.plan.contents import ConfigContent, config_version, secret_hash
from swarmkit.deploy.plan.model import (
    Change,
    LiveStack,
    Plan,
    name_of,
    portable,
    referred,
    removal,
    snapshot,
    used_ids,
    with_ids,
)
from swarmkit.deploy.plan.order import COMPLETED, Dependencies, dependencies, waves
from swarmkit.deploy.plan.ports import ports
from swarmkit.deploy.plan.services import at_live_scale, fingerprint, is_job
from swarmkit.deploy.plan.stack import (
    as_desired,
    before_it,
    canaries,
    only,
    orphans,
    plan_return,
    plan_stack,
    result,
)

__all__ = [
    "COMPLETED",
    "Change",
    "ConfigContent",
    "Dependencies",
    "LiveStack",
    "Plan",
    "as_desired",
    "at_live_scale",
    "before_it",
    "canaries",
    "config_version",
    "dependencies",
    "fingerprint",
    "is_job",
    "name_of",
    "only",
    "orphans",
    "plan_return",
    "plan_stack",
    "portable",
    "ports",
    "referred",
    "removal",
    "result",
    "secret_hash",
    "snapshot",
    "used_ids",
    "waves",
    "with_ids",
]
