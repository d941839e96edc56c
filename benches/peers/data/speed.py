"""How many samples a second each loader hands out of the same records on the local disk, in one run.

    make bench-data        or        python speed.py --python PYTHON_WITH_TORCH --peers PYTHON_OF_PEERS

Every reader runs in a fresh process, without workers and with them, and the readers take turns. First epochs begin with
the package's import and with files that are not in memory, steady ones read what the page cache holds. What each hands
out is checked (epochs.py). The corpus stays in --corpus for the next run.
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

from packages import HERE, Packages
from readers import IN_ORDER, OF_SMALL, READERS, WITHOUT_WORKERS, reader
from records import JSONL_LIMIT, Corpus

Result = dict[str, Any]
SIZES = {2048: (100_000, 256), 102_400: (4_000, 32)}
"""Records' bytes, with how many there are and how many make a batch."""
LIMIT = 300
"""Seconds that one process may take."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    Packages.add_arguments(parser)
    parser.add_argument("--corpus", type=Path, required=True, help="where the corpus lies, or will")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--sizes", nargs="+", type=int, choices=SIZES, default=list(SIZES))
    parser.add_argument("--only", nargs="+", choices=READERS, default=list(READERS))
    parser.add_argument("--seconds", type=float, default=1.5, help="of steady epochs in each process, at least two")
    parser.add_argument("--in-order", action="store_true", help="do not shuffle")
    parser.add_argument("--seed", type=int, default=7, help="of the corpus and of its order")
    parser.add_argument("--json", type=Path, help="also write everything measured to this file")
    args = parser.parse_args()
    order = "in-order" if args.in_order else "shuffled"
    with tempfile.TemporaryDirectory(prefix="strata-data-") as folder:
        packages = Packages(args.python, args.peers, args.strata, Path(folder))
        corpora = [Corpus(args.corpus.resolve(), size, SIZES[size][0], args.seed) for size in args.sizes]
        for corpus in corpora:
            make(packages, corpus, {reader(name).form for name in args.only if takes(name, corpus)})
        results = []
        for turn in range(args.turns):
            for corpus in corpora:
                for workers in args.workers:
                    for name in args.only:
                        if workers in args.workers[1:] and name in WITHOUT_WORKERS:
                            continue
                        if not takes(name, corpus):
                            continue
                        told = f"{name}, {corpus.size} bytes, {workers} workers"
                        print(f"turn {turn + 1} of {args.turns}: {told}", file=sys.stderr, flush=True)
                        results.append(measure(packages, corpus, name, workers, order, args.seconds))
        versions = packages.versions()
    if args.json:
        args.json.write_text(json.dumps({"versions": versions, "results": results}, indent=1))
    print(render(results, args.sizes, args.only, order))
    print(f"\n{versions}.")
    return 0


def takes(name: str, corpus: Corpus) -> bool:
    return name not in OF_SMALL or corpus.size <= JSONL_LIMIT


def arguments(corpus: Corpus) -> list[str]:
    return [str(corpus.home), str(corpus.size), str(corpus.count), str(corpus.seed), str(corpus.file)]


def make(packages: Packages, corpus: Corpus, forms: set[str]) -> None:
    missing = sorted(form for form in forms if not corpus.path(form).exists())
    if missing:
        command = [packages.python, str(HERE / "formats.py"), *arguments(corpus), *missing]
        subprocess.run(command, env=packages.environment("peers"), check=True, stdout=sys.stderr)


def measure(packages: Packages, corpus: Corpus, name: str, workers: int, order: str, seconds: float) -> Result:
    command = [packages.python, str(HERE / "epochs.py"), name, *arguments(corpus), str(SIZES[corpus.size][1])]
    command += [str(workers), order, str(seconds)]
    environment = packages.environment(name)
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=LIMIT)
    if done.returncode:
        raise SystemExit(f"measuring {name}, {workers} workers: exit code {done.returncode}\n{done.stderr}")
    result: Result = json.loads(done.stdout.splitlines()[-1])
    return result


COLUMNS = (
    "workers",
    "samples/s steady (spread)",
    "MB/s",
    "CPU a sample",
    "first epoch, from import",
    "first batch",
    "memory",
)


def render(results: list[Result], sizes: list[int], names: list[str], order: str) -> str:
    others = [result["others"] for result in results]
    told = f"median {statistics.median(others):.0%}, at most {max(others):.0%}"
    lines = [f"What others took of the cores' time during the steady epochs: {told}.", ""]
    for size in sizes:
        count, batch = SIZES[size]
        lines += [f"{count:,} records of {size:,} bytes, {order}, batches of {batch}:", ""]
        lines += ["| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
        for name in names:
            for row in rows([one for one in results if (one["reader"], one["size"]) == (name, size)]):
                unordered = order == "shuffled" and name in IN_ORDER
                lines.append(f"| {name}{' (in order)' if unordered else ''} | {row} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def rows(found: list[Result]) -> list[str]:
    """One for each number of workers; the fastest in bold."""
    by_workers: dict[int, list[Result]] = {}
    for result in found:
        by_workers.setdefault(result["workers"], []).append(result)
    speeds = {workers: [speed(one) for one in some] for workers, some in by_workers.items()}
    best = max(speeds, key=lambda workers: statistics.median(speeds[workers]), default=0)
    lines = []
    for workers, some in by_workers.items():
        rate = statistics.median(speeds[workers])
        told = f"{rate:,.0f} ({min(speeds[workers]):,.0f}–{max(speeds[workers]):,.0f})"
        name = "none of its own" if found[0]["reader"] in WITHOUT_WORKERS else str(workers)
        first = statistics.median(one["first"] for one in some)
        first_batch = statistics.median(one["first batch"] for one in some)
        memory = max(one["memory"] for one in some)
        cpu = statistics.median(one["cpu"] for one in some)
        cells = (
            name,
            f"**{told}**" if workers == best and len(by_workers) > 1 else told,
            f"{rate * found[0]['size'] / 1e6:,.0f}",
            f"{cpu * 1e6:,.1f} µs",
            f"{first:.2f} s",
            f"{first_batch:.2f} s",
            f"{memory / 2**20:,.0f} MiB",
        )
        lines.append(" | ".join(cells))
    return lines


def speed(result: Result) -> float:
    """Samples a second of the median of its steady epochs."""
    return float(result["count"] / statistics.median(result["steady"]))


if __name__ == "__main__":
    raise SystemExit(main())
