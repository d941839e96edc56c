"""`strata.connect`: finding the sidecar and joining the job."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from . import _core, _stacks, _standby
from ._private import private_socket
from ._world import find_world
from .errors import InvalidError, UnavailableError
from .job import Job, abandoned

__all__ = ["connect"]

_log = logging.getLogger("strata")

_POLL = 0.1  # seconds between looks for a sidecar that is not there yet


def connect(
    *,
    job: str | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    store: str | os.PathLike[str] | None = None,
    socket: str | os.PathLike[str] | None = None,
    coordinator: str | None = None,
    local: bool = False,
    signals: bool = True,
    timeout: float = 30.0,
) -> Job:
    """Joins a job as one rank, through this node's sidecar. Use the result in a `with` statement.

    Returns once this rank is registered (a process that `strata run --standby` has started ahead of time: once it is
    needed); calls that need the whole world (save, restore, barrier) wait for it.

    Args:
        job: its name; else STRATA_JOB, else "default".
        rank, world_size: else STRATA_RANK, RANK, Open MPI's or Slurm's with their sizes, else 0 of 1.
        store: directory, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix; else STRATA_STORE, else
            the sidecar's own.
        socket: of the sidecar; else STRATA_SOCKET, else the usual places.
        coordinator: URL that the sidecar's coordinator must have; else STRATA_COORDINATOR, else any.
        local: use a private sidecar with its own coordinator, started if need be; a world of one only. Where no sidecar
            answers, none of socket and coordinator is named and the world is one, that is done without asking.
        signals: SIGTERM makes `reached_preemption` true; chains to an existing handler. Main thread only. And a rank
            that stands still in C code, with the interpreter's lock, can tell its stack: faulthandler is registered
            for a real-time signal that has no handler.
        timeout: seconds, for a sidecar to answer and the registration to be taken.

    Raises:
        UnavailableError: no sidecar answers (each path tried, and why), or it can't reach coordinator or store.
        ConflictError: this rank lives already, or ranks disagree about world size or store.
        DeniedError: the sidecar belongs to another user.
        InvalidError: another version on the other side, or arguments that contradict each other.
    """
    _standby.wait()
    deadline = time.monotonic() + timeout
    name = _core.job_name(job)
    chosen_rank, world = find_world(rank, world_size, os.environ)
    if local and world > 1:
        raise InvalidError(
            f"connecting to job {name!r}: local=True serves a world of one, this is rank {chosen_rank} of {world}",
            hint="start `strata up` on the node, or launch with `strata run`",
        )
    _leave_abandoned(name, chosen_rank)
    named = socket is not None or coordinator is not None
    named = named or bool(os.environ.get("STRATA_SOCKET") or os.environ.get("STRATA_COORDINATOR"))
    alone = world == 1 and not named
    found = private_socket(name, timeout) if local else _find(name, socket, alone, deadline)
    session = _core.connect(
        job=name,
        rank=chosen_rank,
        world_size=world,
        store=None if store is None else os.fspath(store),
        socket=found,
        coordinator=coordinator,
        timeout=max(1.0, deadline - time.monotonic()),
        stacks=_stacks.outside(signals),
    )
    joined = Job(session)
    if signals:
        joined._watch_sigterm()
    return joined


def _find(name: str, socket: str | os.PathLike[str] | None, alone: bool, deadline: float) -> Path:
    """A socket that answers. A sidecar that is only about to start is waited for."""
    path = None if socket is None else os.fspath(socket)
    told = False
    while True:
        try:
            return _core.find_sidecar(path)
        except UnavailableError as error:
            if alone:
                return private_socket(name, max(1.0, deadline - time.monotonic()))
            if time.monotonic() >= deadline:
                raise
            if not told:
                _log.warning("waiting for this node's sidecar: %s", error.message)
            told = True
        time.sleep(_POLL)


def _leave_abandoned(name: str, rank: int) -> None:
    """A rank whose `with job:` an error ended stays a member until its process ends; here the process goes on."""
    for earlier in list(abandoned):
        if earlier.name == name and earlier.rank == rank:
            earlier._leave(None)
