"""Checkpoints of all ranks, in a directory or in S3."""

from __future__ import annotations

import os
from typing import Any, Literal

import strata
from strata import _core, aio
from strata.errors import InvalidError

from . import _membership
from ._calls import blocking

__all__ = ["CheckpointManager"]


class CheckpointManager:
    """Saves and restores this rank's state. Making it reaches for nothing.

    Which rank this is: the orchestrator of this process, else the launcher's environment, else one rank of one. Steps
    lie under the path in a folder of the job's name (STRATA_JOB, else "default"), and `strata checkpoints` and
    `strata.connect` know them. A node without a reachable sidecar gets a private one if the world is one or the
    orchestrator's coordinator answers; a warning of the logger "dtruntime" says so.

    Args:
        path: a directory that all nodes share; with backend "s3" a prefix below the configured store (STRATA_STORE or
            [store] url, which names the bucket), or a whole "s3://bucket/prefix".
        backend: "local" or "s3". Endpoint and credentials of S3 are those of the sidecar's configuration.

    Raises:
        InvalidError: another backend, or no bucket is named anywhere.
    """

    def __init__(self, path: str | os.PathLike[str], backend: Literal["local", "s3"] = "local") -> None:
        self._store = _store(os.fspath(path), backend)

    @property
    def store(self) -> str:
        """The URL or directory that holds the checkpoints."""
        return self._store

    async def save_async(self, state: Any, step: int) -> aio.SaveHandle:
        """Takes a step over and returns as soon as the state may be changed; it becomes durable in the background.

        Collective: every rank calls it with the same step. From its return on the step survives this process; it can be
        loaded once all ranks have saved it, atomically. `await handle.wait_committed()` waits for that.

        Args:
            state: bytes, or a dict of arrays and tensors; nested, with plain values among them, if you like.
            step: 0 or more; a step that is committed already is ConflictError.

        Raises:
            InvalidError: the state holds what can't be stored (names its path), before a byte is copied.
            FencedError: a rank was lost, naming it.
            UnavailableError: no sidecar answers, and a private one may not be started.
            StrataTimeoutError: at the first checkpoint call: ranks are missing, with their numbers.
        """
        job = await aio.call(self._job)
        return await aio.Job(job).save(step, state)

    def load(self, step: int | None = None) -> Any:
        """What this rank saved, in value and type; every byte verified before it is seen. Collective.

        Args:
            step: a committed step; None: the newest, the same on all ranks.

        Returns:
            The state; None when `step` is None and nothing is committed.

        Raises:
            NotFoundError: the named step does not exist.
            CorruptCheckpointError: stored bytes are damaged, naming the object.
            FencedError, UnavailableError, StrataTimeoutError: as `save_async`.
        """
        restored = blocking(lambda: self._job().restore(step))
        return None if restored is None else restored.state

    def _job(self) -> strata.Job:
        return _membership.of_this_process().checkpoints(self._store)

    def __repr__(self) -> str:
        return f"<CheckpointManager in {self._store}>"


def _store(path: str, backend: str) -> str:
    whole = path.startswith(("s3://", "s3a://"))
    if backend == "local":
        if "://" in path:
            raise InvalidError(
                f"keeping checkpoints in {path}: backend 'local' wants a directory", hint="give backend='s3' for S3"
            )
        return os.path.abspath(path)
    if backend != "s3":
        raise InvalidError(f"keeping checkpoints in {path}: backend={backend!r} is unknown", hint="use 'local' or 's3'")
    if whole:
        return path
    configured, _ = _core.configured_stores(None)
    if configured is None or not configured.startswith(("s3://", "s3a://")):
        raise InvalidError(
            f"keeping checkpoints under the prefix {path}: no bucket is configured",
            hint="set STRATA_STORE or [store] url to s3://bucket, or give path as s3://bucket/prefix",
        )
    return f"{configured.rstrip('/')}/{path.strip('/')}"
