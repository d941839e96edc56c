"""What `restore` gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from .info import StepInfo

__all__ = ["Restored"]


@dataclass(frozen=True, slots=True)
class Restored:
    """A restored step. The state is this process's own memory, whatever becomes of the arena's slot it came from.

    Attributes:
        step: the training step.
        state: what was saved, in value and type; with `into=`, the target.
        source: "arena" (this node's memory still had it) or "store".
        committed: False for a step that is only in memory so far, on all ranks (`source="staged"`).
        mapped: whether tensors are views of the arena's memory, for which no byte was copied. What is written to them
            is this process's own, and so is the rest once a thread in the background has copied it; until then they
            keep one of the arena's slots from new steps. Their storage can't be resized. False: they were copied (they
            are small, memory is short, or all went into the tensors of `into=`).
        info: what is known of the step; None unless it is committed.
    """

    step: int
    state: Any = field(repr=False)
    source: Literal["arena", "store"]
    committed: bool
    mapped: bool
    info: StepInfo | None = field(repr=False)
