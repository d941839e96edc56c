"""A dataset as torch's iterable one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch.utils.data

from .. import data
from .._positions import Position
from ..errors import ConflictError
from . import faces
from .batch import Batch, Origin, made
from .faces import Loop


class IterableDataset(torch.utils.data.IterableDataset):  # type: ignore[misc]  # torch may be absent where types are checked
    """This rank's batches, for `DataLoader(IterableDataset(ds), batch_size=None, num_workers=4)`.

    Each loop takes what is left of an epoch, the next loop the next epoch; worker processes take its steps in turn, so
    the loader hands them over in their order, also persistent ones after a restore. `job.save` takes along the position
    of the last `Batch` that was looked at. StatefulDataLoader finds `state_dict` and `load_state_dict`.

    Args:
        dataset: what `job.dataset` returns.
        transform: gets each `strata.data.Batch` where it is read, in a worker; returns what the batch's `samples` are.
    """

    def __init__(self, dataset: data.Dataset, *, transform: Callable[[data.Batch], Any] | None = None) -> None:
        self._face = faces.Face(dataset, transform)
        self._ahead = dataset._ahead
        self._loaded: Position | None = None
        self._due: Position | None = None

    def __len__(self) -> int:
        """Batches of the loop that begins next."""
        return self._face.steps_of_next_loop()

    def __iter__(self) -> Iterator[Batch]:
        # Now, and not with the first batch: the position may move until then.
        worker = torch.utils.data.get_worker_info()
        if worker is None:
            at, restores = self._face.begin()
            loop = self._face.next_loop(of=0)
            return self._batches(loop, at, restores, every=1, ahead=self._ahead)
        loop = self._face.next_loop(of=worker.seed - worker.id)
        at, restores = self._begin_together(loop, is_first=worker.id == 0)
        if self._loaded is not None:
            at, self._loaded = self._loaded, None
        else:
            at = self._face.share.skipped(at, worker.id)
        self._due = at
        return self._batches(loop, at, restores, every=worker.num_workers, ahead=0)

    def _begin_together(self, loop: Loop, *, is_first: bool) -> tuple[Position, int]:
        """Where this loop begins for all workers: where the job stood when the first of them began it."""
        board = self._face.board
        if not is_first:
            return board.began(loop)
        at, restores = self._face.next_begin()
        board.begin(loop, at, restores)
        return at, restores

    def _batches(self, loop: Loop, at: Position, restores: int, *, every: int, ahead: int) -> Iterator[Batch]:
        face = self._face
        batches, items = face.share.batches(at, every, ahead), face.share.items()
        while (taken := batches.next()) is not None:
            *_, at, after, damaged = taken
            origin = Origin(face.token, loop, restores, at, after, tuple(damaged))
            batch = made(taken, items, face.transform, origin)
            self._due = face.share.skipped(at, every)
            if face.home is None:
                face.board.produce(loop)
            else:
                batch._tell()
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Where to go on: behind the last batch handed over; in a worker, behind the last it has read."""
        if self._face.home is None and self._due is not None:
            return faces.as_state(self._due)
        return faces.as_state(self._face.board.standing()[0])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next loop begins there.

        Raises:
            InvalidError: no such state.
            ConflictError: it belongs to another dataset, the dataset has changed, or it is one of several workers' and
                of another batch size.
        """
        position = faces.from_state(state, "a torch dataset")
        if self._face.home is not None:
            self._face.is_at(position)
            return
        at = self._face.share.start(position)
        worker = torch.utils.data.get_worker_info()
        if at[3] != position[3] and worker is not None and worker.num_workers > 1:
            raise ConflictError(
                f"loading a worker's state of dataset {at[0]!r}: it counts steps of {position[3]} samples, and "
                f"batch_size is {at[3]}: its workers would take some samples twice",
                hint="go on with the same batch size; or take the position from job.restore(), which any batch size "
                "and number of workers can go on from",
            )
        self._loaded = at
