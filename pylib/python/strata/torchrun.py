"""torchrun's rendezvous in Strata's coordinator.

    torchrun --rdzv-backend=strata --rdzv-id=RUN --rdzv-endpoint=HOST:50051 --nnodes=2:4 --nproc-per-node=8 train.py

The wheel's entry point (group `torchrun.handlers`) makes the backend known, so nothing is imported by hand. Nothing of
a rendezvous lies on the training nodes: any of them may go, and the coordinator may be killed and come back.

- `--rdzv-endpoint=HOST:PORT` (or `https://HOST:PORT`): the coordinator, or all of a set, with commas between; else
  STRATA_COORDINATOR, the configuration, `endpoint.json`, http://127.0.0.1:50051. TLS and STRATA_TOKEN as for every
  other client.
- `--rdzv-id`: names the run, the same for all its agents. Must be given: torchrun's default is the same for all runs.
- `--rdzv-conf`: torch's own settings (join_timeout, last_call_timeout, close_timeout, keep_alive_interval,
  keep_alive_max_attempt), and `read_timeout` (60): seconds for which an agent that joins tries to reach the
  coordinator.

When an agent comes or goes, torch stops all ranks by SIGTERM and starts them in a world of another size. A script that
asks `job.reached_preemption` saves and leaves at one step, and replays nothing; let it end with a code other than 0
then (which counts as a restart), since an agent that is not told to stop takes 0 for the end of the job.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["create_handler", "handler"]


def handler() -> Callable[[Any], Any]:
    """What torch calls for each entry point of the group `torchrun.handlers`."""
    return create_handler


def create_handler(params: Any) -> Any:
    """A `torch.distributed.elastic.rendezvous.RendezvousHandler` for these `RendezvousParameters`.

    Dials nothing yet: its `next_rendezvous` raises `RendezvousConnectionError` when the coordinator can't be reached
    for `read_timeout`.

    Raises:
        InvalidError: an endpoint that is no address, a missing `--rdzv-id`, a setting that is no positive number.
        NotFoundError: a file of the TLS configuration is not there.
    """
    from ._rendezvous.handler import create  # torch is imported where it is used

    return create(params)
