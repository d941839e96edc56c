"""`strata checkpoints show`."""

from __future__ import annotations

import json
from typing import Any

import click

from strata import _core
from strata.cli import flags, terminal
from strata.cli.checkpoints.listing import kind
from strata.cli.checkpoints.places import JOB, JSON, STEP, STORE, Asked

FIELDS = ("rank", "name", "dtype", "shape", "bytes", "replicated")


@click.command()
@STEP
@JOB
@STORE
@flags.ADDRESS
@JSON
def show(
    step: int,
    job: str | None,
    store: str | None,
    coordinator: str | None,
    socket: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Show what a step holds: sizes, metrics, data position, tensors. Reads the store, no tensor."""
    name = _core.job_name(job)
    asked = Asked(config, coordinator, socket)
    url = asked.store(store, name)
    found = _core.StoredJob(url, name, config=config).inspect(step)
    info = json.loads(found["step"])
    del info["pinned"]  # the coordinator's to say
    tensors = [dict(zip(FIELDS, tensor, strict=True)) for tensor in found["tensors"]]
    if as_json:
        terminal.document({"job": name, "store": url, **info, "tensors": tensors})
        return
    out = terminal.console()
    for title, text in facts(info, url).items():
        out.print(f"[dim]{title:<12}[/dim]{terminal.plain(text)}")
    if tensors:
        out.print()
        out.print(terminal.table((">rank", "dtype", "shape", ">size", "name"), map(row, tensors)))


def facts(info: dict[str, Any], url: str) -> dict[str, str]:
    """The lines above the table."""
    ranks = terminal.counted(info["world_size"], "rank")
    lines = {
        "step": f"{info['step']}, {kind(info)}, saved by {ranks} in generation {info['generation']}",
        "store": url,
        "committed": terminal.moment(info["committed_unix_ms"]),
        "size": f"{terminal.size(info['bytes'])}, of which {terminal.size(info['stored_bytes'])} stored for this step",
    }
    if info["base_steps"]:
        lines["needs"] = f"objects of step {terminal.ranks(info['base_steps'])}"
    for title in ("metrics", "meta"):
        if info[title] is not None:
            lines[title] = json.dumps(info[title])
    for position in info["data"]:
        lines["data"] = f"{position['dataset']}, epoch {position['epoch']}, step {position['step']}"
    return lines


def row(tensor: dict[str, Any]) -> tuple[str, ...]:
    rank = "all" if tensor["replicated"] else str(tensor["rank"])
    shape = "×".join(map(str, tensor["shape"])) or "scalar"
    return rank, tensor["dtype"], shape, terminal.size(tensor["bytes"]), terminal.plain(tensor["name"])
