"""`strata datasets`: what a job reads, and how far it has come."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from strata import _core
from strata.cli import flags, terminal


@click.command()
@flags.JOB
@flags.ADDRESS
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def datasets(job: str | None, coordinator: str | None, socket: str | None, config: str | None, as_json: bool) -> None:
    """Show the datasets that a job has registered.

    With each: how far its newest committed step has read it, and the files that were damaged when it was registered or
    when they were read.
    """
    asked = _core.Operator(config=config, coordinator=coordinator, socket=socket)
    name = _core.job_name(job)
    found: list[dict[str, Any]] = json.loads(asked.datasets(name))
    steps: list[dict[str, Any]] = json.loads(asked.steps(name)) if found else []
    read = {position["dataset"]: position for step in steps for position in step["data"]}
    for dataset in found:
        dataset["committed"] = read.get(dataset["id"])
    if as_json:
        terminal.document({"job": name, "datasets": found})
        return
    out = terminal.console()
    if not found:
        out.print(f"job {terminal.plain(name)} has registered no dataset")
        return
    columns = ("dataset", "format", ">samples", ">shards", ">files", "committed", "path")
    out.print(terminal.table(columns, [row(dataset) for dataset in found]))
    for dataset in found:
        for line in left_out(dataset):
            out.print(line, soft_wrap=True)


def row(dataset: dict[str, Any]) -> tuple[str, ...]:
    return (
        terminal.plain(dataset["id"]),
        terminal.plain(dataset["format"]),
        f"{dataset['samples']:,}",
        f"{dataset['shards']:,}",
        f"{dataset['files']:,}" if dataset["files"] else "",
        place(dataset),
        terminal.plain(dataset["path"]),
    )


def place(dataset: dict[str, Any]) -> str:
    """Of the newest committed step: epoch, and the share of it that is read."""
    at = dataset["committed"]
    if at is None:
        return ""
    position = min(at["start"] + at["step"] * at["batch_size"], dataset["samples"])
    return f"epoch {at['epoch']}, {position / max(dataset['samples'], 1):.1%}"


def left_out(dataset: dict[str, Any]) -> Iterator[str]:
    for file in dataset["quarantined"]:
        name, reason = terminal.plain(file["path"]), terminal.plain(file["reason"])
        yield f"[yellow]without[/yellow] {name} in {terminal.plain(dataset['id'])}: {reason}"
    for file in dataset["damaged"]:
        name, reason = terminal.plain(file["path"]), terminal.plain(file["reason"])
        hosts = terminal.plain(", ".join(file["hosts"]))
        yield f"[yellow]damaged[/yellow] {name} in {terminal.plain(dataset['id'])}, on {hosts}: {reason}"
