"""`strata run`: the ranks of a job on this node, started again when one is lost."""

from __future__ import annotations

from pathlib import Path

import click

from strata import _core
from strata.cli import failures, flags
from strata.cli.build import this_command
from strata.cli.roles import leave_signals_to_the_core

EPILOG = """\b
Each rank gets RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR,
MASTER_PORT, STRATA_JOB, STRATA_SOCKET and STRATA_PLACE (which of the node's
N places it runs on, also where some are left out).

\b
Exit code: that of the first rank that failed, 128 + n for signal n;
0 when all ended well; 75 when steps are left that only memory holds."""
SHORT = "Run the ranks of a job, and restart them when one is lost."


@click.command(epilog=EPILOG, short_help=SHORT, context_settings={"allow_interspersed_args": False})
@click.option(
    "--nproc-per-node", "ranks", metavar="N", type=flags.WholeNumber(1), default=1, show_default=True, help="Ranks."
)
@click.option(
    "--max-restarts",
    metavar="N",
    type=flags.WholeNumber(0),
    default=3,
    show_default=True,
    help="How often all ranks are started again after one was lost.",
)
@click.option(
    "--min-nproc",
    "min_ranks",
    metavar="N",
    type=flags.WholeNumber(1),
    help="Go on with as few as N ranks when one is lost again and again.  [default: all]",
)
@click.option(
    "--grow-after",
    metavar="TIME",
    default="10m",
    show_default=True,
    help="With --min-nproc: after which time a rank that was left out is tried again; doubled each time that it fails.",
)
@click.option(
    "--standby",
    is_flag=True,
    help="Start the ranks of a restart ahead of time: they wait in strata.connect, with all that is before it done.",
)
@click.option(
    "--log-dir",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep each rank's output here, as rank-RANK.ATTEMPT.log.",
)
@click.option(
    "--grace",
    metavar="TIME",
    default="30s",
    show_default=True,
    help="After SIGTERM or Ctrl-C: how long ranks may take to save and end.",
)
@click.option("--job", metavar="JOB", help="The job's name.  [default: STRATA_JOB, or default]")
@click.option("--coordinator", metavar="URL", help="For the sidecar that is started where none answers.")
@click.option("--socket", metavar="PATH", help="The sidecar's Unix socket.")
@flags.CONFIG
@click.argument("command", metavar="-- COMMAND...", nargs=-1, type=click.UNPROCESSED)
def run(
    ranks: int,
    max_restarts: int,
    min_ranks: int | None,
    grow_after: str,
    standby: bool,
    log_dir: Path | None,
    grace: str,
    job: str | None,
    coordinator: str | None,
    socket: str | None,
    config: str | None,
    command: tuple[str, ...],
) -> int:
    """Run COMMAND as the ranks of a job on this machine, and start all of them again when one is lost.

    Uses this node's sidecar, and starts one for the time of the run where none answers: with the coordinator that is
    named or already runs here, else with one of its own.

    With --min-nproc a place whose rank is lost twice in a row, or for which no restart is left, is left out: the others
    go on from the last checkpoint, without its accelerator (CUDA_VISIBLE_DEVICES). When it is tried again they are
    asked to save and stop first, as by SIGTERM.

    With --standby a restart waits for no interpreter and no import. The waiting ranks take the memory of whatever the
    script does before strata.connect, which should be its first call that others see.
    """
    if not command:
        example = "strata run --nproc-per-node 2 -- python train.py"
        raise failures.usage("no command was given to run as the ranks", f"put it behind two dashes: {example}")
    found = _core.running_sidecar(config, socket)
    leave_signals_to_the_core()
    return _core.launch(
        command=list(command),
        ranks=ranks,
        min_ranks=min_ranks,
        max_restarts=max_restarts,
        grow_after=grow_after,
        standby=standby,
        log_dir=log_dir,
        grace=grace,
        job=job,
        config=config,
        socket=found or socket,
        sidecar=None if found else sidecar_command(config, coordinator, socket),
    )


def sidecar_command(config: str | None, coordinator: str | None, socket: str | None) -> list[str]:
    """Starts a sidecar with the coordinator there is, or both."""
    command = this_command()
    if _core.has_coordinator(config, coordinator):
        command += ["sidecar", "--http-port", "0"]
        command += ["--coordinator", coordinator] if coordinator else []
    else:
        command += ["up", "--port", "0", "--http-port", "0"]
    command += ["--socket", socket] if socket else []
    return command + (["--config", config] if config else [])
