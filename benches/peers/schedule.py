"""When the loop of training.py saves."""

from __future__ import annotations

EVERY = 20
"""Steps from save to save."""
FIRST_SAVE = 5
"""Its step, counted from one."""
