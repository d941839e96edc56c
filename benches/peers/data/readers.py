"""What delivers whole epochs of a corpus in batches: one class for each reader, with one face.

Each is set up as its documentation recommends for files on a local disk, and each hands out what a trainer takes: a
batch as one array of (samples, size) bytes. Packages are imported where they are used, as a process measures one
reader. Strata's own are in ours.py.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from records import Array, Corpus

SHUFFLED = 10_000
"""Samples that webdataset holds to shuffle them, in bytes at most SHUFFLED_BYTES: its documentation's usual 1,000 to
10,000, beside shards in a random order."""
SHUFFLED_BYTES = 100 * 2**20


class Reader(Protocol):
    form: str
    """The format that it reads."""

    def __init__(self, corpus: Corpus, batch: int, workers: int, shuffle: bool, seed: int) -> None: ...

    def epoch(self) -> Iterator[Array]:
        """The next whole epoch."""


def joined(records: list[bytes]) -> Any:
    """A batch as a tensor, which goes between processes in shared memory, where an array would be pickled."""
    import torch

    return torch.frombuffer(bytearray(b"".join(records)), dtype=torch.uint8).view(len(records), -1)


class InMemory:
    """A list of all records and nothing else: what no loader of single records can be faster than."""

    form = "bin"

    def __init__(self, corpus: Corpus, batch: int, workers: int, shuffle: bool, seed: int) -> None:
        data = (corpus.path(self.form) / "data.bin").read_bytes()
        self.records = [data[at : at + corpus.size] for at in range(0, len(data), corpus.size)]
        self.batch, self.shuffle = batch, shuffle
        self.generator = np.random.default_rng(seed)

    def epoch(self) -> Iterator[Array]:
        count = len(self.records)
        order = (self.generator.permutation(count) if self.shuffle else np.arange(count)).tolist()
        for at in range(0, count, self.batch):
            records = [self.records[number] for number in order[at : at + self.batch]]
            yield np.frombuffer(b"".join(records), np.uint8).reshape(len(records), -1)


class Mapped:
    """A map-style dataset over a memory-mapped .npy: what the plain DataLoaders read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.array: Array | None = None
        self.count = len(np.load(path, mmap_mode="r"))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Any:
        import torch

        if self.array is None:  # every worker maps it for itself
            self.array = np.load(self.path, mmap_mode="r")
        return torch.from_numpy(np.array(self.array[number]))


class MappedByBatch(Mapped):
    """With torch's own hook for a whole batch at once."""

    def __getitems__(self, numbers: list[int]) -> Any:
        import torch

        if self.array is None:
            self.array = np.load(self.path, mmap_mode="r")
        return torch.from_numpy(self.array[numbers])


def as_it_is(batch: Any) -> Any:
    return batch


class Torch:
    """torch's DataLoader."""

    form = "npy"
    by_batch = False

    def __init__(self, corpus: Corpus, batch: int, workers: int, shuffle: bool, seed: int) -> None:
        import torch

        generator = torch.Generator().manual_seed(seed)
        options: dict[str, Any] = {"batch_size": batch, "shuffle": shuffle, "generator": generator}
        options |= {"num_workers": workers, "persistent_workers": workers > 0}
        path = corpus.path(self.form) / "data.npy"
        if self.by_batch:
            self.loader = self.loader_class()(MappedByBatch(path), collate_fn=as_it_is, **options)
        else:
            self.loader = self.loader_class()(Mapped(path), **options)

    def loader_class(self) -> Any:
        from torch.utils.data import DataLoader

        return DataLoader

    def epoch(self) -> Iterator[Array]:
        for batch in self.loader:
            yield batch.numpy()


class TorchByBatch(Torch):
    by_batch = True


class Stateful(Torch):
    """torchdata's StatefulDataLoader."""

    def loader_class(self) -> Any:
        from torchdata.stateful_dataloader import StatefulDataLoader

        return StatefulDataLoader


def mds_batch(samples: list[dict[str, bytes]]) -> Any:
    return joined([sample["data"] for sample in samples])


class MosaicML:
    """MosaicML streaming: local shards without a remote, its own loader, its default shuffle and predownload."""

    form = "mds"

    def __init__(self, corpus: Corpus, batch: int, workers: int, shuffle: bool, seed: int) -> None:
        from streaming import StreamingDataLoader, StreamingDataset
        from streaming.base.util import clean_stale_shared_memory

        clean_stale_shared_memory()  # of a process before this one that was killed
        dataset = StreamingDataset(
            local=str(corpus.path(self.form)), batch_size=batch, shuffle=shuffle, shuffle_seed=seed
        )
        options = {"num_workers": workers, "persistent_workers": workers > 0, "collate_fn": mds_batch}
        self.loader = StreamingDataLoader(dataset, batch_size=batch, **options)

    def epoch(self) -> Iterator[Array]:
        for batch in self.loader:
            yield batch.numpy()


class LitData:
    """litdata: chunks of a local folder, which it maps in place, and its own loader."""

    form = "litdata"

    def __init__(self, corpus: Corpus, batch: int, workers: int, shuffle: bool, seed: int) -> None:
        from litdata import StreamingDataLoader, StreamingDataset

        dataset = StreamingDataset(str(corpus.path(self.form)), shuffle=shuffle, seed=seed, drop_last=False)
        options = {"num_workers": workers, "persistent_workers": workers > 0, "collate_fn": joined}
        self.loader = StreamingDataLoader(dataset, batch_size=batch, **options)

    def epoch(self) -> Iterator[Array]:
        for batch in self.loader:
            yield batch.numpy()


def record_of(sample: dict[str, Any]) -> bytes:
    return bytes(sample["bin"])


class WebDataset:
    """webdataset: shards in a random order, a shuffle buffer, batches made in the workers, and its own loader."""

    form = "wds"

    def __init__(self, corpus: Corpus, batch: int, workers: int, shuffle: bool, seed: int) -> None:
        import webdataset

        shards = sorted(str(path) for path in corpus.path(self.form).glob("*.tar"))
        dataset = webdataset.WebDataset(shards, shardshuffle=len(shards) if shuffle else False, seed=seed)
        if shuffle:
            dataset = dataset.shuffle(min(SHUFFLED, SHUFFLED_BYTES // corpus.size), seed=seed)
        dataset = dataset.map(record_of).batched(batch, collation_fn=joined)
        options = {"num_workers": workers, "persistent_workers": workers > 0}
        self.loader = webdataset.WebLoader(dataset, batch_size=None, **options)

    def epoch(self) -> Iterator[Array]:
        for batch in self.loader:
            yield batch.numpy()


class Arrow:
    """pyarrow over Parquet, in the order of the file: no loader, and it shuffles nothing."""

    form = "parquet"

    def __init__(self, corpus: Corpus, batch: int, workers: int, shuffle: bool, seed: int) -> None:
        import pyarrow.parquet

        path = corpus.path(self.form) / "data.parquet"
        self.open = functools.partial(pyarrow.parquet.ParquetFile, path, memory_map=True)
        self.size, self.batch, self.threads = corpus.size, batch, workers > 0

    def epoch(self) -> Iterator[Array]:
        for rows in self.open().iter_batches(self.batch, use_threads=self.threads):
            data = rows.column(0)
            offsets = np.frombuffer(data.buffers()[1], np.int32)[data.offset :][: len(data) + 1]
            records = np.frombuffer(data.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
            yield records.reshape(len(data), self.size)


READERS = {
    "list": "readers:InMemory",
    "torch": "readers:Torch",
    "torch-getitems": "readers:TorchByBatch",
    "torchdata": "readers:Stateful",
    "mosaicml": "readers:MosaicML",
    "litdata": "readers:LitData",
    "webdataset": "readers:WebDataset",
    "pyarrow": "readers:Arrow",
    "strata": "ours:Tokens",
    "strata-npy": "ours:Npy",
    "strata-parquet": "ours:Parquet",
    "strata-wds": "ours:WebDataset",
    "strata-jsonl": "ours:Lines",
    "strata-torch": "ours:Torch",
}
"""Where each is; a process imports its own alone."""
WITHOUT_WORKERS = ("list", "strata", "strata-npy", "strata-parquet", "strata-wds", "strata-jsonl")
"""They have no worker processes, whatever is asked for."""
IN_ORDER = ("pyarrow",)
"""They do not shuffle."""
OF_SMALL = ("strata-jsonl",)
"""They read records of JSONL_LIMIT bytes at the most."""


def reader(name: str) -> type[Reader]:
    module, kind = READERS[name].split(":")
    found: type[Reader] = getattr(importlib.import_module(module), kind)
    return found
