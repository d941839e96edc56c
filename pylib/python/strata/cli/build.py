"""What this build is: the executable, or the wheel in somebody's Python."""

from __future__ import annotations

import sys


def is_executable() -> bool:
    """Whether the interpreter, this package and the core are one file."""
    return "strata._embedded" in sys.builtin_module_names


def this_command() -> list[str]:
    """How to start this command line again."""
    return [sys.executable] if is_executable() else [sys.executable, "-m", "strata"]
