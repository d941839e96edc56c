"""`strata up`, `coordinator`, `sidecar`: processes that serve until they are told to stop."""

from __future__ import annotations

import signal
import sys

import click

from strata import _core
from strata.cli import flags

HOOKS_RUNNER = [sys.executable, "-m", "strata._hooks"]
"""Runs a hooks file; the executable is an interpreter too."""


def leave_signals_to_the_core() -> None:
    """Python's handler would raise KeyboardInterrupt after the core has ended in good order."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@click.command()
@flags.CONFIG
@flags.COORDINATOR
@flags.LOG
def coordinator(config: str | None) -> int:
    """Run a cluster's coordinator in the foreground.

    It registers ranks, watches them, commits checkpoints and answers `strata status`. Sidecars on other machines reach
    it with STRATA_COORDINATOR. SIGTERM or Ctrl-C ends it in good order; a second one at once.
    """
    leave_signals_to_the_core()
    return _core.coordinator(config, flags.given(), HOOKS_RUNNER)
