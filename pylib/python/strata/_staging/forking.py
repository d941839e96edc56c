"""Where a forked child can't copy the state."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import _core
from ..errors import InvalidError

if TYPE_CHECKING:
    from .._state.buffers import Buffer
    from .taking import Mode

_HINT = 'save with mode="copy", or "auto"'


def possible(mode: Mode, buffers: Sequence[Buffer], saving: str, doubts: list[str]) -> Mode:
    """`mode`, or "copy" for "fork" where memory is short; `doubts` then says so.

    Raises:
        InvalidError: a child would see other bytes, or not survive. Memory that only the kernel knows to be withheld
            from children is found while the child copies.
    """
    if mode != "fork":
        return mode
    _refuse(buffers, saving)
    shortage = _core.fork_shortage(sum(buffer.nbytes for buffer in buffers))
    if shortage is None:
        return mode
    doubts.append(f'{shortage}; taken over with mode="copy" instead of "fork"')
    return "copy"


def _refuse(buffers: Sequence[Buffer], saving: str) -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        raise InvalidError(
            f'{saving}: mode="fork" where CUDA is initialised, which no forked child survives', hint=_HINT
        )
    for buffer in buffers:
        if buffer.lies == "device":
            raise InvalidError(f'{saving}: mode="fork", and {buffer.name} lies on a device', hint=_HINT)
        for view in buffer.views:
            if view.owner[0] == "torch" and view.lies == "host" and view.source.is_shared():
                raise InvalidError(
                    f'{saving}: mode="fork", and {view.name} lies in memory that is shared with other processes',
                    hint=_HINT,
                )
