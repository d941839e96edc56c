"""Where a value lies in a state: as an error says it, and as a tensor is named."""

from __future__ import annotations

from typing import Any

Path = tuple[Any, ...]


def shown(path: Path) -> str:
    """`state['sched']['fn']`, as it would be typed."""
    return "state" + "".join(f"[{key!r}]" for key in path)


def name(path: Path) -> str:
    """`model.layers.0.weight`: what globs match and tensors are called in the store. Surrogates are escaped."""
    text = ".".join([str(key) for key in path]) or "state"
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")
