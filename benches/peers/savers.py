"""Each way to save a state, behind one small face: what blocks training, and when it is durable."""

from __future__ import annotations

import os
import shutil
import threading
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

    def restore(self, step: int) -> State:
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


class TorchSave(Saver):
    def save(self, step: int, state: State) -> Wait:
        torch.save(state, self.path(step))
        fsync(self.path(step))
        return done

    def restore(self, step: int) -> State:
        return torch.load(self.path(step))


class Safetensors(Saver):
    def save(self, step: int, state: State) -> Wait:
        from safetensors.torch import save_file

        save_file(state, self.path(step))
        fsync(self.path(step))
        return done

    def restore(self, step: int) -> State:
        from safetensors.torch import load_file

        return load_file(self.path(step))


class DcpAsync(Saver):
    """torch.distributed.checkpoint.async_save with its staging cache, in a thread."""

    def open(self, state: State) -> None:
        import torch.distributed as dist
        import torch.distributed.checkpoint as dcp

        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        os.environ.setdefault("MASTER_PORT", "0")
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        self.dcp = dcp
        self.stager = self.make_stager()

    def make_stager(self) -> Any:
        from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

        return DefaultStager(StagingOptions(False, False, False, False))

    def options(self) -> dict[str, Any]:
        return {}

    def save(self, step: int, state: State) -> Wait:
        writer = self.dcp.FileSystemWriter(self.path(step), sync_files=True)
        answer = self.dcp.async_save(state, storage_writer=writer, async_stager=self.stager, **self.options())
        upload = getattr(answer, "upload_completion", answer)
        return lambda: (upload.result(), fsync(self.path(step)), None)[-1]

    def restore(self, step: int) -> State:
        from state import make_state

        state = {name: torch.empty_like(tensor) for name, tensor in make_state().items()}
        self.dcp.load(state, checkpoint_id=self.path(step))
        return state

    def close(self) -> None:
        import torch.distributed as dist

        self.stager.close()
        dist.destroy_process_group()


class DcpAsyncProcess(DcpAsync):
    """The same with its fastest options: a process, and staging in shared memory."""

    def open(self, state: State) -> None:
        import torch.distributed as dist
        import torch.distributed.checkpoint as dcp

        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = "127.0.0.1", str(free_port())
        os.environ["RANK"], os.environ["WORLD_SIZE"] = "0", "1"
        dist.init_process_group("gloo", rank=0, world_size=1)
        self.dcp = dcp
        self.stager = self.make_stager()

    def make_stager(self) -> Any:
        from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

        return DefaultStager(StagingOptions(False, True, False, False))

    def options(self) -> dict[str, Any]:
        from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType

        return {"async_checkpointer_type": AsyncCheckpointerType.PROCESS}


class Strata(Saver):
    def open(self, state: State) -> None:
        import strata

        self.job = strata.connect()

    def save(self, step: int, state: State) -> Wait:
        handle = self.job.save(step, state)
        return lambda: (handle.wait_committed(), None)[-1]

    def restore(self, step: int) -> State:
        restored = self.job.restore(step)
        assert restored is not None
        return restored.state

    def close(self) -> None:
        self.job.close()


class StrataPrepared(Strata):
    """With `prepare`, and the time it runs in the background before the first step is over."""

    def open(self, state: State) -> None:
        super().open(state)
        self.job.prepare(state)
        threading.Event().wait(5.0)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


SAVERS: dict[str, type[Saver]] = {
    "strata": StrataPrepared,
    "strata-cold": Strata,
    "dcp-async-process": DcpAsyncProcess,
    "dcp-async-thread": DcpAsync,
    "safetensors": Safetensors,
    "torch-save": TorchSave,
}
