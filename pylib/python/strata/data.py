"""Batches of a registered dataset, in an order that a resumed job takes up exactly where its committed step stood."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from . import _core
from .errors import InvalidError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Batch", "Dataset", "Positions", "Table"]

Position = tuple[str, int, int, int, int, int]  # (dataset, epoch, step, batch size, start, version)


@dataclass(frozen=True, slots=True)
class Batch:
    """This rank's part of one global step.

    Attributes:
        samples: array of shape (n, *shape of a sample) in the dataset's dtype; of parquet, jsonl and webdataset a
            `Table` of n rows. n differs by at most one between ranks, and may be 0 at the end of an epoch.
        indices: int64 array of shape (n,): which samples these are.
        weight: how many of them are real; the others pad the epoch's last step (tail="pad").
        epoch: from 0.
        step: global step within the epoch, or since the batch size was last changed.
    """

    samples: np.ndarray[Any, Any] | Table = field(repr=False)
    indices: np.ndarray[Any, np.dtype[np.int64]] = field(repr=False)
    weight: int
    epoch: int
    step: int

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


class Positions:
    """How far a job has consumed each of its datasets: what `save` takes along and `restore` brings back.

    A position is that of the last batch handed to the caller.
    """

    def __init__(self) -> None:
        self._known: dict[str, Position] = {}
        self._restores = 0

    def all(self) -> list[Position]:
        return [self._known[dataset] for dataset in sorted(self._known)]

    def get(self, dataset: str) -> Position | None:
        return self._known.get(dataset)

    def reached(self, position: Position) -> None:
        self._known[position[0]] = position

    def restored(self, positions: list[Position]) -> None:
        """The job is at another place now: what datasets have open is out of date."""
        self._known.update({position[0]: position for position in positions})
        self._restores += 1

    @property
    def restores(self) -> int:
        return self._restores


class Dataset:
    """One rank's share of a dataset. Each loop over it takes what is left of an epoch; the next loop the next epoch.

        for epoch in range(dataset.epoch, epochs):
            for batch in dataset:
                ...

    All ranks take the same number of batches. Reading happens in this process, in the calling thread.
    """

    def __init__(
        self, session: _core.Session, positions: Positions, dataset_id: str, batch_size: int, tail: str
    ) -> None:
        self._session = session
        self._positions = positions
        self._id = dataset_id
        self._batch_size = batch_size
        self._tail = tail
        self._epoch_is_over = False
        self._open()

    def _open(self) -> None:
        at = self._positions.get(self._id)
        self._opened_after = self._positions.restores
        self._batches = self._session.batches(self._id, self._batch_size, self._tail, at)
        self._epoch_is_over = False
        self._positions.reached(self._batches.position())

    def _current(self) -> _core.Batches:
        if self._opened_after != self._positions.restores:
            self._open()
        return self._batches

    @property
    def id(self) -> str:
        return self._id

    @property
    def batch_size(self) -> int:
        """Samples of one step over all ranks."""
        return self._batch_size

    @property
    def total_samples(self) -> int:
        return self._current().total_samples

    @property
    def epoch(self) -> int:
        """The epoch of the last batch handed out, or of the first one to come; from 0."""
        return self._current().position()[1]

    @property
    def steps_left(self) -> int:
        """Batches left in this epoch."""
        return self._current().steps_left

    @property
    def uneven(self) -> int:
        """What the epoch's tail costs: samples padded (tail="pad") or dropped (tail="drop")."""
        return self._current().uneven

    def __iter__(self) -> Iterator[Batch]:
        batches = self._current()
        if self._epoch_is_over:
            self._epoch_is_over = False
            batches.next_epoch()
            self._positions.reached(batches.position())
        while True:
            if self._opened_after != self._positions.restores or self._batches is not batches:
                raise InvalidError(
                    f"iterating over dataset {self._id!r}: the job was restored meanwhile",
                    hint="begin the loop again after job.restore(): it continues at the restored step",
                )
            taken = batches.next()
            if taken is None:
                self._epoch_is_over = True
                return
            self._positions.reached(batches.position())
            yield _batch(batches, taken)

    def __repr__(self) -> str:
        return f"<Dataset {self._id!r} of {self.total_samples} samples, epoch {self.epoch}>"


def _batch(batches: _core.Batches, taken: tuple[_core.Buffer | _core.Table, _core.Buffer, int, int, int]) -> Batch:
    import numpy as np

    samples, indices, weight, epoch, step = taken
    numbers = np.frombuffer(_bytes(indices), "<i8")
    if isinstance(samples, _core.Table):
        return Batch(Table(samples), numbers, weight, epoch, step)
    items = np.frombuffer(_bytes(samples), np.dtype(batches.dtype).newbyteorder("<"))
    return Batch(items.reshape(len(numbers), *batches.shape), numbers, weight, epoch, step)


def _bytes(buffer: _core.Buffer) -> memoryview:
    return memoryview(cast(Any, buffer))  # type checkers know the buffer protocol from Python 3.12 on


Tail = Literal["short", "pad", "drop"]


def check_batch_size(dataset_id: str, batch_size: object) -> int:
    """Raises InvalidError unless it is a whole number from 1 up."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InvalidError(
            f"reading dataset {dataset_id!r}: batch_size={batch_size!r}",
            hint="batch_size counts the samples of one step over all ranks and is at least 1",
        )
    return batch_size
