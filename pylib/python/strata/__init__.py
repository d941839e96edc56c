"""Strata keeps a training job's progress safe: checkpoints that survive the trainer, at the price of a memory copy.

    import strata

    with strata.connect() as job:
        restored = job.restore()
        ...
        job.save(step, state)

Names are imported when they are first used: `import strata` costs next to nothing and imports no framework.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if "t" in getattr(sys, "abiflags", ""):
    raise ImportError(
        "strata does not run on free-threaded Python: its compiled module uses the stable ABI, which that lacks; "
        "hint: use the ordinary build of this Python version"
    )

from strata._core import version as _version

from .errors import (
    ConflictError,
    CorruptCheckpointError,
    DeniedError,
    FencedError,
    InternalError,
    InvalidError,
    NotFoundError,
    OverloadedError,
    StrataError,
    StrataTimeoutError,
    StrataWarning,
    UnavailableError,
)
from .kinds import FULL, INCREMENTAL, MODEL_ONLY, OPTIMIZER_ONLY

if TYPE_CHECKING:
    from . import aio, data, torch
    from .connecting import connect
    from .goodput import Goodput
    from .handle import SaveHandle
    from .info import CommitInfo, StepInfo, TensorInfo
    from .inspection import Inspection, inspect
    from .job import Job
    from .restored import Restored

__all__ = [
    "FULL",
    "INCREMENTAL",
    "MODEL_ONLY",
    "OPTIMIZER_ONLY",
    "CommitInfo",
    "ConflictError",
    "CorruptCheckpointError",
    "DeniedError",
    "FencedError",
    "Goodput",
    "Inspection",
    "InternalError",
    "InvalidError",
    "Job",
    "NotFoundError",
    "OverloadedError",
    "Restored",
    "SaveHandle",
    "StepInfo",
    "StrataError",
    "StrataTimeoutError",
    "StrataWarning",
    "TensorInfo",
    "UnavailableError",
    "aio",
    "connect",
    "data",
    "inspect",
    "torch",
]

__version__ = _version()

_WHERE = {
    "CommitInfo": "info",
    "Goodput": "goodput",
    "Inspection": "inspection",
    "Job": "job",
    "Restored": "restored",
    "SaveHandle": "handle",
    "StepInfo": "info",
    "TensorInfo": "info",
    "connect": "connecting",
    "inspect": "inspection",
}


def __getattr__(name: str) -> Any:
    if name in ("aio", "data", "torch"):
        return importlib.import_module(f".{name}", __name__)
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f".{_WHERE[name]}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
