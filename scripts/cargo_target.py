"""cargo's target folder lies in the cache, one for all checkouts of this repository: this makes that safe.

    python3 scripts/cargo_target.py        before cargo is called for this checkout by hand or by make

cargo names a workspace's own crates by their path below its root, and takes a file for unchanged by its time. Two
checkouts that build in turn would be handed each other's code. So our crates are built anew when the checkout is not
the last one; the dependencies, which take the time, stay.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from environment import alone, cache_folder

ROOT = Path(__file__).resolve().parent.parent
OURS = "strata-*"


@contextmanager
def ours(target: Path) -> Iterator[None]:
    """Held while cargo builds in `target`: what is there of our crates is of this checkout, and stays so."""
    with alone(target):
        claim(target)
        yield


def claim(target: Path) -> None:
    stamp = target / "checkout"
    if stamp.exists() and stamp.read_text() == str(ROOT):
        return
    for depth in ("*", "*/*"):  # debug, and with a target triple x86_64-unknown-linux-gnu/debug
        for fingerprint in target.glob(f"{depth}/.fingerprint/{OURS}"):
            shutil.rmtree(fingerprint)
    target.mkdir(parents=True, exist_ok=True)
    stamp.write_text(str(ROOT))


if __name__ == "__main__":
    folder = Path(os.environ.get("CARGO_TARGET_DIR") or cache_folder() / "target")
    with ours(folder):
        pass
