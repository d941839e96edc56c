"""`strata goodput`: where the seconds of a job have gone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from strata import _core
from strata.cli import flags, terminal

BAR = 30
"""Characters of a use that all time has gone to."""

EXPLAINED = {
    "productive": "steps that nobody had made before",
    "start": "until the first step of all",
    "detection": "a rank was lost, and nobody knew",
    "fencing": "the others were told, and had yet to end",
    "restart": "processes started and got ready for their first step",
    "reassignment": "the first rank was back, and not all",
    "restore": "the state was brought back",
    "replay": "steps that had been made before, and were lost",
    "save": "training was held by a save, or by waiting for one",
    "stall": "a step took far longer than is usual",
}


@click.command()
@click.option("--job", metavar="JOB", help="Only this job.")
@flags.ADDRESS
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def goodput(job: str | None, coordinator: str | None, socket: str | None, config: str | None, as_json: bool) -> None:
    """Show what a job's time was spent on, over all its restarts.

    Every second from its first rank's start is in one line, but for those after all ranks had left in good order.
    """
    asked = _core.Operator(config=config, coordinator=coordinator, socket=socket)
    found: dict[str, Any] = json.loads(asked.goodput(job))
    if as_json:
        terminal.document(found)
        return
    out = terminal.console()
    for number, one in enumerate(found["jobs"]):
        if number:
            out.print()
        for part in page(one):
            out.print(part)
    if not found["jobs"]:
        out.print("no job yet; next: strata run -- python train.py")


def page(job: dict[str, Any]) -> Iterator[Any]:
    """The lines of one job."""
    total = sum(one["ms"] for one in job["spent"])
    name = f"[bold]job {terminal.plain(job['job'])}[/bold]"
    if not total:
        yield f"{name}  nobody has joined it since this coordinator keeps a ledger"
        return
    shares = {one["use"]: one["ms"] / total for one in job["spent"]}
    since = f" since {terminal.moment(job['since_unix_ms'])}" if job["since_unix_ms"] else ""
    counts = f"{terminal.counted(job['losses'], 'loss', 'losses')}, {terminal.counted(job['saves'], 'step')} committed"
    yield f"{name}  {shares['productive']:.1%} productive of {terminal.duration(total / 1000)}{since}; {counts}"
    rows = [row(one, shares[one["use"]]) for one in job["spent"] if one["ms"]]
    yield terminal.table(("use", ">time", ">share", "", ""), rows, indent=2)
    interval = terminal.duration(job["save_interval_ms"] / 1000)
    yield f'  [dim]a save every {interval} would lose least, and is what checkpoint.interval_steps = "auto" does[/dim]'


def row(spent: dict[str, Any], share: float) -> tuple[str, ...]:
    use = spent["use"]
    colour = "green" if use == "productive" else "yellow"
    bar = f"[{colour}]{'█' * max(1, round(share * BAR)):<{BAR}}[/{colour}]"
    return use, terminal.duration(spent["ms"] / 1000), f"{share:.1%}", bar, f"[dim]{EXPLAINED.get(use, '')}[/dim]"
