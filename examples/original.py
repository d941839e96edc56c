"""A training script for the original Strata's calls: eight ranks take their shards, save every 1000 steps, and meet at
the end of every epoch. Started again, it goes on from the newest step.

    strata up &
    for rank in 0 1 2 3 4 5 6 7; do RANK=$rank WORLD_SIZE=8 python examples/original.py & done; wait
"""

import argparse
import asyncio
import itertools
import math
import os
from collections.abc import Iterator

import numpy as np
from dtruntime import CheckpointManager, DatasetRegistry, Shard, TrainingOrchestrator

SAMPLES, SHARD = 1_281_167, 10_000


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--coordinator", default="http://localhost:50051")
    parser.add_argument("--checkpoints", default="checkpoints", help="directory, or with --backend s3 a prefix")
    parser.add_argument("--backend", default="local", choices=["local", "s3"])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64, help="samples of one rank in one step")
    args = parser.parse_args()
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])

    orchestrator = TrainingOrchestrator(
        worker_id=f"worker-{rank}", coordinator_url=args.coordinator, world_size=world, rank=rank
    )
    await orchestrator.register_worker(ip="127.0.0.1", port=6000 + rank)

    registry = DatasetRegistry(args.coordinator)
    registry.register(
        dataset_id="imagenet",
        path="/data/imagenet",
        format="parquet",
        total_samples=SAMPLES,
        shard_size=SHARD,
        shuffle=True,
    )
    steps = (SAMPLES // SHARD // world - 1) * math.ceil(SHARD / args.batch)  # in an epoch; every rank has as many

    manager = CheckpointManager(args.checkpoints, backend=args.backend)
    state = manager.load() or {"step": 0, "weights": np.zeros(100_000, np.float32)}
    print(f"rank {rank}: starts at step {state['step']}", flush=True)

    while state["step"] < args.epochs * steps:
        epoch, done = divmod(state["step"], steps)
        shards = registry.get_shard("imagenet", worker_rank=rank, epoch=epoch)
        print(f"rank {rank}: epoch {epoch} begins, shards {' '.join(str(shard.id) for shard in shards)}", flush=True)
        for first in itertools.islice(batches(shards, args.batch), done, steps):
            train_step(state["weights"], first)
            state["step"] += 1
            if state["step"] % 1000 == 0:
                await manager.save_async(state, step=state["step"])
        print(f"rank {rank}: epoch {epoch} ends", flush=True)
        await orchestrator.wait_barrier(f"epoch-{epoch}")


def batches(shards: list[Shard], batch: int) -> Iterator[int]:
    """The first sample of every batch."""
    for shard in shards:
        yield from range(shard.start, shard.stop, batch)


def train_step(weights: np.ndarray, first: int) -> None:
    """Stands for reading the batch, forward, backward and the optimizer."""
    weights *= np.float32(0.999)
    weights[first % len(weights)] += 1


if __name__ == "__main__":
    asyncio.run(main())
