"""The state every saver saves: 1.08 GB of fp32, 32 tensors of 32 MiB and 300 small ones."""

from __future__ import annotations

import torch

LARGE, LARGE_ELEMENTS = 32, 32 * 2**20 // 4
SMALL, SMALL_ELEMENTS = 300, 2048


def make_state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    state = {f"large.{i}": torch.rand(LARGE_ELEMENTS, generator=generator) for i in range(LARGE)}
    return state | {f"small.{i}": torch.rand(SMALL_ELEMENTS, generator=generator) for i in range(SMALL)}


def change(state: dict[str, torch.Tensor]) -> None:
    """What a training step does to the bytes: all of them differ afterwards."""
    for tensor in state.values():
        tensor.add_(1.0)


def total_bytes(state: dict[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in state.values())
