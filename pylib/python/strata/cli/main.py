"""The group of commands."""

from __future__ import annotations

import sys

import click


@click.group()
def commands() -> None:
    """Keep a training job's progress safe."""


@commands.command()
def version() -> None:
    """Print the version."""
    from strata import __version__

    click.echo(f"strata {__version__}")


def main() -> None:
    """Runs the command that sys.argv names, and exits with its code."""
    sys.exit(commands.main(prog_name="strata", standalone_mode=True))
