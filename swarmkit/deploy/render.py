"""From a stack's file to the text of a Compose file.

`stack.yml` is text already and never touched: Swarm's own `{{.Node.Hostname}}` passes. `stack.yml.j2`
is rendered by Jinja2 in its sandbox, with `[[ value ]]`, `[% if … %]` and `[# comment #]`, so that both
kinds of template can stand side by side. A name that is not there is an error.

A value goes into YAML as `[[ message | yaml ]]`, which quotes whatever needs it. Where Swarm expands
templates of its own (environment, hostname, mounts), `[[ message | literal | yaml ]]` keeps it from
taking a `{{` of the user's for one.
"""

from __future__ import annotations

import math
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from swarmkit.compose import load as compose
from swarmkit.deploy.catalogue import StackSource
from swarmkit.errors import Problems, SwarmkitError, UsageError


@dataclass(frozen=True)
class Rendered:
    """The text of a Compose file, what it is called in errors, and where its relative paths start."""

    text: str
    name: str
    folder: Path
    is_template: bool

    def project(
        self, environment: Mapping[str, str], options: compose.Options | None = None
    ) -> compose.Project:
        """The checked Compose file. Raises UsageError or Problems; positions are those of the text."""
        try:
            return compose.parse(self.text, self.name, self.folder, environment, options)
        except SwarmkitError as error:
            if self.is_template:
                for part in error.errors if isinstance(error, Problems) else [error]:
                    if not part.where.startswith(f"{self.name}:"):
                        continue
                    part.hint = "; ".join(filter(None, [part.hint, _POSITIONS]))
            raise


_POSITIONS = "the position is that in the rendered text, which `swarmkit stack render` shows"


def render(source: StackSource, values: Mapping[str, Any]) -> Rendered:
    """The Compose file of a stack, with `values` (its inputs) filled in where it is a template.

    Raises UsageError with the template's file and line for a mistake in it, or a name it does not know.
    """
    try:
        text = source.file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot be read: {error}", where=str(source.file)) from None
    if not source.is_template:
        return Rendered(text, str(source.file), source.folder, is_template=False)
    return Rendered(
        _rendered(text, str(source.file), values),
        # What is left of the template's name once it is rendered.
        str(source.file).removesuffix(".j2") + " (rendered)",
        source.folder,
        is_template=True,
    )


def _rendered(text: str, name: str, values: Mapping[str, Any]) -> str:
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
    )
    environment.filters["yaml"] = _yaml
    environment.filters["literal"] = _literal
    try:
        # compiled under its own name, so that a traceback gives the template's line
        code = environment.compile(text, filename=name)
        template = environment.template_class.from_code(environment, code, environment.make_globals(None))
        return template.render(values)
    except TemplateSyntaxError as error:
        raise UsageError(_sentence(error), where=f"{name}:{error.lineno}") from None
    except SecurityError as error:
        raise UsageError(
            _sentence(error), where=_line(name, error), hint="a template may only use its values"
        ) from None
    except (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        known = ", ".join(sorted(values)) or "none"
        raise UsageError(
            _sentence(error), where=_line(name, error), hint=f"its inputs are: {known}"
        ) from None


def _line(name: str, error: Exception) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == name]
    return f"{name}:{frames[-1].lineno}" if frames else name


def _sentence(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error)).strip().rstrip(".") or type(error).__name__


class _Quoting(yaml.SafeDumper):
    """Quotes all text, so that it means the same wherever it stands."""


_Quoting.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


def _yaml(value: object) -> str:
    """A value as YAML on one line, with `$` doubled so that Compose takes it for no variable."""
    text = yaml.dump(value, Dumper=_Quoting, default_flow_style=True, width=math.inf, allow_unicode=True)
    # The end-of-document mark that follows a bare scalar.
    return text.removesuffix("...\n").strip().replace("$", "$$")


def _literal(value: object) -> str:
    """Text that comes out of Swarm's (Go's) templates as it went in."""
    return str(value).replace("{{", '{{"{{"}}')
