"""Strata's readers, for speed.py: with a private sidecar, in a world of one."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from records import Array, Corpus

SHARD = 2**20
"""Bytes of a shard, about; no more than a file has."""
DATASET = "corpus"
PATIENCE = 10.0


def register(job: Any, corpus: Corpus, form: str, *, shuffle: bool, seed: int) -> None:
    """The corpus as it lies in this format, a record a sample."""
    job.register_dataset(
        DATASET,
        path=corpus.path(form),
        shard_size=max(1, min(SHARD, corpus.file) // corpus.size),
        total_samples=corpus.count,
        shuffle=shuffle,
        seed=seed,
        **FORMATS[form](corpus),
    )


FORMATS = {
    "bin": lambda corpus: {"format": "tokens", "dtype": "uint8", "sample_len": corpus.size},
    "npy": lambda corpus: {"format": "npy"},
    "parquet": lambda corpus: {"format": "parquet", "columns": ["data"]},
    "wds": lambda corpus: {"format": "webdataset", "columns": ["bin"]},
    "jsonl": lambda corpus: {"format": "jsonl"},
}
"""What says of each that its samples are bytes."""


class Tokens:
    """`job.dataset` over raw records: "tokens" of dtype uint8."""

    form = "bin"

    def __init__(self, corpus: Corpus, batch: int, workers: int, shuffle: bool, seed: int) -> None:
        import strata

        self.size, self.workers = corpus.size, workers
        self.store = tempfile.TemporaryDirectory(prefix="strata-data-")
        os.environ["STRATA_HOME"] = f"{self.store.name}/home"  # a coordinator remembers its jobs' datasets
        self.job = strata.connect(job=f"bench-data-{os.getpid()}", store=f"{self.store.name}/store", local=True)
        register(self.job, corpus, self.form, shuffle=shuffle, seed=seed)
        self.dataset = self.job.dataset(DATASET, batch_size=batch)

    def epoch(self) -> Iterator[Array]:
        for batch in self.dataset:
            yield self.records(batch.samples)

    def records(self, samples: Any) -> Array:
        """What the dataset hands out, as the array that all readers hand out."""
        array: Array = samples
        return array

    def close(self) -> None:
        self.job.close()
        # The private sidecar, which ends now, may still write there.
        deadline = time.monotonic() + PATIENCE
        while Path(self.store.name).exists() and time.monotonic() < deadline:
            shutil.rmtree(self.store.name, ignore_errors=True)
            time.sleep(0.05)
        self.store.cleanup()


class Npy(Tokens):
    """An array of (samples, bytes), the same file as the DataLoaders'."""

    form = "npy"


class Parquet(Tokens):
    """The file that `pyarrow` reads, in a shuffled order; its arrays as `pyarrow` there has them."""

    form = "parquet"
    column = "data"

    def records(self, samples: Any) -> Array:
        import pyarrow

        return bytes_of(pyarrow.record_batch(samples).column(self.column), self.size)


class WebDataset(Parquet):
    """The files that `webdataset` reads."""

    form = "wds"
    column = "bin"


class Lines(Tokens):
    """JSON Lines: each is parsed, and its record is in base64."""

    form = "jsonl"

    def records(self, samples: Any) -> Array:
        import base64
        import json

        records = [base64.b64decode(json.loads(line)["data"]) for line in samples["line"]]
        return np.frombuffer(b"".join(records), np.uint8).reshape(len(records), self.size)


class Torch(Tokens):
    """torch's DataLoader over `strata.torch.IterableDataset`."""

    def __init__(self, corpus: Corpus, batch: int, workers: int, shuffle: bool, seed: int) -> None:
        super().__init__(corpus, batch, workers, shuffle, seed)
        from strata.torch import IterableDataset
        from torch.utils.data import DataLoader

        options = {"num_workers": workers, "persistent_workers": workers > 0}
        self.loader = DataLoader(IterableDataset(self.dataset), batch_size=None, **options)

    def epoch(self) -> Iterator[Array]:
        for batch in self.loader:
            yield batch.samples.numpy()


def bytes_of(column: Any, size: int) -> Array:
    """Arrow's values of one size without a copy: they lie one behind the other."""
    offsets = np.frombuffer(column.buffers()[1], OFFSETS[str(column.type)])[column.offset :][: len(column) + 1]
    if not (np.diff(offsets) == size).all():
        raise ValueError(f"a column of {column.type}: its values are not of {size} bytes each")
    return np.frombuffer(column.buffers()[2], np.uint8)[offsets[0] : offsets[-1]].reshape(len(column), size)


OFFSETS: dict[str, Any] = {"binary": np.int32, "large_binary": np.int64}
