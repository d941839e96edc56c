"""Measures one saver in this fresh process; prints one JSON object. Started by run.py."""

from __future__ import annotations

import time

IMPORTED = time.perf_counter()

import argparse  # noqa: E402
import json  # noqa: E402
import resource  # noqa: E402
from pathlib import Path  # noqa: E402

from savers import SAVERS  # noqa: E402
from state import change, make_state, total_bytes  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("saver", choices=SAVERS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--saves", type=int, default=6)
    args = parser.parse_args()

    state = make_state()
    saver = SAVERS[args.saver](args.folder)
    opened = time.perf_counter()
    saver.open(state)
    ready = time.perf_counter() - opened

    blocks, durable = [], []
    cpu_before = cpu_seconds()
    for step in range(1, args.saves + 1):
        change(state)
        started = time.perf_counter()
        wait = saver.save(step, state)
        blocks.append(time.perf_counter() - started)
        if step == 1:
            to_first_save = time.perf_counter() - IMPORTED
        wait()
        durable.append(time.perf_counter() - started)
    cpu = (cpu_seconds() - cpu_before) / args.saves

    saver.restore(args.saves)  # warms caches and mappings
    started = time.perf_counter()
    restored = saver.restore(args.saves)
    restore = time.perf_counter() - started
    exact = all(bool((restored[name] == tensor).all()) for name, tensor in state.items())
    saver.close()
    print(
        json.dumps(
            {
                "saver": args.saver,
                "bytes": total_bytes(state),
                "ready": ready,
                "blocks": blocks,
                "durable": durable,
                "restore": restore,
                "exact": exact,
                "cpu": cpu,
                "to_first_save": to_first_save,
            }
        )
    )


def cpu_seconds() -> float:
    """Of this process and of the children it has waited for."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    return own.ru_utime + own.ru_stime


if __name__ == "__main__":
    main()
