"""One rank of lives.py: trains until it is ended, in one of the ways to save and to come back.

survivor.py WAY FOLDER EVERY SECONDS WIDTH
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

LAYERS = 6


class Nothing:
    """Neither saves nor comes back."""

    def __init__(self, net: torch.nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        self.net, self.optimizer, self.folder = net, optimizer, folder

    def begin(self) -> int:
        """Joins the others; the first step to make."""
        dist.init_process_group("gloo")
        return 1

    def save(self, step: int) -> None:
        pass

    def made(self, step: int) -> None:
        pass

    def is_saving(self) -> bool:
        """What was last saved would not outlive this process yet."""
        return False


class Strata(Nothing):
    def begin(self) -> int:
        import strata
        import strata.torch

        strata.torch.fence(self.optimizer)
        self.handle: Any = None
        self.job = strata.connect()
        restored = self.job.restore(into=self.state(), source="staged")
        dist.init_process_group("gloo")
        return 1 if restored is None else restored.step + 1

    def state(self) -> dict[str, Any]:
        return {"model": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}

    def save(self, step: int) -> None:
        self.handle = self.job.save(step, self.state(), replicated=True)

    def is_saving(self) -> bool:
        return self.handle is not None and self.handle.state == "filling"

    def made(self, step: int) -> None:
        self.job.reached_preemption(step)


class Dcp(Nothing):
    """torch.distributed.checkpoint.async_save in a thread, its staging memory kept."""

    def begin(self) -> int:
        import torch.distributed.checkpoint as dcp
        from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

        self.dcp: Any = dcp
        dist.init_process_group("gloo")
        options = StagingOptions(
            use_pinned_memory=False, use_shared_memory=False, use_async_staging=False, use_non_blocking_copy=False
        )
        self.stager = DefaultStager(options)
        # Its thread talks to the other ranks while they train: a group of its own, or the messages meet.
        self.group = dist.new_group(backend="gloo")
        self.upload: Any = None
        whole = self.whole()
        if not whole:
            return 1
        state = self.state()
        self.dcp.load(state, checkpoint_id=self.path(whole[-1]))
        self.net.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        return whole[-1] + 1

    def state(self) -> dict[str, Any]:
        return {"model": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def whole(self) -> list[int]:
        """Steps whose metadata is there, which is written last."""
        return sorted(int(path.parent.name.removeprefix("step-")) for path in self.folder.glob("step-*/.metadata"))

    def save(self, step: int) -> None:
        if self.upload is not None:
            self.upload.result()
        if dist.get_rank() == 0:
            for old in self.whole()[:-2]:
                shutil.rmtree(self.path(old))
        path = self.path(step)
        answer = self.dcp.async_save(
            self.state(), checkpoint_id=path, async_stager=self.stager, process_group=self.group
        )
        self.upload = getattr(answer, "upload_completion", answer)

    def is_saving(self) -> bool:
        return self.upload is not None and not self.upload.done()


WAYS: dict[str, Callable[[torch.nn.Module, torch.optim.Optimizer, Path], Nothing]] = {
    "none": Nothing,
    "strata": Strata,
    "dcp": Dcp,
}


def main() -> None:
    way, folder, every, seconds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    width = int(sys.argv[5])
    rank = int(os.environ["RANK"])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = torch.nn.Sequential(*(torch.nn.Linear(width, width) for _ in range(LAYERS)))
    optimizer = torch.optim.AdamW(net.parameters(), foreach=True)
    inputs = torch.randn(8, width)
    # The optimizer's state is there from the first step on, so that it can be restored in place.
    net(inputs).square().mean().backward()
    optimizer.step()
    saver = WAYS[way](net, optimizer, folder)
    log = os.open(folder / "steps.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    first = saver.begin()
    pid = folder / f"{rank}.new"
    pid.write_text(str(os.getpid()))
    pid.rename(folder / f"pid.{rank}")
    if rank == 0:
        os.write(log, f"{time.monotonic()} start\n".encode())
    was_saving = False
    for step in itertools.count(first):
        began = time.monotonic()
        optimizer.zero_grad()
        net(inputs).square().mean().backward()
        for parameter in net.parameters():
            dist.all_reduce(parameter.grad[:8])  # what makes ranks wait for each other, without its bytes
        optimizer.step()
        time.sleep(max(0.0, seconds - (time.monotonic() - began)))  # the device computes, the host waits
        saver.made(step)
        was_saving = was_saving and saver.is_saving()
        if step % every == 0:
            saver.save(step)
            was_saving = True
        if rank == 0:
            os.write(log, f"{time.monotonic()} {step}{' saving' * was_saving}\n".encode())


if __name__ == "__main__":
    main()
