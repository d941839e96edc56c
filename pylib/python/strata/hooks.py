"""What an operator's hooks file is called with.

A hooks file is Python, named by `--hooks` or `[coordinator] hooks`, and may define any of

    def on_commit(event: CommitEvent) -> None: ...
    def on_worker_lost(event: WorkerLost) -> None: ...
    def retain(steps: list[StepInfo]) -> set[int]: ...

The coordinator runs it in a process of its own; each call has 10 seconds. What it prints appears on the coordinator's
standard error. `retain` is asked after every commit and names the steps to keep, in place of keep_last; the newest
whole step, pinned steps and steps that others refer to are kept whatever it says. A hook that raises, hangs, exits or
answers nonsense keeps everything: the failure is logged, with the traceback, and shown by `strata status`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .info import StepInfo

__all__ = ["CommitEvent", "StepInfo", "WorkerLost"]


@dataclass(frozen=True, slots=True)
class CommitEvent:
    """A step has become durable, over all its ranks."""

    job: str
    step: StepInfo

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> CommitEvent:
        """From the coordinator's line."""
        return cls(fields["job"], StepInfo.from_fields(fields["step"]))


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A generation has ended because ranks were lost.

    Attributes:
        job: its name.
        generation: the one that ended.
        ranks: those that were lost.
        hosts: where they ran, in the same order.
        reason: the evidence, such as "pidfd: exited".
    """

    job: str
    generation: int
    ranks: tuple[int, ...]
    hosts: tuple[str, ...]
    reason: str

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> WorkerLost:
        """From the coordinator's line."""
        ranks, hosts = tuple(fields["ranks"]), tuple(fields["hosts"])
        return cls(fields["job"], fields["generation"], ranks, hosts, fields["reason"])
