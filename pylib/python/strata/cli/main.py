"""The tree of commands, and the one place where they end."""

from __future__ import annotations

# `signal` itself makes enums of its numbers, which a quick command would notice; typeshed knows only that one.
import _signal  # type: ignore[import-not-found]
import gc
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from strata.cli import failures
from strata.cli.build import is_executable
from strata.cli.groups import Group

COMMANDS = {
    "up": "strata.cli.roles:up",
    "coordinator": "strata.cli.roles:coordinator",
    "sidecar": "strata.cli.roles:sidecar",
    "run": "strata.cli.run:run",
    "status": "strata.cli.status:status",
    "stacks": "strata.cli.stacks:stacks",
    "goodput": "strata.cli.goodput:goodput",
    "datasets": "strata.cli.datasets:datasets",
    "checkpoints": "strata.cli.checkpoints:checkpoints",
    "config": "strata.cli.configuration:config",
    "wheel": "strata.cli.wheel:wheel",
    "python": "strata.cli.interpreter:python",
    "version": "strata.cli.version:version",
}
"""In the order of --help."""

EXECUTABLE_ONLY = {"wheel"}

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Commands(Group):
    """Imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in COMMANDS if is_executable() or name not in EXECUTABLE_ONLY]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


def show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from strata import __version__

        click.echo(f"strata {__version__}")
        ctx.exit()


@click.group(cls=Commands, context_settings=CONTEXT)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=show_version, help="Print the version."
)
def commands() -> None:
    """Keep a training job's progress safe, and its ranks fed.

    \b
    strata up
    strata run --nproc-per-node 2 -- python train.py
    strata status
    """


def _unraisable(what: sys.UnraisableHookArgs) -> None:
    """Ctrl-C within a callback or a finaliser, where CPython drops exceptions: it was meant for the command."""
    if what.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(what)
        return
    os._exit(failures.tell(KeyboardInterrupt()))


def run(arguments: Sequence[str]) -> int:
    """Runs a command to its end; the exit code. Nothing it raises gets out, Ctrl-C included."""
    sys.unraisablehook = _unraisable
    try:
        if _signal.getsignal(_signal.SIGINT) is None:  # the executable's own, until somebody catches the exception
            _signal.signal(_signal.SIGINT, _signal.default_int_handler)
        ended: Any = commands.main(list(arguments), prog_name="strata", standalone_mode=False)
    except BaseException as error:
        return failures.tell(error)
    return ended if isinstance(ended, int) else 0


def main() -> None:
    """Runs the command that sys.argv names, and exits with its code."""
    code = run(sys.argv[1:])
    # What is alive now ends with the process; searching it for garbage would be a tenth of a short command.
    gc.freeze()
    sys.exit(code)
