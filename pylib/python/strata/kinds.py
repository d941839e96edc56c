"""Which part of a state a step holds, and how it is stored."""

from __future__ import annotations

from typing import Final, Literal

__all__ = ["FULL", "INCREMENTAL", "MODEL_ONLY", "OPTIMIZER_ONLY", "Kind"]

Kind = Literal["FULL", "INCREMENTAL", "MODEL_ONLY", "OPTIMIZER_ONLY"]

FULL: Final = "FULL"
"""Everything; never needs another step's objects."""
INCREMENTAL: Final = "INCREMENTAL"
"""Everything; unchanged chunks refer to what an older step stored."""
MODEL_ONLY: Final = "MODEL_ONLY"
"""`state["model"]`; never the latest step, nor counted by keep-last."""
OPTIMIZER_ONLY: Final = "OPTIMIZER_ONLY"
"""`state["optimizer"]`; likewise."""

PARTS: Final[dict[str, str | None]] = {
    FULL: None,
    INCREMENTAL: None,
    MODEL_ONLY: "model",
    OPTIMIZER_ONLY: "optimizer",
}
