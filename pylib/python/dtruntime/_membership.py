"""This process's place in its job: one membership, whatever objects were made, in whatever order.

A membership begins directly at the coordinator and goes on through the node's sidecar from the first checkpoint call
on. Between the two every rank is at a barrier: no generation can open in which some ranks have moved and others have
not. Leaving it in good order is left to the process's end, unless an exception ended the process: then the others shall
learn that this rank is lost.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import strata
from strata import _core
from strata._private import private_socket
from strata._world import find_world, launched_by
from strata.errors import ConflictError, FencedError, InvalidError, StrataError, UnavailableError

T = TypeVar("T")

_log = logging.getLogger("dtruntime")

TIMEOUT = 30.0  # seconds for a coordinator or sidecar to answer
_GOODBYE = 5.0  # seconds to tell a coordinator that may be gone
# Seconds that the end of the process waits for commits. What was saved is the sidecar's to finish, but nobody else
# hears of a failure.
_FAREWELL = 30.0
_POLL = 0.05  # seconds between looks at a sidecar that has not reached its coordinator yet
_HANDOVER = "dtruntime: on to the sidecars"


class Membership:
    """One rank of the job. Every method blocks, obeys Ctrl-C, and may be called from any thread."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.job = _core.job_name()
        self.rank = rank
        self.world_size = world_size
        self._lock = threading.RLock()
        self._orchestrator: _Orchestrator | None = None
        self._direct: _core.DirectWorker | None = None
        self._through_sidecar: strata.Job | None = None
        self._store: str | None = None
        self._moved = False
        self._fenced = False

    def orchestrate(self, worker_id: str, url: str) -> None:
        """An orchestrator speaks for this rank: it joins at the coordinator at `url`."""
        with self._lock:
            line = _core.CoordinatorLine(url)
            if self._orchestrator is not None and self._orchestrator.line.url != line.url:
                raise InvalidError(
                    f"making an orchestrator for rank {self.rank}: this process has one for the coordinator at "
                    f"{self._orchestrator.line.url} already, this is {line.url}",
                    hint="one process is one rank of one job: use one coordinator_url",
                )
            self._orchestrator = _Orchestrator(worker_id, line)

    def register(self, ip: str, port: int) -> None:
        """Joins, or joins anew after the generation ended; does nothing for a member."""
        with self._lock:
            assert self._orchestrator is not None, "only orchestrators register"
            self._orchestrator.address = (ip, port)
            if self._fenced:
                self._forget()
            if self._direct is None and self._through_sidecar is None:
                self._direct = self._join_directly(self._orchestrator)

    def barrier(self, name: str, timeout: float | None) -> None:
        with self._lock:
            direct, through_sidecar = self._direct, self._through_sidecar
        if through_sidecar is not None:
            self._noting_the_end(lambda: through_sidecar.barrier(name, timeout))
        elif direct is not None:
            self._noting_the_end(lambda: direct.barrier(name, timeout))
        else:
            raise InvalidError(
                f"waiting at barrier {name!r}: rank {self.rank} of job {self.job} has not joined",
                hint="await orchestrator.register_worker(ip=…, port=…) first",
            )

    def generation(self) -> int | None:
        """Of the open generation, where this rank is known to be a member of it."""
        with self._lock:
            if self._through_sidecar is not None:
                return self._through_sidecar._session.generation
            return None if self._direct is None else self._direct.generation or None

    def checkpoints(self, store: str) -> strata.Job:
        """The membership through the node's sidecar, with checkpoints in `store`. The first call is collective.

        Raises:
            InvalidError: this process keeps its checkpoints elsewhere already.
            ConflictError: the sidecar belongs to another cluster than the orchestrator's coordinator.
            UnavailableError: no sidecar answers, and a private one may not be started.
            StrataTimeoutError: ranks are missing, with their numbers.
        """
        with self._lock:
            if self._through_sidecar is not None:
                if self._store != store:
                    raise InvalidError(
                        f"keeping checkpoints of job {self.job} in {store}: they are kept in {self._store}",
                        hint="a job has one store; give another run another job name (STRATA_JOB)",
                    )
                return self._through_sidecar
            self._store = store
            self._through_sidecar = self._noting_the_end(lambda: self._move(store))
            return self._through_sidecar

    def close(self, timeout: float | None = None) -> None:
        """Waits for the commits of what was saved, and leaves in good order; closing again does nothing."""
        with self._lock:
            direct, through_sidecar = self._direct, self._through_sidecar
            self._direct = self._through_sidecar = None
            self._moved = False
        if through_sidecar is not None:
            through_sidecar.close(timeout)
        if direct is not None:
            direct.leave(_GOODBYE)

    # -- moving

    def _join_directly(self, orchestrator: _Orchestrator) -> _core.DirectWorker:
        ip, port = orchestrator.address
        return orchestrator.line.join(
            job=self.job,
            rank=self.rank,
            world_size=self.world_size,
            worker_id=orchestrator.worker_id,
            ip=ip,
            port=port,
            timeout=TIMEOUT,
        )

    def _move(self, store: str) -> strata.Job:
        socket = self._socket()
        if self._orchestrator is not None and not self._moved:
            direct = self._direct or self._join_directly(self._orchestrator)
            self._direct = direct
            direct.barrier(_HANDOVER)
            direct.leave()
            self._direct = None
            # Never back: the others are moving too, and would not be met there.
            self._moved = True
        joined = strata.connect(
            job=self.job, rank=self.rank, world_size=self.world_size, store=store, socket=socket, signals=False
        )
        try:
            joined._session.wait_world()
        except BaseException:
            joined._leave(_GOODBYE)
            raise
        return joined

    def _socket(self) -> Path:
        """Of a sidecar of the right cluster, started if none answers and it is allowed."""
        line = None if self._orchestrator is None else self._orchestrator.line
        try:
            socket = _core.find_sidecar()
        except UnavailableError as error:
            return self._private_socket(line, error)
        if line is not None and (theirs := _cluster_of(socket)) != line.cluster(TIMEOUT):
            raise ConflictError(
                f"joining job {self.job} through the sidecar at {socket}: it belongs to the cluster {theirs}, not to "
                f"that of the coordinator at {line.url}",
                hint="start a sidecar for that coordinator and set STRATA_SOCKET to its socket",
            )
        return socket

    def _private_socket(self, line: _core.CoordinatorLine | None, missing: UnavailableError) -> Path:
        if line is None and self.world_size > 1:
            raise missing
        whose = "with a coordinator of its own"
        if line is not None:
            line.cluster(TIMEOUT)  # answers, or says why not
            whose = f"for the coordinator at {line.url}"
        _log.warning("no sidecar answers on this node: starting a private one for job %s, %s", self.job, whose)
        return private_socket(self.job, TIMEOUT, None if line is None else line.url)

    # -- ending

    def _noting_the_end(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except FencedError:
            self._fenced = True
            raise

    def _forget(self) -> None:
        """What belonged to the generation that ended; its errors have been raised."""
        self._fenced = False
        try:
            self.close(0.0)
        except StrataError as error:
            _log.info("leaving the generation that ended: %s", error)


class _Orchestrator:
    def __init__(self, worker_id: str, line: _core.CoordinatorLine) -> None:
        self.worker_id = worker_id
        self.line = line
        self.address = ("", 0)


def _cluster_of(socket: Path) -> str:
    """The cluster's uuid, as the sidecar heard it from its coordinator."""
    deadline = time.monotonic() + TIMEOUT
    operator = _core.Operator(socket=socket, timeout=TIMEOUT)
    while not (cluster := json.loads(operator.status(None))["cluster"]):
        if time.monotonic() >= deadline:
            raise UnavailableError(
                f"joining through the sidecar at {socket}: it has not reached its coordinator for {TIMEOUT:.0f} s",
                hint="its log says why; `strata status` shows it",
            )
        time.sleep(_POLL)
    return str(cluster)


_memberships: dict[int, Membership] = {}
_pid = 0  # that holds them; a forked child holds none
_memberships_lock = threading.Lock()


def of_rank(rank: int, world_size: int) -> Membership:
    """This process's membership as `rank`, made if there is none.

    Raises:
        InvalidError: a rank outside of its world, or one that this process has in a world of another size.
    """
    global _pid
    find_world(rank, world_size, {})
    with _memberships_lock:
        if not _memberships:
            atexit.register(_leave)
            _pid = os.getpid()
        known = _memberships.setdefault(rank, Membership(rank, world_size))
    if known.world_size != world_size:
        raise InvalidError(
            f"joining as rank {rank} of {world_size}: this process is rank {rank} of {known.world_size} already",
            hint="all objects of a process belong to one world",
        )
    return known


def of_this_process() -> Membership:
    """The orchestrator's membership, else what the environment says, else one rank of one.

    Raises:
        InvalidError: this process has orchestrators of several ranks.
    """
    with _memberships_lock:
        known = list(_memberships.values())
    if len(known) > 1:
        ranks = ", ".join(str(membership.rank) for membership in known)
        raise InvalidError(
            f"finding this process's rank: it has orchestrators of the ranks {ranks}", hint="run one process a rank"
        )
    return known[0] if known else of_rank(*find_world(None, None, os.environ))


def world_of_this_process() -> int | None:
    """As far as an orchestrator or a launcher says."""
    with _memberships_lock:
        worlds = {membership.world_size for membership in _memberships.values()}
    if len(worlds) == 1:
        return worlds.pop()
    launched = launched_by(os.environ)
    return None if launched is None else launched[2]


def generation_of(rank: int) -> int | None:
    """Of the open generation, where this process is a member of it as `rank`."""
    with _memberships_lock:
        known = _memberships.get(rank)
    return None if known is None else known.generation()


def _leave() -> None:
    """At the process's end. After an exception nothing is said: the others shall know that this rank is lost."""
    if getattr(sys, "last_value", None) is not None or os.getpid() != _pid:
        return
    for membership in _memberships.values():
        try:
            membership.close(_FAREWELL)
        except StrataError as error:
            _log.error("leaving job %s as rank %d: %s", membership.job, membership.rank, error)
