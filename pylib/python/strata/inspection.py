"""`strata.inspect`: what a step holds, read from the store alone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from . import _core
from .info import EncodingInfo, Piece, Run, StepInfo, TensorInfo

__all__ = ["Inspection", "inspect"]


@dataclass(frozen=True, slots=True)
class Inspection:
    """One stored step and its tensors.

    Attributes:
        before: the step that `changed` is counted from: the one before, if there is one that can be read.
        encodings: how its bytes are stored.
    """

    info: StepInfo
    tensors: tuple[TensorInfo, ...]
    before: int | None
    encodings: tuple[EncodingInfo, ...]


def inspect(url: str | os.PathLike[str], step: int | None = None) -> Inspection:
    """Tensors, sizes and dtypes of a committed step, what changed since the one before, and where each byte lies.

    Needs no sidecar or coordinator, and reads no tensor.

    Args:
        url: the job's place in a store, `<store>/<job>`: a directory, or such as s3://bucket/prefix/job.
        step: None: the newest that holds the whole state.

    Raises:
        NotFoundError: there is no such step.
        CorruptCheckpointError: its COMMIT or a manifest is damaged, naming it.
    """
    found = _core.inspect(os.fspath(url), step)
    encodings = tuple(EncodingInfo(*fields) for fields in found["encodings"])
    tensors = tuple(tensor_info(fields) for fields in found["tensors"])
    return Inspection(StepInfo.from_fields(found["info"]), tensors, found["before"], encodings)


def tensor_info(fields: tuple[Any, ...]) -> TensorInfo:
    rank, name, dtype, shape, size, replicated, changed, pieces = fields
    return TensorInfo(rank, name, dtype, tuple(shape), size, replicated, changed, tuple(map(_piece, pieces)))


def _piece(fields: tuple[Any, ...]) -> Piece:
    at, size, encoding, stored, base = fields
    return Piece(at, size, encoding, None if stored is None else Run(*stored), None if base is None else Run(*base))
