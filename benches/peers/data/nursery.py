"""Forks the ranks of chaos.py, with the loader's packages imported: a rank is there in milliseconds, not in seconds.

    python nursery.py MODULE:CLASS SOCKET KEY PACKAGE...    reads one line for each rank, which answers on the socket

A rank is the leader of a session of its own, so its workers can be ended with it. It says what it is, is sent a Life
and a state, and then does what it is asked: "take" a batch, "save" a state. It ends with the other side of its socket.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Client

from loaders import Loader, loader_at
from records import Array, verified


def main() -> None:
    place, address, key, *packages = sys.argv[1:]
    for package in packages:
        importlib.import_module(package)
    kind = loader_at(place)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no rank stays a zombie
    for line in sys.stdin:
        rank, world, life = (int(word) for word in line.split())
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            os.close(0)
            code = 1
            try:
                live(kind, rank, world, life, address, bytes.fromhex(key))
                code = 0
            except (EOFError, ConnectionError):
                code = 0  # the job is over, or has begun a new life
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)


def live(kind: type[Loader], rank: int, world: int, life: int, address: str, key: bytes) -> None:
    with Client(address, "AF_UNIX", authkey=key) as driver:
        driver.send((life, rank, os.getpid()))
        given, state = driver.recv()
        opened = kind(given)
        batches: Iterator[Array] | None = None

        def take() -> list[int] | None:
            nonlocal batches
            if batches is None:
                batches = opened.start(rank, world, state)
            batch = next(batches, None)
            return None if batch is None else verified(batch).tolist()

        asked = {"take": take, "save": opened.state_dict, "origin": getattr(opened, "origin", None)}
        while True:
            command = driver.recv()
            try:
                answer = ("done", asked[command]())
            except Exception as error:
                traceback.print_exc()
                answer = ("failed", words(error))
            driver.send(answer)


def words(error: Exception) -> str:
    """The error's own; of one that a worker had and torch has wrapped, without the traceback."""
    text = str(error)
    return text.splitlines()[-1] if "Original Traceback" in text else f"{type(error).__name__}: {text}"


if __name__ == "__main__":
    main()
