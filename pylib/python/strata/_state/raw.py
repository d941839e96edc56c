"""Long `bytes` objects, stored beside the tensors."""

from __future__ import annotations

import ctypes
from typing import Any

from .buffers import View


def view(value: bytes, name: str, replicated: bool) -> View:
    address = ctypes.cast(ctypes.c_char_p(value), ctypes.c_void_p).value or 0
    return View(
        name=name,
        node={"length": len(value)},
        dtype="uint8",
        shape=(len(value),),
        stride=(1,),
        itemsize=1,
        address=address,
        owner=("bytes", id(value)),
        origin=None,
        replicated=replicated,
        densify=lambda: (address, value),
        extent=lambda low, nbytes: (low, value),
    )


def allocate(nbytes: int) -> Any:
    return (ctypes.c_char * nbytes)()


def address(memory: Any) -> int:
    return ctypes.addressof(memory)


def build(node: dict[str, Any], memory: Any) -> bytes:
    start = node.get("offset", 0)
    return bytes(memoryview(memory)[start : start + node["length"]])
