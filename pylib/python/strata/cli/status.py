"""`strata status`: who is there, which steps are safe, what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from strata import _core
from strata.cli import flags, stacks, terminal

Document = dict[str, Any]

WRONG = {"lost": "bold red", "stalled": "bold red", "suspect": "yellow", "left": "dim"}
"""How a rank's state is coloured; live and joining ones are as they should be."""


STALLED = 4
"""Stalled ranks that are told where they are: most stand at one place."""


@click.command()
@click.option("--job", metavar="JOB", help="Only this job.")
@flags.ADDRESS
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def status(job: str | None, coordinator: str | None, socket: str | None, config: str | None, as_json: bool) -> None:
    """Show who is there, which steps are safe and what is wrong.

    Asks the coordinator; where none answers, this node's sidecar.
    """
    asked = _core.Operator(config=config, coordinator=coordinator, socket=socket)
    found: Document = json.loads(asked.status(job))
    if as_json:
        terminal.document(found)
        return
    out = terminal.console()
    for part in page(found, asked.place):
        out.print(part)


def page(found: Document, place: str) -> Iterator[Any]:
    """The lines and tables of the human form."""
    up = terminal.duration(found["uptime_ms"] / 1000)
    yield f"[bold]strata {found['version']['version']}[/bold]  {found['role']} at {place}, up {up}"
    if found["coordinators"]:
        yield ""
        yield terminal.table(("coordinator", "state", ">behind"), map(coordinator_row, found["coordinators"]))
    if found["nodes"]:
        yield ""
        yield terminal.table(("node", "host", "sidecar", "version"), map(node_row, found["nodes"]))
    for job in found["jobs"]:
        yield ""
        yield from job_page(job)
    if not found["jobs"]:
        yield ""
        yield "no job yet; next: strata run -- python train.py"


def coordinator_row(one: Document) -> tuple[str, ...]:
    state = "[yellow]away[/yellow]" if one["state"] == "away" else one["state"]
    return one["url"], state, terminal.counted(one["behind"], "entry", "entries") if one["behind"] else ""


def node_row(node: Document) -> tuple[str, ...]:
    silence = terminal.duration(node["silent_ms"] / 1000)
    state = f"attached, heard {silence} ago" if node["attached"] else f"[yellow]gone for {silence}[/yellow]"
    return node["node"][:8], node["host"], state, node["version"]


def job_page(job: Document) -> Iterator[Any]:
    yield f"[bold]job {job['job']}[/bold]  {generation(job)}, {steps(job)}"
    if job["store"]:
        yield f"  store    {terminal.plain(job['store'])}"
    for target in job["targets"]:
        yield f"  target   {target_text(target)}"
    for pending in job["pending"]:
        yield f"  pending  {pending_text(pending, job['world_size'])}"
    if job["last_warning"]:
        yield f"  [yellow]warning[/yellow]  {terminal.plain(job['last_warning'])}"
    if job["ranks"]:
        yield terminal.table((">rank", "host", "state", ">step", "phase"), map(rank_row, job["ranks"]), indent=2)
    stalled = [rank for rank in job["ranks"] if rank["state"] == "stalled"]
    for rank in stalled[:STALLED]:
        if rank["stack"]:
            yield stalled_text(rank)
    if stalled:
        yield f"  next: strata stacks {job['job']}"


def generation(job: Document) -> str:
    if job["generation"]:
        return f"generation {job['generation']}, {terminal.counted(job['world_size'], 'rank')}"
    if any(rank["state"] == "joining" for rank in job["ranks"]):
        return f"waiting for rank {terminal.ranks(job['missing_ranks'])} of {job['world_size']}"
    return "not running"


def steps(job: Document) -> str:
    if not job["committed_steps"]:
        return "no step committed"
    newest = "none whole" if job["latest_step"] is None else f"newest whole one {job['latest_step']}"
    return f"{terminal.counted(job['committed_steps'], 'step')} committed, {newest}"


def target_text(target: Document) -> str:
    name = terminal.plain(target["name"])
    if not target["known"]:
        text = f"{name}: not listed yet"
    elif target["behind"]:
        text = f"{name}: {terminal.counted(target['behind'], 'step')} behind, {target['steps']} there"
    else:
        text = f"{name}: {terminal.counted(target['steps'], 'step')}, nothing behind"
    if target["copying"] is not None:
        text += f", copying step {target['copying']}"
    return f"{text}; [yellow]{terminal.plain(target['problem'])}[/yellow]" if target["problem"] else text


def rank_row(rank: Document) -> tuple[str, ...]:
    state, progress = rank["state"], rank["progress"]
    shown = f"[{WRONG[state]}]{state}[/{WRONG[state]}]" if state in WRONG else state
    if not progress or state == "left" or progress["phase"] == "unspecified":
        return str(rank["rank"]), rank["host"], shown, "", ""
    phase = f"{progress['phase']}, {terminal.duration(progress['age_ms'] / 1000)} ago"
    return str(rank["rank"]), rank["host"], shown, str(progress["step"]), phase


def stalled_text(rank: Document) -> str:
    stack = rank["stack"]
    return f"  rank {rank['rank']}{stacks.process_text(stack)}: {terminal.plain(stacks.top(stack))}"


def pending_text(pending: Document, world: int) -> str:
    sealed, durable = set(pending["sealed"]), set(pending["durable"])
    of = terminal.counted(world, "rank")
    text = f"step {pending['step']}: {len(sealed | durable)} of {of} sealed, {len(durable)} durable"
    unsealed = set(pending["missing"]) - sealed - durable
    waits = unsealed or set(pending["missing"])
    what = "to be sealed" if unsealed else "to be durable"
    return f"{text}; waits for rank {terminal.ranks(waits)} {what}" if waits else text
