"""torch.distributed.checkpoint, one process: `dcp_load.py save FOLDER BYTES`, or `load FOLDER 0`, which prints the
seconds and the CPU seconds of the load. Run by `cargo bench --bench restore`.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp

LAYER = 16 << 20
LAYOUT = "layers"


def state(layers: int) -> dict[str, torch.Tensor]:
    return {f"model.{number}": torch.ones(LAYER // 4) for number in range(layers)}


def main() -> None:
    what, folder, nbytes = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if what == "save":
        layers = -(-nbytes // LAYER)
        filled = {name: tensor.random_() for name, tensor in state(layers).items()}
        dcp.save(filled, checkpoint_id=folder)
        (folder.parent / LAYOUT).write_text(str(layers))
        return
    target = state(int((folder.parent / LAYOUT).read_text()))
    for path in folder.iterdir():
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)
    cpu, started = time.process_time(), time.perf_counter()
    dcp.load(target, checkpoint_id=folder)
    print(time.perf_counter() - started, time.process_time() - cpu)


if __name__ == "__main__":
    main()
