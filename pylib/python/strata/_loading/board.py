"""What the processes of a loader tell each other, in shared memory."""

from __future__ import annotations

import time

import torch

from .._positions import Position
from ..errors import StrataTimeoutError

PATIENCE = 60.0
"""Seconds that workers wait for the first of them to begin a loop."""

STANDS, BEGAN, PRODUCING = 0, 8, 16
"""Where each part begins: a count of writes, and behind it what is written."""


class Board:
    """Three notes: where the job stands, by the process that has it; where a loop began, by the loader's first worker;
    and which loop batches were read of, by all workers. Readers see a note whole.
    """

    def __init__(self, position: Position) -> None:
        self._cells = torch.zeros(24, dtype=torch.int64).share_memory_()
        self._dataset, self._version = position[0], position[5]

    def stand(self, position: Position, restores: int, was_reached: bool) -> None:
        self._write(STANDS, [restores, int(was_reached), *position[1:5]])

    def standing(self) -> tuple[Position, int, bool]:
        """Position, restores so far, and whether a batch brought the job there."""
        restores, was_reached, *at = self._read(STANDS, 6)
        return self._position(at), restores, bool(was_reached)

    def begin(self, loop: tuple[int, int], position: Position, restores: int) -> None:
        self._write(BEGAN, [*loop, restores, *position[1:5]])

    def began(self, loop: tuple[int, int]) -> tuple[Position, int]:
        """Waits until the loader's first worker has begun this loop.

        Raises:
            StrataTimeoutError: it has not within a minute.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            *known, restores, epoch, step, batch_size, start = self._read(BEGAN, 7)
            if tuple(known) == loop:
                return self._position([epoch, step, batch_size, start]), restores
            if time.monotonic() > deadline:
                raise StrataTimeoutError(
                    f"beginning a loop over dataset {self._dataset!r}: the loader's first worker has not begun it "
                    f"within {PATIENCE:.0f} s",
                    hint="it may be stuck in what it does when it starts (worker_init_fn)",
                )
            time.sleep(0.001)

    def produce(self, loop: tuple[int, int]) -> None:
        """Whichever worker is the last writes the same."""
        self._cells[PRODUCING], self._cells[PRODUCING + 1] = loop

    def producing(self) -> tuple[int, int]:
        first, second = self._cells[PRODUCING : PRODUCING + 2].tolist()
        return first, second

    def _position(self, at: list[int]) -> Position:
        epoch, step, batch_size, start = at
        return self._dataset, epoch, step, batch_size, start, self._version

    def _write(self, part: int, values: list[int]) -> None:
        self._cells[part] += 1
        self._cells[part + 1 : part + 1 + len(values)] = torch.tensor(values)
        self._cells[part] += 1

    def _read(self, part: int, count: int) -> list[int]:
        while True:
            note: list[int] = self._cells[part : part + 1 + count].tolist()
            before, *values = note
            if before % 2 == 0 and before == self._cells[part].item():
                return values
