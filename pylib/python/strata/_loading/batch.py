"""What a loader hands over: samples as tensors, and where they come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_map

from .. import _core, data
from .._positions import Position
from . import faces


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a batch comes from, as its worker knows it."""

    face: str
    loop: tuple[int, int]
    restores: int
    at: Position
    after: Position
    damaged: tuple[_core._LeftOut, ...] = ()


class Batch:
    """This rank's part of one global step, out of a torch loader.

    The first look at any of its attributes tells the job that it was handed over: a save after that goes on behind it.

    Attributes:
        samples: tensor of shape (n, *shape of a sample); of parquet, jsonl and webdataset a `strata.data.Table` of n
            rows; what `transform` made of them, where the dataset has one. n differs by at most one between ranks, and
            may be 0 at the end of an epoch; where samples are left out it is less by as many.
        indices: int64 tensor of shape (n,): which samples these are.
        weight: how many of them are real; the others pad the epoch's last step (tail="pad").
        epoch: from 0.
        step: global step within the epoch, or since the batch size was last changed.
        left_out: how many samples of this part lie in damaged files and are therefore not in `samples`
            (on_damage="quarantine").
    """

    __slots__ = ("_indices", "_is_told", "_origin", "_samples", "_weight")

    def __init__(self, samples: Any, indices: torch.Tensor, weight: int, origin: Origin) -> None:
        self._samples = samples
        self._indices = indices
        self._weight = weight
        self._origin = origin
        self._is_told = False

    @property
    def samples(self) -> Any:
        self._tell()
        return self._samples

    @property
    def indices(self) -> torch.Tensor:
        self._tell()
        return self._indices

    @property
    def weight(self) -> int:
        self._tell()
        return self._weight

    @property
    def epoch(self) -> int:
        self._tell()
        return self._origin.at[1]

    @property
    def step(self) -> int:
        self._tell()
        return self._origin.at[2]

    @property
    def left_out(self) -> int:
        self._tell()
        return sum(samples for _, _, samples in self._origin.damaged)

    def __len__(self) -> int:
        self._tell()
        return len(self._indices)

    def to(self, device: Any, *, non_blocking: bool = False) -> Batch:
        """The same with its tensors on another device."""
        self._tell()
        return self._with(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """For `DataLoader(pin_memory=True)`, which is ahead of the caller: tells nothing."""
        return self._with(torch.Tensor.pin_memory)

    def _with(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        def changed(leaf: Any) -> Any:
            return change(leaf) if isinstance(leaf, torch.Tensor) else leaf

        batch = Batch(tree_map(changed, self._samples), change(self._indices), self._weight, self._origin)
        batch._is_told = self._is_told
        return batch

    def _tell(self) -> None:
        if not self._is_told:
            faces.handed_over(self._origin)
            self._is_told = True

    def __reduce__(self) -> tuple[Any, ...]:
        return Batch, (self._samples, self._indices, self._weight, self._origin)

    def __repr__(self) -> str:
        at = self._origin.at
        return f"<Batch of {len(self._indices)} samples, epoch {at[1]}, step {at[2]}>"


def made(
    taken: _core._Taken, items: tuple[str, list[int]], transform: Callable[[data.Batch], Any] | None, origin: Origin
) -> Batch:
    """What the core has taken, as tensors, or as what `transform` makes of it."""
    batch = data.made(taken, items)
    samples: Any = batch.samples
    if transform is not None:
        samples = transform(batch)
    elif not isinstance(samples, data.Table):
        samples = torch.from_numpy(samples)
    return Batch(samples, torch.from_numpy(batch.indices), batch.weight, origin)
