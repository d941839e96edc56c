"""How far a job has consumed each of its datasets: what `save` takes along and `restore` brings back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Position = tuple[str, int, int, int, int, int]  # (dataset, epoch, step, batch size, start, version)


class Watcher(Protocol):
    """Who reads a dataset in other processes."""

    def moved(self) -> None:
        """The position is another now."""

    def check(self) -> None:
        """Raises InvalidError if it can't say how far the job has come."""


class Positions:
    """A position is that of the last batch handed to the caller."""

    def __init__(self) -> None:
        self._known: dict[str, Position] = {}
        self._reached: set[str] = set()
        self._watchers: dict[str, list[Callable[[], Watcher | None]]] = {}
        self._restores = 0

    def all(self) -> list[Position]:
        """All datasets' positions.

        Raises:
            InvalidError: one can't be told, because nothing of what a loader handed out says where it comes from.
        """
        for dataset in self._known:
            for watcher in self._watching(dataset):
                watcher.check()
        return [self._known[dataset] for dataset in sorted(self._known)]

    def get(self, dataset: str) -> Position | None:
        return self._known.get(dataset)

    def was_reached(self, dataset: str) -> bool:
        """Whether a batch brought the job there, and not the beginning of a loop or a restore."""
        return dataset in self._reached

    def opened(self, position: Position) -> None:
        """A loop begins there."""
        if self._known.get(position[0]) == position:
            return
        self._set(position)
        self._reached.discard(position[0])
        self._moved(position[0])

    def reached(self, position: Position) -> None:
        self._set(position)
        self._reached.add(position[0])
        self._moved(position[0])

    def restored(self, positions: list[Position]) -> None:
        """The job is at another place now: loops that have begun are out of date."""
        self._restores += 1
        for position in positions:
            self._set(position)
            self._reached.discard(position[0])
            self._moved(position[0])

    @property
    def restores(self) -> int:
        return self._restores

    def watch(self, dataset: str, watcher: Callable[[], Watcher | None]) -> None:
        """`watcher` is a weak reference."""
        living = [of for of in self._watchers.get(dataset, ()) if of() is not None]
        self._watchers[dataset] = [*living, watcher]

    def _set(self, position: Position) -> None:
        self._known[position[0]] = position

    def _moved(self, dataset: str) -> None:
        if self._watchers:
            for watcher in self._watching(dataset):
                watcher.moved()

    def _watching(self, dataset: str) -> list[Watcher]:
        return [watcher for of in self._watchers.get(dataset, ()) if (watcher := of()) is not None]
