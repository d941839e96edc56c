"""One seeded corpus, the same records in every format that a reader wants, on the disk and kept there.

A record is `size` bytes: its sample number (8 bytes, little-endian), a sum over all else, and random bytes. So whatever
comes out of a reader says which sample it is, and whether it is whole.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

BLOCK = 4 * 2**20
"""Bytes of the records that are made, and written, at a time."""
FILE = 64 * 2**20
"""Bytes of one file where a format has many: MosaicML's and litdata's own default."""
LEFT_FREE = 2 * 2**30
"""Bytes that stay free on the disk at the most: as many as are written, for a small corpus."""
TAKES = {"litdata": 1.05, "wds": 1.5, "jsonl": 1.4}
"""How much more than its records a format holds, at the most, where that is not next to nothing."""
JSONL_LIMIT = 16 * 2**10
"""JSONL is for small records."""


@dataclass(frozen=True)
class Corpus:
    """`count` records of `size` bytes below `home`; a format is there once `make` has returned."""

    home: Path
    size: int
    count: int
    seed: int = 7
    file: int = FILE

    def __post_init__(self) -> None:
        if self.size < 16 or self.size % 8:
            raise ValueError(f"a record of {self.size} bytes: it takes a multiple of 8, from 16 up")

    @property
    def folder(self) -> Path:
        return self.home / f"{self.count}x{self.size}-{self.seed}-{self.file}"

    @property
    def nbytes(self) -> int:
        return self.size * self.count

    def path(self, form: str) -> Path:
        return self.folder / form

    def make(self, form: str) -> Path:
        """Where the corpus lies in this format; written first if it is not there.

        Raises:
            SystemExit: the disk has no room for it.
        """
        from formats import WRITERS

        path = self.path(form)
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            self.check_room(form)
            half = path.with_name(f".{form}.half")
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir()
            WRITERS[form](self, half)
            settle(half)
            half.rename(path)
        return path

    def check_room(self, form: str) -> None:
        takes = int(self.nbytes * TAKES.get(form, 1.02))
        spare = min(takes, LEFT_FREE)
        free = shutil.disk_usage(self.folder).free
        if free < takes + spare:
            raise SystemExit(
                f"writing {self.count:,} records of {self.size} bytes as {form}: {free / 1e9:.1f} GB are free below "
                f"{self.folder}, it takes {takes / 1e9:.1f}, and {spare / 1e9:.1f} are to stay free\n"
                "hint: name another folder, or fewer samples"
            )

    @property
    def per_block(self) -> int:
        return max(1, BLOCK // self.size)

    def block(self, number: int) -> Array:
        """The records of one block, as an array of (samples, size) bytes."""
        start = number * self.per_block
        samples = min(self.per_block, self.count - start)
        generator = np.random.default_rng([self.seed, number])
        words = generator.integers(0, 2**64, dtype=np.uint64, size=(samples, self.size // 8))
        words[:, 0] = np.arange(start, start + samples, dtype=np.uint64)
        words[:, 1] = sums(words)
        return words.astype("<u8").view(np.uint8)

    def blocks(self, form: str) -> Iterator[Array]:
        """All of it in order, with a progress bar."""
        from rich.console import Console
        from rich.progress import track

        count = -(-self.count // self.per_block)
        told = f"{form}: {self.nbytes / 1e6:,.0f} MB in records of {self.size:,} bytes"
        for number in track(range(count), told, console=Console(stderr=True), transient=True):
            yield self.block(number)

    def evict(self, form: str) -> None:
        """Has the files read from the disk the next time."""
        for file in (file for file in self.path(form).rglob("*") if file.is_file()):
            with file.open("rb") as opened:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def settle(folder: Path) -> None:
    """Written pages must be on the disk before they can be evicted."""
    for file in (file for file in folder.rglob("*") if file.is_file()):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())


def sums(words: Array) -> Array:
    """Of each record without its second word, which holds it. The weights are odd, so any word that changed shows, and
    different, so that words in each other's place do."""
    weights = np.arange(1, 2 * words.shape[1], 2, dtype=np.uint64)
    weights[1] = 0
    total: Array = (words * weights).sum(axis=1, dtype=np.uint64)
    return total


def numbers(batch: Array) -> Array:
    """The sample numbers of records, an array of (samples, size) bytes."""
    return np.ascontiguousarray(batch[:, :8]).view("<u8")[:, 0].astype(np.int64)


def verified(batch: Array) -> Array:
    """The sample numbers of records that are what they were written as.

    Raises:
        ValueError: one is not.
    """
    words = np.ascontiguousarray(batch).view("<u8")
    wrong = np.flatnonzero(sums(words) != words[:, 1])
    if wrong.size:
        raise ValueError(f"record {wrong[0]} of a batch of {len(batch)} is damaged, number {words[wrong[0], 0]}")
    return numbers(batch)
