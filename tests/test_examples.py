"""What the examples promise apart from training."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

from corpus import write_corpus


def test_corpus_is_the_same_every_time_and_as_long_as_asked(tmp_path: Path) -> None:
    for name in ("one.bin", "two.bin"):
        write_corpus(tmp_path / name, samples=320, sample_len=65)
    assert (tmp_path / "one.bin").stat().st_size == 320 * 65
    assert (tmp_path / "one.bin").read_bytes() == (tmp_path / "two.bin").read_bytes()


def test_corpus_larger_than_the_library_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="are wanted"):
        write_corpus(tmp_path / "corpus.bin", samples=10**9, sample_len=65)
    assert not list(tmp_path.iterdir())
