"""What `save` gives back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

from . import _core
from ._staging import Taking
from .errors import StrataError, StrataTimeoutError
from .info import CommitInfo, StepInfo

__all__ = ["SaveHandle", "SaveState", "SaveStats"]

SaveState = Literal["filling", "staged", "persisting", "committed", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class SaveStats:
    """What a save has cost so far, in seconds and bytes.

    Attributes:
        total: how long `save` held its caller, all in all.
        fenced: how long an optimizer's step (`strata.torch.fence`) or `wait_staged` was held until the copy was done.
            The loop has lost `total + fenced` to this save.
        waited: for a slot of the arena; part of `total`.
        copy: copying the state into it, within `save` or behind it; the sum of its parts.
        seal: handing it over.
        bytes: copied.
        deferred: those of them that are copied after `save` has returned.
    """

    total: float
    fenced: float
    waited: float
    copy: float
    seal: float
    bytes: int
    deferred: int


class SaveHandle:
    """One step on its way to the store. Dropping it changes nothing: the step goes on."""

    def __init__(self, handle: _core.SaveHandle, taking: Taking, total: float, settled: Callable[[int], None]) -> None:
        self._handle = handle
        self._taking = taking
        self._total = total
        self._settled = settled

    @property
    def step(self) -> int:
        return self._handle.step

    @property
    def state(self) -> SaveState:
        """How far the step is, as far as this process has heard: "filling" (still being copied), "staged" (the tensors
        may change; a crash of the trainer does no harm), "persisting", "committed" (durable over all ranks), "failed",
        or "skipped" (the node had no free slot in time)."""
        return cast(SaveState, self._handle.state())

    @property
    def cold(self) -> bool:
        """Whether this save was the first touch of its memory and so paid for it; `job.prepare` spares that."""
        return bool(self._handle.stats()["cold"])

    @property
    def mode(self) -> Literal["copy", "lazy", "fork"]:
        """How the state was taken over: see `Job.save`."""
        return self._taking.mode

    @property
    def stats(self) -> SaveStats:
        found = {name: value for name, value in self._handle.stats().items() if name != "cold"}
        return SaveStats(self._total, self._taking.fenced, deferred=self._taking.deferred, **found)

    def wait_staged(self, timeout: float | None = None) -> None:
        """Returns when the step is handed over: the tensors may change, and a crash of this process does it no harm.

        With mode "copy" that is so once `save` has returned; with "fork" the tensors may change then, and the child may
        still be copying.

        Raises:
            InvalidError: mode "lazy", and a tensor was written to before it was copied; names it. The step is
                abandoned on all ranks.
            OverloadedError: the step was skipped.
            StrataTimeoutError: not within `timeout` seconds; None is the job's budget.
        """
        started = time.perf_counter()
        try:
            self._handle.wait_staged(timeout)
        finally:
            self._taking.fenced += time.perf_counter() - started

    def wait_committed(self, timeout: float | None = None) -> CommitInfo:
        """Returns when the step is durable over all ranks (P1).

        Args:
            timeout: seconds; None is the job's commit time-out.

        Raises:
            StrataTimeoutError: not committed yet, naming the ranks that are missing; it may still be.
            FencedError: the generation ended, and the step was abandoned with it.
            OverloadedError: the step was skipped, or the store is full.
            StrataError: whatever made the step fail.
        """
        try:
            fields = self._handle.wait_committed(timeout)
        except StrataTimeoutError:
            raise
        except StrataError:
            self._settled(self.step)
            raise
        self._settled(self.step)
        return StepInfo.from_fields(fields)

    def __repr__(self) -> str:
        return f"<SaveHandle step {self.step}: {self.state}>"
