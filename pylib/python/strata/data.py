"""Batches of a registered dataset, in an order that a resumed job takes up exactly where its committed step stood."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from . import _core
from ._positions import Position, Positions
from .errors import InvalidError, StrataWarning

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Batch", "Dataset", "Table"]


@dataclass(frozen=True, slots=True)
class Batch:
    """This rank's part of one global step.

    Attributes:
        samples: array of shape (n, *shape of a sample) in the dataset's dtype; of parquet, jsonl and webdataset a
            `Table` of n rows. n differs by at most one between ranks, and may be 0 at the end of an epoch; where
            samples are left out it is less by as many.
        indices: int64 array of shape (n,): which samples these are.
        weight: how many of them are real; the others pad the epoch's last step (tail="pad").
        epoch: from 0.
        step: global step within the epoch, or since the batch size was last changed.
        left_out: how many samples of this part, padding too, lie in damaged files and are therefore not in `samples`
            (on_damage="quarantine"); `Dataset.quarantined` names the files.
    """

    samples: np.ndarray[Any, Any] | Table = field(repr=False)
    indices: np.ndarray[Any, np.dtype[np.int64]] = field(repr=False)
    weight: int
    epoch: int
    step: int
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.indices)


class Table:
    """Samples as Arrow's arrays: `pyarrow.record_batch(table)`, and whatever else speaks Arrow's PyCapsule interface
    (polars, datasets, duckdb), takes them without a copy. `table["text"]` needs none of these.
    """

    __slots__ = ("_table",)

    def __init__(self, table: _core.Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return len(self._table)

    @property
    def columns(self) -> list[str]:
        return self._table.names

    def __getitem__(self, column: str) -> np.ndarray[Any, Any] | list[Any]:
        """One column: an array, without a copy, where it holds numbers and no gaps; else a list of str, bytes, bool or
        None.

        Raises:
            InvalidError: there is no such column, or its type has no such form: pyarrow reads it.
        """
        import numpy as np

        values = self._table.column(column)
        if values is None:
            raise InvalidError(
                f"reading column {column!r}: neither numbers without gaps, nor texts",
                hint="pyarrow.record_batch(table) reads every type",
            )
        if isinstance(values, list):
            return values
        dtype, items = values
        return np.frombuffer(_bytes(items), np.dtype(dtype))

    def __arrow_c_schema__(self) -> object:
        return self._table.__arrow_c_schema__()

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        return self._table.__arrow_c_array__(requested_schema)

    def __repr__(self) -> str:
        return f"<Table of {len(self)} samples: {', '.join(self.columns)}>"


class Dataset:
    """One rank's share of a dataset. Each loop over it takes what is left of an epoch; the next loop the next epoch.

        for epoch in range(dataset.epoch, epochs):
            for batch in dataset:
                ...

    All ranks take the same number of batches. Reading happens in this process: by threads that are some batches ahead,
    and by the calling thread where they are not. For loaders with worker processes there are
    `strata.torch.IterableDataset` and `strata.torch.MapDataset`.
    """

    def __init__(
        self,
        share: _core.Share,
        positions: Positions,
        report: Callable[[str, list[tuple[str, str]]], None],
        dataset_id: str,
        batch_size: int,
        ahead: int,
    ) -> None:
        self._share = share
        self._positions = positions
        self._report = report
        self._id = dataset_id
        self._batch_size = batch_size
        self._ahead = ahead
        self._quarantined: dict[str, str] = {}
        self._loop = object()
        self._positions.opened(share.start(positions.get(dataset_id)))

    @property
    def id(self) -> str:
        return self._id

    @property
    def batch_size(self) -> int:
        """Samples of one step over all ranks."""
        return self._batch_size

    @property
    def total_samples(self) -> int:
        return self._share.total_samples

    @property
    def epoch(self) -> int:
        """The epoch of the last batch handed out, or of the first one to come; from 0."""
        return self._position()[1]

    @property
    def steps_left(self) -> int:
        """Batches left in this epoch."""
        return self._share.steps_left(self._position())

    @property
    def uneven(self) -> int:
        """What the epoch's tail costs: samples padded (tail="pad") or dropped (tail="drop")."""
        return self._share.uneven(self._position())

    @property
    def quarantined(self) -> dict[str, str]:
        """Files found damaged while they were read (on_damage="quarantine"), and what is wrong with each: this rank's
        batches come without their samples from then on. Files that were damaged when the dataset was registered are no
        part of it. `strata datasets` shows both."""
        return dict(self._quarantined)

    def __iter__(self) -> Iterator[Batch]:
        at = self._begin()
        restores = self._positions.restores
        batches = self._share.batches(at, ahead=self._ahead)
        items = self._share.items()
        loop = self._loop = object()
        while True:
            if self._loop is not loop or self._positions.restores != restores:
                raise InvalidError(
                    f"iterating over dataset {self._id!r}: the job was restored meanwhile, or another loop was begun",
                    hint="begin the loop again: it continues where the job stands, after job.restore() at that step",
                )
            taken = batches.next()
            if taken is None:
                return
            # First: a warning that is an error must not lose the batch.
            self._leave_out(taken[5], stacklevel=3)
            self._positions.reached(taken[4])
            yield made(taken, items)

    def _position(self) -> Position:
        return self._share.start(self._positions.get(self._id))

    def _begin(self) -> Position:
        """Where the loop that begins now does."""
        was_reached = self._positions.was_reached(self._id)
        at = next_begin(self._share, self._position(), was_reached=was_reached)
        self._positions.opened(at)
        if self._quarantined:
            # The coordinator may be another one by now.
            self._report(self._id, list(self._quarantined.items()))
        return at

    def _leave_out(self, damaged: Iterable[_core._LeftOut], *, stacklevel: int) -> None:
        """Of a batch that is handed out, to a caller so far up: each file is told once, here and to the coordinator."""
        met = {str(path): reason for path, reason, _ in damaged if str(path) not in self._quarantined}
        if not met:
            return
        self._quarantined.update(met)
        self._report(self._id, list(met.items()))
        for file, reason in met.items():
            what = f"dataset {self._id!r} goes on without the samples of {file}: {reason}"
            warnings.warn(what, StrataWarning, stacklevel=stacklevel)

    def __repr__(self) -> str:
        return f"<Dataset {self._id!r} of {self.total_samples} samples, epoch {self.epoch}>"


def next_begin(share: _core.Share, at: Position, *, was_reached: bool) -> Position:
    """Where a loop begins: in the next epoch, when the last batch of one was handed out."""
    return share.next_epoch(at) if was_reached and not share.steps_left(at) else at


def made(taken: _core._Taken, items: tuple[str, list[int]]) -> Batch:
    """What the core has taken, with its items' dtype and the shape of a sample."""
    import numpy as np

    samples, indices, weight, at, _, damaged = taken
    numbers = np.frombuffer(_bytes(indices), "<i8")
    left_out = sum(samples for _, _, samples in damaged)
    return Batch(rows(samples, items), numbers, weight, at[1], at[2], left_out)


def rows(samples: _core.Buffer | _core.Table, items: tuple[str, list[int]]) -> np.ndarray[Any, Any] | Table:
    """Samples of one dtype as an array, others as a table."""
    import numpy as np

    if isinstance(samples, _core.Table):
        return Table(samples)
    dtype, shape = items
    return np.frombuffer(_bytes(samples), np.dtype(dtype).newbyteorder("<")).reshape(-1, *shape)


def _bytes(buffer: _core.Buffer) -> memoryview:
    return memoryview(cast(Any, buffer))  # type checkers know the buffer protocol from Python 3.12 on


Tail = Literal["short", "pad", "drop"]
OnDamage = Literal["raise", "quarantine"]


def check_batch_size(dataset_id: str, batch_size: object) -> int:
    """Raises InvalidError unless it is a whole number from 1 up."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InvalidError(
            f"reading dataset {dataset_id!r}: batch_size={batch_size!r}",
            hint="batch_size counts the samples of one step over all ranks and is at least 1",
        )
    return batch_size


def check_ahead(dataset_id: str, read_ahead: object) -> int:
    """Raises InvalidError unless it is a whole number from 0 to 64."""
    if isinstance(read_ahead, bool) or not isinstance(read_ahead, int) or not 0 <= read_ahead <= 64:
        raise InvalidError(
            f"reading dataset {dataset_id!r}: read_ahead={read_ahead!r}",
            hint="read_ahead counts the batches that are read before they are asked for, by as many threads: 0 to 64",
        )
    return read_ahead
