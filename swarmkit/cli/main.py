"""The `swarmkit` command."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

import swarmkit
from swarmkit.cli import balancer, cluster, context, doctor, inventory, lab, nodes, services, stacks, updating
from swarmkit.cli.common import Globals
from swarmkit.errors import Exit, Interrupted, OperationFailed, SwarmkitError, UsageError
from swarmkit.ui import Output, Ui

app = typer.Typer(
    name="swarmkit",
    help="Turn a few machines into a Docker Swarm over SSH, and run useful systems on it.",
    epilog="The options above may also stand after a command.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
cluster.register(app)
doctor.register(app)
services.register(app)
updating.register(app)
app.add_typer(inventory.app, name="inventory")
app.add_typer(context.app, name="context")
app.add_typer(lab.app, name="lab")
app.add_typer(balancer.app, name="lb")
app.add_typer(nodes.app, name="node")
app.add_typer(stacks.app, name="stack")
app.add_typer(services.app, name="service")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"swarmkit {swarmkit.__version__}")
        raise typer.Exit


@app.callback()
def _globals(
    context: typer.Context,
    inventory: Annotated[
        Path | None,
        typer.Option("-i", "--inventory", help="The inventory file.", envvar="SWARMKIT_INVENTORY"),
    ] = None,
    engine: Annotated[
        str | None, typer.Option("--engine", help="A manager's engine: unix://, tcp:// or ssh://.")
    ] = None,
    output: Annotated[Output, typer.Option("-o", "--output", help="The form of results.")] = Output.TEXT,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Answer yes to questions.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Say more.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    context.obj = Globals(ui=Ui(output, verbose), inventory=inventory, engine=engine, yes=yes)


# Global options that take a value, and those that do not.
_WITH_VALUE = ("-i", "--inventory", "--engine", "-o", "--output")
_FLAGS = ("-y", "--yes", "-v", "--verbose")
# docker's habit for a terminal, in `exec`; no inventory is called "t".
_HABIT = "-it"
# With the value in the same word: `--output=json`, `-ojson`. No command has short options of its own
# that begin so.
_ATTACHED = (*(f"{name}=" for name in _WITH_VALUE if name.startswith("--")), "-o", "-i")


def hoisted(arguments: Sequence[str]) -> list[str]:
    """Move global options that stand after the command to the front, where Typer looks for them.

    Nothing behind `--` is touched: that belongs to the command that is run on a machine.
    """
    front: list[str] = []
    rest: list[str] = []
    queue = list(arguments)
    while queue:
        argument = queue.pop(0)
        if argument == "--":
            return front + rest + [argument, *queue]
        if argument in _WITH_VALUE:
            front += [argument, *queue[:1]]
            queue = queue[1:]
        elif argument in _FLAGS or (argument.startswith(_ATTACHED) and argument != _HABIT):
            front.append(argument)
        else:
            rest.append(argument)
    return front + rest


def _wanted_ui(arguments: Sequence[str]) -> Ui:
    """How to show an error, also one met before the options were parsed."""
    own = list(arguments[: arguments.index("--")] if "--" in arguments else arguments)
    text = " ".join(own)
    wants_json = any(form in text for form in ("-o json", "--output json", "--output=json", "-ojson"))
    return Ui(Output.JSON if wants_json else Output.TEXT, "-v" in own or "--verbose" in own)


# Typer carries a click of its own, and exports of its errors only the most special ones.
_BadArguments: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and leave with its exit code."""
    given = hoisted(sys.argv[1:] if arguments is None else arguments)
    ui = _wanted_ui(given)
    try:
        code = app(given, prog_name="swarmkit", standalone_mode=False)
        # Typer turns Ctrl-C into this code.
        if code == Exit.INTERRUPTED:
            _fail(ui, Interrupted("interrupted", hint="run the same command again to complete it"))
        sys.exit(code if isinstance(code, int) else Exit.OK)
    except SwarmkitError as error:
        _fail(ui, error)
    except _BadArguments as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(error.format_message())
            sys.exit(Exit.USAGE)
        _fail(ui, UsageError(error.format_message(), hint=_help_hint(error)))
    except typer.Abort:
        _fail(ui, OperationFailed("not confirmed; nothing was changed"))
    except BrokenPipeError:
        # Whoever reads the output has seen enough (`| head`); Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.FAILED)
    except OSError as error:
        # A file of the user's that cannot be written, a full disk.
        _fail(ui, OperationFailed(error.strerror or str(error), where=str(error.filename or "")))
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        hint = "this is a mistake in swarmkit; please report it, with what -v shows"
        _fail(ui, OperationFailed(f"internal error: {said}", hint=hint))


def _fail(ui: Ui, error: SwarmkitError) -> NoReturn:
    """Show the error and leave with its code; where it came from only those see who asked with `-v`."""
    if ui.verbose and sys.exc_info()[0] is not None:
        traceback.print_exc()
    ui.error(error)
    sys.exit(error.exit)


def _help_hint(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    return f"see: {context.command_path} --help" if context is not None else "see: swarmkit --help"
