"""torch's TCPStore as a rendezvous uses it; started by the bench `coordinator`.

    tcpstore.py serve BYTES      prints `ready`, then answers lines, and ends with its standard input
    tcpstore.py version

A line is `add CALLERS SECONDS`, `get CALLERS SECONDS` (of a value of so many bytes) or `barrier CALLERS SECONDS`. The
answer is a JSON list: elapsed seconds, then the seconds of every call, or of every barrier. A barrier is torch's own
way: add to a count, and whoever completes it sets the key that the others wait for; they go on in lockstep, and one
takes from the last arrival to the last release. The first is not counted.

The server is a process of its own, and so is every caller: one interpreter's lock would be the limit of its threads.
"""

from __future__ import annotations

import json
import mmap
import multiprocessing
import struct
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch.distributed import TCPStore

LIMIT = timedelta(seconds=30)
FORK = multiprocessing.get_context("fork")
"""torch is imported once; nothing of it runs here, before the fork."""

Spans = list[tuple[float, float]]
"""When something was asked and when answered, as all processes of a machine count."""


def main() -> None:
    if sys.argv[1] == "version":
        print(f"torch {torch.__version__}")
        return
    mine, its = FORK.Pipe()
    server = FORK.Process(target=serve, args=(its, mine, int(sys.argv[2])))
    server.start()
    its.close()
    port = mine.recv()
    print("ready", flush=True)
    for run, line in enumerate(sys.stdin):
        what, callers, seconds = line.split()
        last = mmap.mmap(-1, 8)  # shared with those that are forked
        rounds = [Rounds(run, number, int(callers), float(seconds), last) for number in range(int(callers))]
        print(json.dumps(measure(port, what, rounds)), flush=True)
    mine.close()
    server.join()


def serve(pipe: Connection, other: Connection, nbytes: int) -> None:
    """Until the other end of the pipe is closed."""
    other.close()
    store = TCPStore("127.0.0.1", 0, is_master=True, timeout=LIMIT)
    store.set("value", "x" * nbytes)
    pipe.send(store.port)
    pipe.poll(None)


def measure(port: int, what: str, callers: list[Rounds]) -> list[float]:
    start = FORK.Barrier(len(callers))
    pipes, processes = [], []
    for rounds in callers:
        mine, its = FORK.Pipe(duplex=False)
        process = FORK.Process(target=call, args=(its, port, what, start, rounds))
        process.start()
        its.close()
        pipes.append(mine)
        processes.append(process)
    found: list[Spans] = [pipe.recv() for pipe in pipes]
    for process in processes:
        process.join()
    if what != "barrier":
        calls = [span for spans in found for span in spans]
        elapsed = max(left for _, left in calls) - min(came for came, _ in calls)
        return [elapsed, *(left - came for came, left in calls)]
    met = [(max(came for came, _ in of), max(left for _, left in of)) for of in zip(*found, strict=True)]
    # The first is over when the last process has started.
    return [met[-1][1] - met[0][1], *(left - came for came, left in met[1:])]


class Rounds:
    """How long a caller goes on: for so many seconds, or with all others to a round that the first of them names."""

    def __init__(self, run: int, number: int, callers: int, seconds: float, last: mmap.mmap) -> None:
        self.run, self.number, self.callers, self.seconds, self.last = run, number, callers, seconds, last

    def more(self, at: int, began: float) -> bool:
        """Nobody asks about the round after `at` before the first has come to `at`, so all find what it has named."""
        named: int = struct.unpack("q", self.last[:])[0]
        if named:
            return at < named
        if self.number == 0 and time.perf_counter() - began >= self.seconds:
            self.last[:] = struct.pack("q", at + 1)
        return True


def call(pipe: Connection, port: int, what: str, start: Any, rounds: Rounds) -> None:
    store = TCPStore("127.0.0.1", port, is_master=False, timeout=LIMIT)
    once: dict[str, Callable[[], object]] = {"add": lambda: store.add("count", 1), "get": lambda: store.get("value")}
    start.wait()
    began = time.perf_counter()
    spans: Spans = []
    if what == "barrier":
        meet(store, rounds, began, spans)
    else:
        of = once[what]
        while (asked := time.perf_counter()) - began < rounds.seconds:
            of()
            spans.append((asked, time.perf_counter()))
    pipe.send(spans)


def meet(store: TCPStore, rounds: Rounds, began: float, spans: Spans) -> None:
    at = 0
    while rounds.more(at, began):
        came = time.perf_counter()
        arrived, released = (f"{word}-{rounds.run}-{at}" for word in ("arrived", "released"))
        if store.add(arrived, 1) == rounds.callers:
            store.set(released, "")
        store.wait([released])
        spans.append((came, time.perf_counter()))
        at += 1


if __name__ == "__main__":
    main()
