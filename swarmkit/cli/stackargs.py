"""What the commands about stacks share: their arguments, and what is made of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swarmkit.cli.complete import running_stacks, stack_names
from swarmkit.errors import UsageError

if TYPE_CHECKING:
    from swarmkit.compose.load import Options as Loading
    from swarmkit.deploy.cluster import Cluster
    from swarmkit.deploy.draft import Draft
    from swarmkit.deploy.inputs import Input
    from swarmkit.deploy.values import Ask, Given
    from swarmkit.swarm import Service
    from swarmkit.target import Swarm

Stack = Annotated[
    str,
    typer.Argument(help="A name of the catalogue, a folder, or a Compose file.", autocompletion=stack_names),
]
Instance = Annotated[
    str, typer.Argument(help="The stack's name on the cluster.", autocompletion=running_stacks)
]
Sets = Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE of an input; may be repeated.")]
Values = Annotated[
    list[Path] | None, typer.Option("--values", help="A YAML file of inputs; may be repeated, the last wins.")
]
SecretFiles = Annotated[
    list[str] | None,
    typer.Option("--secret-file", help="NAME=PATH of a secret input's file; - is standard input."),
]
Name = Annotated[str | None, typer.Option("--name", help="The instance's name on the cluster.")]
Files = Annotated[
    list[Path] | None,
    typer.Option(
        "-f",
        "--file",
        help="A Compose file to lay over STACK; may be repeated. Where there is no such stack, STACK is the"
        " instance's name and the first file the stack, as with docker stack deploy.",
    ),
]
EnvFiles = Annotated[
    list[Path] | None,
    typer.Option("--env-file", help="Variables, instead of the .env beside the file; may be repeated."),
]
Profiles = Annotated[
    list[str] | None, typer.Option("--profile", help="Also the services of this profile; may be repeated.")
]


def inputs_given(sets: list[str] | None, values: list[Path] | None, secret_files: list[str] | None) -> Given:
    """What the options and the environment say of a stack's inputs."""
    import os

    from swarmkit.deploy.values import Given

    return Given(
        sets or (), values or (), secret_files or (), os.environ, stdin=lambda: sys.stdin.buffer.read()
    )


def loading(
    name: str | None,
    env_files: list[Path] | None,
    profiles: list[str] | None,
    services: list[str] | None = None,
) -> Loading:
    """What the options say of how Compose files are read."""
    from swarmkit.compose.load import Options

    return Options(
        env_files=env_files or (), profiles=profiles or (), services=services or (), name=name or ""
    )


def drafted(stack: str, given: Given, files: list[Path] | None, options: Loading) -> Draft:
    """The stack that a user names, with the values of its inputs; raises as `draft.draft` does."""
    from swarmkit.deploy.draft import draft
    from swarmkit.deploy.sources import chosen

    source, options = chosen(stack, files or (), options)
    return draft(source, given, asking(), options)


def asking() -> Ask | None:
    """Who is asked for inputs that are missing: the person at the terminal, if there is one."""
    if not sys.stdin.isatty():
        return None
    from swarmkit.remote import Secrets

    def ask(name: str, declared: Input, wrong: str) -> str | None:
        if wrong:
            typer.echo(f"  {wrong}", err=True)
        question = f"{name} ({declared.description})" if declared.description else name
        if declared.is_secret:
            # Unlike Typer's, it ends the echo before it asks.
            return Secrets().ask(f"{question}: ")
        return str(typer.prompt(question, err=True))

    return ask


def facts(swarm: Swarm) -> Cluster:
    """What templates may know of the cluster."""
    from swarmkit.deploy.cluster import Cluster
    from swarmkit.swarm import nodes

    return Cluster.of(nodes(swarm.engine))


def services_of(swarm: Swarm, stack: str) -> list[Service]:
    """The services of a stack; raises UsageError, with what runs, where there is no such stack."""
    from swarmkit.deploy.observe import stacks
    from swarmkit.swarm import services

    found = stacks(services(swarm.engine))
    if stack not in found:
        hint = f"running here: {', '.join(sorted(found)) or 'no stack'}"
        raise UsageError(f'no stack is called "{stack}"', where=swarm.target.name, hint=hint)
    return found[stack]
