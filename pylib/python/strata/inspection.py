"""`strata.inspect`: what a step holds, read from the store alone."""

from __future__ import annotations

import os
from dataclasses import dataclass

from . import _core
from .info import StepInfo, TensorInfo

__all__ = ["Inspection", "inspect"]


@dataclass(frozen=True, slots=True)
class Inspection:
    """One stored step and its tensors."""

    info: StepInfo
    tensors: tuple[TensorInfo, ...]


def inspect(url: str | os.PathLike[str], step: int | None = None) -> Inspection:
    """Tensors, sizes and dtypes of a committed step, without a sidecar or coordinator. Reads no tensor.

    Args:
        url: the job's place in a store, `<store>/<job>`: a directory, or such as s3://bucket/prefix/job.
        step: None: the newest that holds the whole state.

    Raises:
        NotFoundError: there is no such step.
        CorruptCheckpointError: its COMMIT or a manifest is damaged, naming it.
    """
    found = _core.inspect(os.fspath(url), step)
    tensors = tuple(
        TensorInfo(rank, name, dtype, tuple(shape), size, replicated)
        for rank, name, dtype, shape, size, replicated in found["tensors"]
    )
    return Inspection(StepInfo.from_fields(found["info"]), tensors)
