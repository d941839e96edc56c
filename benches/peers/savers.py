"""Each way to save a state, behind one small face: what blocks training, when it is durable, and the way back.

Packages are imported in `open`, as a training script does once.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

State = dict[str, torch.Tensor]
Wait = Callable[[], None]


class Saver:
    """`save` blocks as long as training is blocked and returns what waits for durability."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, state: State) -> None:
        """What a training script does once, before its first save."""

    def save(self, step: int, state: State) -> Wait:
        raise NotImplementedError

    def restore(self, step: int, target: State) -> None:
        """Until every byte lies in the tensors of `target`, as `load_state_dict` leaves it."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends what `open` began."""

    def path(self, step: int) -> Path:
        """A fresh name for each step, and room for it: only the newest two are kept."""
        for old in self.folder.glob("step-*"):
            if int(old.name.split("-")[1]) < step - 1:
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        return self.folder / f"step-{step}"


def fsync(path: Path) -> None:
    for target in [path, path.parent] if path.is_file() else [*path.iterdir(), path, path.parent]:
        descriptor = os.open(target, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def done() -> None:
    """Durable already."""


def copy_into(target: State, restored: State) -> None:
    for name, tensor in target.items():
        tensor.copy_(restored[name])


class TorchSave(Saver):
    def save(self, step: int, state: State) -> Wait:
        torch.save(state, self.path(step))
        fsync(self.path(step))
        return done

    def restore(self, step: int, target: State) -> None:
        copy_into(target, torch.load(self.path(step)))


class Safetensors(Saver):
    def open(self, state: State) -> None:
        from safetensors import torch as safetensors

        self.safetensors = safetensors

    def save(self, step: int, state: State) -> Wait:
        self.safetensors.save_file(state, self.path(step))
        fsync(self.path(step))
        return done

    def restore(self, step: int, target: State) -> None:
        copy_into(target, self.safetensors.load_file(self.path(step)))


class DcpAsync(Saver):
    """torch.distributed.checkpoint.async_save in a thread, pinned to its staging cache."""

    shared_memory = False

    def open(self, state: State) -> None:
        import torch.distributed as dist
        import torch.distributed.checkpoint as dcp
        from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "RANK": "0", "WORLD_SIZE": "1"}
        dist.init_process_group("gloo", rank=0, world_size=1)
        self.dcp = dcp
        options = StagingOptions(
            use_pinned_memory=False,
            use_shared_memory=self.shared_memory,
            use_async_staging=False,
            use_non_blocking_copy=False,
        )
        self.stager = DefaultStager(options)

    def options(self) -> dict[str, Any]:
        return {}

    def save(self, step: int, state: State) -> Wait:
        writer = self.dcp.FileSystemWriter(self.path(step), sync_files=True)
        answer = self.dcp.async_save(state, storage_writer=writer, async_stager=self.stager, **self.options())
        self.upload = getattr(answer, "upload_completion", answer)

        def wait() -> None:
            self.upload.result()
            fsync(self.path(step))

        return wait

    def is_uploaded(self) -> bool:
        return bool(self.upload.done())

    def restore(self, step: int, target: State) -> None:
        self.dcp.load(target, checkpoint_id=self.path(step))

    def close(self) -> None:
        import torch.distributed as dist

        self.stager.close()
        dist.destroy_process_group()


class DcpAsyncProcess(DcpAsync):
    """The same with its fastest options: a process, and staging in shared memory."""

    shared_memory = True

    def options(self) -> dict[str, Any]:
        from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType

        return {"async_checkpointer_type": AsyncCheckpointerType.PROCESS}


class Strata(Saver):
    def open(self, state: State) -> None:
        import strata

        self.job = strata.connect()

    def save(self, step: int, state: State) -> Wait:
        handle = self.job.save(step, state)

        def wait() -> None:
            handle.wait_committed()

        return wait

    def restore(self, step: int, target: State) -> None:
        assert self.job.restore(step, into=target) is not None

    def close(self) -> None:
        self.job.close()


class StrataPrepared(Strata):
    """With `prepare`, which runs in the background while training starts."""

    def open(self, state: State) -> None:
        super().open(state)
        self.job.prepare(state)


class StrataRestoring(Strata):
    """A trainer that comes back after another process of its rank: no `prepare`, what it restores says enough."""

    def open(self, state: State) -> None:
        super().open(state)
        assert self.job.restore(into=state) is not None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


SAVERS: dict[str, type[Saver]] = {
    "strata": StrataPrepared,
    "strata-restarted": StrataRestoring,
    "strata-rejoined": Strata,
    "strata-returned": StrataRestoring,
    "strata-cold": Strata,
    "dcp-async-process": DcpAsyncProcess,
    "dcp-async-thread": DcpAsync,
    "safetensors": Safetensors,
    "torch-save": TorchSave,
}
