"""What chaos.py asks of a loader: one face, and a class for each that keeps a state as its documentation has it.

A loader is made in a process of one rank, in one life of the job: `start` opens it, from a state that was saved by a
life before or from the beginning, and every batch that it hands out is one global step's share of this rank.
"""

from __future__ import annotations

import importlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from readers import Mapped, joined, mds_batch
from records import Array, Corpus


@dataclass(frozen=True)
class Life:
    """One start of all ranks, until the next."""

    corpus: Corpus
    batch: int
    """Samples that each rank takes in one step."""
    whole: int
    """Those of all ranks; what Strata goes by, which no world need divide."""
    workers: int
    seed: int
    meeting: Path
    """A file that is not there yet, for ranks that meet by one."""
    number: int


class Loader(Protocol):
    form: str
    """The format that it reads."""
    leaves: str
    """A pattern of the names that it leaves in /dev/shm when it is killed; two jobs that have one can't run at once."""

    def __init__(self, life: Life) -> None: ...

    def start(self, rank: int, world: int, state: Any) -> Iterator[Array]:
        """Batches of (samples, bytes) from where `state` was saved; None is the epoch's beginning. It is asked
        for with the first batch, so it may be a generator that opens the loader then.

        Raises:
            Exception: it cannot go on from there; that is what the table says of it.
        """

    def state_dict(self) -> Any:
        """What a checkpoint keeps of this rank; asked between two batches, of all ranks at the same step."""

    @staticmethod
    def keeper(rank: int, saved: int) -> int:
        """Whose state of the `saved` ranks this rank is given."""

    @staticmethod
    def merged(batches: list[list[int]]) -> list[int]:
        """One step's samples over all ranks in the order in which this loader deals them out to the ranks."""


def own_or_first(rank: int, saved: int) -> int:
    """Its own; a rank that was not there has the first one's, as nothing is said of it anywhere."""
    return rank if rank < saved else 0


def rank_by_rank(batches: list[list[int]]) -> list[int]:
    return [sample for batch in batches for sample in batch]


def sample_by_sample(batches: list[list[int]]) -> list[int]:
    """As cards are dealt out: the first of each rank, the second of each."""
    rows = itertools.zip_longest(*batches)
    return [sample for row in rows for sample in row if sample is not None]


class MosaicML:
    """Rank 0's state, given to every rank (its "Resumption" guide)."""

    form = "mds"
    leaves = r"\d{6}_[a-z_]+"
    merged = staticmethod(sample_by_sample)

    def __init__(self, life: Life) -> None:
        self.life = life

    def start(self, rank: int, world: int, state: Any) -> Iterator[Array]:
        import torch.distributed
        from streaming import StreamingDataLoader, StreamingDataset
        from streaming.base.util import clean_stale_shared_memory

        places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
        os.environ.update({name: str(value) for name, value in places.items()})
        # As a trainer would have: without it the dataset opens a group for itself, and closes it.
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{self.life.meeting}", rank=rank, world_size=world
        )
        clean_stale_shared_memory()  # what its documentation has for ranks that were killed
        dataset = StreamingDataset(
            local=str(self.life.corpus.path(self.form)),
            batch_size=self.life.batch,
            shuffle=True,
            shuffle_seed=self.life.seed,
        )
        self.loader = StreamingDataLoader(
            dataset, batch_size=self.life.batch, num_workers=self.life.workers, collate_fn=mds_batch
        )
        if state is not None:
            self.loader.load_state_dict(state)
        for batch in self.loader:
            yield batch.numpy()

    def state_dict(self) -> Any:
        return self.loader.state_dict()

    @staticmethod
    def keeper(rank: int, saved: int) -> int:
        return 0


class LitData:
    """The loader's own state; since 0.2.7x one of another world is taken, too ("elastic resume")."""

    form = "litdata"
    leaves = ""
    keeper = staticmethod(own_or_first)
    merged = staticmethod(rank_by_rank)

    def __init__(self, life: Life) -> None:
        self.life = life

    def start(self, rank: int, world: int, state: Any) -> Iterator[Array]:
        from litdata import StreamingDataLoader, StreamingDataset

        os.environ.update({"GLOBAL_RANK": str(rank), "WORLD_SIZE": str(world), "NNODES": "1"})
        dataset = StreamingDataset(str(self.life.corpus.path(self.form)), shuffle=True, seed=self.life.seed)
        self.loader = StreamingDataLoader(
            dataset, batch_size=self.life.batch, num_workers=self.life.workers, collate_fn=joined
        )
        if state is not None:
            self.loader.load_state_dict(state)
        for batch in self.loader:
            yield batch.numpy()

    def state_dict(self) -> Any:
        return self.loader.state_dict()


class TorchData:
    """StatefulDataLoader with its StatefulDistributedSampler over a map-style dataset."""

    form = "npy"
    leaves = ""
    keeper = staticmethod(own_or_first)
    merged = staticmethod(sample_by_sample)

    def __init__(self, life: Life) -> None:
        self.life = life

    def start(self, rank: int, world: int, state: Any) -> Iterator[Array]:
        from torchdata.stateful_dataloader import StatefulDataLoader
        from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

        dataset: Any = Mapped(self.life.corpus.path(self.form) / "data.npy")
        sampler = StatefulDistributedSampler(dataset, world, rank, shuffle=True, seed=self.life.seed)
        self.loader = StatefulDataLoader(
            dataset, batch_size=self.life.batch, sampler=sampler, num_workers=self.life.workers
        )
        if state is not None:
            self.loader.load_state_dict(state)
        for batch in self.loader:
            yield batch.numpy()

    def state_dict(self) -> Any:
        return self.loader.state_dict()


LOADERS = {
    "mosaicml": "loaders:MosaicML",
    "torchdata": "loaders:TorchData",
    "litdata": "loaders:LitData",
    "strata": "ranks:Dataset",
    "strata-torch": "ranks:Workers",
    "strata-torchdata": "ranks:Stateful",
}
"""Where each is."""
PACKAGES = {
    "mosaicml": ["streaming"],
    "torchdata": ["torchdata.stateful_dataloader"],
    "litdata": ["litdata"],
    "strata": ["numpy", "strata.connecting", "strata.data"],
    "strata-torch": ["torch.utils.data", "strata.connecting", "strata._loading"],
    "strata-torchdata": ["torchdata.stateful_dataloader", "strata.connecting", "strata._loading"],
}
"""What the process that all ranks are forked from has imported."""
WITHOUT_WORKERS = ("strata",)
"""They have no worker processes, whatever is asked for."""
UNDIVIDED = ("strata", "strata-torch", "strata-torchdata")
"""A global batch is any number of samples to them: a world need not divide it."""


def commits_itself(name: str) -> bool:
    """Whether the loader's states are durable by themselves, and it goes on from the newest one there is: that a commit
    was not acknowledged says nothing of it then, and `origin` is asked."""
    return hasattr(loader(name), "origin")


def loader(name: str) -> type[Loader]:
    return loader_at(LOADERS[name])


def loader_at(place: str) -> type[Loader]:
    module, kind = place.split(":")
    found: type[Loader] = getattr(importlib.import_module(module), kind)
    return found
