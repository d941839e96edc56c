"""`strata checkpoints verify`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from strata import _core
from strata.cli import flags, terminal
from strata.cli.checkpoints.places import JSON, STORE, Asked
from strata.errors import CorruptCheckpointError, NotFoundError


@click.command()
@click.argument("steps", metavar="[STEP]...", type=flags.WholeNumber(0), nargs=-1)
@flags.JOB
@STORE
@flags.ADDRESS
@JSON
def verify(
    steps: tuple[int, ...],
    job: str | None,
    store: str | None,
    coordinator: str | None,
    socket: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Read every byte of the steps, or of all there are, and check it. Changes nothing.

    Goes on after a damaged step; exit code 7 if there was one, 3 if there is nothing to verify.
    """
    name = _core.job_name(job)
    asked = Asked(config, coordinator, socket)
    url = asked.store(store, name)
    stored = asked.stored(url, name)
    chosen = steps or tuple(step for step, _, _ in stored.steps())
    if not chosen:  # a mistyped job must not pass for a sound one
        raise NotFoundError(
            f"verifying job {name}: it has no committed step in {url}",
            hint="--job and --store say where to look",
        )
    results = [check(stored, step, quiet=as_json) for step in chosen]
    if as_json:
        terminal.document({"job": name, "steps": results})
    damaged = [result for result in results if not result["whole"]]
    if damaged:
        raise CorruptCheckpointError(
            damaged[0]["message"] if len(results) == 1 else f"{len(damaged)} of {len(results)} steps are damaged",
            hint='restore(on_damage="previous") passes over a damaged step, "strata checkpoints repair" rebuilds it '
            'from another target, "strata checkpoints rm" removes it',
        )


def check(stored: _core.StoredJob, step: int, *, quiet: bool) -> dict[str, Any]:
    """Reads one step; says how it is unless `quiet`."""
    started = time.monotonic()
    try:
        with bar(step) as progress:
            objects, chunks, read = stored.verify(step, progress)
    except CorruptCheckpointError as error:
        if not quiet:
            click.echo(f"step {step}: damaged: {error.message}")
        return {"step": step, "whole": False, "message": error.message}
    if not quiet:
        took = terminal.duration(time.monotonic() - started)
        what = f"{terminal.counted(objects, 'object')} and {terminal.counted(chunks, 'chunk')}"
        click.echo(f"step {step}: whole, {terminal.size(read)} in {what}, {took}")
    return {"step": step, "whole": True, "objects": objects, "chunks": chunks, "bytes": read}


@contextmanager
def bar(step: int) -> Iterator[Callable[[int, int], None]]:
    """Progress on standard error, where that is a terminal."""
    out = terminal.console(err=True)
    if not out.is_terminal:
        yield lambda read, total: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=out, transient=True) as shown:
        task = shown.add_task(f"step {step}", total=None)
        yield lambda read, total: shown.update(task, completed=read, total=total)
