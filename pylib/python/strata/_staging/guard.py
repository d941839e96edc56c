"""Which buffers may be copied late, and the proof that nobody wrote to them before they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import fences

if TYPE_CHECKING:
    from .. import _core
    from .._state.buffers import Buffer

WORTH_DEFERRING = 256 << 10
"""Bytes. Below, copying a buffer costs no more than proving that it stayed (some µs)."""


def deferrable(buffers: Sequence[Buffer], forced: bool) -> list[int]:
    """Numbers of the buffers that may be copied after `save` has returned.

    With `forced`, where no optimizer is fenced, every tensor may: the caller has promised to wait before a write.
    """
    if forced and not fences.any_fenced():
        return [number for number, buffer in enumerate(buffers) if _is_large_tensor(buffer)]
    if not fences.any_fenced():
        return []
    owned = fences.owned_storages()
    return [
        number
        for number, buffer in enumerate(buffers)
        if _is_large_tensor(buffer) and all(view.owner[1] in owned for view in buffer.views)
    ]


def _is_large_tensor(buffer: Buffer) -> bool:
    """And one whose own memory is read, not a copy of it, and whose writes torch counts."""
    return (
        buffer.in_place
        and buffer.nbytes >= WORTH_DEFERRING
        and all(view.owner[0] == "torch" and not view.source.is_inference() for view in buffer.views)
    )


class Versions:
    """Remembers how tensors are now, and finds later which was written to: every write that torch counts."""

    def __init__(self, buffers: Sequence[Buffer], which: Sequence[int]) -> None:
        self._seen: list[tuple[str, Any, int, int]] = [
            (view.name, view.source, view.source._version, view.source.data_ptr())
            for number in which
            for view in buffers[number].views
        ]

    def written(self) -> str | None:
        """The name of a tensor that was written to."""
        for name, tensor, version, address in self._seen:
            if tensor._version != version or tensor.data_ptr() != address:
                return name
        return None


class Guard:
    """The same of tensors in the host's memory, and more: samples of their bytes (one cache line in 256 KiB) find what
    torch does not count, a write through `.data` or NumPy, if it changed a sampled place."""

    def __init__(self, staging: _core.Staging, buffers: Sequence[Buffer], which: list[int]) -> None:
        self._staging = staging
        self._names = {number: buffers[number].name for number in which}
        self._versions = Versions(buffers, which)
        staging.sample(which)

    def written(self) -> str | None:
        """The name of a tensor that was written to, once all are copied."""
        if (written := self._versions.written()) is not None:
            return written
        changed = self._staging.first_changed()
        return None if changed is None else self._names[changed]
