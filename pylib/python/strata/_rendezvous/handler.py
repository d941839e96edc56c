"""torch's own rendezvous among agents, over Strata's records.

Of torch's `DynamicRendezvousHandler` this uses `_this_node` and `_bootstrap_store_info` beyond what is documented.
"""

from __future__ import annotations

import atexit
import logging
import os

from torch.distributed.elastic.rendezvous import (
    RendezvousConnectionError,
    RendezvousError,
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
)
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import create_handler

from .. import _core
from ..errors import InvalidError
from .backend import BRIEF, Backend
from .store import RecordStore

READ_TIMEOUT = 60  # seconds, as for torch's other backends
NO_ID = "none"  # torchrun's default

_log = logging.getLogger("strata")


def create(params: RendezvousParameters) -> RendezvousHandler:
    """See `strata.torchrun.create_handler`."""
    if params.run_id == NO_ID:
        raise InvalidError(
            "joining a rendezvous: it has no id, and the coordinator keeps those of many runs",
            hint="give all agents of this run the same --rdzv-id",
        )
    patience = params.get_as_int("read_timeout", READ_TIMEOUT)
    if patience is None or patience <= 0:
        raise InvalidError(f"reading --rdzv-conf: read_timeout is {patience}", hint="give whole seconds, from 1 up")
    records = _core.Records(params.run_id, params.endpoint or None)
    return Handler(Backend(records), RecordStore(records), params, float(patience))


class Handler(RendezvousHandler):  # type: ignore[misc]
    """torch's handler, that an absent coordinator costs no running job, and that takes rank 0 where it is now."""

    def __init__(self, backend: Backend, store: RecordStore, params: RendezvousParameters, patience: float) -> None:
        self._backend, self._patience = backend, patience
        self._inner = create_handler(store, backend, params)
        settings = self._inner.settings
        backend.expires = settings.keep_alive_interval * settings.keep_alive_max_attempt
        self._joined = self._told = False
        self._pid = os.getpid()

    def get_backend(self) -> str:
        return self._backend.name

    @property
    def use_agent_store(self) -> bool:
        shared: bool = self._inner.use_agent_store
        return shared

    def get_run_id(self) -> str:
        run: str = self._inner.get_run_id()
        return run

    def next_rendezvous(self) -> RendezvousInfo:
        with self._backend.patient(self._patience):
            if not self._joined:
                self._backend.begin_anew()
                self._joined = True
                # torch calls no `shutdown` when an agent is told to stop, since the others go on.
                atexit.register(self._leave)
            # torch would go on with the address of an earlier round's rank 0, which may be dead, or another agent now.
            self._inner._bootstrap_store_info = None
            return self._inner.next_rendezvous()

    def num_nodes_waiting(self) -> int:
        """0 while the coordinator is away: ranks that train need no rendezvous."""
        try:
            waiting: int = self._inner.num_nodes_waiting()
        except RendezvousConnectionError as error:
            if not self._told:
                _log.warning("training goes on, but no agent can join: %s", error)
            self._told = True
            return 0
        self._told = False
        return waiting

    def is_closed(self) -> bool:
        closed: bool = self._inner.is_closed()
        return closed

    def set_closed(self) -> None:
        self._inner.set_closed()

    def shutdown(self) -> bool:
        with self._backend.patient(self._patience if self._joined else BRIEF):
            closed: bool = self._inner.shutdown()
            self._leave()
            return closed

    def _leave(self) -> None:
        if not self._joined or self._pid != os.getpid():
            return  # was never there; or a forked child that ends
        atexit.unregister(self._leave)
        try:
            self._backend.leave(self._inner._this_node)
        except RendezvousError as error:
            _log.warning("leaving the rendezvous: %s", error)
