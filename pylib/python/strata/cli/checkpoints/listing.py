"""`strata checkpoints ls`."""

from __future__ import annotations

import json
from typing import Any

import click

from strata import _core
from strata.cli import failures, flags, terminal
from strata.cli.checkpoints.places import JSON, Asked

COLUMNS = (">step", "kind", ">ranks", ">state", ">stored", "committed", "notes")


@click.command()
@flags.JOB
@click.option("--store", metavar="URL", help="Read this store instead of asking the coordinator; pins are not known.")
@flags.ADDRESS
@JSON
def ls(
    job: str | None, store: str | None, coordinator: str | None, socket: str | None, config: str | None, as_json: bool
) -> int:
    """List the committed steps.

    Asks the coordinator; where none answers, this node's sidecar. With --store nothing needs to run.
    """
    name = _core.job_name(job)
    asked = Asked(config, coordinator, socket)
    steps, damaged = from_store(asked, store, name) if store else (json.loads(asked.operator().steps(name)), {})
    if as_json:
        told = [{"step": step, "error": error.kind, "message": error.message} for step, error in damaged.items()]
        terminal.document({"job": name, "steps": steps, "damaged": told})
    elif steps:
        terminal.console().print(terminal.table(COLUMNS, map(row, steps)))
    else:
        click.echo(f"job {name} has no committed step", err=True)
    for error in damaged.values():
        failures.say(error.message, error.hint)
    return next(iter(damaged.values())).exit_code if damaged else 0


def from_store(asked: Asked, store: str, job: str) -> tuple[list[dict[str, Any]], dict[int, Any]]:
    steps, damaged = [], {}
    for step, fields, error in asked.stored(store, job).steps():
        if fields is None:
            damaged[step] = error
        else:
            steps.append(json.loads(fields) | {"pinned": None})
    return steps, damaged


def row(step: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(step["step"]),
        kind(step),
        str(step["world_size"]),
        terminal.size(step["bytes"]),
        terminal.size(step["stored_bytes"]),
        terminal.moment(step["committed_unix_ms"]),
        terminal.plain(notes(step)),
    )


def kind(step: dict[str, Any]) -> str:
    return str(step["kind"]).lower().replace("_", " ")


def notes(step: dict[str, Any]) -> str:
    found = ["pinned"] if step["pinned"] else []
    if step["targets"]:
        found.append(f"{'only ' if step['elsewhere'] else ''}in {', '.join(step['targets'])}")
    if step["base_steps"]:
        found.append(f"needs {terminal.ranks(step['base_steps'])}")
    if isinstance(step["metrics"], dict):
        found += [
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in step["metrics"].items()
        ]
    return ", ".join(found)
