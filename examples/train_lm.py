"""Trains a byte-level language model data-parallel, and survives the loss of any of its processes.

    strata run --nproc-per-node 2 -- python examples/train_lm.py --data corpus.bin --steps 40

Everything Strata asks of a training script is in `main`: connect, restore, take batches from `job.dataset`, save.
The run is deterministic: killed and resumed, it ends with the very same weights as undisturbed.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import strata
import torch
import torch.distributed as dist
from model import ByteLM
from torch import Tensor, nn

LENGTH = 64  # bytes of context
SAMPLE = LENGTH + 1  # and the byte to predict after the last one


def main() -> None:
    args = parse_arguments()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    report = Report(args.report, rank)

    model = ByteLM(LENGTH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
    seen: list[int] = []  # which samples this rank has trained on, for the proof that none is lost or doubled

    with strata.connect() as job:
        job.register_dataset(
            "corpus", path=args.data, format="tokens", dtype="uint8", sample_len=SAMPLE, shard_size=32, seed=args.seed
        )
        first = 0
        started = time.perf_counter()
        restored = job.restore()
        if restored is not None:
            model.load_state_dict(restored.state["model"])
            optimizer.load_state_dict(restored.state["optimizer"])
            torch.set_rng_state(restored.state["rng"])
            seen = restored.state["seen"]
            first = restored.step
            report.write(restored=restored.step, source=restored.source, seconds=time.perf_counter() - started)

        for step, batch in enumerate(job.dataset("corpus", batch_size=args.batch), start=first + 1):
            loss = train_step(model, optimizer, batch, args.batch)
            seen.extend(batch.indices.tolist())
            report.write(step=step, loss=loss)
            last = step == args.steps
            if step % args.save_every == 0 or last or job.reached_preemption(step):
                state = {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "rng": torch.get_rng_state(),
                    "seen": seen,
                }
                started = time.perf_counter()
                handle = job.save(step, state, replicated=True)
                report.saved(handle, step, started)
            if last or job.reached_preemption(step):
                break
        job.wait_until_finished()
        report.close()
        job.barrier("finished")
    dist.destroy_process_group()


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any, global_batch: int) -> float:
    """One step over this rank's slice; gradients are summed over the ranks, so slices may be unequal."""
    tokens = torch.from_numpy(batch.samples).long()
    loss = sum_of_losses(model, tokens) / (global_batch * LENGTH)
    optimizer.zero_grad()
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
    optimizer.step()
    return float(loss.detach())


def sum_of_losses(model: nn.Module, tokens: Tensor) -> Tensor:
    logits = model(tokens[:, :-1])
    return nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")


class Report:
    """What happened, one JSON object a line: read by examples/demo.py."""

    def __init__(self, folder: Path | None, rank: int) -> None:
        self.file = None if folder is None else (folder / f"rank-{rank}.jsonl").open("a", buffering=1)
        self.waiting: list[threading.Thread] = []
        self.write(started=time.time(), rank=rank, pid=os.getpid())

    def write(self, **fields: Any) -> None:
        if self.file is not None:
            self.file.write(json.dumps(fields) + "\n")

    def saved(self, handle: strata.SaveHandle, step: int, started: float) -> None:
        self.write(save=step, block=time.perf_counter() - started, cold=handle.cold)

        def wait() -> None:
            info = handle.wait_committed()
            self.write(committed=step, seconds=time.perf_counter() - started, bytes=info.stored_bytes)

        self.waiting.append(threading.Thread(target=wait))
        self.waiting[-1].start()

    def close(self) -> None:
        for thread in self.waiting:
            thread.join()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="file of bytes; examples/corpus.py writes one")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=8, help="samples of a step, over all ranks")
    parser.add_argument("--save-every", type=int, default=5)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, help="folder for one JSON line an event and rank")
    return parser.parse_args()


if __name__ == "__main__":
    main()
