"""A rank's membership in a job: what a training script works with."""

from __future__ import annotations

import atexit
import os
import sys
import time
import warnings
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal

from . import _background, _core, _devices, _signals
from ._arguments import as_json, saving_ranks, step_number
from ._positions import Positions
from ._staging import MODES, Mode, Registered, fences, forking, take_over
from ._state import Planner, decode, restore_into
from ._state.buffers import Buffer
from .data import Dataset, OnDamage, Tail, check_ahead, check_batch_size
from .errors import InvalidError, StrataError, StrataWarning
from .goodput import Goodput
from .handle import SaveHandle
from .info import StepInfo
from .kinds import FULL, PARTS, Kind
from .restored import Restored

__all__ = ["Job"]

open_jobs: set[Job] = set()
"""Joined and not left: until then a rank is a member, whatever becomes of the object."""
abandoned: set[Job] = set()
"""Those of them whose `with job:` an error has ended."""


@atexit.register
def _leave_at_exit() -> None:
    if getattr(sys, "last_exc", None) is None and getattr(sys, "last_value", None) is None:
        for job in list(open_jobs):
            job._close_at_exit()


class Job:
    """Made by `strata.connect`. Leaving `with job:` waits for the commits of its saves and raises their errors.

    What failed in the background is also told on the next call, as a `StrataWarning`; training is never stopped by it.
    Once another rank is lost every call raises `FencedError`, naming who: end the process, or call `strata.connect`
    again to join the next generation. Every blocking call obeys Ctrl-C; `timeout` is in seconds, None the job's budget.
    """

    def __init__(self, session: _core.Session) -> None:
        self._session = session
        self._positions = Positions()
        self._planner = Planner()
        self._unsettled: dict[int, SaveHandle] = {}
        self._registered = Registered()
        self._closed = False
        self._watch: _signals.Watch | None = None
        self._pid = os.getpid()
        open_jobs.add(self)

    def _watch_sigterm(self) -> None:
        self._watch = _signals.watch(self._session.notify_preemption, lambda: self._session.has_ended)

    @property
    def name(self) -> str:
        return self._session.job

    @property
    def rank(self) -> int:
        return self._session.rank

    @property
    def world_size(self) -> int:
        return self._session.world_size

    @property
    def store(self) -> str:
        """URL of the job's store: steps lie under it in a folder of the job's name."""
        return self._session.store

    # -- saving

    def prepare(self, state: Any, timeout: float | None = None) -> None:
        """Sizes this rank's shared memory for states like `state` and touches it in the background, so that the first
        save is as quick as later ones. Optional; no value is read.

        Raises:
            OverloadedError: memory is too short for it, with the numbers.
            InvalidError: something in the state can't be stored; names its path.
        """
        self._tell()
        plan = self._planner.plan(state, None, False)
        self._session.prepare(plan.tree, [_described(buffer, 0) for buffer in plan.buffers], timeout)

    def save(
        self,
        step: int,
        state: Any,
        *,
        kind: Kind = FULL,
        mode: Mode = "auto",
        replicated: bool | str = False,
        ranks: Sequence[int] | None = None,
        metrics: Any = None,
        meta: Any = None,
    ) -> SaveHandle:
        """Takes a step over and returns as soon as the loop may go on; it becomes durable in the background.

        Collective: every rank (or every one of `ranks`) calls it with the same step. Once all ranks have staged it
        (`handle.wait_staged`; with mode "copy" from the return on) the step survives their processes (P3); it exists
        for others once it is committed over all ranks, atomically (P1). The positions of the job's datasets are stored
        with it.

        Args:
            step: 0 or more; a step that is committed already is ConflictError.
            state: nested dicts, lists and tuples of tensors, arrays and plain values.
            kind: strata.FULL, INCREMENTAL (what has not changed is not stored again, what has is stored as a difference
                where that pays), MODEL_ONLY, OPTIMIZER_ONLY.
            mode: how the state is taken over; `handle.mode` tells which it was.
                "copy": everything is copied before `save` returns.
                "lazy": what fenced optimizers own (`strata.torch.fence`) is copied beside the next forward and
                backward, and their step waits for it; the rest is copied before `save` returns. Where no optimizer is
                fenced, all tensors are copied behind it, and the caller lets `handle.wait_staged()` return before it
                writes to one.
                "fork": a forked child copies everything as it is now; needs room for what changes meanwhile.
                "auto": "lazy" as far as optimizers are fenced, else "copy".
            replicated: True, or a glob over dotted tensor names: those are equal on all ranks, and are stored once.
                States of random generators and Python values are stored per rank all the same.
            ranks: which ranks save; None: all. The others may call too, and get a handle to the same commit.
            metrics, meta: anything JSON holds; `all_steps` and retention rules see them. What is not finite (a loss
                that diverged) is stored as null, with a StrataWarning: it stops no save.

        Raises:
            InvalidError: the state holds what can't be stored (names its path), or mode is "fork" where no child can
                copy it (CUDA, shared memory), before a byte is copied.
            OverloadedError: memory is too short for the arena, with the numbers. A step without a free slot is no
                error here: its handle says "skipped".
        """
        started = time.perf_counter()
        self._tell()
        if mode not in MODES:
            raise InvalidError(f"saving step {step}: mode={mode!r} is unknown", hint=f"modes are {', '.join(MODES)}")
        if kind not in PARTS:
            raise InvalidError(f"saving step {step}: kind={kind!r} is unknown", hint=f"kinds are {', '.join(PARTS)}")
        number = step_number(step)
        saving = f"saving step {number}"
        doubts: list[str] = []
        not_finite: list[str] = []
        told = {what: as_json(what, value, not_finite) for what, value in (("metrics", metrics), ("meta", meta))}
        if not_finite:
            doubts.append(f"{', '.join(not_finite)}, stored as null: JSON has no such number")
        fences.wait()  # a save before this one may still be copying
        plan = self._planner.plan(state, PARTS[kind], replicated)
        mode = forking.possible(mode, plan.buffers, saving, doubts)
        held = [_devices.bring(buffer.hold()) for buffer in plan.buffers]
        staging = self._session.begin_save(
            number,
            kind,
            plan.tree,
            [_described(buffer, address) for buffer, (address, _) in zip(plan.buffers, held, strict=True)],
            ranks=saving_ranks(number, ranks, self.world_size),
            data=self._positions.all(),
            metrics=told["metrics"],
            meta=told["meta"],
        )
        taking = take_over(staging, plan.buffers, held, mode, self._registered)
        doubts += self._registered.doubts()
        if isinstance(replicated, str) and plan.buffers and not any(buffer.replicated for buffer in plan.buffers):
            example = plan.buffers[0].name
            doubts.append(f"replicated={replicated!r} matches no tensor; names look like {example!r}")
        _background.warn([f"{saving}: {doubt}" for doubt in doubts])
        total = time.perf_counter() - started
        self._session.saving_held(total)
        return self._track(SaveHandle(staging.handle, taking, total, self._settled))

    def wait_until_finished(self, timeout: float | None = None) -> None:
        """Returns when every save of this job object is committed. Raises the first error among them, each once; the
        others are its notes."""
        self._tell()
        deadline = None if timeout is None else time.monotonic() + timeout
        first: StrataError | None = None
        for handle in list(self._unsettled.values()):
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                handle.wait_committed(left)
            except StrataError as error:
                if first is None:
                    first = error
                else:
                    first.add_note(f"and: {error}")
        if first is not None:
            raise first

    def _track(self, handle: SaveHandle) -> SaveHandle:
        for step, older in list(self._unsettled.items()):
            if older.state == "committed":
                del self._unsettled[step]
        self._unsettled[handle.step] = handle
        return handle

    def _settled(self, step: int) -> None:
        self._unsettled.pop(step, None)

    # -- restoring

    def restore(
        self,
        step: int | None = None,
        *,
        into: Any = None,
        only: str | None = None,
        source: Literal["committed", "staged"] = "committed",
        on_damage: Literal["raise", "previous"] = "raise",
        timeout: float | None = None,
    ) -> Restored | None:
        """Brings back what this rank saved, every byte verified before it is seen (P2); None when the job has no step.

        Collective: with `step=None` all ranks get the same step, the newest that holds the whole state. The job's
        datasets go back to where they stood at that step.

        Args:
            step: a committed step; None: the newest whole one.
            into: a state of the same structure, restored in place: tensors and arrays keep their identity.
            only: glob over dotted tensor names, such as "model.*".
            source: "staged" also admits a step that all ranks hold in memory and that is not durable yet.
            on_damage: "previous" falls back to the step before a damaged one, on all ranks, with a warning.
            timeout: seconds.

        Raises:
            NotFoundError: the named step does not exist.
            CorruptCheckpointError: stored bytes are damaged, naming the object; or no step is left to fall back to.
            InvalidError: `into` has another structure, shape or dtype (nothing was changed); or a state without
                layout was saved by another world size.
            StrataTimeoutError: ranks are missing, with their numbers.
        """
        started = time.perf_counter()
        self._tell()
        fences.wait()  # a forked child may still be reading pages of a slot that a restore would fill
        number = None if step is None else step_number(step)
        found = self._session.restore(number, only=only, source=source, on_damage=on_damage, timeout=timeout)
        if found is None:
            return None
        try:
            _background.warn(
                [f"restoring step {found.step} instead of a damaged one: {what}" for what in found.damaged]
                + found.notes
            )
            state = decode(found, only) if into is None else restore_into(found, into, only)
            info = None if found.info is None else StepInfo.from_fields(found.info)
            self._positions.restored(found.data)
            return Restored(found.step, state, found.source, found.committed, found.mapped, info)
        finally:
            found.release()
            self._session.restoring_held(time.perf_counter() - started)

    # -- steps

    def latest_step(self, timeout: float | None = None) -> int | None:
        """The newest committed step that holds the whole state. `timeout`: seconds; None: the job's budget."""
        self._tell()
        return self._session.latest_step(timeout)

    def all_steps(self, timeout: float | None = None) -> list[int]:
        """Every committed step, ascending."""
        return [info.step for info in self.steps(timeout)]

    def steps(self, timeout: float | None = None) -> list[StepInfo]:
        """Every committed step with what is known of it, ascending."""
        self._tell()
        return [StepInfo.from_fields(fields) for fields in self._session.all_steps(timeout)]

    def pin(self, step: int, timeout: float | None = None) -> None:
        """Keeps a step from every retention rule and from `delete`. Durable.

        Raises:
            NotFoundError: it is not committed.
        """
        self._tell()
        self._session.set_pinned(step_number(step), True, timeout)

    def unpin(self, step: int, timeout: float | None = None) -> None:
        """Takes a pin back. Durable."""
        self._tell()
        self._session.set_pinned(step_number(step), False, timeout)

    def delete(self, step: int, timeout: float | None = None) -> int:
        """Removes a step for good and returns how many bytes that freed; chunks that other steps refer to stay.

        Raises:
            ConflictError: it is pinned, or the newest whole step.
            StrataTimeoutError: its objects are not all gone within `timeout` seconds; the removal goes on.
        """
        self._tell()
        return self._session.delete(step_number(step), timeout=timeout)

    # -- data

    def register_dataset(
        self,
        dataset_id: str,
        *,
        path: str | os.PathLike[str],
        format: str,
        shard_size: int,
        total_samples: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        dtype: str | None = None,
        sample_len: int | None = None,
        columns: Sequence[str] = (),
        on_damage: OnDamage = "raise",
    ) -> None:
        """Makes a dataset known to the job. Durable; every rank may call it, with the same arguments.

        Args:
            path: file or folder, or the URL of an object or a prefix (s3://, gs://, az://; reached as `[store]` says),
                whose files are taken in the order of their paths. Where it can be read it is scanned, and a wrong
                `total_samples` is InvalidError; of one that is registered already only the names are listed, and a
                file that has come since is ConflictError. Files in a bucket, and those that
                end with .gz or .zst, are read from the node's cache (`[data]` in the configuration).
            format: "parquet" (a row a sample), "jsonl" (a line), "webdataset" (tar files whose parts share a name),
                "npy" (arrays whose first axis counts the samples) or "tokens" (raw little-endian items; `dtype` and
                `sample_len` say how many make a sample). Any other is registered and placed by its numbers alone.
            shard_size: samples of a shard.
            total_samples: may be left out where the path can be read.
            shuffle, seed: the order of samples is a function of them, the epoch, and the dataset's contents.
            columns: of parquet, those that are read; of webdataset, parts of a sample. None: all.
            on_damage: what becomes of a damaged file: CorruptCheckpointError that names it, or it is left out, with a
                StrataWarning.

        Raises:
            ConflictError: another dataset has this id.
            UnavailableError, OverloadedError: files that must be fetched can't be, or the cache's disk is full.
        """
        self._tell()
        _, left_out = self._session.register_dataset(
            dataset_id,
            path=os.fspath(path),
            format=format,
            total_samples=total_samples or 0,
            shard_size=shard_size,
            shuffle=shuffle,
            seed=seed,
            dtype=dtype or "",
            sample_len=sample_len or 0,
            columns=list(columns),
            on_damage=on_damage,
        )
        for file, reason in left_out:
            warnings.warn(f"dataset {dataset_id!r} is without {file}: {reason}", StrataWarning, stacklevel=2)

    def dataset(
        self,
        dataset_id: str,
        batch_size: int,
        *,
        tail: Tail = "short",
        read_ahead: int = 2,
        on_damage: OnDamage = "raise",
    ) -> Dataset:
        """This rank's share of a registered dataset, from where the restored step stood, else from its beginning.

        Args:
            batch_size: samples of one step over all ranks; need not divide anything.
            tail: what an epoch's last step does when fewer are left: "short" (slices may be unequal or empty), "pad"
                or "drop".
            read_ahead: batches that are read before they are asked for, by as many threads; 0: none. Files that have to
                be fetched or unpacked are brought into the node's cache ahead of that, whatever it says.
            on_damage: what becomes of a file that is found damaged while it is read: CorruptCheckpointError that names
                it, or batches come without its samples, with a StrataWarning (`Batch.left_out`, `Dataset.quarantined`).

        Raises:
            NotFoundError: nobody registered it, or its files are not here.
            ConflictError: it has changed since the restored step.
        """
        self._tell()
        size = check_batch_size(dataset_id, batch_size)
        ahead = check_ahead(dataset_id, read_ahead)
        share = self._session.share(dataset_id, size, tail, on_damage)
        return Dataset(share, self._positions, self._session.report_damage, dataset_id, size, ahead)

    # -- together

    def barrier(self, name: str, timeout: float | None = None) -> None:
        """Returns when every rank has called it with this name.

        Raises:
            StrataTimeoutError: some have not, naming them and their hosts; calling again waits at the same barrier.
        """
        self._tell()
        self._session.barrier(name, timeout)

    def should_save(self, step: int, timeout: float | None = None) -> bool:
        """Whether to save at this step, True on all ranks at the same steps: at those of the configured interval
        (`checkpoint.interval_steps`), when an operator asks (`strata checkpoints now`), and where `reached_preemption`
        becomes true, so that a loop needs one place that saves.

        Ask at every step's end, on every rank with the same numbers, ascending. It costs a look into this process's
        memory, except while the ranks agree on a step: then a rank that is ahead waits, as long as it takes the others
        to say where they stand. The first call waits for the world to be complete. An interval of N steps is that with
        which the generation was opened.

        Args:
            step: the step that has just been taken, 0 or more.
            timeout: seconds to wait for the other ranks; None: the job's budget.

        Raises:
            FencedError: a rank was lost, and the generation has ended with it.
            StrataTimeoutError: a rank did not say where it stands; asking again goes on waiting.
        """
        self._tell()
        return self._session.should_save(step_number(step), timeout)

    def reached_preemption(self, step: int, timeout: float | None = None) -> bool:
        """Whether to save and stop at this step: after SIGTERM or a drain on any rank, True on all ranks at the same
        step. Ask once at every step's end; it costs nothing until then."""
        self._tell()
        if self._watch is not None:
            self._watch.asks = True
        return self._session.reached_preemption(step_number(step), timeout)

    def goodput(self, timeout: float | None = None) -> Goodput:
        """Where every second of the job has gone since its first rank joined, over all its restarts, as the coordinator
        has it: settled up to the last step that all ranks made. `timeout`: seconds; None: the job's budget."""
        self._tell()
        return Goodput.from_fields(self._session.goodput(timeout))

    # -- leaving

    def close(self, timeout: float | None = None) -> None:
        """Waits for the commits of this job object's saves, and leaves. Raises their errors; the job is left anyhow.
        Closing again does nothing."""
        if self._closed:
            return
        try:
            self.wait_until_finished(timeout)
        finally:
            self._leave(timeout)

    def _leave(self, timeout: float | None) -> None:
        self._closed = True
        open_jobs.discard(self)
        abandoned.discard(self)
        if self._watch is not None:
            _signals.forget(self._watch)
        fences.wait()
        self._registered.let_go()
        self._session.close(timeout)

    def _tell(self) -> None:
        _background.warn(self._session.take_warnings())

    def __enter__(self) -> Job:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
            self.close()
        elif not self._closed and self.world_size == 1:
            # The error in flight is the one to be seen; what was saved is committed without us.
            self._leave_quietly(error)
        else:
            # With several ranks the membership ends with this process: the others learn at once whom they have lost,
            # where a clean leave would let them wait for us.
            abandoned.add(self)

    def _leave_quietly(self, error: BaseException) -> None:
        try:
            self._leave(None)
        except StrataError as trouble:
            error.add_note(f"leaving the job {self.name!r} failed too: {trouble}")

    def _close_at_exit(self) -> None:
        """A script that ends well without `close` must not look like a rank that was lost."""
        if self not in abandoned and not self._closed and self._pid == os.getpid():
            self.close()

    def __repr__(self) -> str:
        return f"<Job {self.name!r}, rank {self.rank} of {self.world_size}>"


def _described(buffer: Buffer, address: int) -> tuple[str, str, list[int], int, int, bool]:
    return (buffer.name, buffer.dtype, list(buffer.shape), address, buffer.nbytes, buffer.replicated)
