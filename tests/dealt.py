"""Loaders for test_data_benches.py: each deals samples 0, 1, 2, ... to its ranks, and keeps its place in its way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from loaders import Life, rank_by_rank
from records import Array


class Exact:
    """Its state is where the next step begins."""

    form = "bin"
    leaves = ""
    merged = staticmethod(rank_by_rank)
    off = 0
    """Steps that the state is ahead of the batches handed out."""

    def __init__(self, life: Life) -> None:
        self.life = life

    def start(self, rank: int, world: int, state: Any) -> Iterator[Array]:
        corpus, batch = self.life.corpus, self.life.batch
        records = corpus.block(0)
        self.place, self.world = state or 0, world
        while self.place < corpus.count:
            mine = self.place + rank * batch
            self.place += world * batch
            if mine >= corpus.count:
                return
            yield records[mine : mine + batch]

    def state_dict(self) -> Any:
        return max(0, self.place + self.off * self.world * self.life.batch)

    @staticmethod
    def keeper(rank: int, saved: int) -> int:
        return 0


class Ahead(Exact):
    """Its state is that of a prefetching worker, which has one more step at hand."""

    off = 1


class Behind(Exact):
    """Its state is from before the last batch was taken."""

    off = -1


class Committing(Exact):
    """Its states are durable by themselves, in a file beside the meetings, and it goes on from the newest one."""

    def start(self, rank: int, world: int, state: Any) -> Iterator[Array]:
        self.kept = self.life.meeting.with_name("kept")
        self.rank = rank
        self.begun, place = map(int, self.kept.read_text().split()) if self.kept.exists() else (0, 0)
        self.step = self.begun
        return super().start(rank, world, place)

    def state_dict(self) -> Any:
        self.step += 1
        if self.rank == 0:
            part = self.kept.with_name("part")
            part.write_text(f"{self.step} {self.place}")
            part.rename(self.kept)
        return self.step

    def origin(self) -> int:
        return self.begun


class Astray(Committing):
    """It goes on from the commit before the last one."""

    def origin(self) -> int:
        return max(0, self.begun - 1)


class OneWorld(Exact):
    """It does not go on in another world, and says so."""

    def start(self, rank: int, world: int, state: Any) -> Iterator[Array]:
        if state is not None and state[1] != world:
            raise ValueError(f"saved in a world of {state[1]}, this is one of {world}")
        return super().start(rank, world, None if state is None else state[0])

    def state_dict(self) -> Any:
        return super().state_dict(), self.world
