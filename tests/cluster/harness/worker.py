"""A trainer under remote control: reads one JSON command a line, answers one JSON line. Run by `trainer.Trainer`."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pkgutil
import sys
import time
import warnings
from typing import Any

import strata
from states import digest, frozen_state, make_state


class Worker:
    def __init__(self) -> None:
        self.job: strata.Job | None = None
        self.handles: dict[int, strata.SaveHandle] = {}
        self.ballast = b""

    def connect(self, **arguments: Any) -> dict[str, Any]:
        self.job = strata.connect(**arguments)
        return {}

    def save(self, step: int, seed: int = 0, megabytes: float = 1.0, rank: int = 0, **options: Any) -> dict[str, Any]:
        state = make_state(seed, step, rank, megabytes, replicated=bool(options.get("replicated")))
        return self.save_state(step, state, **options)

    def save_state(self, step: int, state: Any, **options: Any) -> dict[str, Any]:
        assert self.job is not None
        kind = options.pop("kind", None)
        if kind is not None:
            options["kind"] = getattr(strata, kind)
        handle = self.job.save(step, state, **options)
        self.handles[step] = handle
        return {"state": handle.state, "cold": handle.cold, "digest": digest(state)}

    def state(self, step: int) -> dict[str, Any]:
        """How far a save is."""
        return {"value": self.handles[step].state}

    def compute(self, seconds: float) -> dict[str, Any]:
        """Takes a core, as training does, for so much time of it."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pass
        return {}

    def grow(self, megabytes: int, children: int) -> dict[str, Any]:
        """Takes memory, which its end has to free, and forks as DataLoader does: the children end with it."""
        self.ballast = b"x" * (megabytes << 20)
        own = os.getpid()
        for _ in range(children):
            if os.fork() == 0:
                while os.getppid() == own:
                    time.sleep(0.05)
                os._exit(0)
        return {}

    def save_frozen(self, step: int, megabytes: float, **options: Any) -> dict[str, Any]:
        """A state of which only a tenth changes from step to step."""
        return self.save_state(step, frozen_state(step, megabytes), **options)

    def restore_frozen(self, megabytes: float) -> dict[str, Any]:
        assert self.job is not None
        restored = self.job.restore()
        assert restored is not None
        equal = digest(restored.state) == digest(frozen_state(restored.step, megabytes))
        return {"step": restored.step, "source": restored.source, "equal": equal}

    def save_function(self, step: int) -> dict[str, Any]:
        return self.save_state(step, {"sched": {"fn": lambda: None}})

    def restore_into(self, step: int, damage: str) -> dict[str, Any]:
        """Restores in place into a state whose weight has a wrong shape or dtype, or none of that."""
        assert self.job is not None
        target = make_state(1, step, 0)
        weight = target["model"]["weight"]
        target["model"]["weight"] = {"shape": weight[:-1], "dtype": weight.astype("f8"), "none": weight}[damage]
        before = digest(target)
        try:
            self.job.restore(step, into=target)
        except strata.StrataError:
            assert digest(target) == before, "a refused restore changed its target"
            raise
        return {"equal": digest(target) == digest(make_state(0, step, 0))}

    def wait_committed(self, step: int, timeout: float = 60.0) -> dict[str, Any]:
        info = self.handles[step].wait_committed(timeout=timeout)
        return {"stored_bytes": info.stored_bytes, "bytes": info.bytes, "step": info.step}

    def import_torch(self) -> dict[str, Any]:
        """Takes seconds, which are not to be part of a moment that a test has drawn."""
        importlib.import_module("tensors")
        return {}

    def train(
        self, seed: int, first: int, last: int, rank: int, acks: str, mode: str = "copy", megabytes: float = 1.0
    ) -> dict[str, Any]:
        """Saves every step, keeping two uncommitted; appends each step to the file `acks` once it is acknowledged.

        `mode`: "copy" saves arrays that are made for the step; "lazy" and "fork" tensors that change in place."""
        assert self.job is not None
        tensors = None
        if mode != "copy":
            tensors = importlib.import_module("tensors").Tensors(seed, rank, megabytes)
        waiting: list[tuple[int, strata.SaveHandle]] = []
        with open(acks, "a", buffering=1) as file:
            for step in range(first, last + 1):
                state = tensors.step(step) if tensors else make_state(seed, step, rank, megabytes)
                waiting.append((step, self.job.save(step, state, mode=mode)))
                while len(waiting) > (1 if step < last else 0):
                    saved, handle = waiting.pop(0)
                    handle.wait_committed(timeout=60.0)
                    file.write(f"{saved}\n")
        return {"step": last}

    def restore(self, **options: Any) -> dict[str, Any]:
        assert self.job is not None
        restored = self.job.restore(**options)
        if restored is None:
            return {"step": None}
        return {
            "step": restored.step,
            "source": restored.source,
            "committed": restored.committed,
            "digest": digest(restored.state),
        }

    def become(self, uid: int) -> dict[str, Any]:
        """Another user from here on. All modules are imported before: their files may be the first user's alone."""
        for module in pkgutil.walk_packages(strata.__path__, "strata."):
            if not module.name.startswith(("strata.cli", "strata.proto", "strata.__main__", "strata._hooks")):
                with contextlib.suppress(ImportError):  # what only the executable has
                    importlib.import_module(module.name)
        make_state(0, 0, 0)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        return {}

    def may_read(self, path: str) -> dict[str, Any]:
        """Whether this process could open a file."""
        try:
            os.close(os.open(path, os.O_RDONLY))
        except PermissionError:
            return {"value": False}
        return {"value": True}

    def call(self, name: str, arguments: list[Any], options: dict[str, Any] | None = None) -> dict[str, Any]:
        """Any other method of the job."""
        assert self.job is not None
        return {"value": getattr(self.job, name)(*arguments, **(options or {}))}

    def close(self) -> dict[str, Any]:
        assert self.job is not None
        self.job.close()
        return {}


def main() -> None:
    worker = Worker()
    for line in sys.stdin:
        command = json.loads(line)
        name = command.pop("do")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                answer = getattr(worker, name)(**command)
            except strata.StrataError as error:
                answer = {"error": error.kind, "class": type(error).__name__, "message": str(error), "hint": error.hint}
        answer["warnings"] = [str(warning.message) for warning in caught]
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
