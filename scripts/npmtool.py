"""Installs a server that the tests start from the npm registry, into the cache; prints the path of its script for node.

    python3 scripts/npmtool.py azurite

Keyed by version: what was installed once is used as it is.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from environment import alone, cache_folder

# The Azure Blob server of the tests. Later ones than 3.35 want a newer Node than Debian 12 has.
TOOLS = {"azurite": ("azurite@3.35.0", "azurite-blob")}


def path_of(name: str) -> Path:
    """Where the tool's script is or will be."""
    package, script = TOOLS[name]
    return cache_folder() / "tools" / package / "node_modules" / ".bin" / script


def tool(name: str) -> Path:
    """Installs the tool unless it is there. Atomic: its folder appears under its name when it is whole.

    Raises:
        FileNotFoundError: there is no npm.
        CalledProcessError: the package could not be had; npm's output has been shown.
    """
    package, _ = TOOLS[name]
    folder = cache_folder() / "tools" / package
    if not folder.exists():
        with alone(folder):
            if not folder.exists():
                print(f"installing {package} into {folder}", file=sys.stderr)
                building = folder.with_name(folder.name + ".building")
                shutil.rmtree(building, ignore_errors=True)
                building.mkdir(parents=True)
                npm = ["npm", "install", "--no-audit", "--no-fund", "--no-save", "--loglevel=error", package]
                subprocess.run(npm, cwd=building, check=True, stdout=sys.stderr)
                building.rename(folder)
    return path_of(name)


if __name__ == "__main__":
    print(tool(sys.argv[1]))
