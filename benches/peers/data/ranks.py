"""Strata's loaders for chaos.py and resume.py: each rank is one of a job, on a node that runs (node.py)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from loaders import Life, rank_by_rank
from ours import DATASET, register
from records import Array

JOB = "epoch"


class Dataset:
    """`job.dataset`: the position goes with `job.save`, which is over when the step is durable, and comes back with
    `job.restore`. The newest step of the store is gone on from, whatever is known of it: so `origin` tells which."""

    form = "bin"
    leaves = ""
    merged = staticmethod(rank_by_rank)

    def __init__(self, life: Life) -> None:
        self.life = life

    def start(self, rank: int, world: int, state: Any) -> Iterator[Array]:
        self.open(rank, world)
        restored = self.job.restore(only="*")
        self.begun = self.step = 0 if restored is None else restored.step
        return self.batches()

    def open(self, rank: int, world: int) -> None:
        import strata

        self.job = strata.connect(job=JOB, rank=rank, world_size=world, signals=False)
        register(self.job, self.life.corpus, self.form, shuffle=True, seed=self.life.seed)

    def batches(self) -> Iterator[Array]:
        for batch in self.job.dataset(DATASET, batch_size=self.life.whole):
            yield batch.samples

    def state_dict(self) -> Any:
        """Beside the position a state as small as can be, which every rank has alike: so it comes back in any world."""
        state = {"step": np.array([self.step + 1])}
        self.job.save(self.step + 1, state, replicated=True).wait_committed()
        self.step += 1
        return self.step

    def origin(self) -> int:
        """The step that this life goes on from, 0 from the beginning; steps are counted up by one."""
        return self.begun

    def state_bytes(self) -> int:
        """Of the step that was saved last, as it lies in the store."""
        [stored] = [info.stored_bytes for info in self.job.steps() if info.step == self.step]
        return int(stored)

    @staticmethod
    def keeper(rank: int, saved: int) -> int:
        return 0


class Workers(Dataset):
    """The same through torch's DataLoader over `strata.torch.IterableDataset`, with its workers."""

    def batches(self) -> Iterator[Array]:
        from strata.torch import IterableDataset
        from torch.utils.data import DataLoader

        data = IterableDataset(self.job.dataset(DATASET, batch_size=self.life.whole))
        for batch in DataLoader(data, batch_size=None, num_workers=self.life.workers):
            yield batch.samples.numpy()


class Stateful:
    """torchdata's StatefulDataLoader over the same, and its own state: nothing is saved with the job. Rank 0's is for
    all ranks, as its positions are those of the whole job."""

    form = "bin"
    leaves = ""
    merged = staticmethod(rank_by_rank)

    def __init__(self, life: Life) -> None:
        self.life = life
        self.of = Dataset(life)

    def start(self, rank: int, world: int, state: Any) -> Iterator[Array]:
        from strata.torch import IterableDataset
        from torchdata.stateful_dataloader import StatefulDataLoader

        self.of.open(rank, world)
        data: Any = IterableDataset(self.of.job.dataset(DATASET, batch_size=self.life.whole))
        self.loader = StatefulDataLoader(data, batch_size=None, num_workers=self.life.workers)
        if state is not None:
            self.loader.load_state_dict(state)
        for batch in self.loader:
            yield batch.samples.numpy()

    def state_dict(self) -> Any:
        return self.loader.state_dict()

    @staticmethod
    def keeper(rank: int, saved: int) -> int:
        return 0
