"""`strata config`: what is configured, whether it can be read, and the file that documents it."""

from __future__ import annotations

import click

from strata import _core
from strata.cli import failures, flags, terminal
from strata.cli.groups import Group


@click.group(cls=Group)
def config() -> None:
    """Show, check and document the configuration.

    A flag overrides the environment, the environment the file, and the file the default.
    """


@config.command()
@flags.CONFIG
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def show(config: str | None, as_json: bool) -> None:
    """Print every setting with its value and where that came from."""
    click.echo(_core.config_show(config, as_json), nl=as_json)


@config.command(short_help="Say everything that is wrong with the configuration.")
@flags.CONFIG
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def check(config: str | None, as_json: bool) -> int:
    """Say everything that is wrong with the configuration, not only the first."""
    file, problems = _core.config_check(config)
    if as_json:
        found = [{"kind": problem.kind, "message": problem.message, "hint": problem.hint} for problem in problems]
        terminal.document({"file": file and str(file), "problems": found})
    elif problems:
        for problem in problems:
            failures.say(problem.message, problem.hint)
    else:
        click.echo(f"{file}: fine" if file else "no configuration file; environment and defaults are fine")
    return problems[0].exit_code if problems else 0


@config.command()
def example() -> None:
    """Print a file with every key, its default and what it does."""
    click.echo(_core.config_example(), nl=False)
