"""`strata up`, `coordinator`, `sidecar`: processes that serve until they are told to stop."""

from __future__ import annotations

import signal
import sys

import click

from strata import _core
from strata.cli import flags

HOOKS_RUNNER = [sys.executable, "-m", "strata._hooks"]
"""Runs a hooks file; the executable is an interpreter too."""


PRIVATE = click.option(
    "--private", metavar="JOB", hidden=True, help="Serve one job's trainers, and end with the last of them."
)


def leave_signals_to_the_core() -> None:
    """Python's handler would raise KeyboardInterrupt after the core has ended in good order."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@click.command(short_help="Run coordinator and sidecar of this machine.")
@flags.CONFIG
@flags.COORDINATOR
@flags.SIDECAR
@flags.LOG
@PRIVATE
def up(config: str | None, private: str | None) -> int:
    """Run coordinator and sidecar of this machine in the foreground: all that a job on one machine needs.

    Checkpoints go to $STRATA_HOME/store unless --store or STRATA_STORE names another place. SIGTERM or Ctrl-C persists
    what is sealed and ends; a second one ends at once.
    """
    leave_signals_to_the_core()
    return _core.up(config, flags.given(), HOOKS_RUNNER, private)


@click.command()
@flags.CONFIG
@flags.COORDINATOR
@flags.COORDINATOR_OF_A_SET
@flags.LOG
def coordinator(config: str | None) -> int:
    """Run a cluster's coordinator in the foreground.

    It registers ranks, watches them, commits checkpoints and answers `strata status`. Sidecars on other machines reach
    it with STRATA_COORDINATOR. SIGTERM or Ctrl-C ends it in good order; a second one at once.

    With --peers it is one of three or five that are one cluster's: they share STRATA_PEERS_SECRET, agree on who leads,
    and what they have acknowledged survives the loss of a minority of them.
    """
    leave_signals_to_the_core()
    return _core.coordinator(config, flags.given(), HOOKS_RUNNER)


@click.command()
@flags.CONFIG
@flags.SIDECAR
@flags.SIDECAR_ALONE
@flags.LOG
@click.option("--wait-ready", is_flag=True, help="Start nothing: return when this node's sidecar is usable.")
@click.option("--timeout", metavar="TIME", default="60s", show_default=True, help="For --wait-ready.")
@PRIVATE
def sidecar(config: str | None, wait_ready: bool, timeout: str, private: str | None) -> int:
    """Run the sidecar of this node in the foreground.

    Trainers on the node hand it their checkpoints through shared memory, and it brings them to the store. SIGTERM or
    Ctrl-C takes no new saves and persists what is sealed; exit code 75 if some steps are then still only in memory.
    """
    leave_signals_to_the_core()
    if wait_ready:
        click.echo(_core.wait_ready(config, flags.given(), timeout))
        return 0
    return _core.sidecar(config, flags.given(), private)
