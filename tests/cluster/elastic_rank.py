"""A rank under torchrun or `strata run`: one epoch, a save at every step, in whatever world it is started. Run by
`harness/epoch.py`.

    python elastic_rank.py FOLDER STEPS

FOLDER holds `data` (the samples), `limit` (the step that may be made last for now), and takes a log for each process.
What is trained counts how often each sample was used, so the state itself says whether any was lost or doubled.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import strata
import torch
import torch.distributed as dist

BATCH = 4
WORK_LEFT = 75  # to a launcher that is not told to stop itself: start this rank again, in the world that is left
told_to_stop = False


def on_term(*_: object) -> None:
    global told_to_stop
    told_to_stop = True


def main() -> None:
    signal.signal(signal.SIGTERM, on_term)
    folder, steps = Path(sys.argv[1]), int(sys.argv[2])
    patience = timedelta(seconds=float(os.environ.get("ELASTIC_PATIENCE", "60")))
    dist.init_process_group("gloo", timeout=patience)
    rank, world = dist.get_rank(), dist.get_world_size()
    log = (folder / f"rank-{socket.gethostname()}-{os.getpid()}.jsonl").open("a", buffering=1)

    def tell(**fields: Any) -> None:
        log.write(json.dumps({"at": time.time(), "rank": rank, "world": world, **fields}) + "\n")

    used = torch.zeros(steps * BATCH)
    with strata.connect() as job:
        job.register_dataset(
            "data", path=folder / "data", format="tokens", dtype="uint8", sample_len=1, shard_size=16, seed=7
        )
        restored = job.restore(only="*")
        if restored is not None:
            used = restored.state["used"]
        first = 1 if restored is None else restored.step + 1
        tell(first=first, state=digest(used), pid=os.getpid(), place=os.environ.get("STRATA_PLACE"))
        for step, batch in enumerate(job.dataset("data", batch_size=BATCH), start=first):
            wait_for_leave(folder, step)
            mine = torch.zeros_like(used)
            mine[torch.from_numpy(batch.indices)] += 1
            dist.all_reduce(mine)
            used += mine
            job.save(step, {"used": used}, replicated=True).wait_committed()
            tell(committed=step, state=digest(used))
            if step < steps and job.reached_preemption(step):
                sys.exit(WORK_LEFT)
        tell(ended=steps, state=digest(used), used=used.tolist())
    dist.destroy_process_group()


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()


def wait_for_leave(folder: Path, step: int) -> None:
    """Over all ranks, so that each finds out when another is gone. Who is told to stop here makes one more step and
    leaves at its end, as `reached_preemption` says."""
    while True:
        may = torch.tensor([float(told_to_stop or int((folder / "limit").read_text()) >= step)])
        dist.all_reduce(may, op=dist.ReduceOp.MAX)
        if may.item():
            return
        time.sleep(0.02)


if __name__ == "__main__":
    main()
