"""What scripts/torture.py reads of the tests that it runs."""

from __future__ import annotations

import os


def tell(line: str) -> None:
    """Into the file that the script names: pytest keeps what tests print to itself."""
    if path := os.environ.get("STRATA_TORTURE_PROGRESS"):
        with open(path, "a") as file:
            file.write(f"{line}\n")
