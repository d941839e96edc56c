"""The calls of the original Strata, over today's: workers and barriers, datasets and their shards, checkpoints.

    orchestrator = TrainingOrchestrator(
        worker_id="worker-3", coordinator_url="http://localhost:50051", world_size=8, rank=3
    )
    await orchestrator.register_worker(ip="10.0.0.3", port=6000)
    registry = DatasetRegistry("http://localhost:50051")
    registry.register(dataset_id="imagenet", path="/data/imagenet", format="parquet",
                      total_samples=1_281_167, shard_size=10_000, shuffle=True)
    shards = registry.get_shard("imagenet", worker_rank=3, epoch=0)
    manager = CheckpointManager("/checkpoints", backend="local")
    handle = await manager.save_async(state, step=1000)
    await orchestrator.wait_barrier("epoch-0")

The job is STRATA_JOB, else "default". All of a process's objects share one membership: a rank is never registered
twice, in whatever order they are made. It begins at the coordinator itself (`register_worker`): no sidecar is needed.
The first `save_async` or `load`, which all ranks call, moves it to the node's sidecar, through which checkpoints go:
the ranks meet, leave, and join again, since only with the store known can the coordinator open a generation above those
that the store has seen. From then on barriers go through the sidecar too, which proves a rank's death at once where
the coordinator alone must wait for its lease.

Errors are those of `strata`. New scripts are better off with `strata` itself.
"""

from .checkpoints import CheckpointManager
from .datasets import DatasetRegistry, Shard, ShardFile
from .orchestrator import TrainingOrchestrator

__all__ = ["CheckpointManager", "DatasetRegistry", "Shard", "ShardFile", "TrainingOrchestrator"]
