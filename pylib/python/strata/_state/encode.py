"""A nested state to its plan: the JSON tree and the buffers it refers to. Copies nothing."""

from __future__ import annotations

import gc
import json
import sys
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ..errors import InvalidError
from . import path as paths
from . import scalars
from .again import Again, Changed, Known
from .buffers import Buffer, View, pack
from .path import Path
from .rules import Glob

# bytes longer than this lie beside the tensors: as text in the tree they cost 4/3, and are never compared by chunk
_LARGEST_INLINE_BYTES = 256
_DEEPEST = 200  # levels of nesting; Python's own recursion limit would cut a deeper state off without a path

FACTORIES: dict[str, Any] = {f.__name__: f for f in (bool, bytes, dict, float, int, list, str, tuple)}

_HINTS = {
    "function": "store what it is made from (a name, a number) and rebuild it after restore",
    "set": "store sorted(it), and make a set of it after restore",
    "frozenset": "store sorted(it), and make a set of it after restore",
    "bytearray": "store bytes(it)",
    "Generator": "store it.get_state() (torch) or it.bit_generator.state (NumPy)",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a save writes: `tree` is UTF-8 JSON that refers to `buffers` by number."""

    tree: bytes
    buffers: list[Buffer]


def encode(state: Any, replicated: Glob) -> Plan:
    """Raises InvalidError naming the path of the first value that can't be stored."""
    return plan(state, replicated, None)[0]


def plan(state: Any, replicated: Glob, known: Known | None) -> tuple[Plan, Known]:
    """As `encode`; quicker where `known`, from a state before this one, still holds. What holds for the next."""
    with _no_collection():
        if known is not None:
            again = Again(known)
            try:
                root = _Walk(replicated, again).node(state, ())
                return _plan(root, again.buffers()), known
            except Changed:
                pass
        walk = _Walk(replicated, None)
        root = walk.node(state, ())
        buffers = pack(walk.views)
        return _plan(root, buffers), Known.of(walk.views, buffers)


def _plan(root: Any, buffers: list[Buffer]) -> Plan:
    text = json.dumps({"format": 1, "state": root}, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Plan(text.encode("utf-8"), buffers)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Thousands of new objects would set the garbage collector off, which looks at all that torch holds: measured, 15
    of the 23 ms that a state of 433 tensors took."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class _Walk:
    def __init__(self, replicated: Glob, again: Again | None) -> None:
        self.views: list[View] = []
        self.replicated = replicated
        self.again = again
        self.open: set[int] = set()  # containers we are inside of
        self.torch = _leaf_module("torch")
        self.numpy = _leaf_module("numpy")

    def node(self, value: Any, path: Path) -> Any:
        kind = type(value)
        if kind in scalars.PLAIN:
            return scalars.encode_scalar(value)
        if kind in _CONTAINERS:
            if id(value) in self.open:
                raise InvalidError(f"{paths.shown(path)}: it contains itself; hint: break the cycle before saving")
            if len(path) > _DEEPEST:
                raise InvalidError(f"{paths.shown(path[:3])}…: nested more than {_DEEPEST} deep; hint: flatten it")
            self.open.add(id(value))
            node = _CONTAINERS[kind](self, value, path)
            self.open.discard(id(value))
            return node
        if kind is bytes:
            return self.bytes(value, path)
        return self.leaf(value, path)

    def bytes(self, value: bytes, path: Path) -> Any:
        if len(value) <= _LARGEST_INLINE_BYTES:
            return scalars.encode_bytes(value)
        from . import raw

        return self.add(raw, value, path)

    def leaf(self, value: Any, path: Path) -> Any:
        if self.torch is not None:
            torch = sys.modules["torch"]
            if isinstance(value, torch.Tensor):
                return self.add(self.torch, value, path)
            if (small := self.torch.encode_small(value)) is not None:
                return small
        if self.numpy is not None:
            np = sys.modules["numpy"]
            if type(value) is np.ndarray:
                return self.add(self.numpy, value, path)
            if isinstance(value, np.generic):
                return self.numpy.encode_scalar(value, path)
            if isinstance(value, np.dtype):
                return {"numpy.dtype": self.numpy.encode_dtype(value, path)}
        raise _refusal(value, path)

    def add(self, leaf: ModuleType, value: Any, path: Path) -> Any:
        name = paths.name(path)
        if self.again is not None and (view := self.again.same(leaf, value, name)) is not None:
            return {leaf.TAG: view.node}
        view = leaf.view(value, path, name, self.replicated(name))
        if self.again is not None:
            view = self.again.moved(view)
        else:
            self.views.append(view)
        return {leaf.TAG: view.node}

    def items(self, value: dict[Any, Any], path: Path) -> Any:
        """An object where all keys are plain text, else a list of pairs."""
        if all(type(key) is str and scalars.is_json_text(key) for key in value):
            return {key: self.node(child, (*path, key)) for key, child in value.items()}
        return [[_key(key, path), self.node(child, (*path, key))] for key, child in value.items()]

    def dict(self, value: dict[Any, Any], path: Path) -> Any:
        return {"dict": self.items(value, path)}

    def ordered(self, value: OrderedDict[Any, Any], path: Path) -> Any:
        """With its attributes: a module's state_dict carries `_metadata` there, which load_state_dict reads."""
        node = {"ordered_dict": self.items(value, path)}
        if attributes := vars(value):
            node["attributes"] = self.items(attributes, (*path, "__dict__"))
        return node

    def counter(self, value: Counter[Any], path: Path) -> Any:
        return {"counter": self.items(value, path)}

    def default(self, value: defaultdict[Any, Any], path: Path) -> Any:
        factory = value.default_factory
        name = None if factory is None else getattr(factory, "__name__", "")
        if name is not None and FACTORIES.get(name) is not factory:
            raise InvalidError(
                f"{paths.shown(path)}: a defaultdict with the factory {name or factory!r} can't be stored; "
                f"hint: store dict(it), or use one of {', '.join(sorted(FACTORIES))} as the factory"
            )
        return {"default_dict": self.items(value, path), "factory": name}

    def list(self, value: list[Any], path: Path) -> Any:
        return [self.node(child, (*path, number)) for number, child in enumerate(value)]

    def tuple(self, value: tuple[Any, ...], path: Path) -> Any:
        return {"tuple": [self.node(child, (*path, number)) for number, child in enumerate(value)]}


_CONTAINERS: dict[type, Any] = {
    dict: _Walk.dict,
    OrderedDict: _Walk.ordered,
    Counter: _Walk.counter,
    defaultdict: _Walk.default,
    list: _Walk.list,
    tuple: _Walk.tuple,
}


def _key(key: Any, path: Path) -> Any:
    if type(key) in (str, int, bool):
        return scalars.encode_scalar(key)
    if type(key) is tuple:
        return {"tuple": [_key(part, path) for part in key]}
    raise InvalidError(
        f"{paths.shown(path)}: a key of type {type(key).__name__} ({key!r:.60}) can't be stored; "
        "hint: use str, int, bool or tuples of them as keys"
    )


def _refusal(value: Any, path: Path) -> InvalidError:
    kind = type(value).__name__
    what = f"a value of type {kind}" if kind not in ("function", "set", "frozenset") else f"a {kind}"
    base = next((base.__name__ for base in (dict, list, tuple, str, int, float) if isinstance(value, base)), None)
    hint = _HINTS.get(kind, f"store {base}(it)" if base else "store plain values, arrays and tensors only")
    return InvalidError(f"{paths.shown(path)}: {what} can't be stored; hint: {hint}")


def _leaf_module(framework: str) -> ModuleType | None:
    """Our module for a framework, if the caller has imported that: nothing of it can be in a state otherwise."""
    if framework not in sys.modules:
        return None
    if framework == "torch":
        from . import torch_leaf

        return torch_leaf
    from . import numpy_leaf

    return numpy_leaf
