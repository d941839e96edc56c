"""What `restore` gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from .info import StepInfo

__all__ = ["Restored"]


@dataclass(frozen=True, slots=True)
class Restored:
    """A restored step. The state is this process's own memory: nothing keeps the arena's slot.

    Attributes:
        step: the training step.
        state: what was saved, in value and type; with `into=`, the target.
        source: "arena" (this node's memory still had it) or "store".
        committed: False for a step that is only in memory so far, on all ranks (`source="staged"`).
        info: what is known of the step; None unless it is committed.
    """

    step: int
    state: Any = field(repr=False)
    source: Literal["arena", "store"]
    committed: bool
    info: StepInfo | None = field(repr=False)
