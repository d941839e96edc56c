"""`make demo`: builds the executable, finds a Python with torch, and runs examples/demo.py.

The torch of the interpreter that runs this (PYTHON=…) is used; when it has none, pip installs one into the cache.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from environment import cache_folder, complete, environment

SCRIPTS = Path(__file__).resolve().parent
ROOT = SCRIPTS.parent
TORCH = SCRIPTS / "torch.txt"


def main() -> int:
    own_torch = has_torch()
    announce(own_torch)
    subprocess.run([sys.executable, SCRIPTS / "build.py"], check=True)
    python = Path(sys.executable) if own_torch else environment(TORCH)
    command: list[str | Path] = [
        python,
        ROOT / "examples/demo.py",
        "--strata",
        ROOT / "dist/strata",
        "--python",
        python,
    ]
    return subprocess.run(command, check=False).returncode


def has_torch() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "numpy"))


def announce(own_torch: bool) -> None:
    if own_torch:
        torch = f"torch of {sys.executable}"
    elif complete(TORCH):
        torch = "torch is in the cache"
    else:
        torch = "torch comes from PyPI: 5.6 GB of disk, 5 minutes; `make demo PYTHON=…` uses one that is there"
    print(f"the demo trains a small model twice, about 3 minutes; {torch}; cache: {cache_folder()}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
