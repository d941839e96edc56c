"""A tree and its buffers back to the state, in value and type."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Protocol

from ..errors import CorruptCheckpointError, InvalidError
from . import path as paths
from . import raw, scalars, tree
from .encode import FACTORIES
from .path import Path
from .rules import glob


class Source(Protocol):
    """A restored step's verified bytes: `_core.Restore`, or anything like it."""

    @property
    def tree(self) -> bytes: ...
    def buffer_bytes(self) -> list[int]: ...
    def copy_out(self, copies: list[tuple[int, int, int]]) -> None:
        """Copies whole buffers: (number, address, bytes)."""

    def map(self, tensors: list[int]) -> Sequence[Any] | None:
        """Whole buffers where they lie, as this process's own writable memory that outlives the source; None: copy."""


def decode(source: Source, only: str | None = None) -> Any:
    """The stored state as new objects in host memory: views of the source's memory where it gives any.

    Raises:
        InvalidError: it holds values of a framework that is not installed here; `only` matches nothing.
        CorruptCheckpointError: the tree contradicts its buffers.
    """
    root = selected(source, only)
    memory = Memory(source)
    for _, tag, node in tree.views(root):
        memory.want(tag, node)
    memory.fill()
    return Builder(memory).value(root, ())


def selected(source: Source, only: str | None) -> Any:
    root = tree.parse(source.tree)
    if only is None:
        return root
    left = tree.prune(root, glob(only))
    if left is tree.GONE:
        names = [paths.name(path) for path, _, _ in tree.views(root)]
        known = f"it holds {', '.join(names[:3])}{' …' if len(names) > 3 else ''}" if names else "it holds no tensor"
        raise InvalidError(f"restoring only {only!r}: nothing in the step has such a name; hint: {known}")
    return left


class Memory:
    """Host memory for the buffers that are wanted: the source's, or what a buffer's framework allocates."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.sizes = source.buffer_bytes()
        self.wanted: dict[int, list[tuple[str, dict[str, Any]]]] = {}
        self.given: dict[int, Any] = {}  # buffer -> (module, target) that takes the bytes directly
        self.held: dict[int, Any] = {}

    def want(self, tag: str, node: dict[str, Any]) -> None:
        number = node["buffer"]
        if not 0 <= number < len(self.sizes):
            raise CorruptCheckpointError(f"reading a stored state: its tree names buffer {number} of {len(self.sizes)}")
        self.wanted.setdefault(number, []).append((tag, node))

    def is_whole(self, number: int) -> bool:
        """Whether the buffer is one contiguous tensor and nothing else: also none that `only` has left out."""
        users = self.wanted[number]
        tag, node = users[0]
        if tag == "bytes.long" or len(users) > 1 or node.keys() & {"stride", "offset"}:
            return False
        needed, size = module_of(tag).dense_bytes(node), self.sizes[number]
        if needed > size:
            raise CorruptCheckpointError(
                f"reading a stored state: buffer {number} has {size} bytes, its tree says {needed}"
            )
        return bool(needed == size)

    def give(self, number: int, target: Any) -> None:
        """Lets a whole buffer's bytes go straight into `target`."""
        self.given[number] = target

    def fill(self) -> None:
        copies = []
        mapped = self.mapped()
        for number, users in self.wanted.items():
            tag, node = users[0]
            module, size = module_of(tag), self.sizes[number]
            if number in mapped:
                memory = module.adopt(mapped[number])
                self.held[number] = module.build(node, memory) if self.is_whole(number) else memory
                continue
            if number in self.given:
                memory = self.given[number]
            elif self.is_whole(number):
                memory = module.allocate_for(node)
            else:
                memory = module.allocate(size)
            self.held[number] = memory
            if getattr(memory, "nbytes", size) != size:
                raise CorruptCheckpointError(
                    f"reading a stored state: buffer {number} has {size} bytes, its tree says {memory.nbytes}"
                )
            if size:
                copies.append((number, module.address(memory), size))
        self.source.copy_out(copies)

    def mapped(self) -> dict[int, Any]:
        """Those of the buffers that need no copy. An empty one has no memory to look at."""
        numbers = [number for number in self.wanted if number not in self.given and self.sizes[number]]
        found = self.source.map(numbers)
        return {} if found is None else dict(zip(numbers, found, strict=True))

    def view(self, tag: str, node: dict[str, Any]) -> Any:
        number = node["buffer"]
        module = module_of(tag)
        if self.is_whole(number):
            return self.held[number]
        return module.build(node, self.held[number])


class Builder:
    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    def value(self, node: Any, path: Path) -> Any:
        tag = tree.tag_of(node)
        if tag == "":
            return node
        if tag == "list":
            return [self.value(child, (*path, number)) for number, child in enumerate(node)]
        body = node[tag]
        if tag == "tuple":
            return tuple(self.value(child, (*path, number)) for number, child in enumerate(body))
        if tag in tree.MAPPINGS:
            return self.mapping(tag, node, path)
        if tag in tree.VIEWS:
            built = self.memory.view(tag, body)
            return built if tag == "bytes.long" else module_of(tag).finish(body, built)
        if tag.startswith("torch."):
            return module_of("torch").decode_small(tag, body)
        if tag == "numpy.scalar":
            return module_of("numpy").decode_scalar(body)
        if tag == "numpy.dtype":
            return module_of("numpy").decode_dtype(body)
        return scalars.decode_scalar(tag, body)

    def mapping(self, tag: str, node: Any, path: Path) -> Any:
        entries = {key: self.value(child, (*path, key)) for key, child in tree.pairs(node[tag])}
        if tag == "dict":
            return entries
        if tag == "counter":
            return Counter(entries)
        if tag == "default_dict":
            factory = node["factory"]
            return defaultdict(None if factory is None else FACTORIES[factory], entries)
        ordered = OrderedDict(entries)
        for key, child in tree.pairs(node.get("attributes", {})):
            setattr(ordered, key, self.value(child, (*path, "__dict__", key)))
        return ordered


def module_of(tag: str) -> ModuleType:
    """Our module for the framework of a view. Here a framework may be imported: the state needs it."""
    if tag == "bytes.long":
        return raw
    try:
        if tag == "torch":
            from . import torch_leaf

            return torch_leaf
        from . import numpy_leaf

        return numpy_leaf
    except ImportError as error:
        raise InvalidError(
            f"restoring a state that holds {tag} values: {tag} can't be imported ({error}); hint: install {tag} here, "
            "or restore a part without them (only=…)"
        ) from None
