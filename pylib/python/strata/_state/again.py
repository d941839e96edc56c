"""What is remembered of a state that was planned, so that one like it is planned by comparing.

A training loop saves the same tensors again and again. Of each tensor everything that a plan depends on is compared
with the one at its place in the state before (type, dtype, shape, strides, address, allocation): where all of it is
the same, so are its node and its buffer. Plain values are read anew each time.

Measured for 444 tensors on 2 cores of an AMD EPYC: 5.8 ms without, 1.9 ms with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from .buffers import Buffer, View


class Changed(Exception):
    """The state is another one: plan it from the beginning."""


@dataclass(frozen=True, slots=True)
class Known:
    """A plan without the tensors it was made from: it keeps nothing alive."""

    views: list[View]
    buffers: list[Buffer]
    numbers: list[list[int]]
    """By buffer: which views it holds."""
    owners: Counter[tuple[str, int]]

    @staticmethod
    def of(views: Sequence[View], buffers: Sequence[Buffer]) -> Known:
        number = {id(view): place for place, view in enumerate(views)}
        return Known(
            [view.of(None) for view in views],
            [buffer.of(()) for buffer in buffers],
            [[number[id(view)] for view in buffer.views] for buffer in buffers],
            Counter(view.owner for view in views),
        )


class Again:
    """One state beside a known one, leaf by leaf in the same order."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._views: list[View] = []
        self._moved: list[int] = []

    def same(self, leaf: ModuleType, source: Any, name: str) -> View | None:
        """The known view of this place, if it is one of just this object's memory."""
        before = self._before()
        if before.leaf is not leaf or before.name != name or not leaf.is_same(before, source):
            return None
        view = before.of(source)
        self._views.append(view)
        return view

    def moved(self, view: View) -> View:
        """`view` with the known node, if it differs only in where it lies: what is made anew for each save, such as the
        states of random generators."""
        before = self._before()
        if not view.is_like(before):
            raise Changed
        view.node = before.node
        if view.address != before.address or view.owner != before.owner:
            self._moved.append(len(self._views))
        self._views.append(view)
        return view

    def _before(self) -> View:
        try:
            return self._known.views[len(self._views)]
        except IndexError:
            raise Changed from None

    def buffers(self) -> list[Buffer]:
        """What they were, over the views of now."""
        known, views = self._known, self._views
        if len(views) != len(known.views):
            raise Changed
        if self._moved and not self._apart():
            raise Changed
        moved = set(self._moved)
        return [
            buffer.of([views[number] for number in numbers], self._shift(numbers[0]) if numbers[0] in moved else 0)
            for buffer, numbers in zip(known.buffers, known.numbers, strict=True)
        ]

    def _apart(self) -> bool:
        """Whether each moved view had an allocation to itself and has one now, so that no buffer joins or parts."""
        known = self._known
        alone = all(known.owners[known.views[number].owner] == 1 for number in self._moved)
        return alone and len({view.owner for view in self._views}) == len(known.owners)

    def _shift(self, number: int) -> int:
        return self._views[number].address - self._known.views[number].address
