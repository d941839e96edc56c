"""`strata checkpoints repair`."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

from strata import _core
from strata.cli import flags, terminal
from strata.cli.checkpoints.places import JSON, STORE, Asked
from strata.cli.checkpoints.verify import bar
from strata.errors import CorruptCheckpointError, NotFoundError, UnavailableError

FIELDS = ("store", "object", "problem", "outcome", "reason")


@click.command(short_help="Rebuild what is damaged from another place of the job.")
@click.argument("steps", metavar="[STEP]...", type=flags.WholeNumber(0), nargs=-1)
@flags.JOB
@STORE
@click.option(
    "--target",
    "targets",
    metavar="NAME|URL",
    multiple=True,
    help="A further place of the job; may be repeated.  [default: all that are configured]",
)
@click.option("--dry-run", is_flag=True, help="Say what would be rebuilt; write nothing.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@flags.ADDRESS
@JSON
def repair(
    steps: tuple[int, ...],
    job: str | None,
    store: str | None,
    targets: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    coordinator: str | None,
    socket: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Rebuild damaged and missing objects of the steps, or of all there are, from another place that still has them.

    Reads every byte in the first store and in the targets, and in each of them writes anew what is not what was
    written, from bytes that were checked; it is checked again afterwards. A good object is never touched. A step
    that is named is also brought back into the first store when its COMMIT is missing there. Where a coordinator
    runs the steps are pinned meanwhile.

    Exit code 7 when something is left that no place has.
    """
    name = _core.job_name(job)
    asked = Asked(config, coordinator, socket)
    url = asked.store(store, name)
    places = _core.RepairJob(url, name, list(targets), config=config)
    chosen = steps or tuple(places.steps())
    if not chosen:  # a mistyped job must not pass for a sound one
        raise NotFoundError(
            f"repairing job {name}: it has no committed step in {url} or its targets",
            hint="--job, --store and --target say where to look",
        )
    named = bool(steps)
    if not dry_run and not yes:
        damaged = look(places, chosen, named=named, dry_run=True, quiet=as_json)
        if not any(fault["outcome"] == "repairable" for fault in damaged):
            return end(name, url, damaged, dry_run=dry_run, as_json=as_json)
        question = f"rebuild {terminal.counted(len(damaged), 'object')} of job {name}?"
        terminal.confirm(f"repairing job {name}", question, yes=yes)
    if dry_run:
        faults = look(places, chosen, named=named, dry_run=True, quiet=as_json)
    else:
        with kept(asked, name, chosen):
            faults = look(places, chosen, named=named, dry_run=False, quiet=as_json)
    end(name, url, faults, dry_run=dry_run, as_json=as_json)


def look(
    places: _core.RepairJob, steps: tuple[int, ...], *, named: bool, dry_run: bool, quiet: bool
) -> list[dict[str, Any]]:
    """Goes through all steps; says what it finds unless `quiet`."""
    found: list[dict[str, Any]] = []
    for step in (None, *steps):
        if step is None:
            told = places.owners(dry_run)
        else:
            with bar(step) as progress:
                told = places.step(step, named, dry_run, progress)
        faults = [{"step": step, **dict(zip(FIELDS, fault, strict=True))} for fault in told]
        # Steps share packs: what is only looked at is found again with the next of them.
        faults = [fault for fault in faults if not any(fault["object"] == known["object"] for known in found)]
        found += faults
        if not quiet:
            say(step, faults)
    return found


def say(step: int | None, faults: list[dict[str, Any]]) -> None:
    if step is not None and not faults:
        click.echo(f"step {step}: nothing to repair")
    for fault in faults:
        where = "OWNER" if step is None else f"step {step}"
        outcome = {"repaired": "rebuilt", "repairable": "can be rebuilt", "lost": f"lost: {fault['reason']}"}
        click.echo(f"{where}: {fault['object']}: {outcome[fault['outcome']]} ({fault['problem']})")


def end(name: str, url: str, faults: list[dict[str, Any]], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        terminal.document({"job": name, "store": url, "dry_run": dry_run, "objects": faults})
    lost = [fault for fault in faults if fault["outcome"] == "lost"]
    if lost:
        message = f"repairing job {name}: {terminal.counted(len(lost), 'object')} can't be rebuilt"
        hint = 'restore(on_damage="previous") passes over a damaged step; "strata checkpoints rm" removes it'
        raise CorruptCheckpointError(f"{message}, such as {lost[0]['object']}", hint=hint)


@contextmanager
def kept(asked: Asked, name: str, steps: tuple[int, ...]) -> Iterator[None]:
    """Nobody removes the steps meanwhile: where a coordinator knows the job they are pinned, under a name of this
    repair's own, so that what a person or another repair pins meanwhile stays pinned."""
    try:
        operator = asked.operator()
        known = {step["step"]: step for step in json.loads(operator.steps(name))}
    except (UnavailableError, NotFoundError):
        if asked.coordinator or asked.socket:
            raise
        yield  # nothing runs that could remove them
        return
    ours = [step for step in steps if step in known and not known[step]["elsewhere"]]
    holder = f"repair {uuid.uuid4()}"
    try:
        for step in ours:
            operator.set_pinned(name, step, True, holder)
        yield
    finally:
        for step in ours:
            with suppress(NotFoundError):  # removed by force meanwhile
                operator.set_pinned(name, step, False, holder)
