"""States that can be told apart: a pure function of (seed, step, rank), and a digest that sees every bit."""

from __future__ import annotations

import hashlib
import sys
from typing import Any

import numpy as np

State = dict[str, Any]


def make_state(seed: int, step: int, rank: int, megabytes: float = 1.0, *, replicated: bool = False) -> State:
    """About `megabytes` of arrays of several types, and some Python values. With `replicated` the arrays are equal
    on all ranks. The floats are any bits, NaNs among them: nothing makes them smaller."""
    source = np.random.default_rng([seed, step, 0 if replicated else rank + 1])
    count = int(megabytes * 1e6 / 8)

    def floats() -> Any:
        return source.integers(0, 2**32, size=count // 2 * 2, dtype=np.uint32).view(np.float32)

    return {
        "model": {
            "weight": floats(),
            "small": [source.integers(0, 255, size=7 + i, dtype=np.uint8) for i in range(5)],
        },
        "optimizer": {"moment": floats().reshape(2, -1), "step": step},
        "rank": rank,
        "note": ("tuple", None, float("inf"), 2**80),
    }


def frozen_state(step: int, megabytes: float) -> State:
    """Nine tenths the same at every step, one tenth (the head) of this step."""
    return {
        "model": {
            "frozen": make_state(0, 0, 0, 0.9 * megabytes)["model"],
            "head": make_state(0, step, 0, 0.1 * megabytes)["model"],
        }
    }


def is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def digest(value: Any) -> str:
    """SHA-256 over types, shapes and bytes of a nested state; a tensor is as good as the array of its bytes."""
    summary = hashlib.sha256()

    def visit(part: Any) -> None:
        if is_tensor(part):
            part = part.detach().numpy()
        if isinstance(part, np.ndarray):
            summary.update(f"array {part.dtype.str} {part.shape}".encode())
            summary.update(np.ascontiguousarray(part).tobytes())
        elif isinstance(part, dict):
            summary.update(f"dict {len(part)}".encode())
            for key, child in part.items():
                summary.update(repr(key).encode())
                visit(child)
        elif isinstance(part, (list, tuple)):
            summary.update(f"{type(part).__name__} {len(part)}".encode())
            for child in part:
                visit(child)
        else:
            summary.update(f"{type(part).__name__} {part!r}".encode())

    visit(value)
    return summary.hexdigest()
