"""Measures one reader in this fresh process; prints one JSON object as its last line. Started by speed.py.

    python epochs.py READER CORPUS_HOME SIZE COUNT SEED FILE BATCH WORKERS ORDER SECONDS

The first epoch begins before the reader's package is imported, with its files not in memory; then come steady ones, for
SECONDS and at least two. Every epoch is checked for having had each sample once, and of one more, which is not timed,
every byte: what it does there would be the reader's own time otherwise.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from readers import Reader, reader
from records import Array, Corpus, numbers, verified

LOOKS = 8
"""How often memory is looked at in the epoch that is not timed."""


def main() -> None:
    name, home, size, count, seed, file, batch, workers, order, seconds = sys.argv[1:]
    corpus = Corpus(Path(home), int(size), int(count), int(seed), int(file))
    kind = reader(name)
    corpus.evict(kind.form)
    began = time.perf_counter()
    opened = kind(corpus, int(batch), int(workers), order == "shuffled", corpus.seed)
    result: dict[str, Any] = {"reader": name, "size": corpus.size, "workers": int(workers), "open": since(began)}
    first = next(taken := opened.epoch())
    result["first batch"] = since(began)
    result["first"] = since(began) + timed(corpus, taken, first)
    steady: list[float] = []
    busy, own, started = busy_seconds(), family_seconds(), time.perf_counter()
    while len(steady) < 2 or sum(steady) < float(seconds):
        steady.append(timed(corpus, opened.epoch(), None))
    own = family_seconds() - own
    others = busy_seconds() - busy - own
    result["cpu"] = own / (len(steady) * corpus.count)
    result["others"] = max(0.0, others) / (os.cpu_count() or 1) / since(started)
    result |= {"steady": steady, "memory": last_epoch(corpus, opened), "count": corpus.count}
    if close := getattr(opened, "close", None):
        close()
    print(json.dumps(result))


def since(began: float) -> float:
    return time.perf_counter() - began


def timed(corpus: Corpus, batches: Any, first: Array | None) -> float:
    """Seconds of an epoch, or of what is left of it behind its first batch."""
    seen = [] if first is None else [numbers(first)]
    began = time.perf_counter()
    for batch in batches:
        seen.append(numbers(batch))
    took = since(began)
    each_once(corpus, seen)
    return took


def each_once(corpus: Corpus, seen: list[Array]) -> None:
    times = np.bincount(np.concatenate(seen), minlength=corpus.count)
    if len(times) != corpus.count or (times != 1).any():
        raise SystemExit(
            f"an epoch of {corpus.count} samples had {int((times == 0).sum())} not at all and "
            f"{int((times > 1).sum())} more than once"
        )


def last_epoch(corpus: Corpus, opened: Reader) -> int:
    """Every byte is checked; the most memory that this process and its children had meanwhile."""
    seen: list[Array] = []
    peak, held = 0, 0
    for batch in opened.epoch():
        seen.append(verified(batch))
        held += len(batch)
        if held * LOOKS >= corpus.count:
            peak, held = max(peak, memory()), 0
    each_once(corpus, seen)
    return peak


def memory() -> int:
    """Of this process and all below it, shared pages by their share: what is no file's, in bytes."""
    total = 0
    for process in family():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
    return total


def family_seconds() -> float:
    """CPU time of this process and all below it, with those that have ended."""
    return sum(sum(int(field) for field in fields[11:15]) for fields in family().values()) / os.sysconf("SC_CLK_TCK")


def busy_seconds() -> float:
    """CPU time of everybody on this machine."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    idle, waiting = fields[3], fields[4]
    return (sum(fields[:8]) - idle - waiting) / os.sysconf("SC_CLK_TCK")


def family() -> dict[int, list[str]]:
    """This process and all below it, with their fields of /proc/PID/stat from the state on."""
    found: dict[int, list[str]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            found[int(path.parent.name)] = path.read_text().rsplit(")", 1)[1].split()
    mine = {os.getpid()}
    while more := {process for process, fields in found.items() if int(fields[1]) in mine} - mine:
        mine |= more
    return {process: found[process] for process in mine}


if __name__ == "__main__":
    main()
