"""One rank's handle on its job."""

from __future__ import annotations

from strata.aio import call
from strata.errors import InvalidError

from . import _membership

__all__ = ["TrainingOrchestrator"]


class TrainingOrchestrator:
    """One rank of the job STRATA_JOB, else "default". Making it reaches for nothing.

    The membership's lease is kept by a thread of the core, so a busy interpreter does not lose it. It is left when the
    process ends; after an uncaught exception it is not, and the other ranks learn that this one is lost.

    Args:
        worker_id: a name for logs.
        coordinator_url: such as "http://localhost:50051"; https:// with the certificates of [sidecar] in the
            configuration.
        world_size, rank: every rank of the job declares the same size.

    Raises:
        InvalidError: a rank outside of its world, a URL that is none, or another orchestrator of this process
            contradicts it.
    """

    def __init__(self, worker_id: str, coordinator_url: str, world_size: int, rank: int) -> None:
        self._membership = _membership.of_rank(rank, world_size)
        self._membership.orchestrate(worker_id, coordinator_url)
        self.worker_id = worker_id

    @property
    def rank(self) -> int:
        return self._membership.rank

    @property
    def world_size(self) -> int:
        return self._membership.world_size

    async def register_worker(self, ip: str, port: int) -> None:
        """Joins the job, durably; does not wait for the other ranks. A member's call does nothing; after FencedError
        it joins the next generation.

        Args:
            ip, port: where this worker can be reached, for others to read; nothing is opened there.

        Raises:
            ConflictError: this rank is alive elsewhere, or another world size was declared.
            UnavailableError: no coordinator answers for 30 s.
        """
        if not 0 <= port < 65536:
            raise InvalidError(f"registering rank {self.rank}: port={port} is none", hint="ports are 0 to 65535")
        await call(self._membership.register, ip, port)

    async def wait_barrier(self, name: str, timeout: float | None = None) -> None:
        """Returns when all ranks of the world have called it with this name; the name can be used again.

        Args:
            timeout: seconds; None is the job's budget (10 minutes unless configured).

        Raises:
            StrataTimeoutError: ranks are missing, named with their hosts; calling again waits at the same barrier.
            FencedError: a rank was lost, naming it. Call `register_worker` again, or end the process.
            InvalidError: `register_worker` was not called.
        """
        await call(self._membership.barrier, name, timeout)

    async def close(self) -> None:
        """Waits for the commits of what was saved, raising their errors, and leaves in good order. Optional: the end of
        the process does the same."""
        await call(self._membership.close)

    def __repr__(self) -> str:
        return f"<TrainingOrchestrator {self.worker_id!r}, rank {self.rank} of {self.world_size}>"
