"""Long `bytes` objects, stored beside the tensors."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

from .buffers import Held, View
from .path import Path

TAG = "bytes.long"
_LEAF = sys.modules[__name__]


def view(value: bytes, path: Path, name: str, replicated: bool) -> View:
    return View(
        leaf=_LEAF,
        source=value,
        name=name,
        node={"length": len(value)},
        dtype="uint8",
        shape=(len(value),),
        stride=(1,),
        itemsize=1,
        address=_address(value),
        owner=("bytes", id(value)),
        origin=None,
        replicated=replicated,
    )


def is_same(view: View, value: Any) -> bool:
    return len(value) == view.shape[0] and _address(value) == view.address and id(value) == view.owner[1]


def densify(value: bytes) -> Held:
    return _address(value), value


def extent(value: bytes, low: int, nbytes: int) -> Held:
    return low, value


def _address(value: bytes) -> int:
    return ctypes.cast(ctypes.c_char_p(value), ctypes.c_void_p).value or 0


def allocate(nbytes: int) -> Any:
    return (ctypes.c_char * nbytes)()


def address(memory: Any) -> int:
    return ctypes.addressof(memory)


def adopt(memory: Any) -> Any:
    """`memory` itself, as a buffer."""
    return memory


def build(node: dict[str, Any], memory: Any) -> bytes:
    start = node.get("offset", 0)
    return bytes(memoryview(memory)[start : start + node["length"]])
