"""Strata's reader, for speed.py: with a private sidecar, in a world of one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

from records import Array, Corpus

SHARD = 2**20
"""Bytes of a shard, about."""


class Tokens:
    """`job.dataset` over raw records: "tokens" of dtype uint8, a record a sample."""

    form = "bin"

    def __init__(self, corpus: Corpus, batch: int, workers: int, shuffle: bool, seed: int) -> None:
        import strata

        self.store = tempfile.TemporaryDirectory(prefix="strata-data-")
        self.job = strata.connect(job="bench-data", store=self.store.name, local=True)
        self.job.register_dataset(
            "corpus",
            path=corpus.path(self.form) / "data.bin",
            format="tokens",
            dtype="uint8",
            sample_len=corpus.size,
            shard_size=max(1, SHARD // corpus.size),
            total_samples=corpus.count,
            shuffle=shuffle,
            seed=seed,
        )
        self.dataset = self.job.dataset("corpus", batch_size=batch)

    def epoch(self) -> Iterator[Array]:
        for batch in self.dataset:
            yield batch.samples

    def close(self) -> None:
        self.job.close()
        self.store.cleanup()
