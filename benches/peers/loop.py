"""Trains with one way to save, in this fresh process; prints one JSON object as its last line. Started by training.py.

A step is a fixed amount of matrix products on all cores (so that whatever takes the CPU makes it longer), and a fused
AdamW over parameters and moments of 1.11 GB in all. A save every EVERY steps, the first one at step 5.
"""

from __future__ import annotations

import argparse
import json
import resource
import threading
import time
from pathlib import Path
from typing import Any

import torch
from schedule import EVERY, FIRST_SAVE
from ways import WAYS, Way

LARGE, LARGE_ELEMENTS = 11, 32 * 2**20 // 4
SMALL, SMALL_ELEMENTS = 100, 2048
SIDE = 1024  # of the matrices


class Training:
    def __init__(self) -> None:
        torch.manual_seed(7)
        sizes = [LARGE_ELEMENTS] * LARGE + [SMALL_ELEMENTS] * SMALL
        self.parameters = [torch.nn.Parameter(torch.rand(size)) for size in sizes]
        for parameter in self.parameters:
            parameter.grad = torch.full_like(parameter, 1e-3)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, fused=True)
        self.left, self.right = torch.rand(SIDE, SIDE), torch.rand(SIDE, SIDE)
        self.optimizer.step()

    def compute(self, products: int) -> None:
        for _ in range(products):
            torch.mm(self.left, self.right)

    def state(self) -> dict[str, Any]:
        model = {f"layers.{number}.weight": parameter.detach() for number, parameter in enumerate(self.parameters)}
        return {"model": model, "optimizer": self.optimizer.state_dict()}


def calibrate(seconds: float) -> int:
    """Matrix products that take so long with nothing beside them."""
    training = Training()
    training.compute(20)
    began = time.perf_counter()
    training.compute(60)
    return max(1, round(60 * seconds / (time.perf_counter() - began)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=[*WAYS, "calibrate"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--products", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0.25)
    args = parser.parse_args()
    if args.way == "calibrate":
        print(json.dumps(calibrate(args.seconds)))
        return
    training = Training()
    way = WAYS[args.way](args.folder)
    with LeastMemory() as memory:
        way.open(training.state(), training.optimizer)
        print(json.dumps(run(training, way, args.steps, args.products) | {"way": args.way, "memory": memory.taken()}))


def run(training: Training, way: Way, steps: int, products: int) -> dict[str, Any]:
    saves, fences, late, walls = [], [], 0, []
    faults = minor_faults()
    began = time.perf_counter()
    for step in range(1, steps + 1):
        started = time.perf_counter()
        training.compute(products)
        way.before_step()
        training.optimizer.step()
        if step % EVERY == FIRST_SAVE:
            if saves:
                late += not way.is_durable()
                fences.append(way.fenced)
            save_began = time.perf_counter()
            way.save(step, training.state())
            saves.append(time.perf_counter() - save_began)
        walls.append(time.perf_counter() - started)
    took = time.perf_counter() - began
    way.is_durable()
    fences.append(way.fenced)
    way.finish()
    return {
        "took": took,
        "saves": saves,
        "fences": fences,
        "late": late,
        "faults": minor_faults() - faults,
        "steps": walls,
    }


def minor_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


class LeastMemory:
    """How much of the machine's memory was taken at most since it was begun."""

    def __enter__(self) -> LeastMemory:
        self.before = self.least = available()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()

    def watch(self) -> None:
        while not self.ended.wait(0.02):
            self.least = min(self.least, available())

    def taken(self) -> int:
        return self.before - self.least


def available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/meminfo names no MemAvailable")


if __name__ == "__main__":
    main()
