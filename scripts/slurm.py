"""Debian's Slurm, unpacked into the cache as if under /: nothing is installed, no service is started.

    python3 scripts/slurm.py

Tests mount its `usr` over that of machines they make. Keyed by the list of packages: what was unpacked once is used
as it is.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from debian import wanted
from distribution.sources import Apt
from environment import alone, cache_folder

LIST = Path(__file__).resolve().parent / "slurm.txt"


def path_of() -> Path:
    """Where it is or will be."""
    key = hashlib.sha256("\n".join(wanted(LIST)).encode()).hexdigest()[:16]
    return cache_folder() / "tools" / f"slurm-{key}"


def tool() -> Path:
    """Fetches and unpacks it unless it is there. Atomic: its folder appears under its name when it is whole.

    Raises:
        FileNotFoundError: this is no Debian.
        CalledProcessError: a package could not be had; apt's words are its stderr.
    """
    folder = path_of()
    if not folder.exists():
        with alone(folder):
            if not folder.exists():
                building = folder.with_name(folder.name + ".building")
                shutil.rmtree(building, ignore_errors=True)
                (building / "root").mkdir(parents=True)
                apt = Apt(building / "apt")
                apt.run("update")
                apt.run("download", *wanted(LIST))
                for package in sorted(apt.downloads.glob("*.deb")):
                    subprocess.run(["dpkg-deb", "--extract", package, building / "root"], check=True)
                shutil.rmtree(building / "apt")
                building.rename(folder)
    return folder


if __name__ == "__main__":
    print(tool())
