"""The datasets that loaders of this process have, and the process that has the job."""

from __future__ import annotations

import os
import uuid
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import data
from .._positions import Position, Positions
from ..errors import InvalidError
from .board import Board

if TYPE_CHECKING:
    from .batch import Origin

Loop = tuple[int, int]
NO_LOOP: Loop = (0, 0)

_here: weakref.WeakValueDictionary[str, Face] = weakref.WeakValueDictionary()


class Face:
    """One rank's share of a dataset, as torch's loaders and their workers have it: pickled, it has no job."""

    def __init__(self, dataset: data.Dataset, transform: Callable[[data.Batch], Any] | None) -> None:
        if not isinstance(dataset, data.Dataset):
            raise InvalidError(
                f"making a torch dataset: got a {type(dataset).__name__}",
                hint="pass what job.dataset(…) returns",
            )
        self.token = uuid.uuid4().hex
        self.transform = transform
        self.share = dataset._share
        self.board = Board(dataset._position())
        self._home: tuple[data.Dataset, Positions, int] | None = (dataset, dataset._positions, os.getpid())
        self._touched: Loop = NO_LOOP
        self._loops = 0
        _here[self.token] = self
        dataset._positions.watch(dataset.id, weakref.ref(self))
        self.moved()

    @property
    def home(self) -> tuple[data.Dataset, Positions] | None:
        """None in workers."""
        if self._home is None or self._home[2] != os.getpid():
            return None
        return self._home[:2]

    def begin(self) -> tuple[Position, int]:
        """Where the next loop begins in the process that has the job, and how often that has restored."""
        assert self._home is not None
        dataset, positions, _ = self._home
        return dataset._begin(), positions.restores

    def next_begin(self) -> tuple[Position, int]:
        """What `begin` would say, in any process, and without beginning."""
        at, restores, was_reached = self.board.standing()
        return data.next_begin(self.share, at, was_reached=was_reached), restores

    def steps_of_next_loop(self) -> int:
        return self.share.steps_left(self.next_begin()[0])

    def next_loop(self, of: int) -> Loop:
        """A name for a loop that is none of those before it, among loaders that are told apart by `of`."""
        self._loops += 1
        return of, self._loops

    def is_at(self, position: Position) -> None:
        """The job goes on there: what `load_state_dict` says."""
        assert self._home is not None
        _, positions, _ = self._home
        positions.restored([self.share.start(position)])

    # -- what `Positions` asks its watchers

    def moved(self) -> None:
        if (home := self.home) is not None:
            dataset, positions = home
            over = positions.was_reached(dataset.id)
            self.board.stand(dataset._position(), positions.restores, over)

    def check(self) -> None:
        home = self.home
        if home is not None and self.board.producing() not in (NO_LOOP, self._touched):
            raise InvalidError(
                f"saving how far dataset {home[0].id!r} was read: no batch of this loop has told",
                hint="look at an attribute of a strata.torch.Batch before you save; where collate_fn makes something "
                "else of batches, give that work to transform=",
            )

    def handed_over(self, origin: Origin) -> None:
        home = self.home
        if home is None:
            return
        dataset, positions = home
        if origin.restores != positions.restores:
            raise InvalidError(
                f"taking a batch of dataset {dataset.id!r}: it was read before the job was restored",
                hint="begin the loop again after job.restore(): it continues at the restored step",
            )
        dataset._leave_out(origin.damaged, stacklevel=6)
        self._touched = origin.loop
        if _place(origin.after) > _place(dataset._position()):
            positions.reached(origin.after)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_home": None}


def handed_over(origin: Origin) -> None:
    """In a worker, and where the face is gone, nobody wants to know."""
    if (face := _here.get(origin.face)) is not None:
        face.handed_over(origin)


def _place(position: Position) -> tuple[int, int]:
    _, epoch, step, batch_size, start, _ = position
    return epoch, start + step * batch_size


def as_state(position: Position) -> dict[str, Any]:
    names = ("dataset", "epoch", "step", "batch_size", "start", "version")
    return dict(zip(names, position, strict=True))


def from_state(state: dict[str, Any], what: str) -> Position:
    try:
        return (
            str(state["dataset"]),
            int(state["epoch"]),
            int(state["step"]),
            int(state["batch_size"]),
            int(state["start"]),
            int(state["version"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidError(
            f"loading the state of {what}: {error!r}", hint="pass what its state_dict() returned"
        ) from error
