"""Processes that `strata run --standby` has started ahead of time."""

from __future__ import annotations

import os

__all__ = ["wait"]

VARIABLE = "STRATA_STANDBY"
"""Number of a pipe's end: a byte comes when the process is needed, its end when it is not."""


def wait() -> None:
    """Returns once this process is needed: at once, unless it was started ahead of time. Ends it when it is not."""
    pipe = os.environ.pop(VARIABLE, None)
    if pipe is None:
        return
    called = os.read(int(pipe), 1)
    os.close(int(pipe))
    if not called:
        raise SystemExit(0)
