"""A process of billion.py: commits the half of an epoch, or goes on there.

python rejoin.py commit|resume FOLDER SHARD BATCH STEP BEGAN
"""

from __future__ import annotations

import json
import sys
import time

PARTS = ("interpreter", "imports", "connect", "register", "restore", "dataset", "batch")
DATASET = "billion"


def options(data: str, shard: int) -> dict[str, object]:
    return {"path": data, "format": "tokens", "dtype": "uint8", "sample_len": 1, "shard_size": shard, "seed": 1}


def commit(data: str, shard: int, batch: int, step: int) -> dict[str, object]:
    """Says which samples come next."""
    import strata
    from strata.torch import IterableDataset

    with strata.connect(job="billion") as job:
        job.register_dataset(DATASET, **options(data, shard))
        face = IterableDataset(job.dataset(DATASET, batch_size=batch))
        face.load_state_dict(face.state_dict() | {"step": step})
        job.save(1, {}).wait_committed()
        return {"indices": next(iter(face)).indices.tolist()}


def resume(data: str, shard: int, batch: int, began: float) -> dict[str, object]:
    """As a script that starts again does it."""
    ticks = [began, time.monotonic()]

    def done() -> None:
        ticks.append(time.monotonic())

    import numpy  # noqa: F401
    import strata
    import strata.data

    done()
    job = strata.connect(job="billion")
    done()
    job.register_dataset(DATASET, **options(data, shard))
    done()
    job.restore()
    done()
    dataset = job.dataset(DATASET, batch_size=batch)
    done()
    indices = next(iter(dataset)).indices.tolist()
    done()
    job.close()
    took = {part: ticks[at + 1] - ticks[at] for at, part in enumerate(PARTS)}
    return took | {"indices": indices, "first": ticks[-1] - began - took["imports"]}


if __name__ == "__main__":
    what, folder, *numbers, start = sys.argv[1:]
    shard_size, batch_size, half = map(int, numbers)
    if what == "commit":
        print(json.dumps(commit(folder, shard_size, batch_size, half)))
    else:
        print(json.dumps(resume(folder, shard_size, batch_size, float(start))))
