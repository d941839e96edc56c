"""Which tensors are stored how, and which parts of a state a step holds."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

from ..errors import InvalidError

# One-dimensional unsigned arrays up to this length may be states of random generators, which differ by rank: they are
# stored per rank even where the caller declares everything replicated. torch's CPU generator has the longest, 5056.
GENERATOR_STATE_BYTES = 8192

Glob = Callable[[str], bool]


def glob(pattern: str) -> Glob:
    """`*`, `?` and `[...]` over a whole dotted name; `*` also crosses dots."""
    return lambda name: fnmatchcase(name, pattern)


def replicated_glob(replicated: bool | str) -> Glob:
    if isinstance(replicated, bool):
        return lambda name: replicated
    if isinstance(replicated, str):
        return glob(replicated)
    raise InvalidError(
        f"saving: replicated={replicated!r} is neither a bool nor a string; hint: use True, or a glob such as 'model.*'"
    )


def select(state: Any, key: str | None) -> Any:
    """The part of `state` that a kind stores: the whole, or one entry."""
    if key is None:
        return state
    if not isinstance(state, dict) or key not in state:
        raise InvalidError(f"saving only the {key}: state[{key!r}] is missing; hint: pass a dict with that entry")
    return {key: state[key]}
