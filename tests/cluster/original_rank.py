"""One rank of the tests in test_original.py: `original_rank.py WHAT COORDINATOR FOLDER BACKEND CHECKPOINTS`."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import original
from dtruntime import CheckpointManager, DatasetRegistry, TrainingOrchestrator
from harness.states import digest, make_state
from strata.errors import FencedError

WHAT, URL, FOLDER, BACKEND, CHECKPOINTS = sys.argv[1:]
RANK, WORLD = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def say(*words: object) -> None:
    print(f"rank {RANK}:", *words, flush=True)


def gate(name: str) -> None:
    """Waits until the test opens it."""
    while not (Path(FOLDER) / name).exists():
        time.sleep(0.01)


def orchestrator() -> TrainingOrchestrator:
    return TrainingOrchestrator(worker_id=f"w{RANK}", coordinator_url=URL, world_size=WORLD, rank=RANK)


def manager() -> CheckpointManager:
    backend: Any = BACKEND
    return CheckpointManager(CHECKPOINTS, backend=backend)


async def check() -> None:
    """The step that the example left is what its training gives, computed again."""
    own = orchestrator()
    await own.register_worker(ip="127.0.0.1", port=6000 + RANK)
    state = manager().load()
    steps, weights = 15 * 157, np.zeros(100_000, np.float32)
    for step in range(state["step"]):
        epoch, done = divmod(step, steps)
        if done == 0:
            shards = DatasetRegistry(URL).get_shard("imagenet", worker_rank=RANK, epoch=epoch)
            firsts = list(original.batches(shards, 64))
        original.train_step(weights, firsts[done])
    say("step", state["step"], "equal" if np.array_equal(weights, state["weights"]) else "DIFFERENT")


async def barrier() -> None:
    """The last rank comes late, to a barrier at the coordinator and to one through the sidecar."""
    own = orchestrator()
    await own.register_worker(ip="127.0.0.1", port=6000 + RANK)
    for name in ("direct", "sidecar"):
        say("is at", name)
        if RANK == WORLD - 1:
            gate(name)
        await own.wait_barrier("same-name")
        say("passed", name)
        if name == "direct":
            await (await manager().save_async(make_state(0, 1, RANK), step=1)).wait_committed()


async def orders() -> None:
    """Objects in another order on every rank, and bytes as a state."""
    makers = {"orchestrator": orchestrator, "manager": manager, "registry": lambda: DatasetRegistry(URL)}
    names = list(makers)
    random.Random(f"{FOLDER}-{RANK}").shuffle(names)
    made: dict[str, Any] = {}
    for name in names:
        made[name] = makers[name]()
        if name == "orchestrator" and RANK % 2:
            await made[name].register_worker(ip="127.0.0.1", port=6000 + RANK)
    state = bytes([RANK]) * 100_000
    assert made["manager"].load() is None
    handle = await made["manager"].save_async(state, step=7)
    await made["orchestrator"].register_worker(ip="127.0.0.1", port=6000 + RANK)
    await handle.wait_committed()
    await made["orchestrator"].wait_barrier("saved")
    assert made["manager"].load() == made["manager"].load(step=7) == state
    say("kept", len(names))


async def lost() -> None:
    """The others learn who was killed, join again with its successor, and load what all had saved."""
    own, checkpoints = orchestrator(), manager()
    await own.register_worker(ip="127.0.0.1", port=6000 + RANK)
    restored = checkpoints.load()
    if restored is None:
        restored = make_state(1, 5, RANK)
        await (await checkpoints.save_async(restored, step=5)).wait_committed()
        say("saved")
        if RANK == WORLD - 1:
            gate("never")
        try:
            await own.wait_barrier("end")
        except FencedError as error:
            say("fenced", str(error).replace("\n", " "))
        await own.register_worker(ip="127.0.0.1", port=6000 + RANK)
        restored = checkpoints.load()
    assert digest(restored) == digest(make_state(1, 5, RANK))
    await own.wait_barrier("end")
    say("restored")


if __name__ == "__main__":
    asyncio.run({"check": check, "barrier": barrier, "orders": orders, "lost": lost}[WHAT]())
