"""What is still being copied, whoever must wait for it, and which tensors may be copied late.

A tensor may be copied after `save` has returned if the next write to it is known to come from a fenced optimizer: its
step waits first. Those are the optimizer's parameters and its own state (moments).
"""

from __future__ import annotations

import os
import threading
from typing import Any, Protocol
from weakref import WeakSet


class Pending(Protocol):
    def let_write(self) -> None:
        """Returns when its tensors may be written to, on the host or by what is queued on a device; counts the time."""

    def wait(self) -> None:
        """Returns when it is over; counts the time."""


_optimizers: WeakSet[Any] = WeakSet()
_pending: set[Pending] = set()
_lock = threading.Lock()


def add(optimizer: Any) -> bool:
    """Whether it is new."""
    if optimizer in _optimizers:
        return False
    _optimizers.add(optimizer)
    return True


def any_fenced() -> bool:
    return bool(_optimizers)


def owned_storages() -> set[int]:
    """Addresses of the storages that fenced optimizers alone write to."""
    import torch

    tensors = [
        tensor
        for optimizer in _optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
        for tensor in (parameter, *optimizer.state.get(parameter, {}).values())
    ]
    return {tensor.untyped_storage().data_ptr() for tensor in tensors if isinstance(tensor, torch.Tensor)}


def begin(pending: Pending) -> None:
    with _lock:
        _pending.add(pending)


def end(pending: Pending) -> None:
    with _lock:
        _pending.discard(pending)


def wait() -> None:
    """Returns when nothing that `save` took is still being copied, by whomever. Costs nothing else."""
    for pending in _all():
        pending.wait()


def wait_for_tensors() -> None:
    """Returns when all tensors may be written to."""
    for pending in _all():
        pending.let_write()


def _all() -> list[Pending]:
    if not _pending:
        return []
    with _lock:
        return list(_pending)


def _in_child() -> None:
    """The threads that copy are the parent's, and so are its saves."""
    global _lock
    _lock = threading.Lock()
    _pending.clear()


os.register_at_fork(after_in_child=_in_child)
