"""What is known of a committed step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

__all__ = ["CommitInfo", "EncodingInfo", "Piece", "Run", "StepInfo", "TensorInfo"]


@dataclass(frozen=True, slots=True)
class StepInfo:
    """One committed step.

    Attributes:
        step: the training step.
        generation: the life of the job's membership that saved it.
        kind: "FULL", "INCREMENTAL", "MODEL_ONLY" or "OPTIMIZER_ONLY".
        world_size: ranks that saved it.
        bytes: size of the state over all ranks.
        stored_bytes: what was newly written for it.
        committed_at: when it became durable, in UTC.
        pinned: kept from every retention policy.
        base_steps: steps whose stored chunks it refers to.
        metrics, meta: what the caller gave to `save`.
    """

    step: int
    generation: int
    kind: str
    world_size: int
    bytes: int
    stored_bytes: int
    committed_at: datetime
    pinned: bool
    base_steps: tuple[int, ...]
    metrics: Any
    meta: Any

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> StepInfo:
        """From the fields that the core and the coordinator's hook line use."""
        return cls(
            step=fields["step"],
            generation=fields["generation"],
            kind=fields["kind"],
            world_size=fields["world_size"],
            bytes=fields["bytes"],
            stored_bytes=fields["stored_bytes"],
            committed_at=datetime.fromtimestamp(fields["committed_unix_ms"] / 1000, UTC),
            pinned=fields["pinned"],
            base_steps=tuple(fields["base_steps"]),
            metrics=fields["metrics"],
            meta=fields["meta"],
        )


CommitInfo = StepInfo
"""What `wait_committed` returns: the step, durable over all ranks."""


@dataclass(frozen=True, slots=True)
class Run:
    """Bytes of an object below the job's place in the store."""

    object: str
    offset: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Where a part of a tensor lies.

    Attributes:
        at: from the tensor's first byte.
        bytes: of the tensor.
        encoding: "raw", "planes", "delta" or "rounded".
        stored: "raw": the very bytes; else the chunk that they are decoded from. None for "rounded": nothing is stored.
        base: what a delta is to.
    """

    at: int
    bytes: int
    encoding: str
    stored: Run | None
    base: Run | None


@dataclass(frozen=True, slots=True)
class EncodingInfo:
    """What one way of storing holds, over all ranks; each stored run counts once.

    Attributes:
        name: as a piece's encoding.
        state_bytes: of the state.
        stored_bytes: what is stored of it.
        older_bytes: of them, in objects of older steps.
    """

    name: str
    state_bytes: int
    stored_bytes: int
    older_bytes: int


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One stored tensor of one rank; a replicated one is listed once, under the lowest rank that names it.

    Attributes:
        changed: bytes in chunks that the step before did not hold (small tensors share chunks, and change together);
            None where there is no step before that can be read.
        pieces: where all its bytes lie, in order.
    """

    rank: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    replicated: bool
    changed: int | None
    pieces: tuple[Piece, ...]
