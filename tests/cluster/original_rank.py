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
RANK, WORLD = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


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


async def alone() -> None:
    """Neither orchestrator nor launcher nor anything started: one rank of one."""
    checkpoints = manager()
    state = {"weights": np.arange(1000, dtype=np.float32), "nested": {"step": 3}}
    await (await checkpoints.save_async(state, step=3)).wait_committed()
    assert digest(checkpoints.load()) == digest(state)
    try:
        checkpoints.load(step=4)
    except FileNotFoundError as error:
        say("no such step:", error)
    say("alone")


def datasets() -> None:
    """Without an event loop, without a membership."""
    registry = DatasetRegistry(URL)
    path = Path(FOLDER) / "tokens.bin"
    np.arange(100, dtype=np.uint16).tofile(path)
    options: Any = {"path": path, "format": "tokens", "shard_size": 4, "dtype": "uint16", "sample_len": 10}
    try:
        registry.register("tokens", total_samples=11, **options)
    except ValueError as error:
        say("wrong count:", error)
    registry.register("tokens", total_samples=10, **options)
    try:
        registry.get_shard("tokens", worker_rank=0, epoch=0)
    except ValueError as error:
        say("unknown world:", error)
    os.environ |= {"RANK": "1", "WORLD_SIZE": "2"}
    both = [registry.get_shard("tokens", worker_rank=rank, epoch=0) for rank in (0, 1)]
    read: list[int] = []
    for shard in both[0] + both[1]:
        [(file, first, last)] = shard.files
        assert os.fspath(shard) == file == str(path) and len(shard) == last - first
        read += np.fromfile(shard, dtype=np.uint16).reshape(-1, 10)[first:last, 0].tolist()
    say("read", sorted(read))


async def barrier_alone() -> None:
    own = orchestrator()
    await own.register_worker(ip="127.0.0.1", port=6000 + RANK)
    say("waits")
    await own.wait_barrier("never")


async def load_alone() -> None:
    await orchestrator().register_worker(ip="127.0.0.1", port=6000 + RANK)
    say("waits")
    manager().load()


async def unequal() -> None:
    """Shares of an epoch differ, so a rank may save once more than the others."""
    own, checkpoints = orchestrator(), manager()
    await own.register_worker(ip="127.0.0.1", port=6000 + RANK)
    for step in range(1, 4 if RANK == 0 else 3):
        await checkpoints.save_async(make_state(0, step, RANK), step=step)
    await own.wait_barrier("end")
    say("ends")


async def failing() -> None:
    """A rank that ends by an exception has not left in good order."""
    own = orchestrator()
    await own.register_worker(ip="127.0.0.1", port=6000 + RANK)
    manager().load()
    if RANK == 1:
        raise RuntimeError("loss is NaN")
    try:
        await own.wait_barrier("end")
    except FencedError as error:
        say("fenced", str(error).replace("\n", " "))


if __name__ == "__main__":
    chosen = globals()[WHAT]
    if asyncio.iscoroutinefunction(chosen):
        asyncio.run(chosen())
    else:
        chosen()
