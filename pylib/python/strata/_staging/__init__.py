"""How a state is taken over into shared memory: at once, behind the next forward and backward, or by a forked child.

`job` calls `take_over`; `strata.torch` and everything that is about to write to tensors calls `fences.wait`. Here is
decided which bytes are copied when, and what proves that nobody wrote to them meanwhile; the copying is the core's.
"""

from __future__ import annotations

from . import fences, forking
from .device import Registered
from .taking import MODES, Mode, Taking, take_over

__all__ = ["MODES", "Mode", "Registered", "Taking", "fences", "forking", "take_over"]
