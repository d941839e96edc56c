"""The state codec: a nested training state to a JSON tree and dense runs of bytes, and back, bit for bit.

`job` and `handles` may call it; the tree it writes is opaque to the core, which stores it beside the tensors.
It never pickles, never imports a framework that the caller has not imported, and never copies a byte of a state that
it will refuse: what can't be stored is Invalid, with its path, first.
"""

from __future__ import annotations

from .decode import Source, decode
from .encode import Plan, encode
from .into import restore_into
from .planner import Planner

__all__ = ["Plan", "Planner", "Source", "decode", "encode", "restore_into"]
