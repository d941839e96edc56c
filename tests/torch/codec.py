"""What the tests of the state codec share: a stored plan, a comparison that sees every bit, a real training state."""

from __future__ import annotations

import ctypes
import random
import struct
from collections import OrderedDict, defaultdict
from typing import Any

import numpy as np
import torch
from strata._state import decode, encode
from strata._state.rules import replicated_glob


class Stored:
    """A plan with its bytes copied out of it, as a slot holds them."""

    def __init__(self, state: Any, replicated: bool | str = False) -> None:
        plan = encode(state, replicated_glob(replicated))
        self.tree = plan.tree
        self.buffers = plan.buffers
        self.data = [self._copy(buffer) for buffer in plan.buffers]

    @staticmethod
    def _copy(buffer: Any) -> bytes:
        address, owner = buffer.hold()
        data = ctypes.string_at(address, buffer.nbytes)
        del owner
        return data

    def buffer_bytes(self) -> list[int]:
        return [len(data) for data in self.data]

    def copy_out(self, copies: list[tuple[int, int, int]]) -> None:
        for number, address, nbytes in copies:
            assert nbytes == len(self.data[number])
            ctypes.memmove(address, self.data[number], nbytes)

    def map(self, tensors: list[int]) -> list[Any] | None:
        return None


class Mapped(Stored):
    """The same, read where it lies."""

    def map(self, tensors: list[int]) -> list[Any] | None:
        return [bytearray(self.data[number]) for number in tensors]


def round_trip(state: Any) -> Any:
    back = decode(Stored(state))
    assert_same(decode(Mapped(state)), back)
    return back


def assert_same(left: Any, right: Any) -> None:
    """Equal in type, value and every bit."""
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert list(left) == list(right)
        assert [type(key) for key in left] == [type(key) for key in right]
        for key in left:
            assert_same(left[key], right[key])
        if isinstance(left, (OrderedDict, defaultdict)):
            assert_same(getattr(left, "__dict__", {}), getattr(right, "__dict__", {}))
            assert getattr(left, "default_factory", None) is getattr(right, "default_factory", None)
    elif type(left) in (list, tuple):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    elif isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype and left.shape == right.shape
        assert left.requires_grad == right.requires_grad
        if left.numel():
            plain, back = left.detach().resolve_conj().contiguous(), right.detach().contiguous()
            assert torch.equal(plain.reshape(-1).view(torch.uint8), back.reshape(-1).view(torch.uint8))
    elif isinstance(left, np.ndarray):
        assert left.dtype == right.dtype and left.shape == right.shape
        assert left.tobytes() == right.tobytes()
    elif isinstance(left, np.longdouble):  # 16 bytes, of which 6 are padding
        assert left.tobytes()[:10] == right.tobytes()[:10]
    elif isinstance(left, np.generic):
        assert left.dtype == right.dtype and left.tobytes() == right.tobytes()
    elif isinstance(left, float):
        assert struct.pack("d", left) == struct.pack("d", right)
    elif isinstance(left, complex):
        assert struct.pack("dd", left.real, left.imag) == struct.pack("dd", right.real, right.imag)
    else:
        assert left == right


def trained() -> dict[str, Any]:
    """A real training state after some real steps."""
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.LayerNorm(16), torch.nn.Linear(16, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), amsgrad=True)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=2)
    steps = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 4])
    scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, [warmup, steps], [2])
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for _ in range(5):
        loss = model(torch.randn(4, 8)).square().mean()
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        plateau.step(float(loss.detach()))
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "plateau": plateau.state_dict(),
        "scaler": scaler.state_dict(),
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "generators": [
            np.random.Generator(generator(7)).bit_generator.state
            for generator in (np.random.PCG64, np.random.Philox, np.random.SFC64, np.random.MT19937)
        ],
        "torch": torch.get_rng_state(),
    }
