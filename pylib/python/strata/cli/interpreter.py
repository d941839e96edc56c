"""`strata python`: the interpreter that the executable holds. The executable starts it by itself; this is its help, and
for the wheel the interpreter that runs it."""

from __future__ import annotations

import os
import sys

import click


@click.command(
    short_help="Run the Python interpreter that is inside.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def python(arguments: tuple[str, ...]) -> None:
    """Run Python as `python3` would: a FILE, -c CODE, -m MODULE, or a prompt.

    The standard library and the strata package are inside; nothing needs to be installed. For training use the Python
    that has your framework, with the package that `strata wheel` writes.
    """
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *arguments])
