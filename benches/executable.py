"""What the executable costs to start and to carry: `strata version` beside the bare interpreter, cold and warm.

    python3 benches/executable.py [--strata dist/strata] [--runs 20]

Cold means that the file's pages are dropped from the page cache before each start (posix_fadvise; no root). Runs are
interleaved; medians with the quartiles.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--strata", type=Path, default=ROOT / "dist/strata")
    arguments.add_argument("--runs", type=int, default=20)
    options = arguments.parse_args()
    strata = options.strata.resolve()
    print(f"size of {strata.name}: {strata.stat().st_size / 1e6:.1f} MB")
    commands = {
        "strata version": [strata, "version"],
        "strata python -c pass": [strata, "python", "-c", "pass"],
        f"{Path(sys.executable).name} -I -S -c pass": [sys.executable, "-I", "-S", "-c", "pass"],
    }
    for state in ("cold", "warm"):
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(options.runs):
            for name, command in commands.items():
                if state == "cold":
                    drop_pages(Path(command[0]).resolve())
                times[name].append(seconds(command))
        for name, found in times.items():
            low, middle, high = statistics.quantiles(found, n=4)
            print(f"{state}  {name:<32} {middle * 1e3:6.1f} ms  ({low * 1e3:.1f}–{high * 1e3:.1f})")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"largest resident size of all of these: {peak / 1024:.0f} MiB")


def drop_pages(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def seconds(command: list[str | Path]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={})
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
