"""What the machine itself allows: memory copy into an arena by two threads, direct writes to the disk (fio)."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

COPIES = 8
FIO = "fio --name=limit --rw=write --bs=16M --iodepth=4 --ioengine=libaio --direct=1 --fallocate=posix --end_fsync=1"


def copy_seconds(nbytes: int, arena_folder: Path) -> list[float]:
    """Seconds of each of several two-thread copies of `nbytes` into one tmpfs mapping; the first touch is left out."""
    path = arena_folder / "memcpy-limit"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, nbytes)
        source = np.ones(nbytes, dtype=np.uint8)
        target = np.frombuffer(mmap.mmap(descriptor, nbytes), dtype=np.uint8)
        half = nbytes // 2
        parts = [(target[:half], source[:half]), (target[half:], source[half:])]
        return [two_threads(parts) for _ in range(COPIES + 1)][1:]
    finally:
        os.close(descriptor)
        path.unlink()


def two_threads(parts: list[tuple[Bytes, Bytes]]) -> float:
    gate = threading.Barrier(3)

    def work(target: Bytes, source: Bytes) -> None:
        gate.wait()
        np.copyto(target, source)
        gate.wait()

    for part in parts:
        threading.Thread(target=work, args=part, daemon=True).start()
    gate.wait()
    started = time.perf_counter()
    gate.wait()
    return time.perf_counter() - started


def direct_write_seconds(nbytes: int, folder: Path) -> float:
    """Seconds fio needs to write and fsync a new file of `nbytes` with O_DIRECT."""
    command = [*FIO.split(), f"--size={nbytes}", f"--directory={folder}", "--output-format=json", "--unlink=1"]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    milliseconds: float = report["jobs"][0]["job_runtime"]
    return milliseconds / 1e3
