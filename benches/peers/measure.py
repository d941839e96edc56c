"""Measures one saver in this fresh process; prints one JSON object as its last line. Started by run.py.

The clock of `joined` runs from before the saver's own package is imported until it can save, with torch imported and
the state made before. Then come STEPS training steps, and the first save. CPU is of steady saves (the second to the
last), over this process, what it started, and the process that BESIDE names (the sidecar).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from pathlib import Path

import torch
from state import change, make_state, total_bytes

PAUSE = 0.3  # between saves, as training steps would be
STEPS = 5
PRODUCTS, SIDE = 12, 1024  # of a step: 250 ms on two cores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("saver")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--saves", type=int, default=6)
    parser.add_argument("--after", type=int, default=0, help="the step that a process before this one saved last")
    parser.add_argument(
        "--end", choices=["restore", "leave", "die"], default="restore", help="what comes after the saves"
    )
    args = parser.parse_args()
    beside = int(os.environ["BESIDE"]) if "BESIDE" in os.environ else None

    state = make_state()
    train()
    quiet = train()
    from savers import SAVERS

    saver = SAVERS[args.saver](args.folder)
    began = time.perf_counter()
    saver.open(state)
    joined = time.perf_counter() - began
    disturbed = train()

    blocks, durable = [], []
    first_step, last_step = args.after + 1, args.after + args.saves
    for step in range(first_step, last_step + 1):
        change(state)
        if step == first_step + 1:
            cpu_before = cpu_seconds(beside)
        started = time.perf_counter()
        wait = saver.save(step, state)
        blocks.append(time.perf_counter() - started)
        wait()
        durable.append(time.perf_counter() - started)
        time.sleep(PAUSE)
    cpu = (cpu_seconds(beside) - cpu_before) / (args.saves - 1)
    if args.end == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    result = {
        "saver": args.saver,
        "bytes": total_bytes(state),
        "joined": joined,
        "steps": disturbed / quiet,
        "blocks": blocks,
        "durable": durable,
        "cpu": cpu,
    }
    if args.end == "restore":
        target = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
        saver.restore(last_step, target)  # warms caches and mappings
        for tensor in target.values():
            tensor.zero_()
        started = time.perf_counter()
        saver.restore(last_step, target)
        result["restore"] = time.perf_counter() - started
        result["exact"] = all(torch.equal(target[name], tensor) for name, tensor in state.items())
    saver.close()
    print(json.dumps(result))


def train() -> float:
    """Seconds that the steps took, which keep all cores busy: what works beside them makes them longer."""
    left, right = torch.rand(SIDE, SIDE), torch.rand(SIDE, SIDE)
    began = time.perf_counter()
    for _ in range(STEPS * PRODUCTS):
        torch.mm(left, right)
    return time.perf_counter() - began


def cpu_seconds(beside: int | None) -> float:
    """User and system time of this process, its living descendants and `beside`."""
    times: dict[int, tuple[int, float]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        ticks = int(fields[11]) + int(fields[12])
        times[int(path.parent.name)] = (int(fields[1]), ticks / os.sysconf("SC_CLK_TCK"))

    def belongs(pid: int) -> bool:
        while pid in times:
            if pid in (os.getpid(), beside):
                return True
            pid = times[pid][0]
        return False

    return sum(seconds for pid, (_, seconds) in times.items() if belongs(pid))


if __name__ == "__main__":
    main()
