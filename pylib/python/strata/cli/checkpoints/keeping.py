"""`strata checkpoints pin`, `unpin`, `rm`: what is kept and what goes, through the coordinator's log."""

from __future__ import annotations

import json

import click

from strata import _core
from strata.cli import flags, terminal
from strata.cli.checkpoints.places import JSON, STEPS, Asked


@click.command()
@STEPS
@flags.JOB
@flags.ADDRESS
@JSON
def pin(
    steps: tuple[int, ...],
    job: str | None,
    coordinator: str | None,
    socket: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Keep steps whatever the retention rule or a hook says."""
    set_pinned(steps, job, Asked(config, coordinator, socket), pinned=True, as_json=as_json)


@click.command()
@STEPS
@flags.JOB
@flags.ADDRESS
@JSON
def unpin(
    steps: tuple[int, ...],
    job: str | None,
    coordinator: str | None,
    socket: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Take pins back. The next commit's retention may remove the steps."""
    set_pinned(steps, job, Asked(config, coordinator, socket), pinned=False, as_json=as_json)


def set_pinned(steps: tuple[int, ...], job: str | None, asked: Asked, *, pinned: bool, as_json: bool) -> None:
    name, operator = _core.job_name(job), asked.operator()
    done = [json.loads(operator.set_pinned(name, step, pinned)) for step in steps]
    if as_json:
        terminal.document({"job": name, "steps": done})
        return
    for step in steps:
        click.echo(f"step {step}: {'pinned' if pinned else 'no longer pinned'}")


@click.command()
@STEPS
@flags.JOB
@click.option("--dry-run", is_flag=True, help="Say what would be removed, or why not; remove nothing.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option("--force", is_flag=True, help="Remove pinned steps and the newest whole one too.")
@flags.ADDRESS
@JSON
def rm(
    steps: tuple[int, ...],
    job: str | None,
    dry_run: bool,
    yes: bool,
    force: bool,
    coordinator: str | None,
    socket: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Remove steps for good: all of them, or none when one is refused.

    Refused are steps that a save or a restore needs right now and, without --force, pinned steps and the newest step
    that holds the whole state.
    """
    name, operator = _core.job_name(job), Asked(config, coordinator, socket).operator()
    stored = {step: operator.delete(name, step, force, True) for step in steps}
    if dry_run:
        if as_json:
            told = [{"step": step, "stored_bytes": size} for step, size in stored.items()]
            terminal.document({"job": name, "dry_run": True, "steps": told})
        for step, size in () if as_json else stored.items():
            click.echo(f"step {step}: would be removed, {terminal.size(size)} at most would be freed")
        return
    which = f"step {terminal.ranks(stored)} of job {name}"
    question = f"remove {which} ({terminal.size(sum(stored.values()))}) for good?"
    terminal.confirm(f"removing {which}", question, yes=yes)
    freed = {}
    for step in stored:
        freed[step] = operator.delete(name, step, force, False)
        if not as_json:
            click.echo(f"step {step}: removed, {terminal.size(freed[step])} freed")
    if as_json:
        told = [{"step": step, "freed_bytes": size} for step, size in freed.items()]
        terminal.document({"job": name, "dry_run": False, "steps": told})
