"""How soon a fresh process has the batch due at the half of an epoch of 10^9 samples.

    make bench-billion        or        python billion.py --python PYTHON_WITH_TORCH --peers PYTHON_OF_PEERS

Strata alone: the others' formats would have to be written. The samples are bytes of files that take no room on the
disk, so all that counts is how the place is found. A node runs (`strata up`); one process commits the position, then
fresh ones connect, register, restore and take a batch, which must be the one that was due. The clock begins when the
process is started; what its imports take (strata, NumPy) is told apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from node import Node
from packages import HERE, Packages

SAMPLES = 10**9
FILES = 16
BATCH = 512
STEP = SAMPLES // BATCH // 2
SHARD = 1_000_000
PARTS = ("interpreter", "connect", "register", "restore", "dataset", "batch")

NAMES = {
    "first": "**from process start to the first indices, without imports**",
    "interpreter": "of it the interpreter's own start",
    "imports": "the imports",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    Packages.add_arguments(parser)
    parser.add_argument("--turns", type=int, default=11)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="strata-billion-") as name:
        turns = measure(Packages(args.python, args.peers, args.strata, Path(name)), Path(name), args.turns)
    print(f"{SAMPLES:,} samples, shuffled, in shards of {SHARD:,}; step {STEP:,} of batches of {BATCH}")
    print(f"| | median of {args.turns} (least–most), ms |\n|---|---|")
    for part in ("first", *PARTS, "imports"):
        took = [turn[part] * 1e3 for turn in turns]
        spread = f"{statistics.median(took):.1f} ({min(took):.1f}–{max(took):.1f})"
        print(f"| {NAMES.get(part, f'of it {part}')} | {spread} |")
    return 0


def measure(packages: Packages, folder: Path, turns: int) -> list[dict[str, Any]]:
    """Seconds of each part of each turn, and the numbers of the samples."""
    data = folder / "data"
    data.mkdir()
    for number in range(FILES):
        with (data / f"{number:02}.bin").open("wb") as file:
            file.truncate(SAMPLES // FILES)
    with Node(packages.strata, folder) as node:
        due = start(packages, node, data, "commit")["indices"]
        taken = [start(packages, node, data, "resume") for _ in range(turns)]
    if any(turn["indices"] != due for turn in taken):
        raise SystemExit("a process went on with another batch than the one that was due")
    return taken


def start(packages: Packages, node: Node, data: Path, what: str) -> dict[str, Any]:
    shape = [str(number) for number in (SHARD, BATCH, STEP)]
    command = [packages.python, str(HERE / "rejoin.py"), what, str(data), *shape, str(time.monotonic())]
    environment = packages.environment("strata") | node.env
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise SystemExit(f"{what}: {done.returncode}\n{done.stderr}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


if __name__ == "__main__":
    raise SystemExit(main())
