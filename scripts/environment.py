"""Makes a virtual environment outside the checkout, keyed by what it must hold; prints the path of its interpreter.

    python3 scripts/environment.py REQUIREMENTS_FILE [--no-deps]

With --no-deps it holds the packages of the file and nothing that they ask for. An environment that is there already
is used as it is; one that was being made when something broke is made anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """STRATA_CACHE, else `strata` under the user's cache folder."""
    if given := os.environ.get("STRATA_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "strata"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Held while `folder` is being made: a second make waits and then finds it complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(folder.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def pins(requirements: Path) -> set[str]:
    """The packages of the file and of those it includes with -r: what the environment is keyed by."""
    found: set[str] = set()
    for line in requirements.read_text().splitlines():
        if line.startswith("-r "):
            found |= pins(requirements.parent / line.removeprefix("-r ").strip())
        elif line and not line.startswith("#"):
            found.add(line)
    return found


def folder_of(requirements: Path, options: Sequence[str] = ()) -> Path:
    key = hashlib.sha256("\n".join([*sorted(pins(requirements)), *options, sys.version]).encode())
    return cache_folder() / "venvs" / f"{requirements.stem}-{key.hexdigest()[:16]}"


def complete(requirements: Path, options: Sequence[str] = ()) -> bool:
    return (folder_of(requirements, options) / "complete").exists()


def environment(requirements: Path, options: Sequence[str] = ()) -> Path:
    """The interpreter of an environment that holds exactly `requirements`; pip is given the options.

    Raises:
        CalledProcessError: pip could not install them; its output has been shown.
    """
    folder = folder_of(requirements, options)
    python = folder / "bin" / "python"
    if not complete(requirements, options):
        with alone(folder):
            if not complete(requirements, options):
                print(f"installing {requirements.name} into {folder}", file=sys.stderr)
                shutil.rmtree(folder, ignore_errors=True)
                venv.create(folder, with_pip=True)
                # pip's own cache would hold the same gigabytes a second time.
                pip: list[str | Path] = [
                    python,
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--disable-pip-version-check",
                    "--no-cache-dir",
                ]
                subprocess.run([*pip, *options, "-r", requirements], check=True, stdout=sys.stderr)
                (folder / "complete").touch()
    return python


if __name__ == "__main__":
    print(environment(Path(sys.argv[1]), sys.argv[2:]))
