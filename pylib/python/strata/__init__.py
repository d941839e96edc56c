"""Strata keeps a training job's progress safe: checkpoints that survive the trainer, at the price of a memory copy."""

from __future__ import annotations

from strata._core import version as _version

__version__ = _version()
