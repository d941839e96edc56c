"""`strata checkpoints show`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from strata import _core
from strata.cli import flags, terminal
from strata.cli.checkpoints.listing import kind
from strata.cli.checkpoints.places import JSON, STEP, STORE, Asked
from strata.info import EncodingInfo
from strata.inspection import tensor_info


@click.command()
@STEP
@flags.JOB
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
    """Show what a step holds, and what changed since the step before.

    Sizes, metrics, data position, tensors, how they are stored. Reads the store, no tensor. --json
    also says where each byte lies: object, offset and length.
    """
    name = _core.job_name(job)
    asked = Asked(config, coordinator, socket)
    url = asked.store(store, name)
    found = _core.StoredJob(url, name, config=config).inspect(step)
    info = json.loads(found["step"])
    del info["pinned"]  # the coordinator's to say
    tensors = [asdict(tensor_info(fields)) for fields in found["tensors"]]
    encodings = [asdict(EncodingInfo(*fields)) for fields in found["encodings"]]
    if as_json:
        more = {"before": found["before"], "encodings": encodings, "tensors": tensors}
        terminal.document({"job": name, "store": url, **info, **more})
        return
    out = terminal.console()
    for title, text in (facts(info, url) | stored(encodings, found["before"], tensors)).items():
        out.print(f"[dim]{title:<12}[/dim]{terminal.plain(text)}")
    if tensors:
        out.print()
        out.print(terminal.table((">rank", "dtype", "shape", ">size", ">changed", "stored", "name"), map(row, tensors)))


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


def stored(encodings: list[dict[str, Any]], before: int | None, tensors: list[dict[str, Any]]) -> dict[str, str]:
    """How the bytes are stored, and how many of them changed."""
    lines = {}
    if encodings:
        lines["stored as"] = ", ".join(map(_encoding, encodings))
    if before is not None:
        known = [tensor for tensor in tensors if tensor["changed"] is not None]
        changed, size = (sum(tensor[what] for tensor in known) for what in ("changed", "bytes"))
        lines["changed"] = f"{terminal.size(changed)} of {terminal.size(size)} since step {before}"
    return lines


def _encoding(found: dict[str, Any]) -> str:
    older = f", {terminal.size(found['older_bytes'])} of it in older steps" if found["older_bytes"] else ""
    return f"{found['name']} {terminal.size(found['state_bytes'])} in {terminal.size(found['stored_bytes'])}{older}"


def row(tensor: dict[str, Any]) -> tuple[str, ...]:
    rank = "all" if tensor["replicated"] else str(tensor["rank"])
    shape = "×".join(map(str, tensor["shape"])) or "scalar"
    ways = ", ".join(sorted({piece["encoding"] for piece in tensor["pieces"]}))
    size = terminal.size(tensor["bytes"])
    return rank, tensor["dtype"], shape, size, _changed(tensor), ways, terminal.plain(tensor["name"])


def _changed(tensor: dict[str, Any]) -> str:
    changed = tensor["changed"]
    if changed is None:
        return ""
    if changed == 0:
        return "no"
    return "all" if changed == tensor["bytes"] else terminal.size(changed)
