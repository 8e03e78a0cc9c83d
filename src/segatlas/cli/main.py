"""`segatlas COMMAND`: the table of commands."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Annotated, Any

import typer

from segatlas.cli import bench, config, data, distill, doctor, evaluate, explain, models, predict, prune, pseudo, train
from segatlas.cli.common import guard, reset_debug, set_debug
from segatlas.cli.examples import CommandWithExamples, GroupWithExamples
from segatlas.cli.foreign_words import meant_by_command
from segatlas.errors import UsageError
from segatlas.printable import SafeRecords
from segatlas.version import __version__

SAFE_RECORDS = SafeRecords()

COMMANDS: dict[str, Callable[..., Any] | typer.Typer] = {
    "train": train.train,
    "distill": distill.distill,
    "eval": evaluate.evaluate,
    "predict": predict.predict,
    "pseudo": pseudo.pseudo,
    "data": data.app,
    "models": models.app,
    "config": config.app,
    "explain": explain.app,
    "bench": bench.bench,
    "prune": prune.prune,
    "doctor": doctor.doctor,
}
"""Command -> the function that does it, or a group of commands. One file a command; one line here makes it known."""


class CommandGroup(GroupWithExamples):
    """The group of all commands: whatever one of them raises ends in a message and an exit code."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the commands in the table's order."""
        return list(COMMANDS)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that is meant; of one that another library has, say which one it is here."""
        if args[0] not in self.commands and (told := meant_by_command(args, list(COMMANDS))):
            raise UsageError(told)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command named on the command line."""
        with guard():
            return super().invoke(ctx)


app = typer.Typer(
    name="segatlas",
    cls=CommandGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit()


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the stack trace of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Image segmentation: train, evaluate and predict with every well-known architecture.

    KEY=VALUE words override keys of a recipe (see `segatlas config schema`).
    """
    reset_debug()
    set_debug(debug)
    if logging.lastResort is not None:  # prints warnings where no handler is set
        logging.lastResort.addFilter(SAFE_RECORDS)


for _name, _command in COMMANDS.items():
    if isinstance(_command, typer.Typer):
        app.add_typer(_command, name=_name, cls=GroupWithExamples)
        for _part in _command.registered_commands:
            _part.cls = CommandWithExamples
    else:
        app.command(_name, cls=CommandWithExamples)(_command)


def main() -> None:
    """Run the command line."""
    # Read when torch is imported. Threads that wait by spinning for long take the cores from the loader and from each
    # other; those that sleep at once are late at the next of hundreds of short parts of a step.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    app(prog_name="segatlas")
