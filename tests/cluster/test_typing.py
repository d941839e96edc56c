"""The compiled module is what `_core.pyi` says, name by name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_stub_says_what_the_compiled_module_has(site: Path, tmp_path: Path) -> None:
    # Elsewhere mypy would find the sources of the checkout, which have no compiled module.
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "strata._core"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site), "MYPYPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
