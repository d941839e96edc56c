"""How soon a loader hands out its first batch from a state that was saved at the half of an epoch.

    make bench-resume        or        python resume.py --python PYTHON_WITH_TORCH --peers PYTHON_OF_PEERS

One process reads half an epoch and saves the loader's state, another one goes on from there; beside it the first batch
of an epoch from its beginning. Packages are imported before the clock runs. Both halves together are checked for having
each sample once, and the first batch behind the half for being the one that was to come.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from loaders import LOADERS, WITHOUT_WORKERS, loader
from node import Node
from packages import HERE, Packages
from records import Corpus
from speed import LIMIT, SIZES, arguments, make

SIZE = 2048
COLUMNS = ("workers", "first batch of an epoch", "first batch at its half", "state_dict()", "state", "the batch due")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    Packages.add_arguments(parser)
    parser.add_argument("--corpus", type=Path, required=True, help="where the corpus lies, or will")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 2])
    parser.add_argument("--only", nargs="+", choices=LOADERS, default=list(LOADERS))
    parser.add_argument("--seed", type=int, default=7, help="of the corpus and of its order")
    parser.add_argument("--json", type=Path, help="also write everything measured to this file")
    args = parser.parse_args()
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="strata-resume-") as folder:
        packages = Packages(args.python, args.peers, args.strata, Path(folder))
        corpus = Corpus(args.corpus.resolve(), SIZE, SIZES[SIZE][0], args.seed)
        make(packages, corpus, {loader(name).form for name in args.only})
        for turn, workers, name in itertools.product(range(args.turns), args.workers, args.only):
            if workers in args.workers[1:] and name in WITHOUT_WORKERS:
                continue
            print(f"turn {turn + 1} of {args.turns}: {name}, {workers} workers", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(dir=folder) as between:
                found.setdefault((name, workers), []).append(halves(packages, corpus, name, workers, Path(between)))
        versions = packages.versions()
    if args.json:
        args.json.write_text(json.dumps([{"loader": n, "workers": w, "turns": t} for (n, w), t in found.items()]))
    print(render(found))
    print(f"\n{corpus.count:,} records of {SIZE:,} bytes, shuffled, batches of {SIZES[SIZE][1]}; {versions}.")
    return 0


def halves(packages: Packages, corpus: Corpus, name: str, workers: int, between: Path) -> dict[str, Any]:
    """Of one epoch; Strata's node runs before the first and behind the second, as on a real machine."""
    with contextlib.ExitStack() as running:
        env = running.enter_context(Node(packages.strata, between)).env if name.startswith("strata") else {}
        first, second = (measure(packages, corpus, name, half, workers, between, env) for half in ("first", "second"))
    return first | {"fresh": first["took"], "half": second["took"], "same": second["same"]}


def measure(
    packages: Packages, corpus: Corpus, name: str, half: str, workers: int, between: Path, env: dict[str, str]
) -> dict[str, Any]:
    command = [packages.python, str(HERE / "half.py"), name, half, *arguments(corpus), str(SIZES[SIZE][1])]
    command += [str(workers), str(between)]
    environment = packages.environment(name) | env
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=LIMIT)
    if done.returncode:
        raise SystemExit(f"measuring {name}, {half} half, {workers} workers: {done.returncode}\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def render(found: dict[tuple[str, int], list[dict[str, Any]]]) -> str:
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for (name, workers), turns in sorted(found.items(), key=lambda one: list(LOADERS).index(one[0][0])):
        cells = (
            "none of its own" if name in WITHOUT_WORKERS else str(workers),
            spread([turn["fresh"] for turn in turns]),
            f"**{spread([turn['half'] for turn in turns])}**",
            f"{statistics.median(turn['saved'] for turn in turns) * 1e3:.1f} ms",
            f"{turns[0]['state']:,} bytes",
            "yes" if all(turn["same"] for turn in turns) else "no",
        )
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def spread(seconds: list[float]) -> str:
    low, middle, high = (f(seconds) * 1e3 for f in (min, statistics.median, max))
    return f"{middle:.0f} ms ({low:.0f}–{high:.0f})"


if __name__ == "__main__":
    raise SystemExit(main())
