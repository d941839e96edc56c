"""A job of chaos.py: all its ranks, each a process with a loader, asked for the same step at the same time."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Listener
from pathlib import Path
from typing import Any

from loaders import LOADERS, PACKAGES, Life, loader
from node import Node
from packages import HERE, Packages
from records import Corpus

PATIENCE = 120.0
"""Seconds for an answer."""


SHARED = Path("/dev/shm")


def left_behind(name: str) -> set[str]:
    """What this loader's killed ranks leave in shared memory, of any job."""
    pattern = loader(name).leaves
    return {path.name for path in SHARED.iterdir() if pattern and re.fullmatch(pattern, path.name)}


class Failed(Exception):
    """A rank's loader did; the text is its own."""


@dataclass
class Rank:
    number: int
    pid: int
    driver: Any

    def answer(self) -> Any:
        if not self.driver.poll(PATIENCE):
            raise Failed(f"rank {self.number} has not answered for {PATIENCE:.0f} s")
        try:
            what, answer = self.driver.recv()
        except EOFError:
            raise Failed(f"rank {self.number} ended by itself") from None
        if what == "failed":
            raise Failed(answer)
        return answer


class Job:
    """Its ranks' words go to `log`."""

    def __init__(
        self, packages: Packages, name: str, corpus: Corpus, workers: int, seed: int, folder: Path, log: Path
    ) -> None:
        self.name, self.corpus, self.workers, self.seed, self.folder = name, corpus, workers, seed, folder
        self.life = 0
        self.shared = left_behind(name)
        self.ranks: list[Rank] = []
        key = secrets.token_bytes(16)
        self.listener = Listener(str(folder / "s.sock"), "AF_UNIX", backlog=64, authkey=key)
        self.log = log.open("a")
        command = [packages.python, str(HERE / "nursery.py"), LOADERS[name], str(folder / "s.sock"), key.hex()]
        command += PACKAGES[name]
        environment = packages.environment(name) | {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
        self.node = Node(packages.strata, folder) if name.startswith("strata") else None
        if self.node:
            environment |= self.node.env
        self.nursery = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=self.log, stderr=self.log, text=True
        )

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self.listener.close()
        assert self.nursery.stdin
        self.nursery.stdin.close()
        self.nursery.wait(PATIENCE)
        self.log.close()
        if self.node:
            self.node.close()
        for left in left_behind(self.name) - self.shared:
            (SHARED / left).unlink(missing_ok=True)

    def start(self, world: int, whole: int, states: Sequence[Any] | None) -> None:
        """All ranks of a new life, from what those of the one before had saved at their last commit; a step has `whole`
        samples."""
        self.life += 1
        keeper = loader(self.name).keeper
        meeting = self.folder / f"meeting-{self.life}"
        given = Life(self.corpus, whole // world, whole, self.workers, self.seed, meeting, self.life)
        assert self.nursery.stdin
        for rank in range(world):
            self.nursery.stdin.write(f"{rank} {world} {self.life}\n")
        self.nursery.stdin.flush()
        while len(self.ranks) < world:
            driver = self.listener.accept()
            life, rank, pid = driver.recv()
            assert life == self.life
            driver.send((given, None if states is None else states[keeper(rank, len(states))]))
            self.ranks.append(Rank(rank, pid, driver))
        self.ranks.sort(key=lambda rank: rank.number)

    def ask(self, command: str) -> None:
        for rank in self.ranks:
            rank.driver.send(command)

    def answers(self) -> list[Any]:
        return [rank.answer() for rank in self.ranks]

    def kill(self, number: int) -> None:
        """One rank, without a warning; a launcher ends the others."""
        os.kill(self.ranks[number].pid, signal.SIGKILL)
        self.end()

    def end(self) -> None:
        """With their workers: each rank leads a process group."""
        for rank in self.ranks:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(rank.pid, signal.SIGKILL)
        for rank in self.ranks:
            with contextlib.suppress(EOFError, ConnectionError):
                while True:  # until the last process that could answer is gone
                    rank.driver.recv()
            rank.driver.close()
        self.ranks = []
