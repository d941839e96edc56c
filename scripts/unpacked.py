"""Debian packages of a list, unpacked into the cache as if under /: nothing is installed, no service is started.

    python3 scripts/unpacked.py LIST_FILE

Prints a folder whose `root` holds them. Keyed by the list: what was unpacked once is used as it is.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from debian import wanted
from distribution.sources import Apt
from environment import alone, cache_folder


def path_of(packages: Path) -> Path:
    """Where they are or will be."""
    key = hashlib.sha256("\n".join(wanted(packages)).encode()).hexdigest()[:16]
    return cache_folder() / "tools" / f"{packages.stem}-{key}"


def unpack(packages: Path) -> Path:
    """Fetches and unpacks them unless they are there. Atomic: the folder appears under its name when it is whole.

    Raises:
        FileNotFoundError: this is no Debian.
        CalledProcessError: a package could not be had; apt's words are its stderr.
    """
    folder = path_of(packages)
    if not folder.exists():
        with alone(folder):
            if not folder.exists():
                building = folder.with_name(folder.name + ".building")
                shutil.rmtree(building, ignore_errors=True)
                (building / "root").mkdir(parents=True)
                apt = Apt(building / "apt")
                apt.run("update")
                apt.run("download", *wanted(packages))
                for package in sorted(apt.downloads.glob("*.deb")):
                    subprocess.run(["dpkg-deb", "--extract", package, building / "root"], check=True)
                shutil.rmtree(building / "apt")
                building.rename(folder)
    return folder


def main() -> int:
    try:
        print(unpack(Path(sys.argv[1])))
    except FileNotFoundError as error:
        raise SystemExit(f"unpacking {sys.argv[1]}: this is no Debian ({error})") from error
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"unpacking {sys.argv[1]}: {error}\n{error.stderr}") from error
    return 0


if __name__ == "__main__":
    sys.exit(main())
