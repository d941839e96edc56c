"""Makes a virtual environment outside the checkout, keyed by what it must hold; prints the path of its interpreter.

    python3 scripts/environment.py REQUIREMENTS_FILE

An environment that is there already is used as it is; one that was being made when something broke is made anew.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path


def cache_folder() -> Path:
    """STRATA_CACHE, else `strata` under the user's cache folder."""
    if given := os.environ.get("STRATA_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "strata"


def environment(requirements: Path) -> Path:
    """The interpreter of an environment that holds exactly `requirements`.

    Raises:
        CalledProcessError: pip could not install them; its output has been shown.
    """
    content = requirements.read_bytes() + sys.version.encode()
    folder = cache_folder() / "venvs" / f"{requirements.stem}-{hashlib.sha256(content).hexdigest()[:16]}"
    python = folder / "bin" / "python"
    whole = folder / "complete"
    if not whole.exists():
        print(f"installing {requirements.name} into the cache", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements]
        subprocess.run(pip, check=True, stdout=sys.stderr)
        whole.touch()
    return python


if __name__ == "__main__":
    print(environment(Path(sys.argv[1])))
