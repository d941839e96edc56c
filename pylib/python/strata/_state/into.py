"""Restoring in place: the caller's tensors and containers take the stored values.

Everything is checked before anything is changed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from ..errors import InvalidError
from . import path as paths
from . import tree
from .decode import Builder, Memory, Source, module_of, selected
from .path import Path


def restore_into(source: Source, target: Any, only: str | None = None) -> Any:
    """Copies the stored state into `target` and returns it.

    Tensors and arrays keep their identity (and device); other values replace those in the dicts and lists of `target`.
    Entries that only the stored state has are added; with `only`, what does not match stays as it is.

    Raises:
        InvalidError: before anything is changed, where shape, dtype or structure differ; names the path.
    """
    root = selected(source, only)
    fill = _Fill(source, partial=only is not None)
    fill.check(root, target, ())
    fill.memory.fill()
    return fill.value(root, target, ())


class _Fill:
    def __init__(self, source: Source, partial: bool) -> None:
        self.memory = Memory(source)
        self.builder = Builder(self.memory)
        self.partial = partial

    # -- checking

    def check(self, node: Any, target: Any, path: Path) -> None:
        for _, tag, view in tree.views(node):
            self.memory.want(tag, view)
        self._check(node, target, path)

    def _check(self, node: Any, target: Any, path: Path) -> None:
        tag = tree.tag_of(node)
        if tag in ("torch", "numpy"):
            self._check_view(tag, node[tag], target, path)
        elif _is_tensor(target):
            raise InvalidError(
                f"{paths.shown(path)}: the step holds {_described(tag)} there, the target a tensor; "
                "hint: restore without into=, or select the part that fits with only="
            )
        elif tag in tree.MAPPINGS:
            self._check_mapping(tag, node, target, path)
        elif tag in ("list", "tuple"):
            children = node if tag == "list" else node[tag]
            fits = isinstance(target, list if tag == "list" else tuple) and len(target) == len(children)
            if not fits and any(True for _ in _tensors(target)):
                raise InvalidError(
                    f"{paths.shown(path)}: the step holds a {tag} of {len(children)}, the target "
                    f"{_size(target)}; hint: build the target as the saved state was built"
                )
            for number, child in enumerate(children if fits else []):
                self._check(child, target[number], (*path, number))

    def _check_mapping(self, tag: str, node: Any, target: Any, path: Path) -> None:
        if not isinstance(target, dict):
            if any(True for _ in _tensors(target)):
                raise InvalidError(
                    f"{paths.shown(path)}: the step holds a dict there, the target {_size(target)}; "
                    "hint: build the target as the saved state was built"
                )
            return
        stored = dict(tree.pairs(node[tag]))
        for key, child in stored.items():
            if key in target:
                self._check(child, target[key], (*path, key))
        missing = [key for key in target if key not in stored]
        if missing and not self.partial:
            raise InvalidError(
                f"{paths.shown((*path, missing[0]))}: the step holds no such entry ({len(missing)} missing); "
                "hint: restore a part with only=, or without into="
            )

    def _check_view(self, tag: str, view: dict[str, Any], target: Any, path: Path) -> None:
        module = module_of(tag)
        stored = f"{view['dtype']} {tuple(view['shape'])}"
        if not _is_tensor(target):
            if isinstance(target, (dict, list, tuple)) and any(True for _ in _tensors(target)):
                raise InvalidError(
                    f"{paths.shown(path)}: the step holds {stored}, the target {_size(target)}; hint: "
                    "build the target as the saved state was built"
                )
            return
        if _framework(target) != tag:
            raise InvalidError(
                f"{paths.shown(path)}: the step holds {stored} of {tag}, the target is one of {_framework(target)}; "
                f"hint: pass a {tag} target"
            )
        if list(target.shape) != view["shape"] or target.dtype != module.decode_dtype(view["dtype"]):
            found = f"{str(target.dtype).removeprefix('torch.')} {tuple(target.shape)}"
            raise InvalidError(
                f"{paths.shown(path)}: stored as {stored}, but the target is {found}; hint: build the target with the "
                "stored shape and dtype, or restore without into="
            )
        if tag == "numpy" and not target.flags.writeable:
            raise InvalidError(f"{paths.shown(path)}: the target array is read-only; hint: pass a writable one")
        if self.memory.is_whole(view["buffer"]) and _takes_bytes(tag, target):
            self.memory.give(view["buffer"], target)

    # -- filling

    def value(self, node: Any, target: Any, path: Path) -> Any:
        """What belongs at `path`: `target` itself wherever it can take the stored value."""
        tag = tree.tag_of(node)
        if tag in ("torch", "numpy") and _is_tensor(target):
            self._copy(tag, node[tag], target)
            return target
        if tag in tree.MAPPINGS and isinstance(target, dict):
            for key, child in tree.pairs(node[tag]):
                target[key] = self._child(child, target, key, key in target, path)
            return target
        if tag == "list" and isinstance(target, list) and len(target) == len(node):
            for number, child in enumerate(node):
                if not (self.partial and child is None):
                    target[number] = self._child(child, target, number, True, path)
            return target
        if tag == "tuple" and isinstance(target, tuple) and len(target) == len(node[tag]):
            return tuple(
                target[number] if self.partial and child is None else self._child(child, target, number, True, path)
                for number, child in enumerate(node[tag])
            )
        return self.builder.value(node, path)

    def _child(self, node: Any, target: Any, key: Any, present: bool, path: Path) -> Any:
        child = (*path, key)
        return self.value(node, target[key], child) if present else self.builder.value(node, child)

    def _copy(self, tag: str, view: dict[str, Any], target: Any) -> None:
        if self.memory.given.get(view["buffer"]) is target:
            return
        value = self.memory.view(tag, view)
        if tag == "torch":
            module_of("torch").copy_into(target, value)
        else:
            target[...] = value


def _framework(value: Any) -> str:
    return "numpy" if type(value).__module__.partition(".")[0] == "numpy" else "torch"


def _is_tensor(value: Any) -> bool:
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    return (torch is not None and isinstance(value, torch.Tensor)) or (
        numpy is not None and isinstance(value, numpy.ndarray)
    )


def _takes_bytes(tag: str, target: Any) -> bool:
    if tag == "numpy":
        return bool(target.flags.c_contiguous) and type(target).__name__ == "ndarray"
    return target.device.type == "cpu" and target.is_contiguous() and not (target.is_conj() or target.is_neg())


def _tensors(value: Any) -> Iterator[Any]:
    if _is_tensor(value):
        yield value
    elif isinstance(value, (list, tuple)):
        for child in value:
            yield from _tensors(child)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _described(tag: str) -> str:
    return {"": "a plain value", "list": "a list"}.get(tag, f"a {tag}")


def _size(value: Any) -> str:
    return f"a {type(value).__name__} of {len(value)}" if hasattr(value, "__len__") else f"a {type(value).__name__}"
