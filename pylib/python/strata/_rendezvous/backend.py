"""The state of a rendezvous as one record: torch's `DynamicRendezvousHandler` reads and changes it.

torch pickles its state (`_RendezvousState`). Of that this module uses `closed` and `last_heartbeats`.
"""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from torch.distributed.elastic.rendezvous import RendezvousConnectionError, RendezvousStateError
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import RendezvousBackend

from .. import _core
from ..errors import StrataError, StrataTimeoutError, UnavailableError

STATE = "state"
# While ranks train an agent asks about once a second, and looks after its ranks in between.
BRIEF = 2.0
LONG = 1.0  # for a call that is answered at once
GONE = datetime.min.replace(tzinfo=UTC)  # a heartbeat of who has left


@contextmanager
def as_torch_says() -> Iterator[None]:
    """Errors of ours as those that torch's agent knows how to take."""
    try:
        yield
    except (UnavailableError, StrataTimeoutError) as error:
        raise RendezvousConnectionError(str(error)) from error
    except StrataError as error:
        raise RendezvousStateError(str(error)) from error


def unpickled(content: bytes) -> Any:
    try:
        return pickle.loads(content)
    except (pickle.PickleError, EOFError) as error:
        raise RendezvousStateError(f"reading the state of the rendezvous: {error}; take another --rdzv-id") from error


class Backend(RendezvousBackend):  # type: ignore[misc]
    """Compare-and-set of torch's state; a token is the record's version.

    Whoever was alive at our last contact stays so when the coordinator was away meanwhile: nobody could beat then, so
    those whose heartbeats ran out get new ones (as the coordinator's own leases are extended by its pauses).
    """

    def __init__(self, records: _core.Records) -> None:
        self.records = records
        self.expires = timedelta(seconds=15)
        self._seconds = BRIEF
        self._lock = threading.Lock()  # torch beats from a thread of its own
        self._away, self._contact = False, _now()

    @property
    def name(self) -> str:
        return "strata"

    @contextmanager
    def patient(self, seconds: float) -> Iterator[None]:
        """In it a call is tried for so long, as for an agent that has nothing else to do."""
        self._seconds = seconds
        try:
            yield
        finally:
            self._seconds = BRIEF

    def get_state(self) -> tuple[bytes, int] | None:
        with self._lock, as_torch_says():
            found = self._read()
            return self._renewed() if self._away else found

    def set_state(self, state: bytes, token: int | None = None) -> tuple[bytes, int, bool] | None:
        with self._lock, as_torch_says():
            if self._away and (renewed := self._renewed()) is not None:
                return (*renewed, False)  # another state than the caller has seen
            found = self._write(state, token or 0)
            if found is not None and self._away and (renewed := self._renewed()) is not None:
                return (*renewed, found[2])
            return found if found is not None and found[0] else None

    def begin_anew(self) -> None:
        """Forgets a run that was closed and whose agents are gone: its id may be used again."""
        with self._lock, as_torch_says():
            found = self._read()
            if found is None:
                return
            state = unpickled(found[0])
            dead = _now() - self.expires
            if state.closed and all(beat < dead for beat in state.last_heartbeats.values()):
                self._write(b"", found[1])

    def leave(self, node: Any) -> None:
        """Lets the heartbeats of an agent that ends run out at once, so that nobody waits for it."""
        with self._lock, as_torch_says():
            while (found := self._read()) is not None:
                state = unpickled(found[0])
                if state.last_heartbeats.get(node, GONE) == GONE:
                    return
                state.last_heartbeats[node] = GONE
                written = self._write(pickle.dumps(state), found[1])
                if written is None or written[2]:
                    return

    def _read(self) -> tuple[bytes, int] | None:
        with self._asking():
            found = self.records.get([STATE], wait=False, timeout=self._seconds).get(STATE)
        return found if found is not None and found[0] else None

    def _write(self, state: bytes, version: int) -> tuple[bytes, int, bool] | None:
        with self._asking():
            return self.records.set(STATE, state, version=version, timeout=self._seconds)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Knows a call that failed, or had to be made again for long, from one that is simply answered."""
        began = time.monotonic()
        try:
            yield
        except StrataError:
            self._away = True
            raise
        self._away = self._away or time.monotonic() - began > LONG
        if not self._away:
            self._contact = _now()

    def _renewed(self) -> tuple[bytes, int] | None:
        """The state, with new heartbeats for those that lost theirs while nobody could beat."""
        while (found := self._read()) is not None:
            state, now = unpickled(found[0]), _now()
            alive, dead = self._contact - self.expires, now - self.expires
            lost = [node for node, beat in state.last_heartbeats.items() if alive <= beat < dead]
            if lost:
                state.last_heartbeats.update(dict.fromkeys(lost, now))
                written = self._write(pickle.dumps(state), found[1])
                if written is None or not written[2]:
                    continue
                found = written[:2]
            self._away, self._contact = False, now
            return found
        self._away = False
        return None


def _now() -> datetime:
    return datetime.now(UTC)
