"""The Python distribution that PyOxidizer packs: Debian's own static libpython, plus the modules Debian ships as files.

`sources` fetches packages and source through an apt state of its own, `modules` compiles what the library lacks,
`archive` lays it out as PyOxidizer expects, and this file keeps the result in the cache. No system list or package is
changed. Elsewhere than on Debian 12 STRATA_PYTHON_DISTRIBUTION names a python-build-standalone archive of format 7
(untried).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from environment import cache_folder

from distribution import archive, modules, sources

PYTHON = "3.11"


def distribution() -> tuple[Path, str]:
    """The archive, made if the cache lacks it, and its SHA-256.

    The cache is keyed by the recipe and by the static libraries it links, so a second build asks nothing of apt; what a
    newer Debian point release brings is fetched with `make build REFRESH=1`.

    Raises:
        CalledProcessError: apt or the compiler failed; their output has been shown.
    """
    if given := os.environ.get("STRATA_PYTHON_DISTRIBUTION"):
        return Path(given), digest(Path(given))
    kept = cache_folder() / "distribution" / recipe()
    whole, sum_file = kept / "python.tar.zst", kept / "sha256"
    if "STRATA_REFRESH" in os.environ or not sum_file.exists():
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        with tempfile.TemporaryDirectory(prefix="strata-python-") as scratch:
            found = sources.fetch(PYTHON, cache_folder() / "apt", Path(scratch))
            compiled = modules.compile_missing(found, Path(scratch) / "objects")
            archive.write(found, compiled, Path(scratch) / "layout", whole)
        sum_file.write_text(digest(whole))
    return whole, sum_file.read_text()


def recipe() -> str:
    """Names the result by what goes in: these files, the compiler, and the packages with the static libraries."""
    content = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        content.update(file.read_bytes())
    query = ["dpkg-query", "--show", *modules.DEVELOPMENT_PACKAGES, "gcc"]
    content.update(subprocess.run(query, check=True, capture_output=True).stdout)
    return content.hexdigest()[:16]


def digest(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()
