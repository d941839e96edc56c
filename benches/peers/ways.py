"""Each way to save in the middle of training: what it holds up, and whether the save before is durable.

A way may put its copy off; then `before_step` waits for the rest of it, as its users are told to do.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from savers import DcpAsync, DcpAsyncProcess, Wait
from schedule import EVERY


class Way:
    """`save` returns when the loop may go on to its next forward."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fenced = 0.0
        """Seconds that the last save has held the optimizer's step."""

    def open(self, state: Any, optimizer: torch.optim.Optimizer) -> None:
        """What a training script does once."""

    def save(self, step: int, state: Any) -> None:
        """Waits for the save before, if it must."""

    def before_step(self) -> None:
        """Returns when the optimizer may write to the state."""

    def is_durable(self) -> bool:
        """Whether the last save is."""
        return True

    def finish(self) -> None:
        """Returns when it is; ends what `open` began."""


class Strata(Way):
    mode = "auto"

    def open(self, state: Any, optimizer: torch.optim.Optimizer) -> None:
        import strata
        import strata.torch

        self.job = strata.connect()
        if self.mode == "auto":
            strata.torch.fence(optimizer)
        self.job.prepare(state)
        self.handle: Any = None

    def save(self, step: int, state: Any) -> None:
        self.handle = self.job.save(step, state, mode=self.mode)

    def is_durable(self) -> bool:
        self.fenced = self.handle.stats.fenced
        return bool(self.handle.state == "committed")

    def finish(self) -> None:
        self.job.close()


class StrataCopy(Strata):
    mode = "copy"


class StrataFork(Strata):
    mode = "fork"


class Dcp(Way):
    """One of `savers`' ways to call torch.distributed.checkpoint.async_save."""

    saver: type[DcpAsync] = DcpAsync

    def open(self, state: Any, optimizer: torch.optim.Optimizer) -> None:
        self.inner = self.saver(self.folder)
        self.inner.open(state)
        self.wait: Wait | None = None

    def save(self, step: int, state: Any) -> None:
        if self.wait is not None:
            self.wait()
        self.wait = self.inner.save(step, state)

    def is_durable(self) -> bool:
        return self.inner.is_uploaded()

    def finish(self) -> None:
        if self.wait is not None:
            self.wait()
        self.inner.close()


class DcpProcess(Dcp):
    saver = DcpAsyncProcess


class TorchCheckpointing(Way):
    """torch_checkpointing as its documentation has it for the CPU; its O_DIRECT fails on unaligned writes (EINVAL)."""

    def open(self, state: Any, optimizer: torch.optim.Optimizer) -> None:
        import torch_checkpointing as package
        from torch_checkpointing.config import AsyncCheckpointSaverConfig
        from torch_checkpointing.staging import CheckpointStagerConfig
        from torch_checkpointing.storage.filesystem import LocalFileSystemStorageConfig

        staging = CheckpointStagerConfig(
            use_pinned_memory=False, use_shared_memory=True, use_async_staging=True, use_non_blocking_copy=False
        )
        self.manager = package.CheckpointManager.Config(
            save=AsyncCheckpointSaverConfig(staging_config=staging),
            storage_config=LocalFileSystemStorageConfig(use_direct_io=False),
        ).build()
        self.written: Any = None

    def save(self, step: int, state: Any) -> None:
        if self.written is not None:
            self.written.result()
        self.written = self.manager.save(str(newest_two(self.folder, step)), state)

    def before_step(self) -> None:
        started = time.perf_counter()
        with self.manager.lock():
            self.fenced = time.perf_counter() - started

    def is_durable(self) -> bool:
        return bool(self.written.done())

    def finish(self) -> None:
        self.written.result()
        self.manager.close()


class DlroverMemory(Way):
    """The part of DLRover's flash checkpoint that blocks: its handler's copy into shared memory. Nothing is durable."""

    def open(self, state: Any, optimizer: torch.optim.Optimizer) -> None:
        import logging

        from dlrover.python.elastic_agent.torch import ckpt_saver

        logging.disable(logging.INFO)
        os.environ["TORCHELASTIC_RUN_ID"] = f"peers-{os.getpid()}"
        self.package = ckpt_saver
        self.handler = ckpt_saver.SharedMemoryHandler(0, host=True)

    def save(self, step: int, state: Any) -> None:
        config = self.package.CheckpointConfig(step=step)
        self.handler.save_state_dict({**state, self.package.DLROVER_CKPT_CONFIG_KEY: config})

    def is_durable(self) -> bool:
        return False

    def finish(self) -> None:
        self.handler.unlink()


def newest_two(folder: Path, step: int) -> Path:
    """A fresh name for each step, and room for it."""
    for old in folder.glob("step-*"):
        if int(old.name.split("-")[1]) < step - 2 * EVERY + 1:
            shutil.rmtree(old)
    return folder / f"step-{step}"


WAYS: dict[str, type[Way]] = {
    "none": Way,
    "strata-lazy": Strata,
    "strata-fork": StrataFork,
    "strata-copy": StrataCopy,
    "dcp-async-process": DcpProcess,
    "dcp-async-thread": Dcp,
    "torch-checkpointing": TorchCheckpointing,
    "dlrover-memory": DlroverMemory,
}
