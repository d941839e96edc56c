"""How well Strata's order and MosaicML's shuffles mix the same dataset, and how many shards they hold open for it.

    make bench-shuffle        or        python quality.py --python PYTHON_WITH_TORCH --peers PYTHON_OF_PEERS

Strata's is what `job.dataset` hands out of a file of that many samples; MosaicML's are its package's own functions, for
one canonical node. Nothing is timed. What the figures are: mixing.py.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from mixing import BATCH, NEAR, Change, Mixing, Order, change, full_shuffle, mixing
from packages import HERE, Packages

CASES = [(2**20, 2**10), (2**20, 2**12), (2**24, 2**16)]
"""Samples of a dataset, and of a shard."""
LIMIT = 900
"""Seconds that one process may take; Strata's reads in debug builds, too."""
DRAWN = {"strata": "Strata", "py1e": "py1e, its default block", "py1e of 16 shards": "py1e, a block of 16 shards"}
"""What the picture shows."""
POINTS, SIDE, EDGE = 960, 480, 40
"""Of each panel of it: samples shown, length of a side, and what lies around."""


@dataclass(frozen=True)
class Found:
    """Of all epochs of one kind."""

    mixing: Mixing
    """Means; of the most shards open and the largest gap, the most."""
    change: Change
    """Means over an epoch and the next, of the correlation without its sign."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    Packages.add_arguments(parser)
    parser.add_argument("--corpus", type=Path, required=True, help="where the datasets lie, or will: a byte a sample")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=3, help="at least two")
    parser.add_argument("--cases", type=int, nargs="+", choices=range(len(CASES)), default=range(len(CASES)))
    parser.add_argument("--picture", type=Path, help="an .svg to draw the second case to")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="strata-data-") as folder:
        packages = Packages(args.python, args.peers, args.strata, Path(folder))
        for case in args.cases:
            samples, shard_size = CASES[case]
            orders = Path(folder) / str(case)
            orders.mkdir()
            for who in ("strata", "mosaicml"):
                print(f"{who}: {samples} samples in shards of {shard_size}", file=sys.stderr, flush=True)
                write(packages, who, args.corpus.resolve(), [samples, shard_size, args.seed, args.epochs], orders)
            print(render(orders, samples, shard_size, args.epochs) + "\n", flush=True)
            if args.picture and case == 1:
                args.picture.write_text(picture({told: read(orders, name, 0) for name, told in DRAWN.items()}))
            for path in orders.iterdir():
                path.unlink()
        print(f"Seed {args.seed}, {args.epochs} epochs. {packages.versions()}.")
    return 0


def write(packages: Packages, who: str, home: Path, sizes: list[int], folder: Path) -> None:
    command = [packages.python, str(HERE / "orders.py"), who, str(home), *map(str, sizes), str(folder)]
    environment = packages.environment(who)
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=LIMIT)
    if done.returncode:
        raise SystemExit(f"asking {who} for its orders: exit code {done.returncode}\n{done.stderr}")


def read(folder: Path, name: str, epoch: int) -> Order:
    return np.load(folder / f"{name}.{epoch}.npy").astype(np.int64)


def names(folder: Path) -> list[str]:
    """Strata first, then by name."""
    found = {path.name.rsplit(".", 2)[0] for path in folder.iterdir()}
    return sorted(found, key=lambda name: (name != "strata", name))


def measured(folder: Path, name: str, shard_size: int, epochs: int) -> Found:
    orders = [read(folder, name, epoch) for epoch in range(epochs)]
    each = [mixing(order, shard_size) for order in orders]
    means = Mixing(*map(fmean, zip(*map(astuple, each), strict=True)))
    worst = {field: max(getattr(one, field) for one in each) for field in ("gap_most", "open_most")}
    changes = [change(*pair) for pair in itertools.pairwise(orders)]
    correlation = fmean(abs(one.correlation) for one in changes)
    return Found(Mixing(**vars(means) | worst), Change(correlation, fmean(one.together for one in changes)))


COLUMNS = (
    "lag",
    "off a full shuffle's",
    "gap of neighbours (most)",
    f"neighbours within {NEAR}",
    "in one batch",
    f"shards in a batch of {BATCH}",
    "shards open, most (mean)",
    "samples of these",
    "epoch to epoch: correlation",
    "together again",
)


def render(folder: Path, samples: int, shard_size: int, epochs: int) -> str:
    shards = samples // shard_size
    lines = [f"{samples:,} samples in {shards:,} shards of {shard_size:,}:", ""]
    lines += ["| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    full = Found(full_shuffle(samples, shard_size), Change(0.0, (BATCH - 1) / (samples - 1)))
    lines.append(f"| a full shuffle, as expected | {row(full, full, shard_size)} |")
    for name in names(folder):
        lines.append(f"| {name} | {row(measured(folder, name, shard_size, epochs), full, shard_size)} |")
    return "\n".join(lines)


def row(found: Found, full: Found, shard_size: int) -> str:
    """Shares that are small in a full shuffle are told as multiples of its own."""
    one, whole = found.mixing, full.mixing
    cells = (
        f"{one.lag:.3f}",
        f"{one.lag_off:.3f}",
        f"{one.gap:.4f} ({one.gap_most:.3f})",
        f"{one.near:.2e} ({one.near / whole.near:,.1f}x)",
        f"{one.one_batch:.2e} ({one.one_batch / whole.one_batch:,.1f}x)",
        f"{one.shards_of_batch:,.1f}",
        f"{one.open_most:,.0f} ({one.open_mean:,.1f})",
        f"{one.open_most * shard_size:,.0f}",
        f"{found.change.correlation:.4f}",
        f"{found.change.together / full.change.together:,.1f}x",
    )
    return " | ".join(cells)


def picture(orders: dict[str, Order]) -> str:
    """An SVG with a panel for each order: to the right the position in the epoch, upwards that in storage. The samples
    shown are those at regular places of the epoch."""
    step = SIDE + EDGE
    size = f"{len(orders) * step + EDGE} {SIDE + 3 * EDGE}"
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" font-family="sans-serif" font-size="20">']
    lines.append(f'<rect width="{len(orders) * step + EDGE}" height="{SIDE + 3 * EDGE}" fill="#fff"/>')
    for panel, (told, order) in enumerate(orders.items()):
        lines.append(f'<g transform="translate({EDGE + panel * step} {EDGE * 1.5:g})">')
        lines.append(f'<text y="-10">{told}</text>')
        lines.append(f'<rect width="{SIDE}" height="{SIDE}" fill="none" stroke="#999"/>')
        lines.append(f'<path d="{points(order)}" stroke="#06c" stroke-width="4" stroke-linecap="round"/>')
        lines.append(f'<text y="{SIDE + 26}" fill="#666">position in the epoch, over it that in storage</text></g>')
    return "\n".join([*lines, "</svg>\n"])


def points(order: Order) -> str:
    at = (np.arange(POINTS) * len(order)) // POINTS
    right, down = at * SIDE / len(order), SIDE - order[at] * SIDE / len(order)
    return "".join(f"M{x:.0f} {y:.0f}h0" for x, y in zip(right, down, strict=True))


if __name__ == "__main__":
    raise SystemExit(main())
