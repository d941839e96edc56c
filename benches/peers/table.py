"""The table of one run: medians, spread, and ratios against limits of the same run, as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any

Result = dict[str, Any]
Limits = dict[str, list[float]]

COLUMNS = (
    "block first",
    "first / steady",
    "block steady (spread)",
    "p99",
    "steady / copy",
    "durable (spread)",
    "durable / floor",
    "restore",
    "CPU s a save",
    "join",
    "first steps",
)


def render(results: list[Result], limits: Limits, order: Iterable[str]) -> str:
    copy = statistics.median(limits["copy"])
    write = statistics.median(limits["write"])
    synced = steady(results, "safetensors", "durable")
    floor = max([write, *([statistics.median(synced)] if synced else [])])
    nbytes = results[0]["bytes"]
    lines = [
        f"State {nbytes / 1e9:.2f} GB. Limits in this run: two-thread copy into an arena {ms(limits['copy'])}; "
        f"fio O_DIRECT {ms(limits['write'])}; so the floor for durable is {floor * 1e3:.0f} ms.",
        "",
        "| | " + " | ".join(COLUMNS) + " |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    for name in order:
        blocks, durable = steady(results, name, "blocks"), steady(results, name, "durable")
        cells = (
            f"{median(results, name, lambda r: r['blocks'][0]) * 1e3:.0f} ms",
            f"{median(results, name, lambda r: r['blocks'][0]) / statistics.median(blocks):.2f}",
            ms(blocks),
            f"{percentile(blocks, 0.99) * 1e3:.0f} ms",
            f"{statistics.median(blocks) / copy:.2f}",
            ms(durable),
            f"{statistics.median(durable) / floor:.2f}",
            f"{median(results, name, lambda r: r['restore']) * 1e3:.0f} ms",
            f"{median(results, name, lambda r: r['cpu']):.2f}",
            f"{median(results, name, lambda r: r['joined']) * 1e3:.0f} ms",
            f"{median(results, name, lambda r: r['steps']):.2f}",
        )
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "join: from before the saver's package is imported until it can save; the call of `prepare`, or a restarted "
        "trainer's restore, is part of it. first steps: the time of the five training steps between that and the first "
        "save, against as many before it.",
    ]
    lines += ["", "Blocks of each turn, first | following, in ms:", ""]
    for name in order:
        turns = [turn(result["blocks"]) for result in results if result["saver"] == name]
        lines.append(f"- {name}: " + "; ".join(turns))
    if memories := [r["sidecar_memory"] for r in results if "sidecar_memory" in r]:
        lines += ["", f"Sidecar memory beyond the arenas, at its peak: {max(memories) / 2**20:.0f} MiB."]
    return "\n".join(lines)


def turn(blocks: list[float]) -> str:
    first, *following = (f"{block * 1e3:.0f}" for block in blocks)
    return f"{first} | {' '.join(following)}"


def steady(results: list[Result], saver: str, what: str) -> list[float]:
    """Every measurement but each process's first."""
    return [value for result in results if result["saver"] == saver for value in result[what][1:]]


def median(results: list[Result], saver: str, value: Callable[[Result], float]) -> float:
    return statistics.median(value(result) for result in results if result["saver"] == saver)


def percentile(values: list[float], at: float) -> float:
    """Nearest rank, rounded up: of fewer than a hundred values the 99th percentile is the worst."""
    return sorted(values)[min(len(values) - 1, int(at * len(values)))]


def ms(seconds: list[float]) -> str:
    low, high = min(seconds) * 1e3, max(seconds) * 1e3
    return f"{statistics.median(seconds) * 1e3:.0f} ms ({low:.0f}–{high:.0f})"
