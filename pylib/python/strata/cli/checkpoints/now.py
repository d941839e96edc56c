"""`strata checkpoints now`: a checkpoint when an operator wants one."""

from __future__ import annotations

import click

from strata import _core
from strata.cli import flags, terminal
from strata.cli.checkpoints.places import JSON, Asked


@click.command()
@flags.JOB
@click.option("--stop", is_flag=True, help="Save and stop there, as after SIGTERM on a rank.")
@flags.ADDRESS
@JSON
def now(
    job: str | None, stop: bool, coordinator: str | None, socket: str | None, config: str | None, as_json: bool
) -> None:
    """Have a running job save at its next step boundary.

    All ranks agree on one step, the first that none of them has passed; returns once they have. Loops that ask
    job.should_save(step) save there; with --stop those that ask job.reached_preemption(step) stop there too. `strata
    checkpoints ls` shows the step once it is committed.
    """
    name, operator = _core.job_name(job), Asked(config, coordinator, socket).operator()
    generation, step = operator.ask_save(name, stop)
    if as_json:
        terminal.document({"job": name, "generation": generation, "step": step, "stop": stop})
        return
    click.echo(f"job {name} saves at step {step}{' and stops there' if stop else ''}")
