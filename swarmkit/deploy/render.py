"""From a stack's file to the text of a Compose file, and on to the checked project.

`stack.yml` is text already and never touched: Swarm's own `{{.Node.Hostname}}` passes. `stack.yml.j2`
is rendered by Jinja2 in its sandbox, with `[[ value ]]`, `[% if … %]` and `[# comment #]`, so that both
kinds of template can stand side by side. A name that is not there is an error.

A value goes into YAML as `[[ message | yaml ]]`, which quotes whatever needs it. Where Swarm expands
templates of its own (environment, hostname, mounts), `[[ message | literal | yaml ]]` keeps it from
taking a `{{` of the user's for one.

The value of a secret input is in none of this. The Compose file is read with a stand-in for it, which
becomes the value only where it has become the content of a secret; anywhere else it is an error.
"""

from __future__ import annotations

import functools
import math
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from secrets import token_hex
from typing import Any

import yaml
from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, meta
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from swarmkit.compose import load as compose
from swarmkit.deploy.catalogue import StackSource
from swarmkit.deploy.cluster import Cluster
from swarmkit.deploy.inputs import CLUSTER, INSTANCE, variable
from swarmkit.deploy.types import Duration, in_unit
from swarmkit.deploy.values import Resolved, SecretInput, SecretInText
from swarmkit.errors import Problems, SwarmkitError, UsageError, raise_all
from swarmkit.yamlfile import Loc, dotted, read_text


@dataclass(frozen=True)
class Rendered:
    """The text of a Compose file, what it is called in errors, and where its relative paths start.

    `secrets` are the values of the stack's secret inputs, by input; the text has none of them.
    """

    text: str
    name: str
    folder: Path
    is_template: bool
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def project(
        self, environment: Mapping[str, str], options: compose.Options | None = None
    ) -> compose.Project:
        """The checked Compose file. Raises UsageError or Problems; positions are those of the text."""
        # One word in small letters: nothing that a value goes through on its way changes or divides it.
        stand_ins = {name: f"secret-input-{name.lower()}-{token_hex(16)}" for name in self.secrets}
        variables = {variable(name): stand_in for name, stand_in in stand_ins.items()}
        try:
            project = compose.parse(self.text, self.name, self.folder, {**environment, **variables}, options)
        except SwarmkitError as error:
            if self.is_template:
                for part in error.errors if isinstance(error, Problems) else [error]:
                    if not part.where.startswith(f"{self.name}:"):
                        continue
                    part.hint = "; ".join(filter(None, [part.hint, _POSITIONS]))
            raise
        raise_all([*_misused(project, stand_ins, self.name)])
        return _with_values(project, stand_ins, self.secrets)


_POSITIONS = "the position is that in the rendered text, which `swarmkit stack render` shows"


def _misused(project: compose.Project, stand_ins: Mapping[str, str], where: str) -> Iterator[SwarmkitError]:
    """Where a stand-in has come to any place but the content of a secret."""
    if not stand_ins:
        return
    texts = [(dotted(loc), text) for loc, text in _texts(project.file.model_dump(mode="json"), ())]
    texts += [(f"configs.{key}", data.decode(errors="replace")) for key, data in project.config_data.items()]
    for name, stand_in in stand_ins.items():
        for path, text in texts:
            if stand_in in text:
                yield UsageError(f"{path}: {SecretInText(name)}", where=where, hint=SecretInText(name).hint)
        for key, data in project.secret_data.items():
            if stand_in.encode() in data and data != stand_in.encode():
                yield UsageError(
                    f"secrets.{key}: the secret input {name} can be all of a secret, and no part of one",
                    where=where,
                )


def _texts(node: Any, loc: Loc) -> Iterator[tuple[Loc, str]]:
    match node:
        case str():
            yield loc, node
        case dict():
            for key, value in node.items():
                yield from _texts(value, (*loc, str(key)))
        case list():
            for index, value in enumerate(node):
                yield from _texts(value, (*loc, index))


def _with_values(
    project: compose.Project, stand_ins: Mapping[str, str], secrets: Mapping[str, bytes]
) -> compose.Project:
    values = {stand_in.encode(): secrets[name] for name, stand_in in stand_ins.items()}
    return replace(
        project, secret_data={key: values.get(data, data) for key, data in project.secret_data.items()}
    )


def needs_cluster(source: StackSource) -> bool:
    """Whether the stack's template uses the facts of the cluster. Raises UsageError as `render` does."""
    if not source.is_template:
        return False
    text = read_text(source.file)
    try:
        return CLUSTER in meta.find_undeclared_variables(_environment().parse(text))
    except TemplateSyntaxError as error:
        raise _syntax_error(error, text, str(source.file)) from None


def render(
    source: StackSource, resolved: Resolved, instance: str | None = None, cluster: Cluster | None = None
) -> Rendered:
    """The Compose file of a stack with its inputs filled in where it is a template.

    `instance` is what the stack is called on the cluster, its own name by default; `cluster` is what a
    template that `needs_cluster` must have. Raises UsageError with the template's file and line for a
    mistake in it, a name it does not know, and a secret that it would write into its text.
    """
    text = read_text(source.file)
    if not source.is_template:
        return Rendered(text, str(source.file), source.folder, is_template=False)
    values: dict[str, Any] = {**resolved.values, INSTANCE: instance or source.name}
    if cluster is not None:
        values[CLUSTER] = cluster
    return Rendered(
        _rendered(text, str(source.file), values, sorted(resolved.values)),
        # What is left of the template's name once it is rendered.
        str(source.file).removesuffix(".j2") + " (rendered)",
        source.folder,
        is_template=True,
        secrets=resolved.secrets,
    )


@functools.cache
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        variable_start_string="[[",
        variable_end_string="]]",
        block_start_string="[%",
        block_end_string="%]",
        comment_start_string="[#",
        comment_end_string="#]",
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # The result is YAML, not HTML.
        autoescape=False,
        finalize=_written,
    )
    environment.filters["yaml"] = _yaml
    environment.filters["literal"] = _literal
    environment.filters["to"] = in_unit
    return environment


def _rendered(text: str, name: str, values: Mapping[str, Any], inputs: Sequence[str]) -> str:
    environment = _environment()
    try:
        # compiled under its own name, so that a traceback gives the template's line
        code = environment.compile(text, filename=name)
        template = environment.template_class.from_code(environment, code, environment.make_globals(None))
        return template.render(values)
    except TemplateSyntaxError as error:
        raise _syntax_error(error, text, name) from None
    except SecurityError as error:
        raise UsageError(
            _sentence(error), where=_line(name, error), hint="a template may only use its values"
        ) from None
    except SecretInText as error:
        raise UsageError(str(error), where=_line(name, error), hint=error.hint) from None
    except (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        hint = f"its inputs are: {', '.join(inputs) or 'none'}"
        raise UsageError(_sentence(error), where=_line(name, error), hint=hint) from None


def _syntax_error(error: TemplateSyntaxError, text: str, name: str) -> UsageError:
    line = text.splitlines()[error.lineno - 1] if text else ""
    hint = "a list that begins with a value needs a space: `[ [[ value ]], … ]`" if "[[[" in line else ""
    return UsageError(_sentence(error), where=f"{name}:{error.lineno}", hint=hint)


def _line(name: str, error: Exception) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == name]
    return f"{name}:{frames[-1].lineno}" if frames else name


def _sentence(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error)).strip().rstrip(".") or type(error).__name__


def _written(value: object) -> object:
    """What `[[ value ]]` becomes: YAML's words for true and false, one line of YAML for lists and maps."""
    match _there(value):
        case SecretInput() as secret:
            raise SecretInText(secret.name)
        case bool() | list() | tuple() | dict():
            return _yaml(value)
        case _:
            return value


def _there(value: object) -> object:
    """The value, if it is one; raises ValueError for an input that was not given and need not be."""
    if value is None:
        raise ValueError("this has no value: write `[% if name %] … [% endif %]` around it")
    return value


class _Quoting(yaml.SafeDumper):
    """Quotes all text, so that it means the same wherever it stands."""


def _quoted(dumper: yaml.SafeDumper, value: object) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(value), style='"')


for _kind in (str, Duration, SecretInput):
    _Quoting.add_representer(_kind, _quoted)
# What is text and more, such as what Jinja's filter `e` makes.
_Quoting.add_multi_representer(str, _quoted)
_Quoting.add_representer(tuple, _Quoting.represent_list)


def _yaml(value: object) -> str:
    """A value as YAML on one line, with `$` doubled so that Compose takes it for no variable."""
    try:
        text = yaml.dump(
            _there(value), Dumper=_Quoting, default_flow_style=True, width=math.inf, allow_unicode=True
        )
    except yaml.representer.RepresenterError:
        raise ValueError(f"a {type(value).__name__} cannot be written as YAML") from None
    # The end-of-document mark that follows a bare scalar.
    return text.removesuffix("...\n").strip().replace("$", "$$")


def _literal(value: object) -> str:
    """Text that comes out of Swarm's (Go's) templates as it went in."""
    return str(_there(value)).replace("{{", '{{"{{"}}')
