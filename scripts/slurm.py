"""Debian's Slurm, unpacked into the cache as if under /: nothing is installed, no service is started.

    python3 scripts/slurm.py

Tests mount its `usr` over that of machines they make.
"""

from __future__ import annotations

from pathlib import Path

import unpacked

LIST = Path(__file__).resolve().parent / "slurm.txt"


def path_of() -> Path:
    """Where it is or will be."""
    return unpacked.path_of(LIST)


def tool() -> Path:
    """Fetches and unpacks it unless it is there; raises as `unpacked.unpack` does."""
    return unpacked.unpack(LIST)


if __name__ == "__main__":
    print(tool())
