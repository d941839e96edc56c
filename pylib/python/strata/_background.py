"""What failed in the background, told on the next call."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import FrameType

from .errors import StrataWarning

_HERE = str(Path(__file__).parent)


def warn(messages: list[str]) -> None:
    """One StrataWarning each, at the line outside of Strata that called us."""
    if not messages:
        return
    level, frame = 1, sys._getframe(1) if hasattr(sys, "_getframe") else None
    while frame is not None and _is_ours(frame):
        level, frame = level + 1, frame.f_back
    for message in messages:
        warnings.warn(message, StrataWarning, stacklevel=level + 1)


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_HERE)
