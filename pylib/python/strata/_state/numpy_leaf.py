"""NumPy arrays, scalars and dtypes. Imported only once the caller's state holds one, or a stored one does."""

from __future__ import annotations

import math
import sys
from importlib import import_module
from typing import Any

import numpy as np

from ..errors import CorruptCheckpointError, InvalidError
from . import path as paths
from .buffers import Held, View
from .path import Path
from .rules import GENERATOR_STATE_BYTES

TAG = "numpy"
_LEAF = sys.modules[__name__]
_HINT_OBJECT = "hint: store it as nested lists and dicts of plain values, or convert it to a numeric dtype"


def encode_dtype(dtype: np.dtype[Any], path: Path) -> Any:
    """A string such as "<f4", a list of fields, or the name of a type of the ml_dtypes package."""
    if dtype.hasobject:
        raise InvalidError(f"{paths.shown(path)}: an array of Python objects can't be stored; {_HINT_OBJECT}")
    if dtype.kind == "V" and dtype.names is None and dtype.type is not np.void:
        if dtype.type.__module__.partition(".")[0] != "ml_dtypes":
            raise InvalidError(f"{paths.shown(path)}: the dtype {dtype} can't be stored; {_HINT_OBJECT}")
        return {"ml_dtypes": dtype.name}
    if dtype.metadata is not None or _is_opaque(dtype):
        raise InvalidError(f"{paths.shown(path)}: the dtype {dtype} can't be stored; {_HINT_OBJECT}")
    return np.lib.format.dtype_to_descr(dtype)  # type: ignore[no-untyped-call]


def _is_opaque(dtype: np.dtype[Any]) -> bool:
    return dtype.isbuiltin == 2


def decode_dtype(node: Any) -> np.dtype[Any]:
    if isinstance(node, dict):
        try:
            ml_dtypes = import_module("ml_dtypes")
        except ImportError:
            raise InvalidError(
                f"restoring an array of {node['ml_dtypes']}: ml_dtypes is not installed; hint: pip install ml_dtypes"
            ) from None
        dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, node["ml_dtypes"]))
    else:
        dtype = np.lib.format.descr_to_dtype(_as_descr(node))  # type: ignore[no-untyped-call]
    return dtype


def _as_descr(node: Any) -> Any:
    """JSON has made lists of the tuples that NumPy wants."""
    if isinstance(node, str):
        return node
    if all(isinstance(field, list) for field in node):
        return [tuple(_as_field(part, number) for number, part in enumerate(field)) for field in node]
    base, shape = node
    return (_as_descr(base), tuple(shape))


def _as_field(part: Any, number: int) -> Any:
    if number == 0:
        return part if isinstance(part, str) else tuple(part)
    return _as_descr(part) if number == 1 else tuple(part)


def encode_scalar(value: np.generic, path: Path) -> Any:
    dtype = encode_dtype(value.dtype, path)
    return {"numpy.scalar": [dtype, np.asarray(value).tobytes().hex()]}


def decode_scalar(body: Any) -> Any:
    dtype, data = decode_dtype(body[0]), bytes.fromhex(body[1])
    if dtype.itemsize == 0:
        return np.zeros((), dtype)[()]
    if len(data) != dtype.itemsize:
        raise CorruptCheckpointError(f"reading a stored NumPy scalar: {len(data)} bytes for {dtype}")
    return np.frombuffer(bytearray(data), dtype)[0]


def view(array: np.ndarray[Any, Any], path: Path, name: str, replicated: bool) -> View:
    dtype = encode_dtype(array.dtype, path)
    node: dict[str, Any] = {"dtype": dtype, "shape": list(array.shape)}
    if not array.flags.writeable:
        node["readonly"] = True
    itemsize = array.dtype.itemsize
    uneven = itemsize == 0 or any(stride % itemsize for stride in array.strides)
    stride = array.strides if itemsize == 0 else tuple(stride // itemsize for stride in array.strides)
    root = _root(array)
    address = array.__array_interface__["data"][0]
    return View(
        leaf=_LEAF,
        source=array,
        name=name,
        node=node,
        dtype=array.dtype.name,
        shape=array.shape,
        stride=stride,
        itemsize=itemsize,
        address=address,
        owner=("numpy", id(root)),
        origin=None,
        replicated=replicated and not _is_generator_state(array),
        must_densify=uneven,  # a field of a structured array: its steps are no whole number of elements
    )


def is_same(view: View, array: Any) -> bool:
    """Arrays are few, and made anew for most saves: what is remembered of one is compared by `View.is_like`."""
    return False


def densify(array: np.ndarray[Any, Any]) -> Held:
    dense = np.ascontiguousarray(array)
    return dense.__array_interface__["data"][0], dense


def extent(array: np.ndarray[Any, Any], low: int, nbytes: int) -> Held:
    return low, array


def _root(array: np.ndarray[Any, Any]) -> Any:
    base: Any = array
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    return base


def _is_generator_state(array: np.ndarray[Any, Any]) -> bool:
    """Whether it may be the state of a bit generator (MT19937's key, Philox's counters): these differ by rank."""
    return array.ndim == 1 and array.dtype.kind == "u" and array.nbytes <= GENERATOR_STATE_BYTES


def dense_bytes(node: dict[str, Any]) -> int:
    """Of the array that `node` describes, without gaps."""
    return int(math.prod(node["shape"]) * decode_dtype(node["dtype"]).itemsize)


def address(array: np.ndarray[Any, Any]) -> int:
    return int(array.__array_interface__["data"][0])


def allocate(nbytes: int) -> np.ndarray[Any, Any]:
    """Memory for a buffer of several views, or of one with steps."""
    return np.empty(nbytes, np.uint8)


def allocate_for(node: dict[str, Any]) -> np.ndarray[Any, Any]:
    """An array that owns its memory, for a buffer that holds just this contiguous one."""
    return np.empty(node["shape"], decode_dtype(node["dtype"]))


def adopt(memory: Any) -> np.ndarray[Any, Any]:
    """`memory` itself, as a buffer, for as long as any view of it lives."""
    return np.frombuffer(memory, np.uint8)


def build(node: dict[str, Any], memory: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The view that `node` describes, over `memory` (uint8)."""
    dtype = decode_dtype(node["dtype"])
    stride = node.get("stride")
    strides = None if stride is None else [step * dtype.itemsize for step in stride]
    array: np.ndarray[Any, Any] = np.ndarray(node["shape"], dtype, memory, node.get("offset", 0), strides)
    return array


def finish(node: dict[str, Any], array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if node.get("readonly"):
        array.flags.writeable = False
    return array
