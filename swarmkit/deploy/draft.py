"""A stack that somebody wants to deploy: from how it is named and its inputs to a checked project."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from swarmkit.compose.load import Options, Project
from swarmkit.compose.naming import check_stack_name
from swarmkit.deploy.catalogue import StackSource
from swarmkit.deploy.cluster import Cluster
from swarmkit.deploy.inputs import load
from swarmkit.deploy.render import Rendered, needs_cluster, render
from swarmkit.deploy.requires import in_order, required, with_label
from swarmkit.deploy.values import Ask, Given, Resolved, SecretInput, resolve
from swarmkit.errors import UsageError


@dataclass(frozen=True)
class Ready:
    """A stack that can be deployed as `instance`, and the stacks that have to run before it."""

    instance: str
    project: Project
    requires: tuple[StackSource, ...] = ()


@dataclass(frozen=True)
class Draft:
    """A stack with its inputs, whose template is not rendered yet.

    `needs_cluster` says that it can only be rendered with the cluster's facts.
    """

    source: StackSource
    resolved: Resolved
    options: Options
    needs_cluster: bool

    @property
    def instance(self) -> str:
        """What it is called on the cluster, unless the Compose file itself says otherwise."""
        return self.options.name or self.source.name

    def render(self, cluster: Cluster | None = None) -> Rendered:
        """The Compose file; raises as `render.render` does."""
        return render(self.source, self.resolved, self.instance, cluster)

    def ready(self, environment: Mapping[str, str], cluster: Cluster | None = None) -> Ready:
        """The checked project; `environment` is what the Compose file's variables are filled in from.

        Raises UsageError or Problems for the mistakes of the template and of the Compose file.
        """
        rendered = self.render(cluster)
        project = rendered.project(environment, replace(self.options, default_name=self.source.name))
        needed = required(rendered.text, rendered.name, rendered.folder)
        return Ready(project.name, with_label(project, [one.name for one in needed]), needed)


def draft(source: StackSource, given: Given, ask: Ask | None = None, options: Options | None = None) -> Draft:
    """A stack with the values of its inputs. Raises UsageError or Problems for all that is wrong in them.

    Nobody is asked for inputs of a stack that cannot be deployed whatever the answer.
    """
    options = options or Options()
    if options.name:
        check_stack_name(options.name)
    inputs = load(source.inputs) if source.inputs else {}
    needs = needs_cluster(source)
    return Draft(source, resolve(inputs, given, ask), options, needs)


def requires_by_default(source: StackSource) -> list[str] | None:
    """What a stack requires with its inputs as they are by themselves; None where that does not tell.

    Raises UsageError or Problems for mistakes in what it says of that.
    """
    inputs = load(source.inputs) if source.inputs else {}
    values = {
        name: SecretInput(name)
        if declared.is_secret
        else None
        if declared.default is None
        else declared.checked(declared.default)
        for name, declared in inputs.items()
    }
    try:
        rendered = render(source, Resolved(values), cluster=Cluster(()))
    except UsageError:
        return None
    return [one.name for one in required(rendered.text, rendered.name, rendered.folder)]


def with_required(
    wanted: Ready, running: Sequence[str], prepare: Callable[[StackSource], Ready]
) -> list[Ready]:
    """The stacks to deploy for `wanted`: those it requires that do not run, in their order, and itself.

    `prepare` makes a required stack ready with what its inputs are by themselves. Raises UsageError for a
    circle.
    """
    known = {wanted.instance: wanted}

    def requires(name: str) -> list[str]:
        names = [source.name for source in known[name].requires]
        for source in known[name].requires:
            if source.name not in known and source.name not in running:
                known[source.name] = prepare(source)
        return names

    return [known[name] for name in in_order(wanted.instance, requires, running)] + [wanted]


def without_arguments(given: Given) -> Given:
    """What was given, as far as it is about every stack: the environment."""
    return replace(given, sets=(), files=(), secret_files=())
