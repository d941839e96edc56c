"""Real text that every machine has: the sources of the Python standard library, as one file of byte tokens."""

from __future__ import annotations

import sysconfig
from pathlib import Path


def write_corpus(path: Path, samples: int, sample_len: int) -> None:
    """Writes `samples * sample_len` bytes of standard library source to `path` (complete or not at all).

    Raises:
        ValueError: the standard library of this interpreter is smaller than that.
    """
    wanted = samples * sample_len
    text = bytearray()
    for source in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        text += source.read_bytes()
        if len(text) >= wanted:
            break
    if len(text) < wanted:
        raise ValueError(f"the standard library's top folder holds {len(text)} bytes, {wanted} are wanted")
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(text[:wanted])
    temporary.rename(path)
