"""What `save` gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

from . import _core
from .errors import StrataError, StrataTimeoutError
from .info import CommitInfo, StepInfo

__all__ = ["SaveHandle", "SaveState", "SaveStats"]

SaveState = Literal["filling", "staged", "persisting", "committed", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class SaveStats:
    """How long `save` held the caller, in seconds, and by what.

    Attributes:
        waited: for a slot of the arena.
        copy: copying the state into it.
        seal: handing it over.
        total: the call into the core as a whole.
        bytes: copied.
    """

    waited: float
    copy: float
    seal: float
    total: float
    bytes: int


class SaveHandle:
    """One step on its way to the store. Dropping it changes nothing: the step goes on."""

    def __init__(self, handle: _core.SaveHandle, settled: Callable[[int], None]) -> None:
        self._handle = handle
        self._settled = settled

    @property
    def step(self) -> int:
        return self._handle.step

    @property
    def state(self) -> SaveState:
        """How far the step is, as far as this process has heard: "filling", "staged" (the tensors may change; a crash
        of the trainer does no harm), "persisting", "committed" (durable over all ranks), "failed", or "skipped" (the
        node had no free slot in time)."""
        return cast(SaveState, self._handle.state())

    @property
    def cold(self) -> bool:
        """Whether this save was the first touch of its memory and so paid for it; `job.prepare` spares that."""
        return self._handle.cold

    @property
    def mode(self) -> str:
        """How the state was taken over: "copy"."""
        return self._handle.mode

    @property
    def stats(self) -> SaveStats:
        return SaveStats(**self._handle.stats())

    def wait_staged(self, timeout: float | None = None) -> None:
        """Returns when the tensors may change. With mode "copy" that is so once `save` has returned.

        Raises:
            OverloadedError: the step was skipped.
        """
        self._handle.wait_staged(timeout)

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
