"""What a save costs a training loop: the same 200 steps without saves, with Strata's modes, and with what a user would
pick instead.

    make bench-training        or        python benches/peers/training.py --python PYTHON_WITH_TORCH

A step computes for 250 ms on all cores and then updates its 1.11 GB of parameters and moments; a save every 20 steps.
Every way runs in a fresh process, beside a loop without saves in the same turn. What the machine gives drifts by more
between two processes than a save costs, so the same is told against the loop's own quiet steps: the last five before
each next save, when everything of the one before is done. What comes once (memory for the arena) is apart. Needs 6 GB
on the disk (TMPDIR or --folder).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from run import HERE, Bench
from schedule import EVERY, FIRST_SAVE

ORDER = (
    "none",
    "strata-lazy",
    "strata-fork",
    "strata-copy",
    "dcp-async-process",
    "dcp-async-thread",
    "torch-checkpointing",
    "dlrover-memory",
)
APART = {"torch-checkpointing": "torch_checkpointing", "dlrover-memory": "dlrover"}
"""Ways whose packages are no part of torch's environment."""

QUIET = 5
"""Steps before a save in which nothing of the one before is left to do."""

COLUMNS = (
    "block first",
    "block steady (spread)",
    "of it in the fence",
    "wall, against none (spread)",
    "of it once",
    "wall, against own quiet steps (spread)",
    "late saves",
    "page faults a save",
    "memory taken",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strata", type=Path, default=HERE.parents[1] / "dist" / "strata")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--only", nargs="+", choices=ORDER, default=ORDER)
    parser.add_argument("--folder", type=Path, help="where to write; on the disk to be measured")
    parser.add_argument("--json", type=Path, help="also write everything measured to this file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="strata-training-", dir=args.folder) as folder:
        bench = Bench(args.strata.resolve(), args.python, Path(folder), "loop.py")
        try:
            ways = installed(bench, [way for way in args.only if way != "none"])
            products = bench.measure("calibrate", {}, [])
            options = ["--steps", str(args.steps), "--products", str(products)]
            for turn in range(args.turns):
                for way in ["none", *ways]:
                    print(f"turn {turn + 1} of {args.turns}: {way}", file=sys.stderr, flush=True)
                    bench.turn(way, options)
        finally:
            bench.close()
    if args.json:
        args.json.write_text(json.dumps(bench.results, indent=1))
    print(render(bench.results, ["none", *ways]))
    return 0


def installed(bench: Bench, ways: list[str]) -> list[str]:
    """Those whose packages could be had; the others are named."""
    if not set(APART) & set(ways):
        return ways
    target = bench.folder / "site"
    pip = [bench.python, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
    done = subprocess.run([*pip, "-r", str(HERE / "peers.txt")], check=False, capture_output=True, text=True)
    if done.returncode == 0:
        return ways
    print(f"left out, could not be installed: {', '.join(APART)}\n{done.stderr}", file=sys.stderr)
    return [way for way in ways if way not in APART]


def render(results: list[dict[str, Any]], order: list[str]) -> str:
    by_way = {way: [result for result in results if result["way"] == way] for way in order}
    none = by_way["none"]
    step = statistics.median(time for result in none for time in result["steps"])
    lines = [
        f"{len(none[0]['steps'])} steps of {step * 1e3:.0f} ms, {len(none)} turns; without saves they take "
        f"{spread([result['took'] for result in none], 1, 's', 1)}.",
        "",
        "| | " + " | ".join(COLUMNS) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    for way in order[1:]:
        found = by_way[way]
        blocks = [[save + fence for save, fence in zip(r["saves"], r["fences"], strict=True)] for r in found]
        fences = [fence for result in found for fence in result["fences"][1:]]
        walls = [100 * (result["took"] / base["took"] - 1) for result, base in zip(found, none, strict=True)]
        once = statistics.median(first_steps(r) - first_steps(b) for r, b in zip(found, none, strict=True))
        own = [100 * extra for result in found for extra in against_quiet_steps(result["steps"])]
        faults = statistics.median(
            (r["faults"] - b["faults"]) / len(r["saves"]) for r, b in zip(found, none, strict=True)
        )
        cells = (
            f"{statistics.median(block[0] for block in blocks) * 1e3:.0f} ms",
            spread([value for block in blocks for value in block[1:]], 1e3, "ms", 1),
            f"{statistics.median(fences) * 1e3:.1f} ms",
            spread(walls, 1, "%", 1),
            f"{once:.1f} s",
            spread(own, 1, "%", 1),
            f"{sum(r['late'] for r in found)} of {sum(len(r['saves']) - 1 for r in found)}",
            f"{faults:,.0f}",
            f"{max(r['memory'] for r in found) / 1e9:.1f} GB",
        )
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def first_steps(result: dict[str, Any]) -> float:
    """Up to the second save."""
    return float(sum(result["steps"][: FIRST_SAVE + EVERY - 1]))


def against_quiet_steps(steps: list[float]) -> list[float]:
    """For each save but the first, by what part it and the steps behind it took longer than so many quiet ones."""
    saves = range(FIRST_SAVE + EVERY - 1, len(steps) - EVERY + 1, EVERY)
    intervals = [steps[save : save + EVERY] for save in saves]
    return [sum(steps) / (EVERY * statistics.median(steps[-QUIET:])) - 1 for steps in intervals]


def spread(values: list[float], scale: float, unit: str, digits: int) -> str:
    low, middle, high = (f(values) * scale for f in (min, statistics.median, max))
    return f"{middle:.{digits}f} {unit} ({low:.{digits}f}–{high:.{digits}f})"


if __name__ == "__main__":
    raise SystemExit(main())
