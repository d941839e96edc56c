"""Writes the orders of some epochs to .npy files, in this fresh process. Started by quality.py.

    python orders.py strata|mosaicml CORPUS_HOME SAMPLES SHARD_SIZE SEED EPOCHS FOLDER

A file is NAME.EPOCH.npy: the sample at each position, as uint32.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mixing import Order

AT_ONCE = 2**16
"""Samples of a batch that orders are read by; an order does not depend on it."""
PERIOD = 251
"""Sample n of the dataset is the byte n % PERIOD, so that what is read is seen to be what was said."""


def main() -> None:
    who, home, *sizes, folder = sys.argv[1:]
    samples, shard_size, seed, epochs = map(int, sizes)
    orders = ours(stored(Path(home), samples), shard_size, seed, epochs)
    if who == "mosaicml":
        orders = theirs(samples, shard_size, seed, epochs)
    for name, epoch, order in orders:
        np.save(Path(folder) / f"{name}.{epoch}.npy", order.astype(np.uint32))


def stored(home: Path, samples: int) -> Path:
    """The dataset's file. It stays where it is for the next run: where a dataset lies is part of its version, and so of
    its order."""
    path = home / f"order-{samples}" / "data.bin"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"part-{os.getpid()}")
        part.write_bytes((np.arange(samples) % PERIOD).astype(np.uint8).tobytes())
        part.rename(path)
    return path


def ours(path: Path, shard_size: int, seed: int, epochs: int) -> Iterator[tuple[str, int, Order]]:
    """What a caller of `job.dataset` is handed in a world of one."""
    import strata

    with tempfile.TemporaryDirectory(prefix="strata-data-") as store:
        # A name of its own: what a job's private coordinator has registered outlives the job.
        job = strata.connect(job=f"bench-shuffle-{os.getpid()}", store=store, local=True)
        job.register_dataset(
            "order",
            path=path,
            format="tokens",
            dtype="uint8",
            sample_len=1,
            shard_size=shard_size,
            shuffle=True,
            seed=seed,
        )
        dataset = job.dataset("order", batch_size=AT_ONCE)
        for epoch in range(epochs):
            yield "strata", epoch, np.concatenate([as_stored(batch) for batch in dataset])
        job.close()


def as_stored(batch: Any) -> Order:
    if (batch.samples.ravel() != batch.indices % PERIOD).any():
        raise SystemExit(f"epoch {batch.epoch}, step {batch.step}: samples are not those of their indices")
    indices: Order = batch.indices
    return indices


def theirs(samples: int, shard_size: int, seed: int, epochs: int) -> Iterator[tuple[str, int, Order]]:
    """One canonical node; the block is what StreamingDataset takes for one, then what shuffle functions take, then our
    window of 16 shards."""
    from streaming.base.shuffle import get_shuffle

    shards = np.full(samples // shard_size, shard_size)
    blocks = {"": 4_000_000, " of 2^18": 2**18, " of 16 shards": 16 * shard_size}
    named = [(f"{kind}{block}", kind, size) for kind in ("py1e", "py1br") for block, size in blocks.items()]
    named += [(kind, kind, 0) for kind in ("py1s", "py2s", "naive")]
    for name, kind, size in named:
        for epoch in range(epochs):
            yield name, epoch, get_shuffle(kind, shards, 1, seed, epoch, size)


if __name__ == "__main__":
    main()
