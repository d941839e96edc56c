"""Builds a server that the tests start, with the Go toolchain, into the cache; prints the path of its executable.

    python3 scripts/gotool.py versitygw

Keyed by version and toolchain: what was built once is used as it is.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from environment import alone, cache_folder

# The S3 server of the tests. Conditional puts, ranges, multipart and checksums were tried with this version.
TOOLS = {"versitygw": "github.com/versity/versitygw/cmd/versitygw@v1.7.0"}


def path_of(name: str) -> Path:
    """Where the tool is or will be.

    Raises:
        FileNotFoundError: there is no Go toolchain.
    """
    toolchain = subprocess.run(["go", "version"], capture_output=True, text=True, check=True).stdout
    key = hashlib.sha256(f"{TOOLS[name]} {toolchain}".encode()).hexdigest()[:16]
    return cache_folder() / "tools" / f"{name}-{key}" / name


def tool(name: str) -> Path:
    """Builds the tool unless it is there. Atomic: it appears under its name when it is whole.

    Raises:
        CalledProcessError: the module could not be had or built; Go's output has been shown.
    """
    path = path_of(name)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with alone(path.parent):
            if not path.exists():
                print(f"building {TOOLS[name]} into {path.parent}", file=sys.stderr)
                building = path.parent / "building"
                env = {**os.environ, "GOBIN": str(building)}
                subprocess.run(["go", "install", TOOLS[name]], env=env, check=True, stdout=sys.stderr)
                (building / name).replace(path)
    return path


if __name__ == "__main__":
    print(tool(sys.argv[1]))
