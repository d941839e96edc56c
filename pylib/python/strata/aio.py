"""`strata` for asyncio: the same names, as coroutines.

Each call runs on a thread of its own, so that any number of ranks can wait in one loop. Cancelling an awaited call ends
it within 50 ms; a save or barrier that was on its way may still have happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Literal, ParamSpec, TypeVar

from . import _core, connecting, data, handle, inspection, job
from .data import Batch, OnDamage, Tail
from .goodput import Goodput
from .handle import SaveState, SaveStats
from .info import CommitInfo, StepInfo
from .inspection import Inspection
from .restored import Restored

__all__ = ["Dataset", "Job", "SaveHandle", "connect", "inspect"]

P = ParamSpec("P")
T = TypeVar("T")


async def call(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    loop = asyncio.get_running_loop()
    token = _core.CancelToken()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(result)  # type: ignore[arg-type]
        else:
            done.set_exception(error)

    def work() -> None:
        token.bind()
        result, error = None, None
        try:
            result = function(*arguments, **options)
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop was closed, and with it whoever waited
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, name="strata-aio", daemon=True).start()
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        token.cancel()
        if not done.done():
            await asyncio.wait({done})
        if done.done() and not done.cancelled():
            done.exception()  # seen: the caller has asked not to hear of it
        raise


class SaveHandle:
    """`strata.SaveHandle` with awaitable waits."""

    def __init__(self, handle: handle.SaveHandle) -> None:
        self._handle = handle

    @property
    def step(self) -> int:
        return self._handle.step

    @property
    def state(self) -> SaveState:
        return self._handle.state

    @property
    def cold(self) -> bool:
        return self._handle.cold

    @property
    def mode(self) -> str:
        return self._handle.mode

    @property
    def stats(self) -> SaveStats:
        return self._handle.stats

    async def wait_staged(self, timeout: float | None = None) -> None:
        await call(self._handle.wait_staged, timeout)

    async def wait_committed(self, timeout: float | None = None) -> CommitInfo:
        return await call(self._handle.wait_committed, timeout)

    def __repr__(self) -> str:
        return repr(self._handle)


class Dataset:
    """`strata.data.Dataset` for `async for`."""

    def __init__(self, dataset: data.Dataset) -> None:
        self._dataset = dataset

    @property
    def id(self) -> str:
        return self._dataset.id

    @property
    def epoch(self) -> int:
        return self._dataset.epoch

    @property
    def steps_left(self) -> int:
        return self._dataset.steps_left

    @property
    def quarantined(self) -> dict[str, str]:
        return self._dataset.quarantined

    async def __aiter__(self) -> AsyncIterator[Batch]:
        batches = iter(self._dataset)
        while (batch := await call(next, batches, None)) is not None:
            yield batch


class Job:
    """`strata.Job` with coroutines; made by `strata.aio.connect`, used in `async with`."""

    def __init__(self, job: job.Job) -> None:
        self._job = job

    @property
    def name(self) -> str:
        return self._job.name

    @property
    def rank(self) -> int:
        return self._job.rank

    @property
    def world_size(self) -> int:
        return self._job.world_size

    @property
    def store(self) -> str:
        return self._job.store

    async def _do(self, method: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        self._job._tell()  # here: a warning from the other thread would name a line of ours
        return await call(method, *arguments, **options)

    async def prepare(self, state: Any, timeout: float | None = None) -> None:
        await self._do(self._job.prepare, state, timeout)

    async def save(self, step: int, state: Any, **options: Any) -> SaveHandle:
        """As `strata.Job.save`; the tensors must not change before it returns."""
        return SaveHandle(await self._do(self._job.save, step, state, **options))

    async def wait_until_finished(self, timeout: float | None = None) -> None:
        await self._do(self._job.wait_until_finished, timeout)

    async def restore(
        self,
        step: int | None = None,
        *,
        into: Any = None,
        only: str | None = None,
        source: Literal["committed", "staged"] = "committed",
        on_damage: Literal["raise", "previous"] = "raise",
        timeout: float | None = None,
    ) -> Restored | None:
        return await self._do(
            self._job.restore, step, into=into, only=only, source=source, on_damage=on_damage, timeout=timeout
        )

    async def latest_step(self, timeout: float | None = None) -> int | None:
        return await self._do(self._job.latest_step, timeout)

    async def all_steps(self, timeout: float | None = None) -> list[int]:
        return await self._do(self._job.all_steps, timeout)

    async def steps(self, timeout: float | None = None) -> list[StepInfo]:
        return await self._do(self._job.steps, timeout)

    async def pin(self, step: int, timeout: float | None = None) -> None:
        await self._do(self._job.pin, step, timeout)

    async def unpin(self, step: int, timeout: float | None = None) -> None:
        await self._do(self._job.unpin, step, timeout)

    async def delete(self, step: int, timeout: float | None = None) -> int:
        return await self._do(self._job.delete, step, timeout)

    async def register_dataset(self, dataset_id: str, **options: Any) -> None:
        """As `strata.Job.register_dataset`."""
        await self._do(self._job.register_dataset, dataset_id, **options)

    async def dataset(
        self,
        dataset_id: str,
        batch_size: int,
        *,
        tail: Tail = "short",
        read_ahead: int = 2,
        on_damage: OnDamage = "raise",
    ) -> Dataset:
        opened = self._do(
            self._job.dataset, dataset_id, batch_size, tail=tail, read_ahead=read_ahead, on_damage=on_damage
        )
        return Dataset(await opened)

    async def barrier(self, name: str, timeout: float | None = None) -> None:
        await self._do(self._job.barrier, name, timeout)

    async def should_save(self, step: int, timeout: float | None = None) -> bool:
        return await self._do(self._job.should_save, step, timeout)

    async def reached_preemption(self, step: int, timeout: float | None = None) -> bool:
        return await self._do(self._job.reached_preemption, step, timeout)

    async def goodput(self, timeout: float | None = None) -> Goodput:
        return await self._do(self._job.goodput, timeout)

    async def close(self, timeout: float | None = None) -> None:
        await call(self._job.close, timeout)

    async def __aenter__(self) -> Job:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await call(self._job.__exit__, kind, error, trace)

    def __repr__(self) -> str:
        return repr(self._job)


async def connect(*, signals: bool = True, **options: Any) -> Job:
    """As `strata.connect`."""
    joined = await call(connecting.connect, signals=False, **options)
    if signals:
        joined._watch_sigterm()  # here: Python allows handlers in the main thread only
    return Job(joined)


async def inspect(url: str, step: int | None = None) -> Inspection:
    """As `strata.inspect`."""
    return await call(inspection.inspect, url, step)
