"""`strata wheel`: the client package out of the executable itself."""

from __future__ import annotations

from pathlib import Path

import click

from strata.cli import terminal


@click.command(short_help="Write the package that trainers import.")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), default=Path())
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def wheel(directory: Path, as_json: bool) -> None:
    """Write the Python package that trainers import into DIRECTORY, with what it needs.

    \b
    strata wheel wheels
    pip install --no-index --find-links wheels strata-runtime
    """
    from strata._embedded import wheels
    from strata.errors import NotFoundError

    carried = wheels()
    if not carried:
        raise NotFoundError(
            "writing the wheels: this executable was built without them", hint="build it with `make build`"
        )
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, content in carried:
        path = directory / name
        unfinished = path.with_name(f".{name}.part")
        unfinished.write_bytes(content)
        unfinished.replace(path)
        written.append(path)
    if as_json:
        terminal.document({"wheels": [str(path) for path in written]})
        return
    for path in written:
        click.echo(path)
    click.echo(f"next: pip install --no-index --find-links {directory} strata-runtime", err=True)
