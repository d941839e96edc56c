"""Reading a stored tree: its tags, and what a glob leaves of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..errors import CorruptCheckpointError
from . import path as paths
from . import scalars
from .path import Path
from .rules import Glob

MAPPINGS = ("dict", "ordered_dict", "counter", "default_dict")
VIEWS = ("torch", "numpy", "bytes.long")
GONE = object()  # what `prune` leaves of a value that no name matched


def parse(tree: bytes) -> Any:
    try:
        document = json.loads(tree)
        version, root = document["format"], document["state"]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptCheckpointError(f"reading a stored state: its tree is damaged ({error})") from None
    if version != 1:
        raise CorruptCheckpointError(
            f"reading a stored state: its tree has format {version}; hint: it was written by a newer version"
        )
    return root


def tag_of(node: Any) -> str:
    """ "list" for arrays, "" for plain JSON values."""
    if isinstance(node, dict):
        return str(next(iter(node)))
    return "list" if isinstance(node, list) else ""


def pairs(items: Any) -> Iterator[tuple[Any, Any]]:
    """Key and child node of each entry of a mapping."""
    if isinstance(items, dict):
        yield from items.items()
    else:
        for key, child in items:
            yield decode_key(key), child


def decode_key(node: Any) -> Any:
    if isinstance(node, dict):
        tag, body = next(iter(node.items()))
        return tuple(map(decode_key, body)) if tag == "tuple" else scalars.decode_scalar(tag, body)
    return node


def views(node: Any, path: Path = ()) -> Iterator[tuple[Path, str, dict[str, Any]]]:
    """Every tensor, array and long run of bytes in the tree, in order."""
    tag = tag_of(node)
    if tag in VIEWS:
        yield path, tag, node[tag]
    elif tag in MAPPINGS:
        for key, child in pairs(node[tag]):
            yield from views(child, (*path, key))
        for key, child in pairs(node.get("attributes", {})):
            yield from views(child, (*path, "__dict__", key))
    elif tag in ("list", "tuple"):
        for number, child in enumerate(node if tag == "list" else node[tag]):
            yield from views(child, (*path, number))


def prune(node: Any, wanted: Glob, path: Path = ()) -> Any:
    """The tree with only the values whose dotted name matches. Entries of mappings go; items of lists and tuples
    become None, so that the others keep their places. GONE if nothing is left."""
    tag = tag_of(node)
    if tag in MAPPINGS:
        entries = node[tag].items() if isinstance(node[tag], dict) else node[tag]
        kept = [
            (key, left)
            for key, child in entries
            if (left := prune(child, wanted, (*path, key if isinstance(key, str) else decode_key(key)))) is not GONE
        ]
        if not kept:
            return GONE
        rest = {name: value for name, value in node.items() if name != tag}
        return {tag: dict(kept) if isinstance(node[tag], dict) else [list(entry) for entry in kept], **rest}
    if tag in ("list", "tuple"):
        children = node if tag == "list" else node[tag]
        left = [prune(child, wanted, (*path, number)) for number, child in enumerate(children)]
        if all(child is GONE for child in left):
            return GONE
        left = [None if child is GONE else child for child in left]
        return left if tag == "list" else {tag: left}
    return node if wanted(paths.name(path)) else GONE
