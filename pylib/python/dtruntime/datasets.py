"""Datasets, and which rank holds which of their shards."""

from __future__ import annotations

import os
from typing import NamedTuple

from strata import _core

from . import _membership
from ._calls import blocking

__all__ = ["DatasetRegistry", "Shard", "ShardFile"]


class ShardFile(NamedTuple):
    """Rows [start, stop) of one file."""

    path: str
    start: int
    stop: int


class Shard(os.PathLike[str]):
    """Samples [start, stop) of a dataset.

    As a path it is the file that holds its first sample; where the files are not known, the dataset's own path.

    Attributes:
        id: its number in the dataset.
        start, stop: in samples.
        files: where its samples lie, in order; empty for a dataset that was registered from metadata alone.
    """

    __slots__ = ("_path", "files", "id", "start", "stop")

    def __init__(self, id: int, start: int, stop: int, files: tuple[ShardFile, ...], path: str) -> None:
        self.id = id
        self.start = start
        self.stop = stop
        self.files = files
        self._path = files[0].path if files else path

    def __fspath__(self) -> str:
        return self._path

    def __len__(self) -> int:
        return self.stop - self.start

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shard) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[str, int, int, int]:
        return self._path, self.id, self.start, self.stop

    def __repr__(self) -> str:
        return f"<Shard {self.id}: samples {self.start} to {self.stop} of {self._path}>"


class DatasetRegistry:
    """The datasets of the job STRATA_JOB, else "default". All calls are synchronous, and any process may make them.

    Args:
        coordinator_url: such as "http://localhost:50051".
    """

    def __init__(self, coordinator_url: str) -> None:
        line = _core.CoordinatorLine(coordinator_url)
        self._datasets = line.datasets(_core.job_name(), _membership.TIMEOUT)
        self._paths: dict[str, str] = {}

    def register(
        self,
        dataset_id: str,
        path: str | os.PathLike[str],
        format: str,
        total_samples: int,
        shard_size: int,
        shuffle: bool = True,
        *,
        seed: int = 0,
        dtype: str | None = None,
        sample_len: int | None = None,
    ) -> None:
        """Makes a dataset known to the job. Durable; every rank may call it, with the same arguments.

        Args:
            path: file or folder. Where it can be read here and the format is one that is scanned, a wrong
                `total_samples` is InvalidError; otherwise the numbers are taken at their word.
            format: such as "parquet", or "tokens" (raw items: `dtype` and `sample_len` say how many make a sample).
            total_samples, shard_size: in samples; the last shard may be short.
            shuffle, seed: whether the shards come in another order every epoch, and in which.

        Raises:
            ConflictError: another dataset has this id.
            UnavailableError: no coordinator answers for 30 s.
        """
        self._paths[dataset_id] = blocking(
            lambda: self._datasets.register(
                dataset_id,
                path=os.fspath(path),
                format=format,
                total_samples=total_samples,
                shard_size=shard_size,
                shuffle=shuffle,
                seed=seed,
                dtype=dtype or "",
                sample_len=sample_len or 0,
            )
        )

    def get_shard(self, dataset_id: str, worker_rank: int, epoch: int) -> list[Shard]:
        """That rank's shards for the epoch, in the order to read them. The same call gives the same list; over all
        ranks every shard is held exactly once, and no two ranks differ by more than one.

        The world size is that of this process's orchestrator or launcher, else of the job's open generation, which is
        waited for.

        Raises:
            NotFoundError: nobody registered the dataset.
            FencedError: this process's membership as `worker_rank` has ended (P6).
            InvalidError: `worker_rank` is outside of the world, or nobody has joined and the world is not known.
        """
        shards = blocking(
            lambda: self._datasets.shards(
                dataset_id,
                rank=worker_rank,
                epoch=epoch,
                world_size=_membership.world_of_this_process(),
                generation=_membership.generation_of(worker_rank),
            )
        )
        if dataset_id not in self._paths:
            self._paths[dataset_id] = blocking(lambda: self._datasets.path(dataset_id))
        path = self._paths[dataset_id]
        return [
            Shard(id, start, stop, tuple(ShardFile(os.fspath(file), first, last) for file, first, last in files), path)
            for id, start, stop, files in shards
        ]
