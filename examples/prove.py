"""Restores the newest committed step of STRATA_JOB: a digest of the weights, and the samples seen."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import strata
from torch import Tensor


def digest(value: Any) -> str:
    """SHA-256 over every tensor and number of a nested state, in order."""
    summary = hashlib.sha256()

    def visit(part: Any) -> None:
        if isinstance(part, Tensor):
            summary.update(f"{part.dtype}{tuple(part.shape)}".encode())
            summary.update(part.contiguous().numpy().tobytes())
        elif isinstance(part, dict):
            for key, child in part.items():
                summary.update(repr(key).encode())
                visit(child)
        elif isinstance(part, (list, tuple)):
            for child in part:
                visit(child)
        else:
            summary.update(repr(part).encode())

    visit(value)
    return summary.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for one JSON file a rank")
    args = parser.parse_args()
    with strata.connect() as job:
        restored = job.restore()
        if restored is None:
            raise SystemExit("the job has no committed step")
        state = restored.state
        found = {
            "step": restored.step,
            "weights": digest(state["model"]),
            "optimizer": digest(state["optimizer"]),
            "rng": digest(state["rng"]),
            "seen": state["seen"],
        }
        (args.out / f"{os.environ['RANK']}.json").write_text(json.dumps(found))
        job.barrier("proved")


if __name__ == "__main__":
    main()
